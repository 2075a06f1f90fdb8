"""Bytes that a run holds while it trains, from shapes: what models.py, train.py and precision.py really keep. No torch.

Weights, gradients, AdamW's moments and files follow from counts; activations are summed in saved_tensors.py. What a CPU
adds, the process and what its heap wastes, is measured: python -m lora_repro.bench.memory.
"""

from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

from lora_repro.costs.saved_tensors import Batch, Products, kept, temporaries
from lora_repro.methods import LoRAConfig, MethodConfig
from lora_repro.models.arch import Arch

GIB = 2**30
COPIED_UP_TO = 5 * 10**8
"""Weights up to which a model, once read, is kept for the next run and copied; a larger one is read anew each time."""
FP32, BF16 = 4, 2
PROCESS = 450 * 2**20
"""On a CPU: Python, torch and its kernels, tokenizer and data, before and beside all that a model takes. Measured with
torch 2.13 on x86-64, python -m lora_repro.bench.memory; with HEAP, estimates are 0.85 to 1.13 times the peaks there."""
HEAP = 1.8
"""On a CPU: what activations take of the heap, over their size. Freed blocks are not filled again exactly (glibc before
2.38, whose memalign asks for more than the hole that it left)."""


class Memory(NamedTuple):
    """Bytes, by what they are for."""

    weights: int
    """The model in training: frozen weights in the run's dtype, trained ones in fp32."""
    source: int
    """The weights as they were read, in fp32, which the process keeps for its next run (in the host's memory)."""
    loaded: int
    """The model in fp32, as it is while it is put together (in the host's memory)."""
    gradients: int
    """Of what is trained, in fp32."""
    optimizer: int
    """AdamW's two moments, in fp32."""
    activations: int
    """What the backward pass begins with, and the temporaries of a block."""
    checkpoint: int
    """The trained tensors as a file, with the head: what an adapter weighs on disk."""

    @property
    def training(self) -> int:
        """What a GPU holds at most, by estimate: gradients are not there yet where activations are at their largest."""
        return self.weights + self.optimizer + max(self.activations, self.gradients)

    @property
    def on_cpu(self) -> int:
        """What the process holds at most on a CPU, for inputs of one length; many lengths take up to a fifth more."""
        passing = max(HEAP * self.activations, self.gradients)
        return PROCESS + self.source + max(self.weights + self.optimizer + int(passing), self.loaded)


def estimate(method: MethodConfig, arch: Arch, config: Mapping[str, Any], batch: Batch) -> Memory:
    """Estimates what training takes.

    Args:
        method: The method.
        arch: The model's shapes, with its head.
        config: The keys of its config.json.
        batch: The inputs of a step.
    """
    count, unfrozen = method.count(arch), {*method.unfrozen(arch)}
    output = _output(arch)
    frozen = FP32 if batch.products is Products.fp32 else BF16
    stored = FP32 * (count.total - arch.size())
    for name, shape in arch.parameters.items():
        is_fp32 = name in unfrozen or arch.is_head(name) or name == output
        stored += prod(shape) * (FP32 if is_fp32 else frozen)
    return Memory(
        weights=stored,
        source=FP32 * arch.size() if arch.size() <= COPIED_UP_TO else 0,
        loaded=FP32 * arch.size(),
        gradients=FP32 * count.trainable,
        optimizer=2 * FP32 * count.trainable,
        activations=sum(kept(method, arch, config, batch).values()) + temporaries(arch, batch),
        checkpoint=FP32 * (count.trainable + _frozen_A(method, arch)),
    )


def _frozen_A(method: MethodConfig, arch: Arch) -> int:
    """Counts the weights of a frozen A, which stands in the file too."""
    if not (isinstance(method, LoRAConfig) and method.freeze_A):
        return 0
    return sum(method.r_of(site) * site.d_in for site in arch.select(method.targets))


def _output(arch: Arch) -> str | None:
    """Returns the matrix of a language model's output layer, its own or the embedding: it stays in fp32."""
    if not arch.is_decoder or arch.head_modules:
        return None
    (table,) = arch.select(["embed"])
    return "lm_head.weight" if "lm_head.weight" in arch.parameters else f"{table.module}.weight"
