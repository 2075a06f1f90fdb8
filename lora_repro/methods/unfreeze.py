"""Methods that train weights of the model itself: all, the last blocks, the biases, or the head alone."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float

from lora_repro.errors import InputError
from lora_repro.methods.base import Count, MethodConfig, Tensors
from lora_repro.models.arch import Arch, Site

if TYPE_CHECKING:
    from torch import nn


@dataclass
class UnfreezeConfig(MethodConfig):
    """Trains the parameters of the backbone that `unfrozen` names, and the head."""

    why_not_merged: ClassVar[str | None] = "it trains the model's own weights"

    def unfrozen(self, arch: Arch) -> list[str]:
        """Returns the parameters of the backbone that are trained."""
        raise NotImplementedError

    def count(self, arch: Arch) -> Count:
        """Counts the unfrozen parameters; by_module holds one entry a parameter's module."""
        by_module: dict[str, int] = {}
        for name in self.unfrozen(arch):
            module = name.rpartition(".")[0]
            by_module[module] = by_module.get(module, 0) + arch.size([name])
        return Count(sum(by_module.values()), arch.head_size, arch.size(), by_module)

    def sites(self, arch: Arch) -> list[Site]:
        """Returns the matrices that are unfrozen."""
        unfrozen = {*self.unfrozen(arch)}
        return [site for site in arch.sites if f"{site.module}.weight" in unfrozen]

    def delta_W(self, site: Site, after: Tensors, before: Tensors) -> Float[np.ndarray, "d_out d_in"]:
        """Returns W' - W."""
        weight = f"{site.module}.weight"
        return site.matrix_in(after(weight)) - site.matrix_in(before(weight))

    def attach(self, model: "nn.Module", arch: Arch, seed: int) -> None:
        """Unfreezes the parameters."""
        for name in self.unfrozen(arch):
            model.get_parameter(name).requires_grad_(True)


@dataclass
class FullConfig(UnfreezeConfig):
    """Full fine-tuning: every weight is trained."""

    is_saved_on_request: ClassVar[bool] = True

    def unfrozen(self, arch: Arch) -> list[str]:
        """Returns the whole backbone."""
        return arch.backbone


@dataclass
class HeadOnlyConfig(UnfreezeConfig):
    """Only the head is trained: what every other method is measured against."""

    def check(self, arch: Arch) -> None:
        """Refuses a language model, which has no head.

        Raises:
            InputError: With what to do.
        """
        if not arch.head_modules:
            raise InputError(
                "method=head_only: the task is answered in words, so there is no head to train.\n"
                "Choose a task with a head, or score without training: method=lora train.epochs=0"
            )

    def unfrozen(self, arch: Arch) -> list[str]:
        """Returns nothing."""
        return []


@dataclass
class FTTop2Config(UnfreezeConfig):
    """The last two blocks are trained, and nothing before or behind them (Li and Liang 2021; paper, Table 3)."""

    BLOCKS: ClassVar[int] = 2

    def check(self, arch: Arch) -> None:
        """Refuses a model of fewer blocks."""
        if arch.num_layers < self.BLOCKS:
            raise InputError(
                f"method=ft_top2: trains the last {self.BLOCKS} blocks, and this {arch.model_type} has "
                f"{arch.num_layers}.\nChoose method=full."
            )

    def unfrozen(self, arch: Arch) -> list[str]:
        """Returns what is in the last two blocks."""
        last = range(arch.num_layers - self.BLOCKS, arch.num_layers)
        return [name for name in arch.backbone if arch.layer_of(name) in last]


@dataclass
class BitFitConfig(UnfreezeConfig):
    """Every bias of the backbone is trained, LayerNorms' too, and no weight (Zaken et al. 2021; paper, Section 5.1).

    On RoBERTa base these are 102,144: 8,448 a layer (q, k, v, o: 4 x 768; up 3,072; down 768; two LayerNorms 2 x 768),
    and 768 of the embeddings' LayerNorm.
    """

    def check(self, arch: Arch) -> None:
        """Refuses a model that has no biases."""
        if not arch.biases:
            raise InputError(f"method=bitfit: this {arch.model_type} has no biases.\nChoose another method.")

    def unfrozen(self, arch: Arch) -> list[str]:
        """Returns the biases."""
        return arch.biases
