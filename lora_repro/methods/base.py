"""What a method answers for, with defaults for one that trains plain tensors. No torch at import."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float
from omegaconf import MISSING

from lora_repro.config.identity import NOT_IN_ID
from lora_repro.errors import InputError
from lora_repro.models.arch import Arch, Site

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lora_repro.store.tensors import Saved

Tensors = Callable[[str], np.ndarray]
"""Reads a tensor by its name."""


class Count(NamedTuple):
    """Numbers of weights by kind, derived from shapes alone."""

    method: int
    """Trained by the method, the head apart: what the paper's tables print."""
    head: int
    """The head, trained by every method."""
    total: int
    """All weights of the model in training, with what the method adds."""
    by_module: dict[str, int]
    """The method's weights by site or module."""

    @property
    def trainable(self) -> int:
        """Everything that is trained."""
        return self.method + self.head


class Demonstrations(NamedTuple):
    """How a method asks a language model by solved examples that stand before each question."""

    per_class: int
    """How many of each class; 0 asks without."""
    is_calibrated: bool
    """Whether answers are divided by those to inputs that say nothing."""


@dataclass
class MethodConfig:
    """How a model is adapted: what a method counts, trains, saves, merges and tells of itself.

    The defaults serve a method that trains plain tensors: they are saved under their own names in trained.safetensors.
    """

    name: str = MISSING

    folder: ClassVar[str] = ""
    """The folder inside a run's directory that `write` fills, one name; empty: the directory itself."""
    is_saved_on_request: ClassVar[bool] = False
    """What is trained is as large as the model, so it is written only where log.save_full asks."""
    is_trained: ClassVar[bool] = True
    """It trains something. If not, `train.epochs` must be 0, and nothing is saved."""
    has_label_order_of_base: ClassVar[bool] = False
    """Files hold the head's outputs in the order of the base's labels, as PEFT's do, and not in the task's."""
    packages: ClassVar[tuple[str, ...]] = ()
    """The libraries that it is made of, as installers name them: a checkpoint of other versions is of elsewhere."""
    why_not_merged: ClassVar[str | None] = "it adds nothing to the weights"
    """Why `merge` has nothing to do, or cannot do it; None where it works."""

    @property
    def label(self) -> str:
        """The readable part of a run id."""
        return self.name

    @property
    def added_tokens(self) -> int:
        """How many tokens the method puts in front of or behind an input: train.max_length leaves room for them.

        `attach` does that around the forward pass of `model.base_model`: it extends embeddings, mask and positions, and
        cuts the added positions off the last hidden states, which are all that heads and output layers read.
        `lora_repro.models.input_lengths` tells it where an input ends and a text begins, and it tells
        `lora_repro.models.pooling.reading_at` where the head reads.
        """
        return 0

    @property
    def needs_a_row_of_its_own(self) -> bool:
        """Tells whether an input cannot share its row of a batch with others (`train.packing`), as it has a prefix."""
        return self.added_tokens > 0

    @property
    def demonstrations(self) -> Demonstrations | None:
        """How solved examples are shown before each question; None of a method that shows none.

        Objectives that ask for label words read it. Only tasks that ask so take such a method.
        """
        return None

    @property
    def can_be_compiled(self) -> bool:
        """Tells whether the blocks of a model with the method can be compiled (`compute.compile`)."""
        return True

    @property
    def is_judged_by_count(self) -> bool:
        """Whether `check` cannot tell all that is impossible, and `count` can, which may import torch."""
        return False

    def check(self, arch: Arch) -> None:
        """Refuses values that are impossible on this architecture.

        Raises:
            InputError: If a value is out of range.
        """

    def count(self, arch: Arch) -> Count:
        """Counts the weights from shapes."""
        raise NotImplementedError

    def unfrozen(self, arch: Arch) -> list[str]:
        """Returns the parameters of the backbone that are trained, by their names before anything is attached."""
        return []

    def sites(self, arch: Arch) -> list[Site]:
        """Returns the matrices W that the method changes to W + dW, as far as the paper has a name for them."""
        return []

    def attach(self, model: "nn.Module", arch: Arch, seed: int) -> None:
        """Adds what the method trains to a model, or unfreezes it, in place; before, only the head is trained."""
        raise NotImplementedError

    def check_steps(self, total: int) -> None:
        """Refuses values that are impossible in a run of so many optimizer steps, before the model is loaded.

        Raises:
            InputError: If a value is out of range.
        """

    def rate_factor(self, parameter: str) -> float:
        """Returns what the learning rate is multiplied by for a parameter of the method."""
        return 1.0

    def in_fp32(self, model: "nn.Module") -> "list[nn.Module]":
        """Returns the modules whose frozen parameters stay in fp32 where train.dtype=bf16 stores the others in bf16."""
        return []

    def has_no_gradient_at_first(self, parameter: str) -> bool:
        """Tells whether a trained parameter has a zero gradient in the first step.

        It has where it is multiplied by a factor that starts at zero.
        """
        return False

    def before_training(self, model: "nn.Module", losses: "Iterable[Callable[[], Tensor]]") -> None:
        """Sets what the method trains by the training data, before a run's first step.

        A run that goes on from a checkpoint calls it too: `unmoved` compares with the start. One with train.init_from,
        or that trains nothing, does not.

        Args:
            model: The model, on the CPU and in fp32, whatever train.dtype is; nothing but trained values may change.
            losses: The batches of the first epoch in the run's order: each computes its loss. Nothing is read before
                the first is asked for.
        """

    def penalty(self, model: "nn.Module") -> "Tensor | None":
        """Returns what the method adds to the loss of a training step; None: nothing. It is in no logged loss."""
        return None

    def after_step(self, model: "nn.Module", step: int, total: int) -> None:
        """Runs after each step of the optimizer, before the gradients are cleared.

        Args:
            model: The model.
            step: How many steps were taken.
            total: How many the run has.
        """

    def state(self, model: "nn.Module") -> "dict[str, Tensor]":
        """Returns what changes in training beside trained parameters: checkpoints keep it, by names of the method's."""
        return {}

    def restore(self, model: "nn.Module", tensors: "Mapping[str, Tensor]") -> None:
        """Puts back what `state` returned."""

    def provenance(self, arch: Arch) -> dict[str, Any]:
        """Returns what a record must tell of the method beside its configuration: of a library that it is made of."""
        return {}

    def flags(self, model: "nn.Module") -> dict[str, bool]:
        """Returns what a reader of result.json must know of the trained model.

        `b_zero` is there for every method: what the method adds is zero, so it does nothing.
        """
        return {"b_zero": False}

    def delta_W(self, site: Site, after: Tensors, before: Tensors) -> Float[np.ndarray, "d_out d_in"]:
        """Returns dW, what training added to the matrix of one of `sites`.

        Args:
            site: The matrix.
            after: Reads a trained parameter by its name in the model that `attach` has changed.
            before: Reads a parameter of the base by its name there.
        """
        raise NotImplementedError

    def merge(self, model: "nn.Module") -> None:
        """Folds what the method adds into the model's own weights, in place: the model is a plain one afterwards."""
        raise NotImplementedError

    def file_names(self, model: "nn.Module", arch: Arch) -> dict[str, str]:
        """Returns what is saved: names of parameters and buffers, and what files call them.

        By default it is what is trained, under its own names.

        A method that freezes a part of what it adds names that part too, unless `attach` draws it again.
        """
        return {name: name for name, parameter in model.named_parameters() if parameter.requires_grad}

    def write(self, tensors: "Mapping[str, Tensor]", arch: Arch, folder: Path, base: str | None) -> list[Path]:
        """Writes what was trained, and returns the files: a run's result names them by their sha256.

        A method that trains nothing is not asked.

        Args:
            tensors: The tensors by the names that `file_names` gives them in files.
            arch: The model's shapes.
            folder: An existing folder.
            base: The base as the hub names it.
        """
        from lora_repro.store.tensors import write_plain

        return write_plain(tensors, folder)

    def read(self, arch: Arch, folder: Path) -> "Saved":
        """Reads what `write` wrote into the folder of a run: outside the store, only PEFT folders can be a start.

        Raises:
            MissingInputError: If files are missing or damaged.
            InputError: If they belong to other settings of the method.
        """
        from lora_repro.store.tensors import read_plain

        return read_plain(folder)


