"""An estimate with its two sources of variance: seeds, by a t test, and documents, by a bootstrap. Plain functions.

A bound counts only if both sources clear it (docs/claims.md): of the two lower bounds the lower one is taken, of the
two upper bounds the upper one, and of two p-values the larger.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtr, ndtri, stdtr, stdtrit

LEVEL = 0.05
"""Of one-sided tests; bounds are one-sided at 95 %."""
DRAWS = 4000
"""Of the bootstrap."""
CHUNK = 256
"""Bootstrap samples whose means are taken at a time."""
FEWEST = 2
"""Seeds without which nothing is estimated."""
ROUNDING = 1e-12
"""Below it a difference or a spread is that of rounding."""
MOST_SEEDS = 200
"""Beyond it, seeds are said not to decide."""


def t_quantile(n: int, level: float = LEVEL) -> float:
    """Returns how many standard errors of the mean over n seeds a one-sided bound lies from it."""
    return float(stdtrit(n - 1, 1 - level))


class Bounded(Protocol):
    """What a criterion asks of an estimate."""

    @property
    def mean(self) -> float:
        """The estimate."""
        ...

    @property
    def low(self) -> float | None:
        """Its lower bound, one-sided at 95 %; None where nothing is known of its spread."""
        ...

    @property
    def high(self) -> float | None:
        """Its upper bound, likewise."""
        ...

    def p_not_above(self, limit: float) -> float:
        """Returns how probable so large an estimate is if the true number is not above the limit."""
        ...

    def p_not_below(self, limit: float) -> float:
        """Returns how probable so small an estimate is if the true number is not below the limit."""
        ...

    def low_at(self, level: float) -> float | None:
        """Returns the limit up to which `p_not_above` rejects at a level; None where nothing is known of the spread."""
        ...

    def seeds_to_clear(self, limit: float, level: float = LEVEL) -> int | None:
        """Returns how many seeds would put the limit outside the bound, if that is known."""
        ...


@dataclass(frozen=True, eq=False)
class Estimate:
    """A number that was taken once for each seed, such as the difference of two arms."""

    values: tuple[float, ...]
    """By seed; at least one."""
    draws: Float[np.ndarray, " draws"] | None = None
    """The mean over seeds for each bootstrap sample of the documents; None where there are no scores of examples."""

    @property
    def n(self) -> int:
        """How many seeds it has."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return statistics.fmean(self.values)

    @cached_property
    def _error(self) -> float | None:
        """The standard error over seeds; None where nothing is known of it.

        So it is of a single seed, and of equal values over which no documents vary: these say nothing of noise.
        """
        error = statistics.stdev(self.values) / math.sqrt(self.n) if self.n > 1 else 0.0
        if error > ROUNDING:
            return error
        return None if self.n < FEWEST or self.draws is None else 0.0

    @property
    def low(self) -> float | None:
        """The lower bound, one-sided at 95 %; None where nothing is known of the spread."""
        return self._bound(-1)

    @property
    def high(self) -> float | None:
        """The upper bound, likewise."""
        return self._bound(+1)

    def _bound(self, side: int) -> float | None:
        if self._error is None:
            return None
        of_seeds = self.mean + side * t_quantile(self.n) * self._error
        if self.draws is None:
            return of_seeds
        of_documents = float(np.quantile(self.draws, 1 - LEVEL if side > 0 else LEVEL))
        return max(of_seeds, of_documents) if side > 0 else min(of_seeds, of_documents)

    def p_not_above(self, limit: float) -> float:
        """Returns how probable so large a mean is if the true one is not above the limit; 1 without a spread."""
        return self._p(limit, +1)

    def p_not_below(self, limit: float) -> float:
        """Returns how probable so small a mean is if the true one is not below the limit; 1 without a spread."""
        return self._p(limit, -1)

    def low_at(self, level: float) -> float | None:
        """Returns the limit up to which `p_not_above` is at most a level; None where nothing is known of the spread."""
        if self._error is None:
            return None
        of_seeds = self.mean - t_quantile(self.n, level) * self._error
        if self.draws is None:
            return of_seeds
        allowed = math.floor(level * (len(self.draws) + 1)) - 1  # draws at or below the limit, as `_p` counts them
        return min(of_seeds, float(np.sort(self.draws)[allowed])) if allowed >= 0 else -math.inf

    def _p(self, limit: float, side: int) -> float:
        if self._error is None:
            return 1.0
        away = side * (self.mean - limit)
        of_seeds = float(stdtr(self.n - 1, -away / self._error)) if self._error else float(away <= ROUNDING)
        return of_seeds if self.draws is None else max(of_seeds, self._p_of_documents(limit, side))

    def _p_of_documents(self, limit: float, side: int) -> float:
        assert self.draws is not None
        beyond = int(np.count_nonzero(side * (self.draws - limit) <= ROUNDING))
        return (beyond + 1) / (len(self.draws) + 1)

    def seeds_to_clear(self, limit: float, level: float = LEVEL) -> int | None:
        """Returns how many seeds would put the limit outside the bound if mean and spread stayed as they are.

        Those that it has may do; of a single one the fewest that have a spread. None: more than MOST_SEEDS, or no
        number, as the spread over documents stays.

        Args:
            limit: In the estimate's unit.
            level: Of the one-sided bound.
        """
        away = abs(self.mean - limit)
        if self.n < FEWEST:
            return FEWEST
        if self._error is None or away <= ROUNDING:
            return None
        if self.draws is not None:
            side = 1 if self.mean > limit else -1
            if self._p_of_documents(limit, side) > level:
                return None
        sd = self._error * math.sqrt(self.n)
        counts = range(self.n, MOST_SEEDS + 1)
        return next((n for n in counts if t_quantile(n, level) * sd / math.sqrt(n) < away), None)


