"""Verdicts, on estimates whose bounds are known by hand."""

import numpy as np
import pytest

from analysis.claims.criteria import Side, Verdict, bounded, exactly, some_above, together
from analysis.claims.declared import Part
from analysis.claims.estimates import Bounded, Estimate, Normal, Scored, contrast, slope_weights

MARGIN = 0.01


def around(mean: float, spread: float = 0.001, n: int = 4) -> Estimate:
    """An even number of seeds, which lie at mean +- spread in turn."""
    return Estimate(tuple(mean + (spread if seed % 2 else -spread) for seed in range(n)))


def not_worse(**differences: Estimate) -> Verdict:
    return bounded(differences, MARGIN, Side.below).verdict


def test_larger_ranks_that_gain_less_than_the_margin_support_that_rank_one_is_enough() -> None:
    assert not_worse(r2=around(0.0), r64=around(0.005)) is Verdict.supported
    assert not_worse(r2=around(-0.05), r64=around(-0.2)) is Verdict.supported  # larger ranks lose


def test_one_larger_rank_that_surely_gains_more_contradicts() -> None:
    outcome = bounded({"r2": around(0.0), "r64": around(0.03)}, MARGIN, Side.below)
    assert outcome.verdict is Verdict.contradicted
    assert outcome.reason.startswith("r64: +3.00 points (95 % bound: at least +2.86); claimed: below +1.00.")


def test_a_spread_that_reaches_over_the_margin_decides_nothing_and_says_how_many_seeds_would() -> None:
    outcome = bounded({"r2": around(0.0), "r64": around(0.008, 0.004)}, MARGIN, Side.below)
    assert outcome.verdict is Verdict.undecided and outcome.seeds is not None and outcome.seeds > 4
    more = bounded({"r64": around(0.008, 0.004, 2 * outcome.seeds)}, MARGIN, Side.below)
    assert more.verdict is Verdict.supported


def test_a_gain_inside_the_margin_is_named() -> None:
    outcome = bounded({"r2": around(0.0), "r64": around(0.005)}, MARGIN, Side.below)
    assert "Above 0, though inside the margin: r64." in outcome.reason and "r2" not in outcome.reason.split("margin")[1]


def test_many_comparisons_must_not_contradict_by_chance() -> None:
    # sd 0.001917 * sqrt(4 / 3), t = (0.0131 - 0.01) / (sd / 2) = 2.80 with 3 degrees of freedom, p = 0.034: alone it
    # rejects at 0.05, as the smallest of three it had to lie below 0.0167
    values = around(0.0131, 0.001917)
    assert values.p_not_above(MARGIN) == pytest.approx(0.034, abs=0.001)
    assert bounded({"a": values}, MARGIN, Side.below).verdict is Verdict.contradicted
    others = {"b": around(0.0), "c": around(0.0)}
    assert bounded({"a": values, **others}, MARGIN, Side.below).verdict is Verdict.undecided


def test_a_tie_supports_that_nothing_is_worse_and_not_that_something_is_better() -> None:
    tie = Estimate((0.0, 0.0, 0.0), np.zeros(4000))
    assert not_worse(r64=tie) is Verdict.supported
    assert bounded({"a over b": tie}, 0.0, Side.above).verdict is Verdict.undecided


def test_equal_values_are_judged_by_documents_or_not_at_all() -> None:
    away = np.random.default_rng(0).normal(0.02, 0.001, 4000)
    assert not_worse(r64=Estimate((0.02, 0.02, 0.02), away)) is Verdict.contradicted
    alone = bounded({"r64": Estimate((0.02, 0.02, 0.02))}, MARGIN, Side.below)
    assert (alone.verdict, alone.seeds) == (Verdict.undecided, None) and "equal values (r64)" in alone.reason


@pytest.mark.parametrize("sizes", [[2, 8, 16, 32, 64], [1, 2, 4, 8, 64], [3, 5, 7]])
def test_equal_scores_have_no_trend(sizes: list[int]) -> None:
    """Their slope is rounding: -2.8e-17, -1.4e-17 and 2.8e-16."""
    scored = Scored(0.512, np.array([1.0] * 64 + [0.0] * 61), np.arange(125))
    slope = contrast([{0: scored, 1: scored, 2: scored} for _ in sizes], slope_weights(sizes))
    assert slope is not None and abs(slope.mean) < 1e-15
    for side in Side:
        assert bounded({"each doubling": slope}, 0.0, side).verdict is Verdict.undecided


def test_one_seed_decides_nothing() -> None:
    outcome = bounded({"a": Estimate((0.5,)), "b": around(0.0)}, MARGIN, Side.below)
    assert (
        outcome.verdict is Verdict.undecided
        and outcome.seeds == 2
        and "one seed, or equal values (a)" in outcome.reason
    )


def test_one_arm_beyond_the_limit_decides_alone_and_its_seeds_count() -> None:
    open_arm, beyond = around(0.0099, 0.01), around(0.0131, 0.0035)
    outcome = bounded({"open": open_arm, "beyond": beyond}, MARGIN, Side.below)
    alone = beyond.seeds_to_clear(MARGIN, 0.05 / 2)
    assert outcome.verdict is Verdict.undecided and alone is not None and outcome.seeds == alone > 4
    wide = bounded({"open": open_arm}, MARGIN, Side.below)
    assert wide.seeds is None  # hundreds


