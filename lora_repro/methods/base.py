"""What all methods share: configuration, the count of what they train, and attach. No torch at import."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from omegaconf import MISSING

from lora_repro.arch import Arch

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

    def rate_factor(self, parameter: str) -> float:
        """Returns what the learning rate is multiplied by for a parameter of the method."""
        return 1.0

    def attach(self, model: "nn.Module", arch: Arch, seed: int) -> None:
        """Changes a model with all weights frozen but the head's into the method's: adds, or unfreezes, in place."""
        raise NotImplementedError
