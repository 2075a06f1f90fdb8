"""Attention, RMSNorm, SwiGLU and linear layers as one step of autograd each, where products are in bf16 on a CPU.

transformers makes them of many small operations, each of which reads and writes whole activations: on a CPU that costs
as much as the products. Here sums, softmax and norms are computed in fp32 and their results rounded once.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import eager_attention_forward
from transformers.pytorch_utils import Conv1D

from lora_repro.models.linears import LinearWeights, multiply
from lora_repro.models.precision import dtype_of_products, is_on_cpu

NAME = "lora_repro"
"""By which transformers knows the attention of this module."""
PLAIN_ATTENTION = ("bert", "roberta", "gpt2", "opt", "gpt_neox", "llama", "qwen2", "gemma3_text")
"""Models that ask transformers' interface for their attention, and for nothing but a softmax of scaled products. How
far back a layer sees stands in its mask."""


def fuse(model: nn.Module) -> None:
    """Lets a model of transformers compute with this module what it has, in place.

    Where products are not in bf16, or not on a CPU, everything but attention is still computed by transformers.
    """
    config: Any = model.config
    if config.model_type in PLAIN_ATTENTION and config._attn_implementation == "eager":
        config._attn_implementation = NAME
    fuse_layers(model)


def fuse_layers(model: nn.Module) -> None:
    """Lets the layers compute with this module, in place; attention as its interface says."""
    for module in model.modules():
        kind = type(module)
        if kind is nn.Linear:
            module.__class__ = FusedLinear
        elif kind.__module__.startswith("transformers.") and (forward := FORWARDS.get(kind.__name__)) is not None:
            module.__class__ = _with_forward(kind, forward)


def is_fused(x: Tensor) -> bool:
    """Tells whether what follows from x is computed by this module: in bf16 on a CPU."""
    return is_on_cpu(x) and dtype_of_products(x) is torch.bfloat16


@cache
def _with_forward(kind: type[nn.Module], fused: Callable[..., Any]) -> type[nn.Module]:
    """Returns a subclass that computes with a function of this module where `is_fused` says so."""

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        chosen = fused if is_fused(args[0] if args else kwargs["hidden_states"]) else kind.forward
        return chosen(self, *args, **kwargs)

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": __name__})


class FusedLinear(nn.Linear):
    """A linear layer whose frozen weight is multiplied as `multiply` does.

    A weight that is trained and used more than once in a step, as in DeBERTa, is rounded once by autocast, and by
    `multiply` once for each use.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Returns x W^T + b."""
        if self.weight.requires_grad or not is_fused(input):
            return super().forward(input)
        return multiply(input.bfloat16(), [LinearWeights(self.weight, self.bias)])[0]


def joined(x: Float[Tensor, "*batch d_in"], layers: Sequence[nn.Module]) -> Sequence[Tensor]:
    """Applies linear layers to the same input: as one step of autograd where all of them can be, else one by one."""
    linears = [as_linear(layer) for layer in layers] if is_fused(x) else [None]
    found = [linear for linear in linears if linear is not None]
    return multiply(x.bfloat16(), found) if len(found) == len(layers) else [layer(x) for layer in layers]


def as_linear(layer: Any) -> LinearWeights | None:
    """Returns what a layer multiplies with; None if it is no linear layer, or does more and must be called."""
    if not is_plain(layer):
        return None
    if type(layer) in (nn.Linear, FusedLinear):
        return LinearWeights(layer.weight, layer.bias)
    if type(layer) is Conv1D:
        return LinearWeights(layer.weight.T, layer.bias)
    return layer.as_linear() if hasattr(layer, "as_linear") else None


def is_plain(module: nn.Module) -> bool:
    """Tells whether a call of a module runs its class's forward and nothing else: no hook, no forward of its own."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return "forward" not in vars(module) and not any(hooks)


