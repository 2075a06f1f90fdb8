"""Where the numbers of a table come from: its cells, selected by their settings, with facts, runs and tuning."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from analysis.arms import comparable, places
from analysis.cell import Cell, PaperFact, Place, SeedRun, commit_of, computed_on, label, tuning_record
from analysis.claims.declared import load_claims
from analysis.items import Item, Request, item_names, read_item
from analysis.kinds.across import Across, AcrossTable, read_across
from analysis.kinds.facts import SPREAD, FactsAlone
from analysis.kinds.methods import Methods, MethodTable, PaperLines, read_methods
from analysis.kinds.scores import ScoreTable
from analysis.protocol import Protocol
from analysis.render.methods import by_budget, has_budgets, paper_settings
from analysis.runs import flat
from analysis.stats import Paired
from lora_repro.errors import InputError, did_you_mean
from lora_repro.store.record import plain
from lora_repro.sweep.tuning import Ranked
from lora_repro.tasks import Metric, Unit

ALIASES = {"task": "task.name", "model": "model.name", "method": "method.name"}
"""Keys that a command line writes otherwise than a record."""

NOT_SETTINGS = ("seed", "model.config.")
"""Beginnings of keys by which no cell is selected: it holds all seeds, and shapes follow from the model's name."""

OfScores = ScoreTable | MethodTable | AcrossTable
"""The kinds whose cells are explained."""

OF_THE_SWEEP = ("regime", "seed", "tune")
"""Keys that choose other runs, as in `table 6 regime=tuned`, and select no cells."""

MOST_LISTED = 30
"""Values that a refusal lists."""


class Order(NamedTuple):
    """The place of a cell's method by tuning scores, and that with the better value next to the chosen one."""

    ranked: Ranked
    of: int
    """Among how many."""


class Explained(NamedTuple):
    """A cell, and what is said of it beyond what it holds."""

    cell: Cell
    settings: dict[str, Any]
    """Dotted keys and printed values, by which it is selected."""
    fact: str | None = None
    """The key of the facts' line that holds the paper's number."""
    difference: Paired | None = None
    """Its score minus that of the baseline, seed by seed."""
    order: Order | None = None
    namesakes: tuple[str, ...] = ()
    """Runs of the store that are of no cell, but are called like one of its own up to the hash."""


class Explanation(NamedTuple):
    """The selected cells of a table."""

    item: "OfScores"
    scale: str
    given: Sequence[str]
    """Overrides of its sweep."""
    protocol: Protocol
    entries: list[Explained]
    of: int
    """How many cells the table has."""
    baseline: Mapping[str, Any]
    """The settings of the baseline that differences are taken from; empty without one."""
    planned: list[str]
    """Why runs of the sweep cannot run yet, where they are no cells."""
    has_budgets: bool = False
    """Whether each budget has a baseline of its own."""


def load(name: str) -> Item:
    """Returns an item by its name.

    Raises:
        InputError: If there is no such item.
    """
    there = item_names()
    named = f"table{name}" if name.isdecimal() else name
    if named not in there:
        hint = did_you_mean(name, there)
        if name in {claim.id for claim in load_claims().claims}:
            hint = f" It is a claim: python -m analysis claims {name}"
        raise InputError(f"explain: there is no item {name!r}.{hint}\nItems: {', '.join(in_order(there))}.")
    return read_item(named)


def in_order(there: Iterable[str]) -> list[str]:
    """Orders items as a reader looks for them: tables, figures, then those that have a name."""
    word, digits = (lambda name: name.rstrip("0123456789")), (lambda name: name[len(name.rstrip("0123456789")) :])
    return sorted(there, key=lambda name: (not digits(name), word(name) == "figure", digits(name).zfill(2), name))


