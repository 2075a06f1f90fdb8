"""How probable it is that a sweep finds equal arms equal, before any run: by simulation."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from analysis.claims.estimates import LEVEL

SWEEPS = 20_000
"""Simulated sweeps; the error of a probability is at most 0.4 points."""


def found_equal(pairs: Sequence[int], sd: float, margin: float) -> float:
    """Returns in which share of sweeps `not_worse` is supported if all arms are in truth equal.

    Scores of arms are taken to be independent normal numbers, so pairing by seed gains nothing: what seeds share makes
    the power larger. Documents are left out.

    Args:
        pairs: How many seeds each other arm shares with the one that is compared with them, at least two.
        sd: The standard deviation of one score over seeds.
        margin: In the same unit.
    """
    random = np.random.default_rng(0)
    one = random.normal(0.0, sd, (SWEEPS, max(pairs)))
    supported = np.ones(SWEEPS, dtype=bool)
    for seeds in pairs:
        differences = random.normal(0.0, sd, (SWEEPS, seeds)) - one[:, :seeds]
        supported &= differences.mean(axis=1) + _reach(seeds) * differences.std(axis=1, ddof=1) < margin
    return float(np.mean(supported))


def found_better(seeds: int, gain: float, sd: float) -> float:
    """Returns in which share of sweeps `better` than one other arm is supported if the true gain is this.

    Args:
        seeds: Of each arm, at least two.
        gain: The true difference.
        sd: The standard deviation of one score over seeds.
    """
    random = np.random.default_rng(0)
    differences = random.normal(gain, np.sqrt(2) * sd, (SWEEPS, seeds))
    return float(np.mean(differences.mean(axis=1) - _reach(seeds) * differences.std(axis=1, ddof=1) > 0))


def _reach(seeds: int) -> float:
    """Returns how many standard deviations of one difference a one-sided bound lies from the mean."""
    return float(stdtrit(seeds - 1, 1 - LEVEL)) / math.sqrt(seeds)
