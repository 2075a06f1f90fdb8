"""Adapter layers (paper, Section 5.1): a bottleneck with biases and a nonlinearity behind parts of a block.

x + W_up f(W_down x + b_down) + b_up, 2 d b + b + d weights an adapter of bottleneck b. The backbone's own LayerNorms
stay frozen, as in the authors' code (Houlsby et al. train them). Counted, not trained.
"""

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from lora_repro.methods.base import Count, SizedConfig, refuse_outside
from lora_repro.models.arch import Arch


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
        """Refuses an impossible bottleneck."""
        refuse_outside("bottleneck", self.bottleneck, 1, self.largest(arch), "the model's width")

    def count(self, arch: Arch) -> Count:
        """Counts 2 d b + b + d weights an adapter, and 2 d of its LayerNorm where it has one (Section 5.1)."""
        d, b = arch.d_model, self.bottleneck
        by_module: dict[str, int] = {}
        for layer in self.layers(arch):
            for place in self.places:
                by_module[f"layers.{layer}.{place}.adapter"] = 2 * d * b + b + d
                if self.has_norm:
                    by_module[f"layers.{layer}.{place}.adapter.norm"] = 2 * d
        added = sum(by_module.values())
        return Count(added, arch.head_size, arch.size() + added, by_module)


@dataclass
class AdapterHConfig(AdapterConfig):
    """Houlsby et al. 2019: behind attention and behind the feed-forward layers."""

    places: ClassVar[tuple[str, ...]] = ("attention", "mlp")


@dataclass
class AdapterLConfig(AdapterConfig):
    """Lin et al. 2020: behind the feed-forward layers, each with a LayerNorm."""

    has_norm: ClassVar[bool] = True


@dataclass
class AdapterPConfig(AdapterConfig):
    """Pfeiffer et al. 2021: behind the feed-forward layers."""


@dataclass
class AdapterDConfig(AdapterPConfig):
    """AdapterDrop, Rueckle et al. 2020: the first blocks have none."""

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
