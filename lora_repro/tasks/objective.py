"""What a batch is asked and how the answer counts: through a classification head, or in a language model's words."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lora_repro.config.schema import Dtype
from lora_repro.tasks.encoding import Encoded
from lora_repro.training.precision import products


def loss(model: nn.Module, split: Encoded, indices: list[int], dtype: Dtype, where: torch.device) -> Float[Tensor, ""]:
    """Returns the mean over examples of -log p(label), or of -log p(label's words | prompt) over the vocabulary."""
    if split.words is None:
        inputs, labels = split.batch(indices, where)
        with products(dtype, where):
            logits = model(**inputs).logits
        return F.cross_entropy(logits.float(), labels)
    words = [split.words[label] for label in split.labels[indices].tolist()]
    return -_log_likelihood(model, split, indices, words, dtype, where).mean()


def label_logits(
    model: nn.Module, split: Encoded, indices: list[int], dtype: Dtype, where: torch.device
) -> Float[Tensor, "batch labels"]:
    """Returns what the head says of each label, or the log-likelihood of each label's words."""
    if split.words is None:
        inputs, _ = split.batch(indices, where)
        with products(dtype, where):
            return model(**inputs).logits
    if all(len(word) == 1 for word in split.words):  # one pass tells all
        hidden = _hidden(model, split, indices, None, dtype, where)
        spoken = _vocabulary(model, hidden)[:, 0]
        return spoken[:, [word[0] for word in split.words]]
    return torch.stack(
        [_log_likelihood(model, split, indices, [word] * len(indices), dtype, where) for word in split.words], dim=1
    )


def _log_likelihood(
    model: nn.Module,
    split: Encoded,
    indices: list[int],
    words: Sequence[list[int]],
    dtype: Dtype,
    where: torch.device,
) -> Float[Tensor, " batch"]:
    """Returns log p(word | prompt) of one word an example, summed over its tokens."""
    longest = max(map(len, words))
    targets = torch.tensor([[*word, *[-1] * (longest - len(word))] for word in words], device=where)
    spoken = _vocabulary(model, _hidden(model, split, indices, targets, dtype, where))
    chosen = spoken.gather(2, targets.clamp(min=0)[:, :, None])[:, :, 0]
    return chosen.masked_fill(targets < 0, 0.0).sum(1)


def _vocabulary(model: nn.Module, hidden: Float[Tensor, "batch targets d"]) -> Float[Tensor, "batch targets tokens"]:
    """Returns log p of every token, in fp32: rounded to bf16 a logit of 20 would be off by a sixteenth."""
    output: Any = model.lm_head
    return F.linear(hidden.float(), output.weight.float()).log_softmax(-1)


def _hidden(
    model: nn.Module, split: Encoded, indices: list[int], targets: Tensor | None, dtype: Dtype, where: torch.device
) -> Float[Tensor, "batch targets d"]:
    """Returns the last hidden states from which the targets are read: only there the vocabulary is multiplied out.

    Args:
        model: A language model of transformers.
        split: The prompts.
        indices: Which of them.
        targets: Tokens that follow each prompt, padded with -1, of which all but the last are read too; or None.
        dtype: Precision of the products.
        where: The device.
    """
    inputs, _ = split.batch(indices, where)
    tokens, mask = inputs["input_ids"], inputs["attention_mask"]
    lengths = split.lengths[indices].to(where)
    width = 1 if targets is None else targets.shape[1]
    at = lengths[:, None] - 1 + torch.arange(width, device=where)
    if targets is not None and width > 1:
        room = int(at.max()) + 1 - tokens.shape[1]
        tokens, mask = (F.pad(values, (0, max(room, 0))) for values in (tokens, mask))
        tokens = tokens.scatter(1, at[:, 1:], targets[:, :-1].clamp(min=0))
        mask = mask.scatter(1, at[:, 1:], (targets[:, :-1] >= 0).to(mask.dtype))
    body: Any = model.base_model
    with products(dtype, where):
        states = body(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
    return states.gather(1, at[:, :, None].expand(-1, -1, states.shape[-1]))
