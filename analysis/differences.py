"""Differences of two cells over the seeds of one."""

from statistics import fmean

from analysis.cell import Cell
from analysis.stats import Paired, paired


def difference(cell: Cell, other: Cell) -> Paired | None:
    """Returns a cell's score minus that of another, taken seed by seed over all seeds of the cell.

    Over several draws of the training examples it is taken draw by draw, and in each seed by seed. None while one of
    these runs is missing, or the other cell lacks one of the seeds or draws.
    """
    found = differences(cell, other)
    return None if found is None else paired([*found.values()])


def differences(cell: Cell, other: Cell) -> dict[int | None, float] | None:
    """Returns the differences that `difference` summarises, by seed, or by draw over several draws."""
    theirs = {(run.draw, run.seed): run.score for run in other.runs}
    found: dict[int | None, list[float]] = {}
    for run in cell.runs:
        beside = theirs.get((run.draw, run.seed))
        if run.score is None or beside is None:
            return None
        found.setdefault(run.draw if cell.is_over_draws else run.seed, []).append(run.score - beside)
    return {each: fmean(values) for each, values in found.items()} if found else None
