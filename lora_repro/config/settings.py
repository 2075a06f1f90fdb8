"""The settings of a run, which change no number and so stay out of its id: log, compute, paths, scale. No torch."""

import math
import os
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING

from lora_repro.errors import InputError

MOST_THREADS = 1024
"""No machine has more cores. Each thread takes a stack of its own, and many more threads would end the process."""


class Resume(str, Enum):
    """From which checkpoints a run may be resumed."""

    same = "same"
    """Those made with all that decides the bits: on CPUs the resumed run is bit-equal.

    That is the device class, threads, precision (bf16, TF32), whether blocks are compiled, the versions of torch,
    transformers, tokenizers, numpy and the method's packages, and the environment variables that choose kernels.
    """
    any = "any"
    """Also those of other machines; the record names them."""
    never = "never"


class Mirror(str, Enum):
    """Whether records are copied to the tracker, and when."""

    off = "off"
    offline = "offline"
    """Into a folder of the store, for a later `wandb sync`."""
    online = "online"


class Tracker(str, Enum):
    """Which tracker the records are copied to."""

    wandb = "wandb"
    trackio = "trackio"


@dataclass
class LogConfig:
    """What is logged and stored, and how often."""

    level: str = "info"
    every_steps: int = 25
    """Steps between two lines of metrics.jsonl; the loss is checked for divergence as often."""
    checkpoint_every_s: float | None = 60.0
    """Seconds between checkpoints, which a kill can cost (0: after each step; null: only at SIGTERM and Ctrl-C)."""
    resume: Resume = Resume.same
    snapshots: list[float] = field(default_factory=list)
    """Fractions of training, in [0, 1], after which the trained tensors are stored: [0, 0.125, 0.25, 0.5, 1]."""
    save_full: bool = False
    """Store the weights of full fine-tuning, which are as large as the model."""
    rebuild: bool = False
    """Compute a finished run again if it has no snapshots or weights although these settings ask for them."""
    wandb: Mirror = Mirror.offline
    tracker: Tracker = Tracker.wandb
    project: str = "lora_repro"
    """The tracker's project."""
    name: str | None = None
    """The run's name in the tracker (null: in a sweep the values of its axes, else the run's id)."""
    group: str | None = None
    """The run's group in the tracker (null: a sweep's name and scale, or what its runs share and its axes)."""


@dataclass
class ComputeConfig:
    """On what a run is computed."""

    device: str = "auto"
    """auto (a GPU where there is one), cuda (a GPU, which no other run on the machine has), cuda:1 or cpu."""
    threads: int | None = None
    """CPU threads (null: torch's choice)."""
    compile: bool | None = None
    """Compile the model's blocks with torch.compile (null: where a run is long enough to earn it)."""
    retry_failed: bool = False
    """Let a sweep compute failed runs again."""


@dataclass
class PathsConfig:
    """Where files are. No path enters a run's id."""

    outputs: str = "outputs"
    model: str | None = None
    data: str | None = None
    cache: str = "~/.cache/lora_repro"


def refuse_home(outputs: str) -> None:
    """Refuses a store whose path begins with ~: Hydra would make a folder of that name before any code here runs.

    Raises:
        InputError: With the full path to give.
    """
    if outputs.startswith("~"):
        raise InputError(tilde_message("paths.outputs", outputs))


def tilde_message(key: str, given: str) -> str:
    """Says that ~ is not expanded in a path, and which path to give."""
    return (
        f"{key}: ~ is expanded by a shell, not here (given: {given}).\n"
        f"Give the full path: {key}={os.path.expanduser(given)}"
    )


@dataclass
class ScaleConfig:
    """Which scale of a sweep is run; see sweeps/."""

    name: str = MISSING


@dataclass
class Settings:
    """The part of the configuration that changes no number."""

    log: LogConfig = field(default_factory=LogConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    sweep: Any = None
    """The content of sweeps/<name>.yaml while its sweep runs."""
    tune: Any = None
    """What a sweep tunes before it computes its runs; see lora_repro/sweep/tuning.py."""
    start: Any = None
    """From which run of the sweep the others start; see lora_repro/sweep/starts.py."""
    regime: str | None = None
    """How a sweep sets learning rates and scaling: a file of sweeps/regimes (null: as the sweep's own grids say)."""

    def check(self) -> None:
        """Refuses impossible values.

        Raises:
            InputError: Naming the key, the value and what is possible.
        """
        if not self.paths.outputs:
            raise InputError(
                "paths.outputs: no folder is given. Is a variable of your shell empty?\nGive it: paths.outputs=DIR"
            )
        refuse_home(self.paths.outputs)
        every, threads = self.log.checkpoint_every_s, self.compute.threads
        if every is not None and not 0 <= every < math.inf:
            raise InputError(f"log.checkpoint_every_s: must be 0 or more seconds, or null (given: {every}).")
        if not all(0 <= fraction <= 1 for fraction in self.log.snapshots):
            raise InputError(
                f"log.snapshots: must be fractions of training, from 0 to 1 (given: {self.log.snapshots}).\n"
                "Example: 'log.snapshots=[0,0.125,0.25,0.5,1]'"
            )
        if threads is not None and not 1 <= threads <= MOST_THREADS:
            raise InputError(
                f"compute.threads: must be from 1 to {MOST_THREADS}, or null for torch's choice (given: {threads})."
            )
