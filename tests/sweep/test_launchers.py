"""Each launcher runs the Table 6 smoke sweep, skips what is finished, and shares the store."""

import importlib.util
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from helpers import fake_slurm, processes
from helpers.launched_sweeps import (
    FEW,
    LONG,
    LONG_RUN,
    TUNED,
    begun,
    both_begin,
    command,
    differ_but_for_paths,
    run,
    smoke_sweep_runs_once_and_is_skipped_then,
    start,
    tuned_sweep_ran_once,
    undisturbed,
)
from helpers.waiting import PATIENCE_S, wait_for
from hydra import compose, initialize_config_dir

from lora_repro import machine as workers
from lora_repro.config import schema  # noqa: F401  registers what conf/ asks for
from lora_repro.config.catalogue import HOME


@pytest.mark.long
def test_joblib_runs_the_sweep_on_all_cores_with_threads_divided(tmp_path: Path) -> None:
    words = smoke_sweep_runs_once_and_is_skipped_then(tmp_path, "joblib")
    assert "UserWarning" not in words and "Joblib.Parallel" not in words
    results = [json.loads(path.read_text()) for path in tmp_path.glob("store/runs/*/result.json")]
    assert {result["provenance"]["threads"] for result in results} == {1}
    undisturbed(tmp_path / "basic", command("basic", "+sweeps=table6", "scale=smoke"))
    assert differ_but_for_paths(tmp_path, tmp_path / "basic") == []


@pytest.mark.long
def test_two_processes_tune_a_sweep_together_and_joblib_runs_its_waves(tmp_path: Path) -> None:
    both = [start(tmp_path / "two", command("basic", *TUNED)) for _ in range(2)]
    words = [process.communicate(timeout=PATIENCE_S)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], words
    tuned_sweep_ran_once(tmp_path / "two", words[0])
    joblib = run(tmp_path / "joblib", command("joblib", *TUNED))
    assert joblib.returncode == 0, joblib.stderr
    tuned_sweep_ran_once(tmp_path / "joblib", joblib.stderr)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_joblibs_workers_keep_their_runs_when_the_sweep_is_ended(number: int, tmp_path: Path) -> None:
    process = start(tmp_path, command("joblib", *LONG, *FEW))
    both_begin(tmp_path)
    process.send_signal(number)
    _, words = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130 and "Traceback" not in words, words
    assert words.splitlines()[-1].startswith("Interrupted; finished runs are kept")
    states = [json.loads(path.read_text())["state"] for path in tmp_path.glob("store/runs/*/status.json")]
    assert states == ["interrupted"] * 2
    again = run(tmp_path, command("joblib", *LONG, *FEW))
    assert again.returncode == 0 and again.stderr.count("goes on from step") == 2, again.stderr


@pytest.mark.long
def test_a_killed_worker_costs_the_other_runs_nothing(tmp_path: Path) -> None:
    process = start(tmp_path, command("joblib", *LONG, "method=lora,full"))
    wait_for(lambda: begun(tmp_path) == 2)
    lock, *_ = tmp_path.glob("store/runs/*/lock")
    psutil.Process(json.loads(lock.read_text())["pid"]).kill()  # as the system does when memory runs out
    _, words = process.communicate(timeout=200)
    assert process.returncode == 0, words
    assert [line.split()[3] for line in words.splitlines() if " died (process " in line] == [lock.parent.name]
    assert "The launcher broke (TerminatedWorkerError); launching 4 runs again, from their checkpoints." in words
    assert len(list(tmp_path.glob("store/runs/*/result.json"))) == 4 and "goes on from step" in words


@pytest.mark.long
@pytest.mark.parametrize(("before", "state"), [([], "interrupted"), (["nohup"], "running")])
def test_a_run_whose_terminal_closes_is_kept_and_with_nohup_goes_on(
    before: list[str], state: str, tmp_path: Path
) -> None:
    ours, its = pty.openpty()
    shell = subprocess.Popen(
        ["setsid", "--ctty", "bash", "--norc", "-i"], stdin=its, stdout=its, stderr=its, cwd=tmp_path
    )
    os.close(its)
    line = [sys.executable, "-m", "lora_repro", "paths.outputs=store", "log.wandb=off", *LONG[:2], "train.epochs=9999"]
    os.write(
        ours, f"export PYTHONPATH={HOME}\n{shlex.join([*before, *line, 'log.checkpoint_every_s=null'])}\n".encode()
    )
    wait_for(lambda: any(path.stat().st_size for path in tmp_path.glob("store/runs/*/metrics.jsonl")))
    os.close(ours)  # as sshd does when the connection is gone: the kernel and the shell both send SIGHUP
    shell.wait(timeout=20)
    status = next(tmp_path.glob("store/runs/*/status.json"))
    process = psutil.Process(json.loads(status.read_text())["pid"])
    try:
        if state == "interrupted":
            process.wait(timeout=30)
        assert json.loads(status.read_text())["state"] == state
        assert begun(tmp_path) == (state == "interrupted")
    finally:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@pytest.mark.filterwarnings(r"ignore:\s*'hydra/launcher/\w+' is validated against ConfigStore schema")
