"""LoRA's configuration and counts (paper, Section 4). The layers stand in lora_layers.py."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from omegaconf import MISSING

from lora_repro.arch import LETTERS, Arch
from lora_repro.errors import InputError
from lora_repro.methods.base import Count, MethodConfig

if TYPE_CHECKING:
    from torch import nn


@dataclass
class LoRAConfig(MethodConfig):
    """W_0 x + (alpha / r) B A x on the matrices that `targets` names."""

    targets: list[str] = field(default=MISSING)
    """Letters of the adapted matrices; a set, kept in the order q, k, v, o."""
    r: int = MISSING
    alpha: float = MISSING
    dropout: float = MISSING
    """Dropout on the input of A."""

    def __post_init__(self) -> None:
        """Orders the targets, so that [v, q] and [q, v] are one configuration."""
        if isinstance(self.targets, list):
            self.targets = sorted(self.targets, key=lambda letter: LETTERS.index(letter) if letter in LETTERS else 99)

    @property
    def label(self) -> str:
        """For example `lora-r8-qv`."""
        return f"{self.name}-r{self.r}-{''.join(self.targets)}"

    def check(self, arch: Arch) -> None:
        """Refuses targets that are unknown, repeated or none, and r, alpha, dropout out of range."""
        if not all(isinstance(letter, str) for letter in self.targets):
            raise InputError(
                f"method.targets: a list of letters (given: {self.targets}). Example: method.targets=[q,v]"
            )
        if not self.targets:
            raise InputError("method.targets: at least one matrix is needed (given: []). Example: method.targets=[q,v]")
        if repeated := sorted({letter for letter in self.targets if self.targets.count(letter) > 1}):
            raise InputError(
                f"method.targets: {', '.join(repeated)} stands more than once (given: [{', '.join(self.targets)}]).\n"
                "Name each matrix once. Example: method.targets=[q,v]"
            )
        narrowest = min(min(site.d_in, site.d_out) for site in arch.select(self.targets))
        if not 1 <= self.r <= narrowest:
            raise InputError(
                f"method.r: must be from 1 to {narrowest}, the width of the narrowest target (given: {self.r})."
            )
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise InputError(f"method.alpha: must be a finite number above 0 (given: {self.alpha}).")
        if not 0 <= self.dropout < 1:
            raise InputError(f"method.dropout: must be in [0, 1) (given: {self.dropout}).")

    def count(self, arch: Arch) -> Count:
        """Counts r (d_in + d_out) weights a site; for square matrices the paper's 2 n d_model r (Section 5.1)."""
        by_module = {site.name: self.r * (site.d_in + site.d_out) for site in arch.select(self.targets)}
        method = sum(by_module.values())
        return Count(method, arch.head_size, arch.size() + method, by_module)

    def attach(self, model: "nn.Module", arch: Arch, seed: int) -> None:
        """Puts a LoRALinear around every target."""
        from lora_repro.methods.lora_layers import attach_lora

        attach_lora(model, arch.select(self.targets), self.r, self.alpha, self.dropout, seed)
