"""How probable it is that a sweep supports what is true, before any run: by simulation."""

import math
from collections.abc import Sequence

import numpy as np

from analysis.claims.estimates import LEVEL, t_quantile

SWEEPS = 20_000
"""Simulated sweeps; the error of a probability is at most 0.4 points."""


def power(pairs: Sequence[int], sd: float, room: float) -> float:
    """Returns in which share of sweeps a part is supported.

    All its arms are taken to lie equally far inside the limit. Scores are taken to be independent normal numbers, so
    pairing by seed gains nothing: what seeds share makes the power larger. Documents are left out, which make it less.

    Args:
        pairs: How many seeds each other arm shares with the one that is compared with them, at least two.
        sd: The standard deviation of one score over seeds.
        room: How far the true differences lie from the limit: the margin, where equal arms are asked to be not worse.
    """
    random = np.random.default_rng(0)
    one = random.normal(0.0, sd, (SWEEPS, max(pairs)))
    supported = np.ones(SWEEPS, dtype=bool)
    for seeds in pairs:
        differences = random.normal(0.0, sd, (SWEEPS, seeds)) - one[:, :seeds]
        supported &= differences.mean(axis=1) + _reach(seeds) * differences.std(axis=1, ddof=1) < room
    return float(np.mean(supported))


def power_of_some(pairs: Sequence[int], sd: float, room: float) -> float:
    """Returns in which share of sweeps it is found that some other arm lies above the limit, by Holm's method.

    That with the fewest seeds does, and all others lie as far below the limit. Else as `power`.

    Args:
        pairs: As for `power`.
        sd: As for `power`.
        room: How far the true differences lie from the limit.
    """
    random = np.random.default_rng(0)
    one = random.normal(0.0, sd, (SWEEPS, max(pairs)))
    found, gains = np.zeros(SWEEPS, dtype=bool), pairs.index(min(pairs))
    for arm, seeds in enumerate(pairs):
        lies = room if arm == gains else -room
        differences = random.normal(lies, sd, (SWEEPS, seeds)) - one[:, :seeds]
        reach = _reach(seeds, LEVEL / len(pairs))
        found |= differences.mean(axis=1) - reach * differences.std(axis=1, ddof=1) > 0
    return float(np.mean(found))


def _reach(seeds: int, level: float = LEVEL) -> float:
    """Returns how many standard deviations of one difference a one-sided bound lies from the mean."""
    return t_quantile(seeds, level) / math.sqrt(seeds)
