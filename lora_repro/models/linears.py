"""Linear layers that read the same input, with their low-rank updates, as one step of autograd.

What a frozen weight does not need is never computed or kept. The gradients of the input are summed within the products.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lora_repro.models.arch import Part
from lora_repro.models.parts import outputs_of
from lora_repro.models.precision import is_on_cpu

HAS_LINEAR_IN_BF16 = hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.ops.mkldnn._is_mkldnn_bf16_supported()
"""Whether oneDNN computes a linear layer in bf16 on this CPU, which torch's compiler calls, too."""


class Update(NamedTuple):
    """One update s B A of a layer."""

    A: Float[Tensor, "r d_in"]
    B: Float[Tensor, "d_part r"]
    scaling: float
    part: Part | None
    """Where its output features lie; None: they are the whole output."""


class LinearWeights(NamedTuple):
    """What a linear layer is multiplied with."""

    W: Float[Tensor, "d_out d_in"]
    bias: Float[Tensor, " d_out"] | None
    updates: Sequence[Update] = ()


def multiply(x: Float[Tensor, "*batch d_in"], linears: Sequence[LinearWeights]) -> tuple[Tensor, ...]:
    """Returns x W^T + b + s x A^T B^T for each layer, each update added to its own features.

    Everything is multiplied in the dtype of x. A, with its scale, and B are rounded to it once. An update of the whole
    output is added to it before rounding; one of a fused layer's part is rounded first.

    Args:
        x: The input of all these layers, kept once.
        linears: The layers.

    Returns:
        A tensor of shape (*batch, d_out) for each layer.
    """
    layout = [[(update.scaling, update.part) for update in linear.updates] for linear in linears]
    own = [tensor for linear in linears for tensor in (linear.W, linear.bias)]
    AB = [tensor for linear in linears for update in linear.updates for tensor in (update.A, update.B)]
    return _Multiply.apply(x, layout, *own, *AB)  # pyright: ignore[reportReturnType]


class _Multiply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layout: list[list[tuple[float, Part | None]]], *given: Any) -> Any:
        own, AB = given[: 2 * len(layout)], given[2 * len(layout) :]
        rows = x.reshape(-1, x.shape[-1])
        Ws = [W.to(x.dtype) for W in own[::2]]
        outs = [_linear(rows, W, bias) for W, bias in zip(Ws, own[1::2], strict=True)]
        ctx.updates = [(index, *update) for index, updates in enumerate(layout) for update in updates]
        ctx.ranks = [len(A) for A in AB[::2]]
        A = x_A = None
        Bs = [B.to(x.dtype) for B in AB[1::2]]
        if ctx.updates:
            A = torch.cat([A * scaling for A, (_, scaling, _) in zip(AB[::2], ctx.updates, strict=True)]).to(x.dtype)
            x_A = rows @ A.t()
            for (index, _, part), own_x_A, B in zip(ctx.updates, x_A.split(ctx.ranks, 1), Bs, strict=True):
                if part is None:
                    outs[index].addmm_(own_x_A, B.t())
                else:
                    changed = outputs_of(outs[index], part)
                    changed.add_((own_x_A @ B.t()).view(changed.shape))
        needs_x, _, *needs = ctx.needs_input_grad
        multiplies_rows = any(needs[: len(own) : 2]) or any(needs[len(own) :: 2])
        ctx.save_for_backward(rows if multiplies_rows else None, A, x_A, *(W if needs_x else None for W in Ws), *Bs)
        ctx.shape, ctx.dtypes, ctx.count = x.shape, [tensor.dtype for tensor in AB], len(Ws)
        # a view of what was made here could not be written to in place, which some models do
        return tuple(torch.ops.aten._unsafe_view(out, [*x.shape[:-1], out.shape[-1]]) for out in outs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, A, x_A, *rest = ctx.saved_tensors
        Ws, Bs = rest[: ctx.count], rest[ctx.count :]
        needs_x, _, *needs = ctx.needs_input_grad
        needs_own, needs_AB = needs[: 2 * ctx.count], needs[2 * ctx.count :]
        gs = [g.reshape(-1, g.shape[-1]) for g in gradients]
        dx = gs[0] @ Ws[0] if needs_x else None
        if dx is not None:
            for g, W in zip(gs[1:], Ws[1:], strict=True):
                dx.addmm_(g, W)
        d_own: list[Tensor | None] = []
        for g, needs_W, needs_bias in zip(gs, needs_own[::2], needs_own[1::2], strict=True):
            d_own += [g.t() @ rows if needs_W else None, g.sum(0) if needs_bias else None]
        d_AB: list[Tensor | None] = [None] * len(needs_AB)
        if A is not None:
            parts = [gs[i] if part is None else outputs_of(gs[i], part).flatten(1) for i, _, part in ctx.updates]
            if needs_x or any(needs_AB[::2]):
                g_low = torch.cat([g @ B for g, B in zip(parts, Bs, strict=True)], 1)
                if dx is not None:
                    dx.addmm_(g_low, A)
                if any(needs_AB[::2]):
                    dAs = (g_low.t() @ rows).split(ctx.ranks)
                    for k, (dA, (_, scaling, _)) in enumerate(zip(dAs, ctx.updates, strict=True)):
                        d_AB[2 * k] = dA.to(ctx.dtypes[2 * k]).mul(scaling) if needs_AB[2 * k] else None
            for k, (g, own_x_A) in enumerate(zip(parts, x_A.split(ctx.ranks, 1), strict=True)):
                d_AB[2 * k + 1] = (own_x_A.t() @ g).t().to(ctx.dtypes[2 * k + 1]) if needs_AB[2 * k + 1] else None
        return None if dx is None else dx.view(ctx.shape), None, *d_own, *d_AB


def _linear(rows: Float[Tensor, "n d_in"], W: Tensor, bias: Tensor | None) -> Float[Tensor, "n d_out"]:
    """Returns x W^T + b. In bf16 on CPUs F.linear would first copy the bias into every row of the result."""
    bias = None if bias is None else bias.to(rows.dtype)
    if bias is not None and rows.dtype is torch.bfloat16 and is_on_cpu(rows) and HAS_LINEAR_IN_BF16:
        return torch.ops.mkldnn._linear_pointwise(rows, W, bias, "none", [], "")
    return F.linear(rows, W, bias)
