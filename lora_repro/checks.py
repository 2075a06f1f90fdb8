"""What stops a run, or flags it: nothing may be trained but what the method says, and that must have moved."""

import hashlib
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from lora_repro.arch import Arch
from lora_repro.encoding import Encoded
from lora_repro.methods import Count
from lora_repro.methods.lora_layers import LoRALinear, LoRAUpdate, merge


def refuse_wrong_counts(model: nn.Module, arch: Arch, count: Count) -> None:
    """Holds the model's weights against the count from shapes.

    Raises:
        RuntimeError: If a kind of weights differs in number.
    """
    head = sum(p.numel() for name, p in model.named_parameters() if p.requires_grad and arch.is_head(name))
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    found = {"method": trainable - head, "head": head, "total": sum(p.numel() for p in model.parameters())}
    expected = {kind: getattr(count, kind) for kind in found}
    if found != expected:
        raise RuntimeError(f"The model does not train what the method counts: found {found}, expected {expected}.")


def frozen_digest(model: nn.Module) -> str:
    """Returns the sha256 over the bytes of all frozen weights."""
    digest = hashlib.sha256()
    for parameter in model.parameters():
        if not parameter.requires_grad:
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def refuse_changed_weights(model: nn.Module, digest: str) -> None:
    """Holds the frozen weights against the digest they had before training.

    Raises:
        RuntimeError: If one of them changed.
    """
    if frozen_digest(model) != digest:
        raise RuntimeError("A frozen weight changed while training: this is not the method that was asked for.")


def flags(model: nn.Module, predictions: list[dict[str, Any]], epoch: int) -> dict[str, bool]:
    """Returns what a reader must know before trusting the numbers.

    Returns:
        `untrained`: no step was taken. `one_class`: dev or test predictions of the last epoch name a single class.
        `b_zero`: an update's B is all zero, so it does nothing.
    """
    named: dict[str, set[int]] = {}
    for row in predictions:
        if row["epoch"] == epoch:
            named.setdefault(row["split"], set()).add(row["prediction"])
    updates = [module for module in model.modules() if isinstance(module, LoRAUpdate)]
    return {
        "untrained": epoch == 0,
        "one_class": any(len(classes) == 1 for classes in named.values()),
        "b_zero": any(not bool(update.lora_B.any()) for update in updates),
    }


@torch.inference_mode()
def merge_max_abs_error(model: nn.Module, split: Encoded, where: torch.device, examples: int = 32) -> float | None:
    """Returns the largest change of a logit when the updates are folded into the weights; None without updates.

    Measured in fp32 on the first examples of a split: merging is exact but for rounding (paper, Section 4.1).
    """
    if not any(isinstance(module, LoRALinear) for module in model.modules()):
        return None
    copy = deepcopy(model).float().eval()
    inputs, _ = split.batch(list(range(min(examples, len(split.examples)))), where)
    unmerged = copy(**inputs).logits
    merge(copy)
    return (copy(**inputs).logits - unmerged).abs().max().item()
