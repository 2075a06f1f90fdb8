"""Statistics over seeds: plain functions of numbers."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from scipy.special import stdtrit

CONFIDENCE = 0.95

FEW_SEEDS = 4
"""Below it a text says how wide a t interval is."""


class Summary(NamedTuple):
    """A mean over seeds and its interval; None where there are too few seeds for it."""

    mean: float | None
    low: float | None
    high: float | None
    n: int


def summarise(values: Sequence[float]) -> Summary:
    """Returns the mean and its two-sided 95 % t interval; one value has no interval, none has no mean."""
    n = len(values)
    if n == 0:
        return Summary(None, None, None, 0)
    mean = statistics.fmean(values)
    if n == 1:
        return Summary(mean, None, None, 1)
    half = half_width_in_standard_errors(n) * statistics.stdev(values) / math.sqrt(n)
    return Summary(mean, mean - half, mean + half, n)


def half_width_in_standard_errors(n: int) -> float:
    """Returns the t quantile: how many standard errors of the mean the interval over n seeds extends to each side.

    Raises:
        ValueError: If n is below 2.
    """
    if n < 2:
        raise ValueError(f"half_width_in_standard_errors: needs at least two seeds (given: {n}).")
    return float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))


def few_seeds(counts: Iterable[int]) -> list[str]:
    """Says of each number of seeds how wide a t interval over it is, if that is few."""
    return [
        f"An interval over {n} seeds reaches {half_width_in_standard_errors(n):.1f} standard errors of the mean to "
        "each side: it says little."
        for n in sorted(set(counts))
        if 2 <= n < FEW_SEEDS
    ]
