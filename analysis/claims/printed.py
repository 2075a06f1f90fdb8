"""The paper's own numbers under the same question: a z test of one number an arm, with the spread that it prints."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from analysis.cells import paper_facts
from analysis.claims.criteria import Outcome, Side, bounded
from analysis.claims.declared import Selector
from analysis.claims.estimates import Normal
from analysis.items import Item, facts_of
from analysis.kinds.across import ALL, AcrossTable
from analysis.kinds.methods import MethodTable
from analysis.kinds.scores import ScoreTable
from lora_repro.tasks import LOSS


class Score(NamedTuple):
    """A score that the paper prints, in [0, 1]."""

    value: float
    fluctuation: float | None
    """The standard deviation that it prints for the task."""


class Printed(NamedTuple):
    """The test on the paper's numbers of one task."""

    task: str
    outcome: Outcome | None
    """None where the paper prints no spread, and of a test that has a margin: the paper has none."""
    differences: Mapping[str, float]
    """By what is compared."""
    holds_from: float | None
    """The margin from which, or up to which, it would hold, of a test that has one."""
    lacking: tuple[str, ...] = ()
    """Comparisons with an arm that it does not print there, by name: then nothing is tested."""


def printed(
    item: Item,
    of: Selector,
    than: Mapping[str, Selector],
    limit: float | None,
    side: Side,
    sign: float,
    level: float,
    margin_at: Callable[[Sequence[Normal]], float | None],
    metric: str | None = None,
) -> tuple[Printed, ...]:
    """Tests the paper's numbers, task by task, where it prints all arms and a spread of each.

    Args:
        item: Whose facts hold the numbers.
        of: The arm of the claim.
        than: The arms that it is compared with, by name.
        limit: As for ours; None of a test that has a margin.
        side: As for ours.
        sign: 1 if differences are `than` minus `of`, -1 if `of` minus `than`.
        level: Of what contradicts, as for ours.
        margin_at: Returns the margin from which, or up to which, it holds with these differences.
        metric: Which of the item's metrics; None of an item that shows one. A lower loss is better.
    """
    sign = -sign if metric == LOSS.name else sign
    found = []
    for task, scores in _by_task(item, {"": of, **than}, metric).items():
        if (own := scores.pop("", None)) is None:
            continue
        differences = {name: sign * (score.value - own.value) for name, score in scores.items()}
        lacking = tuple(name for name in than if name not in scores)
        outcome, holds_from = None, None
        spreads = [score.fluctuation for score in (own, *scores.values())]
        if None not in spreads and not lacking:
            normals = {
                name: Normal(differences[name], math.hypot(own.fluctuation or 0.0, score.fluctuation or 0.0))
                for name, score in scores.items()
            }
            if limit is not None:
                outcome = bounded(normals, limit, side, level=level)
            else:
                holds_from = margin_at(list(normals.values()))
        found.append(Printed(task, outcome, differences, holds_from, lacking))
    return tuple(found)


def _by_task(item: Item, selectors: Mapping[str, Selector], metric: str | None) -> dict[str, dict[str, Score]]:
    found: dict[str, dict[str, Score]] = {}
    for name, selector in selectors.items():
        match item:
            case ScoreTable():
                scores = _of_scores(item, selector)
            case AcrossTable():
                scores = _of_columns(item, selector, metric)
            case _:
                scores = _of_methods(item, selector)
        for task, score in scores.items():
            found.setdefault(task, {})[name] = score
    return found


def _of_scores(item: ScoreTable, selector: Selector) -> dict[str, Score]:
    """Finds a cell of a table by the keys of its rows and columns that the selector has."""
    row_key, column_key = (axis.key.rpartition(".")[2] for axis in (item.rows, item.columns))
    if not {row_key, column_key} & selector.keys():
        return {}
    found: dict[str, list[Score]] = {}
    for (task, row, column), fact in paper_facts(item).items():
        at = {row_key: row, column_key: column}
        if all(str(selector[key]) == str(value) for key, value in at.items() if key in selector):
            found.setdefault(task, []).append(Score(fact.value, fact.fluctuation))
    return {task: scores[0] for task, scores in found.items() if len(scores) == 1}


def _of_methods(item: Item, selector: Selector) -> dict[str, Score]:
    """Finds the row of the facts that has the method and the settings of a selector."""
    if not isinstance(item, MethodTable) or item.paper is None:
        return {}
    lines, rows = item.paper, facts_of(item.name).get("rows", [])
    matching = [row for row in rows if _is_row(row, selector, lines.methods, lines.settings)]
    if len(matching) != 1:
        return {}
    row, spreads = matching[0], lines.fluctuation
    return {
        task: Score(round(row[key] / 100, 6), round(spreads[task] / 100, 6) if task in spreads else None)
        for task, key in lines.scores.items()
        if key in row
    }


def _of_columns(item: AcrossTable, selector: Selector, metric: str | None) -> dict[str, Score]:
    """Finds the row of each of the paper's models, in each column of the metric, or of the selector's own size."""
    if item.paper is None:
        return {}
    key = None if item.columns.key is None else item.columns.key.rpartition(".")[2]
    of_row = {name: value for name, value in selector.items() if name != key}
    found: dict[str, Score] = {}
    rows: list[Mapping[str, Any]] = facts_of(item.name).get("rows", [])
    for model in dict.fromkeys(row["model"] for row in rows):
        lines = [row for row in rows if row["model"] == model and _is_row(row, of_row, item.paper.methods, {})]
        columns = {fact: column for column, fact in reversed(item.columns.facts.items())}  # the first of alike ones
        for fact, column in columns.items() if len(lines) == 1 else ():
            task, _, second = column.partition(" ")
            wanted = metric if key is None else ALL if selector.get(key) is None else str(selector[key])
            if fact not in lines[0] or (second and second != wanted):
                continue
            spread = lines[0].get(f"{fact}_std", item.paper.fluctuation)
            score = Score(
                item.columns.of_paper(column, lines[0][fact]),
                None if spread is None else item.columns.of_paper(column, spread),
            )
            found.setdefault(model if item.columns.metrics else task, score)
    return found


def _is_row(
    row: Mapping[str, Any], selector: Selector, methods: Mapping[str, str], settings: Mapping[str, str]
) -> bool:
    own = dict(row) | {ours: row[theirs] for theirs, ours in settings.items() if theirs in row}
    own |= {"method": methods.get(row["method"])}
    if "targets" in own:
        own["targets"] = ",".join(str(own["targets"]))
    wanted = {key: value if isinstance(value, list) else [value] for key, value in selector.items()}
    return all(str(own.get(key)) in map(str, values) for key, values in wanted.items())
