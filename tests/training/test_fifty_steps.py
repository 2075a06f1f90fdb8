"""Fifty steps in bf16 lead where fifty steps in fp32 lead."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from lora_repro.config.resolve import resolve
from lora_repro.tasks.encoding import encode
from lora_repro.training.train import build

CPU = torch.device("cpu")
STEPS = 50


def trained(cfg: DictConfig) -> tuple[list[float], Tensor]:
    """Returns the loss of each step and the change of all trained weights."""
    resolved = resolve(cfg)
    run = resolved.run
    model, split = build(resolved, CPU).train(), encode(run, resolved.settings)["train"]
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.AdamW(weights, lr=2e-3)
    losses = []
    for step in range(STEPS):
        rows = [(16 * step + index) % 64 for index in range(16)]
        loss = split.loss(model, rows, run.train.dtype, CPU)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses, torch.cat([(new - old).detach().flatten() for new, old in zip(weights, before, strict=True)])


QUICK = {("lora", "tiny_bert", True), ("full", "tiny_llama", False)}
"""Each method that trains layers, each model, and each way to multiply, once."""


@pytest.mark.parametrize(
    ("method", "model", "fast"),
    [
        pytest.param(*case, marks=[] if case in QUICK else pytest.mark.long)
        for case in product(("lora", "full", "head_only"), ("tiny_bert", "tiny_llama"), (True, False))
    ],
)
def test_bf16_trains_as_fp32_does(
    method: str, model: str, fast: bool, tiny: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean loss of the last ten steps within 1 % of the first loss, the change's direction within cosine 0.98."""
    monkeypatch.setattr("lora_repro.models.precision.has_fast_bf16", lambda device: fast)
    given = (f"model={model}", f"preset@train={model}", f"method={method}")
    (ours, change), (exact, true) = (trained(tiny(*given, f"train.dtype={dtype}")) for dtype in ("bf16", "fp32"))
    assert sum(exact[-10:]) < 0.999 * sum(exact[:10])  # it learns
    assert abs(sum(ours[-10:]) - sum(exact[-10:])) / 10 < 0.01 * exact[0]
    assert torch.cosine_similarity(change, true, dim=0) > 0.98
    assert (change.norm() / true.norm()).item() == pytest.approx(1, abs=0.02)
