"""Methods that train weights of the model itself: full fine-tuning, and the head alone."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_repro.arch import Arch
from lora_repro.methods.base import Count, MethodConfig

if TYPE_CHECKING:
    from torch import nn


@dataclass
class UnfreezeConfig(MethodConfig):
    """Trains the parameters that `selects` names, and the head."""

    def selects(self, parameter: str) -> bool:
        """Tells whether the method trains this parameter of the backbone."""
        raise NotImplementedError

    def count(self, arch: Arch) -> Count:
        """Counts the selected parameters; by_module holds one entry a parameter's module."""
        by_module: dict[str, int] = {}
        for name in arch.parameters:
            if not arch.is_head(name) and self.selects(name):
                module = name.rpartition(".")[0]
                by_module[module] = by_module.get(module, 0) + arch.size([name])
        return Count(sum(by_module.values()), arch.head_size, arch.size(), by_module)

    def attach(self, model: "nn.Module", arch: Arch, seed: int) -> None:
        """Unfreezes the selected parameters."""
        for name, parameter in model.named_parameters():
            if not arch.is_head(name):
                parameter.requires_grad_(self.selects(name))


@dataclass
class FullConfig(UnfreezeConfig):
    """Full fine-tuning: every weight is trained."""

    def selects(self, parameter: str) -> bool:
        """Selects everything."""
        return True


@dataclass
class HeadOnlyConfig(UnfreezeConfig):
    """Only the head is trained: the floor that every method must clear."""

    def selects(self, parameter: str) -> bool:
        """Selects nothing."""
        return False
