"""The attention of models that ask an interface of transformers for it, with what a method adds in some layers."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lora_repro.models.arch import Arch

NAME = "lora_repro_prefix"
"""By which transformers knows the attention of this module."""


def ask_here(model: Any, arch: Arch) -> list[Any]:
    """Lets a model ask this module for its attention, and returns the modules that do, layer by layer.

    Each of them may get the attribute `before`, a function that returns the keys and values (2, kv_heads, tokens, d)
    before those of the input; `beside`, a function of the queries and the scale whose result is added to what
    attention returns; and `seen`, a list that takes up the keys and values of the input.
    """
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
    scaling: float | None = None,
    **given: Any,
) -> tuple[Float[Tensor, "batch queries heads d"], Tensor | None]:
    """Computes attention as the model did before, with what the module's attributes say."""
    if hasattr(module, "seen"):
        module.seen.append(torch.cat([key, value]).clone())
    if hasattr(module, "before"):
        pair = module.before()
        key, value = (
            torch.cat([before.to(own.dtype).expand(len(own), -1, -1, -1), own], 2)
            for before, own in zip(pair, (key, value), strict=True)
        )
        if attention_mask is not None:
            attention_mask = F.pad(attention_mask, (pair.shape[2], 0))
    inside = ALL_ATTENTION_FUNCTIONS[module.config.attention_inside]
    out, weights = inside(module, query, key, value, attention_mask, scaling=scaling, **given)
    if hasattr(module, "beside"):
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        out = out + module.beside(query, scale).transpose(1, 2).to(out.dtype)
    return out, weights


ALL_ATTENTION_FUNCTIONS.register(NAME, _attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["eager"])  # added to scores, by every kernel
