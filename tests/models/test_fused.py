"""Attention, norms and gates as one step of autograd each, against the same sums in float64.

Operands and results are rounded to bf16 (by 2^-9 of their value at most), sums are in fp32. Between operands and result
lie scores and probabilities, rounded too: an error of 1 % of the norm, forward and backward, is what that explains.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig
from transformers.activations import NewGELUActivation
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm, LlamaRotaryEmbedding, apply_rotary_pos_emb

from lora_repro.models import fused
from lora_repro.models.fused import attention
from lora_repro.models.precision import LayerNormInBf16

EXPLAINED = 0.01
HEADS, WIDTH, KEYS = 4, 16, 9
LOWEST = torch.finfo(torch.bfloat16).min


def close(ours: Tensor | None, true: Tensor | None, tolerance: float = EXPLAINED) -> bool:
    assert ours is not None and true is not None and ours.shape == true.shape
    return bool(ours.isfinite().all()) and bool((ours.double() - true).norm() <= tolerance * true.norm())


def in_bf16(*shape: int) -> Tensor:
    """Numbers that bf16 holds exactly: what is measured is what is computed with them."""
    return torch.randn(shape).bfloat16()


def dense(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    k, v = (tensor.repeat_interleave(q.shape[1] // k.shape[1], 1) for tensor in (k, v))
    scores = q @ k.transpose(2, 3) * scaling
    return ((scores if mask is None else scores + mask).softmax(-1) @ v).transpose(1, 2)


def padding(*shown: tuple[int, int]) -> Tensor:
    """A mask of rows whose keys are shown from and up to a position."""
    mask = torch.full((len(shown), 1, 1, KEYS), LOWEST)
    for row, (begin, end) in enumerate(shown):
        mask[row, ..., begin:end] = 0
    return mask


CAUSAL = torch.full((KEYS, KEYS), LOWEST).triu(1).expand(2, 1, KEYS, KEYS)
MASKS: dict[str, Tensor | None] = {
    "none": None,
    "causal": CAUSAL,
    "padded right": padding((0, 5), (0, KEYS)),
    "padded left": padding((4, KEYS), (0, KEYS)),
    "causal, padded right": torch.minimum(CAUSAL, padding((0, 5), (0, KEYS))),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("queries", [KEYS, 1])
def test_attention_and_its_gradients_are_those_of_float64(queries: int, kv_heads: int, mask: str) -> None:
    torch.manual_seed(0)
    q = in_bf16(2, HEADS, queries, WIDTH)
    k, v = (in_bf16(2, kv_heads, KEYS, WIDTH) for _ in range(2))
    added = MASKS[mask]
    added = None if added is None else added[:, :, -queries:]
    g = in_bf16(2, queries, HEADS, WIDTH)
    compare(q, k, v, added, g)


def compare(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, g: Tensor, scaling: float = WIDTH**-0.5) -> None:
    ours = [tensor.detach().requires_grad_() for tensor in (q, k, v)]
    true = [tensor.detach().double().requires_grad_() for tensor in (q, k, v)]
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = attention(nn.Module(), ours[0], ours[1], ours[2], mask, scaling)
    expected = dense(true[0], true[1], true[2], None if mask is None else mask.double(), scaling)
    assert out.dtype is torch.bfloat16 and close(out, expected)
    found = torch.autograd.grad(out, ours, g)
    for a, b in zip(found, torch.autograd.grad(expected, true, g.double()), strict=True):
        assert close(a, b)


def test_attention_of_views_of_one_product_as_in_gpt2() -> None:
    torch.manual_seed(0)
    q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in in_bf16(2, KEYS, 192).split(64, 2))
    assert not q.is_contiguous()
    compare(q, k, v, CAUSAL, in_bf16(2, HEADS, KEYS, WIDTH).transpose(1, 2))


def test_attention_of_expanded_gradients_and_another_scaling() -> None:
    torch.manual_seed(0)
    q, k, v = (in_bf16(2, HEADS, KEYS, WIDTH) for _ in range(3))
    compare(q, k, v, None, torch.ones((), dtype=torch.bfloat16).expand(2, KEYS, HEADS, WIDTH), scaling=1.0)


@pytest.mark.parametrize(
    ("kind", "lowest"),
    [
        (torch.bfloat16, LOWEST),
        (torch.float32, torch.finfo(torch.float32).min),
        (torch.float32, -torch.inf),
    ],
)
def test_a_row_whose_keys_are_all_masked_is_finite(kind: torch.dtype, lowest: float) -> None:
    """The lowest number of fp32 is -inf in bf16, and a row of it NaN, which the next layer spreads to every row."""
    torch.manual_seed(0)
    q, k, v = (in_bf16(2, HEADS, KEYS, WIDTH).requires_grad_() for _ in range(3))
    mask = torch.zeros(2, 1, KEYS, KEYS, dtype=kind)
    mask[0, :, :3], mask[1, :, :, 5:] = lowest, lowest
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = attention(nn.Module(), q, k, v, mask)
    gradients = torch.autograd.grad(out.float().square().sum(), (q, k, v))
    assert all(tensor.isfinite().all() for tensor in (out, *gradients))
    assert not gradients[1][1, :, 5:].any() and not gradients[2][1, :, 5:].any()  # what is masked moves nothing


def test_a_trained_bias_of_positions_gets_its_gradient() -> None:
    """MPNet's: one table for all rows of a batch, and for all layers."""
    torch.manual_seed(0)
    q, k, v = (in_bf16(3, HEADS, KEYS, WIDTH) for _ in range(3))
    bias = in_bf16(1, HEADS, KEYS, KEYS).float()
    mask, g = padding((0, 5), (0, KEYS), (0, 7)), in_bf16(3, KEYS, HEADS, WIDTH)
    ours, true = bias.clone().requires_grad_(), bias.double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = attention(nn.Module(), q, k, v, ours + mask)
    expected = dense(q.double(), k.double(), v.double(), true + mask.double(), WIDTH**-0.5)
    out.backward(g)
    expected.backward(g.double())
    assert close(out, expected) and ours.grad is not None and ours.grad.dtype is torch.float32
    assert close(ours.grad, true.grad)


