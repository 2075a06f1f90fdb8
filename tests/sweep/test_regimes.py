"""Regimes: one set of keys that all grids of a sweep take, as a tuning of each arm."""

import pytest

from lora_repro.config.compose import compose
from lora_repro.errors import InputError
from lora_repro.sweep.grid import Sweep, load


def smoke(sweep: str, *more: str) -> Sweep:
    return load(compose, [f"+sweeps={sweep}", "scale=smoke", *more])


def test_a_regime_tunes_every_arm_of_a_sweep_that_tunes_none() -> None:
    assert not smoke("table6").tunings
    tuned = smoke("table6", "regime=tuned")
    assert len(tuned.tunings) == 4 and not tuned.jobs and len(tuned.waiting) == 8
    assert {tuning.tune.key for tuning in tuned.tunings} == {"train.learning_rate"}
    assert {job.resolved.run.seed for job in tuned.tuning_jobs} == {100, 101}


def test_a_grid_keeps_the_tuning_of_its_own_and_one_rate_takes_it_away() -> None:
    own = {tuning.tune.values for tuning in smoke("leaderboard").tunings}
    assert {tuning.tune.values for tuning in smoke("leaderboard", "regime=tuned").tunings} == own == {(1e-3, 3e-3)}
    without = smoke("leaderboard", "regime=one_rate")
    assert not without.tunings and len(without.jobs) == 12


def test_tuning_takes_the_place_of_a_fixed_value() -> None:
    fixed = {job.resolved.run.train.learning_rate for job in smoke("table15").jobs}
    assert len(fixed) > 1
    tuned = smoke("table15", "regime=tuned")
    assert not tuned.jobs and all(len(tuning.trials) == 3 for tuning in tuned.tunings)


def test_a_key_of_a_regime_joins_the_grids_that_can_take_it() -> None:
    methods = {
        (job.resolved.run.method.name, getattr(job.resolved.run.method, "rslora", None))
        for job in smoke("leaderboard", "regime=rslora").reported
    }
    assert methods == {("lora", True), ("full", None), ("head_only", None)}


def test_what_is_typed_wins_over_the_regime() -> None:
    given = "tune={train.learning_rate:[1e-4,1e-3],seed:[7]}"
    (values,) = {tuning.tune.values for tuning in smoke("table6", "regime=tuned", given).tunings}
    assert values == (1e-4, 1e-3)
    assert all(
        not job.resolved.run.method.rslora  # pyright: ignore[reportAttributeAccessIssue]
        for job in smoke("table6", "regime=rslora", "method.rslora=false").reported
    )


def test_what_is_not_tuned_is_not_recorded_as_tuned() -> None:
    for regime, tune in (("tuned", "tune=null"), ("one_rate", "tune={train.learning_rate:[1e-3,3e-3],seed:[100]}")):
        assert {job.resolved.settings.regime for job in smoke("table6", f"regime={regime}", tune).jobs} <= {None}


def test_a_regime_changes_no_id_and_is_recorded() -> None:
    plain, regime = (smoke("table6", *more).jobs for more in ([], ["regime=one_rate"]))
    assert [job.run_id for job in plain] == [job.run_id for job in regime]
    assert {job.resolved.settings.regime for job in regime} == {"one_rate"}
    assert {job.resolved.settings.regime for job in plain} == {None}
    assert [job.run_id for job in smoke("table6", "regime=null").jobs] == [job.run_id for job in plain]


@pytest.mark.parametrize(
    ("given", "message"),
    [("regime=best", "sweeps/regimes: there is no 'best'"), ("regime=tuned,one_rate", "a sweep has one regime")],
)
def test_no_such_regime(given: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        smoke("table6", given)


def test_a_regime_tunes_what_is_trained_and_has_the_key() -> None:
    def tuned(sweep: Sweep) -> set[str]:
        return {job.resolved.run.method.name for job in sweep.tuning_jobs}

    prompted = smoke("table8", "regime=tuned")
    assert tuned(prompted) == {"lora"} and {job.resolved.run.method.name for job in prompted.jobs} == {"few_shot"}
    written = smoke("table3", "regime=tuned_alpha")
    assert tuned(written) == {"lora"}
    assert {job.resolved.run.method.name for job in written.jobs} == {"full", "ft_top2", "adapter_l", "prefix_layer"}
