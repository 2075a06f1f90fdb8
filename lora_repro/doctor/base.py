"""What a check is: a rule with what it protects from and its remedy, a function that looks, and what that found."""

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from lora_repro.config.resolve import Resolved
from lora_repro.config.schema import Run
from lora_repro.config.settings import Settings
from lora_repro.sweep.grid import Job, Sweep

if TYPE_CHECKING:
    import torch


class Verdict(str, Enum):
    """How a check ended."""

    ok = "ok"
    warn = "warn"
    fail = "fail"


class Check(NamedTuple):
    """What a check came to."""

    name: str
    verdict: Verdict
    found: str
    protects: str
    remedy: str
    seconds: float

    def words(self, verbose: bool = False) -> str:
        """Writes the check in a line; what it is for and what to do where it is not ok, or where that is asked for."""
        took = f", {self.seconds:.1f} s" if self.seconds >= 0.1 else ""
        line = f"{self.verdict.value:<5}{self.name:<10}{self.found}{took}"
        more = f"\n     protects from: {self.protects}\n     do: {self.remedy}"
        return line + (more if verbose or self.verdict is not Verdict.ok else "")


class Found(NamedTuple):
    """What a check finds; `remedy` where it knows better than the rule."""

    verdict: Verdict
    words: str
    remedy: str | None = None


class Subject(NamedTuple):
    """What a check looks at."""

    jobs: list[Job]
    sweep: Sweep | Exception
    """The whole sweep, or why it does not compose."""
    settings: Settings

    @property
    def largest(self) -> Resolved:
        """The job of the largest r, and of those the one that trains most."""
        jobs = (job.resolved for job in self.jobs)
        return max(
            jobs, key=lambda job: (getattr(job.run.method, "r", 0), job.run.method.count(job.run.arch).trainable)
        )

    def by(self, key: Callable[[Run], str]) -> "list[Subject]":
        """Returns a subject for each group of jobs."""
        groups: dict[str, list[Job]] = {}
        for job in self.jobs:
            groups.setdefault(key(job.resolved.run), []).append(job)
        return [self._replace(jobs=jobs) for jobs in groups.values()]


class Rule(NamedTuple):
    """A check to be made."""

    name: str
    protects: str
    remedy: str
    each: Callable[[Subject], list[Subject]]
    look: Callable[[Subject], Found]


def rule(
    name: str, protects: str, remedy: str, each: Callable[[Subject], list[Subject]] = lambda subject: [subject]
) -> Callable[[Callable[[Subject], Found]], Rule]:
    """Makes a function a rule; `each` divides the sweep into what it looks at in turn."""
    return lambda look: Rule(name, protects, remedy, each, look)


def together(subject: Subject) -> list[Subject]:
    """Looks at all jobs at once; where there are none, at nothing."""
    return subject.by(lambda run: "")


def device_of(subject: Subject) -> "torch.device":
    """Returns the device that the sweep asks for, prepared."""
    from lora_repro.training import device

    return device.prepare(subject.settings.compute)
