"""Parameter budgets: what `18M` or `0.01%` means, and the rank that meets it (paper, Sections 4.2 and 7.1). No torch.

A whole number is an upper bound. A number as papers print it (18M, 0.35M, 0.01%) means a count that prints so when it
is rounded or cut: the paper's "18M" are 18,874,368 weights. Of several sizes the one nearest to the number is taken,
below a bound the largest.
"""

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from fractions import Fraction
from functools import partial
from typing import NamedTuple

from lora_repro.errors import InputError
from lora_repro.methods import METHODS, MethodConfig, SizedConfig
from lora_repro.models.arch import Arch

UNITS = {"K": 10**3, "M": 10**6, "B": 10**9}
TOLERATED = (0.97, 1.05)
"""Utilisation outside of which a comparison at this budget is flagged: 18,874,368 of 18M are 104.9 %."""

_WHOLE = re.compile(r"[1-9]\d{0,2}(?:[,_]\d{3})+|[1-9]\d*")
_PRINTED = re.compile(r"(\d+)(?:\.(\d+))?([KMB%])")


class Budget(NamedTuple):
    """A budget that was read."""

    given: str
    weights: Fraction
    """The number of weights that it names."""
    low: Fraction
    """The least count that meets it."""
    end: Fraction
    """The least count above those that meet it."""
    unit: tuple[str, int, Fraction] | None = None
    """Of a printed number its unit, its decimals, and the weights that one unit is; None for an upper bound."""

    def admits(self, count: int) -> bool:
        """Tells whether a count lies below the bound, or prints as the budget does when it is rounded or cut."""
        return self.low <= count < self.end

    def utilisation(self, count: int) -> float:
        """Returns a count over the weights that the budget names."""
        return float(count / self.weights)

    def printed(self, count: int) -> str:
        """Writes a count, and as the budget writes it: `294,912 (0.29M)`."""
        if self.unit is None:
            return f"{count:,}"
        name, decimals, weights = self.unit
        return f"{count:,} ({float(count / weights):.{decimals}f}{name})"


def is_unequal(utilisation: float) -> bool:
    """Tells whether a count is too far from its budget for a comparison at equal budgets."""
    return not TOLERATED[0] <= utilisation <= TOLERATED[1]


def read(given: object, arch: Arch) -> Budget:
    """Reads a budget.

    Args:
        given: A whole number of weights, or 18M, 0.35M, 1.2B, 0.01% (of the whole model, the head apart).
        arch: The model that percents refer to.

    Raises:
        InputError: If it is neither.
    """
    number = int(given) if isinstance(given, float) and given.is_integer() else given
    text = str(number).strip()
    if _WHOLE.fullmatch(text):
        bound = int(re.sub("[,_]", "", text))
        return Budget(text, Fraction(bound), Fraction(0), Fraction(bound + 1))
    found = _PRINTED.fullmatch(text.upper())
    if found is None or not Fraction(text[:-1]):
        raise InputError(
            f"method.budget: a number of weights (an upper bound), or 18M, 0.35M, 0.01% (given: {given}).\n"
            "Example: method.budget=18M"
        )
    name, decimals = found[3], len(found[2] or "")
    unit = Fraction(arch.size() - arch.head_size, 100) if name == "%" else Fraction(UNITS[name])
    weights, step = Fraction(text[:-1]) * unit, unit / 10**decimals
    return Budget(text, weights, weights - step / 2, weights + step, (name, decimals, unit))


class Sizes(NamedTuple):
    """The sizes of a method that meet a budget."""

    best: int
    meeting: range
    """All of them, the best one among them."""


