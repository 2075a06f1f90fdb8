"""Stores with hand-made records of the sweeps that claims read, at the scale that is judged."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from helpers.handmade_runs import write_run

from lora_repro.config.compose import compose
from lora_repro.store.record import Record
from lora_repro.sweep.grid import Job, load
from lora_repro.tasks.targets import Example, Texts

Score = Callable[[str, int, int], float | None]
"""The accuracy of a run by its targets, rank and seed; None leaves the run out."""

GAIN = 0.16
"""What LoRA gains over the head alone in the tuning runs: the margin is a tenth of it."""


@cache
def sweep_jobs(*arguments: str) -> list[Job]:
    """Returns the jobs of a sweep that tunes nothing."""
    return load(compose, [*arguments, "scale=proxy"]).jobs


@cache
def tuning_jobs(*arguments: str) -> list[Job]:
    """Returns the tuning runs of a sweep's own grids."""
    return list(load(compose, [*arguments, "scale=proxy"]).tuning_jobs)


def write_margin(store: Path, gain: float = GAIN) -> None:
    """Writes the tuning runs of the margin on minilm; the middle rate is the best."""
    for job in tuning_jobs("+sweeps=margin", "model=minilm"):
        run = job.resolved.run
        best = 0.66 + gain if run.method.name == "lora" else 0.66
        score = best if run.train.learning_rate == 3e-3 else best - 0.05
        write_run(store, job, [(score, score)])


EXAMPLES = 1000
"""Of the test split of hand-made runs: scores are thousandths."""


def write_scored(store: Path, job: Job, score: float, rise: float = 0.0) -> None:
    """Writes a run of two epochs and its answers; dev rises to the score from `rise` below it, test has the score."""
    score = round(score, 3)
    write_run(store, job, [(score - rise - 1e-9, score), (score, score)])
    answer(store, job, [n < round(EXAMPLES * score) for n in range(EXAMPLES)], list(range(EXAMPLES)))


def write_rows(store: Path, job: Job, rows: list[dict[str, Any]], **more: Any) -> None:
    """Writes a run of any task by its rows of metrics_by_epoch."""
    task = job.resolved.run.task
    target: Any = ["a text"] if isinstance(task.targets, Texts) else 1
    data = {split: task.targets.describe([Example("0", "a text", target, "0")]) for split in task.all_splits}
    last = {key: value for key, value in rows[-1].items() if "/" in key}
    write_run(store, job, [(0, 0)], metrics=last, metrics_by_epoch=rows, data=data, **more)


def write_ranks(store: Path, score: Score, regime: str = "one_rate", rise: float = 0.0) -> None:
    """Writes table 6 on minilm in a regime that tunes nothing."""
    for job in sweep_jobs("+sweeps=table6", f"regime={regime}", "model=minilm"):
        method: Any = job.resolved.run.method
        value = score(",".join(method.targets), method.r, job.resolved.run.seed)
        if value is not None:
            write_scored(store, job, value, rise)


def write_section7(store: Path, rise: float = 0.0) -> None:
    """Writes the runs of Section 7 on minilm; dev rises by `rise` in the last epoch, on permuted labels by much."""
    for job in sweep_jobs("+sweeps=section7", "regime=one_rate", "model=minilm"):
        own = 0.5 if job.resolved.run.task.permute_labels else rise
        write_run(store, job, [(0.84 - own, 0.84), (0.84, 0.84)])


def answer(store: Path, job: Job, right: list[bool], documents: list[int] | None, epoch: int = 2) -> None:
    """Writes what a run answered for test: label 1 throughout. Old records have no documents."""
    rows = [
        {"split": "test", "epoch": epoch, "id": str(n), "label": 1, "prediction": int(ok), "scores": [0.0, 1.0]}
        for n, ok in enumerate(right)
    ]
    if documents is not None:
        rows = [{**row, "document": document} for row, document in zip(rows, documents, strict=True)]
    Record(store, job.run_id).save_predictions(rows)
