"""The modules of adapters, and how they are put into a model."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.activations import ACT2FN

from lora_repro import draw
from lora_repro.errors import InputError
from lora_repro.methods.adapters.config import Nonlinearity, Reads
from lora_repro.methods.adapters.places import (
    DROPOUTS,
    ELSEWHERE,
    NORMS_OF_SUMS,
    OUTPUT_NORMS,
    PROJECTIONS,
    projections,
)
from lora_repro.models.arch import Arch, is_counted
from lora_repro.models.blocks import blocks
from lora_repro.models.dropouts import dropouts_of


class Adapter(nn.Module):
    """What an adapter adds to its input: W_up f(W_down x + b_down) + b_up, trained in fp32.

    Args:
        d: Width of the input and of the output.
        bottleneck: Width between the two layers.
        nonlinearity: f.
        name: What the draws of both matrices are keyed by, beside seed and shape.
        seed: The run's.
        std: Standard deviation of the draws.
        has_norm: Begin with a LayerNorm.
    """

    def __init__(
        self, d: int, bottleneck: int, nonlinearity: Nonlinearity, name: str, seed: int, std: float, has_norm: bool
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d) if has_norm else nn.Identity()
        self.down = _linear(d, bottleneck, f"{name}.down", seed, std)
        self.nonlinearity = ACT2FN[nonlinearity.value]
        self.up = _linear(bottleneck, d, f"{name}.up", seed, std)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Returns the change of x."""
        return self.up(self.nonlinearity(self.down(self.norm(x))))


def _linear(d_in: int, d_out: int, name: str, seed: int, std: float) -> nn.Linear:
    layer = nn.Linear(d_in, d_out)
    layer.weight = nn.Parameter(torch.from_numpy(draw.normal(seed, name, (d_out, d_in), std)))
    layer.bias = nn.Parameter(torch.zeros(d_out))
    return layer


class WithAdapter(nn.Module):
    """A module whose output h becomes h + A(h)."""

    def __init__(self, base: nn.Module, adapter: Adapter) -> None:
        super().__init__()
        self.base = base
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        """Returns the output with the adapter's change."""
        h = self.base(x)
        return h + self.adapter(h)


class NormOfAdaptedSum(nn.Module):
    """The norm of a residual stream s that becomes norm(s + A(norm(s)))."""

    def __init__(self, base: nn.Module, adapter: Adapter) -> None:
        super().__init__()
        self.base = base
        self.adapter = adapter

    def forward(self, s: Tensor) -> Tensor:
        """Returns the norm of the changed stream."""
        return self.base(s + self.adapter(self.base(s)))


def put_behind(model: nn.Module, arch: Arch, layer: int, place: str, reads: Reads, adapter: Adapter) -> None:
    """Puts an adapter into a block, in place.

    What stands inside a block is wrapped; a whole block keeps its class, as models ask it for more than its output.

    Args:
        model: The model.
        arch: Its shapes.
        layer: The block.
        place: The sublayer, `attention` or `mlp`.
        reads: What the adapter reads.
        adapter: The adapter.

    Raises:
        InputError: If the sublayer's output is dropped where no adapter can stand behind it.
    """
    name = blocks(arch.backbone)[layer]
    block = model.get_submodule(name)
    if reads is Reads.output:
        ends = {each: projections(arch, each)[layer].removeprefix(f"{name}.") for each in PROJECTIONS}
        _separate_dropouts(block, ends.values())
        output = _output(block, place, ends[place])
        if output == ends[place] != DROPOUTS.get(output) and not isinstance(block.get_submodule(output), nn.Sequential):
            _refuse_dropout(model, f"{name}.{output}")
        block.set_submodule(output, WithAdapter(block.get_submodule(output), adapter))
    elif reads is Reads.sum and (norm := _norm_of_sum(block)) is not None:
        block.set_submodule(norm, NormOfAdaptedSum(block.get_submodule(norm), adapter))
    else:
        block.adapter = adapter
        block.register_forward_hook(_with_change)


def _with_change(block: Any, _: object, output: Any) -> Any:
    """Returns a block's output with its adapter's change, alone or before what else the block returns."""
    if isinstance(output, Tensor):
        return output + block.adapter(output)
    return (output[0] + block.adapter(output[0]), *output[1:])


def _separate_dropouts(block: Any, projections: Iterable[str]) -> None:
    """Gives both sublayers a dropout module of their own where the block drops their outputs itself, in place.

    OPT does it by a function, Phi by one module for both: an adapter could not stand behind it.
    """
    by_function, by_module = getattr(block, "dropout", None), getattr(block, "resid_dropout", None)
    if isinstance(by_function, float) and by_function:
        p, block.dropout = by_function, 0.0
    elif isinstance(by_module, nn.Dropout) and by_module.p:
        p, block.resid_dropout = by_module.p, nn.Identity()
    else:
        return
    for name in projections:
        layers = {"base": block.get_submodule(name), "dropout": nn.Dropout(p)}
        block.set_submodule(name, nn.Sequential(OrderedDict(layers)))


def _output(block: nn.Module, place: str, projection: str) -> str:
    """Returns the module of a block that returns what is added to the residual stream."""
    modules = dict(block.named_modules())
    if OUTPUT_NORMS["mlp"] in modules:
        return OUTPUT_NORMS[place]
    dropout = DROPOUTS.get(projection)
    return dropout if dropout in modules else projection


def _refuse_dropout(model: Any, projection: str) -> None:
    """Refuses a model that is not known here and has dropouts of its sublayers' outputs, found behind no projection."""
    config = model.config
    dropped = [
        key for key in dropouts_of(config) if getattr(config, key) and not any(part in key for part in ELSEWHERE)
    ]
    if dropped and not is_counted(config.to_dict()):
        raise InputError(
            f"method.reads=output: an adapter stands behind the dropout of its sublayer, and this {config.model_type} "
            f"has no module for it behind {projection} ({dropped[0]}={getattr(config, dropped[0])}).\n"
            "Give model.dropout=0, or a method that reads more: method=adapter_p or method=adapter_l."
        )


def _norm_of_sum(block: Any) -> str | None:
    """Returns the norm of the residual stream behind a block's feed-forward layers; None if it ends with the sum."""
    if getattr(block, "do_layer_norm_before", True) is False:
        return "final_layer_norm"  # OPT 350M; the others normalise before the feed-forward layers by this name
    modules = dict(block.named_modules())
    return next((name for name in NORMS_OF_SUMS if name in modules), None)
