"""What a training step holds, byte by byte: the step itself is taken, with tensors that have shapes and no data.

torch's FakeTensorMode runs a model's own code without memory for its tensors, so this holds for every architecture and
method. What is followed are storages: views of one, and weights that are tied, count once. For a GPU too the step is
taken on fake CPU tensors, as torch without CUDA cannot slice fake CUDA tensors; `_AsOnGPU` then computes as CUDA does
where that differs.
"""

import weakref
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from lora_repro import draw
from lora_repro.models.precision import AsOnGPU

IN_FP32_ON_GPUS = frozenset(
    ("softmax", "log_softmax", "pow", "__pow__", "rsqrt", "exp", "log", "sum", "cumsum", "prod", "norm", "layer_norm")
)
"""Functions that autocast computes in fp32 on CUDA and in whatever comes on CPUs."""


class Trace(NamedTuple):
    """Bytes of one step, the optimizer apart."""

    weights: int
    """Parameters and buffers."""
    trained: int
    """Those that are trained."""
    saved: int
    """What autograd keeps between the forward and the backward pass, parameters apart."""
    early: int
    """The most that is held beside the weights up to the middle of the backward pass, gradients included."""
    late: int
    """The same from there on."""


def build(assemble: Callable[[], nn.Module]) -> nn.Module:
    """Returns the model that a function makes, without data in any of its tensors, however it draws them."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode, draw.only_shapes():
        model = assemble()
        replace_tensors(model, "cpu", lambda tensor: not isinstance(tensor.data, FakeTensor))
    return model


def is_without_data(model: nn.Module) -> bool:
    """Tells whether a model is being built by `build`."""
    return any(isinstance(parameter.data, FakeTensor) for parameter in model.parameters())


def replace_tensors(model: nn.Module, device: str, which: Callable[[Tensor], bool] = lambda _: True) -> None:
    """Replaces parameters and buffers by empty ones of their shapes, in place. Tied ones stay tied."""
    made: dict[int, Any] = {}
    for module in model.modules():
        for group in (module._parameters, module._buffers):
            for name, tensor in group.items():
                if tensor is not None and which(tensor):
                    group[name] = made.setdefault(id(tensor), _like(tensor, device))


def _like(tensor: Tensor, device: str) -> Tensor:
    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def trace(model: nn.Module, loss: Callable[[nn.Module], Tensor], on_gpu: bool) -> Trace:
    """Takes a step's forward and backward pass; where nothing is trained, the forward pass alone.

    Args:
        model: What `build` returned.
        loss: Computes the loss of a batch.
        on_gpu: Compute as on a GPU.
    """
    parameters = list(model.parameters())
    held = _Storages()
    weights = held.add([*parameters, *model.buffers()])
    computing: AbstractContextManager[Any] = _AsCUDA() if on_gpu else nullcontext()
    own = {*held.sizes}
    saved: set[int] = set()

    def pack(tensor: Tensor) -> Tensor:
        held.add([tensor])
        saved.add(tensor.untyped_storage()._cdata)
        return tensor

    with held, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with computing:
            value = loss(model)
        saved_bytes = sum(held.sizes[storage] for storage in saved & held.sizes.keys() - own)
        before = len(held.levels)
        if value.requires_grad:  # a method that trains nothing has no backward pass
            value.backward()
    middle = (before + len(held.levels)) // 2
    return Trace(
        weights,
        sum(parameter.nbytes for parameter in parameters if parameter.requires_grad),
        saved_bytes,
        max(held.levels[:middle], default=weights) - weights,
        max(held.levels[middle:], default=weights) - weights,
    )


class _Storages(TorchDispatchMode):
    """Follows every storage from the operation that makes it until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        """Bytes of every storage that is alive."""
        self.total = 0
        self.levels: list[int] = []
        """All bytes that are alive, after each operation."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs an operation and takes up the storages that it made."""
        out = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, lambda tensor: self.add([tensor]), out)
        self.levels.append(self.total)
        return out

    def add(self, tensors: Iterable[Tensor]) -> int:
        """Takes up the storages of tensors that are not known yet, and returns the bytes of all that are alive."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self.sizes:
                self.sizes[key] = storage.nbytes()
                self.total += self.sizes[key]
                weakref.finalize(storage, self._free, key)
        return self.total

    def _free(self, key: int) -> None:
        self.total -= self.sizes.pop(key)


class _AsCUDA(AsOnGPU):
    """Computes as CUDA does where CPUs do otherwise: some functions in fp32, and attention in its fused kernel."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replaces attention, and raises the operands of the functions that autocast computes in fp32."""
        if func is F.scaled_dot_product_attention:
            return _fused_attention(*args, **(kwargs or {}))
        if torch.is_autocast_enabled("cpu") and getattr(func, "__name__", "") in IN_FP32_ON_GPUS:
            args = tuple(
                arg.float() if isinstance(arg, Tensor) and arg.dtype is torch.bfloat16 else arg for arg in args
            )
        return func(*args, **(kwargs or {}))


def _fused_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Computes attention as CUDA's memory-efficient kernel, which takes masks and stores neither scores nor softmax."""
    if torch.is_autocast_enabled("cpu"):
        q, k, v = (x.bfloat16() for x in (q, k, v))
    if enable_gqa:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    bias = attn_mask
    if bias is not None:
        bias = (
            torch.zeros_like(bias, dtype=q.dtype).masked_fill(~bias, float("-inf"))
            if bias.dtype is torch.bool
            else bias
        )
        bias = bias.to(q.dtype).expand(q.shape[0], q.shape[1], q.shape[2], k.shape[2])
    attend = torch.ops.aten._scaled_dot_product_efficient_attention
    return attend(q, k, v, bias, True, dropout_p, is_causal, scale=scale)[0]