@pytest.mark.parametrize("start", [0, 1000])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_rotation_is_that_of_transformers_in_float64(kv_heads: int, start: int) -> None:
    """At positions of every size: angles are computed in fp32, and only their sines and cosines are rounded."""
    torch.manual_seed(0)
    q = in_bf16(2, HEADS, KEYS, WIDTH)
    k, v = (in_bf16(2, kv_heads, KEYS, WIDTH) for _ in range(2))
    g, positions = in_bf16(2, KEYS, HEADS, WIDTH), torch.arange(start, start + KEYS)[None]
    rotary = LlamaRotaryEmbedding(LlamaConfig(hidden_size=HEADS * WIDTH, num_attention_heads=HEADS))
    with torch.autocast("cpu", torch.bfloat16):
        cos, sin = rotary(q, positions)
    angles = positions[..., None].double() * rotary.inv_freq.double()
    assert close(cos, torch.cat((angles, angles), -1).cos(), 0.003)  # rounding alone
    ours = [tensor.detach().requires_grad_() for tensor in (q, k, v)]
    true = [tensor.detach().double().requires_grad_() for tensor in (q, k, v)]
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = attention(
            nn.Module(), ours[0], ours[1], ours[2], CAUSAL, rotation=(cos.unsqueeze(1), sin.unsqueeze(1))
        )
    rotated = apply_rotary_pos_emb(true[0], true[1], cos.double(), sin.double())
    expected = dense(rotated[0], rotated[1], true[2], CAUSAL.double(), WIDTH**-0.5)
    assert close(out, expected)
    for a, b in zip(torch.autograd.grad(out, ours, g), torch.autograd.grad(expected, true, g.double()), strict=True):
        assert close(a, b)


@pytest.mark.parametrize("in_bf16_products", [True, False])
def test_dropout_leaves_out_the_same_probabilities_in_both_directions(in_bf16_products: bool) -> None:
    """With equal scores and the unit matrix as values the result shows the mask: 0 or 1 / (keys (1 - p))."""
    torch.manual_seed(0)
    q, k = torch.zeros(4, HEADS, 16, 16), torch.zeros(4, HEADS, 16, 16)
    v = torch.eye(16).expand(4, HEADS, 16, 16).clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16_products):
        out, _ = attention(nn.Module(), q, k, v, None, dropout=0.5)
    kept = out.detach().float().transpose(1, 2)
    assert kept.unique().tolist() == [0, 1 / 8]
    assert kept.mean().item() == pytest.approx(1 / 16, rel=0.1)
    assert len(kept.flatten(0, 2).unique(dim=0)) > 200  # another mask for each head and query
    (dv,) = torch.autograd.grad(out.sum(), v)
    assert torch.equal(dv, kept.sum(2, keepdim=True).transpose(2, 3).expand_as(dv))


