"""A tracker calls a run by what differs in its sweep, and the sweep of one's own by what its runs share."""

from dataclasses import replace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lora_repro.config.compose import compose
from lora_repro.sweep.grid import load
from lora_repro.sweep.run_names import named

TINY = ("model=tiny_bert", "task=generated")


def names_of(*arguments: str) -> list[dict[str, str]]:
    """Returns what is added to each job of a sweep: as Hydra reads it, and the same in its settings."""
    jobs = load(compose, arguments).jobs
    found = []
    for job, after in zip(jobs, named(jobs), strict=True):
        lines = after.overrides[len(job.overrides) :]
        assert after == job._replace(overrides=[*job.overrides, *lines], resolved=after.resolved)
        added = {o.key_or_group: str(o.value()) for o in OverridesParser.create().parse_overrides(lines)}
        log = job.resolved.settings.log
        expected = replace(log, **{key.removeprefix("log."): value for key, value in added.items()})
        assert after.resolved.settings.log == expected and after.resolved.run is job.resolved.run
        found.append(added)
    return found


@pytest.mark.parametrize(
    ("arguments", "names", "group"),
    [
        (
            ["method.r=1,2", "seed=0", "train.epochs=1"],
            ["r=1", "r=2"],
            "tiny_bert generated lora epochs=1: r",
        ),
        (
            ["method.targets=[q],[q,v]", "seed=0,1"],
            ["targets=q seed=0", "targets=q,v seed=0", "targets=q seed=1", "targets=q,v seed=1"],
            "tiny_bert generated lora: targets seed",
        ),
        (["method=lora,full"], ["method=lora", "method=full"], "tiny_bert generated: method"),
    ],
)
def test_a_run_of_an_own_sweep_is_called_by_its_axes(arguments: list[str], names: list[str], group: str) -> None:
    found = names_of(*TINY, *arguments)
    assert [label["log.name"] for label in found] == names
    assert {label["log.group"] for label in found} == {group}


def test_a_sweep_with_a_name_is_its_runs_group() -> None:
    found = names_of("+sweeps=table6", "scale=smoke")
    assert {label["log.group"] for label in found} == {"table6-smoke"}
    tuned = names_of("+sweeps=table6", "scale=smoke", "regime=one_rate")
    assert {label["log.group"] for label in tuned} == {"table6-smoke-one_rate"}
    assert {frozenset(label["log.name"].split()) for label in found} == {
        frozenset({f"seed={seed}", f"targets={targets}", f"r={r}"})
        for seed in (0, 1) for targets in ("q", "q,v") for r in (1, 2)
    }  # fmt: skip


def test_what_is_given_stays_and_a_single_run_has_its_id() -> None:
    found = names_of(*TINY, "seed=0,1", "log.group=mine")
    assert [label.keys() for label in found] == [{"log.name"}] * 2
    assert names_of(*TINY, "seed=0") == [{}]


def test_a_long_value_with_quotes_and_backslashes_is_cut_and_reaches_hydra_in_one_piece() -> None:
    one, other = load(compose, (*TINY, "seed=0,1")).jobs
    odd = one._replace(point={"task.prompt": 'It\'s "{sentence}" [x], ${y}\\' + 100 * "z" + "\\"})
    (line,) = (line for line in named([odd, other])[0].overrides if line.startswith("log.name"))
    (parsed,) = OverridesParser.create().parse_overrides([line])
    assert parsed.value() == "prompt=It_s_sentence_x_,_y_" + 20 * "z"
