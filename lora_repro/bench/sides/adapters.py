"""What the other sides train: the same weights as ours, with PEFT's LoRA layers or with loralib's."""

from typing import Any

import loralib
import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from lora_repro.bench.window import Work
from lora_repro.config.schema import Run
from lora_repro.errors import InputError
from lora_repro.methods import LoRAConfig


def load(work: Work, dtype: torch.dtype = torch.float32, attention: str | None = None) -> Any:
    """Loads the model as a user of transformers does.

    Args:
        work: The work.
        dtype: Of all its weights.
        attention: "eager" or "sdpa"; None is transformers' choice.
    """
    auto: Any = AutoModelForSequenceClassification if work.resolved.run.task.head_width else AutoModelForCausalLM
    return auto.from_pretrained(work.weights, dtype=dtype, attn_implementation=attention)


def with_peft(model: Any, run: Run) -> Any:
    """Lets a model train what the run's method says: LoRA is PEFT's; returns the model."""
    method = run.method
    if not isinstance(method, LoRAConfig):
        return _without_lora(model, run)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS if run.task.head_width else TaskType.CAUSAL_LM,
        r=method.r,
        lora_alpha=method.alpha,  # pyright: ignore[reportArgumentType]  (a float serves)
        lora_dropout=method.dropout,
        target_modules=[site.module for site in method.sites(run.arch)],
        modules_to_save=list(run.arch.head_modules) or None,
    )
    return get_peft_model(model, config)


def with_loralib(model: Any, run: Run) -> Any:
    """Lets a model train what the run's method says: LoRA is loralib's; returns the model.

    Raises:
        InputError: If an adapted matrix is part of a fused layer.
    """
    method = run.method
    if not isinstance(method, LoRAConfig):
        return _without_lora(model, run)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(run.arch.is_head(name))
    for site in method.sites(run.arch):
        base = model.get_submodule(site.module)
        if type(base) is not nn.Linear:
            raise InputError(
                f"model={run.model.name}: {site.module} is no layer of its own, so the side authors cannot adapt it.\n"
                "Leave it out: --sides ours default best"
            )
        layer = loralib.Linear(
            base.in_features,
            base.out_features,
            r=method.r,
            lora_alpha=method.alpha,  # pyright: ignore[reportArgumentType]  (a float serves)
            lora_dropout=method.dropout,
            merge_weights=False,
            bias=base.bias is not None,
        )
        layer.weight, layer.bias = base.weight, base.bias
        parent, _, child = site.module.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)
    return model


def _without_lora(model: Any, run: Run) -> Any:
    if run.method.name not in ("full", "head_only"):
        raise InputError(f"method={run.method.name}: not measured beside PEFT. Give lora, full or head_only.")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(run.method.name == "full" or run.arch.is_head(name))
    return model