def without_cells(item: Item) -> str:
    """Says where the numbers of an item come from that is no table of scores, and where to look."""
    facts = f"analysis/items/{item.name}.yaml"
    word = "figure" if item.name.startswith("figure") or item.word == "figure" else "table"
    ask = f"python -m analysis {word} {item.number}"
    sweep = getattr(item, "sweep", None)
    if isinstance(item, FactsAlone) or sweep is None:
        return (
            f"{item.name}: no runs of ours are behind it. Its numbers are the paper's, the facts of {facts}.\n"
            f"Print them: {ask}"
        )
    others = [read_item(each) for each in in_order(item_names())]
    tables = [each.name for each in others if isinstance(each, OfScores) and each.sweep == sweep]
    lines = [
        f"{item.name}: it has no cells of scores. Its runs are those of the sweep {sweep}, the paper's numbers are the "
        f"facts of {facts}.",
        f"Its runs: python -m analysis plan +sweeps={sweep} --scale SCALE",
        f"What it shows, with the ids of its runs: {ask} --format json",
    ]
    lines += [f"The same runs as a table: python -m analysis explain {each}" for each in tables]
    return "\n".join(lines)


def read(item: OfScores, request: Request, words: Sequence[str]) -> Explanation:
    """Joins an item to the store, and selects cells.

    Args:
        item: A table of scores.
        request: Scale, store, overrides of the sweep and protocol.
        words: KEY=VALUE that select cells; none selects all.

    Raises:
        InputError: If there are no cells, or none has a key, a value, or all that is asked for.
    """
    baseline: Mapping[str, Any] = {}
    planned: list[str] = []
    of_budgets = False
    if isinstance(item, ScoreTable):
        table = item.read(request)
        protocol, entries = table.protocol, [_of_scores(item, cell) for cell in table.cells]
    elif isinstance(item, AcrossTable):
        across = read_across(item, request)
        protocol, planned, baseline = across.protocol, across.planned, item.baseline
        entries = _of_across(item, across)
    else:
        methods = read_methods(item, request)
        protocol, planned, baseline = methods.protocol, methods.planned, item.baseline
        entries, of_budgets = _of_methods(item, methods), has_budgets(methods)
    if not entries:
        why = f" Its runs are planned and cannot run yet: {'; '.join(planned)}." if planned else ""
        raise InputError(f"explain: {item.name} has no cells at scale={request.scale}.{why}\nGive another --scale.")
    found = select(entries, words, item.name, request.scale)
    order = places(comparable(each.cell for each in entries))
    folder = Path(request.store) / "runs"
    of_item = {run.run_id for each in entries for run in each.cell.runs}
    there = [run_id for run_id in os.listdir(folder) if run_id not in of_item] if folder.is_dir() else []
    found = [
        each._replace(
            order=Order(*order[id(each.cell.tuning)]) if id(each.cell.tuning) in order else None,
            namesakes=_namesakes(each.cell.runs, there),
        )
        for each in found
    ]
    return Explanation(
        item=item,
        scale=request.scale,
        given=request.overrides,
        protocol=protocol,
        entries=found,
        of=len(entries),
        baseline=baseline,
        planned=planned,
        has_budgets=of_budgets,
    )


def tasks_of_paper(item: MethodTable | AcrossTable) -> set[str]:
    """Returns the tasks, as we call them, of which the paper's table has a number."""
    if isinstance(item, MethodTable):
        return set() if item.paper is None else {*item.paper.scores}
    return {column.partition(" ")[0] for column in item.columns.facts}


def _of_scores(item: ScoreTable, cell: Cell) -> Explained:
    place = cell.place
    settings = _settings(cell)
    if cell.config is None:
        model = cell.paper.model if place.model is None and cell.paper is not None else place.model
        settings = {"task.name": place.task, "model.name": model}
        settings |= {item.rows.key: place.row, item.columns.key: place.column}
    fact = None
    if cell.paper is not None:
        fact = place.task if item.columns.facts is not None else str(item.columns.values[_as_key(place.column)])
    return Explained(cell, settings, fact)


def _as_key(column: str | int | float) -> str | int:
    return int(column) if isinstance(column, float) else column


def _of_methods(item: MethodTable, methods: Methods) -> list[Explained]:
    """Returns the paper's lines and ours as the table has them."""
    lines = by_budget(methods.lines) if item.paper is None else methods.lines
    ours = [Explained(line.arm, _settings(line.arm), difference=line.difference) for line in lines]
    if item.paper is None:
        return ours
    names = [*dict.fromkeys([*item.paper.methods.values(), *(each.cell.place.row for each in ours)])]
    paper = [each for row in methods.paper for each in _of_paper(item, item.paper, row)]
    return [each for name in names for each in (*paper, *ours) if each.cell.place.row == name]


