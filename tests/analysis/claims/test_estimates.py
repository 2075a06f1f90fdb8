"""Estimates with two sources of variance, on numbers that were computed by hand."""

import math

import numpy as np
import pytest

from analysis.claims.estimates import Estimate, Normal, Scored, bootstrap, contrast, slope_weights

T_4 = 2.1318  # the 95 % quantile of t with 4 degrees of freedom, from a table


def seeds(*scores: float) -> dict[int, Scored]:
    return {seed: Scored(score) for seed, score in enumerate(scores)}


def test_bounds_over_seeds_are_those_of_t() -> None:
    estimate = Estimate((1.0, 2.0, 3.0, 4.0, 5.0))  # sd 1.5811, standard error 0.7071
    assert estimate.mean == 3.0 and estimate.n == 5
    assert estimate.low == pytest.approx(3 - T_4 * math.sqrt(0.5), abs=1e-3)
    assert estimate.high == pytest.approx(3 + T_4 * math.sqrt(0.5), abs=1e-3)
    assert estimate.p_not_above(3 - T_4 * math.sqrt(0.5)) == pytest.approx(0.05, abs=1e-4)
    assert estimate.p_not_below(3 + T_4 * math.sqrt(0.5)) == pytest.approx(0.05, abs=1e-4)


def test_one_seed_has_no_bounds_and_rejects_nothing() -> None:
    estimate = Estimate((0.3,))
    assert estimate.low is None and estimate.high is None
    assert estimate.p_not_above(-1.0) == estimate.p_not_below(1.0) == 1.0


def test_equal_values_say_nothing_of_noise_where_no_documents_vary() -> None:
    alone = Estimate((0.25, 0.25, 0.25))
    assert alone.low is None and alone.high is None and alone.low_at(0.05) is None
    assert alone.p_not_above(0.2) == alone.p_not_below(0.3) == 1.0 and alone.seeds_to_clear(0.2) is None
    varied = Estimate((0.25, 0.25, 0.25), np.linspace(0.2, 0.3, 999))
    assert varied.low == pytest.approx(0.205) and varied.high == pytest.approx(0.295)
    assert varied.p_not_above(0.1) == pytest.approx(0.001) and varied.p_not_above(0.25) == 1.0


def test_the_wider_of_the_two_sources_counts() -> None:
    draws = np.linspace(-1.0, 1.0, 201)
    narrow, wide = Estimate((0.01, -0.01, 0.0), draws), Estimate((3.0, -3.0, 0.0), draws)
    assert narrow.high == pytest.approx(0.9) and narrow.low == pytest.approx(-0.9)
    assert wide.high is not None and wide.high > 3
    assert narrow.p_not_above(-0.95) == pytest.approx((5 + 1) / 202, abs=0.006)


def test_differences_are_taken_seed_by_seed_and_only_over_seeds_of_both() -> None:
    found = contrast([seeds(0.9, 0.8, 0.7), {1: Scored(0.5), 2: Scored(0.6), 9: Scored(0.1)}], [1, -1])
    assert found is not None and found.values == pytest.approx((0.3, 0.1)) and found.draws is None
    assert contrast([seeds(0.5), {7: Scored(0.4)}], [1, -1]) is None


def test_documents_are_drawn_whole() -> None:
    documents = np.repeat([0, 1], 50)  # two documents: their mean is 0, 0.5 or 1, and never in between
    draws = bootstrap(np.repeat([0.0, 1.0], 50), documents, 500)
    assert set(draws) == {0.0, 0.5, 1.0}
    assert np.mean(draws == 0.5) == pytest.approx(0.5, abs=0.07)
    by_example = bootstrap(np.repeat([0.0, 1.0], 50), np.arange(100), 500)
    assert by_example.std() == pytest.approx(0.05, abs=0.01)  # sqrt(0.25 / 100)


def test_large_documents_weigh_by_their_examples() -> None:
    documents = np.array([0] * 9 + [1])
    draws = bootstrap(np.array([1.0] * 9 + [0.0]), documents, 400)
    assert set(np.round(draws, 3)) == {0.0, 0.9, 1.0}


def test_examples_give_the_second_source_only_where_all_runs_have_the_same_ones() -> None:
    right, wrong, documents = np.array([1.0, 1.0]), np.array([0.0, 1.0]), np.array([0, 1])
    first = {0: Scored(1.0, right, documents), 1: Scored(1.0, right, documents)}
    second = {0: Scored(0.5, wrong, documents), 1: Scored(1.0, right, documents)}
    found = contrast([first, second], [1, -1])
    assert found is not None and found.draws is not None
    assert found.mean == 0.25 and set(found.draws) == {0.0, 0.25, 0.5}  # the first document differs in one of two seeds
    other = {0: Scored(0.5, wrong, np.array([0, 0])), 1: Scored(1.0, right, documents)}
    without = contrast([first, other], [1, -1])
    assert without is not None and without.draws is None


def test_the_same_runs_give_the_same_draws() -> None:
    examples, documents = np.random.default_rng(1).random(40), np.arange(40)
    assert np.array_equal(bootstrap(examples, documents, 50), bootstrap(examples, documents, 50))


def test_a_slope_is_for_each_doubling() -> None:
    weights = slope_weights([1, 2, 4, 8])
    scores = [0.5, 0.6, 0.7, 0.8]
    assert sum(weight * score for weight, score in zip(weights, scores, strict=True)) == pytest.approx(0.1)
    assert sum(weights) == pytest.approx(0)


def test_the_seeds_that_would_decide() -> None:
    estimate = Estimate((0.0, 1.0, 2.0, 3.0))  # mean 1.5, sd 1.291
    # t(0.95, n - 1) 1.291 / sqrt(n) < 1: n = 6 gives 2.015 * 0.527 = 1.06, n = 7 gives 1.943 * 0.488 = 0.95
    assert estimate.seeds_to_clear(2.5) == 7
    assert estimate.seeds_to_clear(1.5) is None  # the limit is the mean
    assert Estimate((0.0, 3.0), np.array([0.0, 3.0] * 50)).seeds_to_clear(2.0) is None  # documents stay as they are
    many = Estimate(tuple(0.01 * number for number in range(10)))
    assert many.seeds_to_clear(1.0) == many.n  # those that it has are enough


def test_documents_that_do_not_clear_by_their_p_value_are_not_outdone_by_seeds() -> None:
    """A quantile between two samples would say that 4 of 99 clear 4.5 %, where the p-value is (4 + 1) / 100."""
    samples = np.concatenate([np.full(4, 1.1), np.full(95, -1.0)])
    estimate = Estimate((-0.1, 0.0, 0.1), samples)
    assert estimate.p_not_below(1.0) == pytest.approx(0.05)
    assert estimate.seeds_to_clear(1.0, 0.05) == 3 and estimate.seeds_to_clear(1.0, 0.045) is None


def test_a_printed_number_has_the_bounds_of_z() -> None:
    one = Normal(0.4, 0.5 * math.sqrt(2))
    assert one.high == pytest.approx(0.4 + 1.645 * 0.7071, abs=1e-3)
    assert one.low == pytest.approx(0.4 - 1.645 * 0.7071, abs=1e-3)
    assert one.p_not_above(one.low) == pytest.approx(0.05)
