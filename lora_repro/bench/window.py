"""One window of training of one side, in a process of its own: the work, which all sides share, and the clock.

    python -m lora_repro.bench.window best --weights DIR --seconds 8 model=minilm task=movies method=lora

`lora_repro.bench.speed` calls this in turn for each side. The last line on stdout is what was found, as JSON.
"""

import argparse
import json
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lora_repro.bench.sides import SIDES
from lora_repro.config.compose import compose
from lora_repro.config.resolve import Resolved, resolve
from lora_repro.errors import InputError

if TYPE_CHECKING:
    import torch

    from lora_repro.tasks.encoding import Encoded

BATCHES = 10
SECONDS = 8.0
WARM_UP = 2
"""Epochs before a window of a side that trains whole epochs: until then memory is asked of the system in each step."""
EPOCHS = "train.epochs=1000"
"""A window ends long before the schedule of the learning rate does."""


class Work(NamedTuple):
    """What every side trains."""

    resolved: Resolved
    split: "Encoded"
    """The examples."""
    weights: Path
    """A folder with the model and the head that ours starts from, for transformers' from_pretrained."""
    seconds: float
    """Least length of a window."""

    @property
    def first_batch(self) -> list[int]:
        """The examples on which the sides' losses are compared before the first step."""
        return list(range(min(self.resolved.run.train.batch_size, len(self.split.examples))))


class Found(NamedTuple):
    """What one window found."""

    examples: int
    """Trained after the warm-up."""
    seconds: float
    """Spent on them."""
    cpu_seconds: float
    """Processor time spent on them: less than `seconds` times the threads where others disturbed."""
    warm_up_seconds: float
    """From the first step to the end of the warm-up."""
    first_loss: float
    """Loss of the first batch before any step."""
    trained: int
    """Weights that are trained."""
    peak_memory_gib: float | None
    """From before the model was loaded: the process's on a CPU, the allocator's on a GPU."""
    device: str


class Clock:
    """Times a window between two calls of `tick`.

    Args:
        seconds: Least length of the window.
        warm_up: After how many calls it begins.
        device: Where is trained: a GPU has to be waited for.
    """

    def __init__(self, seconds: float, warm_up: int, device: "torch.device") -> None:
        self._least, self._left, self._device = seconds, warm_up, device
        self._created = time.perf_counter()
        self.examples, self.seconds, self.cpu_seconds, self.warm_up_seconds = 0, 0.0, 0.0, 0.0

    def tick(self, examples: int) -> bool:
        """Is called wherever the window may begin or end, and tells whether it has ended.

        Args:
            examples: Trained so far, the warm-up included.
        """
        self._left -= 1
        if self._left > 0 or (self._left < 0 and time.perf_counter() - self._began < self._least):
            return False
        if self._device.type == "cuda":
            import torch

            torch.cuda.synchronize(self._device)
        now, cpu_now = time.perf_counter(), time.process_time()
        if self._left == 0:
            self._began, self._cpu_began, self._examples = now, cpu_now, examples
            self.warm_up_seconds = now - self._created
            return False
        self.examples, self.seconds = examples - self._examples, now - self._began
        self.cpu_seconds = cpu_now - self._cpu_began
        return True

    def found(self, first_loss: float, trained: int) -> Found:
        """Returns what the window found."""
        from lora_repro.training import device as devices

        return Found(
            self.examples,
            round(self.seconds, 3),
            round(self.cpu_seconds, 3),
            round(self.warm_up_seconds, 3),
            first_loss,
            trained,
            devices.peak_memory_gib(self._device),
            _name(self._device),
        )


def _name(device: "torch.device") -> str:
    if device.type != "cuda":
        return str(device)
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})"


def resolve_case(model: str, overrides: Sequence[str]) -> Resolved:
    """Resolves the run that is measured; a decoder without its own choice of a form answers in words.

    Raises:
        InputError: If the task has no classes, which alone the other sides know.
    """
    given = [f"model={model}", "log.wandb=off", EPOCHS, *overrides]
    resolved = resolve(compose(given))
    if resolved.run.train.max_steps is not None:
        raise InputError("train.max_steps: the length of a window is --seconds. Leave train.max_steps out.")
    if not resolved.run.task.label_names:
        raise InputError(f"task={resolved.run.task.name}: only tasks with classes are measured. Give task=movies.")
    if resolved.run.arch.is_decoder and not any(override.startswith("task.form=") for override in given):
        resolved = resolve(compose([*given, "task.form=text"]))
    return resolved


def write_weights(resolved: Resolved, folder: Path) -> None:
    """Writes the model that ours starts from, its new head included, as transformers saves it."""
    import torch
    from transformers import PreTrainedModel

    from lora_repro.models.load import load_model

    paths = resolved.settings.paths
    model = load_model(resolved.run, paths.model, paths.cache, torch.device("cpu"))
    assert isinstance(model, PreTrainedModel)
    model.save_pretrained(folder)


def sample(split: "Encoded", batch_size: int, seed: int, count: int) -> "Encoded":
    """Returns the examples of some batches of an epoch, spread evenly over the lengths.

    So a window of a few whole epochs of them costs per example what an epoch of all would.

    Raises:
        InputError: If the examples do not fill a batch.
    """
    from lora_repro.tasks.batches import batches

    lengths = split.lengths.tolist()
    order = [batch for batch in batches(lengths, batch_size, seed, 0) if len(batch) == batch_size]
    if not order:
        raise InputError(
            f"train.batch_size: {len(lengths)} examples do not fill a batch (given: {batch_size}).\n"
            "Lower it, or raise task.train_size."
        )
    order.sort(key=lambda batch: sum(lengths[index] for index in batch))
    count = min(count, len(order))
    chosen = [order[(2 * number + 1) * len(order) // (2 * count)] for number in range(count)]
    indices = sorted(chain(*chosen))
    return split._replace(
        examples=[split.examples[index] for index in indices],
        inputs={name: values[indices] for name, values in split.inputs.items()},
        lengths=split.lengths[indices],
        targets=split.targets[indices],
    )


def train_window(side: str, resolved: Resolved, weights: Path, seconds: float, count: int) -> Found:
    """Trains one window of one side, which must be the first of its process for its peak of memory to be right."""
    from lora_repro.bench.sides import ours, peft_loop, trainer
    from lora_repro.tasks.encoding import encode

    run = resolved.run
    split = sample(encode(run, resolved.settings)["train"], run.train.batch_size, run.seed, count)
    train = {"ours": ours.train, "default": trainer.by_default, "best": peft_loop.train, "authors": trainer.authors}
    return train[side](Work(resolved, split, weights, seconds))


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains one window and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("--weights", type=Path, required=True, help="the folder that lora_repro.bench.speed wrote")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="least length of the window")
    parser.add_argument("--batches", type=int, default=BATCHES, help="batches of an epoch that are trained")
    parser.add_argument("model", metavar="model=MODEL")
    parser.add_argument("overrides", nargs="*", help="of the run")
    options = parser.parse_args(arguments)
    resolved = resolve_case(options.model.removeprefix("model="), options.overrides)
    found = train_window(options.side, resolved, options.weights, options.seconds, options.batches)
    print(json.dumps(found._asdict()))


if __name__ == "__main__":
    main()
