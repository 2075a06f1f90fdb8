"""When a claim is supported: plain functions of estimates, declared before the runs (docs/claims.md)."""

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from analysis.claims.estimates import LEVEL, Bounded
from analysis.stats import holm


class Verdict(str, Enum):
    """What is said of a claim."""

    supported = "supported"
    contradicted = "contradicted"
    undecided = "undecided"
    uninformative = "uninformative"
    """The sweep could not have shown otherwise, or its training was not as declared."""
    not_judged = "not judged"
    """Of a scale that only shows that everything works."""
    interim = "interim"
    """Runs are missing."""
    not_run = "not run"
    paper_scale_only = "paper scale only"
    """It is about the paper's own model, and nothing here can stand for it."""


class Side(int, Enum):
    """On which side of a limit the estimates must lie."""

    below = -1
    above = 1


class Outcome(NamedTuple):
    """The result of a criterion."""

    verdict: Verdict
    reason: str
    """One sentence in plain words."""
    seeds: int | None = None
    """How many seeds would decide it if means and spreads stayed; None where nothing is open, or seeds cannot."""


def bounded(
    estimates: Mapping[str, Bounded], limit: float, side: Side, unit: float = 100, zero: float = 0.0
) -> Outcome:
    """Asks whether all estimates lie on one side of a limit.

    Supported when the one-sided 95 % bound of each clears the limit. Contradicted when one lies beyond it, by tests
    that Holm's method adjusts for their number. Over one seed nothing is decided.

    Args:
        estimates: By the name of what is estimated; at least one.
        limit: In their unit.
        side: Where they must lie.
        unit: What numbers are multiplied by in the reason: 100 writes scores as points.
        zero: An estimate that is shown to lie beyond it, but within the limit, is named: worse, inside the margin.
    """
    if alone := [name for name, each in estimates.items() if each.low is None]:
        return Outcome(Verdict.undecided, f"One seed has no spread ({', '.join(alone)}).", 2)
    far = {name: _bound(each, side is Side.below) for name, each in estimates.items()}
    near = {name: _bound(each, side is Side.above) for name, each in estimates.items()}
    worst = min(far, key=lambda name: side * far[name])
    if all(side * (bound - limit) > 0 for bound in far.values()):
        beyond = [name for name in estimates if side * (near[name] - zero) < 0 < side * (zero - limit)]
        note = f" Worse, inside the margin: {', '.join(beyond)}." if beyond else ""
        return Outcome(Verdict.supported, f"{_sentence(worst, estimates[worst], far[worst], limit, side, unit)}{note}")
    tested = [each.p_not_above(limit) if side is Side.below else each.p_not_below(limit) for each in estimates.values()]
    if wrong := [name for name, rejects in zip(estimates, holm(tested, LEVEL), strict=True) if rejects]:
        name = min(wrong, key=lambda each: side * estimates[each].mean)
        return Outcome(Verdict.contradicted, _sentence(name, estimates[name], near[name], limit, side, unit))
    needed = [each.seeds_to_clear(limit) for name, each in estimates.items() if side * (far[name] - limit) <= 0]
    known = [number for number in needed if number is not None]
    seeds = max(known) if len(known) == len(needed) else None
    return Outcome(Verdict.undecided, _sentence(worst, estimates[worst], far[worst], limit, side, unit), seeds)


def _bound(estimate: Bounded, upper: bool) -> float:
    bound = estimate.high if upper else estimate.low
    assert bound is not None, "an estimate over one seed"
    return bound


def _sentence(name: str, estimate: Bounded, bound: float, limit: float, side: Side, unit: float) -> str:
    word = "at most" if bound > estimate.mean else "at least"
    numbers = [f"{round(unit * value, 2) + 0.0:+.2f}" for value in (estimate.mean, bound, limit)]
    return f"{name}: {numbers[0]}, {word} {numbers[1]}; claimed is {side.name} {numbers[2]}."


def exactly(value: float, least: float | None, most: float | None, reason: str) -> Outcome:
    """Asks whether a number without spread, as a count, lies in a range; None leaves an end open."""
    fits = (least is None or value >= least) and (most is None or value <= most)
    return Outcome(Verdict.supported if fits else Verdict.contradicted, reason)


_WORST_FIRST = (
    Verdict.contradicted,
    Verdict.not_run,
    Verdict.interim,
    Verdict.not_judged,
    Verdict.uninformative,
    Verdict.undecided,
    Verdict.paper_scale_only,
    Verdict.supported,
)


def together(verdicts: list[Verdict]) -> Verdict:
    """Returns the verdict on a claim of several parts: supported only if all are, contradicted if one is."""
    return next(verdict for verdict in _WORST_FIRST if verdict in verdicts)
