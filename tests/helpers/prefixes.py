"""Tiny models with a prefix, and the same models without one, computed example by example as tests write it out."""

from collections.abc import Iterator
from typing import Any

import torch
from helpers.architectures import ENCODERS, MODELS
from torch import Tensor, nn
from transformers import AutoConfig

from lora_repro.methods import MethodConfig
from lora_repro.models.arch import Arch, arch_of
from lora_repro.models.load import without_weights
from lora_repro.models.meta import class_for

LENGTHS = (7, 4, 1)
"""Tokens of the inputs of a batch."""


def pair(name: str, method: MethodConfig, attention: str = "eager", labels: int | None = 3) -> tuple[Any, Any, Arch]:
    """Returns a tiny model with a method, the untouched one of transformers with the same weights, and its shapes."""
    family, shape = MODELS[name]
    tokens = dict(pad_token_id=shape.get("pad_token_id", 1), bos_token_id=0, eos_token_id=2)
    config = AutoConfig.for_model(family, **{**shape, **tokens, "initializer_range": 0.4})
    keys = config.to_dict()
    arch = arch_of(keys, labels)
    torch.manual_seed(0)
    ours = without_weights(keys, arch, labels, 0.0, attention).eval()
    for parameter in ours.parameters():
        if parameter.dim() == 1:
            parameter.data += torch.randn_like(parameter) * 0.1
    theirs = class_for(config, labels).from_config(config, attn_implementation=attention).eval()
    theirs.load_state_dict(ours.state_dict())
    theirs.requires_grad_(False)
    method.attach(ours, arch, seed=0)
    return ours, theirs, arch


def with_strong_weights(name: str, method: MethodConfig) -> Any:
    """Returns a tiny language model with a method whose trained weights are large, so that each text differs."""
    model, _, _ = pair(name, method, labels=None)
    torch.manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    return model


def batch(side: str = "right", rows: int = 60) -> tuple[Tensor, Tensor]:
    """Returns inputs of `LENGTHS`, with padding of arbitrary tokens on a side, and their mask."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, rows, (len(LENGTHS), max(LENGTHS)), generator=generator)
    mask = torch.zeros_like(ids)
    for row, length in zip(mask, LENGTHS, strict=True):
        row[-length:] = side == "left"
        row[:length] |= side == "right"
    return ids, mask


def examples(ids: Tensor, mask: Tensor) -> Iterator[Tensor]:
    """Yields each input alone."""
    for row, shown in zip(ids, mask, strict=True):
        yield row[shown.bool()][None]


def blocks_of(theirs: Any, h: Tensor, rows: list[Tensor] | None, places: Tensor) -> Tensor:
    """Runs the blocks of an untouched base model by hand, without padding, and overwrites rows where they enter each.

    Args:
        theirs: The base model.
        h: What its embeddings return, of one example.
        rows: What is put in before each block; None: nothing.
        places: Where.
    """
    n, family = h.shape[1], theirs.config.model_type
    causal = torch.full((n, n), torch.finfo(h.dtype).min).triu(1)[None, None]
    positions = torch.arange(n)[None]

    def entering(index: int, h: Tensor) -> Tensor:
        if rows is None:
            return h
        h = h.clone()
        h[0, places] = rows[index]
        return h

    if family in ("bert", "roberta"):
        for i, block in enumerate(theirs.encoder.layer):
            h = block(entering(i, h))
            h = h if isinstance(h, Tensor) else h[0]
    elif family == "mpnet":
        bias = theirs.encoder.compute_position_bias(h)
        for i, block in enumerate(theirs.encoder.layer):
            h = block(entering(i, h), None, bias)[0]
    elif family == "deberta-v2":
        encoder, mask = theirs.encoder, torch.ones(1, n)
        relative = encoder.get_rel_pos(h)
        for i, block in enumerate(encoder.layer):
            h = before = entering(i, h)
            h = block(
                h, encoder.get_attention_mask(mask), relative_pos=relative, rel_embeddings=encoder.get_rel_embedding()
            )[0]
            if i == 0 and encoder.conv is not None:
                h = encoder.conv(before, h, mask)
    elif family == "gpt2":
        for i, block in enumerate(theirs.h):
            h = block(entering(i, h), None, causal)
            h = h if isinstance(h, Tensor) else h[0]
        h = theirs.ln_f(h)
    elif family == "opt":
        for i, block in enumerate(theirs.decoder.layers):
            h = block(entering(i, h), attention_mask=causal)
            h = h if isinstance(h, Tensor) else h[0]
        h = theirs.decoder.final_layer_norm(h) if theirs.decoder.final_layer_norm is not None else h
        h = theirs.decoder.project_out(h) if theirs.decoder.project_out is not None else h
    else:
        by_layer, kinds = family == "gemma3_text", getattr(theirs.config, "layer_types", [None] * len(theirs.layers))
        for i, (block, kind) in enumerate(zip(theirs.layers, kinds, strict=True)):
            rotary = theirs.rotary_emb(h, positions, *([kind] if by_layer else []))
            mask = causal
            if kind == "sliding_attention":
                mask = causal + torch.full((n, n), torch.finfo(h.dtype).min).tril(-theirs.config.sliding_window)
            h = block(entering(i, h), attention_mask=mask, position_embeddings=rotary)
            h = h if isinstance(h, Tensor) else h[0]
        h = theirs.final_layer_norm(h) if family == "gpt_neox" else theirs.norm(h)
    return h


def embedded(theirs: Any, ids: Tensor) -> Tensor:
    """Returns what enters the first block of an untouched base model, of one example without padding."""
    n, family = ids.shape[1], theirs.config.model_type
    positions = torch.arange(n)[None]
    if family in ENCODERS:
        first = {"roberta": theirs.config.pad_token_id + 1, "mpnet": 2}.get(family, 0)
        return theirs.embeddings(input_ids=ids, position_ids=positions + first)
    table = theirs.get_input_embeddings()(ids)
    if family == "gpt2":
        return table + theirs.wpe(positions)
    if family == "opt":
        table = theirs.decoder.project_in(table) if theirs.decoder.project_in is not None else table
        return table + nn.functional.embedding(positions + 2, theirs.decoder.embed_positions.weight)
    return table


def head_of(theirs: Any, states: Tensor, at: int) -> Tensor:
    """Applies the head of an untouched classifier to the state at a place."""
    state, family = states[:, at : at + 1], theirs.config.model_type
    if family == "bert":
        return theirs.classifier(theirs.bert.pooler(state))
    if family == "deberta-v2":
        return theirs.classifier(theirs.pooler(state))
    return theirs.classifier(state) if family in ENCODERS else theirs.score(state)[:, 0]
