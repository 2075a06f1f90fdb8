"""One number a seed from numbers of pairs of seeds: by hand, and how often its interval holds the truth."""

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest

from analysis.stats import half_width_in_standard_errors, pseudo_values, summarise

SEEDS, SWEEPS = 5, 1500
PAIRS = list(combinations(range(SEEDS), 2))

Model = Callable[[np.random.Generator], dict[tuple[int, int], float]]
"""Draws the numbers of all pairs of a sweep; their mean is 0."""


def test_the_numbers_are_those_of_a_hand() -> None:
    """Of pairs 1, 2 and 6 the mean is 3; without seed 0 it is 6, without 1 it is 2, without 2 it is 1."""
    found = pseudo_values({("a", "b"): 1, ("c", "a"): 2, ("b", "c"): 6})
    assert found == {"a": 3 * 3 - 2 * 6, "b": 3 * 3 - 2 * 2, "c": 3 * 3 - 2 * 1}
    assert sum(found.values()) / 3 == 3


def test_of_numbers_that_are_sums_of_two_parts_they_are_twice_the_parts() -> None:
    parts = [1.0, 4.0, -2.0, 7.0]
    found = pseudo_values({(i, j): parts[i] + parts[j] for i, j in combinations(range(4), 2)})
    assert found == pytest.approx({i: 2 * part for i, part in enumerate(parts)})


@pytest.mark.parametrize(
    "pairs", [{}, {(0, 1): 1.0}, {(0, 1): 1.0, (0, 2): 1.0}, {(0, 1): 1.0, (1, 0): 2.0, (0, 2): 1.0}]
)
def test_every_pair_is_needed_once(pairs: dict[tuple[int, int], float]) -> None:
    with pytest.raises(ValueError, match="needs every pair of at least 3 seeds once"):
        pseudo_values(pairs)


def parts(generator: np.random.Generator) -> dict[tuple[int, int], float]:
    a = generator.standard_normal(SEEDS)
    return {(i, j): a[i] + a[j] for i, j in PAIRS}


def noise(generator: np.random.Generator) -> dict[tuple[int, int], float]:
    return dict(zip(PAIRS, generator.standard_normal(len(PAIRS)), strict=True))


def both(generator: np.random.Generator) -> dict[tuple[int, int], float]:
    a, e = parts(generator), noise(generator)
    return {pair: a[pair] + e[pair] for pair in PAIRS}


def products(generator: np.random.Generator) -> dict[tuple[int, int], float]:
    """Draws seeds that each find the common directions to another extent."""
    a = 1 + 0.5 * generator.standard_normal(SEEDS)
    return {(i, j): a[i] * a[j] - 1 for i, j in PAIRS}


def subspaces(generator: np.random.Generator) -> dict[tuple[int, int], float]:
    """Draws random subspaces of 4 of 16 dimensions: what pairs share, less its mean."""
    U = [np.linalg.qr(generator.standard_normal((16, 4)))[0] for _ in range(SEEDS)]
    return {(i, j): float(np.square(U[i].T @ U[j]).sum()) - 1 for i, j in PAIRS}


def held(model: Model, numbers: Callable[[dict[tuple[int, int], float]], list[float]]) -> float:
    """Returns the part of the sweeps in which a t interval over the numbers holds the truth."""
    generator = np.random.default_rng(0)
    inside = 0
    for _ in range(SWEEPS):
        found = summarise(numbers(model(generator)))
        assert found.low is not None and found.high is not None
        inside += found.low <= 0 <= found.high
    return inside / SWEEPS


def jackknife(of_pairs: dict[tuple[int, int], float]) -> list[float]:
    return list(pseudo_values(of_pairs).values())


def means_of_seeds(of_pairs: dict[tuple[int, int], float]) -> list[float]:
    return [float(np.mean([value for pair, value in of_pairs.items() if seed in pair])) for seed in range(SEEDS)]


@pytest.mark.parametrize("model", [parts, noise, both, subspaces])
def test_a_t_interval_over_pseudo_values_holds_the_truth_at_least_as_often_as_it_says(model: Model) -> None:
    assert held(model, jackknife) > 0.95 - 3 * math.sqrt(0.95 * 0.05 / SWEEPS)


def test_where_seeds_multiply_the_law_is_skewed_and_it_is_held_a_little_less_often() -> None:
    """As a t interval over five independent skewed numbers is: the pairs are not to blame."""
    assert 0.91 < held(products, jackknife) < 0.95
    generator = np.random.default_rng(2)
    independent = [summarise(list((1 + 0.5 * generator.standard_normal(SEEDS)) ** 2 - 1.25)) for _ in range(SWEEPS)]
    assert 0.88 < np.mean([(each.low or 0) <= 0 <= (each.high or 0) for each in independent]) < 0.95


@pytest.mark.parametrize(("model", "most"), [(parts, 0.75), (both, 0.8)])
def test_means_of_seeds_and_pairs_taken_as_independent_hold_it_too_rarely(model: Model, most: float) -> None:
    assert held(model, means_of_seeds) < most
    assert held(model, lambda of_pairs: list(of_pairs.values())) < 0.88


def test_another_seed_as_control_gives_differences_that_a_t_interval_may_take() -> None:
    """Each seed's number less the mean over its pairs with the others: seeds' own parts cancel in the mean alone."""
    generator, inside, widths = np.random.default_rng(1), 0, []
    for _ in range(SWEEPS):
        of_one, of_other = generator.standard_normal((2, SEEDS))
        values = of_one[:, None] + of_other + 0.3 * generator.standard_normal((SEEDS, SEEDS))
        differences = [
            values[s, s] - float(np.mean([values[s, t] for t in range(SEEDS) if t != s])) for s in range(SEEDS)
        ]
        found = summarise(differences)
        assert found.low is not None and found.high is not None and found.mean is not None
        inside += found.low <= 0 <= found.high
        widths.append((found.mean, (found.high - found.low) / 2 / half_width_in_standard_errors(SEEDS)))
    assert inside / SWEEPS > 0.95
    means, errors = np.array(widths).T
    assert means.std() < errors.mean()  # the interval is too wide, not too narrow
