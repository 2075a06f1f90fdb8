"""Which position the head reads: the first one of an encoder, the last one that the mask shows of a decoder."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutputWithPast

from lora_repro.models.fused import bert_attention, mpnet_attention

ONE_POSITION = ("bert", "roberta", "mpnet")
"""Encoders whose last layer computes one position alone, as `read_first_position` lets it."""


def read_last_token(model: PreTrainedModel) -> None:
    """Lets the score of a decoder with a classification head be read at the last token of the attention mask.

    transformers looks for the rightmost token that is not `config.pad_token_id`. Where that is null, or not the token
    that the tokenizer pads with, it reads padding; where a text ends in that token, it reads a position before. So an
    example's score would depend on its neighbours in the batch. The body's states and the score's products are the
    same as there, to the bit.
    """
    model.forward = partial(_score_of_last_token, model)


def _score_of_last_token(
    model: Any, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Tensor
) -> SequenceClassifierOutputWithPast:
    states = model.base_model(input_ids, attention_mask=attention_mask, **kwargs).last_hidden_state
    scores = model.score(states)
    shown = attention_mask if attention_mask is not None else torch.ones_like(input_ids)
    positions = torch.arange(shown.shape[1], device=shown.device)
    last = (positions * (shown != 0)).argmax(1)
    return SequenceClassifierOutputWithPast(logits=scores[torch.arange(len(scores), device=scores.device), last])


def read_first_position(model: PreTrainedModel) -> None:
    """Lets the last layer compute only what the head reads: the first position. Exact, and a sixth faster on 6 layers.

    Keys and values still see every position; the query, the output and the feed-forward block run on one.
    """
    encoder: Any = model.base_model.encoder
    last = encoder.layer[-1].attention
    is_mpnet = model.config.model_type == "mpnet"
    last.forward = partial(_first_position_of_mpnet if is_mpnet else _first_position_attention, last)


@contextmanager
def reading_at(body: nn.Module, places: Int[Tensor, " batch"]) -> Iterator[None]:
    """Lets the last layer compute another position than the first of each row, where tokens stand before the input.

    Args:
        body: The base model of one of `ONE_POSITION`.
        places: The position of each row.
    """
    encoder: Any = body.encoder
    attention = encoder.layer[-1].attention
    attention.read_at = places
    try:
        yield
    finally:
        del attention.read_at


@contextmanager
def reading_every_position(model: nn.Module) -> Iterator[None]:
    """Lets the last layer compute every position, as transformers does, for what looks at its inputs."""
    short = [module for module in model.modules() if _is_short(module)]
    forwards = [vars(module).pop("forward") for module in short]
    try:
        yield
    finally:
        for module, forward in zip(short, forwards, strict=True):
            module.forward = forward


def _is_short(module: nn.Module) -> bool:
    forward = vars(module).get("forward")
    return isinstance(forward, partial) and forward.func in (_first_position_attention, _first_position_of_mpnet)


def _read(attention: Any, rows: Tensor) -> Tensor:
    """Returns of each row the position that the head reads."""
    places = getattr(attention, "read_at", None)
    if places is None:
        return rows[:, :1]
    return rows.gather(1, places[:, None, None].expand(-1, 1, rows.shape[-1]))


def _first_position_attention(
    attention: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: object
) -> tuple[Tensor, None]:
    """BertAttention.forward and RobertaAttention.forward for a query of one position only."""
    first = _read(attention, hidden_states)
    context, _ = bert_attention(attention.self, hidden_states, attention_mask, queries=first)
    return attention.output(context, first), None


def _first_position_of_mpnet(
    attention: Any,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: object,
) -> tuple[Tensor]:
    """MPNetAttention.forward for a query of one position only."""
    first = _read(attention, hidden_states)
    if position_bias is not None and (places := getattr(attention, "read_at", None)) is not None:
        position_bias = position_bias[torch.arange(len(places), device=places.device), :, places].unsqueeze(2)
    (context,) = mpnet_attention(attention.attn, hidden_states, attention_mask, position_bias, queries=first)
    return (attention.LayerNorm(attention.dropout(context) + first),)
