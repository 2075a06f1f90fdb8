"""What dtype=bf16 means: both sides of every product rounded to bf16, sums in fp32, the result rounded to bf16.

What lies between products is bf16 too: the residual stream, and what norms, activations and softmax return, which
compute in fp32 and round once. Trained weights, their gradients, AdamW and the loss are fp32.

Where the hardware multiplies in bf16 that is torch's autocast. CPUs without such instructions are 7 to 70 times slower
in bf16 than in fp32; there operands and results of each product are rounded around fp32 products, at a tenth more than
the cost of fp32. Within a layer with LoRA that rounds in a few more places, as its update is several products there.
"""

import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from enum import Enum
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from lora_repro.config.schema import Dtype
from lora_repro.methods import MethodConfig
from lora_repro.models.embeddings import is_look_up, scale_of


class Products(str, Enum):
    """How products are computed."""

    fp32 = "fp32"
    bf16 = "bf16"
    """By hardware that multiplies in bf16."""
    rounded = "rounded"
    """In fp32, with operands and result rounded to bf16, where the hardware does not."""


_assumed: ContextVar[Products | None] = ContextVar("assumed", default=None)
"""How other hardware than this one computes, while `computing_as` is in force, in its thread alone."""


class AsOnGPU(TorchFunctionMode):
    """While it is in force, what lies on the CPU is computed as on a GPU, to estimate a GPU's memory."""


def is_on_cpu(x: Tensor) -> bool:
    """Tells whether what follows from x is computed as on a CPU."""
    return x.device.type == "cpu" and not _is_in_force(AsOnGPU)


def _is_in_force(kind: type[TorchFunctionMode]) -> bool:
    return any(isinstance(mode, kind) for mode in _get_current_function_mode_stack())


@contextmanager
def computing_as(products: Products) -> Iterator[None]:
    """Pretends that this machine computes products in the given way, to estimate another machine's memory."""
    before = _assumed.set(products)
    try:
        yield
    finally:
        _assumed.reset(before)


def has_fast_bf16(device: torch.device) -> bool:
    """Tells whether this device multiplies in bf16 faster than in fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if platform.machine() in ("x86_64", "AMD64"):  # oneDNN itself also counts CPUs where it is slow
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def store_in_bf16(model: nn.Module, method: MethodConfig, bare_embeddings: bool = False) -> None:
    """Stores the frozen weights in bf16, in place; what is trained stays in fp32.

    LayerNorms, and embeddings that begin the residual stream themselves, return bf16 whether they are trained or not:
    methods differ in what they train, not in how they round. Where `fused` does not compute them, trained RMSNorms of
    transformers do: most, as Llama's, return fp32, which the products that read it round, so their gradients are summed
    in fp32. A language model's output layer (with its tied embedding) stays in fp32, and what the method says.

    Args:
        model: The model, with its method attached.
        method: The method.
        bare_embeddings: The embeddings themselves begin the residual stream (`Arch.has_bare_embeddings`).
    """
    output = getattr(model, "lm_head", None)
    in_fp32 = [module for module in (output, *method.in_fp32(model)) if module is not None]
    fp32 = {id(parameter) for module in in_fp32 for parameter in module.parameters()}
    for parameter in model.parameters():
        if not parameter.requires_grad and id(parameter) not in fp32:
            parameter.data = parameter.data.bfloat16()
    for module in model.modules():
        if type(module) is nn.LayerNorm:
            module.__class__ = LayerNormInBf16
        elif bare_embeddings and isinstance(module, nn.Embedding) and is_look_up(module):
            module.forward = partial(_embedding_in_bf16, module)


def _embedding_in_bf16(table: nn.Embedding, input: Tensor) -> Tensor:
    rows, scale = F.embedding(input, table.weight, table.padding_idx), scale_of(table)
    return in_stream(rows if scale is None else rows * scale)


class LayerNormInBf16(nn.LayerNorm):
    """Takes bf16 beside weights in bf16 or fp32, which CPUs do in one pass; autocast on GPUs computes it in fp32."""

    def forward(self, input: Tensor) -> Tensor:
        """Returns bf16 where products are in bf16."""
        x, weight, bias = in_stream(input), self.weight, self.bias
        if x.dtype is torch.float32 or (bias is not None and bias.dtype is not weight.dtype):
            weight, bias = (tensor.float() if tensor is not None else None for tensor in (weight, bias))
        return in_stream(F.layer_norm(x, self.normalized_shape, weight, bias, self.eps))


def in_stream(x: Tensor) -> Tensor:
    """Rounds an activation as the residual stream is: to bf16 where products are; nothing is rounded elsewhere."""
    return x.bfloat16() if dtype_of_products(x) in (None, torch.bfloat16) else x


def dtype_of_products(x: Tensor) -> torch.dtype | None:
    """Returns the dtype in which x is multiplied; None within `RoundedProducts`."""
    if _is_in_force(RoundedProducts):
        return None
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def products_of(dtype: Dtype, device: torch.device) -> Products:
    """Returns how products are computed here."""
    if (assumed := _assumed.get()) is not None:
        return assumed
    if dtype is Dtype.fp32:
        return Products.fp32
    return Products.bf16 if has_fast_bf16(device) else Products.rounded


def products(dtype: Dtype, device: torch.device) -> AbstractContextManager[Any]:
    """Returns the context in which a model's forward pass runs."""
    kind = products_of(dtype, device)
    if kind is Products.fp32:
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16) if kind is Products.bf16 else RoundedProducts()


class RoundedProducts(TorchFunctionMode):
    """Does the products of autocast's bf16 in fp32, with the same roundings forward and backward."""

    PRODUCTS = frozenset(
        (F.linear, F.conv1d, torch.matmul, torch.bmm, torch.addmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__)
    )

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Rounds the tensors that enter and leave a product; everything else runs as it is."""
        if func not in self.PRODUCTS:
            return func(*args, **(kwargs or {}))
        rounded = [_rounded(arg) for arg in args]
        with torch._C.DisableTorchFunction():
            return func(*rounded, **(kwargs or {})).bfloat16()


def _rounded(value: Any) -> Any:
    return value.bfloat16().float() if isinstance(value, Tensor) else value