class _Attention(torch.autograd.Function):
    """Queries of several heads that share keys and values are multiplied as one matrix."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Float[Tensor, "batch heads queries d"],
        k: Float[Tensor, "batch kv_heads keys d"],
        v: Float[Tensor, "batch kv_heads keys d"],
        mask: Float[Tensor, "batch heads queries keys"] | None,
        scaling: float,
        dropout: float,
        rotation: tuple[Tensor, Tensor] | None,
    ) -> Float[Tensor, "batch queries heads d"]:
        ctx.shape, ctx.kv_shape, ctx.scaling, ctx.rotation = q.shape, k.shape, scaling, rotation
        if rotation is not None:
            q, k = _rotated(q, *rotation), _rotated(k, *rotation)
        pairs, (_, _, keys, width) = k.shape[0] * k.shape[1], k.shape
        q, k, v = (tensor.contiguous().view(pairs, -1, width) for tensor in (q, k, v))
        if mask is not None:
            scores = torch.baddbmm(mask.reshape(pairs, -1, keys), q, k.transpose(1, 2), alpha=scaling)
        else:
            scores = _scaled(q, k.transpose(1, 2), scaling)
        p = torch.softmax(scores, -1, dtype=torch.float32).to(q.dtype)
        keep = torch.empty_like(p).bernoulli_(1 - dropout) if dropout else None
        ctx.save_for_backward(q, k, v, p, keep)
        ctx.kept = 1 / (1 - dropout)  # applied to sums in fp32: bf16 would round it, by up to 0.2 %
        return _scaled(p if keep is None else p * keep, v, ctx.kept).view(ctx.shape).transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, p, keep = ctx.saved_tensors
        needs_q, needs_k, needs_v, needs_mask, *_ = ctx.needs_input_grad
        g = gradients[0].transpose(1, 2).reshape(q.shape)
        dq = dk = dv = d_mask = None
        if needs_v:
            dv = _scaled((p if keep is None else p * keep).transpose(1, 2), g, ctx.kept).view(ctx.kv_shape)
        if needs_q or needs_k or needs_mask:
            dp = _scaled(g, v.transpose(1, 2), ctx.kept)
            dp = dp.float() if keep is None else dp.float().mul_(keep)
            d_scores = torch.ops.aten._softmax_backward_data(dp, p.float(), -1, torch.float32)
            d_mask = d_scores.view(*ctx.shape[:3], -1) if needs_mask else None
            d_scores = d_scores.to(p.dtype)
            dq = _scaled(d_scores, k, ctx.scaling).view(ctx.shape) if needs_q else None
            dk = _scaled(d_scores.transpose(1, 2), q, ctx.scaling).view(ctx.kv_shape) if needs_k else None
        if ctx.rotation is not None:
            cos, sin = ctx.rotation
            dq, dk = (d if d is None else _rotated(d, cos, -sin) for d in (dq, dk))
        return dq, dk, dv, d_mask, None, None, None


def _rounded_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Rounds a mask; fp32's lowest number would become -inf, and a row whose keys are all masked NaN."""
    return mask if mask.dtype is dtype else mask.to(dtype).clamp(min=torch.finfo(dtype).min)


def _scaled(a: Tensor, b: Tensor, scaling: float) -> Tensor:
    """Returns scaling a b, rounded once."""
    return torch.baddbmm(a.new_empty(1), a, b, beta=0, alpha=scaling)


def _rotated(x: Float[Tensor, "batch heads seq d"], cos: Tensor, sin: Tensor) -> Float[Tensor, "batch heads seq d"]:
    """Rotates the pairs (x_i, x_(i + d/2)), as Llama does."""
    (a, b), (cos, _), (sin, _) = (tensor.chunk(2, -1) for tensor in (x, cos, sin))
    return torch.cat((torch.addcmul(a * cos, b, sin, value=-1), torch.addcmul(b * cos, a, sin)), -1)


