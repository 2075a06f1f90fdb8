"""AdaLoRA in a training loop that is not PEFT's: its term of the loss, its allocator, and what a checkpoint keeps.

Source: peft/tuners/adalora/model.py, PEFT 0.21.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lora_repro.methods.peft.tuner import NAME, owner_of

AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""The allocator's tables of tensors by parameter."""
KEPT = "rank_pattern"
"""Which directions are left, by parameter."""


def penalty(model: nn.Module) -> Float[Tensor, ""]:
    """Returns orth_reg_weight times the mean of ||P P^T - I||_F over the factors P: AdaLoraModel.forward's term."""
    terms = []
    for name, factor in model.named_parameters():
        kind, _, adapter = name.rpartition(".")
        if adapter == NAME and kind.endswith(("_A", "_B")):
            rows = factor if kind.endswith("_A") else factor.T
            terms.append(torch.linalg.matrix_norm(rows @ rows.T - torch.eye(len(rows), device=rows.device)))
    return _config(model).orth_reg_weight * torch.stack(terms).mean()


def allocate(model: nn.Module, step: int, total: int) -> None:
    """Lets the allocator weigh the gradients of a step and zero the directions that are too many.

    PEFT leaves open whether steps count from 0 or 1. Here from 1: with tfinal=0 only then is the last step the one at
    which the allocator cuts to target_r.

    Args:
        model: The model, after the optimizer's step and before its gradients are cleared.
        step: How many steps were taken.
        total: How many there are.
    """
    tuner = owner_of(model).base_model
    tuner.rankallocator.set_total_step(total)
    tuner.update_and_allocate(step)


def state(model: nn.Module) -> dict[str, Tensor]:
    """Returns the allocator's tables and the directions that are left, as tensors by name."""
    allocator = _allocator(model)
    found = {f"{table}/{name}": tensor for table in AVERAGES for name, tensor in getattr(allocator, table).items()}
    pattern = _config(model).rank_pattern or {}
    return found | {f"{KEPT}/{name}": torch.tensor(kept) for name, kept in pattern.items()}


def restore(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts back what `state` returned."""
    allocator, device = _allocator(model), next(model.parameters()).device
    tables: dict[str, dict[str, Any]] = {table: {} for table in (*AVERAGES, KEPT)}
    for key, tensor in tensors.items():
        table, _, name = key.partition("/")
        tables[table][name] = tensor.tolist() if table == KEPT else tensor.to(device)
    for table in AVERAGES:
        setattr(allocator, table, tables[table])
    _config(model).rank_pattern = tables[KEPT] or None


def _allocator(model: nn.Module) -> Any:
    return owner_of(model).base_model.rankallocator


def _config(model: nn.Module) -> Any:
    return owner_of(model).peft_config[NAME]
