"""The state of training, and how checkpoints and snapshots store it."""

import hashlib
import json
import logging
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from lora_repro import interrupt
from lora_repro.config.identity import NUMERICS_VERSION
from lora_repro.config.schema import Run
from lora_repro.config.settings import LogConfig, Resume
from lora_repro.methods import MethodConfig
from lora_repro.store import files
from lora_repro.store.adapter import save_snapshot
from lora_repro.store.layout import CHECKPOINT, SNAPSHOTS
from lora_repro.store.record import Record
from lora_repro.store.tensors import blocks, raw
from lora_repro.training.device import peak_memory_gib, restart_peak_memory
from lora_repro.training.provenance import PACKAGES

SCHEMA = 1

log = logging.getLogger(__name__)


@dataclass
class TrainState:
    """Everything that changes while training. With torch's generators, from which dropout draws, it is a checkpoint."""

    model: nn.Module
    """A checkpoint holds its parameters that require a gradient."""
    method: MethodConfig
    """A checkpoint holds its `state`."""
    optimizer: AdamW
    schedule: LambdaLR
    loss_sum: Tensor
    """Sum over the examples since the last line of metrics.jsonl."""
    step: int = 0
    examples: int = 0
    examples_logged: int = 0
    """Examples up to the last line of metrics.jsonl."""
    examples_timed: int = 0
    """Those that took `seconds`."""
    seconds: float = 0.0
    """Time spent in training steps; scoring is not counted, nor a step that compiles the model."""
    cpu_seconds: float = 0.0
    """What all threads of the process computed in that time. Other work on the machine changes it less, though it can
    double it on shared cores. nan after a checkpoint that does not hold it."""
    run_seconds: float = 0.0
    """What this and earlier attempts took up to the last checkpoint, from where their models were loaded."""
    peak_memory_gib: float | None = 0.0
    """The peak of memory of all attempts up to the last pause, without what `paused` leaves out; None where the
    system does not say, and after a checkpoint that lacks it."""
    peak_memory_is_bound: bool = False
    """Whether the peak is an upper bound."""
    is_paused: bool = False
    """Whether scoring or a file is under way, which `paused` leaves out."""
    compiles: bool = False
    """Whether the next step compiles the model."""
    lines: list[dict[str, Any]] = field(default_factory=list)
    """The lines of metrics.jsonl."""
    predictions: dict[str, Tensor] = field(default_factory=dict)
    """What the objective predicted for each scored split, by `split/epoch`: metrics and the record's rows follow."""
    begun: list[Tensor] = field(default_factory=list)
    """Predictions for the first examples of the split that is being scored, in the order of scoring."""
    machines: list[dict[str, Any]] = field(default_factory=list)
    """Earlier machines of this run that compute other bits."""

    @property
    def device(self) -> torch.device:
        """The device of the training."""
        return self.loss_sum.device

    def trained(self) -> dict[str, nn.Parameter]:
        """Returns the parameters that are trained, by name."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def look_at_memory(self) -> None:
        """Brings `peak_memory_gib` up to date."""
        self.peak_memory_gib = _larger(self.peak_memory_gib, peak_memory_gib(self.device))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves what is computed inside, scoring or a file, out of `peak_memory_gib`. A pause may lie in another."""
        if self.is_paused:
            yield
            return
        self.look_at_memory()
        self.is_paused = True
        try:
            yield
        finally:
            self.is_paused = False
            if _larger(peak := peak_memory_gib(self.device), self.peak_memory_gib) != self.peak_memory_gib:
                restart_peak_memory(self.device)
                self.peak_memory_is_bound |= peak_memory_gib(self.device) == peak  # where it cannot be reset

    def take_apart(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Returns the tensors and the plain values that `put_together` needs."""
        tensors: dict[str, Tensor] = {"loss_sum": self.loss_sum, "generator/cpu": torch.get_rng_state()}
        if self.loss_sum.is_cuda:
            tensors["generator/cuda"] = torch.cuda.get_rng_state(self.device)
        for name, parameter in self.trained().items():
            tensors[f"model/{name}"] = parameter
            tensors |= {f"optimizer/{name}/{key}": value for key, value in self.optimizer.state[parameter].items()}
        tensors |= {f"method/{key}": value for key, value in self.method.state(self.model).items()}
        tensors |= {f"logits/{key}": value for key, value in self.predictions.items()}
        tensors |= {"begun": torch.cat(self.begun)} if self.begun else {}
        values = {key: getattr(self, attribute) for attribute, key in _PLAIN.items()}
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return tensors, values | {"schedule": self.schedule.state_dict(), "rates": rates}

    @torch.no_grad()
    def put_together(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Restores in place the state that `take_apart` returned."""
        trained = self.trained()
        own = {key.removeprefix("method/"): tensor for key, tensor in tensors.items() if key.startswith("method/")}
        self.method.restore(self.model, own)
        self.begun = [tensors["begun"]] if "begun" in tensors else []
        for key, tensor in tensors.items():
            kind, _, name = key.partition("/")
            if kind == "model":
                trained[name].copy_(tensor)
            elif kind == "optimizer":
                name, _, part = name.rpartition("/")
                self.optimizer.state[trained[name]][part] = tensor.to(trained[name].device)
            elif kind == "logits":
                self.predictions[name] = tensor
        unsaid = {"cpu_seconds": math.nan, "run_seconds": values["seconds"], "examples_timed": values["examples"]}
        unsaid |= {"peak_memory_gib": None, "peak_memory_is_bound": True}
        peak, is_bound = self.peak_memory_gib, self.peak_memory_is_bound
        for attribute, key in _PLAIN.items():
            setattr(self, attribute, (unsaid | values)[key])  # older checkpoints lack these
        self.peak_memory_gib = _larger(self.peak_memory_gib, peak)
        self.peak_memory_is_bound |= is_bound
        for group, rate in zip(self.optimizer.param_groups, values["rates"], strict=True):
            group["lr"] = rate
        self.schedule.load_state_dict(values["schedule"])
        self.loss_sum.copy_(tensors["loss_sum"])
        torch.set_rng_state(tensors["generator/cpu"])
        if "generator/cuda" in tensors and self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["generator/cuda"], self.device)


