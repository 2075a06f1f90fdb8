"""What all methods share: configuration, the count of what they train, and attach. No torch at import."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
    """The classification head, trained by every method."""
    total: int
    """All weights of the model in training, with what the method adds."""
    by_module: dict[str, int]
    """The method's weights by site or module."""

    @property
    def trainable(self) -> int:
        """Everything that is trained."""
        return self.method + self.head


@dataclass
class MethodConfig:
    """How a model is adapted."""

    name: str = MISSING

    @property
    def label(self) -> str:
        """The readable part of a run id."""
        return self.name

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

    def rate_factor(self, parameter: str) -> float:
        """Returns what the learning rate is multiplied by for a parameter of the method."""
        return 1.0

    def attach(self, model: "nn.Module", arch: Arch, seed: int) -> None:
        """Changes a model with all weights frozen but the head's into the method's: adds, or unfreezes, in place.

        A method that defines this is trained; one that does not is counted and planned.
        """
        raise NotImplementedError

    @classmethod
    def is_trainable(cls) -> bool:
        """Tells whether the method defines `attach`."""
        return cls.attach is not MethodConfig.attach

    def in_fp32(self, model: "nn.Module") -> "list[nn.Module]":
        """Returns the modules whose frozen parameters stay in fp32 where train.dtype=bf16 stores the others in bf16."""
        return []

    def starts_still(self, parameter: str) -> bool:
        """Tells whether a trained parameter has no gradient in the first step, as what it is multiplied by is zero."""
        return False

    def flags(self, model: "nn.Module") -> dict[str, bool]:
        """Returns what a reader of the record must know of the trained model.

        Every result.json has `b_zero`: what the method adds is zero, so it does nothing.
        """
        return {"b_zero": False}

    def sites(self, arch: Arch) -> list[Site]:
        """Returns the matrices W that the method changes to W + dW, as far as the paper has a name for them."""
        return []

    def delta_W(self, site: Site, after: Tensors, before: Tensors) -> Float[np.ndarray, "d_out d_in"]:
        """Returns dW, what training added to the matrix of one of `sites`.

        Args:
            site: The matrix.
            after: Reads a parameter of the trained model by its name in the model that `attach` has changed.
            before: Reads a parameter of the base by its name there.
        """
        raise NotImplementedError

    why_not_merged: ClassVar[str | None] = "it adds nothing to the weights"
    """Why `merge` has nothing to do, or cannot do it; None where it works."""

    def merge(self, model: "nn.Module") -> None:
        """Folds what the method adds into the model's own weights, in place: the model is a plain one afterwards."""
        raise NotImplementedError

    folder: ClassVar[str] = ""
    """The folder inside a run's directory that `write` fills; empty: the directory itself."""
    is_saved_on_request: ClassVar[bool] = False
    """What is trained is as large as the model, and is written only where log.save_full asks."""
    has_heads_of_base: ClassVar[bool] = False
    """Files hold the outputs of the head in the order of the base's labels, as PEFT does, and not in the task's."""

    def file_names(self, model: "nn.Module", arch: Arch) -> dict[str, str]:
        """Returns what files call the tensors that are saved, by the names of the parameters: of trained ones the same.

        A method that freezes a part of what it adds must name that part too, if it cannot be drawn again.
        """
        return {name: name for name, parameter in model.named_parameters() if parameter.requires_grad}

    def write(self, tensors: "Mapping[str, Tensor]", arch: Arch, folder: Path, base: str | None) -> None:
        """Writes what was trained.

        Args:
            tensors: The tensors by the names of `file_names`.
            arch: The model's shapes.
            folder: An existing folder.
            base: The base as the hub names it, if it does.
        """
        from lora_repro.store.tensors import write_plain

        write_plain(tensors, folder)

    def read(self, arch: Arch, folder: Path) -> "Saved":
        """Reads what `write` wrote.

        Raises:
            MissingInputError: If files are missing or damaged.
            InputError: If they belong to other settings of the method.
        """
        from lora_repro.store.tensors import read_plain

        return read_plain(folder)

    @property
    def added_tokens(self) -> int:
        """How many tokens the method puts in front of or behind an input: train.max_length leaves room for them.

        `attach` puts them there, around the forward pass of `model.base_model`, and takes them off its last hidden
        states: every head and every language model's output reads those.
        """
        return 0


@dataclass
class SizedConfig(MethodConfig):
    """A method whose count grows in equal steps with one whole number: LoRA's r, an adapter's bottleneck."""

    size_key: ClassVar[str]
    """The field that holds this number."""

    budget: Any = field(default=None, metadata=NOT_IN_ID, kw_only=True)
    """Number of trained weights from which that field is solved (whatever it says): an upper bound, or a number as
    papers print it, 18M, 0.35M, 0.01%. See lora_repro/costs/budget.py."""

    @property
    def scope(self) -> list[str]:
        """What the method is chosen to work on, for messages: LoRA's matrices."""
        return []

    def largest(self, arch: Arch) -> int:
        """Returns the largest value that the field can have."""
        raise NotImplementedError


def refuse_outside(key: str, value: int, least: int, most: int, why: str) -> None:
    """Refuses a whole number out of range.

    Raises:
        InputError: With the key, the value, the range, and what sets its upper end.
    """
    if not least <= value <= most:
        raise InputError(f"method.{key}: must be from {least} to {most}, {why} (given: {value}).")
