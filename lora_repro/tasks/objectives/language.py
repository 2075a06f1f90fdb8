"""A language model's states and log-likelihoods after a prompt, for the objectives that it answers in words."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lora_repro.config.schema import Dtype
from lora_repro.models.input_lengths import input_lengths
from lora_repro.models.precision import products
from lora_repro.tasks.encoding import Encoded
from lora_repro.tasks.objectives.packing import mask_of, pack, unpacked

NO_TOKEN = -1
"""Pads rows of tokens that follow a prompt. No tokenizer has it, while a padding token may also end a text."""


LOGITS_AT_ONCE = 2**28
"""Numbers of logits that scoring holds at once, 1 GiB, and as many of log p: 1,766 tokens with Qwen's vocabulary."""


def rows_of(words: Sequence[list[int]], device: torch.device) -> Int[Tensor, "n longest"]:
    """Returns tokens as rows of equal length, padded with NO_TOKEN."""
    longest = max(map(len, words))
    return torch.tensor([[*word, *[NO_TOKEN] * (longest - len(word))] for word in words], device=device)


def log_likelihood(
    model: nn.Module,
    split: Encoded,
    indices: list[int],
    targets: Int[Tensor, "batch targets"],
    dtype: Dtype,
    device: torch.device,
) -> Float[Tensor, " batch"]:
    """Returns log p(targets | prompt) for each example, summed over the tokens of its row of targets.

    The vocabulary is multiplied out for as many rows at once as LOGITS_AT_ONCE allows.
    """
    output, hidden = OutputLayer(model), states(model, split, indices, targets, dtype, device)
    rows = max(1, LOGITS_AT_ONCE // (targets.shape[1] * output.vocabulary))
    chosen = [
        output.logits(part).log_softmax(-1).gather(2, words.clamp(min=0)[:, :, None])[:, :, 0]
        for part, words in zip(hidden.split(rows), targets.split(rows), strict=True)
    ]
    return torch.cat(chosen).masked_fill(targets < 0, 0.0).sum(1)


class OutputLayer:
    """The layer over a model's vocabulary in fp32: rounded to bf16 a logit of 20 would be off by a sixteenth.

    Args:
        model: A language model of transformers.
    """

    def __init__(self, model: nn.Module) -> None:
        layer: Any = model.lm_head
        self._weight = layer.weight.float()
        self._bias = layer.bias.float() if layer.bias is not None else None

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return len(self._weight)

    def logits(self, hidden: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch tokens"]:
        """Returns the logits of every token."""
        return F.linear(hidden.float(), self._weight, self._bias)


def log_probabilities(
    model: nn.Module, hidden: Float[Tensor, "batch targets d"]
) -> Float[Tensor, "batch targets tokens"]:
    """Returns log p of every token, in fp32."""
    return OutputLayer(model).logits(hidden).log_softmax(-1)


def states(
    model: nn.Module,
    split: Encoded,
    indices: list[int],
    targets: Int[Tensor, "batch targets"] | None,
    dtype: Dtype,
    device: torch.device,
    packed: bool = False,
) -> Float[Tensor, "batch targets d"]:
    """Returns the last hidden states from which the targets are read: only there the vocabulary is multiplied out.

    Args:
        model: A language model of transformers.
        split: The prompts.
        indices: Which of them.
        targets: Tokens that follow each prompt, padded with NO_TOKEN, of which all but the last are read too; None
            reads the prompt alone.
        dtype: Precision of the products.
        device: Where to compute.
        packed: Several texts stand in one row, none of which sees another.
    """
    inputs, _ = split.batch(indices, device)
    tokens, mask = inputs["input_ids"], inputs["attention_mask"]
    lengths = split.lengths[indices].to(device)
    width = 1 if targets is None else targets.shape[1]
    at = lengths[:, None] - 1 + torch.arange(width, device=device)
    if targets is not None and width > 1:
        missing = int(at.max()) + 1 - tokens.shape[1]
        tokens, mask = (F.pad(values, (0, max(missing, 0))) for values in (tokens, mask))
        tokens = tokens.scatter(1, at[:, 1:], targets[:, :-1].clamp(min=0))
        mask = mask.scatter(1, at[:, 1:], (targets[:, 1:] >= 0).to(mask.dtype))  # what something follows
    body: Any = model.base_model
    rows = pack(tokens, mask.sum(1)) if packed else None
    if rows is None:
        given = {"input_ids": tokens, "attention_mask": mask, **input_lengths(body, lengths)}
    else:
        seen = mask_of(model, rows.sees)
        given = {"input_ids": rows.tokens, "attention_mask": seen, "position_ids": rows.positions}
    with products(dtype, device):
        hidden = body(use_cache=False, **given).last_hidden_state
    if rows is not None:
        return unpacked(hidden, rows.starts, at)
    return hidden.gather(1, at[:, :, None].expand(-1, -1, hidden.shape[-1]))
