"""A judged claim: its parts on each model, task and regime, with all numbers that made the verdict."""

from collections.abc import Mapping
from typing import NamedTuple

from analysis.claims.criteria import Outcome, Side, Verdict
from analysis.claims.declared import Claim, Part, Study
from analysis.claims.estimates import Estimate
from analysis.claims.printed import Printed


class Judged(NamedTuple):
    """One part of a claim on one model and task in one regime."""

    part: Part
    study: Study | None
    """None of what is counted and needs no runs."""
    regime: str | None
    """None of what is counted, and at scales that are not judged, whose sweeps are taken as they are."""
    outcome: Outcome
    estimates: Mapping[str, Estimate] = {}
    """By what is compared; scores in [0, 1], ratios as logarithms."""
    limit: float | None = None
    """What the estimates are compared with; None where nothing is estimated, or the margin is not known."""
    side: Side = Side.below
    """On which side of it they must lie; of `some_better` one of them."""
    control: Outcome | None = None
    """Whether the positive control shows a loss beyond the margin."""
    printed: tuple[Printed, ...] = ()
    """The same test on the paper's numbers."""
    notes: tuple[str, ...] = ()
    """What a reader must know: the margin, for one."""
    finished: int = 0
    """How many of its runs have a score; of trained weights, for how many seeds they are measured."""
    expected: int = 0
    replicates: str = "seeds"
    """What its estimates are over: seeds, or draws of the training examples."""
    commands: tuple[str, ...] = ()
    """What a person types to compute the runs that are missing."""
    run_ids: tuple[str, ...] = ()
    is_same: bool = False
    """Whether its arms are the same runs, as tuning chose the same value for both, so that nothing was compared."""

    @property
    def holds_from(self) -> float | None:
        """The margin from which, or up to which, it would hold (`Part.margin_at`); None without bounds of all."""
        if not self.part.has_margin or len(self.estimates) < len(self.part.than):
            return None
        return self.part.margin_at(list(self.estimates.values()))


class Verdicts(NamedTuple):
    """A claim with all its parts."""

    claim: Claim
    verdict: Verdict
    """Of the headline."""
    parts: list[Judged]
    scale: str
    missing: str | None
    """Why it is not judged."""
    command: str
    """What prints all that is known of it."""

    @property
    def deciding(self) -> list[Judged]:
        """The parts of the headline that make it what it is; of an interim one all of which runs are missing."""
        found = (self.verdict, Verdict.not_run) if self.verdict is Verdict.interim else (self.verdict,)
        return [each for each in self.headline if each.outcome.verdict in found]

    @property
    def headline(self) -> list[Judged]:
        """The parts that make the verdict: those of the first study in its first regime, and those that are counted."""
        ran = [each for each in self.parts if each.study is not None]
        first = (ran[0].study, ran[0].regime) if ran else None
        return [each for each in self.parts if each.study is None or (each.study, each.regime) == first]
