"""Trained keys and values of tokens before the input, in the attention of every layer (Li and Liang 2021).

Every token of the input sees them, as if they were in a key-value cache: rotary positions are not applied to them.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lora_repro.methods.prefixes.attention import ask_here
from lora_repro.models.arch import Arch


def attach(model: nn.Module, arch: Arch, pairs: list[Float[Tensor, "2 kv_heads tokens d"]]) -> None:
    """Lets every layer attend to keys and values of its own, in place.

    Args:
        model: The model.
        arch: Its shapes.
        pairs: The keys and values of each layer; they can be trained.
    """
    for module, pair in zip(ask_here(model, arch), pairs, strict=True):
        module.before = [pair]  # in a list, as a parameter has its name elsewhere


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
