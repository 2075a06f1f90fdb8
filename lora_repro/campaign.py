"""A sweep under way: plan, progress with time to go, summary. No torch."""

import logging
import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from hydra.core.utils import JobReturn, JobStatus

from lora_repro.config import LogConfig
from lora_repro.errors import InputError, RunFailedError
from lora_repro.job import set_up_logging
from lora_repro.record import Record, State
from lora_repro.sweep import Job, Sweep

log = logging.getLogger(__name__)


@runtime_checkable
class Launch(Protocol):
    """What runs jobs, given as overrides: a launcher of Hydra's."""

    def __call__(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs and returns how each ended; the index counts the jobs before them."""
        ...


class Plan(NamedTuple):
    """A sweep held against the store."""

    finished: list[Job]
    diverged: list[Job]
    """Ended by a loss that is not finite; computed again, they would end so again."""
    to_run: list[Job]
    planned: list[tuple[dict[str, Any], str]]
    seconds: float | None
    """Time that to_run is expected to take, from finished runs; None where none tells."""

    def words(self) -> str:
        """Says in a line what is done and what is to do."""
        total = len(self.finished) + len(self.diverged) + len(self.to_run)
        parts = [f"{len(self.finished)} of {total} runs finished", f"{len(self.to_run)} to run"]
        if self.diverged:
            parts.append(f"{len(self.diverged)} diverged (not repeated)")
        if self.planned:
            parts.append(
                f"{len(self.planned)} planned for later: {'; '.join(sorted({why for _, why in self.planned}))}"
            )
        if self.to_run and self.seconds is not None:
            parts.append(f"about {duration(self.seconds)}")
        return ", ".join(parts)


def plan(sweep: Sweep, outputs: str) -> Plan:
    """Holds a sweep's jobs against the store; nothing is run."""
    by_state: dict[State, list[Job]] = {}
    taken: dict[tuple[str, str], list[float]] = {}
    for job in sweep.jobs:
        record = Record(outputs, job.run_id)
        result = record.read().result
        state = State.finished if result is not None else record.state
        by_state.setdefault(state, []).append(job)
        if result is not None and "run_seconds" in result:
            taken.setdefault(_kind(job), []).append(result["run_seconds"])
    finished, diverged = by_state.pop(State.finished, []), by_state.pop(State.diverged, [])
    waiting = {job.run_id for jobs in by_state.values() for job in jobs}
    to_run = [job for job in sweep.jobs if job.run_id in waiting]
    known = [statistics.mean(taken[_kind(job)]) for job in to_run if _kind(job) in taken]
    seconds = statistics.mean(known) * len(to_run) if known else None
    return Plan(finished, diverged, to_run, sweep.planned, seconds)


def run(sweep: Sweep, outputs: str, settings: LogConfig, one_by_one: bool, launch: Launch) -> None:
    """Runs what a sweep lacks.

    Args:
        sweep: The jobs.
        outputs: The store.
        settings: What is told.
        one_by_one: Launch each job by itself, with a line of progress after it; otherwise all in one call.
        launch: The launcher.

    Raises:
        InputError: If the whole sweep is planned for later.
        SystemExit: With code 1, if a run failed or diverged.
    """
    if not sweep.jobs:
        raise InputError(f"Nothing of this sweep can be run yet: {sweep.planned[0][1]}.")
    set_up_logging(settings)
    begun = plan(sweep, outputs)
    log.info("Plan: %s. Store: %s", begun.words(), outputs)
    began, wrong = time.perf_counter(), []
    batches = [[job] for job in begun.to_run] if one_by_one else [begun.to_run] if begun.to_run else []
    done = 0
    for batch in batches:
        returns = launch([job.overrides for job in batch], initial_job_idx=done)
        wrong += [
            _reason(Record(outputs, job.run_id), got)
            for job, got in zip(batch, returns, strict=True)
            if got.status is not JobStatus.COMPLETED
        ]
        done += len(batch)
        passed = time.perf_counter() - began
        log.info(
            "[%d/%d] about %s to go, %s so far%s",
            done, len(begun.to_run), duration(passed / done * (len(begun.to_run) - done)), duration(passed),
            f", {len(wrong)} went wrong" if wrong else "",
        )  # fmt: skip
    ended = plan(sweep, outputs)
    log.info("Sum: %s, in %s.", ended.words(), duration(time.perf_counter() - began))
    for line in wrong:
        log.error("Not finished: %s", line)
    if wrong or ended.diverged:
        raise SystemExit(1)


def duration(seconds: float) -> str:
    """Writes a duration as a person says it: 40 s, 12 min, 3 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _kind(job: Job) -> tuple[str, str]:
    run = job.resolved.run
    return run.model.name, run.task.name


def _reason(record: Record, returned: JobReturn) -> str:
    """Returns why a job did not finish."""
    error = returned._return_value
    known = isinstance(error, InputError | RunFailedError)
    return str(error) if known else f"{record.run_id}: {type(error).__name__}: {error}"
