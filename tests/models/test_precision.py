from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import nn

from lora_repro.config.schema import Dtype
from lora_repro.models.precision import RoundedProducts, in_stream, products

CPU = torch.device("cpu")


def forward_and_backward(context: object) -> list[torch.Tensor]:
    torch.manual_seed(0)
    first, second = nn.Linear(64, 48), nn.Linear(48, 8)
    for parameter in first.parameters():
        parameter.data = parameter.data.bfloat16()
        parameter.requires_grad_(False)
    x = torch.randn(5, 7, 64, requires_grad=True)
    with context:  # pyright: ignore
        hidden = torch.nn.functional.gelu(first(x))
        scores = torch.matmul(hidden, hidden.transpose(-1, -2))
        out = second(torch.matmul(scores.softmax(-1), hidden))
    out.float().square().sum().backward()
    assert x.grad is not None and second.weight.grad is not None
    return [out, x.grad, second.weight.grad]


def test_rounded_products_are_those_of_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward, but for the order of the sums in fp32; without its rounding it is told apart."""
    autocast = forward_and_backward(torch.autocast("cpu", torch.bfloat16))

    def errors() -> list[float]:
        ours = forward_and_backward(RoundedProducts())
        assert [tensor.dtype for tensor in ours] == [tensor.dtype for tensor in autocast]
        return [((a.float() - b.float()).norm() / b.float().norm()).item() for a, b in zip(ours, autocast, strict=True)]

    assert max(errors()) < 1e-3
    monkeypatch.setattr(
        "lora_repro.models.precision._rounded",
        lambda value: value.float() if isinstance(value, torch.Tensor) else value,
    )
    assert min(errors()) > 2e-3


def test_rounding_is_really_done() -> None:
    x, w = torch.tensor([[1.0 + 2**-10]]), torch.ones(1, 1)
    with RoundedProducts():
        assert torch.nn.functional.linear(x, w).item() == 1.0
        assert torch.nn.functional.linear(x, w).dtype is torch.bfloat16


def test_fp32_leaves_products_alone() -> None:
    x = torch.tensor([[1.0 + 2**-10]])
    with products(Dtype.fp32, CPU):
        assert torch.nn.functional.linear(x, torch.ones(1, 1)).item() == x.item()


@pytest.mark.parametrize("fast", [True, False])
def test_bf16_is_autocast_where_the_hardware_has_it(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_repro.models.precision.has_fast_bf16", lambda device: fast)
    assert isinstance(products(Dtype.bf16, CPU), torch.autocast if fast else RoundedProducts)


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        pytest.param(nullcontext(), torch.float32, id="fp32"),
        pytest.param(torch.autocast("cpu", torch.bfloat16), torch.bfloat16, id="bf16"),
        pytest.param(torch.autocast("cpu", torch.float16), torch.float32, id="fp16"),
        pytest.param(RoundedProducts(), torch.bfloat16, id="rounded"),
    ],
)
def test_only_where_products_are_in_bf16_is_the_stream_rounded(
    context: AbstractContextManager[object], expected: torch.dtype
) -> None:
    x = torch.tensor([1.0 + 2**-10])
    with context:
        found = in_stream(x)
    assert found.dtype is expected and (found.item() == x.item()) == (expected is torch.float32)
