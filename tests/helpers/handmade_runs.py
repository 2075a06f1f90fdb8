"""Stores made by hand: records that hold just what a reader must find in them."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lora_repro.config.compose import compose
from lora_repro.config.identity import NUMERICS_VERSION
from lora_repro.store.record import SCHEMA, plain
from lora_repro.sweep.grid import Job, load

SMOKE = ("+sweeps=table6", "scale=smoke")
"""Eight runs: targets q and q,v; r 1 and 2; seeds 0 and 1."""

PROVENANCE = {
    "commit": "0123456789abcdef",
    "dirty": False,
    "device_class": "a CPU",
    "threads": 2,
    "bf16": None,
    "versions": {"torch": "2.13.0"},
    "numerics_version": NUMERICS_VERSION,
}


@cache
def jobs(*arguments: str) -> list[Job]:
    """Returns the jobs of a sweep (default: table6 at scale smoke)."""
    return load(compose, arguments or SMOKE).jobs


def job(targets: str, r: int, seed: int) -> Job:
    """Returns one job of table6 at scale smoke; targets as in run ids, `qv`."""
    return next(job for job in jobs() if f"-r{r}-{targets}-s{seed}-" in job.run_id)


def write_run(store: Path, job: Job, epochs: Sequence[tuple[float, float]], **more: Any) -> Path:
    """Writes the result of a job whose dev and test accuracy after each epoch are given, and returns its folder."""
    rows = [
        {"epoch": i, "eval/accuracy": dev, "eval/majority": 0.6, "test/accuracy": test, "test/majority": 0.5}
        for i, (dev, test) in enumerate(epochs, 1)
    ]
    result = {
        "schema": SCHEMA,
        "run_id": job.run_id,
        "config": plain(job.resolved.run),
        "metrics": {key: value for key, value in rows[-1].items() if "/" in key},
        "metrics_by_epoch": rows,
        "params": {"trainable": 30, "method": 10, "head": 20, "total": 100, "by_module": {"layers.0.q": 10}},
        "flags": {"untrained": False, "one_class": False, "b_zero": False},
        "data": {name: {"n": 10, "labels": {"0": 4, "1": 6}} for name in ("train", "eval", "test")},
        "run_seconds": max(2.0, more.get("train_seconds", 0.0)),
        "provenance": PROVENANCE,
    }
    folder = store / "runs" / job.run_id
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result | more))
    return folder


def write_status(store: Path, job: Job, state: str, error: str | None = None) -> None:
    """Writes the status of a job without a result."""
    folder = store / "runs" / job.run_id
    folder.mkdir(parents=True)
    status = {"run_id": job.run_id, "state": state} | ({} if error is None else {"error": error})
    (folder / "status.json").write_text(json.dumps(status))


def fill(store: Path) -> None:
    """Finishes all runs of table6 at scale smoke: dev 0.8 with seed 0 and 0.9 with seed 1."""
    for each in jobs():
        accuracy = 0.8 + 0.1 * each.resolved.run.seed
        write_run(store, each, [(0.5, 0.5), (accuracy, accuracy - 0.1)])