def attention(
    module: nn.Module,
    query: Float[Tensor, "batch heads queries d"],
    key: Float[Tensor, "batch kv_heads keys d"],
    value: Float[Tensor, "batch kv_heads keys d"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    rotation: tuple[Tensor, Tensor] | None = None,
    **_: Any,
) -> tuple[Float[Tensor, "batch queries heads d"], None]:
    """Computes attention as transformers' functions of this interface do.

    Args:
        module: Not used.
        query: The queries.
        key: The keys; several heads may share one head of keys and values.
        value: The values.
        attention_mask: Added to the scores.
        scaling: What the products are multiplied by (None: 1 / sqrt(d)).
        dropout: Of the probabilities.
        rotation: Cosine and sine of rotary positions, by which queries and keys are rotated first.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    mask = attention_mask
    if is_fused(query):
        query, key, value = (tensor.bfloat16() for tensor in (query, key, value))
        if mask is not None:
            mask = _rounded_mask(mask, query.dtype).expand(*query.shape[:3], key.shape[2])
        return _Attention.apply(query, key, value, mask, scale, dropout, rotation), None  # pyright: ignore[reportReturnType]
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (tensor.repeat_interleave(groups, 1) for tensor in (key, value))
    scores = torch.matmul(query, key.transpose(2, 3)) * scale
    scores = scores if mask is None else scores + mask
    p = F.dropout(F.softmax(scores, -1, dtype=torch.float32).to(query.dtype), dropout)
    return torch.matmul(p, value).transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["eager"])


def _heads(x: Tensor, width: int) -> Tensor:
    return x.unflatten(-1, (-1, width)).transpose(1, 2)


def _llama_attention(
    module: Any,
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """LlamaAttention's, Qwen2Attention's and Gemma3Attention.forward with the rotation in the attention."""
    if past_key_values is not None or module.config._attn_implementation != NAME:
        given = (hidden_states, position_embeddings, attention_mask, past_key_values)
        plain: Any = super(type(module), module)
        return plain.forward(*given, **kwargs)
    layers = (module.q_proj, module.k_proj, module.v_proj)
    q, k, v = (_heads(states, module.head_dim) for states in joined(hidden_states, layers))
    if hasattr(module, "q_norm"):
        q, k = module.q_norm(q), module.k_norm(k)
    dropout = module.attention_dropout if module.training else 0.0
    cos, sin = (table.unsqueeze(1).to(q.dtype) for table in position_embeddings)
    out, _ = attention(module, q, k, v, attention_mask, module.scaling, dropout, (cos, sin))
    return module.o_proj(out.flatten(2)), None


def _projected(
    x: Tensor, queries: Tensor | None, layers: tuple[nn.Module, nn.Module, nn.Module], width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns queries, keys and values by head; the queries may be those of fewer positions than x."""
    if queries is None:
        q, k, v = joined(x, layers)
    else:
        # of a slice, torch's linear layer would make a copy of W for each example
        (q,), (k, v) = joined(queries.contiguous(), layers[:1]), joined(x, layers[1:])
    return _heads(q, width), _heads(k, width), _heads(v, width)


def bert_attention(
    module: Any,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    queries: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Bert's and RobertaSelfAttention.forward; the queries may be those of fewer positions."""
    assert past_key_values is None
    layers = (module.query, module.key, module.value)
    q, k, v = _projected(hidden_states, queries, layers, module.attention_head_size)
    mask = attention_mask if attention_mask is None or queries is None else attention_mask[..., : q.shape[2], :]
    interface = ALL_ATTENTION_FUNCTIONS.get_interface(module.config._attn_implementation, eager_attention_forward)
    dropout = module.dropout.p if module.training else 0.0
    return interface(module, q, k, v, mask, dropout=dropout, scaling=module.scaling)[0].flatten(2), None


def mpnet_attention(
    module: Any,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    position_bias: Tensor | None = None,
    queries: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor]:
    """MPNetSelfAttention.forward; the queries may be those of fewer positions."""
    q, k, v = _projected(hidden_states, queries, (module.q, module.k, module.v), module.attention_head_size)
    assert position_bias is not None
    mask = position_bias[..., : q.shape[2], :]
    if attention_mask is not None:
        mask = mask + attention_mask[..., : q.shape[2], :]
    out = attention(module, q, k, v, mask, dropout=module.dropout.p if module.training else 0.0)[0]
    return (module.o(out.flatten(2)),)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "*batch d"], weight: Float[Tensor, " d"], eps: float) -> Tensor:
        normed = x.to(torch.float32, copy=True)
        mean_square = torch.linalg.vector_norm(normed, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        scale = mean_square.add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return normed.mul_(scale).mul_(weight).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, scale = ctx.saved_tensors
        normed, g = (tensor.to(torch.float32, copy=True) for tensor in (x, gradients[0]))
        normed.mul_(scale)
        d_weight = (g * normed).flatten(0, -2).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        g.mul_(weight)
        shared = torch.linalg.vecdot(g, normed).div_(x.shape[-1]).unsqueeze(-1)
        return g.addcmul_(normed, shared, value=-1).mul_(scale).to(x.dtype), d_weight, None


def _rms_norm(module: Any, x: Tensor) -> Tensor:
    """LlamaRMSNorm's and Qwen2RMSNorm.forward."""
    return _RMSNorm.apply(x, module.weight, module.variance_epsilon)  # pyright: ignore[reportReturnType]


def _gemma_rms_norm(module: Any, x: Tensor) -> Tensor:
    """Gemma3RMSNorm.forward, which multiplies by 1 + w."""
    return _RMSNorm.apply(x, 1.0 + module.weight.float(), module.eps)  # pyright: ignore[reportReturnType]


class _SwiGLU(torch.autograd.Function):
    """Nothing is done in place: on bf16 that takes twice as long here."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate) * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        gate, up = ctx.saved_tensors
        (g,) = gradients
        return torch.ops.aten.silu_backward(g * up, gate), F.silu(gate) * g


def _gated_mlp(module: Any, x: Tensor) -> Tensor:
    """LlamaMLP's, Qwen2MLP's and Gemma3MLP.forward."""
    gate, up = joined(x, (module.gate_proj, module.up_proj))
    is_silu = getattr(module.config, "hidden_act", None) in ("silu", "swish")
    inner = _SwiGLU.apply(gate, up) if is_silu else module.act_fn(gate) * up
    return module.down_proj(inner)


def _new_gelu(module: nn.Module, x: Tensor) -> Tensor:
    """NewGELUActivation.forward."""
    return F.gelu(x, approximate="tanh")


FORWARDS: dict[str, Callable[..., Any]] = {
    "BertSelfAttention": bert_attention,
    "Gemma3Attention": _llama_attention,
    "Gemma3MLP": _gated_mlp,
    "Gemma3RMSNorm": _gemma_rms_norm,
    "LlamaAttention": _llama_attention,
    "LlamaMLP": _gated_mlp,
    "LlamaRMSNorm": _rms_norm,
    "MPNetSelfAttention": mpnet_attention,
    "NewGELUActivation": _new_gelu,
    "Qwen2Attention": _llama_attention,
    "Qwen2MLP": _gated_mlp,
    "Qwen2RMSNorm": _rms_norm,
    "RobertaSelfAttention": bert_attention,
}
"""By the names of transformers' classes."""
