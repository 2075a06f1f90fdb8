"""How long a whole sweep takes: Table 6's demo here, and as a loop of scripts with Trainer and PEFT.

    python -m lora_repro.bench.demo
    python -m lora_repro.bench.demo --runs 2

Here it is one command, `python -m lora_repro -m +sweeps=table6 scale=demo`, with a store of its own. Beside it, every
run is a new process of `one_run_with_peft.py`: it starts, loads, tokenises, trains and scores dev and test after each
epoch. Both have the same runs, examples, settings and threads; with `--launcher joblib`, the launcher divides the cores
among the runs that it computes at a time. Needs the extra `dev` (peft, accelerate).
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_repro.cli import guard
from lora_repro.config.compose import compose
from lora_repro.config.grammar import quoted
from lora_repro.errors import InputError
from lora_repro.machine import cores
from lora_repro.methods import LoRAConfig
from lora_repro.models.inputs import find_model
from lora_repro.sweep.grid import Job, Point, load
from lora_repro.tasks import subset

SCRIPT = Path(__file__).with_name("one_run_with_peft.py")
SWEEP = ["+sweeps=table6", "scale=demo"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the sweep both ways and prints how long each took, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, metavar="N", help="only the first N of the sweep")
    parser.add_argument("--threads", type=int, default=cores(), help="default: the cores, %(default)s")
    parser.add_argument("--launcher", default="basic", help="of Hydra, for the sweep here; default: %(default)s")
    parser.add_argument("--cpu", action="store_true", help="use no GPU")
    options = parser.parse_args(arguments)
    jobs = load(compose, [*SWEEP, "log.wandb=off", *["compute.device=cpu"] * options.cpu]).jobs
    points = [job.point for job in jobs]
    axes = [] if options.runs is None else axes_of(points, options.runs)
    jobs = jobs[: options.runs]
    environment = {
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "0",
        **os.environ,
        "OMP_NUM_THREADS": str(options.threads),
    }
    with tempfile.TemporaryDirectory() as folder:
        ours = [sys.executable, "-m", "lora_repro", "-m", *SWEEP, *axes, f"paths.outputs={folder}/outputs"]
        ours += ["log.wandb=off", f"hydra/launcher={options.launcher}", *["compute.device=cpu"] * options.cpu]
        if options.launcher == "basic":
            ours.append(f"compute.threads={options.threads}")
        took = [_seconds(ours, environment if options.launcher == "basic" else {**os.environ, "HF_HUB_OFFLINE": "1"})]
        results = [json.loads(path.read_text()) for path in Path(folder).glob("outputs/runs/*/result.json")]
        if len(results) != len(jobs):
            raise RuntimeError(f"{len(results)} runs finished, not {len(jobs)}, so the times cannot be compared.")
        data = Path(folder, "data.json")
        data.write_text(json.dumps(_examples(jobs[0])), encoding="utf-8")
        each, theirs = [], []
        for number, job in enumerate(jobs):
            output = Path(folder, f"peft{number}")
            command = [sys.executable, str(SCRIPT), *script_arguments(job, data, output), *["--cpu"] * options.cpu]
            each.append(_seconds(command, environment))
            theirs.append(json.loads((output / "scores.json").read_text()))
        took.append(sum(each))
    scores = [result["metrics"]["test/accuracy"] for result in results], [last_accuracy(lines) for lines in theirs]
    print(table(took, len(jobs), options.threads, [statistics.mean(found) for found in scores]))


def axes_of(points: Sequence[Point], runs: int) -> list[str]:
    """Returns the axes of the command line that leave a sweep its first runs.

    Raises:
        InputError: If no axes do, as the first runs are no grid.
    """
    legal = {n: axes for n in range(1, len(points) + 1) if (axes := _grid(points[:n])) is not None}
    if runs not in legal:
        raise InputError(f"--runs: must be {', '.join(map(str, legal))} (given: {runs}): the first so many are a grid.")
    varied = [key for key in points[0] if any(point[key] != points[0][key] for point in points)]
    return [f"{key}={','.join(map(quoted, legal[runs][key]))}" for key in varied]


def _grid(points: Sequence[Point]) -> dict[str, list[Any]] | None:
    axes: dict[str, list[Any]] = {}
    for point in points:
        for key, value in point.items():
            if value not in axes.setdefault(key, []):
                axes[key].append(value)
    return axes if math.prod(map(len, axes.values())) == len(points) else None


def script_arguments(job: Job, data: Path, output: Path) -> list[str]:
    """Returns what the script is given to train a run of the sweep."""
    run, paths = job.resolved.run, job.resolved.settings.paths
    method, settings = run.method, run.train
    assert isinstance(method, LoRAConfig)
    given = {
        "model": find_model(run.model, paths.model, paths.cache),
        "data": data,
        "output": output,
        "r": method.r,
        "alpha": method.alpha,
        "dropout": run.model.dropout,
        "learning-rate": settings.learning_rate,
        "schedule": settings.schedule.value,
        "warmup-ratio": settings.warmup_ratio,
        "epochs": settings.epochs,
        "batch-size": settings.batch_size,
        "max-length": settings.max_length,
        "seed": run.seed,
    }
    pairs = [text for key, value in given.items() for text in (f"--{key}", str(value))]
    targets = [site.module for site in method.sites(run.arch)]
    return [*pairs, "--targets", *targets, "--head", *run.arch.head_modules]


def _examples(job: Job) -> dict[str, list[tuple[str, Any]]]:
    run, paths = job.resolved.run, job.resolved.settings.paths
    splits = subset(run.task.load(paths.data, paths.cache), run.task)
    return {name: [(example.text, example.target) for example in examples] for name, examples in splits.items()}


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    """Runs a command, and returns how long it took.

    Raises:
        RuntimeError: With what it wrote, if it failed.
    """
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[1:4])} ... failed:\n{done.stderr}")
    print(f"{' '.join(command[1:4])} ...: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return time.perf_counter() - began


def last_accuracy(lines: Sequence[dict[str, Any]]) -> float:
    """Returns the accuracy on test after the last epoch from what Trainer logged."""
    return next(line["eval_test_accuracy"] for line in reversed(lines) if "eval_test_accuracy" in line)


def table(seconds: Sequence[float], runs: int, threads: int, accuracy: Sequence[float]) -> str:
    """Writes both times, the mean accuracies on test, and the ratio as a Markdown table."""
    lines = [
        f"| the {runs} runs of Table 6's demo, {threads} threads | seconds | seconds a run | mean test accuracy |",
        "|---|---|---|---|",
    ]
    sides = ("`python -m lora_repro -m`", "a loop of scripts with Trainer + PEFT")
    for side, took, mean in zip(sides, seconds, accuracy, strict=True):
        lines.append(f"| {side} | {took:.0f} | {took / runs:.1f} | {mean:.3f} |")
    return "\n".join([*lines, f"| ratio | {seconds[1] / seconds[0]:.2f} | | |"])


if __name__ == "__main__":
    sys.exit(guard(main, "nothing is kept"))
