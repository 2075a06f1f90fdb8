"""What all methods share: configuration, the count of what they train, and attach. No torch at import."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from omegaconf import MISSING

from lora_repro.config.identity import NOT_IN_ID
from lora_repro.errors import InputError
from lora_repro.models.arch import Arch

if TYPE_CHECKING:
    from torch import nn


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

    why_not_merged: ClassVar[str | None] = "it adds nothing to the weights"
    """Why `merge` has nothing to do, or cannot do it; None where it works."""

    def merge(self, model: "nn.Module") -> None:
        """Folds what the method adds into the model's own weights, in place: the model is a plain one afterwards."""
        raise NotImplementedError


@dataclass
class SizedConfig(MethodConfig):
    """A method whose count grows in equal steps with one whole number: LoRA's r, an adapter's bottleneck."""

    size_key: ClassVar[str]
    """The field that holds this number."""

    budget: Any = field(default=None, metadata=NOT_IN_ID, kw_only=True)
    """Number of trained weights from which that field is solved (whatever it says): an upper bound, or a number as
    papers print it, 18M, 0.35M, 0.01%. See lora_repro/costs/budget.py."""

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
