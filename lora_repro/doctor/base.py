"""A check: a rule that names the damage it prevents and its remedy, a function that examines, and its finding."""

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from lora_repro.config.resolve import Resolved
from lora_repro.config.schema import Run
from lora_repro.config.settings import Settings
from lora_repro.methods import SizedConfig
from lora_repro.sweep.grid import Job, Sweep

if TYPE_CHECKING:
    import torch


class Verdict(str, Enum):
    """How a check ended."""

    ok = "ok"
    warn = "warn"
    fail = "fail"


class Check(NamedTuple):
    """The result of a check."""

    name: str
    verdict: Verdict
    found: str
    protects: str
    remedy: str
    seconds: float

    def describe(self, verbose: bool = False) -> str:
        """Writes the check in one line; adds its purpose and its remedy if it is not ok, or if `verbose`."""
        took = f", {self.seconds:.1f} s" if self.seconds >= 0.1 else ""
        line = f"{self.verdict.value:<5}{self.name:<10}{self.found}{took}"
        more = f"\n     protects from: {self.protects}\n     do: {self.remedy}"
        return line + (more if verbose or self.verdict is not Verdict.ok else "")


class Finding(NamedTuple):
    """What a check finds, with a `remedy` if it knows a better one than the rule."""

    verdict: Verdict
    text: str
    remedy: str | None = None


class Subject(NamedTuple):
    """What a check examines."""

    jobs: list[Job]
    sweep: Sweep | Exception
    """The whole sweep, or the error with which it does not compose."""
    settings: Settings

    @property
    def largest(self) -> Resolved:
        """The job whose method has the largest size (LoRA's r), and among those the one that trains most.

        A start that the sweep has yet to compute is left out.
        """
        jobs = (job.resolved if job.start is None else job.resolved._replace(init_from=None) for job in self.jobs)
        return max(jobs, key=lambda job: (_size(job.run), job.run.method.count(job.run.arch).trainable))

    def by(self, key: Callable[[Run], str]) -> "list[Subject]":
        """Returns a subject for each group of jobs."""
        groups: dict[str, list[Job]] = {}
        for job in self.jobs:
            groups.setdefault(key(job.resolved.run), []).append(job)
        return [self._replace(jobs=jobs) for jobs in groups.values()]


def _size(run: Run) -> int:
    return run.method.size if isinstance(run.method, SizedConfig) else 0


class Rule(NamedTuple):
    """A check that can be made."""

    name: str
    protects: str
    remedy: str
    each: Callable[[Subject], list[Subject]]
    examine: Callable[[Subject], Finding]


def rule(
    name: str, protects: str, remedy: str, each: Callable[[Subject], list[Subject]] = lambda subject: [subject]
) -> Callable[[Callable[[Subject], Finding]], Rule]:
    """Makes a function a rule; `each` divides the sweep into the subjects that it examines in turn."""
    return lambda examine: Rule(name, protects, remedy, each, examine)


def together(subject: Subject) -> list[Subject]:
    """Examines all jobs together, and nothing if there are none."""
    return subject.by(lambda run: "")


def device_of(subject: Subject) -> "torch.device":
    """Returns the device that the sweep asks for, prepared."""
    from lora_repro.training import device

    return device.prepare(subject.settings.compute)