@pytest.mark.parametrize("launcher", ["submitit_local", "submitit_slurm"])
def test_what_submitit_writes_lies_in_the_store(launcher: str) -> None:
    with initialize_config_dir(str(HOME / "conf"), version_base="1.3"):
        cfg = compose("config", [f"hydra/launcher={launcher}", "paths.outputs=x"], return_hydra_config=True)
    assert cfg.hydra.launcher.submitit_folder == "x/.submitit/%j"


@pytest.mark.long
def test_submitit_on_this_machine_leaves_everything_in_the_store(tmp_path: Path) -> None:
    done = run(tmp_path, command("submitit_local", *LONG[:2], "train.epochs=1", "log.wandb=off"))
    assert done.returncode == 0 and "Sum: 1 of 1 runs finished" in done.stderr, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert list((tmp_path / "store" / ".submitit").iterdir())


def submitted(folder: Path) -> tuple[str, set[str]]:
    """Returns the only script that Slurm was given, and its options."""
    (script,) = fake_slurm.scripts(folder / "slurm" / "state")
    return script, set(re.findall(r"^#SBATCH --(.*)$", script, re.MULTILINE))


@pytest.mark.long
def test_slurm_runs_the_sweep_as_one_array(tmp_path: Path) -> None:
    slurm = fake_slurm.install(tmp_path / "slurm")
    smoke_sweep_runs_once_and_is_skipped_then(tmp_path, "submitit_slurm", **slurm)
    assert "array=0-7%8" in submitted(tmp_path)[1]


@pytest.mark.long
def test_slurms_settings_are_the_users(tmp_path: Path) -> None:
    slurm = fake_slurm.install(tmp_path / "slurm")
    mine = ["hydra.launcher.partition=gpu", "hydra.launcher.gpus_per_node=1", "hydra.launcher.array_parallelism=3"]
    done = run(tmp_path, command("submitit_slurm", "+sweeps=table6", "scale=smoke", "method.r=1", *mine), **slurm)
    assert done.returncode == 0, done.stderr
    assert {"partition=gpu", "gpus-per-node=1", "array=0-3%3"} <= submitted(tmp_path)[1]