@dataclass(frozen=True)
class Normal:
    """A single number with a known standard deviation, as the paper prints one; bounds and tests are those of z."""

    mean: float
    sd: float
    """Above 0."""

    @property
    def low(self) -> float:
        """The lower bound, one-sided at 95 %."""
        return self.mean - float(ndtri(1 - LEVEL)) * self.sd

    @property
    def high(self) -> float:
        """The upper bound, likewise."""
        return self.mean + float(ndtri(1 - LEVEL)) * self.sd

    def p_not_above(self, limit: float) -> float:
        """Returns how probable so large a number is if the true one is not above the limit."""
        return float(ndtr(-(self.mean - limit) / self.sd))

    def p_not_below(self, limit: float) -> float:
        """Returns how probable so small a number is if the true one is not below the limit."""
        return float(ndtr((self.mean - limit) / self.sd))

    def low_at(self, level: float) -> float:
        """Returns the limit up to which `p_not_above` is at most a level."""
        return self.mean - float(ndtri(1 - level)) * self.sd

    def seeds_to_clear(self, limit: float, level: float = LEVEL) -> int | None:
        """Returns None: more seeds of the paper are not to be had."""


@dataclass(frozen=True, eq=False)
class Scored:
    """What one arm scored with one seed."""

    score: float
    examples: Float[np.ndarray, " examples"] | None = None
    """The score of each example, whose mean is `score`; None where the metric is no such mean, or nothing is kept."""
    documents: Int[np.ndarray, " examples"] | None = None
    """The document of each example, counted from 0."""
    split: str = ""
    """Tells splits apart: runs are paired by example only if it is the same."""


def mean_scored(scores: Sequence[Scored]) -> Scored:
    """Returns the mean of scores, example by example if all have the same ones.

    Args:
        scores: At least one.
    """
    first, score = scores[0], statistics.fmean(each.score for each in scores)
    of_examples = [each.examples for each in scores if each.examples is not None and each.split == first.split]
    if len(of_examples) < len(scores):
        return Scored(score)
    return Scored(score, np.mean(of_examples, axis=0), first.documents, first.split)


Arm = Mapping[int, Scored]
"""By seed, or by draw of the training examples."""


def contrast(arms: Sequence[Arm], weights: Sequence[float], draws: int = DRAWS) -> Estimate | None:
    """Estimates a weighted sum of arms' scores, seed by seed, over the seeds that all of them have.

    Args:
        arms: The arms.
        weights: One for each: 1 and -1 give a difference.
        draws: Bootstrap samples of the documents. Documents are drawn with replacement, the same ones for all arms and
            seeds, and a mean is taken over their examples; always with the same random numbers.

    Returns:
        The estimate; None if the arms share no seed.
    """
    seeds = sorted(set.intersection(*(set(arm) for arm in arms)))
    if not seeds:
        return None
    values = tuple(sum(weight * arm[seed].score for arm, weight in zip(arms, weights, strict=True)) for seed in seeds)
    by_example = _mean_over_seeds(arms, weights, seeds)
    if by_example is None:
        return Estimate(values)
    examples, documents = by_example
    return Estimate(values, bootstrap(examples, documents, draws))


def _mean_over_seeds(
    arms: Sequence[Arm], weights: Sequence[float], seeds: Sequence[int]
) -> tuple[Float[np.ndarray, " examples"], Int[np.ndarray, " examples"]] | None:
    """Returns the weighted sum of each example's scores, a mean over seeds; None if runs have other examples."""
    first = arms[0][seeds[0]]
    if first.examples is None or first.documents is None:
        return None
    total = np.zeros(len(first.examples))
    for seed in seeds:
        for arm, weight in zip(arms, weights, strict=True):
            scored = arm[seed]
            if scored.examples is None or scored.split != first.split:
                return None
            if not np.array_equal(first.documents, scored.documents):  # pyright: ignore[reportArgumentType]
                return None
            total += weight * scored.examples / len(seeds)
    return total, first.documents


def bootstrap(
    examples: Float[np.ndarray, " examples"], documents: Int[np.ndarray, " examples"], draws: int = DRAWS
) -> Float[np.ndarray, " draws"]:
    """Returns the mean over examples for samples of the documents, each drawn whole and with replacement.

    Args:
        examples: A number for each example.
        documents: The document of each example, counted from 0.
        draws: How many samples.
    """
    totals, sizes = np.bincount(documents, weights=examples), np.bincount(documents)
    counts = _times_drawn(len(totals), draws)
    means = np.empty(draws)
    for start in range(0, draws, CHUNK):  # a whole matrix of doubles would take 64 MB
        chosen = counts[start : start + CHUNK].astype(float)
        means[start : start + CHUNK] = (chosen @ totals) / (chosen @ sizes)
    return means


@lru_cache(maxsize=4)
def _times_drawn(documents: int, draws: int) -> Int[np.ndarray, "draws documents"]:
    """Returns how often each bootstrap sample holds each document; always the same."""
    random = np.random.default_rng(0)
    counts = np.empty((draws, documents), np.uint8)
    for draw in range(draws):
        counts[draw] = np.bincount(random.integers(0, documents, documents), minlength=documents)
    return counts


def slope_weights(values: Sequence[float]) -> list[float]:
    """Returns the weights whose sum of weighted scores is the least-squares slope for each doubling of a value.

    Args:
        values: Of the setting, above 0; at least two different ones.
    """
    positions = [math.log2(value) for value in values]
    middle = statistics.fmean(positions)
    spread = sum((position - middle) ** 2 for position in positions)
    return [(position - middle) / spread for position in positions]
