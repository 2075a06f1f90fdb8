"""The time that large sweeps and large stores take: plan, status, the start of a sweep, and the reading of all results.

    python -m lora_repro.bench.plans [--runs 10000]

Plans a sweep of so many runs in an empty store, writes a result for each of them by hand, and plans and reads again.
Each command is a process of its own; its seconds are those in which it computed (user and system), whatever else the
machine does, and they include its start.
"""

import argparse
import json
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lora_repro.cli import guard
from lora_repro.config.compose import compose
from lora_repro.config.identity import NUMERICS_VERSION
from lora_repro.store.record import SCHEMA, plain
from lora_repro.store.status import State
from lora_repro.sweep.grid import Job, load

AXES = (
    "model=minilm,mpnet",
    "method.targets=[q],[q,v]",
    "method.r=1,2,4,8,16",
    "train.learning_rate=1e-4,3e-4,1e-3,3e-3,1e-2",
)
"""A hundred configurations."""

SIZES = {"train": 4043, "eval": 2000, "test": 4000}


class Measured(NamedTuple):
    """What a command took."""

    name: str
    seconds: float


def result_of(job: Job, index: int) -> dict[str, Any]:
    """Returns what result.json of a run could hold; the scores follow from its index."""
    run, rows = job.resolved.run, []
    for epoch in (1, 2, 3):
        dev, test = (0.5 + (index * step + epoch) % 400 / 1000 for step in (7, 11))
        scores = {"eval/accuracy": dev, "eval/majority": 0.5, "eval/loss": 0.7 - dev / 2}
        scores |= {"test/accuracy": test, "test/majority": 0.5, "test/loss": 0.7 - test / 2}
        rows.append({"epoch": epoch, "step": 127 * epoch, **scores})
    count = run.method.count(run.arch)
    return {
        "schema": SCHEMA,
        "run_id": job.run_id,
        "config": plain(run),
        "metrics": {key: value for key, value in rows[-1].items() if "/" in key},
        "metrics_by_epoch": rows,
        "params": {"trainable": count.trainable, **count._asdict()},
        "flags": {"untrained": False, "unmoved": False, "b_zero": False, "one_class": False},
        "data": {split: {"n": n, "labels": {"0": n // 2, "1": n - n // 2}} for split, n in SIZES.items()},
        "train_seconds": 40.0 + index % 7,
        "train_examples_per_s": 300.0,
        "peak_memory_gib": 0.6,
        "merge_max_abs_error": 0.0,
        "provenance": {
            "commit": "0123456789abcdef0123456789abcdef01234567",
            "dirty": False,
            "versions": {"torch": "2.13.0+cpu", "transformers": "5.23.0", "numpy": "2.4.6", "lora_repro": "0.1.0"},
            "numerics_version": NUMERICS_VERSION,
            "device_class": "a CPU",
            "bf16": "native",
            "threads": 1,
            "budget": None,
        },
        "run_seconds": 50.0 + index % 7,
        "digests": {"adapter/adapter_model.safetensors": f"{index:064x}", "predictions.parquet": f"{index:064x}"},
    }


def write_store(store: Path, jobs: Sequence[Job]) -> None:
    """Writes a finished record of each job: its result and its status."""
    for index, job in enumerate(jobs):
        folder = store / "runs" / job.run_id
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(result_of(job, index), indent=1))
        status = {"run_id": job.run_id, "state": State.finished.value, "host": socket.gethostname(), "pid": 1}
        (folder / "status.json").write_text(json.dumps({**status, "attempts": 1}, indent=1))


def measure(name: str, arguments: Sequence[str]) -> Measured:
    """Runs a command of this project and returns what it took.

    Raises:
        SystemExit: If it fails, with what it says.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return Measured(name, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000, help="a multiple of 100 (default: %(default)s)")
    runs = parser.parse_args().runs
    if runs < 100 or runs % 100:
        parser.error(f"argument --runs: must be a multiple of 100 (given: {runs})")
    sweep = [*AXES, f"seed=range(0,{runs // 100})"]
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        (store / "runs").mkdir()
        plan, status = (["-m", "analysis", command, *sweep, "--runs", folder] for command in ("plan", "status"))
        found = [measure("plan, nothing is computed", plan), measure("status, nothing is computed", status)]
        write_store(store, load(compose, sweep).jobs)
        start = ["-m", "lora_repro", "-m", *sweep, f"paths.outputs={folder}", "log.wandb=off"]
        code = "import sys; from analysis import load_runs; load_runs(sys.argv[1])"
        found += [
            measure("plan, all is computed", plan),
            measure("status, all is computed", status),
            measure("the sweep itself, all is computed", start),
            measure("load_runs", ["-c", code, folder]),
            measure("import of analysis.load_runs alone", ["-c", "from analysis import load_runs"]),
        ]
    print(f"| {runs:,} runs | seconds of one core |\n| - | - |")
    print("\n".join(f"| {each.name} | {each.seconds:.1f} |" for each in found))


if __name__ == "__main__":
    sys.exit(guard(main, "nothing is kept"))
