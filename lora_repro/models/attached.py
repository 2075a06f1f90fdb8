"""A model with its method, as training has it and as its memory is estimated."""

from collections.abc import Callable

from torch import nn

from lora_repro.methods import MethodConfig
from lora_repro.models.arch import Arch
from lora_repro.models.precision import store_in_bf16


def attach(
    model: nn.Module,
    method: MethodConfig,
    arch: Arch,
    seed: int,
    in_bf16: bool,
    fill: Callable[[nn.Module], None] | None = None,
) -> None:
    """Attaches a method in place, and then stores frozen weights in bf16 if that is asked for.

    Args:
        model: The model, everything frozen but its head.
        method: The method.
        arch: The model's shapes.
        seed: What the method draws its weights from.
        in_bf16: Store frozen weights in bf16.
        fill: Loads other weights in between, while all of them are in fp32.
    """
    method.attach(model, arch, seed)
    if fill is not None:
        fill(model)
    if in_bf16:
        store_in_bf16(model, method, arch.has_bare_embeddings)
