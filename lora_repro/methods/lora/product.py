"""The product of a LoRA layer as one step of autograd: what a frozen weight does not need is never computed."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lora_repro.models.arch import Part
from lora_repro.models.parts import outputs_of


class Low(NamedTuple):
    """One update s B A of a layer, as its product needs it."""

    A: Float[Tensor, "r d_in"]
    B: Float[Tensor, "d_part r"]
    scaling: float
    part: Part | None
    """Where its output features lie; None: they are the whole output."""


def lora_product(
    x: Float[Tensor, "*batch d_in"],
    W: Float[Tensor, "d_out d_in"],
    bias: Float[Tensor, " d_out"] | None,
    updates: list[Low],
) -> Float[Tensor, "*batch d_out"]:
    """Returns x W^T + b + s x A^T B^T, each update added to its own features.

    Everything is multiplied in the dtype of x. A, with its scale, and B are rounded to it once. An update of the whole
    output is added to it before rounding; one of a fused layer's part is rounded first.

    Args:
        x: The layer's input, kept once for all updates.
        W: The layer's weight.
        bias: Its bias.
        updates: The updates.
    """
    layout = [(low.scaling, low.part) for low in updates]
    return _Product.apply(x, W, bias, layout, *(tensor for low in updates for tensor in (low.A, low.B)))  # pyright: ignore[reportReturnType]


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, bias: Tensor | None, layout: Any, *AB: Tensor) -> Tensor:
        W, bias = W.to(x.dtype), None if bias is None else bias.to(x.dtype)
        whole = F.linear(x, W, bias)
        rows, out = x.reshape(-1, x.shape[-1]), whole.view(-1, whole.shape[-1])
        kept = []
        for (scaling, part), A, B in zip(layout, AB[::2], AB[1::2], strict=True):
            A, B = (A * scaling).to(x.dtype), B.to(x.dtype)
            low = rows @ A.t()
            if part is None:
                out.addmm_(low, B.t())
            else:
                outputs_of(out, part).add_((low @ B.t()).view(len(out), part.groups, -1))
            kept += [A, B, low]
        ctx.save_for_backward(rows, W, *kept)
        ctx.layout, ctx.shape, ctx.dtypes = layout, x.shape, [tensor.dtype for tensor in AB]
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        rows, W, *kept = ctx.saved_tensors
        (g,) = gradients
        g = g.reshape(-1, g.shape[-1])
        needs_x, needs_W, needs_bias, _, *needs = ctx.needs_input_grad
        dx = g @ W if needs_x else None
        found: list[Tensor | None] = []
        for index, (scaling, part) in enumerate(ctx.layout):
            A, B, low = kept[3 * index : 3 * index + 3]
            mine = g if part is None else outputs_of(g, part).reshape(len(g), -1)
            g_low = mine @ B
            if dx is not None:
                dx.addmm_(g_low, A)
            needs_A, needs_B = needs[2 * index : 2 * index + 2]
            found.append((g_low.t() @ rows).to(ctx.dtypes[2 * index]).mul_(scaling) if needs_A else None)
            found.append((low.t() @ mine).t().to(ctx.dtypes[2 * index + 1]) if needs_B else None)
        dW = g.t() @ rows if needs_W else None
        d_bias = g.sum(0) if needs_bias else None
        return dx.view(ctx.shape) if dx is not None else None, dW, d_bias, None, *found
