"""Judges the claims: finds each part's arms in a store, applies its test, and says what is missing."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from analysis.cell import Cell
from analysis.claims.arms import JUDGED, SECTIONS, Arms, Group, describe, select, setting
from analysis.claims.counted import counted
from analysis.claims.criteria import Outcome, Side, Verdict, bounded, exactly, together
from analysis.claims.declared import Claim, Claims, Part, Selector, Study
from analysis.claims.estimates import Estimate, contrast, slope_weights
from analysis.claims.margin import margin_of
from analysis.claims.printed import Printed, printed
from analysis.claims.weights import estimates_of
from analysis.verdicts import VERDICTS
from lora_repro.store.status import State

SECTION_7 = "section7"
"""The sweep whose weights are measured."""
TRUNCATED = ("truncated_gap", "whole_score")
"""Statistics that are measured only with --truncate."""
FEWEST = 2
"""Seeds without which nothing is estimated."""


class Judged(NamedTuple):
    """One part of a claim on one model and task in one regime."""

    part: Part
    study: Study | None
    """None of what is counted and needs no runs."""
    regime: str | None
    outcome: Outcome
    estimates: Mapping[str, Estimate]
    """By what is compared; scores in [0, 1], ratios as logarithms."""
    limit: float | None
    """What the estimates are compared with; None where nothing is estimated."""
    side: Side
    """On which side of it they must lie."""
    control: Outcome | None
    """Whether the positive control shows a loss beyond the margin."""
    printed: tuple[Printed, ...]
    """The same test on the paper's numbers."""
    notes: tuple[str, ...] = ()
    """What a reader must know: the margin, for one."""
    finished: int = 0
    """How many of its runs have a score."""
    expected: int = 0
    command: str | None = None
    """What a person types to compute its runs."""
    run_ids: tuple[str, ...] = ()


class Verdicts(NamedTuple):
    """A claim with all its parts."""

    claim: Claim
    verdict: Verdict
    """Of the headline."""
    parts: list[Judged]
    scale: str
    missing: str | None
    """Why it is not judged."""

    @property
    def headline(self) -> list[Judged]:
        """The parts that make the verdict: those of the first study in its first regime, and those that are counted."""
        ran = [each for each in self.parts if each.study is not None]
        first = (ran[0].study, ran[0].regime) if ran else None
        return [each for each in self.parts if each.study is None or (each.study, each.regime) == first]


def judge(claims: Claims, store: str, scale: str, names: frozenset[str] | None = None) -> list[Verdicts]:
    """Judges claims.

    Args:
        claims: What they declare.
        store: The folder that holds runs/.
        scale: A scale of the sweeps.
        names: Ids of the claims; None: all.
    """
    return judged(claims, Arms(store, scale), names)


def judged(claims: Claims, arms: Arms, names: frozenset[str] | None = None) -> list[Verdicts]:
    """Judges claims by arms that others read too."""
    return [_judge(claim, claims, arms) for claim in claims.claims if names is None or claim.id in names]


def _judge(claim: Claim, claims: Claims, arms: Arms) -> Verdicts:
    if not claim.parts:
        verdict = Verdict.paper_scale_only if claim.paper_only else Verdict.not_run
        return Verdicts(claim, verdict, [], arms.scale, claim.missing)
    parts = [_count(part) for part in claim.parts if part.test == "count"]
    with_runs = [part for part in claim.parts if part.test != "count"]
    for study in claim.studies if arms.scale == JUDGED else claim.studies[:1]:
        for regime in study.regimes:
            parts += [
                _of_weights(part, study, regime, arms, claims)
                if part.test == "above_chance"
                else _Question(part, study, regime, arms, claims).answer()
                for part in with_runs
            ]
    found = Verdicts(claim, Verdict.not_run, parts, arms.scale, claim.missing)
    return found._replace(verdict=together([each.outcome.verdict for each in found.headline]))


def _count(part: Part) -> Judged:
    value, how = counted(part)
    return Judged(part, None, None, exactly(value, part.least, part.most, how), {}, None, Side.below, None, ())


