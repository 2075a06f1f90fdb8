"""Prefix tuning (paper, Section 5.1): trained vectors of tokens that are put in.

l_p of them stand before the input and l_i behind it. Counted by the paper's formulas, not trained.
"""

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from lora_repro.errors import InputError
from lora_repro.methods.base import Count, SizedConfig, refuse_outside
from lora_repro.models.arch import Arch


@dataclass
class PrefixConfig(SizedConfig):
    """Trained vectors of l_p prefix and l_i infix tokens."""

    size_key: ClassVar[str] = "l_p"
    why_not_merged: ClassVar[str | None] = "its vectors are inputs, not weights"

    l_p: int = MISSING
    """Tokens before the input."""
    l_i: int = MISSING
    """Tokens behind the input."""

    @property
    def label(self) -> str:
        """For example `prefix_embed-p256-i8`."""
        return f"{self.name}-p{self.l_p}-i{self.l_i}"

    @property
    def added_tokens(self) -> int:
        """l_p and l_i."""
        return self.l_p + self.l_i

    def largest(self, arch: Arch) -> int:
        """Returns how many tokens fit in front of the infix and one token of input."""
        return arch.max_length - 1 - self.l_i

    def check(self, arch: Arch) -> None:
        """Refuses numbers of tokens for which there is no room, and none at all."""
        refuse_outside("l_i", self.l_i, 0, arch.max_length - 1, "which leaves a token of input")
        refuse_outside("l_p", self.l_p, 0, self.largest(arch), "which leaves a token of input")
        if self.l_p + self.l_i == 0:
            raise InputError("method.l_p: no token is trained (given: 0, with method.l_i=0). Example: method.l_p=8")

    def vectors(self, arch: Arch) -> dict[str, int]:
        """Returns the number of weights by place."""
        raise NotImplementedError

    def count(self, arch: Arch) -> Count:
        """Counts the vectors."""
        by_module = self.vectors(arch)
        added = sum(by_module.values())
        return Count(added, arch.head_size, arch.size() + added, by_module)


@dataclass
class PrefixEmbedConfig(PrefixConfig):
    """The tokens' embeddings are trained."""

    def vectors(self, arch: Arch) -> dict[str, int]:
        """Counts d (l_p + l_i) weights, d the width of the embeddings."""
        (table,) = arch.select(["embed"])
        return {"embed.prefix": table.d_out * (self.l_p + self.l_i)}


@dataclass
class PrefixLayerConfig(PrefixConfig):
    """The tokens' activations behind every block are trained."""

    def vectors(self, arch: Arch) -> dict[str, int]:
        """Counts d (l_p + l_i) weights a block."""
        return {f"layers.{layer}.prefix": arch.d_model * (self.l_p + self.l_i) for layer in range(arch.num_layers)}