class Line(NamedTuple):
    """A method's count as its size grows: count = fixed + slope * size, for size from least to most."""

    fixed: int
    slope: int
    most: int
    least: int = 1

    @classmethod
    def of(cls, method: SizedConfig, arch: Arch) -> "Line":
        """Returns it from two counts.

        Raises:
            InputError: If the method's other settings are impossible, or the count does not depend on the size.
        """
        least = method.least
        method.with_size(least).check(arch)
        one, two = (count_at(method, arch, size) for size in (least, least + 1))
        if one == two:
            raise InputError(
                f"method.budget: method.{method.size_key} changes no count, as other settings of the method set it for "
                f"every part (given: {method.budget}).\nLeave method.budget out, or those settings."
            )
        if two < one:
            raise InputError(
                f"method.budget: the count falls as {method.size_key} grows (given: {method.budget}).\n"
                f"Give it itself, as in {method.spelt(least)}"
            )
        return cls(one - least * (two - one), two - one, method.largest(arch), least)

    def at(self, size: int) -> int:
        """Returns the count at a size."""
        return self.fixed + self.slope * size

    def neighbours(self, budget: Budget) -> list[int]:
        """Returns the sizes whose counts lie on both sides of the budget, where there are two."""
        below = math.floor((budget.weights - self.fixed) / self.slope)
        return sorted({min(max(size, self.least), self.most) for size in (below, below + 1)})

    def meeting(self, budget: Budget) -> Sizes | None:
        """Returns the sizes that meet a budget; None if none does."""
        first = max(self.least, math.ceil((budget.low - self.fixed) / self.slope))
        last = min(self.most, math.ceil((budget.end - self.fixed) / self.slope) - 1)
        if first > last:
            return None
        if budget.unit is None:
            return Sizes(last, range(last, last + 1))
        exact = (budget.weights - self.fixed) / self.slope
        nearest = min(math.floor(exact), math.ceil(exact), key=lambda size: abs(size - exact))
        return Sizes(min(max(nearest, first), last), range(first, last + 1))


def count_at(method: SizedConfig, arch: Arch, size: int) -> int:
    """Returns how many weights the method trains at a size: at an r, a bottleneck, a number of tokens."""
    return method.with_size(size).count(arch).method


def solve(method: SizedConfig, arch: Arch) -> int:
    """Returns the size that meets the method's budget.

    Raises:
        InputError: If none does, or the largest falls short of it by more than `TOLERATED`; it names the neighbours.
    """
    budget, line = read(method.budget, arch), Line.of(method, arch)
    sizes = line.meeting(budget)
    best, near = (sizes.best, [sizes.best]) if sizes is not None else (None, line.neighbours(budget))
    counts = {size: line.at(size) for size in near}
    is_checked = sizes is not None or method.can_be_larger
    if is_checked and any(count_at(method, arch, size) != count for size, count in counts.items()):
        best, counts = _solve_by_counts(method, arch, budget, line)
    if best is not None:
        is_short = best == line.most and budget.utilisation(counts[best]) < TOLERATED[0]
        if not is_short:
            return best
    key = method.size_key
    listed = " and ".join(f"{key} = {size} trains {budget.printed(count)}" for size, count in counts.items())
    ends = f", the most of {key} up to {line.most}" if max(counts.values()) < budget.weights else ""
    scope = f" on {', '.join(method.scope)}" if method.scope else ""
    raise InputError(
        f"method.budget: no {key}{scope} meets {budget.given} on this {arch.model_type} (d = {arch.d_model}, "
        f"{arch.num_layers} layers): {listed}{ends}.\nGive {key} itself, {method.spelt(max(counts))}, or another "
        "budget."
    )


def _solve_by_counts(method: SizedConfig, arch: Arch, budget: Budget, line: Line) -> tuple[int | None, dict[int, int]]:
    """Solves where a count does not fall, but is no line: some of PEFT's tuners stop growing at a size.

    Returns:
        The size that meets the budget, if one does, and the counts of the sizes on both sides of it.
    """
    sizes, count = range(line.least, line.most + 1), partial(count_at, method, arch)
    above = bisect_right(sizes, budget.weights, key=count)  # the place of the first size with more
    if above == len(sizes):
        first = sizes[bisect_left(sizes, count(line.most), key=count)]
        is_met = budget.admits(count(first)) and budget.utilisation(count(first)) >= TOLERATED[0]
        return first if is_met else None, {first: count(first)}
    near = {size: count(size) for size in sizes[max(above - 1, 0) : above + 1]}
    meeting = [size for size in near if budget.admits(near[size])]
    return min(meeting, key=lambda size: abs(near[size] - budget.weights), default=None), near


def utilisation(method: MethodConfig, arch: Arch) -> float | None:
    """Returns the trained weights over those that the method's budget names; None without a budget."""
    given = getattr(method, "budget", None)
    return None if given is None else read(given, arch).utilisation(method.count(arch).method)


def refuse_both(keys: Iterable[str], method: str) -> None:
    """Refuses a size beside the budget that it follows from; of a tuner of PEFT its `with_size` does.

    Args:
        keys: The keys that are given.
        method: The method's name.

    Raises:
        InputError: If the budget and the method's size are among them.
    """
    given, kind = set(keys), METHODS.get(method)
    key = getattr(kind, "size_key", None)
    if isinstance(key, str) and {"method.budget", f"method.{key}"} <= given:
        raise InputError(f"method.{key}: follows from method.budget, and both are given.\nGive one of the two.")
