"""Adapter layers (paper, Section 5.1): a bottleneck with biases and a nonlinearity behind parts of a block.

x + W_up f(W_down x + b_down) + b_up, 2 d b + b + d weights an adapter of bottleneck b.

Where sources disagree, both readings are options, and the default is what the authors of the row's numbers ran:
`examples/NLU` of the paper's repository for adapter_h and adapter_p, Lin et al.'s own code for adapter_l.
"""

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from omegaconf import MISSING

from lora_repro.errors import InputError
from lora_repro.methods.adapters.places import PROJECTIONS, projections
from lora_repro.methods.base import Count, SizedConfig, refuse_outside
from lora_repro.models.arch import Arch
from lora_repro.models.blocks import blocks

if TYPE_CHECKING:
    from torch import nn


class Nonlinearity(str, Enum):
    """The function f between an adapter's two layers, as transformers calls it."""

    relu = "relu"
    swish = "swish"
    gelu = "gelu"
    gelu_new = "gelu_new"
    """GELU by a tanh, as Houlsby et al.'s code has it."""


class Reads(str, Enum):
    """What an adapter reads and changes, s = x + h being the residual stream x with a sublayer's output h."""

    output = "output"
    """h, after its dropout: the block adds h + A(h) to x (Houlsby et al.)."""
    sum = "sum"
    """s, normalised where the block normalises it: norm(s + A(norm(s))), or s + A(s) (Pfeiffer et al.)."""
    block = "block"
    """y, what the whole block returns: y + A(y) (Lin et al.). Equal to `sum` where no norm follows the sum."""


@dataclass
class AdapterConfig(SizedConfig):
    """Adapters behind the sublayers that `places` names, in all blocks."""

    size_key: ClassVar[str] = "bottleneck"
    why_not_merged: ClassVar[str | None] = "a nonlinearity is between its two matrices"
    places: ClassVar[tuple[str, ...]] = ("mlp",)
    """Behind which sublayers of a block."""
    has_norm: ClassVar[bool] = False
    """Each adapter begins with a LayerNorm of its own, which is trained."""

    bottleneck: int = MISSING
    nonlinearity: Nonlinearity = Nonlinearity.relu
    reads: Reads = Reads.output
    init_std: float = 0.02
    """Standard deviation of W_down and W_up at the start, so that an adapter begins near the identity; biases begin at
    0. The authors' code and AdapterHub have 0.02, Houlsby et al. 0.01 in the paper and 0.001 in their code."""
    train_norms: bool = False
    """Train the backbone's own norms too, as Houlsby et al. do; the paper's authors leave them frozen."""

    @property
    def label(self) -> str:
        """For example `adapter_h-b8`."""
        return f"{self.name}-b{self.bottleneck}"

    def largest(self, arch: Arch) -> int:
        """Returns the model's width: beyond it there is no bottleneck."""
        return arch.d_model

    def layers(self, arch: Arch) -> range:
        """Returns the blocks that have adapters."""
        return range(arch.num_layers)

    def check(self, arch: Arch) -> None:
        """Refuses an impossible bottleneck, and a model in which there is no place for the adapters."""
        refuse_outside("bottleneck", self.bottleneck, 1, self.largest(arch), "the model's width")
        if not (math.isfinite(self.init_std) and self.init_std > 0):
            raise InputError(f"method.init_std: must be a finite number above 0 (given: {self.init_std}).")
        if self.reads is not Reads.output and "attention" in self.places:
            raise InputError(
                f"method.reads: an adapter behind attention reads its output (given: {self.reads.value}).\n"
                "Leave it out, or choose method=adapter_p, whose adapters are behind the feed-forward layers alone."
            )
        if self.reads is Reads.output:
            for place in PROJECTIONS:
                projections(arch, place)
        else:
            blocks(arch.backbone)

    def unfrozen(self, arch: Arch) -> list[str]:
        """Returns the parameters of the backbone's norms, where they are trained."""
        if not self.train_norms:
            return []
        norms = {
            name.rpartition(".")[0]
            for name in arch.backbone
            if len(arch.parameters[name]) == 1 and name.endswith(".weight")
        }
        return [name for name in arch.backbone if name.rpartition(".")[0] in norms]

    def count(self, arch: Arch) -> Count:
        """Counts 2 d b + b + d weights an adapter, and 2 d of its LayerNorm where it has one (Section 5.1).

        The backbone's norms are counted where they are trained; they are no part of what is added.
        """
        d, b = arch.d_model, self.bottleneck
        by_module: dict[str, int] = {}
        for layer in self.layers(arch):
            for place in self.places:
                by_module[f"layers.{layer}.{place}.adapter"] = 2 * d * b + b + d
                if self.has_norm:
                    by_module[f"layers.{layer}.{place}.adapter.norm"] = 2 * d
        added = sum(by_module.values())
        for name in self.unfrozen(arch):
            module = name.rpartition(".")[0]
            by_module[module] = by_module.get(module, 0) + arch.size([name])
        return Count(sum(by_module.values()), arch.head_size, arch.size() + added, by_module)

    def attach(self, model: "nn.Module", arch: Arch, seed: int) -> None:
        """Puts the adapters into the blocks, and unfreezes norms."""
        from lora_repro.methods.adapters.layers import Adapter, put_behind

        for name in self.unfrozen(arch):
            model.get_parameter(name).requires_grad_(True)
        for layer in self.layers(arch):
            for place in self.places:
                adapter = Adapter(
                    arch.d_model, self.bottleneck, self.nonlinearity, f"layers.{layer}.{place}.adapter", seed,
                    self.init_std, self.has_norm,
                )  # fmt: skip
                put_behind(model, arch, layer, place, self.reads, adapter)

    def flags(self, model: "nn.Module") -> dict[str, bool]:
        """Returns `b_zero`: an adapter's second layer is zero, so it does nothing."""
        from lora_repro.methods.adapters.layers import Adapter

        adapters = [module for module in model.modules() if isinstance(module, Adapter)]
        return {"b_zero": any(not (adapter.up.weight.any() or adapter.up.bias.any()) for adapter in adapters)}