_PLAIN = {  # `examples_told`, like `logits/`, is an older name that stays so that old checkpoints can be resumed
    "step": "step",
    "examples": "examples",
    "examples_logged": "examples_told",
    "examples_timed": "examples_timed",
    "seconds": "seconds",
    "cpu_seconds": "cpu_seconds",
    "run_seconds": "run_seconds",
    "peak_memory_gib": "peak_memory_gib",
    "peak_memory_is_bound": "peak_memory_is_bound",
    "lines": "lines",
    "machines": "machines",
}
"""Plain values of the state, and how a checkpoint's file names them."""


def _larger(one: float | None, other: float | None) -> float | None:
    """Returns the larger of two peaks; None if one of them is not known."""
    return None if one is None or other is None else max(one, other)


def write(state: TrainState, folder: Path, run_id: str, machine: dict[str, Any]) -> None:
    """Writes a checkpoint, and removes the previous one once the new one is on the disk.

    Args:
        state: What to store.
        folder: The run's `checkpoint/`.
        run_id: The run.
        machine: What decides the bits, from `provenance.machine`.

    Raises:
        OSError: If it cannot be written; the previous checkpoint remains.
    """
    tensors, values = state.take_apart()
    about = {"schema": SCHEMA, "run_id": run_id, "numerics_version": NUMERICS_VERSION, "machine": machine}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({**about, "state": values})
    digest = _digest(tensors, text)
    folder.mkdir(exist_ok=True)
    before = _found(folder)
    path = folder / f"{state.step:09d}-{len(state.predictions):03d}.safetensors"
    files.write_atomically(path, blocks(tensors, {"about": text, "sha256": digest}))
    for old in before:
        if old != path:
            files.remove(old)


def restore(
    state: TrainState, folder: Path, run_id: str, machine: dict[str, Any], which: Resume, up_to: int | None = None
) -> bool:
    """Fills a state that was prepared as for a fresh start from the newest whole checkpoint, in place.

    The rule: a checkpoint of another run (so of another configuration or numerics version), of another schema, or
    damaged, is never used. One made on another device class, with other threads, other precision of products or other
    versions of libraries, is used with `log.resume=any` only, and the record then lists the machines.

    Args:
        state: The state to fill.
        folder: The run's `checkpoint/`.
        run_id: The run.
        machine: What decides the bits, from `provenance.machine`.
        which: log.resume.
        up_to: The last step from which all snapshots that log.snapshots asks for can still be written.

    Returns:
        Whether a checkpoint was found and used.
    """
    if which is Resume.never:
        return False
    for path in reversed(_found(folder)):
        try:
            tensors, about = _read(path)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            log.warning("%s is damaged and not used (%s).", path, error)
            continue
        ours = {"schema": SCHEMA, "run_id": run_id, "numerics_version": NUMERICS_VERSION}
        if other := [f"{key} {about.get(key)}" for key, value in ours.items() if about.get(key) != value]:
            log.warning("%s is of another run and not used (%s).", path, ", ".join(other))
            continue
        unsaid = {name: machine[name] for name in PACKAGES if name in machine}  # an older checkpoint names torch alone
        theirs = unsaid | about["machine"]
        differs = [key for key in machine if theirs.get(key) != machine[key]]
        if differs and which is not Resume.any:
            changes = "; ".join(f"{key}: {theirs.get(key)}, here {machine[key]}" for key in differs)
            log.warning(
                "The checkpoint of step %d was written elsewhere (%s), so it is not used; log.resume=any would use it.",
                about["state"]["step"], changes,
            )  # fmt: skip
            continue
        if up_to is not None and about["state"]["step"] > up_to:
            log.warning("log.snapshots asks for step %d, which the checkpoint has passed: it is not used.", up_to)
            continue
        state.put_together(tensors, about["state"])
        if differs:
            state.machines.append({"until_step": state.step, **about["machine"]})
        return True
    return False