@pytest.mark.parametrize("number", [signal.SIGUSR2, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_a_preempted_job_is_requeued_and_goes_on_from_its_checkpoint(number: int, tmp_path: Path) -> None:
    slurm = fake_slurm.install(tmp_path / "slurm")
    process = start(tmp_path, command("submitit_slurm", *LONG, *FEW), **slurm)
    both_begin(tmp_path)
    assert fake_slurm.preempt(tmp_path / "slurm" / "state", number) == 2
    _, words = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, words
    logs = [path.read_text() for path in tmp_path.glob("store/runs/*/run.log")]
    assert len(logs) == 2 and all(log.count("goes on from step") == 1 for log in logs)
    attempts = [json.loads(path.read_text())["attempts"] for path in tmp_path.glob("store/runs/*/status.json")]
    assert attempts == [2, 2]
    undisturbed(tmp_path / "basic", command("basic", *LONG, *FEW))
    assert differ_but_for_paths(tmp_path, tmp_path / "basic") == []


def test_a_cancelled_array_is_over_for_who_waits_and_is_not_submitted_anew(tmp_path: Path) -> None:
    slurm = fake_slurm.install(tmp_path / "slurm")
    process = start(tmp_path, command("submitit_slurm", *LONG_RUN, *FEW, "seed=0,1,2"), **slurm)
    both_begin(tmp_path)
    assert run(tmp_path, ["scancel", "1"], **slurm).returncode == 0
    _, words = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1 and "Traceback" not in words, words
    assert words.count("was cancelled; the same command submits it again") == 3
    assert begun(tmp_path) == 2 and not list(tmp_path.glob("store/runs/*/lock"))
    states = [json.loads(path.read_text())["state"] for path in tmp_path.glob("store/runs/*/status.json")]
    assert states == ["interrupted"] * 2
    script, options = submitted(tmp_path)
    assert {
        "array=0-2%3", "requeue", "signal=USR2@120", "time=240", "cpus-per-task=4", "mem=16GB", "nodes=1",
        "ntasks-per-node=1", "open-mode=append", "job-name=lora_repro",
    } <= options  # fmt: skip
    assert not any(option.startswith(("partition", "gpus", "account")) for option in options)
    assert "srun" in script and "submitit.core._submit" in script


@pytest.mark.long
def test_jobs_that_wait_in_slurms_queue_are_not_submitted_again(tmp_path: Path) -> None:
    slurm = fake_slurm.install(tmp_path / "slurm")
    line = command("submitit_slurm", *LONG_RUN, "seed=0,1,2")
    process = start(tmp_path, line, **slurm)
    both_begin(tmp_path)
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130 and "stay in Slurm's queue; scancel 1 ends them" in words, words
    again = run(tmp_path, line, **slurm)
    assert again.returncode == 0, again.stderr
    assert "2 running elsewhere, 1 waiting in Slurm's queue" in again.stderr
    assert "Sum: 3 of 3 runs finished" in again.stderr
    assert len(fake_slurm.scripts(tmp_path / "slurm" / "state")) == 1


def test_a_job_that_would_be_warned_as_it_begins_is_not_submitted(tmp_path: Path) -> None:
    slurm = fake_slurm.install(tmp_path / "slurm")
    line = command("submitit_slurm", *LONG, "hydra.launcher.timeout_min=3")
    done = processes.run(line[2:], slurm, cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "hydra.launcher.signal_delay_s=120: with hydra.launcher.timeout_min=3" in done.stderr
    assert "timeout_min=13" in done.stderr and not fake_slurm.scripts(tmp_path / "slurm" / "state")


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="make test-all installs Ray")
def test_ray_runs_the_sweep(tmp_path: Path) -> None:
    smoke_sweep_runs_once_and_is_skipped_then(tmp_path, "ray", RAY_USAGE_STATS_ENABLED="0")


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="make test-all installs Ray")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_rays_workers_keep_their_runs_when_the_sweep_is_ended(number: int, tmp_path: Path) -> None:
    line = ["setsid", *command("ray", *LONG)]  # a group of its own, as a shell makes it
    process = start(tmp_path, line, RAY_USAGE_STATS_ENABLED="0")
    both_begin(tmp_path)
    (os.kill if number == signal.SIGTERM else os.killpg)(process.pid, number)  # a terminal signals all that run in it
    _, words = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130 and "Traceback" not in words, words
    states = [json.loads(path.read_text())["state"] for path in tmp_path.glob("store/runs/*/status.json")]
    assert states == ["interrupted"] * 2
    again = run(tmp_path, command("ray", *LONG), RAY_USAGE_STATS_ENABLED="0")
    assert again.returncode == 0 and again.stderr.count("goes on from step") == 2, again.stderr


def test_a_launcher_that_is_not_installed_is_told_with_the_command_that_installs_it(tmp_path: Path) -> None:
    hidden = tmp_path / "sitecustomize.py"
    hidden.write_text("import sys\nsys.modules['hydra_plugins.hydra_joblib_launcher'] = None\n")
    done = run(tmp_path, command("joblib", "+sweeps=table6", "scale=smoke"), PYTHONPATH=f"{tmp_path}:{HOME}")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "hydra/launcher=joblib: it is not installed" in done.stderr
    assert "pip install hydra-joblib-launcher" in done.stderr


@pytest.mark.parametrize(
    ("visible", "listed", "count"),
    [
        (None, 4, 4),
        ("", 4, 0),
        ("-1", 4, 0),
        ("0", 4, 1),
        ("0,3", 4, 2),
        ("0,-1,1", 4, 1),
        ("0,1,2,3", 2, 2),
        ("NoDevFiles", 4, 0),
        ("GPU-a, GPU-b,GPU-c", 4, 3),
        ("MIG-a,MIG-b", 1, 2),
        ("0,1,2,3", 0, 0),
        ("0,1,2,3", None, 0),
        (None, None, 0),
    ],
)
def test_workers_are_as_many_as_visible_gpus(
    visible: str | None, listed: int | None, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listed by nvidia-smi; None: there is none."""
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    lines = "".join(f"GPU {i}: A GPU (UUID: GPU-{i})\n  MIG 3g Device 0: (UUID: MIG-{i})\n" for i in range(listed or 0))
    monkeypatch.setattr(workers.shutil, "which", lambda _: None if listed is None else "/usr/bin/nvidia-smi")
    monkeypatch.setattr(workers.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=lines))
    assert workers.gpus() == count
    assert workers.workers() == (count or len(os.sched_getaffinity(0)))
