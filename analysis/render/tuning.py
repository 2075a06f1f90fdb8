"""What a table says of tuned values: which was chosen where, from which grid, at what cost, and whether it matters."""

from collections.abc import Iterable, Sequence

from analysis.arms import comparable, places
from analysis.cell import Cell
from lora_repro.config.grammar import quoted
from lora_repro.sweep.tuning import FACTOR, Tuning

MOST_NAMED = 6
"""Arms that a sentence names; the JSON form has all."""


def chosen(cell: Cell) -> str:
    """Writes ` @ 0.003` behind a score, with `(edge)` where the best value is the grid's end; empty if untuned."""
    tuning = cell.tuning
    if tuning is None or tuning.chosen is None:
        return ""
    return f" @ {tuning.chosen:g}{' (edge)' if tuning.at_edge else ''}"


def sentences(cells: Sequence[tuple[str, Cell]]) -> list[str]:
    """Says how values were chosen.

    Args:
        cells: The table's cells, each with its name.
    """
    tuned = [(name, cell.tuning) for name, cell in cells if cell.tuning is not None]
    untuned = list(dict.fromkeys(name for name, cell in cells if cell.tuning is None))
    if not tuned:
        return []
    key = _listed(tuning.tune.key.rpartition(".")[2] for _, tuning in tuned)
    grids = _listed(_values(tuning.tune.values) for _, tuning in tuned)
    scores = _listed(tuning.metric.name for _, tuning in tuned)
    seeds = _listed(", ".join(map(str, tuning.tune.seeds)) for _, tuning in tuned)
    at = _listed(", ".join(f"{name}={quoted(value)}" for name, value in tuning.tune.at) for _, tuning in tuned)
    words = [
        f"@: the {key} that was chosen by dev {scores}, the mean of the tuning seeds {seeds}, which are not reported. "
        f"Grid: {grids}."
    ]
    if at:
        words.append(f"Tuned at {at}; other settings take the {key} that was chosen there.")
    distinct = _distinct(tuned)
    if grown := [f"{name} by {_values(tuning.grown)}" for name, tuning in distinct if tuning.grown]:
        words.append(f"A grid whose best value is its first or last grows by a factor {FACTOR}: {_named(grown)}.")
    words.append(_cost(distinct, "tuned arm" if untuned else "arm"))
    if untuned:
        few = f": {_named(untuned)}" if len(untuned) <= MOST_NAMED else ""
        words.append(f"{len(untuned)} {'arms are' if len(untuned) > 1 else 'arm is'} not tuned{few}.")
    if edges := [name for name, tuning in distinct if tuning.at_edge]:
        words.append(
            f"(edge): the best {key} is the first or last of a grid that grows no further; a better one may lie "
            f"beyond: {_named(edges)}."
        )
    groups = comparable([cell for _, cell in cells])
    return [*words, *_about_order(distinct, groups, key)]


def _cost(tunings: Sequence[tuple[str, Tuning]], arm: str) -> str:
    """Says how many tuning runs arms took; of a choice that still lacks runs, how many it takes at least."""
    counts, missing = [tuning.runs for _, tuning in tunings], sum(tuning.missing for _, tuning in tunings)
    least = f"{min(counts)} tuning runs"
    if len(set(counts)) == 1:
        each = f"Each {arm} {'takes at least' if missing else 'took'} {least}"
    else:
        most = [f"{name} {tuning.runs}" for name, tuning in tunings if tuning.runs > min(counts)]
        verb = "take at least" if missing else "took"
        each = f"{arm[0].upper()}{arm[1:]}s {verb} {least}, some more: {_named(most)}"
    return f"{each}, {sum(counts)} in all{f'; {missing} of them are missing' if missing else ''}."


def _distinct(tuned: Iterable[tuple[str, Tuning]]) -> list[tuple[str, Tuning]]:
    """Returns each tuning once; one that several arms share is named by the first of them."""
    groups: dict[int, list[tuple[str, Tuning]]] = {}
    for name, tuning in tuned:
        groups.setdefault(id(tuning), []).append((name, tuning))
    found = []
    for (name, tuning), *others in groups.values():
        found.append((f"{name} (and {len(others)} others)" if others else name, tuning))
    return found


def _about_order(arms: Sequence[tuple[str, Tuning]], groups: Sequence[Sequence[Tuning]], key: str) -> list[str]:
    """Says which arms would have another place among those of their group, had the neighbouring value been chosen."""
    found = places(groups)
    ranked = [(name, found[id(tuning)][0]) for name, tuning in arms if id(tuning) in found]
    if not ranked:
        return []
    moved = [
        f"{name} ({each.place} to {each.with_neighbour})" for name, each in ranked if each.place != each.with_neighbour
    ]
    among = " among those of its task, model, budget and score" if len(groups) > 1 else ""
    start = f"By their tuning scores, the better {key} next to the chosen one"
    if not moved:
        return [f"{start} would change the place of none of {len(ranked)} arms{among}."]
    return [f"{start} would change the place of {len(moved)} of {len(ranked)} arms{among}: {_named(moved)}."]


def _values(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _listed(texts: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(filter(None, texts)))


def _named(texts: Sequence[str]) -> str:
    rest = len(texts) - MOST_NAMED
    return "; ".join(texts[:MOST_NAMED]) + (f"; and {rest} more" if rest > 0 else "")
