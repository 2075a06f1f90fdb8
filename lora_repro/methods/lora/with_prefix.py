"""LoRA beside trained vectors of tokens (paper, Appendix E). Counted, not trained."""

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from lora_repro.methods.base import Count, MethodConfig
from lora_repro.methods.lora.config import LoRAConfig
from lora_repro.methods.prefix import PrefixConfig, PrefixEmbedConfig, PrefixLayerConfig
from lora_repro.models.arch import Arch


@dataclass
class LoRAPrefixEmbedConfig(LoRAConfig):
    """LoRA and trained embeddings of tokens (Appendix E)."""

    prefix_type: ClassVar[type[PrefixConfig]] = PrefixEmbedConfig
    why_not_merged: ClassVar[str | None] = PrefixConfig.why_not_merged
    attach = MethodConfig.attach  # LoRA's alone would leave the tokens out

    l_p: int = MISSING
    l_i: int = MISSING

    @property
    def prefix(self) -> PrefixConfig:
        """The tokens alone."""
        return self.prefix_type(self.name, l_p=self.l_p, l_i=self.l_i)

    @property
    def added_tokens(self) -> int:
        """l_p and l_i."""
        return self.prefix.added_tokens

    @property
    def label(self) -> str:
        """For example `lora_prefix_embed-r8-qv-p8-i4`."""
        return f"{super().label}-p{self.l_p}-i{self.l_i}"

    def check(self, arch: Arch) -> None:
        """Refuses what either refuses."""
        super().check(arch)
        self.prefix.check(arch)

    def count(self, arch: Arch) -> Count:
        """Counts both."""
        updates, tokens = super().count(arch), self.prefix.count(arch)
        total = updates.total + tokens.method
        return Count(updates.method + tokens.method, updates.head, total, {**updates.by_module, **tokens.by_module})


@dataclass
class LoRAPrefixLayerConfig(LoRAPrefixEmbedConfig):
    """LoRA and trained activations of tokens behind every block (Appendix E)."""

    prefix_type: ClassVar[type[PrefixConfig]] = PrefixLayerConfig
