"""On a real Slurm, where Debian's slurm-wlm is installed: what the fake one of test_launchers.py only claims."""

import getpass
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import real_slurm
from helpers.launched_sweeps import (
    LONG,
    LONG_RUN,
    TUNED,
    begun,
    command,
    run,
    smoke_sweep_runs_once_and_is_skipped_then,
    start,
    tuned_sweep_ran_once,
)
from helpers.real_slurm import ask
from helpers.waiting import wait_for

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(real_slurm.lacking() is not None, reason=f"a real Slurm: {real_slurm.lacking()}"),
    pytest.mark.xdist_group("slurm"),
]

SMALL = ["hydra.launcher.mem_gb=2", "hydra.launcher.cpus_per_task=1"]
ONE = [*LONG_RUN, *SMALL, "seed=0", "train.epochs=150", "log.checkpoint_every_s=1"]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with real_slurm.cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


@pytest.fixture(autouse=True)
def empty(slurm: dict[str, str]) -> Iterator[None]:
    """Each test begins and ends with an empty queue."""
    yield
    ask(slurm, "scancel", f"--user={getpass.getuser()}")
    wait_for(lambda: not ask(slurm, "squeue", "--noheader"), 100)


def submitted(slurm: dict[str, str]) -> list[str]:
    """Returns the numbers of the jobs that Slurm remembers; an array is one."""
    return sorted({line.partition("_")[0] for line in ask(slurm, "squeue", "-h", "-t", "all", "-o", "%i").split()})


def new(slurm: dict[str, str], before: list[str]) -> list[str]:
    return [number for number in submitted(slurm) if number not in before]


def statuses(folder: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in folder.glob("store/runs/*/status.json")]


def preempt(slurm: dict[str, str]) -> None:
    """Has a job of a higher partition take both nodes for some seconds."""
    line = ["sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 5"]
    assert "Submitted" in ask(slurm, *line)


def test_an_array_runs_once_with_the_threads_that_it_was_granted(tmp_path: Path, slurm: dict[str, str]) -> None:
    before = submitted(slurm)
    words = smoke_sweep_runs_once_and_is_skipped_then(tmp_path, "submitit_slurm", *SMALL, **slurm)
    assert len(new(slurm, before)) == 1 and "sacct" not in words
    results = [json.loads(path.read_text()) for path in tmp_path.glob("store/runs/*/result.json")]
    assert {result["provenance"]["threads"] for result in results} == {1}  # Slurm binds nothing here


def test_a_tuned_sweep_is_an_array_for_each_wave(tmp_path: Path, slurm: dict[str, str]) -> None:
    before = submitted(slurm)
    done = run(tmp_path, command("submitit_slurm", *TUNED, *SMALL), **slurm)
    assert done.returncode == 0, done.stderr
    tuned_sweep_ran_once(tmp_path, done.stderr)
    assert len(new(slurm, before)) == done.stderr.count("Plan: ")


@pytest.mark.parametrize("partition", ["low", "grace", "cancel"])
def test_a_preempted_job_goes_on_from_its_checkpoint(partition: str, tmp_path: Path, slurm: dict[str, str]) -> None:
    before = submitted(slurm)
    process = start(tmp_path, command("submitit_slurm", *ONE, f"hydra.launcher.partition={partition}"), **slurm)
    wait_for(lambda: begun(tmp_path) == 1, 200)
    preempt(slurm)
    _, words = process.communicate(timeout=400)
    assert process.returncode == 0, words
    (log,) = (path.read_text() for path in tmp_path.glob("store/runs/*/run.log"))
    assert log.count("goes on from step") == 1
    assert [status["attempts"] for status in statuses(tmp_path)] == [2] and len(new(slurm, before)) == 2


def test_a_time_limit_is_outlived(tmp_path: Path, slurm: dict[str, str]) -> None:
    times = ["hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=50"]
    process = start(tmp_path, command("submitit_slurm", *ONE, *times, "train.epochs=100000"), **slurm)
    wait_for(
        lambda: any("goes on from step" in path.read_text() for path in tmp_path.glob("store/runs/*/run.log")), 300
    )
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert [status["attempts"] for status in statuses(tmp_path)] == [2]


def test_jobs_that_wait_in_the_queue_are_not_submitted_again(tmp_path: Path, slurm: dict[str, str]) -> None:
    before = submitted(slurm)
    line = command("submitit_slurm", *LONG_RUN, *SMALL, "hydra.launcher.array_parallelism=1", "seed=0,1,2")
    for says in ("Submitted to Slurm: 3 runs", "In Slurm's queue already: 3 runs"):
        process = start(tmp_path, line, **slurm)
        assert process.stderr is not None
        assert any(says in told for told in process.stderr), says
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=60)
        assert process.returncode == 130 and "stay in Slurm's queue" in words, words
    assert len(new(slurm, before)) == 1
    last = run(tmp_path, line, **slurm)
    assert last.returncode == 0 and "Sum: 3 of 3 runs finished" in last.stderr, last.stderr
    assert len(new(slurm, before)) == 1 and [status["attempts"] for status in statuses(tmp_path)] == [1] * 3


def test_a_cancelled_array_ends_the_sweep_in_words(tmp_path: Path, slurm: dict[str, str]) -> None:
    before = submitted(slurm)
    line = command("submitit_slurm", *ONE, "hydra.launcher.array_parallelism=1", "seed=0,1,2", "train.epochs=100000")
    process = start(tmp_path, line, **slurm)
    wait_for(lambda: begun(tmp_path) == 1, 200)
    (number,) = new(slurm, before)
    ask(slurm, "scancel", number)
    _, words = process.communicate(timeout=100)
    assert process.returncode == 1 and "Traceback" not in words and "sacct" not in words, words
    assert words.count("was cancelled; the same command submits it again") == 3
    assert new(slurm, before) == [number] and [status["state"] for status in statuses(tmp_path)] == ["interrupted"]


def test_a_sweep_is_started_from_within_a_job(tmp_path: Path, slurm: dict[str, str]) -> None:
    sweep = command("submitit_slurm", *LONG, *SMALL, "train.epochs=1")
    outer = ["srun", "--ntasks=1", "--cpus-per-task=2", "--mem=1500", "--nodelist=n1"]
    outer += ["--export=ALL,SLURM_GRES=gpu:1", *sweep]  # as a job with a GPU has it; srun would ask for one again
    done = run(tmp_path, outer, **slurm)
    assert done.returncode == 0 and "Sum: 2 of 2 runs finished" in done.stderr, done.stderr


def test_a_job_that_slurm_refuses_is_told_in_slurms_words(tmp_path: Path, slurm: dict[str, str]) -> None:
    done = run(tmp_path, command("submitit_slurm", *ONE, "hydra.launcher.partition=gpu"), **slurm)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "invalid partition specified: gpu" in done.stderr


def test_a_queue_that_does_not_answer_submits_nothing(tmp_path: Path, slurm: dict[str, str]) -> None:
    line = command("submitit_slurm", *ONE)
    process = start(tmp_path, line, **slurm)
    wait_for(lambda: begun(tmp_path) == 1, 200)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    conf = tmp_path / "slurm.conf"
    conf.write_text(Path(slurm["SLURM_CONF"]).read_text().replace("SlurmctldPort=", "SlurmctldPort=1#"))
    done = subprocess.run(
        line,
        env=os.environ | slurm | {"SLURM_CONF": str(conf)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "Slurm does not answer (squeue" in done.stderr and "Traceback" not in done.stderr
