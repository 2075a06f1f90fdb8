"""Trained keys and values of tokens before the input, in the attention of every layer (Li and Liang 2021).

Every token of the input sees them, as if they were in a key-value cache: rotary positions are not applied to them.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lora_repro.models.arch import Arch

NAME = "lora_repro_key_value"
"""By which transformers knows the attention of this module."""


def attach(model: nn.Module, arch: Arch, pairs: list[Float[Tensor, "2 kv_heads tokens d"]]) -> None:
    """Lets every layer attend to keys and values of its own, in place.

    Args:
        model: The model.
        arch: Its shapes.
        pairs: The keys and values of each layer; they can be trained.
    """
    for module, pair in zip(_ask_here(model, arch), pairs, strict=True):
        module.before = [pair]  # in a list, as a parameter has its name elsewhere


@torch.no_grad()
def pairs_of(
    model: nn.Module, body: nn.Module, arch: Arch, tokens: Int[Tensor, " tokens"]
) -> list[Float[Tensor, "2 kv_heads tokens d"]]:
    """Returns the keys and values that each layer computes where the input is a text of these tokens."""
    attention, found = _ask_here(model, arch), []
    for module in attention:
        module.seen = found
    was_training = body.training
    try:
        body.eval()(input_ids=tokens[None], attention_mask=torch.ones_like(tokens)[None])
    finally:
        body.train(was_training)
        for module in attention:
            del module.seen
    return found


def _ask_here(model: Any, arch: Arch) -> list[Any]:
    """Lets a model ask this module for its attention, and returns the modules that do, layer by layer."""
    if model.config._attn_implementation != NAME:
        model.config.attention_inside = model.config._attn_implementation
        model.config._attn_implementation = NAME
    return [model.get_submodule(site.module.rpartition(".")[0]) for site in arch.select(["q"])]


def _attention(
    module: Any,
    query: Float[Tensor, "batch heads queries d"],
    key: Float[Tensor, "batch kv_heads keys d"],
    value: Float[Tensor, "batch kv_heads keys d"],
    attention_mask: Tensor | None,
    **given: Any,
) -> Any:
    """Computes attention as the model did before, with more keys and values."""
    if hasattr(module, "seen"):
        module.seen.append(torch.cat([key, value]).clone())
    if hasattr(module, "before"):
        (pair,) = module.before
        key, value = (
            torch.cat([before.to(own.dtype).expand(len(own), -1, -1, -1), own], 2)
            for before, own in zip(pair, (key, value), strict=True)
        )
        if attention_mask is not None:
            attention_mask = F.pad(attention_mask, (pair.shape[2], 0))
    inside = ALL_ATTENTION_FUNCTIONS[module.config.attention_inside]
    return inside(module, query, key, value, attention_mask, **given)


ALL_ATTENTION_FUNCTIONS.register(NAME, _attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["eager"])  # added to scores, by every kernel
