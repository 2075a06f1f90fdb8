"""Keys and values of tokens before the input, in each attention: trained (Li and Liang 2021), or computed of states.

Every token of the input sees them, as if they were in a key-value cache: rotary positions are not applied to them.
"""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lora_repro.methods.prefixes.attention import ask_here
from lora_repro.models.arch import Arch
from lora_repro.models.fused import joined


def attach(model: nn.Module, arch: Arch, pairs: list[Float[Tensor, "2 kv_heads tokens d"]]) -> None:
    """Lets every layer attend to keys and values of its own, in place.

    Args:
        model: The model.
        arch: Its shapes.
        pairs: The keys and values of each layer; they can be trained.
    """
    for module, pair in zip(ask_here(model, arch), pairs, strict=True):
        module.before = partial(_unchanged, pair)  # in a function, as a parameter has its name elsewhere


def attach_states(model: nn.Module, arch: Arch, states: list[Float[Tensor, "tokens d_in"]]) -> None:
    """Lets every layer of a BERT or RoBERTa attend to tokens whose states entered it, in place.

    The blocks compute nothing else of these tokens: what would leave a block in their places is replaced where it
    enters the next, and the last one's is not read. Their keys and values are the same for all examples of a batch.
    An update of W_k or W_v applies to them, its dropout once for all examples.

    Args:
        model: The model.
        arch: Its shapes. There must be no norm before the attention, and no positions within it.
        states: What enters each layer in the places of the tokens; they can be trained.
    """
    for module, own in zip(ask_here(model, arch), states, strict=True):
        module.before = partial(_keys_and_values, module, own)


def _unchanged(pair: Tensor) -> Tensor:
    return pair


def _keys_and_values(module: Any, states: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "2 heads tokens d"]:
    both = joined(states, (module.key, module.value))
    return torch.stack([rows.unflatten(-1, (-1, module.attention_head_size)).transpose(0, 1) for rows in both])


@torch.no_grad()
def pairs_of(
    model: nn.Module, body: nn.Module, arch: Arch, tokens: Int[Tensor, " tokens"]
) -> list[Float[Tensor, "2 kv_heads tokens d"]]:
    """Returns the keys and values that each layer computes where the input is a text of these tokens."""
    attention, found = ask_here(model, arch), []
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
