"""How many runs joblib computes at a time, where nobody says so."""

from typing import Any

import pytest

from lora_repro import machine
from lora_repro.config.compose import compose
from lora_repro.machine import GIB
from lora_repro.sweep.grid import load
from lora_repro.sweep.on_joblib import Workers

TINY = ("model=tiny_bert", "task=generated", "log.wandb=off")


class Launcher:
    """What is read and set of the plugin's."""

    def __init__(self) -> None:
        self.joblib: dict[str, Any] = {"n_jobs": 99}


def at_once(*axes: str) -> int:
    launcher = Launcher()
    Workers(launcher).fit(load(compose, [*TINY, *axes]).jobs)
    return launcher.joblib["n_jobs"]


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "lora_repro")
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr(machine, "gpus", lambda: 0)
    monkeypatch.setattr(machine, "free_memory", lambda: 1000 * GIB)


def test_each_core_has_a_run_of_its_own_where_there_are_enough(caplog: pytest.LogCaptureFixture) -> None:
    assert at_once("seed=range(0,20)") == 8
    assert "8 runs at a time, each with 1 of 8 cores; the largest may need 0." in caplog.text
    assert len(caplog.messages) == 1


def test_few_runs_share_the_cores(caplog: pytest.LogCaptureFixture) -> None:
    assert at_once("seed=0,1") == 2
    assert "2 runs at a time, each with 4 of 8 cores" in caplog.text
    assert at_once("seed=0") == 1
    assert "1 run at a time, each with 8 of 8 cores." in caplog.text


def test_threads_that_are_given_lower_the_number_of_runs(caplog: pytest.LogCaptureFixture) -> None:
    assert at_once("seed=range(0,20)", "compute.threads=3") == 2
    assert "2 runs at a time, each with 3 of 8 cores" in caplog.text
    assert at_once("seed=range(0,20)", "compute.threads=16") == 1


@pytest.mark.parametrize(("free", "runs"), [(0.1, 1), (1.0, 1), (1.5, 2), (None, 8)])
def test_no_more_runs_than_fit_into_memory(
    free: float | None, runs: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: None if free is None else int(free * GIB))
    assert at_once("seed=range(0,20)") == runs
    assert ("GiB that are free" in caplog.text) is (free is not None)


def test_the_largest_run_of_the_sweep_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: 8 * GIB)
    assert at_once("seed=range(0,20)") == 8
    assert at_once("seed=range(0,20)", "model=tiny_bert,minilm", "method=full") < 8


def test_runs_on_the_cpu_take_no_gpu(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: 1)
    assert at_once("seed=range(0,20)", "compute.device=cpu") == 8
    assert "GPU" not in caplog.text


def test_each_gpu_has_a_run(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: 4)
    monkeypatch.setattr(machine, "free_memory", lambda: 0)
    assert at_once("seed=range(0,20)") == 4
    assert "4 runs at a time, each with a GPU." in caplog.text


def test_a_gpu_with_a_number_is_one_for_all_runs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: 4)
    assert at_once("seed=range(0,20)", "compute.device=cuda:1") == 1
    assert "1 run at a time, each with a GPU; compute.device=cuda:1 names one GPU for all runs." in caplog.text
    assert at_once("seed=range(0,20)", "compute.device=cuda") == 4
