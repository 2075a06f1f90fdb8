"""LoRA's configuration and counts (paper, Section 4). The layers are in layers.py."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float
from omegaconf import MISSING

from lora_repro import draw
from lora_repro.errors import InputError
from lora_repro.methods.base import Count, SizedConfig, Tensors, refuse_outside, refuse_unread
from lora_repro.methods.chosen_layers import (
    in_order,
    of_layers,
    read_layers,
    refuse_embed_in_layers,
    refuse_other_layers,
    shown_layers,
    without_all,
)
from lora_repro.models.arch import Arch, Site
from lora_repro.store.layout import ADAPTER

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lora_repro.store.tensors import Saved


class Init(str, Enum):
    """What A starts as; B starts at zero."""

    kaiming = "kaiming"
    """U(-b, b) with b = 1 / sqrt(d_in): the authors' code."""
    gaussian = "gaussian"
    """N(0, init_std^2): the paper's Section 4.1."""


class Start(NamedTuple):
    """How A_0, the start of A, is drawn. B starts at zero."""

    seed: int
    init: Init = Init.kaiming
    init_std: float = 0.02

    def draw_A(self, name: str, r: int, d_in: int) -> Float[np.ndarray, "r d_in"]:
        """Draws A_0 of the site of this name: from the same seed, name and shape always the same.

        `kaiming` is loralib's (`kaiming_uniform_(a=sqrt(5))`, so U(-b, b) with b = 1 / sqrt(d_in)), `gaussian` the
        paper's (Section 4.1, which prints no deviation).
        """
        if self.init is Init.gaussian:
            return draw.normal(self.seed, f"{name}.lora_A", (r, d_in), self.init_std)
        return draw.uniform(self.seed, f"{name}.lora_A", (r, d_in), bound=1 / math.sqrt(d_in))


class Bias(str, Enum):
    """Which biases are trained beside the updates, in the terms of loralib and PEFT."""

    none = "none"
    lora_only = "lora_only"
    """Those of the adapted layers."""
    all = "all"
    """Those of the whole backbone, LayerNorms' too."""


