"""LoRA beside trained vectors of tokens, trained jointly (paper, Appendix E)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from omegaconf import MISSING

from lora_repro.methods.base import Count, MethodConfig
from lora_repro.methods.lora.config import LoRAConfig
from lora_repro.methods.prefixes.config import Form, PrefixConfig, PrefixEmbedConfig, PrefixLayerConfig, Start
from lora_repro.models.arch import Arch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lora_repro.store.tensors import Saved


@dataclass
class LoRAPrefixEmbedConfig(LoRAConfig):
    """LoRA and trained embeddings of tokens (Appendix E)."""

    prefix_type: ClassVar[type[PrefixConfig]] = PrefixEmbedConfig
    folder: ClassVar[str] = MethodConfig.folder  # PEFT has no layout for both
    has_label_order_of_base: ClassVar[bool] = False
    why_not_merged: ClassVar[str | None] = PrefixConfig.why_not_merged

    l_p: int = MISSING
    l_i: int = MISSING
    prefix_init: Start = Start.words
    """What the vectors start as."""
    prefix_init_std: float = 0.02
    """Standard deviation of prefix_init=normal."""

    @property
    def prefix(self) -> PrefixConfig:
        """The tokens alone."""
        return self.prefix_type(
            self.name, l_p=self.l_p, l_i=self.l_i, init=self.prefix_init, init_std=self.prefix_init_std
        )

    @property
    def added_tokens(self) -> int:
        """l_p and l_i."""
        return self.prefix.added_tokens

    @property
    def needs_a_row_of_its_own(self) -> bool:
        """As of the tokens."""
        return self.prefix.needs_a_row_of_its_own

    @property
    def label(self) -> str:
        """For example `lora_prefix_embed-r8-qv-p8-i4`."""
        return f"{super().label}{self.prefix.label.removeprefix(self.name)}"

    def check(self, arch: Arch) -> None:
        """Refuses what either refuses."""
        super().check(arch)
        self.prefix.check_start("prefix_")
        self.prefix.check(arch)

    def count(self, arch: Arch) -> Count:
        """Counts both."""
        updates, tokens = super().count(arch), self.prefix.count(arch)
        total = updates.total + tokens.method
        return Count(updates.method + tokens.method, updates.head, total, {**updates.by_module, **tokens.by_module})

    def attach(self, model: "nn.Module", arch: Arch, seed: int) -> None:
        """Puts an update on every target, and the tokens around the input."""
        super().attach(model, arch, seed)
        self.prefix.attach(model, arch, seed)

    def file_names(self, model: "nn.Module", arch: Arch) -> dict[str, str]:
        """Returns what is trained, and a frozen A."""
        return {
            name: name
            for name, parameter in model.named_parameters()
            if parameter.requires_grad or name.endswith(".lora_A")
        }

    def write(self, tensors: "Mapping[str, Tensor]", arch: Arch, folder: Path, base: str | None) -> list[Path]:
        """Writes trained.safetensors."""
        return MethodConfig.write(self, tensors, arch, folder, base)

    def read(self, arch: Arch, folder: Path) -> "Saved":
        """Reads trained.safetensors."""
        return MethodConfig.read(self, arch, folder)


@dataclass
class LoRAPrefixLayerConfig(LoRAPrefixEmbedConfig):
    """LoRA and trained vectors of tokens in every layer (Appendix E)."""

    prefix_type: ClassVar[type[PrefixConfig]] = PrefixLayerConfig

    form: Form = Form.activations
    shift_positions: bool = True
    """Both as of prefix_layer."""

    @property
    def prefix(self) -> PrefixConfig:
        """The tokens alone."""
        given = {"form": self.form, "shift_positions": self.shift_positions}
        return replace(super().prefix, **given)  # pyright: ignore[reportArgumentType]

    @property
    def can_be_compiled(self) -> bool:
        """As of prefix_layer."""
        return self.prefix.can_be_compiled
