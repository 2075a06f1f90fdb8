"""Judges a part on scores: finds its arms, and applies its test unless something keeps it from being one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.cell import Cell, only_machine_of
from analysis.claims.arms import SECTIONS, SHARE_OF_RIGHT, Arms, Group, describe, meant, select, setting
from analysis.claims.criteria import Outcome, Side, Verdict, bounded, some_above
from analysis.claims.declared import Claims, Part, Selector, Study
from analysis.claims.estimates import FEWEST, LEVEL, ROUNDING, Arm, Estimate, contrast, slope_weights
from analysis.claims.gates import at_edge, better, untrained, unusable
from analysis.claims.judged import Judged
from analysis.claims.margin import margin_of
from analysis.claims.printed import Printed, printed
from analysis.verdicts import VERDICTS
from lora_repro.errors import InputError

MOST_COMMANDS = 2
"""Arms whose own commands are given; of more, the command of their whole sweep."""


@dataclass
class Member:
    """An arm that a question needs."""

    selector: Selector
    cell: Cell
    group: Group

    @property
    def name(self) -> str:
        """How texts call it."""
        return describe(self.selector)


class Question:
    """One part in one study and regime."""

    def __init__(self, part: Part, study: Study, regime: str | None, arms: Arms, claims: Claims, family: int) -> None:
        """Takes what is asked, on what, and how many parts are tested together."""
        assert part.item is not None
        self.part, self.study, self.regime, self.arms, self.family = part, study, regime, arms, family
        self.margin = margin_of(claims.margin, arms, self.study)
        self.item = arms.read_item(part.item)

    def answer(self) -> Judged:
        """Returns the verdict with its evidence."""
        part = self.part
        is_trend, lacking, several = part.test == "trend", list[str](), list[str]()
        of = None if is_trend else self._member(part.of, lacking, several)
        than = self._along() if is_trend else [self._member(each, lacking, several) for each in part.than]
        lacking += [f"several values of {part.along}"] if is_trend and not than else []
        others = [member for member in than if member is not None]
        control = [] if part.control is None else [self._member(each, lacking, several) for each in part.control.both]
        pair = [member for member in control if member is not None]
        needed = [member for member in (of, *others, *pair) if member is not None]
        by_id = {run.run_id or (id(m.cell), run.seed, run.draw): run for m in needed for run in m.cell.runs}
        limit, side = self._limit()
        found = Judged(
            part,
            self.study,
            self.regime,
            Outcome(Verdict.not_run, ""),
            limit=limit,
            side=side,
            printed=self._printed(side),
            notes=(self.margin.how,) if self.has_score else (),
            finished=sum(run.score is not None for run in by_id.values()),
            expected=len(by_id),
            replicates="draws" if any(member.cell.is_over_draws for member in needed) else "seeds",
            commands=self._commands(needed),
            run_ids=tuple(run.run_id for run in by_id.values() if run.run_id is not None),
        )
        if (lacking or several) and (self.arms.scale not in VERDICTS or not others or (of is None and not is_trend)):
            planned = self._group(part.of).planned
            why = f" ({'; '.join(planned)})" if planned else ""
            at = f"at scale={self.arms.scale}{why}"
            reasons = [f"The sweep has no runs of {', '.join(lacking)} {at}."] if lacking else []
            if several:
                reasons.append(f"The sweep has several arms of {', '.join(several)} {at}, and the claim means one.")
            return found._replace(outcome=Outcome(Verdict.not_run, " ".join(reasons)), commands=())
        estimates = self._estimates(of, others)
        loss = self._gain(*pair) if len(pair) == 2 and self.margin.value is not None else None
        found = found._replace(estimates=estimates, control=self._control(pair, loss))
        same = of is not None and all(_ids(member.cell) == _ids(of.cell) for member in others)
        tested = [*estimates.values(), *([] if loss is None else [loss])]
        outcome = self._outcome(found, needed, tested, 1 if is_trend else len(others), same)
        found = found._replace(estimates={} if same else estimates, is_same=same)
        if self.arms.scale in VERDICTS and outcome.verdict is not Verdict.not_run:
            outcome = outcome._replace(verdict=Verdict.not_judged, seeds=None)
        return found._replace(outcome=outcome)

    @property
    def has_score(self) -> bool:
        """Whether it is about scores, and not about time or memory."""
        return self.part.test != "ratio"

    @property
    def _needs_margin(self) -> bool:
        return self.part.has_margin or self.part.control is not None

    def _outcome(
        self, found: Judged, needed: Sequence[Member], tested: Sequence[Estimate], wanted: int, same: bool
    ) -> Outcome:
        cells = {member.name: member.cell for member in needed}
        if why := unusable(cells):
            return Outcome(Verdict.uninformative, why)
        if len(found.estimates) < wanted or any(each.n < FEWEST for each in found.estimates.values()):
            verdict = Verdict.interim if found.finished else Verdict.not_run
            return Outcome(verdict, f"{found.finished} of {found.expected} runs have a score.")
        if self.has_score and self.margin.value is None and (self.margin.is_planned or self._needs_margin):
            return self.margin.why_not
        assert found.limit is not None
        outcome = self._test(found)
        if same:
            holds = found.side * (0.0 - found.limit) > ROUNDING
            outcome = outcome._replace(verdict=Verdict.supported if holds else Verdict.undecided, seeds=None)
            reason = "Nothing was compared: both arms are the same runs, as tuning chose the value that both have."
            outcome = outcome._replace(reason=reason)
        if found.finished < found.expected:
            reason = f"{found.finished} of {found.expected} runs have a score. {outcome.reason}"
            return Outcome(Verdict.interim, reason)
        if few := [name for name, each in found.estimates.items() if each.n < self.part.seeds]:
            reason = f"Fewer than the declared {self.part.seeds} {found.replicates}: {', '.join(few)}. {outcome.reason}"
            return Outcome(Verdict.interim, reason)
        if without := self._without_answers(tested, needed):
            return Outcome(Verdict.interim, f"{without} {outcome.reason}")
        if why := self._uninformative(cells, found.control):
            return Outcome(Verdict.uninformative, f"{why} {outcome.reason}")
        return outcome

    def _test(self, found: Judged) -> Outcome:
        assert found.limit is not None
        if self.part.test == "some_better":
            return some_above(found.estimates, found.limit, LEVEL / self.family)
        outcome = bounded(found.estimates, found.limit, found.side, unit=self.part.unit, level=LEVEL / self.family)
        return outcome if self.has_score else outcome._replace(reason=_in_times(found))

    # What the question needs.

    def _group(self, selector: Selector) -> Group:
        assert self.part.item is not None
        return self.arms.item(self.part.item, selector.get("regime", self.regime), self.part.metric)

    def _member(self, selector: Selector, lacking: list[str], several: list[str]) -> Member | None:
        group = self._group(selector)
        own = {key: value for key, value in selector.items() if key != "regime"}
        cell = self.arms.one(group, own, self.study, self.part.says)
        if cell is None:
            (several if meant(group, own, self.study) else lacking).append(describe(selector))
            return None
        return Member(selector, cell, group)

    def _along(self) -> list[Member]:
        """Returns the arms of a trend, in order; none if there are fewer than two."""
        key, group = self.part.along, self._group(self.part.of)
        assert key is not None and key not in SECTIONS
        on = {**self.part.of, "model": self.study.model, "task": self.study.task}
        values = {value for cell in select(group.cells, on) if (value := setting(cell, key)) is not None}
        chosen = [value for value in sorted(values, key=float) if float(value) >= (self.part.start or 0)]
        selectors = [{**self.part.of, key: value} for value in chosen]
        cells = [self.arms.one(group, selector, self.study, self.part.says) for selector in selectors]
        members = [Member(s, cell, group) for s, cell in zip(selectors, cells, strict=True) if cell is not None]
        return members if len(members) > 1 else []

    def _commands(self, needed: Sequence[Member]) -> tuple[str, ...]:
        """Returns the commands of the runs that are missing: of the arms, or of their sweep if they are many."""
        commands: dict[str, None] = {}
        for group in {id(member.group): member.group for member in needed}.values():
            own = {id(m.cell): m.cell for m in needed if m.group is group and m.cell.missing}
            few = len(own) <= MOST_COMMANDS and len(own) < len(group.cells)
            texts = [cell.command or group.command for cell in own.values()] if few else [group.command]
            commands |= dict.fromkeys(texts if own else [])
        return tuple(commands)

    def _limit(self) -> tuple[float | None, Side]:
        match self.part.test:
            case "not_worse" | "some_better":
                return self.margin.value, Side.below if self.part.test == "not_worse" else Side.above
            case "better":
                return (self.margin.value if self.part.by == "margin" else 0.0), Side.above
            case "trend":
                return 0.0, Side.below if self.part.falls else Side.above
            case "ratio":
                least, most = self.part.least, self.part.most
                return (math.log(least), Side.above) if least is not None else (math.log(most or 1), Side.below)
        raise AssertionError(self.part.test)

    # What it finds.

    def _scores(self, member: Member) -> Arm:
        return self.arms.scores(member.cell)

    def _gain(self, first: Member, second: Member) -> Estimate | None:
        """Returns by how much the first arm is better than the second."""
        sign = better(first.cell)
        if first.cell.is_over_draws != second.cell.is_over_draws:
            raise InputError(
                f"claims.yaml: {self.part.says}: {first.name} and {second.name} share no replicates: one is over draws "
                "of the training examples, the other over seeds.\nCompare arms of as many draws."
            )
        return contrast([self._scores(first), self._scores(second)], [sign, -sign])

    def _estimates(self, of: Member | None, than: Sequence[Member]) -> dict[str, Estimate]:
        if of is None:
            weights = slope_weights([float(member.selector[self.part.along or ""]) for member in than])
            weights = [better(than[0].cell) * weight for weight in weights]
            slope = contrast([self._scores(member) for member in than], weights)
            return {} if slope is None else {f"each doubling of {self.part.along}": slope}
        found: dict[str, Estimate] = {}
        for member in than:
            first, second = (of, member) if self.part.test in ("better", "ratio") else (member, of)
            if self.has_score:
                estimate = self._gain(first, second)
            else:
                estimate = _log_ratio(first.cell, second.cell, self.part.measure)
            if estimate is not None:
                found[f"{first.name} over {second.name}"] = estimate
        return found

    def _control(self, pair: Sequence[Member], loss: Estimate | None) -> Outcome | None:
        """Asks whether the positive control shows a loss beyond the margin; None if the part or the sweep has none."""
        if len(pair) < 2 or self.margin.value is None:
            return None
        if loss is None or loss.n < FEWEST:
            return Outcome(Verdict.interim, "Runs of the positive control are missing.")
        return bounded({f"{pair[0].name} over {pair[1].name}": loss}, self.margin.value, Side.above)

    # What keeps it from being a test.

    def _without_answers(self, tested: Sequence[Estimate], needed: Sequence[Member]) -> str | None:
        """Says that bounds over documents are missing, where the metric has them: also those of the control."""
        if not self.has_score or any(member.cell.metric.name != SHARE_OF_RIGHT for member in needed):
            return None
        if all(each.draws is not None for each in tested):
            return None
        scored = {run.run_id: self.arms.score(run, member.cell) for member in needed for run in member.cell.runs}
        lacking = sum(each is None or each.examples is None or each.documents is None for each in scored.values())
        return (
            f"There are no bounds over documents: {lacking} of {len(scored)} runs have no answers with documents that "
            "give their scores (compute them again, or read the ledger that keeps their answers)."
        )

    def _uninformative(self, cells: Mapping[str, Cell], control: Outcome | None) -> str | None:
        if not self.has_score:
            return None
        if why := at_edge(cells):
            return why
        if self.margin.value is None:
            return None
        if control is not None and control.verdict is not Verdict.supported:
            return f"The positive control does not show a loss beyond the margin. {control.reason}"
        return untrained(cells, self.margin.value)

    def _printed(self, side: Side) -> tuple[Printed, ...]:
        part = self.part
        if part.test not in ("better", "not_worse", "some_better") or any("regime" in each for each in part.than):
            return ()  # the paper has one regime, and prints neither trends nor times of these
        is_gain = part.test == "better"
        own, *others = part.printed_arms or [part.of, *part.than]
        of = describe(own)
        names = [f"{of} over {describe(each)}" if is_gain else f"{describe(each)} over {of}" for each in others]
        limit = None if part.has_margin else 0.0
        than = dict(zip(names, others, strict=True))
        sign, level = -1.0 if is_gain else 1.0, LEVEL / self.family
        return printed(self.item, own, than, limit, side, sign, level, part.margin_at, part.metric)


def _ids(cell: Cell) -> set[str | None]:
    return {run.run_id for run in cell.runs}


def _in_times(found: Judged) -> str:
    parts = []
    for name, each in found.estimates.items():
        ends = [math.exp(end) for end in (each.low, each.high) if end is not None]
        span = f" ({ends[0]:.3g} to {ends[1]:.3g})" if len(ends) == 2 else ""
        parts.append(f"{name}: {math.exp(each.mean):.3g} times{span}")
    assert found.limit is not None
    word = "at least" if found.side is Side.above else "at most"
    return f"{'; '.join(parts)}; claimed is {word} {math.exp(found.limit):.3g}."


def _log_ratio(of: Cell, over: Cell, measure: str) -> Estimate | None:
    """Returns the logarithm of a measured ratio, seed by seed, over runs of one machine each.

    Of times on a CPU it is that of what was computed, where both runs recorded it.
    """
    ratios: dict[tuple[int | None, int | None, str], float] = {}
    for key in (measure, "train_cpu_seconds") if measure == "train_seconds" else (measure,):
        ours, theirs = (_measured(cell, key) for cell in (of, over))
        ratios |= {at: math.log(ours[at] / theirs[at]) for at in ours if at in theirs}
    return Estimate(tuple(ratios.values())) if ratios else None


def _measured(cell: Cell, measure: str) -> dict[tuple[int | None, int | None, str], float]:
    """Returns what runs recorded, by draw, seed and machine, without those whose number is not the run's alone.

    That are runs that went on on a second machine, and peaks of memory that are upper bounds.
    """
    found: dict[tuple[int | None, int | None, str], float] = {}
    for run in cell.runs:
        value = None if run.result is None else run.result.get(measure)
        if run.result is None or not isinstance(value, int | float) or value <= 0:
            continue
        if measure == "peak_memory_gib" and run.result.get("peak_memory_is_bound", True):
            continue
        if (machine := only_machine_of(run.result)) is not None:
            found[run.draw, run.seed, machine] = float(value)
    return found
