"""Few-shot prompting: nothing is trained, the model reads solved examples before each question."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from omegaconf import MISSING

from lora_repro.errors import InputError
from lora_repro.methods.base import Count, Demonstrations, MethodConfig
from lora_repro.models.arch import Arch

if TYPE_CHECKING:
    from torch import nn


@dataclass
class FewShotConfig(MethodConfig):
    """A language model is asked as it is, after `shots` solved examples of each class (LoRA paper, Table 8).

    Source: Brown et al. 2020, Section 2.1; the paper's MNLI has two demonstrations a class, six in all. `calibrated` is
    contextual calibration (Zhao et al. 2021).
    """

    is_trained: ClassVar[bool] = False
    why_not_merged: ClassVar[str | None] = "it trains nothing"

    shots: int = MISSING
    """Demonstrations of each class, 0 or more. They are drawn from the training split by the run's seed."""
    calibrated: bool = False
    """Divide the probability of each label by the one that it has where the input says nothing."""

    @property
    def label(self) -> str:
        """Says how many demonstrations of a class there are, and whether answers are calibrated."""
        return f"{self.name}-k{self.shots}{'-calibrated' if self.calibrated else ''}"

    @property
    def demonstrations(self) -> Demonstrations | None:
        """What is shown before each question."""
        return Demonstrations(self.shots, self.calibrated)

    def check(self, arch: Arch) -> None:
        """Refuses a negative number of demonstrations."""
        if self.shots < 0:
            raise InputError(
                f"method.shots: must be 0 or more, the demonstrations of each class (given: {self.shots})."
            )

    def count(self, arch: Arch) -> Count:
        """Counts nothing that is trained."""
        return Count(0, arch.head_size, arch.size(), {})

    def attach(self, model: "nn.Module", arch: Arch, seed: int) -> None:
        """Leaves the model as it is."""
