"""Adapters that PEFT and loralib write themselves, tiny, with the dense update of each matrix as they compute it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import loralib
import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

Dense = dict[str, np.ndarray]
"""dW of (d_out, d_in) by module."""

SIZES: dict[str, dict[str, Any]] = {
    "bert": dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64),
    "roberta": dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64),
    "gpt2": dict(n_embd=32, n_layer=2, n_head=4, n_positions=80),
    "gpt_neox": dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64),
    "mpt": dict(d_model=32, n_layers=2, n_heads=4, max_seq_len=64),
    "bloom": dict(hidden_size=32, n_layer=2, n_head=4),
    "modernbert": dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64),
    "llama": dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64),
}


def base(family: str) -> PreTrainedModel:
    """A tiny model of transformers with random weights."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family, vocab_size=64, bos_token_id=2, eos_token_id=3, pad_token_id=0, **SIZES[family]
    )
    auto: Any = (
        AutoModelForSequenceClassification if family in ("bert", "roberta", "modernbert") else AutoModelForCausalLM
    )
    return auto.from_config(config)


def trained(model: nn.Module) -> nn.Module:
    """Puts numbers into every factor B, which starts at zero, and into A of embeddings."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def peft_folder(folder: Path, model: nn.Module, bin_file: bool = False, **config: Any) -> Dense:
    """Has PEFT write a folder, and returns its updates."""
    theirs = trained(get_peft_model(model, LoraConfig(**config)))  # pyright: ignore[reportArgumentType]
    assert isinstance(theirs, PeftModel)
    theirs.save_pretrained(str(folder), safe_serialization=not bin_file)
    dense = {}
    for name, layer in theirs.get_base_model().named_modules():
        if isinstance(layer, LoraLayer):
            delta = added_by(layer)
            dense[name] = _matrix(delta.T if "embed" in name else delta)
    return dense


def added_by(layer: Any) -> torch.Tensor:
    """Returns what a layer of PEFT's adds to its weight; of a Conv1D transposed, so as W of (d_out, d_in)."""
    delta = layer.get_delta_weight("default").detach().double()
    return delta.T if getattr(layer, "fan_in_fan_out", False) else delta


def loralib_model(layers: Mapping[str, nn.Module]) -> nn.Module:
    """A module whose layers have these dotted names."""
    root = nn.Module()
    for name, layer in layers.items():
        parent = root
        *path, last = name.split(".")
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module(last, layer)
    torch.manual_seed(0)
    return trained(root)


def merged_difference(layer: nn.Module) -> np.ndarray:
    """Returns what loralib adds to a layer's weight when it merges, as (d_out, d_in)."""
    name = "conv.weight" if isinstance(layer, loralib.Conv2d) else "weight"
    before = layer.get_parameter(name).detach().double().clone()
    layer.double().train(False)
    change = layer.get_parameter(name).detach() - before
    layer.train(True)
    columns = bool(getattr(layer, "fan_in_fan_out", False)) or isinstance(layer, loralib.Embedding)
    return _matrix(change.T if columns else change)


def roberta_layers(**settings: Any) -> dict[str, nn.Module]:
    """The authors' RoBERTa names, query and value of two layers."""
    make: Callable[[], nn.Module] = lambda: loralib.Linear(32, 32, **settings)  # noqa: E731
    return {f"roberta.encoder.layer.{i}.attention.self.{name}": make() for i in range(2) for name in ("query", "value")}


def _matrix(weight: torch.Tensor) -> np.ndarray:
    return weight.detach().reshape(len(weight), -1).double().numpy()