@dataclass
class AdapterHConfig(AdapterConfig):
    """Houlsby et al. 2019: behind attention and behind the feed-forward layers.

    `swish` is the authors' nonlinearity for it (and AdapterHub's); Houlsby et al.'s code has `gelu_new`.
    """

    places: ClassVar[tuple[str, ...]] = ("attention", "mlp")
    nonlinearity: Nonlinearity = Nonlinearity.swish


@dataclass
class AdapterLConfig(AdapterConfig):
    """Lin et al. 2020: behind the feed-forward layers, each with a LayerNorm.

    In their code an adapter reads what the block returns. The paper's words, after the MLP and after a LayerNorm, can
    be read as the feed-forward layers' output too: `reads=output`.
    """

    has_norm: ClassVar[bool] = True
    reads: Reads = Reads.block


@dataclass
class AdapterPConfig(AdapterConfig):
    """Pfeiffer et al. 2021: behind the feed-forward layers.

    The authors' code and AdapterHub (`seq_bn`) let it read the normalised sum, with the block's own LayerNorm before
    and after it.
    """

    reads: Reads = Reads.sum


@dataclass
class AdapterDConfig(AdapterPConfig):
    """AdapterDrop, Rueckle et al. 2020: the first blocks have none, the others what adapter_p has."""

    dropped: int = MISSING
    """Number of first blocks without an adapter."""

    @property
    def label(self) -> str:
        """For example `adapter_d-b64-d5`."""
        return f"{super().label}-d{self.dropped}"

    def layers(self, arch: Arch) -> range:
        """Returns the blocks behind those that are dropped."""
        return range(self.dropped, arch.num_layers)

    def check(self, arch: Arch) -> None:
        """Refuses an impossible bottleneck, and to drop all."""
        super().check(arch)
        refuse_outside("dropped", self.dropped, 0, arch.num_layers - 1, "all blocks but one")