@dataclass
class LoRAConfig(SizedConfig):
    """W_0 x + (alpha / r) B A x on the matrices that `targets` names."""

    size_key: ClassVar[str] = "r"
    folder: ClassVar[str] = ADAPTER
    has_label_order_of_base: ClassVar[bool] = True
    why_not_merged: ClassVar[str | None] = None

    targets: list[str] = field(default=MISSING)
    """The adapted matrices; a set, in the order q, k, v, o, up, down, gate, embed."""
    r: int = MISSING
    alpha: float = MISSING
    dropout: float = MISSING
    """Dropout on the input of A."""
    r_pattern: Any = None
    """Other ranks by matrix, layer or both: {v: 16, layers.0: 2, layers.5.q: 4}. The most specific one counts."""
    init: Init = Init.kaiming
    init_std: float = 0.02
    """Standard deviation of init=gaussian; the paper prints none, the authors' DeBERTa code has this one."""
    freeze_A: bool = False  # noqa: N815  (the paper's letter)
    """Train B alone."""
    rslora: bool = False
    """Scale by alpha / sqrt(r) (rsLoRA, Kalajdzievski 2023)."""
    loraplus_lr_ratio: float = 1.0
    """Learning rate of B over that of A (LoRA+, Hayou et al. 2024); of the token embedding the other way round."""
    bias: Bias = Bias.none
    layers: Any = None
    """The layers whose matrices are adapted, from 0: [0, 1, 2], 4-11, 5; None: all. PEFT's layers_to_transform."""

    def __post_init__(self) -> None:
        """Orders targets and layers, so that [v, q] and [q, v], or 0-2 and [0, 1, 2], are one configuration."""
        self.layers = read_layers(self.layers)
        self.targets = in_order(self.targets)

    @property
    def label(self) -> str:
        """For example `lora-r8-qv`, `lora-r8-qv_up`."""
        short = "".join(role for role in self.targets if len(role) == 1)
        words = [short] * bool(short) + [role for role in self.targets if len(role) > 1]
        return f"{self.name}-r{self.r}-{'_'.join(words)}"

    def check(self, arch: Arch) -> None:
        """Refuses targets and layers that are unknown, repeated or none, and numbers out of range."""
        self.layers = without_all(self.layers, arch.num_layers)
        refuse_outside("r", self.r, 1, self.largest(arch), "the width of the narrowest target")
        self._check_pattern(arch)
        if self.freeze_A and "embed" in self.targets:
            raise InputError(
                "method.freeze_A: A of the token embedding starts at zero, so B alone would never change anything.\n"
                "Leave embed out of method.targets, or train A."
            )
        rules = [
            ("alpha", math.isfinite(self.alpha) and self.alpha > 0, "a finite number above 0"),
            ("dropout", 0 <= self.dropout < 1, "in [0, 1)"),
            ("init_std", math.isfinite(self.init_std) and self.init_std > 0, "a finite number above 0"),
            (
                "loraplus_lr_ratio",
                math.isfinite(self.loraplus_lr_ratio) and self.loraplus_lr_ratio > 0,
                "a finite number above 0",
            ),
        ]
        for key, holds, legal in rules:
            if not holds:
                raise InputError(f"method.{key}: must be {legal} (given: {getattr(self, key)}).")
        if self.init is not Init.gaussian:
            refuse_unread("init_std", self.init_std, LoRAConfig.init_std, f"init={self.init.value}", "init=gaussian")

    @property
    def scope(self) -> list[str]:
        """The adapted matrices, and in which layers."""
        return self.targets if self.layers is None else [*self.targets, f"layers {shown_layers(self.layers)}"]

    def largest(self, arch: Arch) -> int:
        """Returns the width of the narrowest target.

        Raises:
            InputError: If the targets are impossible.
        """
        self.check_targets(arch)
        return min(min(site.d_in, site.d_out) for site in self.sites(arch))

    def check_targets(self, arch: Arch) -> None:
        """Refuses targets that are unknown, repeated or none.

        Raises:
            InputError: With those there are.
        """
        if not all(isinstance(role, str) for role in self.targets):
            raise InputError(
                f"method.targets: must be a list of matrices (given: {self.targets}). Example: method.targets=[q,v]"
            )
        if not self.targets:
            raise InputError("method.targets: at least one matrix is needed (given: []). Example: method.targets=[q,v]")
        if repeated := sorted({role for role in self.targets if self.targets.count(role) > 1}):
            raise InputError(
                f"method.targets: {', '.join(repeated)} is named more than once (given: [{', '.join(self.targets)}]).\n"
                "Name each matrix once. Example: method.targets=[q,v]"
            )
        arch.select(self.targets, key="method.targets")
        refuse_other_layers(self.layers, arch.num_layers)
        refuse_embed_in_layers(self.targets, self.layers)

    def _check_pattern(self, arch: Arch) -> None:
        sites = self.sites(arch)
        if not isinstance(self.r_pattern, dict | None) or not all(
            type(r) is int and isinstance(key, str) for key, r in (self.r_pattern or {}).items()
        ):
            raise InputError(
                f"method.r_pattern: ranks by matrix or layer (given: {self.r_pattern}).\n"
                "Example: 'method.r_pattern={v:16,layers.0:2,layers.5.q:4}'"
            )
        for key, r in (self.r_pattern or {}).items():
            hit = [site for site in sites if key in _keys_of(site)]
            if not hit:
                raise InputError(
                    f"method.r_pattern: {key!r} names none of the adapted matrices "
                    f"({', '.join(self.targets)} of layers "
                    f"{shown_layers(self.layers if self.layers is not None else range(arch.num_layers))}).\n"
                    "Example: 'method.r_pattern={v:16,layers.0:2,layers.5.q:4}'"
                )
            narrowest = min(min(site.d_in, site.d_out) for site in hit)
            if not 1 <= r <= narrowest:
                raise InputError(f"method.r_pattern.{key}: must be from 1 to {narrowest} (given: {r}).")

    def r_of(self, site: Site) -> int:
        """Returns the rank at a site."""
        if not self.r_pattern:
            return self.r
        return next((self.r_pattern[key] for key in _keys_of(site) if key in self.r_pattern), self.r)

    def scaling_of(self, site: Site) -> float:
        """Returns the scale of the update at a site: alpha / r, or alpha / sqrt(r) in rsLoRA."""
        r = self.r_of(site)
        return self.alpha / (math.sqrt(r) if self.rslora else r)

    def rate_factor(self, parameter: str) -> float:
        """Returns LoRA+'s ratio for the factor that starts at zero: B, of the token embedding A."""
        return self.loraplus_lr_ratio if _starts_at_zero(parameter) else 1.0

    def count(self, arch: Arch) -> Count:
        """Counts r (d_in + d_out) weights a site; for square matrices the paper's 2 n d_model r (Section 5.1)."""
        by_module: dict[str, int] = {}
        total = arch.size()
        for site in self.sites(arch):
            A, B = self.r_of(site) * site.d_in, self.r_of(site) * site.d_out
            by_module[site.name] = B if self.freeze_A else A + B
            total += A + B
        for name in self.unfrozen(arch):
            by_module[name] = arch.size([name])
        return Count(sum(by_module.values()), arch.head_size, total, by_module)

    def unfrozen(self, arch: Arch) -> list[str]:
        """Returns the biases that are trained."""
        if self.bias is Bias.none:
            return []
        adapted = {f"{site.module}.bias" for site in self.sites(arch)}
        return [name for name in arch.biases if self.bias is Bias.all or name in adapted]

    def attach(self, model: "nn.Module", arch: Arch, seed: int) -> None:
        """Puts an update on every target, and unfreezes biases."""
        from lora_repro.methods.lora.layers import LoRAUpdate, attach_update

        for name in self.unfrozen(arch):
            model.get_parameter(name).requires_grad_(True)
        start = Start(seed, self.init, self.init_std)
        for site in self.sites(arch):
            r, scaling = self.r_of(site), self.scaling_of(site)
            update = LoRAUpdate(site.d_in, site.d_out, r, scaling, start, site.name, self.dropout, self.freeze_A)
            attach_update(model, site, update)

    def sites(self, arch: Arch) -> list[Site]:
        """Returns the adapted matrices.

        Raises:
            InputError: If this architecture has no such matrix or layer.
        """
        refuse_other_layers(self.layers, arch.num_layers)
        return of_layers(arch.select(self.targets), self.layers)

    def delta_W(self, site: Site, after: Tensors, before: Tensors) -> Float[np.ndarray, "d_out d_in"]:
        """Returns s B A."""
        A, B = (after(f"{site.module}.updates.{site.role}.{factor}") for factor in ("lora_A", "lora_B"))
        return self.scaling_of(site) * (B @ A)

    def file_names(self, model: "nn.Module", arch: Arch) -> dict[str, str]:
        """Returns PEFT's names, of a frozen A too."""
        from lora_repro.methods.lora import files

        return files.file_names(self, arch)

    def write(self, tensors: "Mapping[str, Tensor]", arch: Arch, folder: Path, base: str | None) -> list[Path]:
        """Writes PEFT's layout."""
        from lora_repro.methods.lora import files

        return files.write(tensors, self, arch, folder, base)

    def read(self, arch: Arch, folder: Path) -> "Saved":
        """Reads PEFT's layout."""
        from lora_repro.methods.lora import files

        return files.read(self, arch, folder)

    def in_fp32(self, model: "nn.Module") -> "list[nn.Module]":
        """Returns the updates: a frozen A stays in fp32 beside its B."""
        from lora_repro.methods.lora.layers import LoRAUpdate

        return [module for module in model.modules() if isinstance(module, LoRAUpdate)]

    def has_no_gradient_at_first(self, parameter: str) -> bool:
        """Tells whether it is the factor beside the one that starts at zero: A, of the token embedding B."""
        return parameter.endswith((".lora_A", ".lora_B")) and not _starts_at_zero(parameter)

    def flags(self, model: "nn.Module") -> dict[str, bool]:
        """Returns `b_zero`: a factor that started at zero is still zero, so its update does nothing."""
        from lora_repro.methods.lora.layers import LoRAUpdate

        updates = [module for module in model.modules() if isinstance(module, LoRAUpdate)]
        return {"b_zero": any(not (update.lora_B.any() and update.lora_A.any()) for update in updates)}

    def merge(self, model: "nn.Module") -> None:
        """Folds every update into its weights: W_0 + s B A (Section 4.1)."""
        from lora_repro.methods.lora.layers import merge

        merge(model)


def _starts_at_zero(parameter: str) -> bool:
    """Tells whether a parameter is the factor that starts at zero: B, of the token embedding A."""
    return parameter.endswith(".updates.embed.lora_A" if ".updates.embed." in parameter else ".lora_B")


def _keys_of(site: Site) -> list[str]:
    """Returns the keys of r_pattern that mean a site, the most specific first."""
    return [site.name, re.sub(r"\.\w+$", "", site.name), site.role]