def test_one_of_several_above_is_the_opposite_of_all_below_and_says_that_above_is_claimed() -> None:
    gain = some_above({"a": around(0.0), "b": around(0.03)}, MARGIN)
    assert gain.verdict is Verdict.supported
    assert gain.reason == "b: +3.00 points (95 % bound: at least +2.86); claimed: above +1.00."
    none = some_above({"a": around(0.005)}, MARGIN)
    assert none.verdict is Verdict.contradicted
    assert none.reason == "a: +0.50 points (95 % bound: at most +0.64); claimed: above +1.00."


def drawn(mean: float, wide: float) -> Estimate:
    """An estimate whose documents move it by up to `wide` to each side."""
    return Estimate(around(mean).values, np.linspace(mean - wide, mean + wide, 4000))


@pytest.mark.parametrize(
    ("differences", "margin"),
    [
        # t at 0.05 / 4 with 3 degrees of freedom is 4.1765, the standard error 0.001 / sqrt(3)
        ([around(mean) for mean in (0.0, 0.01, 0.02, 0.03)], 0.03 - 4.1765 * 0.001 / 3**0.5),
        # of 4,000 samples 49 may lie at or below it: (49 + 1) / 4001 <= 0.0125 and (50 + 1) / 4001 > 0.0125
        ([drawn(mean, 0.02) for mean in (0.0, 0.01, 0.02, 0.03)], 0.01 + 49 * 0.04 / 3999),
        # Table 6 of the paper, q over r = 1 on WikiSQL: 70.5 - 68.8; z at 0.05 / 4 is 2.2414
        ([Normal(each, 0.005 * 2**0.5) for each in (0.008, 0.017, 0.016, 0.012)], 0.017 - 2.2414 * 0.005 * 2**0.5),
    ],
)
def test_that_some_arm_gains_flips_exactly_at_its_margin(differences: list[Bounded], margin: float) -> None:
    part = Part(says="", test="some_better")
    found = part.margin_at(differences)
    assert found is not None and found == pytest.approx(margin, abs=1e-6)
    named = {str(number): each for number, each in enumerate(differences)}
    assert some_above(named, found - 1e-9).verdict is Verdict.supported
    assert some_above(named, found + 1e-9).verdict is Verdict.undecided
    assert part.margin_at([*differences, Estimate((0.5,))]) is None


def test_each_of_several_parts_contradicts_at_its_own_level_however_it_is_asked() -> None:
    gain = around(0.008, 0.0014, 6)  # upper bounds: 0.0093 at 95 %, 0.0096 at 97.5 %, 0.0103 at 99 %
    lies_below = [bounded({"a": gain}, MARGIN, Side.below, level_of_all=0.05 / parts) for parts in (1, 2, 5)]
    assert [each.verdict for each in lies_below] == [Verdict.supported, Verdict.supported, Verdict.undecided]
    assert lies_below[2].reason.endswith("That is the bound at 95 %, and one of several parts needs 99 %.")
    assert some_above({"a": gain}, MARGIN, 0.01).verdict is Verdict.undecided and lies_below[2].seeds is not None
    more = around(0.008, 0.0014, lies_below[2].seeds + lies_below[2].seeds % 2)
    assert bounded({"a": more}, MARGIN, Side.below, level_of_all=0.01).verdict is Verdict.supported
    beyond = around(0.012, 0.0014, 6)  # what contradicts of all, and supports of some, has the level of the claim
    assert bounded({"a": beyond}, MARGIN, Side.below, level_of_all=0.01).verdict is Verdict.contradicted


def test_a_bound_without_spread_is_called_by_its_side() -> None:
    outcome = bounded({"a": Estimate((0.0, 0.0), np.zeros(99))}, MARGIN, Side.below)
    assert outcome.reason == "a: +0.00 points (95 % bound: at most +0.00); claimed: below +1.00."


def test_better_is_the_mirror_of_worse() -> None:
    gain = around(0.03)
    assert bounded({"x": gain}, 0.0, Side.above).verdict is Verdict.supported
    assert bounded({"x": gain}, 0.05, Side.above).verdict is Verdict.contradicted
    assert bounded({"x": around(-0.03), "y": gain}, 0.0, Side.above).verdict is Verdict.contradicted
    assert bounded({"x": around(0.001, 0.004), "y": gain}, 0.0, Side.above).verdict is Verdict.undecided


@pytest.mark.parametrize(
    ("value", "least", "most", "verdict"),
    [
        (5, 5, None, Verdict.supported),
        (4.9, 5, None, Verdict.contradicted),
        (5, None, 5, Verdict.supported),
        (5.1, 4, 5, Verdict.contradicted),
    ],
)
def test_a_count_is_supported_in_its_range(
    value: float, least: float | None, most: float | None, verdict: Verdict
) -> None:
    assert exactly(value, least, most, "").verdict is verdict


def test_a_claim_holds_only_if_all_its_parts_do() -> None:
    assert together([Verdict.supported, Verdict.supported]) is Verdict.supported
    assert together([Verdict.supported, Verdict.undecided]) is Verdict.undecided
    assert together([Verdict.interim, Verdict.contradicted]) is Verdict.contradicted
    assert together([Verdict.not_run, Verdict.not_run]) is Verdict.not_run
    for begun in (Verdict.uninformative, Verdict.interim, Verdict.supported):
        assert together([begun, Verdict.not_run]) is Verdict.interim
    assert together([Verdict.contradicted, Verdict.not_run]) is Verdict.contradicted
