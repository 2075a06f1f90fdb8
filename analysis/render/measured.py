"""Statistics of trained weights as a table: means over seeds, and what they exceed chance and controls by."""

import re
from collections.abc import Sequence

from analysis.render.lines import aligned
from analysis.render.lines import to_json as list_to_json
from analysis.render.tables import DASH
from analysis.section7.statistics import Statistic
from analysis.stats import Summary, few_seeds, summarise

FIRST = re.compile(r"first (\d+) of r=(\d+)")


def markdown(found: Sequence[Statistic], scale: str) -> str:
    """Writes a short table: of numbers by seed, over all layers, the first direction and all of them.

    Numbers of pairs of seeds are in it as the jackknife's; what is left out is in `to_json`.
    """
    groups: dict[tuple[str, ...], dict[str, list[Statistic]]] = {}
    for each in filter(_is_shown, found):
        key = (f"{each.model} on {each.task}", each.name, each.where, each.setting)
        groups.setdefault(key, {}).setdefault(each.against, []).append(each)
    columns = list(dict.fromkeys(against for group in groups.values() for against in group if against))
    lines = [["runs", "statistic", "of", "setting", "n", "mean", *(f"less {against}" for against in columns)]]
    counts = set()
    for key, group in groups.items():
        first = next(iter(group.values()))
        counts.add(len(first))
        mean = summarise([each.value for each in first]).mean
        lines.append(
            [*key, str(len(first)), _number(mean), *(_less(group.get(against, []), len(first)) for against in columns)]
        )
    notes = [
        f"Statistics of trained weights, scale={scale}: the mean over n seeds, and in each further column the mean of "
        "what the number exceeds chance or a control by, with its two-sided 95 % t interval, and n where it differs.",
        "docs/section7.md says what each is. `--format json` has all: single directions, layers, pairs of seeds.",
        *few_seeds(counts),
    ]
    return "\n".join([*aligned(lines), "", *(f"- {note}" for note in notes)])


def to_json(found: Sequence[Statistic]) -> str:
    """Writes an object for each statistic."""
    return list_to_json([each._asdict() for each in found])


def _is_shown(each: Statistic) -> bool:
    if len(each.seeds) > 1 or each.where.startswith("layer") or each.name == "rho":
        return False
    first = FIRST.search(each.setting)
    return "shared_dims" not in each.name or first is None or first[1] in ("1", first[2])


def _less(group: Sequence[Statistic], n: int) -> str:
    """Writes the mean of value less chance, its interval, and its number of seeds where that is another than n."""
    difference = summarise([each.value - each.chance for each in group if each.chance is not None])
    own = f" n={difference.n}" if difference.n != n else ""
    return f"{_interval(difference)}{own}" if difference.mean is not None else DASH


def _interval(found: Summary) -> str:
    ends = "" if found.low is None else f" [{_number(found.low)}, {_number(found.high)}]"
    return f"{_number(found.mean)}{ends}"


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.4g}" if abs(value) >= 10 else f"{value:.3f}"
