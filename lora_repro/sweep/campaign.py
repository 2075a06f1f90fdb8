"""Runs a sweep: its plan, its progress with the time that is left, and its summary. No torch."""

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from hydra.core.utils import JobReturn, JobStatus

from lora_repro import interrupt
from lora_repro.config.grammar import quoted
from lora_repro.config.settings import LogConfig
from lora_repro.errors import InputError, RunBusyError, RunFailedError
from lora_repro.store.listing import Listing
from lora_repro.store.record import Record
from lora_repro.store.status import State
from lora_repro.sweep import run_names
from lora_repro.sweep.estimate import Timings, expected
from lora_repro.sweep.job import Job, Sweep
from lora_repro.sweep.readiness import held
from lora_repro.sweep.slurm_queue import Queue, jobs_in_queue
from lora_repro.sweep.starts import draws_head, where
from lora_repro.sweep.watch import Watch, duration
from lora_repro.training.job import set_up_logging

MOST_DEATHS = 2
"""A run comes last once its process has died so often without an error, as the system kills one for its memory."""
POLL_S = 1.0
QUEUE_POLL_S = 10.0

log = logging.getLogger(__name__)


@runtime_checkable
class Launch(Protocol):
    """Runs jobs that are given as overrides: a launcher of Hydra's."""

    def __call__(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs and returns how each ended; the index counts the jobs before them."""
        ...


class SweepPlan(NamedTuple):
    """What a sweep has in the store, and what it would compute."""

    sweep: Sweep
    states: dict[str, State]
    """The status of each run, by run id."""
    missing: dict[str, list[str]]
    """Outputs that `log` asks for and finished runs do not have."""
    to_run: list[Job]
    """What the sweep would compute now, in its order."""
    seconds: float | None
    """Time that to_run is expected to take, one run after another; None where nothing is known."""
    queued: list[Job]
    """Runs whose jobs wait in Slurm's queue or run there."""
    seconds_after: float | None = None
    """Time that the runs are expected to take that wait for their tuning, or for the run that they start from."""
    after: Sequence[Job] = ()
    """Runs that follow once those are finished that they start from."""
    stopped: Mapping[str, str] = {}
    """Why runs are not computed whose start failed or diverged, by run id."""

    def count(self, state: State) -> int:
        """Returns the number of runs in a state."""
        return sum(found is state for found in self.states.values())

    def describe(self) -> str:
        """Says in one line what is finished and what is left."""
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
        if missing := len(self.missing.keys() - waiting):
            parts.append(f"{missing} finished without outputs that log asks for (log.rebuild=true computes them)")
        if planned := self.sweep.planned:
            parts.append(f"{len(planned)} planned for later: {self.sweep.why_planned}")
        if self.to_run and self.seconds is not None:
            parts.append(f"about {duration(self.seconds)}")
        if self.stopped:
            parts.append(f"{len(self.stopped)} not run, as the runs that they start from failed or diverged")
        awaited = [job for job in self.sweep.waiting if not job.is_hopeless]
        if hopeless := len(self.sweep.waiting) - len(awaited):
            parts.append(f"{hopeless} that cannot be run, as every value that was tuned diverged")
        started = [*self.after, *self.sweep.waiting_tuning, *(job for job in awaited if job.open_start is not None)]
        tuned = [job.open_tuning for job in awaited if job.open_start is None and job.open_tuning is not None]
        later = [f"{len(tuned)} whose {tuned[0].tune.key} these decide"] if tuned else []
        if started:
            pairs = [(job.start.job.resolved.run, job.resolved.run) for job in started if job.start is not None]
            anew = sum(draws_head(*pair) for pair in pairs)
            later.append(f"{len(started)} that start from these{f' ({anew} with a new head)' if anew else ''}")
        if later:
            cost = "" if self.seconds_after is None else f", about {duration(self.seconds_after)}"
            parts.append(f"then {' and '.join(later)}{cost}")
        return ", ".join(parts)

    @property
    def of_tuning(self) -> str | None:
        """Says in a sentence how far the tuning is; None where nothing is tuned."""
        if not self.sweep.tuning_jobs:
            return None
        tunings = self.sweep.tunings
        done = sum(self.states[job.run_id] in (State.finished, State.diverged) for job in self.sweep.tuning_jobs)
        chosen = sum(tuning.chosen is not None for tuning in tunings)
        return (
            f"{done} of {len(self.sweep.tuning_jobs)} tuning runs are done; {chosen} of {len(tunings)} arms have their "
            f"{tunings[0].tune.key}"
        )


def plan(sweep: Sweep, outputs: str, queued: Collection[str] = (), timings: Timings | None = None) -> SweepPlan:
    """Compares a sweep's jobs with the store; nothing is run.

    Computed would be every run that has no result and that no other process computes. Runs whose start is not finished
    follow later, or not at all if it failed or diverged. Runs that diverged are left out,
    and so are failed ones unless compute.retry_failed is set. With log.rebuild, finished runs with missing outputs are
    computed again. A run whose process died twice without an error comes last, so that it cannot hold up the others.

    Args:
        sweep: The jobs.
        outputs: The store.
        queued: Ids of runs that have a job in Slurm's queue; they are not run again.
        timings: What the store's runs took; it is read from the store if not given.
    """
    states: dict[str, State] = {}
    missing: dict[str, list[str]] = {}
    to_run: list[Job] = []
    last: list[Job] = []
    in_queue: list[Job] = []
    timings = timings if timings is not None else Timings(outputs)
    listing = Listing(outputs)
    awaited = _awaited_starts(sweep, outputs)
    for job in sweep.to_compute:
        record, settings = Record(outputs, job.run_id), job.resolved.settings
        is_new = not listing.may_have(job.run_id)
        state, result = (State.todo, None) if is_new else record.read_state()
        states[job.run_id] = state
        if result is not None:
            timings.note(record.folder, result)
            method = job.resolved.run.method
            log_of = settings.log
            if not method.is_saved_on_request and job.run_id not in awaited:
                log_of = replace(log_of, save_full=False)  # a store made of a ledger needs no weights of other runs
            if absent := record.missing_outputs(log_of, method):
                missing[job.run_id] = absent
                to_run += [job] if settings.log.rebuild else []
        elif job.run_id in queued:
            in_queue.append(job)
        elif state not in (State.running, State.diverged, State.blocked) and (
            state is not State.failed or settings.compute.retry_failed
        ):
            died = 0 if is_new else record.status().get("deaths", 0) + (state is State.stale)
            (last if died >= MOST_DEATHS else to_run).append(job)
    to_run += last
    waits = {
        job.run_id: found
        for job in to_run
        if job.start is not None and (found := held(job, outputs, states.__getitem__)) is not None
    }
    stopped = {name: found.reason for name, found in waits.items() if found.is_final}
    after = [job for job in to_run if job.run_id in waits and job.run_id not in stopped]
    to_run = [job for job in to_run if job.run_id not in waits]
    begun = {
        job.run_id: job.resolved.run
        for job in sweep.to_compute
        if states[job.run_id] in (State.running, State.interrupted)
    }
    runs = [job.resolved.run for job in to_run]
    waiting = [job for job in (*sweep.waiting_tuning, *sweep.waiting) if not job.is_hopeless]
    later = [job.resolved.run for job in (*after, *waiting)]
    known = timings.of([*runs, *later], begun)
    return SweepPlan(
        sweep, states, missing, to_run, expected(runs, known), in_queue, expected(later, known), after, stopped
    )


def refuse_impossible(jobs: Iterable[Job]) -> None:
    """Refuses what only a method's count can tell, before the first run starts.

    Raises:
        InputError: Naming the run.
    """
    for job in jobs:
        run = job.resolved.run
        if run.method.is_judged_by_count:
            try:
                _ = run.trained_by_method
            except InputError as error:
                raise InputError(f"{error}{where(job.point)}") from error


def _awaited_starts(sweep: Sweep, outputs: str) -> set[str]:
    """Returns the runs from which others start that are not finished."""
    pairs = [(job, job.start.job.run_id) for job in sweep.every_kind if job.start is not None]
    return {
        start for job, start in pairs if job.why_open is not None or Record(outputs, job.run_id).read().result is None
    }


class Launcher(NamedTuple):
    """Hydra's launcher, and how it runs jobs."""

    launch: Launch
    """One call launches all jobs, in other processes."""
    compute: Callable[[Job], object] | None = None
    """Computes one job in this process. Where it is there, it computes every job, and nothing is launched."""
    on_cluster: bool = False
    """Jobs go on when this process ends, because a cluster runs them."""
    fit: Callable[[Sequence[Job]], None] | None = None
    """Prepares the next launch for its jobs: how many are computed at a time."""
    queue: Queue | None = None
    """Slurm's queue, where it is the one that launches the jobs."""


def run(load: Callable[[], Sweep], outputs: str, settings: LogConfig, launcher: Launcher) -> None:
    """Runs what a sweep has not finished, and shares the work with other processes that run the same sweep.

    Runs whose value is tuned follow once their tuning is finished, and runs that start from others once those are, in
    waves: a wave's results decide the next one's.

    Args:
        load: Returns the jobs as the store now decides them.
        outputs: The store.
        settings: What is logged.
        launcher: Hydra's.

    Raises:
        InputError: If the whole sweep is planned for later.
        KeyboardInterrupt: If the process was asked to end.
        SystemExit: With code 1, if a run did not finish, or outputs are missing that `log` asks for.
    """
    sweep = load()
    if not sweep.to_compute:
        raise InputError(f"Nothing of this sweep can be run yet: {sweep.why_planned}.")
    set_up_logging(settings)
    timings = Timings(outputs)
    began = time.perf_counter()
    tried: set[str] = set()
    wrong: dict[str, str] = {}
    is_first = True
    while is_first or not tried.issuperset(job.run_id for job in sweep.to_compute):
        begun = plan(sweep, outputs, jobs_in_queue(outputs) if launcher.queue is not None else (), timings)
        refuse_impossible(begun.to_run)
        not_yet = {*tried, *begun.stopped, *(job.run_id for job in begun.after)}
        new = [job for job in sweep.to_compute if job.run_id not in not_yet]
        if not new and not is_first:
            break
        is_first = False
        tried.update(job.run_id for job in new)
        wrong |= _run_wave(begun, new, outputs, launcher, timings)
        sweep = load() if sweep.waiting else sweep
    ended = plan(sweep, outputs, timings=timings)
    log.info("Sum: %s, in %s.", ended.describe(), duration(time.perf_counter() - began))
    tuning = {job.run_id for job in sweep.tuning_jobs}
    states = {name: state for name, state in ended.states.items() if name not in tuning or state is not State.diverged}
    for name, state in states.items():
        if state is State.blocked and name not in wrong:
            wrong[name] = str(Record(outputs, name).read().problem)
    wrong = {name: line for name, line in wrong.items() if name in states}  # a rate may diverge in tuning
    for name, line in wrong.items():
        log.error("Not finished: %s", line if name in line else f"{name}: {line}")
    whys = [*ended.stopped.values(), *(job.why_open for job in (*sweep.waiting_tuning, *sweep.waiting) if job.why_open)]
    for why, times in Counter(whys).items():
        log.error("Not run: %s%s.", why, "" if times == 1 else f" ({times} runs)")
    if wrong or ended.missing or sweep.waiting or any(state is not State.finished for state in states.values()):
        raise SystemExit(1)


def _run_wave(
    begun: SweepPlan, new: Sequence[Job], outputs: str, launcher: Launcher, timings: Timings
) -> dict[str, str]:
    """Runs what of some jobs can be run now, and returns why runs did not finish.

    Args:
        begun: What the sweep has in the store.
        new: The jobs that no earlier wave had and that wait for no other.
        outputs: The store.
        launcher: Hydra's.
        timings: What the store's runs took.
    """
    sweep, names = begun.sweep, {job.run_id for job in new}
    if of_tuning := begun.of_tuning:
        log.info("Tuning: %s.", of_tuning)
    log.info("Plan: %s. Store: %s", begun.describe(), outputs)
    for job in new:
        record = Record(outputs, job.run_id)
        if begun.states[job.run_id] is State.finished and not record.is_tidy:
            record.tidy()
    queued = {job.run_id for job in begun.queued}
    elsewhere = [job for job in new if begun.states[job.run_id] is State.running and job.run_id not in queued]
    every = run_names.named(sweep.every_kind)  # with stand-ins: each wave names the same axes
    named = {job.run_id: job for job in every[: len(sweep.to_compute)]}
    to_do = [named[job.run_id] for job in (*begun.to_run, *begun.queued, *elsewhere) if job.run_id in names]
    return _run_all(to_do, outputs, launcher, timings, begun.states)


def _run_all(
    jobs: Sequence[Job], outputs: str, launcher: Launcher, timings: Timings, planned: Mapping[str, State]
) -> dict[str, str]:
    """Launches each job once, waits for those that other processes compute, and takes over those that they leave.

    Args:
        jobs: The jobs, in their order.
        outputs: The store.
        launcher: Hydra's.
        timings: What the store's runs took.
        planned: The states with which the jobs were planned, by run id.

    Returns:
        Why runs did not finish, by run id.
    """
    waiting = list(jobs)
    wrong: dict[str, str] = {}
    deaths = Counter[str]()
    is_waiting, began = False, time.perf_counter()
    while waiting:
        batch = _next_batch(waiting, outputs, launcher, deaths)
        if not batch:
            if not is_waiting:
                log.info("%d runs are being computed by other processes; waiting for them.", len(waiting))
            is_waiting = True
            time.sleep(POLL_S if launcher.queue is None else QUEUE_POLL_S)
            continue
        done_elsewhere = {job.run_id for job in batch if _has_ended(job, outputs, planned[job.run_id])}
        batch = [job for job in batch if job.run_id not in done_elsewhere]
        watch = Watch([job.run_id for job in batch], outputs)
        before = {job.run_id: Record(outputs, job.run_id).status() for job in batch}
        initial = len(jobs) - len(waiting)
        outcome, crash = _launch(batch, outputs, launcher, watch, initial) if batch else ({}, None)
        if interrupt.requested():
            raise KeyboardInterrupt
        if crash is not None:
            outcome = _after_crash(before, outputs, deaths, watch.died, crash)
        outcome |= dict.fromkeys(done_elsewhere)
        wrong |= {name: reason for name, reason in outcome.items() if reason is not None and reason != AGAIN}
        ended = {name for name, reason in outcome.items() if reason != AGAIN}
        waiting = [job for job in waiting if job.run_id not in ended]
        if ended:
            done, passed = len(jobs) - len(waiting), time.perf_counter() - began
            runs = [job.resolved.run for job in waiting]
            left = expected(runs, timings.of(runs, {})) if launcher.compute is not None else None
            log.info(
                "[%d/%d] about %s to go, %s so far%s",
                done, len(jobs), duration(left if left is not None else passed / done * len(waiting)), duration(passed),
                f", {len(wrong)} went wrong" if wrong else "",
            )  # fmt: skip
    return wrong


def _next_batch(waiting: Sequence[Job], outputs: str, launcher: Launcher, deaths: Counter[str]) -> list[Job]:
    """Returns the jobs that can be launched now: none that another process computes.

    A job whose process died twice is launched alone. Jobs that are in Slurm's queue already are returned too, because
    the queue only waits for those.
    """
    queued = jobs_in_queue(outputs) if launcher.queue is not None else ()
    free = (job for job in waiting if job.run_id in queued or Record(outputs, job.run_id).is_free())
    if launcher.compute is not None:
        return list(itertools.islice(free, 1))
    ready = list(free)
    return [job for job in ready if deaths[job.run_id] < MOST_DEATHS] or ready[:1]


def _has_ended(job: Job, outputs: str, planned: State) -> bool:
    """Tells whether another process has finished a run since the plan, or ended it in a way that is not repeated."""
    record, settings = Record(outputs, job.run_id), job.resolved.settings
    state, result = record.read_state()
    if result is not None:
        return not (settings.log.rebuild and record.missing_outputs(settings.log, job.resolved.run.method))
    is_final = state is State.diverged or (state is State.failed and not settings.compute.retry_failed)
    return is_final and state is not planned


def _after_crash(
    before: dict[str, dict[str, Any]], outputs: str, deaths: Counter[str], died: set[str], crash: Exception
) -> dict[str, str | None]:
    """Reads from the store how jobs ended whose launcher broke.

    joblib breaks when the system kills one worker: it then kills the others, so every run under way is lost. All are
    launched again together. A run whose own process has died MOST_DEATHS times is launched alone after the others, and
    given up if it dies again.

    Args:
        before: status.json of the runs before the launch, by run id; a run whose file is unchanged has not begun.
        outputs: The store.
        deaths: Deaths so far by run id; these are added.
        died: The runs whose processes ended first. If none was seen to, every lost run may be the cause.
        crash: What the launcher says.

    Raises:
        RunFailedError: If no run has begun, which means that the launcher itself does not work.
    """
    states = {name: Record(outputs, name).state for name in before}
    begun = {name for name, status in before.items() if Record(outputs, name).status() != status}
    if not begun and State.finished not in states.values():
        raise RunFailedError(f"The launcher does not work: {type(crash).__name__}: {crash}") from crash
    gone = {name for name in begun if states[name] is State.stale}
    guilty = gone & died if gone & died else gone
    deaths.update(guilty)
    outcome: dict[str, str | None] = {}
    for name, state in states.items():
        if name in guilty and deaths[name] >= MOST_DEATHS and len(before) == 1:
            outcome[name] = f"{name}: its process died without an error (out of memory?); the launcher says: {crash}"
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
"""The outcome of a job that must be launched again, because another process took it first or the launcher broke."""


def _launch(
    batch: Sequence[Job], outputs: str, launcher: Launcher, watch: Watch, initial: int
) -> tuple[dict[str, str | None], Exception | None]:
    """Launches jobs and returns how each ended (None: well), or the exception with which the launcher broke.

    Raises:
        RunFailedError: If Slurm takes no jobs; those in its queue go on.
    """
    if launcher.compute is not None:
        return {job.run_id: _computed(job, launcher.compute) for job in batch}, None
    if launcher.fit is not None:
        launcher.fit(batch)
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
    """Returns why a job did not finish; None if it did."""
    return None if returned.status is JobStatus.COMPLETED else _why(run_id, returned._return_value)


def _computed(job: Job, compute: Callable[[Job], object]) -> str | None:
    """Computes a job here, and returns why it did not finish, as text: the error would keep the model in memory."""
    try:
        compute(job)
    except Exception as error:
        return _why(job.run_id, error)
    return None


def _why(run_id: str, error: Exception) -> str:
    if isinstance(error, RunBusyError):
        return AGAIN
    known = isinstance(error, InputError | RunFailedError)
    return str(error) if known else f"{run_id}: {type(error).__name__}: {error}"