def _of_paper(item: MethodTable, paper: PaperLines, row: Mapping[str, Any]) -> list[Explained]:
    """Returns the cells of a line of the paper: one for each task."""
    method = paper.methods.get(row["method"])
    if method is None:
        return []
    own = {f"method.{name}": value for name, value in paper_settings(paper, row).items()}
    found, metric = [], Metric(item.metrics[-1], Unit.percent)
    for task, key in paper.scores.items():
        if key in row:
            fact = PaperFact(round(row[key] / 100, 6), None, row["model"], dict(row))
            cell = Cell(Place(task, None, method, metric.name), metric, fact)
            settings = {"task.name": task, "model.name": row["model"], "method.name": method, **own}
            found.append(Explained(cell, settings, key))
    return found


def _of_across(item: AcrossTable, table: Across) -> list[Explained]:
    """Returns the paper's cells and ours model by model, in the order of the table."""
    found = []
    for block in table.blocks:
        for row in block.paper:
            for column in table.columns:
                if (key := item.columns.facts.get(column, "")) in row:
                    found.append(_of_row(item, row, column, key))
        for line in block.lines:
            of_grid = {key: value for key, value in line.settings.items() if key in item.settings}
            found += [
                Explained(cell, _settings(cell) | of_grid, difference=line.differences.get(column))
                for column, cell in line.cells.items()
            ]
    return found


def _of_row(item: AcrossTable, row: Mapping[str, Any], column: str, key: str) -> Explained:
    """Returns one number of a row of the paper."""
    assert item.paper is not None
    method, task = str(item.paper.methods.get(row["method"], row["method"])), column.partition(" ")[0]
    spread = row.get(f"{key}{SPREAD}")
    value, sd = (
        item.columns.of_paper(column, row[key]),
        None if spread is None else item.columns.of_paper(column, spread),
    )
    fact = PaperFact(value, sd, row["model"], dict(row))
    metric = item.columns.metric(column) or Metric(item.facts["unit"], Unit.percent)
    cell = Cell(Place(task, None, method, column), metric, fact)
    own = {f"method.{name}": row[name] for name in item.paper.settings if name in row}
    return Explained(cell, {"task.name": task, "model.name": row["model"], "method.name": method, **own}, key)


def _settings(cell: Cell) -> dict[str, Any]:
    """Returns the settings of a cell's runs, written as the table writes them."""
    if cell.config is None:
        return {}
    values = {key: label(value) for key, value in flat(plain(cell.config)).items() if value is not None}
    tuning = cell.tuning
    if tuning is not None and tuning.chosen is None:
        values[tuning.tune.key] = "tuned"
    return {key: value for key, value in values.items() if not key.startswith(NOT_SETTINGS)}


def select(entries: Sequence[Explained], words: Sequence[str], name: str, scale: str) -> list[Explained]:
    """Returns the cells that have all settings, in their order.

    Args:
        entries: All cells of a table.
        words: `method.r=8`, or `r=8` where one key ends so; several values with commas: `r=1,8`.
        name: The item, for messages.
        scale: Its scale, for messages.

    Raises:
        InputError: If a key or a value is no cell's, or no cell has them all.
    """
    found = list(entries)
    for word in words:
        given, sign, value = word.partition("=")
        if not sign or not value:
            raise InputError(f"explain: {word!r} selects nothing. Give KEY=VALUE. Example: explain table6 r=8")
        key = _key(given.lstrip("+"), entries, name)
        values = _values(entries, key)
        wanted = _wanted(value, values)
        if not wanted:
            hint = did_you_mean(value, map(str, values))
            raise InputError(
                f"explain: no cell of {name} at scale={scale} has {key}={value}.{hint}\n"
                f"Values of {key}: {_listed(values)}."
            )
        found = [each for each in found if each.settings.get(key) in wanted]
    if not found:
        raise InputError(
            f"explain: no cell of {name} at scale={scale} has all of {' '.join(words)}. Give fewer.\n"
            f"Its cells: python -m analysis explain {name} --scale {scale} {words[0]}"
        )
    return found


