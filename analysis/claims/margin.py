"""What difference matters: a tenth of what LoRA gains over the head alone, by the dev scores of their tuning runs."""

from typing import NamedTuple

from analysis.claims.arms import Arms, describe
from analysis.claims.declared import Margin, Study


class Found(NamedTuple):
    """The margin on a model and task, or the lack of it."""

    value: float | None
    """As a score in [0, 1]; None while a tuning run is missing."""
    how: str
    """One sentence: how it comes about, or what is missing and the command that computes it."""


def margin_of(margin: Margin, arms: Arms, study: Study) -> Found:
    """Returns the margin of a study. It comes from tuning seeds alone, so no reported score moves it."""
    group = arms.sweep(margin.sweep)
    cells = [arms.one(group, each, study, "margin") for each in (margin.of, margin.over)]
    best = [None if cell is None or cell.tuning is None else cell.tuning.best for cell in cells]
    upper, lower = best
    names = f"{describe(margin.of)} over {describe(margin.over)}"
    if upper is None or lower is None:
        return Found(None, f"The margin is not known: tuning runs of {names} are missing: {group.command}")
    value = margin.share * (upper - lower)
    how = f"Margin: {100 * value:.2f} points, {margin.share:g} of what {names} gains on dev with the tuning seeds."
    return Found(value if value > 0 else None, how)
