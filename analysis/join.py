"""Joins a sweep's jobs to a store by run id; what else lies in the store changes nothing."""

import math
import shlex
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from analysis.cell import SeedRun, value_of
from analysis.protocol import Protocol, pick
from analysis.runs import flat, run_status
from analysis.states import NOT_COUNTED, PLANNED, STARTING, TUNING
from analysis.store import elsewhere
from lora_repro.config.grammar import quoted
from lora_repro.config.identity import id_fields
from lora_repro.errors import InputError
from lora_repro.store.record import Record
from lora_repro.store.status import State
from lora_repro.sweep.job import Job, Point, overrides
from lora_repro.sweep.readiness import held
from lora_repro.tasks import Metric, TaskConfig


def seed_runs(
    jobs: Sequence[Job],
    store: str | Path,
    metric: Metric,
    protocol: Protocol,
    by: Metric | None = None,
    draws: str | None = None,
) -> tuple[SeedRun, ...]:
    """Returns the runs of a cell as the store has them; `by` chooses the epoch, as in `pick`.

    `draws` is the key that draws the training examples anew, where the cell is over draws.
    """
    runs = (_seed_run(job, store, metric, protocol, by) for job in jobs)
    if draws is None:
        return tuple(runs)
    return tuple(run._replace(draw=value_of(job.shown, draws)) for run, job in zip(runs, jobs, strict=True))


def _seed_run(job: Job, store: str | Path, metric: Metric, protocol: Protocol, by: Metric | None) -> SeedRun:
    seed = job.resolved.run.seed
    if job.why_open is not None:
        return SeedRun(seed, None, state_while_open(job), job.why_open)
    status = run_status(store, job.run_id)
    if status.result is None and status.state == State.todo.value and (why := why_held(job, store)) is not None:
        return SeedRun(seed, job.run_id, STARTING, why)
    if status.result is None:
        return SeedRun(seed, job.run_id, status.state, status.reason)
    score = pick(status.result, metric, protocol, by)
    if score is None:
        reason = f"{job.run_id}: result.json lacks eval/{(by or metric).name} or {protocol.split}/{metric.name}."
        return SeedRun(seed, job.run_id, NOT_COUNTED, reason)
    return SeedRun(seed, job.run_id, status.state, None, *score, status.result)


def state_while_open(job: Job) -> str:
    """Returns the state of a run that is not known yet."""
    return TUNING if job.open_start is None else STARTING


def why_held(job: Job, store: str | Path) -> str | None:
    """Says why a run cannot be computed before the one that it starts from; None if it can."""
    found = held(job, str(store), lambda run_id: Record(store, run_id).state)
    return None if found is None else found.reason


def shown_metric(task: TaskConfig, metrics: Sequence[str], item: str) -> Metric:
    """Returns the first of some metrics that a task has.

    Args:
        task: The task.
        metrics: As metric keys spell them, without the split.
        item: Who shows it, for messages.

    Raises:
        InputError: If it has none of them.
    """
    found = next(filter(None, map(task.targets.metric, metrics)), None)
    if found is None:
        raise InputError(f"task: {item} shows {' or '.join(metrics)}, which {task.name} has not.\nLeave task out.")
    return found


def planned_runs(points: Iterable[tuple[Point, str]]) -> tuple[SeedRun, ...]:
    """Returns the runs of a cell whose model or task is not there yet, each with its reason."""
    return tuple(SeedRun(point.get("seed"), None, PLANNED, reason) for point, reason in points)


def refuse_mixed(where: str, jobs: Sequence[Job], remedy: str = "", besides: Collection[str] = ()) -> None:
    """Refuses a cell whose mean would be taken over more than seeds.

    Args:
        where: Names the cell.
        jobs: Its runs.
        remedy: What a user may do instead of giving one value.
        besides: Keys in which its runs may differ too.

    Raises:
        InputError: Naming the key and its values.
    """
    configs = [flat(id_fields(job.shown)) for job in jobs]
    for key in sorted({key for config in configs for key in config} - {"seed", *besides}):
        values = list(dict.fromkeys(quoted(config.get(key)) for config in configs))
        if len(values) > 1:
            raise InputError(
                f"{key}: a cell is a mean over seeds only, and the runs of {where} differ in it "
                f"(given: {', '.join(values)}).\nGive one value: {key}={values[0]}{remedy}"
            )


class Commands:
    """Writes what a person types to get runs."""

    def __init__(self, base: Sequence[str], given: Sequence[str], store: str | Path, jobs: Sequence[Job]) -> None:
        """Takes a sweep's own arguments, further overrides, the store and all jobs of the sweep."""
        self.base, self.given = base, given
        self.store = elsewhere(store)
        points = [job.point for job in jobs]
        axes = {key: {str(point.get(key)) for point in points} for point in points for key in point}
        are_alike = all(point.keys() == axes.keys() for point in points)
        self.is_product = are_alike and math.prod(map(len, axes.values())) == len(points)
        self.pinned = [key for key, values in axes.items() if len(values) > 1 and key != "seed"]

    def whole(self) -> str:
        """Returns the command of the whole sweep."""
        return self._line([*self.base, *self.given])

    def of(self, jobs: Sequence[Job]) -> str:
        """Returns the command of one cell, which expands to exactly its runs.

        Runs that start from others of the sweep have the command of the whole sweep, which computes those first. Where
        the sweep is a single product it is the sweep with the cell's values on each axis; otherwise an override could
        reach other grids too, so the cell's settings are spelt out. A key in which its runs differ is an axis.
        """
        if any(job.start is not None for job in jobs):
            return self.whole()
        point = jobs[0].point
        axes = {key: list(dict.fromkeys(quoted(job.point.get(key)) for job in jobs)) for key in point if key != "seed"}
        axes = {key: given for key, given in axes.items() if len(given) > 1}
        if self.is_product:
            pins = {key: point[key] for key in self.pinned if key not in axes}
            others = [override for override in self.given if override.partition("=")[0] not in pins]
            return self._line([*self.base, *others, *overrides(pins)])
        axes["seed"] = list(dict.fromkeys(str(job.resolved.run.seed) for job in jobs))
        spelt = {key: value for key, value in point.items() if key not in axes}
        tuning, how = jobs[0].tuning, []
        if tuning is not None and tuning.chosen is None:
            how = [tuning.tune.override()]
        elif tuning is not None:
            spelt[tuning.tune.key] = tuning.chosen
        return self._line([*overrides(spelt), *(f"{key}={','.join(given)}" for key, given in axes.items()), *how])

    def _line(self, arguments: Sequence[str]) -> str:
        return shlex.join(["python", "-m", "lora_repro", "-m", *arguments, *self.store])