def _of_weights(part: Part, study: Study, regime: str, arms: Arms, claims: Claims) -> Judged:
    """Judges a part on trained weights, which were measured from the runs of Section 7."""
    group = arms.sweep(SECTION_7, None)
    study = arms.stand_in(group, study)
    margin = margin_of(claims.margin, arms, study) if part.by == "margin" else None
    below = part.most is not None or margin is not None
    limit = margin.value if margin is not None else part.most if part.most is not None else part.least or 0.0
    side = Side.below if below else Side.above
    estimates = estimates_of(part, study, arms.statistics(SECTION_7))
    seeds = {run.seed for cell in group.cells if cell.model == study.model for run in cell.runs}
    wanted = len(part.where) * max(1, len(part.against))
    there = min((each.n for each in estimates.values()), default=0) if len(estimates) == wanted else 0
    empty = Judged(part, study, regime, Outcome(Verdict.not_run, ""), estimates, limit, side, None, ())
    found = empty._replace(
        notes=() if margin is None else (margin.how,),
        finished=there,
        expected=len(seeds),
        command=f"{group.command} && python -m analysis measure {SECTION_7}"
        + (" --truncate" if part.statistic in TRUNCATED else ""),
    )
    if there < FEWEST:
        return found._replace(outcome=Outcome(Verdict.not_run, "Its statistics are not measured for enough seeds."))
    if limit is None:
        return found._replace(outcome=Outcome(Verdict.interim, found.notes[0]))
    outcome = bounded(estimates, limit, side, unit=100 if margin is not None else 1)
    if arms.scale in VERDICTS:
        return found._replace(outcome=outcome._replace(verdict=Verdict.not_judged, seeds=None))
    if there < len(seeds):
        return found._replace(outcome=Outcome(Verdict.interim, f"{there} of {len(seeds)} seeds. {outcome.reason}"))
    return found._replace(outcome=outcome)


@dataclass
class _Arm:
    """An arm that a question needs."""

    selector: Selector
    cell: Cell
    group: Group


