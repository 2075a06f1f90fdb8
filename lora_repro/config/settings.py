"""All of the configuration that is not science: logging, compute, paths, scale. No torch."""

import math
import os
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING

from lora_repro.errors import InputError

MOST_THREADS = 1024
"""No machine has more; each takes a stack of its own, and far more end the process."""


class Resume(str, Enum):
    """Which checkpoints a run goes on from."""

    same = "same"
    """Those of the same device class, threads, precision and torch: the resumed run is bit-equal on CPUs."""
    any = "any"
    """Those of other machines too; the record says where the run has been."""
    never = "never"


class Mirror(str, Enum):
    """How records are mirrored to the tracker."""

    off = "off"
    offline = "offline"
    """Into a folder of the store, for a later `wandb sync`."""
    online = "online"


class Tracker(str, Enum):
    """Which tracker mirrors the records."""

    wandb = "wandb"
    trackio = "trackio"


@dataclass
class LogConfig:
    """What is told and kept, and how often."""

    level: str = "info"
    every_steps: int = 25
    """Steps between two lines of metrics.jsonl, and between two looks at the loss."""
    checkpoint_every_s: float | None = 60.0
    """Seconds of work that a kill may cost (0: a checkpoint after each step; null: none but at SIGTERM and Ctrl-C)."""
    resume: Resume = Resume.same
    snapshots: list[float] = field(default_factory=list)
    """Fractions of training, in [0, 1], after which the trained tensors are kept: [0, 0.125, 0.25, 0.5, 1]."""
    save_full: bool = False
    """Keep the weights of full fine-tuning, which are as large as the model."""
    rebuild: bool = False
    """Compute a finished run again when it lacks snapshots or weights that are asked for here."""
    wandb: Mirror = Mirror.offline
    tracker: Tracker = Tracker.wandb
    project: str = "lora_repro"
    """The tracker's project."""
    name: str | None = None
    """The run's name in the tracker (null: in a sweep what differs in it, else the run's id)."""
    group: str | None = None
    """The run's group in the tracker (null: in a sweep its name and scale, or what its runs share and its axes)."""


@dataclass
class ComputeConfig:
    """Where it is computed."""

    device: str = "auto"
    """auto (a GPU where there is one), cpu, or a torch device such as cuda:1."""
    threads: int | None = None
    """CPU threads (null: torch's choice)."""
    retry_failed: bool = False
    """Let a sweep compute the runs again that failed."""


@dataclass
class PathsConfig:
    """Where things lie. No path is science."""

    outputs: str = "outputs"
    model: str | None = None
    data: str | None = None
    cache: str = "~/.cache/lora_repro"


def refuse_home(outputs: str) -> None:
    """Refuses a store in ~, which would become a folder of that name: Hydra makes it before anything here is asked.

    Raises:
        InputError: With the whole path.
    """
    if outputs.startswith("~"):
        raise InputError(tilde_message("paths.outputs", outputs))


def tilde_message(key: str, given: str) -> str:
    """Says that a path that begins with ~ is not read here, and what to give."""
    return (
        f"{key}: ~ stands for the home folder in a shell, not here (given: {given}).\n"
        f"Give the whole path: {key}={os.path.expanduser(given)}"
    )


@dataclass
class ScaleConfig:
    """Which scale of a sweep; see sweeps/."""

    name: str = MISSING


@dataclass
class Settings:
    """All of the configuration that is not science."""

    log: LogConfig = field(default_factory=LogConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    sweep: Any = None
    """The content of sweeps/<name>.yaml while its sweep runs."""

    def check(self) -> None:
        """Refuses impossible values.

        Raises:
            InputError: Naming the key, the value and what is possible.
        """
        if not self.paths.outputs:
            raise InputError(
                "paths.outputs: no folder is given (is a variable of your shell empty?).\nGive it: paths.outputs=DIR"
            )
        refuse_home(self.paths.outputs)
        every, threads = self.log.checkpoint_every_s, self.compute.threads
        if every is not None and not 0 <= every < math.inf:
            raise InputError(f"log.checkpoint_every_s: must be 0 or more seconds, or null (given: {every}).")
        if not all(0 <= fraction <= 1 for fraction in self.log.snapshots):
            raise InputError(
                f"log.snapshots: fractions of training, from 0 to 1 (given: {self.log.snapshots}).\n"
                "Example: 'log.snapshots=[0,0.125,0.25,0.5,1]'"
            )
        if threads is not None and not 1 <= threads <= MOST_THREADS:
            raise InputError(
                f"compute.threads: must be from 1 to {MOST_THREADS}, or null for torch's choice (given: {threads})."
            )
