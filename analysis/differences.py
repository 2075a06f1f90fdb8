"""Differences of two cells over the seeds of one."""

from analysis.cell import Cell
from analysis.stats import Paired, paired


def difference(cell: Cell, other: Cell) -> Paired | None:
    """Returns a cell's score minus that of another, taken seed by seed over all seeds of the cell.

    None while one of these runs is missing, or the other cell lacks one of the seeds.
    """
    ours, theirs = ({run.seed: run.score for run in each.runs} for each in (cell, other))
    pairs = [(score, theirs.get(seed)) for seed, score in ours.items()]
    if not pairs or any(None in pair for pair in pairs):
        return None
    return paired([score - beside for score, beside in pairs])  # pyright: ignore[reportOperatorIssue]
