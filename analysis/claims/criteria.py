"""When a claim is supported: plain functions of estimates, declared before the runs (docs/claims.md)."""

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from analysis.claims.estimates import LEVEL, ROUNDING, Bounded
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
    estimates: Mapping[str, Bounded],
    limit: float,
    side: Side,
    unit: float = 100,
    zero: float = 0.0,
    level: float = LEVEL,
    level_of_all: float = LEVEL,
    claimed: Side | None = None,
) -> Outcome:
    """Asks whether all estimates lie on one side of a limit.

    Supported when the one-sided bound of each clears the limit. Contradicted when one lies beyond it, by tests
    that Holm's method adjusts for their number. Over one seed nothing is decided.

    Args:
        estimates: By the name of what is estimated; at least one.
        limit: In their unit.
        side: Where they must lie.
        unit: What numbers are multiplied by in the reason: 100 writes scores as points.
        zero: An estimate that is shown to lie beyond it, but within the limit, is named.
        level: Of the tests that contradict, together.
        level_of_all: Of each test that supports, at most 5 %, for which the bounds are.
        claimed: Where the reason says that they are claimed to lie; None: where they must lie.
    """
    named = side if claimed is None else claimed
    if flat := [name for name, each in estimates.items() if each.low is None]:
        reason = f"There is no spread over seeds to judge by: one seed, or equal values ({', '.join(flat)})."
        needed = [number for name in flat if (number := estimates[name].seeds_to_clear(limit)) is not None]
        return Outcome(Verdict.undecided, reason, max(needed) if len(needed) == len(flat) else None)
    is_upper = side is Side.below
    far = {name: _bound(each, is_upper) for name, each in estimates.items()}
    near = {name: _bound(each, not is_upper) for name, each in estimates.items()}
    worst = min(far, key=lambda name: side * far[name])
    clears = all(side * (bound - limit) > ROUNDING for bound in far.values())
    opposed = [each.p_not_below(limit) if is_upper else each.p_not_above(limit) for each in estimates.values()]
    if clears and (level_of_all == LEVEL or max(opposed) <= level_of_all):
        beyond = [name for name in estimates if side * (near[name] - zero) < -ROUNDING < side * (zero - limit)]
        word = "Above" if is_upper else "Below"
        note = f" {word} 0, though inside the margin: {', '.join(beyond)}." if beyond else ""
        reason = _sentence(worst, estimates[worst], far[worst], is_upper, limit, named, unit)
        return Outcome(Verdict.supported, f"{reason}{note}")
    tested = [each.p_not_above(limit) if is_upper else each.p_not_below(limit) for each in estimates.values()]
    if wrong := [name for name, rejects in zip(estimates, holm(tested, level), strict=True) if rejects]:
        name = min(wrong, key=lambda each: side * estimates[each].mean)
        reason = _sentence(name, estimates[name], near[name], not is_upper, limit, named, unit)
        return Outcome(Verdict.contradicted, reason)
    reason = _sentence(worst, estimates[worst], far[worst], is_upper, limit, named, unit)
    if clears:
        reason += f" That is the bound at 95 %, and one of several parts needs {100 * (1 - level_of_all):.4g} %."
    return Outcome(Verdict.undecided, reason, _seeds(estimates, limit, side, level, level_of_all))


def _seeds(estimates: Mapping[str, Bounded], limit: float, side: Side, level: float, level_of_all: float) -> int | None:
    """Returns how many seeds would decide: for one estimate to contradict, or else for all to clear the limit."""
    beyond = [each for each in estimates.values() if side * (each.mean - limit) < 0]
    if beyond:
        needed = [each.seeds_to_clear(limit, level / len(estimates)) for each in beyond]
        return min((number for number in needed if number is not None), default=None)
    still_open = [
        each
        for each in estimates.values()
        if side * (_bound(each, side is Side.below) - limit) <= 0 or level_of_all < LEVEL
    ]
    needed = [each.seeds_to_clear(limit, level_of_all) for each in still_open]
    known = [number for number in needed if number is not None]
    return max(known) if known and len(known) == len(needed) else None


def some_above(estimates: Mapping[str, Bounded], limit: float, level_of_all: float = LEVEL) -> Outcome:
    """Asks whether some estimate lies above a limit: the opposite of that all lie below it.

    Supported when one lies above it, by tests that Holm's method adjusts. Contradicted when the upper bound of each
    lies below it.

    Args:
        estimates: By the name of what is estimated; at least one.
        limit: In their unit.
        level_of_all: Of each test that contradicts, at most 5 %, for which the bounds are.
    """
    below = bounded(estimates, limit, Side.below, zero=limit, level_of_all=level_of_all, claimed=Side.above)
    turned = {Verdict.supported: Verdict.contradicted, Verdict.contradicted: Verdict.supported}
    return below._replace(verdict=turned.get(below.verdict, below.verdict))


def _bound(estimate: Bounded, is_upper: bool) -> float:
    bound = estimate.high if is_upper else estimate.low
    assert bound is not None, "an estimate over one seed"
    return bound


def _sentence(name: str, estimate: Bounded, bound: float, is_upper: bool, limit: float, side: Side, unit: float) -> str:
    mean, end, border = (signed(value, unit) for value in (estimate.mean, bound, limit))
    points = "" if unit == 1 else " points"
    word = "at most" if is_upper else "at least"
    return f"{name}: {mean}{points} (95 % bound: {word} {end}); claimed: {side.name} {border}."


def signed(value: float, unit: float) -> str:
    """Writes a number in a unit, with its sign: points with two decimals, what has no unit with three."""
    decimals = 3 if unit == 1 else 2
    return f"{round(unit * value, decimals) + 0.0:+.{decimals}f}"


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
    """Returns the verdict on a claim of several parts: supported only if all are, contradicted if one is.

    It is not run only if no part is, and interim if some parts are.
    """
    if Verdict.not_run in verdicts and Verdict.contradicted not in verdicts and len(set(verdicts)) > 1:
        return Verdict.interim
    return next(verdict for verdict in _WORST_FIRST if verdict in verdicts)
