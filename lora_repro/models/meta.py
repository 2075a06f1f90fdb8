"""Reads the architecture of a model from transformers' class of it, built on the device "meta": no weight is stored."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers import logging as transformers_logging
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.pytorch_utils import Conv1D

from lora_repro.models.arch import Blueprint
from lora_repro.models.arch.base import OUTPUTS
from lora_repro.models.declared import read_config, reading

POSITIONS = "max_position_embeddings"


class Unreadable(ValueError):  # noqa: N818  (it becomes an InputError, with the list of matrices)
    """Something is unknown that a run must know about the model."""


def build(path: Path, keys: Mapping[str, Any], num_labels: int | None) -> Blueprint:
    """Builds a class of transformers and returns its blueprint.

    Args:
        path: The config.json, to be named.
        keys: Its keys.
        num_labels: Width of the head's output; None of a language model.

    Raises:
        Unreadable: If there is no such class, or what must be known of it is not.
        MissingInputError: If transformers cannot read the configuration.
    """
    if keys.get("model_type") not in CONFIG_MAPPING:
        raise Unreadable("unknown architecture, transformers has none of this name.")
    config = read_config(path, keys)
    auto = class_for(config, num_labels)
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with reading(str(path)), torch.device("meta"):
            model = auto.from_config(config)
    finally:
        transformers_logging.set_verbosity(verbosity)
    return blueprint_of(model, num_labels)


def class_for(config: PretrainedConfig, num_labels: int | None) -> Any:
    """Returns transformers' loader of a classifier or a language model, and sets what the configuration needs for it.

    Raises:
        Unreadable: If transformers has no such class of this architecture.
    """
    if config.is_encoder_decoder:
        raise Unreadable(
            "an encoder with a decoder: which of the two is adapted, and which position a head reads, is not known "
            "here. Give a model that is one of the two."
        )
    auto: Any = AutoModelForCausalLM if num_labels is None else AutoModelForSequenceClassification
    if num_labels is not None:
        config.num_labels = num_labels
    if type(config) not in auto._model_mapping:
        top, other = ("an output layer", "a task with a head")
        if num_labels is not None:
            top, other = ("a classification head", "a task that is answered in words")
        raise Unreadable(
            f"transformers has no class of this architecture with {top}. Choose {other}, or another model."
        )
    forget_pad_outside_vocabulary(config)
    return auto


def blueprint_of(model: PreTrainedModel, num_labels: int | None) -> Blueprint:
    """Returns the blueprint of a model of transformers.

    The head is every module outside the base model, and the pooler of the base model, as BERT has one.

    Raises:
        Unreadable: If the longest input, the head's output or the position that the head reads is not known.
    """
    config, prefix = model.config, f"{model.base_model_prefix}."
    parameters = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    head: dict[str, None] = {}
    if num_labels is not None:
        head = dict.fromkeys(name.partition(".")[0] for name in parameters if not name.startswith(prefix))
        if any(name.startswith(f"{prefix}pooler.") for name in parameters):
            head = {f"{prefix}pooler": None, **head}
        if not any(f"{output}.weight" in parameters for output in OUTPUTS):
            beside = ", ".join(name for name in parameters if not name.startswith(prefix)) or "nothing"
            raise Unreadable(
                f"the output of its head is none of {', '.join(OUTPUTS)} (outside the base model: {beside})."
            )
    elif not isinstance(getattr(model, "lm_head", None), nn.Linear):
        raise Unreadable("its output layer is not called lm_head.")
    d_model, heads = config.hidden_size, config.num_attention_heads
    return Blueprint(
        parameters,
        tuple(head),
        d_model,
        heads,
        heads * (getattr(config, "head_dim", None) or d_model // heads),
        longest_input(model),
        config.vocab_size,
        is_decoder=num_labels is None or isinstance(model, GenericForSequenceClassification) or [*head] == ["score"],
        transposed=tuple(name for name, module in model.named_modules() if isinstance(module, Conv1D)),
    )


def longest_input(model: PreTrainedModel) -> int:
    """Returns the longest input in tokens: RoBERTa and its kin count positions from behind the token for padding.

    Raises:
        Unreadable: If it is not in the configuration.
    """
    positions = getattr(model.config, POSITIONS, None)
    if not isinstance(positions, int) or positions < 1:
        raise Unreadable(f"its config.json does not say how long an input may be. Add the key {POSITIONS} to it.")
    tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    offset = next((t.padding_idx + 1 for t in tables if isinstance(t, nn.Embedding) and t.padding_idx is not None), 0)
    return positions - offset


def forget_pad_outside_vocabulary(config: PretrainedConfig) -> None:
    """Takes a pad token that has no row away, with which no embedding can be made; padding is known by the mask.

    RoBERTa counts positions from its pad token and keeps it.
    """
    pad = config.pad_token_id
    if config.model_type != "roberta" and pad is not None and not 0 <= pad < config.vocab_size:
        config.pad_token_id = None