def _key(given: str, entries: Sequence[Explained], name: str) -> str:
    """Returns the dotted key that is meant; of several the one of fewest parts, then the one in which cells differ."""
    known = list(dict.fromkeys(key for each in entries for key in each.settings))
    vary = [key for key in known if len(_values(entries, key)) > 1]
    key = ALIASES.get(given, given)
    if key in known:
        return key
    ends = [each for each in known if each.rpartition(".")[2] == given]
    ends = [each for each in ends if each.count(".") == min(end.count(".") for end in ends)]
    if len(ends) > 1:
        ends = [each for each in ends if each in vary] or ends
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise InputError(f"explain: {given}: several keys end so. Give one of {', '.join(ends)}.")
    short = [*ALIASES, *known, *(each.rpartition(".")[2] for each in known)]
    raise InputError(
        f"explain: no cell of {name} has a key {given!r}.{did_you_mean(given, short)}\n"
        f"Keys in which its cells differ: {', '.join(vary) if vary else 'none'}."
    )


def _values(entries: Iterable[Explained], key: str) -> list[Any]:
    return list(dict.fromkeys(each.settings[key] for each in entries if key in each.settings))


def _wanted(given: str, values: Sequence[Any]) -> list[Any]:
    """Returns the values that are meant: a single one, or, where values are no lists, several with commas."""
    if whole := [value for value in values if _is(value, given)]:
        return whole
    if any("," in str(value) for value in values):
        return []
    parts = [[value for value in values if _is(value, part)] for part in given.split(",")]
    return [value for part in parts for value in part] if all(parts) else []


def _is(value: Any, given: str) -> bool:
    text = given.strip("[]").replace(" ", "")
    if isinstance(value, int | float):
        try:
            return float(text) == value
        except ValueError:
            return False
    return str(value) == given or sorted(str(value).split(",")) == sorted(text.split(","))


def _listed(values: Sequence[Any]) -> str:
    rest = len(values) - MOST_LISTED
    return ", ".join(map(str, values[:MOST_LISTED])) + (f" and {rest} more" if rest > 0 else "")


def _namesakes(runs: Sequence[SeedRun], there: Iterable[str]) -> tuple[str, ...]:
    """Returns runs that are called like one of these but for the hash: other settings, or code of other numerics.

    Args:
        runs: Those of a cell.
        there: The store's runs that no cell of the item has.
    """
    names = {run.run_id.rpartition("-")[0] for run in runs if run.run_id is not None}
    return tuple(sorted(each for each in there if each.rpartition("-")[0] in names))


def record(each: Explained, explanation: Explanation) -> dict[str, Any]:
    """Returns a cell as JSON writes it; scores as records hold them, None where there is nothing."""
    cell, paper = each.cell, each.cell.paper
    tuning = tuning_record(cell.tuning)
    if tuning is not None:
        order = each.order
        tuning["place"] = None if order is None else {**order.ranked._asdict(), "of": order.of}
        tuning["why_not"] = None if cell.tuning is None else cell.tuning.why_not
    return {
        **{"item": explanation.item.name, "task": cell.task, "model": cell.model or None, "row": cell.place.row},
        **{"column": cell.place.column, "settings": each.settings},
        "paper": None if paper is None else {**paper._asdict(), "settings": paper.settings, "key": each.fact},
        **{"metric": cell.metric.name, "protocol": explanation.protocol.value, "scale": explanation.scale},
        **{"mean": cell.summary.mean, "low": cell.summary.low, "high": cell.summary.high},
        **{"n": cell.summary.n, "over": "draws" if cell.is_over_draws else "seeds"},
        **{"runs_scored": cell.n, "runs_expected": len(cell.runs), "planned": cell.planned},
        "difference": None if each.difference is None else each.difference._asdict(),
        "runs": [_run_record(run) for run in cell.runs],
        **{"command": cell.command, "commits": cell.commits, "computed_on": cell.computed_on},
        **{"tuning": tuning, "namesakes": each.namesakes},
    }


def _run_record(run: SeedRun) -> dict[str, Any]:
    result = run.result
    return {
        **{"seed": run.seed, "run_id": run.run_id, "state": run.state, "reason": run.reason},
        **{"score": run.score, "epoch": run.epoch, "epochs": None if result is None else epochs_of(result)},
        "flags": run.flags,
        "commit": None if result is None else commit_of(result),
        "computed_on": None if result is None or "provenance" not in result else computed_on(result),
    }


def epochs_of(result: Mapping[str, Any]) -> int:
    """Returns how many epochs a run was scored after."""
    return len(result["metrics_by_epoch"])