def _found(folder: Path) -> list[Path]:
    """Returns the checkpoints of a folder, the newest last. Links and anything but plain files are left out."""
    found = sorted(folder.glob("[0-9]*.safetensors"))
    return [path for path in found if path.is_file() and not path.is_symlink()]


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no dictionary)
    if _digest(tensors, metadata["about"]) != metadata["sha256"]:
        raise ValueError("its sha256 is not what was written")
    return tensors, json.loads(metadata["about"])


def _digest(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(raw(tensors[name]))
    return digest.hexdigest()


class Checkpointer:
    """Writes a run's checkpoints and snapshots into its record.

    Args:
        record: The run's directory.
        settings: Which snapshots to write, and how often to write a checkpoint.
        machine: What decides the bits, from `provenance.machine`.
        run: The run.
        total: Its optimizer steps in all.
    """

    def __init__(self, record: Record, settings: LogConfig, machine: dict[str, Any], run: Run, total: int) -> None:
        self.record, self.settings, self.machine, self.run = record, settings, machine, run
        self.total, self.snapshots = total, {fraction: round(fraction * total) for fraction in settings.snapshots}
        self.written_at = self.began = time.monotonic()
        self.before = 0.0  # seconds of earlier attempts, up to the checkpoint that is resumed

    def resume(self, state: TrainState) -> bool:
        """Restores the state in place from a checkpoint that fits, and removes snapshots of steps that are to come.

        Returns:
            Whether there was one.
        """
        absent = [step for of, step in self.snapshots.items() if not self.record.snapshot_path(of).exists()]
        folder, up_to = self.record.folder / CHECKPOINT, min(absent, default=None)
        if found := restore(state, folder, self.record.run_id, self.machine, self.settings.resume, up_to):
            self.before = state.run_seconds
            log.info("%s goes on from step %d.", self.record.run_id, state.step)
            for path in (self.record.folder / SNAPSHOTS).glob("*.safetensors"):
                with suppress(ValueError):  # a name that is none of ours
                    if round(float(path.stem) * self.total) > state.step:  # perhaps another machine's
                        files.remove(path)
        else:
            shutil.rmtree(self.record.folder / SNAPSHOTS, ignore_errors=True)
        return found

    def log(self, state: TrainState, line: dict[str, Any]) -> None:
        """Writes a line of metrics.jsonl."""
        state.lines.append(line)
        self.record.log_metrics(line)

    def after_step(self, state: TrainState) -> None:
        """Runs after every training step and scored batch. Writes a checkpoint or snapshot if one is due.

        Raises:
            AskedToEndError: If the process was asked to end.
        """
        for fraction, step in self.snapshots.items():
            if step == state.step and not self.record.snapshot_path(fraction).exists():
                with state.paused():
                    save_snapshot(state.model, self.run, self.record.snapshot_path(fraction), step)
        interrupt.refuse_to_go_on()
        every = self.settings.checkpoint_every_s
        if every is not None and time.monotonic() - self.written_at >= every:
            self.write(state)

    def write(self, state: TrainState) -> None:
        """Writes a checkpoint. If the disk is full, only the checkpoint is lost and the run continues."""
        self.record.refuse_loss_of_lock()
        state.run_seconds = self.before + time.monotonic() - self.began
        with state.paused():
            try:
                write(state, self.record.folder / CHECKPOINT, self.record.run_id, self.machine)
            except OSError as error:
                words = "%s: no checkpoint could be written (%s); the run goes on."
                log.warning(words, self.record.run_id, error.strerror)
        self.written_at = time.monotonic()
