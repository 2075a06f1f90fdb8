"""A sweep under way: plan, progress with time to go, summary. No torch."""

import itertools
import logging
import time
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from hydra.core.utils import JobReturn, JobStatus

from lora_repro.config.grammar import quoted
from lora_repro.config.settings import LogConfig
from lora_repro.errors import InputError, RunBusyError, RunFailedError
from lora_repro.mirror import run_names
from lora_repro.store.record import Record, State
from lora_repro.sweep.estimate import Timings, expected
from lora_repro.sweep.grid import Job, Sweep
from lora_repro.sweep.slurm_queue import Queue, standing
from lora_repro.sweep.watch import Watch, duration
from lora_repro.training import interrupt
from lora_repro.training.job import set_up_logging

DEADLY = 2
"""Deaths without a word after which a run comes last."""
POLL_S = 1.0
QUEUE_POLL_S = 10.0

log = logging.getLogger(__name__)


@runtime_checkable
class Launch(Protocol):
    """What runs jobs, given as overrides: a launcher of Hydra's."""

    def __call__(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs and returns how each ended; the index counts the jobs before them."""
        ...


class Plan(NamedTuple):
    """A sweep held against the store."""

    sweep: Sweep
    states: dict[str, State]
    """How each run stands, by run id."""
    lacking: dict[str, list[str]]
    """What finished runs lack of what `log` asks to keep."""
    to_run: list[Job]
    """What the sweep would compute now, in its order."""
    seconds: float | None
    """Time that to_run is expected to take, one run after another; None where nothing tells."""
    queued: list[Job]
    """What jobs in Slurm's queue will compute, or compute already."""

    def count(self, state: State) -> int:
        """Returns the number of runs in a state."""
        return sum(found is state for found in self.states.values())

    def words(self) -> str:
        """Says in a line what is done and what is to do."""
        parts = [f"{self.count(State.finished)} of {len(self.states)} runs finished", f"{len(self.to_run)} to run"]
        if running := self.count(State.running):
            parts.append(f"{running} running elsewhere")
        if pending := sum(self.states[job.run_id] is not State.running for job in self.queued):
            parts.append(f"{pending} waiting in Slurm's queue")
        if blocked := self.count(State.blocked):
            parts.append(f"{blocked} blocked by a result.json that does not count, and is left as it is")
        if diverged := self.count(State.diverged):
            parts.append(f"{diverged} diverged (not repeated)")
        waiting = {job.run_id for job in self.to_run}
        if failed := sum(state is State.failed and name not in waiting for name, state in self.states.items()):
            parts.append(f"{failed} failed (repeated with compute.retry_failed=true)")
        if lacking := len(self.lacking.keys() - waiting):
            parts.append(f"{lacking} finished lack what log asks to keep (made again with log.rebuild=true)")
        if planned := self.sweep.planned:
            parts.append(f"{len(planned)} planned for later: {'; '.join(sorted({why for _, why in planned}))}")
        if self.to_run and self.seconds is not None:
            parts.append(f"about {duration(self.seconds)}")
        return ", ".join(parts)


def plan(sweep: Sweep, outputs: str, queued: Collection[str] = (), timings: Timings | None = None) -> Plan:
    """Holds a sweep's jobs against the store; nothing is run.

    What would be computed: runs without a result that nobody computes, but those that diverged, and those that failed
    unless compute.retry_failed asks for them; and, with log.rebuild, finished ones that lack what is asked for. Runs
    whose process died twice without a word (out of memory?) come last, so that the others get their turn.

    Args:
        sweep: The jobs.
        outputs: The store.
        queued: Ids of runs that have a job in Slurm's queue; they are not to be run again.
        timings: What is known of the store's runs already; it is read if not given.
    """
    states: dict[str, State] = {}
    lacking: dict[str, list[str]] = {}
    to_run: list[Job] = []
    deadly: list[Job] = []
    in_queue: list[Job] = []
    for job in sweep.jobs:
        record, settings = Record(outputs, job.run_id), job.resolved.settings
        state, result = record.read_state()
        states[job.run_id] = state
        if result is not None:
            if missing := record.missing_outputs(settings.log, job.resolved.run.method):
                lacking[job.run_id] = missing
                to_run += [job] if settings.log.rebuild else []
        elif job.run_id in queued:
            in_queue.append(job)
        elif state not in (State.running, State.diverged, State.blocked) and (
            state is not State.failed or settings.compute.retry_failed
        ):
            died = record.status().get("deaths", 0) + (state is State.stale)
            (deadly if died >= DEADLY else to_run).append(job)
    to_run += deadly
    begun = {
        job.run_id: job.resolved.run for job in sweep.jobs if states[job.run_id] in (State.running, State.interrupted)
    }
    runs = [job.resolved.run for job in to_run]
    known = (timings if timings is not None else Timings(outputs)).of(runs, begun)
    return Plan(sweep, states, lacking, to_run, expected(runs, known), in_queue)


class Launcher(NamedTuple):
    """What runs jobs, and how."""

    launch: Launch
    one_by_one: bool
    """Jobs are launched each by itself, in this process; otherwise all in one call, in others."""
    on_cluster: bool = False
    """Jobs belong to a queue, and go on when this process ends."""
    queue: Queue | None = None
    """That queue, where it is Slurm's: it launches the jobs then."""


def run(sweep: Sweep, outputs: str, settings: LogConfig, launcher: Launcher) -> None:
    """Runs what a sweep lacks, sharing the work with other processes that run it, until nothing is left.

    Args:
        sweep: The jobs.
        outputs: The store.
        settings: What is told.
        launcher: Hydra's.

    Raises:
        InputError: If the whole sweep is planned for later.
        KeyboardInterrupt: If the process was asked to end.
        SystemExit: With code 1, if a run did not finish, or lacks what `log` asks to keep.
    """
    if not sweep.jobs:
        raise InputError(f"Nothing of this sweep can be run yet: {sweep.planned[0][1]}.")
    set_up_logging(settings)
    timings = Timings(outputs)
    begun = plan(sweep, outputs, standing(outputs) if launcher.queue is not None else (), timings)
    log.info("Plan: %s. Store: %s", begun.words(), outputs)
    for job in sweep.jobs:
        record = Record(outputs, job.run_id)
        if begun.states[job.run_id] is State.finished and not record.is_tidy:
            record.tidy()
    began = time.perf_counter()
    queued = {job.run_id for job in begun.queued}
    elsewhere = [job for job in sweep.jobs if begun.states[job.run_id] is State.running and job.run_id not in queued]
    named = run_names.overrides(sweep.jobs)
    to_do = [*begun.to_run, *begun.queued, *elsewhere]
    to_do = [job._replace(overrides=[*job.overrides, *named[job.run_id]]) for job in to_do]
    wrong = _run_all(to_do, outputs, launcher, timings)
    ended = plan(sweep, outputs, timings=timings)
    log.info("Sum: %s, in %s.", ended.words(), duration(time.perf_counter() - began))
    for name, state in ended.states.items():
        if state is State.blocked and name not in wrong:
            wrong[name] = str(Record(outputs, name).read().problem)
    for line in wrong.values():
        log.error("Not finished: %s", line)
    if wrong or ended.lacking or any(state is not State.finished for state in ended.states.values()):
        raise SystemExit(1)


def _run_all(jobs: Sequence[Job], outputs: str, launcher: Launcher, timings: Timings) -> dict[str, str]:
    """Launches the jobs, each once; waits for those that other processes compute, and takes over those they leave.

    Returns:
        Why runs did not finish, by run id.
    """
    waiting = list(jobs)
    wrong: dict[str, str] = {}
    deaths = Counter[str]()
    told, began = False, time.perf_counter()
    while waiting:
        batch = _next_batch(waiting, outputs, launcher, deaths)
        if not batch:
            if not told:
                log.info("%d runs are being computed by other processes; waiting for them.", len(waiting))
            told = True
            time.sleep(POLL_S if launcher.queue is None else QUEUE_POLL_S)
            continue
        finished = {job.run_id for job in batch if _needs_nothing(job, outputs)}
        batch = [job for job in batch if job.run_id not in finished]
        watch = Watch([job.run_id for job in batch], outputs)
        before = {job.run_id: Record(outputs, job.run_id).status() for job in batch}
        initial = len(jobs) - len(waiting)
        outcome, crash = _launch(batch, outputs, launcher, watch, initial) if batch else ({}, None)
        if interrupt.requested():
            raise KeyboardInterrupt
        if crash is not None:
            outcome = _after_crash(before, outputs, deaths, watch.died, crash)
        outcome |= dict.fromkeys(finished)
        wrong |= {name: reason for name, reason in outcome.items() if reason is not None and reason != AGAIN}
        ended = {name for name, reason in outcome.items() if reason != AGAIN}
        waiting = [job for job in waiting if job.run_id not in ended]
        if ended:
            done, passed = len(jobs) - len(waiting), time.perf_counter() - began
            runs = [job.resolved.run for job in waiting]
            left = expected(runs, timings.of(runs, {})) if launcher.one_by_one else None
            log.info(
                "[%d/%d] about %s to go, %s so far%s",
                done, len(jobs), duration(left if left is not None else passed / done * len(waiting)), duration(passed),
                f", {len(wrong)} went wrong" if wrong else "",
            )  # fmt: skip
    return wrong


def _next_batch(waiting: Sequence[Job], outputs: str, launcher: Launcher, deaths: Counter[str]) -> list[Job]:
    """Returns what can be launched now: nothing that another process computes, and what died twice by itself.

    Slurm's queue waits for the jobs that are in it already, so those are launched too.
    """
    queued = standing(outputs) if launcher.queue is not None else ()
    free = (job for job in waiting if job.run_id in queued or Record(outputs, job.run_id).is_free())
    if launcher.one_by_one:
        return list(itertools.islice(free, 1))
    ready = list(free)
    return [job for job in ready if deaths[job.run_id] < DEADLY] or ready[:1]


def _needs_nothing(job: Job, outputs: str) -> bool:
    """Tells whether a run has been finished meanwhile, as by a process that was waited for."""
    record, settings = Record(outputs, job.run_id), job.resolved.settings.log
    if record.read().result is None:
        return False
    return not (settings.rebuild and record.missing_outputs(settings, job.resolved.run.method))


def _after_crash(
    before: dict[str, dict[str, Any]], outputs: str, deaths: Counter[str], died: set[str], crash: Exception
) -> dict[str, str | None]:
    """Reads from the store how jobs ended whose launcher broke, as joblib does when the system kills a worker.

    joblib kills the other workers then, so all runs under way are gone. All are launched again together; one whose own
    process has died DEADLY times is launched by itself after the others, and given up if it dies there too.

    Args:
        before: What status.json of the launched runs said before, by run id: what says the same has not begun.
        outputs: The store.
        deaths: Deaths so far by run id; these are added.
        died: The runs whose processes were seen to end first; where none was seen, each that is gone may be the cause.
        crash: What the launcher says.

    Raises:
        RunFailedError: If no run has even begun: the launcher itself does not work.
    """
    stands = {name: Record(outputs, name).state for name in before}
    begun = {name for name, status in before.items() if Record(outputs, name).status() != status}
    if not begun and State.finished not in stands.values():
        raise RunFailedError(f"The launcher does not work: {type(crash).__name__}: {crash}") from crash
    gone = {name for name in begun if stands[name] is State.stale}
    guilty = gone & died if gone & died else gone
    deaths.update(guilty)
    outcome: dict[str, str | None] = {}
    for name, state in stands.items():
        if name in guilty and deaths[name] >= DEADLY and len(before) == 1:
            outcome[name] = f"{name}: its process died without a word (out of memory?); the launcher says: {crash}"
        elif name in begun and state in (State.failed, State.interrupted):
            outcome[name] = f"{name}: {state.value} ({Record(outputs, name).status().get('error', 'cancelled')})"
        else:
            outcome[name] = None if state in (State.finished, State.diverged) else AGAIN
    if again := sum(reason == AGAIN for reason in outcome.values()):
        log.warning(
            "The launcher broke (%s); launching %d runs again, from their checkpoints.", type(crash).__name__, again
        )
    return outcome


AGAIN = "again"
"""The outcome of a job that is to be launched again: another process was quicker, or its launcher broke."""


def _launch(
    batch: Sequence[Job], outputs: str, launcher: Launcher, watch: Watch, initial: int
) -> tuple[dict[str, str | None], Exception | None]:
    """Launches jobs and returns how each ended (None: well), or the exception with which the launcher broke.

    Raises:
        RunFailedError: If Slurm takes no jobs; those that it has go on.
    """
    if launcher.one_by_one:
        returns = launcher.launch([job.overrides for job in batch], initial_job_idx=initial)
        return _outcome(batch, returns), None
    lines = [[*job.overrides, f"paths.outputs={quoted(str(Path(outputs).absolute()))}"] for job in batch]
    if launcher.queue is not None:
        named = {job.run_id: line for job, line in zip(batch, lines, strict=True)}
        with watch.watching(launcher.on_cluster):
            return _outcome(batch, launcher.queue.compute(named, outputs, initial)), None
    try:
        with watch.watching(launcher.on_cluster):
            returns = launcher.launch(lines, initial_job_idx=initial)
    except Exception as error:  # of any kind: the launcher's, a worker's that was killed, Slurm's
        return {}, error
    return _outcome(batch, returns), None


def _outcome(batch: Sequence[Job], returns: Sequence[JobReturn]) -> dict[str, str | None]:
    return {job.run_id: _reason(job.run_id, returned) for job, returned in zip(batch, returns, strict=True)}


def _reason(run_id: str, returned: JobReturn) -> str | None:
    """Returns why a job did not finish; only words, as the error would hold on to the model."""
    if returned.status is JobStatus.COMPLETED:
        return None
    error = returned._return_value
    if isinstance(error, RunBusyError):
        return AGAIN
    known = isinstance(error, InputError | RunFailedError)
    return str(error) if known else f"{run_id}: {type(error).__name__}: {error}"
