"""What grids expand to: runs, each with its start and how its tuned value was chosen, and their sweep. No torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from lora_repro.config.grammar import quoted
from lora_repro.config.resolve import Resolved
from lora_repro.config.schema import Run
from lora_repro.sweep.tuning import Tuning

Point = dict[str, Any]
"""One run of a grid: keys and values as on the command line."""

START = "start"
"""The key of a grid, and of a point, that names the run of the sweep from which a run starts; null: none."""


class Start(NamedTuple):
    """The run of the sweep from which another one starts."""

    given: Mapping[str, Any]
    """As the grid names it: by what differs."""
    job: "Job"

    @property
    def name(self) -> str:
        """What it is called in messages and tables: task=mnli."""
        return named(self.given)


def named(given: Mapping[str, Any]) -> str:
    """Writes what names a start: `task=mnli, seed=0`."""
    return ", ".join(
        f"{key}={named(value) if isinstance(value, dict) else quoted(value)}" for key, value in given.items()
    )


class Job(NamedTuple):
    """One run of a sweep."""

    overrides: list[str]
    run_id: str
    resolved: Resolved
    point: Point
    """As its grid says, without a tuned value."""
    tuning: Tuning | None = None
    """How its tuned value was chosen; None where nothing is tuned."""
    start: Start | None = None
    """The run that it starts from, where the grid names one of the sweep."""

    @property
    def open_tuning(self) -> Tuning | None:
        """The tuning that has not chosen a value yet: the job is a stand-in, with the smallest value of the grid."""
        return self.tuning if self.tuning is not None and self.tuning.chosen is None else None

    @property
    def open_start(self) -> Start | None:
        """The start that is not known yet: the job is a stand-in, as its id depends on that of its start."""
        return self.start if self.start is not None and self.start.job.why_open is not None else None

    @property
    def why_open(self) -> str | None:
        """Why the run is not known yet, so that the job is a stand-in; None if it is."""
        if self.open_start is not None:
            return f"the run that it starts from ({self.open_start.name}) waits: {self.open_start.job.why_open}"
        return None if self.open_tuning is None else self.open_tuning.why_not

    @property
    def is_hopeless(self) -> bool:
        """Tells whether a stand-in can never be run, as every value diverged that was tuned for it or for its start."""
        if self.open_start is not None:
            return self.open_start.job.is_hopeless
        return self.open_tuning is not None and not self.open_tuning.missing

    @property
    def shown(self) -> Run:
        """Its configuration for tables: the start is called as the grid names it, as its id differs between seeds."""
        run = self.resolved.run
        return run if self.start is None else replace(run, train=replace(run.train, init_from=self.start.name))


class Sweep(NamedTuple):
    """The runs of a sweep at one scale."""

    jobs: list[Job]
    """The runs that are reported; of those that are tuned, the ones whose value is chosen."""
    planned: list[tuple[Point, str]]
    """Points that cannot run yet, each with the reason."""
    tuning_jobs: Sequence[Job] = ()
    """The runs by which values are chosen."""
    waiting: Sequence[Job] = ()
    """Stand-ins of the reported runs that are not known yet: a tuned value of theirs, or of their start, is open."""
    waiting_tuning: Sequence[Job] = ()
    """Stand-ins of the tuning runs whose start is not known yet."""
    twins: Sequence[Job] = ()
    """The reported runs that other points have too, under those points: a run is computed once, and may belong to two
    lines of a table."""

    @property
    def to_compute(self) -> list[Job]:
        """Everything whose id is known, the tuning first. Those with a start follow once that is finished."""
        return [*self.tuning_jobs, *self.jobs]

    @property
    def every_kind(self) -> list[Job]:
        """The jobs of `to_compute`, and of runs that wait their stand-ins: what is needed, and how large it is."""
        return [*self.to_compute, *self.waiting_tuning, *self.waiting]

    @property
    def reported(self) -> list[Job]:
        """The jobs that a table shows; of runs that are not known yet, their stand-ins."""
        return [*self.jobs, *self.waiting]

    @property
    def tunings(self) -> list[Tuning]:
        """How each arm is tuned, each tuning once."""
        return list({id(job.tuning): job.tuning for job in self.reported if job.tuning is not None}.values())

    @property
    def why_planned(self) -> str:
        """The reasons of the planned points, each once."""
        return reasons(why for _, why in self.planned)


def reasons(each: Iterable[str]) -> str:
    """Writes reasons, each once, in the order of their first appearance."""
    return "; ".join(dict.fromkeys(each))


def overrides(point: Point) -> list[str]:
    """Writes a point as override strings."""
    return [f"{key}={quoted(value)}" for key, value in point.items()]
