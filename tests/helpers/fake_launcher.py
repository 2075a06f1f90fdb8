"""Sweeps of four runs, by a launcher that writes results instead of training."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from helpers.handmade_runs import jobs, write_run
from hydra.core.utils import JobReturn, JobStatus

from lora_repro.config.compose import compose
from lora_repro.config.settings import LogConfig
from lora_repro.sweep import campaign
from lora_repro.sweep.grid import Job, Sweep, load

FOUR = ("+sweeps=table6", "scale=smoke", "method.targets=[q]")


def sweep(*arguments: str) -> Sweep:
    return load(compose, [*FOUR, *arguments])


def ended(error: Exception | None = None) -> JobReturn:
    returned = JobReturn()
    returned.status = JobStatus.COMPLETED if error is None else JobStatus.FAILED
    returned.return_value = error
    return returned


class Launches:
    """A launcher that finishes each run by writing its result, but for what `wrong` says."""

    def __init__(self, store: Path, wrong: dict[str, Callable[[Job], Exception | None]] | None = None) -> None:
        self.store, self.wrong = store, wrong if wrong is not None else {}
        self.batches: list[list[str]] = []

    def __call__(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        named = [next(job for job in jobs() if set(job.overrides) <= set(line)) for line in job_overrides]
        self.batches.append([job.run_id for job in named])
        returns = []
        for job in named:
            act = self.wrong.get(job.run_id, lambda job: write_result(self.store, job))
            returns.append(ended(act(job)))
        return returns


def write_result(store: Path, job: Job) -> None:
    folder = store / "runs" / job.run_id
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    write_run(store, job, [(0.5, 0.5)])


def run(asked: Sweep, store: Path, launches: Any, one_by_one: bool = True) -> int:
    def compute(job: Job) -> None:
        (returned,) = launches([job.overrides], 0)
        if returned.status is not JobStatus.COMPLETED:
            raise returned._return_value

    launcher = campaign.Launcher(launches, compute if one_by_one else None)
    try:
        campaign.run(lambda: asked, str(store), LogConfig(), launcher)
    except SystemExit as error:
        return int(str(error.code))
    return 0
