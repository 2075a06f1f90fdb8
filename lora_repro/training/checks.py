"""What stops a run, or flags it: nothing may be trained but what the method says, and that must have moved."""

from collections.abc import Collection, Mapping
from copy import deepcopy

import torch
from torch import nn

from lora_repro.config.schema import Dtype
from lora_repro.methods import Count, MethodConfig
from lora_repro.models.arch import Arch
from lora_repro.models.shared import digest
from lora_repro.tasks.encoding import Encoded

COPIED_UP_TO = 10**9
"""Weights up to which a finished model is copied in fp32, to see what merging changes: 4 GB."""


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


def digests(model: nn.Module, without: Collection[str] = ()) -> dict[str, str]:
    """Returns the digest of every parameter and buffer but those left out, by name."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: digest(tensor) for name, tensor in tensors.items() if name not in without}


def refuse_changed_weights(model: nn.Module, before: Mapping[str, str]) -> None:
    """Holds everything that is not trained against the digests it had before training.

    Raises:
        RuntimeError: If something changed.
    """
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    now = digests(model, without=trained)
    frozen = (now.keys() | before.keys()) - trained
    if changed := [name for name in frozen if now.get(name) != before.get(name)]:
        raise RuntimeError(f"A frozen weight changed while training: {min(changed)} ({len(changed)} in all).")


def flags(model: nn.Module, method: MethodConfig, before: Mapping[str, str], epoch: int) -> dict[str, bool]:
    """Returns what a reader must know before trusting the numbers.

    Args:
        model: The model after training.
        method: What is attached.
        before: The model's digests before.
        epoch: The last epoch; 0 where nothing was trained.

    Returns:
        `untrained`: no step was taken, though the method trains something. `unmoved`: steps were taken, and a tensor
        that is trained is as it was. And the method's own.
    """
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    now = digests(model, without=before.keys() - trained)
    return {
        "untrained": epoch == 0 and method.is_trained,
        "unmoved": epoch > 0 and any(now[name] == before[name] for name in trained),
        **method.flags(model),
    }


@torch.inference_mode()
def merge_max_abs_error(
    model: nn.Module, method: MethodConfig, split: Encoded, device: torch.device, examples: int = 4
) -> float | None:
    """Returns the largest change of an output when the method is merged; None if it is not, or the model too large.

    Measured in fp32 on the first examples of a split: merging is exact but for rounding (paper, Section 4.1). That
    takes a copy of the model in fp32.
    """
    if method.why_not_merged is not None or sum(p.numel() for p in model.parameters()) > COPIED_UP_TO:
        return None
    in_fp32 = {id(p): nn.Parameter(p.data.to(torch.float32, copy=True), False) for p in model.parameters()}
    copy = deepcopy(model, in_fp32).float().eval()
    first = list(range(min(examples, len(split.examples))))
    unmerged = split.outputs(copy, first, Dtype.fp32, device)
    method.merge(copy)
    return (split.outputs(copy, first, Dtype.fp32, device) - unmerged).abs().max().item()