class _Question:
    """One part in one study and regime."""

    def __init__(self, part: Part, study: Study, regime: str, arms: Arms, claims: Claims) -> None:
        assert part.item is not None
        self.part, self.regime, self.arms = part, regime, arms
        self.study = arms.stand_in(arms.item(part.item, regime), study)
        self.margin = margin_of(claims.margin, arms, self.study)
        self.assumed_margin = claims.assumed_margin
        self.item = arms.read_item(part.item)

    def answer(self) -> Judged:
        """Applies the test, unless something keeps it from being one."""
        part = self.part
        is_trend = part.test == "trend"
        of = None if is_trend else self._find(part.of)
        than = self._along() if is_trend else [arm for each in part.than if (arm := self._find(each)) is not None]
        control = [] if part.control is None else [self._find(part.control.of), self._find(part.control.than)]
        needed = [arm for arm in (of, *than, *control) if arm is not None]
        runs = [run for cell in {id(arm.cell): arm.cell for arm in needed}.values() for run in cell.runs]
        limit, side = self._limit()
        empty = Judged(part, self.study, self.regime, Outcome(Verdict.not_run, ""), {}, limit, side, None, ())
        found = empty._replace(
            printed=self._printed(limit, side),
            notes=(self.margin.how,) if self._needs_margin else (),
            finished=sum(run.score is not None for run in runs),
            expected=len(runs),
            command=self._group(part.of).command,
            run_ids=tuple(run.run_id for run in runs if run.run_id is not None),
        )
        if not than or (of is None and not is_trend):
            planned = self._group(part.of).planned
            why = f"The sweep has no such runs at scale={self.arms.scale}" + (
                f": {'; '.join(planned)}." if planned else "."
            )
            return found._replace(outcome=Outcome(Verdict.not_run, why))
        if diverged := [arm for arm in needed if any(run.state == State.diverged for run in arm.cell.runs)]:
            names = ", ".join(describe(arm.selector) for arm in diverged)
            return found._replace(outcome=Outcome(Verdict.uninformative, f"Runs diverged: {names}."))
        estimates = self._estimates(of, than)
        found = found._replace(estimates=estimates)
        wanted = 1 if is_trend else len(than)
        if len(estimates) < wanted or any(each.n < FEWEST for each in estimates.values()):
            verdict = Verdict.interim if found.finished else Verdict.not_run
            return found._replace(outcome=Outcome(verdict, f"{found.finished} of {found.expected} runs have a score."))
        return self._judged(found, needed, control)

    def _judged(self, found: Judged, needed: list[_Arm], control: list[_Arm | None]) -> Judged:
        is_judged = self.arms.scale not in VERDICTS
        if self.margin.value is None and self._needs_margin:
            verdict = Verdict.interim if is_judged else Verdict.not_judged
            return found._replace(outcome=Outcome(verdict, self.margin.how))
        assert found.limit is not None
        is_log = self.part.test == "ratio"
        outcome = bounded(found.estimates, found.limit, found.side, unit=1 if is_log else 100)
        if self.part.test == "ratio":
            outcome = outcome._replace(reason=self._in_times(found))
        shown = self._control(control)
        found = found._replace(control=shown)
        if not is_judged:
            return found._replace(outcome=outcome._replace(verdict=Verdict.not_judged, seeds=None))
        if found.finished < found.expected:
            reason = f"{found.finished} of {found.expected} runs have a score. {outcome.reason}"
            return found._replace(outcome=Outcome(Verdict.interim, reason))
        if why := self._uninformative(needed, shown):
            return found._replace(outcome=Outcome(Verdict.uninformative, f"{why} {outcome.reason}"))
        return found._replace(outcome=outcome)

    # What the question needs.

    def _group(self, selector: Selector) -> Group:
        assert self.part.item is not None
        return self.arms.item(self.part.item, str(selector.get("regime", self.regime)))

    def _find(self, selector: Selector) -> _Arm | None:
        group = self._group(selector)
        own = {key: value for key, value in selector.items() if key != "regime"}
        cell = self.arms.one(group, own, self.study, self.part.says)
        return None if cell is None else _Arm(selector, cell, group)

    def _along(self) -> list[_Arm]:
        """Returns the arms of a trend, in order."""
        key, group = self.part.along, self._group(self.part.of)
        assert key is not None and key not in SECTIONS
        cells = select(group.cells, self.part.of)
        values = sorted({float(value) for cell in cells if (value := setting(cell, key)) is not None})
        chosen = [value for value in values if self.part.start is None or value >= self.part.start]
        arms = [self._find({**self.part.of, key: int(value) if value.is_integer() else value}) for value in chosen]
        found = [arm for arm in arms if arm is not None]
        return found if len(found) > 1 else []

    @property
    def _needs_margin(self) -> bool:
        return self.part.test == "not_worse" or self.part.by == "margin" or self.part.control is not None

    def _limit(self) -> tuple[float | None, Side]:
        match self.part.test:
            case "not_worse":
                return self.margin.value, Side.below
            case "better":
                return (self.margin.value if self.part.by == "margin" else 0.0), Side.above
            case "trend":
                return 0.0, Side.below if self.part.falls else Side.above
            case "ratio":
                least, most = self.part.least, self.part.most
                return (math.log(least), Side.above) if least is not None else (math.log(most or 1), Side.below)
        raise AssertionError(self.part.test)

    # What it finds.

    def _estimates(self, of: _Arm | None, than: list[_Arm]) -> dict[str, Estimate]:
        scores = [self.arms.scores(arm.cell, arm.group.protocol) for arm in than]
        if of is None:
            weights = slope_weights([float(arm.selector[self.part.along or ""]) for arm in than])
            slope = contrast(scores, weights)
            return {} if slope is None else {f"each doubling of {self.part.along}": slope}
        found: dict[str, Estimate] = {}
        own = self.arms.scores(of.cell, of.group.protocol)
        for arm, other in zip(than, scores, strict=True):
            if self.part.test == "ratio":
                name, estimate = f"{describe(of.selector)} over {describe(arm.selector)}", self._ratio(of, arm)
            elif self.part.test == "better":
                name = f"{describe(of.selector)} over {describe(arm.selector)}"
                estimate = contrast([own, other], [1, -1])
            else:
                name = f"{describe(arm.selector)} over {describe(of.selector)}"
                estimate = contrast([other, own], [1, -1])
            if estimate is not None:
                found[name] = estimate
        return found

    def _ratio(self, of: _Arm, than: _Arm) -> Estimate | None:
        """Returns the logarithm of a measured ratio, seed by seed, on machines that computed both."""
        key = {"trained": "params.method"}.get(self.part.measure, self.part.measure)
        ours, theirs = (_measured(arm.cell, key) for arm in (of, than))
        logs = [math.log(ours[at] / theirs[at]) for at in ours if at in theirs]
        return Estimate(tuple(logs)) if logs else None

    def _in_times(self, found: Judged) -> str:
        parts = [
            f"{name}: {math.exp(each.mean):.3g} times"
            + (
                ""
                if each.low is None or each.high is None
                else f" ({math.exp(each.low):.3g} to {math.exp(each.high):.3g})"
            )
            for name, each in found.estimates.items()
        ]
        word = "at least" if found.side is Side.above else "at most"
        assert found.limit is not None
        return f"{'; '.join(parts)}; claimed is {word} {math.exp(found.limit):.3g}."

    def _control(self, arms: list[_Arm | None]) -> Outcome | None:
        """Asks whether the positive control shows a loss beyond the margin; None if the part has none."""
        if self.part.control is None:
            return None
        better, worse = arms
        if better is None or worse is None or self.margin.value is None:
            return Outcome(Verdict.not_run, "The sweep has no positive control.")
        scores = [self.arms.scores(arm.cell, arm.group.protocol) for arm in (better, worse)]
        loss = contrast(scores, [1, -1])
        if loss is None or loss.n < FEWEST:
            return Outcome(Verdict.interim, "Runs of the positive control are missing.")
        name = f"{describe(better.selector)} over {describe(worse.selector)}"
        return bounded({name: loss}, self.margin.value, Side.above)

    def _uninformative(self, needed: list[_Arm], control: Outcome | None) -> str | None:
        if at_edge := [arm for arm in needed if arm.cell.tuning is not None and arm.cell.tuning.at_edge]:
            names = ", ".join(describe(arm.selector) for arm in at_edge)
            return f"A tuned value lies at the edge of its grid: {names}."
        if control is not None and control.verdict is not Verdict.supported:
            return f"The positive control does not show a loss beyond the margin. {control.reason}"
        if self.margin.value is not None and (rising := [a for a in needed if _rise(a.cell) > self.margin.value]):
            names = ", ".join(describe(arm.selector) for arm in rising)
            return f"Training had not ended: dev still rose by more than the margin in the last epoch ({names})."
        return None

    def _printed(self, limit: float | None, side: Side) -> tuple[Printed, ...]:
        if self.part.test not in ("better", "not_worse") or any("regime" in each for each in self.part.than):
            return ()  # the paper has one regime
        sign = -1.0 if self.part.test == "better" else 1.0
        of = describe(self.part.of)
        than = {
            f"{of} over {describe(each)}" if sign < 0 else f"{describe(each)} over {of}": each
            for each in self.part.than
        }
        return printed(self.item, self.part.of, than, self.assumed_margin if limit is None else limit, side, sign)


def _measured(cell: Cell, key: str) -> dict[tuple[int | None, str], float]:
    """Returns what runs recorded, by seed and machine."""
    found: dict[tuple[int | None, str], float] = {}
    for run in cell.runs:
        value = run.result
        for part in key.split("."):
            value = None if value is None else value.get(part)
        if run.result is not None and isinstance(value, int | float) and value > 0:
            provenance = run.result.get("provenance", {})
            machine = f"{provenance.get('device_class')}, {provenance.get('bf16')}, {provenance.get('threads')}"
            found[run.seed, machine] = float(value)
    return found


def _rise(cell: Cell) -> float:
    """Returns by how much dev rose in the last epoch, as a mean over seeds; 0 of runs of a single epoch."""
    key = f"eval/{cell.metric.name}"
    by_epoch = [result["metrics_by_epoch"] for result in cell.results]
    sign = 1 if cell.metric.higher_is_better else -1
    rises = [sign * (rows[-1][key] - rows[-2][key]) for rows in by_epoch if len(rows) > 1 and key in rows[-2]]
    return fmean(rises) if rises else 0.0
