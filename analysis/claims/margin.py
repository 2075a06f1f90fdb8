"""What difference matters: a tenth of what LoRA gains over the head alone, by the dev scores of their tuning runs."""

from typing import NamedTuple

from analysis.claims.arms import Arms, describe
from analysis.claims.criteria import Outcome, Verdict
from analysis.claims.declared import Margin, Study
from analysis.verdicts import VERDICTS


class Found(NamedTuple):
    """The margin on a model and task, or the lack of it."""

    value: float | None
    """As a score in [0, 1]; None while it is not known, or if it is no margin."""
    how: str
    """One sentence: how it comes about, or what is missing and the command that computes it."""
    is_missing: bool = False
    """Whether runs are missing; otherwise a value of None says that what is there gives no margin."""
    is_planned: bool = True
    """Whether its sweep has runs on this model and task; without them only what needs no margin can be asked."""

    @property
    def why_not(self) -> Outcome:
        """What is said of a part that needs it."""
        return Outcome(Verdict.interim if self.is_missing else Verdict.uninformative, self.how)


def margin_of(margin: Margin, arms: Arms, study: Study) -> Found:
    """Returns the margin of a study. It comes from tuning seeds alone, so no reported score moves it."""
    group = arms.sweep(margin.sweep)
    names = f"{describe(margin.of)} over {describe(margin.over)}"
    best = []
    cells = [arms.one(group, selector, study, "margin") for selector in (margin.of, margin.over)]
    if not any(cells):
        return Found(
            None,
            f"{study.model} on {study.task} has no margin, so whether training had ended is not asked.",
            is_planned=False,
        )
    if arms.scale in VERDICTS and all(cell.tuning is None for cell in cells if cell is not None):
        return Found(None, f"There is no margin at scale={arms.scale}, whose runs are not tuned.", is_planned=False)
    for cell, selector in zip(cells, (margin.of, margin.over), strict=True):
        tuning = None if cell is None else cell.tuning
        if cell is None or tuning is None or tuning.best is None or tuning.metric.name != cell.metric.name:
            return Found(None, f"The margin is not known: tuning runs of {names} are missing: {group.command}", True)
        if tuning.at_edge:
            return Found(None, f"The margin is not known: the rate of {describe(selector)} lies at its grid's edge.")
        best.append(tuning.best)
    gain = best[0] - best[1]
    if gain <= 0:
        return Found(None, f"There is no margin: {names} gains {100 * gain:.2f} points in the tuning runs.")
    value = margin.share * gain
    how = f"Margin: {100 * value:.2f} points, {margin.share:g} of what {names} gains on dev with the tuning seeds."
    return Found(value, how)