@dataclass
class SizedConfig(MethodConfig):
    """A method whose count grows in equal steps with one whole number: LoRA's r, an adapter's bottleneck."""

    size_key: ClassVar[str]
    """The field that holds this number."""

    budget: Any = field(default=None, metadata=NOT_IN_ID, kw_only=True)
    """Number of trained weights from which that field is solved, whatever it says: an upper bound, or a number as
    papers print it, 18M, 0.35M, 0.01%. See lora_repro/costs/budget.py."""

    @property
    def scope(self) -> list[str]:
        """What the method is chosen to work on, for messages: LoRA's matrices."""
        return []

    @property
    def size(self) -> int:
        """The value of that field."""
        return getattr(self, self.size_key)

    @property
    def least(self) -> int:
        """The smallest value that the field can have."""
        return 1

    def largest(self, arch: Arch) -> int:
        """Returns the largest value that the field can have."""
        raise NotImplementedError

    @property
    def can_be_larger(self) -> bool:
        """Whether `largest` is only where the search ends."""
        return False

    def spelt(self, size: int) -> str:
        """Returns how a value of the field is given."""
        return f"method.{self.size_key}={size}"

    def with_size(self, size: int) -> "SizedConfig":
        """Returns the method with another value of the field."""
        return replace(self, **{self.size_key: size})


def refuse_outside(key: str, value: int, least: int, most: int, why: str) -> None:
    """Refuses a whole number out of range.

    Raises:
        InputError: With the key, the value, the range, and what sets its upper end.
    """
    if not least <= value <= most:
        raise InputError(f"method.{key}: must be from {least} to {most}, {why} (given: {value}).")


def refuse_unread(key: str, value: object, default: object, given: str, reader: str) -> None:
    """Refuses a value that nothing reads: it would train the same run once more, under another id.

    Args:
        key: The key.
        value: Its value.
        default: The value that it has where it is left out.
        given: What it has no effect on, as in `init=kaiming`.
        reader: With what it is read, as in `init=gaussian`.

    Raises:
        InputError: If it is not the default.
    """
    if value != default:
        raise InputError(
            f"method.{key}: has no effect on method.{given} (given: {value}).\n"
            f"Give method.{reader} beside it, or leave it out."
        )
