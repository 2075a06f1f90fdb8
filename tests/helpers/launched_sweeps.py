"""Sweeps in processes of their own, by any launcher."""

import json
import os
import subprocess
import sys
from pathlib import Path

from helpers import processes
from helpers.store_contents import differences
from helpers.waiting import PATIENCE_S, at_once

LONG_RUN = ["model=tiny_bert", "task=generated", "train.epochs=40", "log.checkpoint_every_s=0"]
"""A run of half a minute, a checkpoint after each step: long enough for another command to start beside it."""
LONG = [*LONG_RUN, "seed=0,1"]
FEW = ("task.train_size=160", "task.eval_size=20", "task.test_size=20", "train.epochs=30")
"""Makes a run one of some seconds: ten steps an epoch."""

TUNED = ["model=tiny_bert", "task=generated", "method=full", "seed=0,1"]
TUNED += ["tune={train.learning_rate:[1e-3,3e-3],seed:[100]}"]
"""Two reported runs whose rate is tuned on one seed; a grid of two values grows, so there are two waves of tuning."""


def command(launcher: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "lora_repro", "-m", f"hydra/launcher={launcher}", "paths.outputs=store", *arguments]


def run(folder: Path, line: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        line, capture_output=True, text=True, check=False, cwd=folder, env=os.environ | environment, timeout=PATIENCE_S
    )


def undisturbed(folder: Path, line: list[str]) -> None:
    """Runs a sweep to its end, in a process that need not import first."""
    folder.mkdir(exist_ok=True)
    done = processes.run(line[2:], cwd=folder)
    assert done.returncode == 0, done.stderr


def start(folder: Path, line: list[str], **environment: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(line, stderr=subprocess.PIPE, text=True, cwd=folder, env=os.environ | environment)


def begun(folder: Path) -> int:
    """Returns how many runs have a checkpoint; each has two for the moment in which a new one replaces the old."""
    return len({path.parent for path in folder.glob("store/runs/*/checkpoint/0*.safetensors")})


def both_begin(folder: Path) -> None:
    """Waits until two runs have a checkpoint and are under way at one time."""
    at_once(folder / "store" / "runs", 2, "checkpoint/0*.safetensors")


def smoke_sweep_runs_once_and_is_skipped_then(folder: Path, launcher: str, *settings: str, **environment: str) -> str:
    """Returns the words of the first call."""
    sweep = command(launcher, "+sweeps=table6", "scale=smoke", *settings)
    first = run(folder, sweep, **environment)
    assert first.returncode == 0, first.stderr
    assert "Sum: 8 of 8 runs finished, 0 to run" in first.stderr and "Traceback" not in first.stderr
    assert len(list(folder.glob("store/runs/*/result.json"))) == 8
    assert not list(folder.glob("store/runs/*/lock")) and not list(folder.glob("store/runs/*/checkpoint"))
    second = run(folder, sweep, **environment)
    assert second.returncode == 0, second.stderr
    assert [line.partition(",")[0] for line in second.stderr.splitlines()] == [
        "Plan: 8 of 8 runs finished",
        "Sum: 8 of 8 runs finished",
    ]
    attempts = [json.loads(path.read_text())["attempts"] for path in folder.glob("store/runs/*/status.json")]
    assert attempts == [1] * 8
    return first.stderr


def differ_but_for_paths(one: Path, other: Path) -> list[str]:
    return [name for name in differences(one / "store" / "runs", other / "store" / "runs") if "config.yaml" not in name]


def tuned_sweep_ran_once(folder: Path, words: str) -> None:
    """Checks that both reported runs have one tuned rate, and that nothing was computed twice."""
    assert "Traceback" not in words and words.count("Tuning: ") >= 2
    attempts = [json.loads(path.read_text())["attempts"] for path in folder.glob("store/runs/*/status.json")]
    results = [json.loads(path.read_text())["config"] for path in folder.glob("store/runs/*/result.json")]
    rates = {seed: [c["train"]["learning_rate"] for c in results if c["seed"] == seed] for seed in (0, 1, 100)}
    assert attempts == [1] * len(results) and len(rates[100]) >= 3
    assert rates[0] == rates[1] and len(rates[0]) == 1 and rates[0][0] in rates[100]