def test_what_dropout_keeps_is_scaled_by_1_over_1_minus_p_without_rounding() -> None:
    """In bf16 1 / 0.9 is 0.16 % too small: so would every result and gradient be, on average and without a word."""
    torch.manual_seed(0)
    q = k = torch.zeros(256, HEADS, 64, 8)
    v = torch.ones(256, HEADS, 64, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = attention(nn.Module(), q, k, v, None, dropout=0.1)
    (dv,) = torch.autograd.grad(out, v, torch.ones_like(out))
    assert out[..., 0].float().mean().item() == pytest.approx(1, abs=6e-4)  # its own standard error: 2e-4
    assert dv[..., 0].float().mean().item() == pytest.approx(1, abs=6e-4)


def test_dropouts_gradient_of_queries_and_keys_is_that_of_its_mask() -> None:
    torch.manual_seed(0)
    q, k = (in_bf16(2, HEADS, 16, 16).requires_grad_() for _ in range(2))
    v, g = torch.eye(16).bfloat16().expand(2, HEADS, 16, 16), in_bf16(2, 16, HEADS, 16)
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = attention(nn.Module(), q, k, v, None, dropout=0.25)
    exact = [tensor.detach().double().requires_grad_() for tensor in (q, k)]
    p = (exact[0] @ exact[1].transpose(2, 3) / 4).softmax(-1)
    p = p * (out.detach().transpose(1, 2) != 0) / 0.75
    expected = (p @ v.double()).transpose(1, 2)
    assert 0.2 < (out == 0).float().mean() < 0.3 and close(out, expected)
    ours = torch.autograd.grad(out, (q, k), g)
    assert all(map(close, ours, torch.autograd.grad(expected, exact, g.double())))


def run(
    ours: Callable[[Tensor], Tensor], true: Callable[[Tensor], Tensor], x: Tensor, modules: list[nn.Module]
) -> None:
    """Compares result, gradient of x and gradients of what is trained; neither x nor the gradient is written to."""
    inner, exact = x.clone().requires_grad_(), x.double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = ours(inner)
    expected = true(exact)
    g = torch.randn(expected.shape).bfloat16().to(out.dtype)
    before = g.clone()
    out.backward(g)
    expected.backward(g.double())
    assert torch.equal(inner, x) and torch.equal(g, before)
    assert close(out, expected) and close(inner.grad, exact.grad)
    for parameter, other in zip(*(module.parameters() for module in modules), strict=True):
        assert (parameter.grad is None) == (not parameter.requires_grad)
        if parameter.requires_grad:
            assert close(parameter.grad, other.grad)


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("weight", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_rms_norm_is_that_of_float64_and_writes_to_nothing_it_is_given(
    kind: torch.dtype, weight: torch.dtype, trained: bool
) -> None:
    torch.manual_seed(0)
    norm = LlamaRMSNorm(WIDTH)
    norm.weight.data = torch.randn(WIDTH).bfloat16().to(weight)
    norm.requires_grad_(trained)
    exact = deepcopy(norm).double().requires_grad_()
    run(
        lambda x: fused._rms_norm(norm, x),
        lambda x: x * (x.square().mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt() * exact.weight,
        (20 * torch.randn(3, 5, WIDTH)).bfloat16().to(kind),
        [norm, exact],
    )


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weight", [torch.float32, torch.bfloat16, None])
@pytest.mark.parametrize("bias", [torch.float32, torch.bfloat16, None])
def test_layer_norm_takes_every_mixture_of_dtypes(
    kind: torch.dtype, weight: torch.dtype | None, bias: torch.dtype | None
) -> None:
    """Of bias-only training the bias is fp32 beside a weight in bf16; some models have neither."""
    torch.manual_seed(0)
    norm = nn.LayerNorm(WIDTH, elementwise_affine=weight is not None, bias=weight is not None and bias is not None)
    for parameter, dtype in zip(norm.parameters(), (weight, bias), strict=False):
        parameter.data = torch.randn(WIDTH).bfloat16().to(dtype)
    exact = deepcopy(norm).double()
    x = (3 + 2 * torch.randn(3, 5, WIDTH)).bfloat16().to(kind)
    run(lambda given: LayerNormInBf16.forward(cast(Any, norm), given), exact, x, [norm, exact])
    assert (
        LayerNormInBf16.forward(cast(Any, norm.float()), x.float()).dtype is torch.float32
    )  # where products are in fp32


def test_gelu_of_gpt2_is_that_of_float64() -> None:
    torch.manual_seed(0)
    module = NewGELUActivation()
    run(lambda x: fused._new_gelu(module, x), module, (4 * torch.randn(7, 50)).bfloat16(), [module, module])


@pytest.mark.parametrize("act", ["silu", "gelu"])
def test_the_gated_block_is_that_of_float64_with_the_activation_of_its_configuration(act: str) -> None:
    torch.manual_seed(0)
    mlp = LlamaMLP(LlamaConfig(hidden_size=WIDTH, intermediate_size=24, num_attention_heads=HEADS, hidden_act=act))
    for parameter in mlp.parameters():
        parameter.data = torch.randn(parameter.shape).bfloat16().float()
    exact = deepcopy(mlp).double()
    true: dict[str, Callable[[Tensor], Tensor]] = {"silu": F.silu, "gelu": F.gelu}
    run(
        lambda x: fused._gated_mlp(mlp, x),
        lambda x: exact.down_proj(true[act](exact.gate_proj(x)) * exact.up_proj(x)),
        torch.randn(3, 5, WIDTH).bfloat16(),
        [mlp, exact],
    )


def test_the_gate_alone_gives_both_gradients() -> None:
    torch.manual_seed(0)
    gate, up, g = (in_bf16(4, 30) for _ in range(3))
    ours, true = (
        [tensor.to(kind).requires_grad_() for tensor in (gate, up)] for kind in (torch.bfloat16, torch.float64)
    )
    out: Any = fused._SwiGLU.apply(*ours)
    expected = F.silu(true[0]) * true[1]
    found = torch.autograd.grad(out, ours, g)
    assert close(out, expected) and all(map(close, found, torch.autograd.grad(expected, true, g.double())))
