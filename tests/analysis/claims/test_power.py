"""Power before the runs: against exact values, and what a plan says."""

from pathlib import Path

import pytest
from helpers.claim_stores import write_margin
from scipy.stats import nct, t

from analysis.claims.before import power_lines
from analysis.claims.declared import load_claims
from analysis.claims.power import power, power_of_some
from analysis.items import read_item
from lora_repro.config.compose import compose
from lora_repro.sweep.grid import load


def test_one_comparison_has_the_power_of_the_noncentral_t() -> None:
    for seeds, room, sd in ((5, 0.01, 0.0045), (10, 0.005, 0.006)):
        shift = room / (2**0.5 * sd / seeds**0.5)
        exact = 1 - nct.cdf(t.ppf(0.95, seeds - 1), seeds - 1, shift)
        assert power([seeds], sd, room) == pytest.approx(exact, abs=0.012)


def test_one_arm_of_four_has_the_power_of_the_quarter_of_the_level() -> None:
    """The three others lie two margins lower and reject hardly ever."""
    for seeds, room, sd in ((5, 0.01, 0.0045), (10, 0.005, 0.006)):
        shift = room / (2**0.5 * sd / seeds**0.5)
        exact = 1 - nct.cdf(t.ppf(1 - 0.05 / 4, seeds - 1), seeds - 1, shift)
        assert power_of_some([seeds] * 4, sd, room) == pytest.approx(exact, abs=0.012)
    assert power_of_some([10, 5], 0.0045, 0.01) < power_of_some([10, 10], 0.0045, 0.01)


def test_more_seeds_find_more_and_more_arms_find_less() -> None:
    few, many = power([5] * 4, 0.0045, 0.01), power([10] * 4, 0.0045, 0.01)
    assert few < many and power([5], 0.0045, 0.01) > few
    assert few < power([5, 5, 10, 10], 0.0045, 0.01) < many
    assert power([5], 0.0045, 0.0) == pytest.approx(0.05, abs=0.01)  # without room only by chance


def planned(overrides: list[str], store: Path) -> list[str]:
    """Returns what a plan says of the power."""
    return power_lines(overrides, str(store), load(compose, overrides, store))


def test_a_plan_says_the_power_of_the_claims_that_its_sweep_decides(tmp_path: Path) -> None:
    lines = planned(["+sweeps=table5", "regime=one_rate"], tmp_path)
    assert len(lines) == 3 and all(line.startswith("Power of weights_spread on minilm") for line in lines)
    assert "with 8 seeds, a margin of 1.00 points (assumed)" in lines[0] and "0.45 or 0.60 points (assumed)" in lines[0]
    assert "a gain of two margins over each is found" in lines[2] and "one margin over each" in lines[0]
    fewer = planned(["+sweeps=table5", "regime=one_rate", "seed=0,1,2"], tmp_path)
    assert all("with 3 seeds" in line for line in fewer)
    write_margin(tmp_path)
    lines = planned(["+sweeps=table5", "regime=one_rate"], tmp_path)
    assert "a margin of 1.60 points and" in lines[0]


def test_a_plan_says_whether_a_larger_rank_would_be_found(tmp_path: Path) -> None:
    (line,) = (each for each in planned(["+sweeps=table6", "regime=tuned"], tmp_path) if "On q alone" in each)
    assert "with 5 to 10 seeds" in line and "one arm that gains two margins is found in" in line


def test_a_plan_with_several_arms_for_one_of_the_claims_says_so(tmp_path: Path) -> None:
    given = ["+sweeps=table6", "model=minilm", "train.learning_rate=1e-3,3e-3", "seed=0,1"]
    lines = planned(given, tmp_path)
    assert lines and all(line.startswith("Power of ") for line in lines)
    assert any(line.endswith("unknown, as here q,v r = 1 is several arms.") for line in lines)


def test_a_plan_of_another_scale_or_sweep_says_nothing(tmp_path: Path) -> None:
    assert planned(["+sweeps=table5", "scale=demo"], tmp_path) == []
    assert planned(["model=minilm", "seed=0,1"], tmp_path) == []
    assert planned(["+sweeps=leaderboard"], tmp_path) == []


SWEEPS = sorted({part.item for claim in load_claims().claims for part in claim.parts if part.item is not None})


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_that_claims_read_can_be_planned(name: str, tmp_path: Path) -> None:
    """Those of generated text have no accuracy, which the power is of."""
    sweep = getattr(read_item(name), "sweep", None)
    if sweep is not None:
        assert all(line.startswith("Power of ") for line in planned([f"+sweeps={sweep}"], tmp_path))
