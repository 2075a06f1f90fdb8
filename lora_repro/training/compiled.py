"""Compiles the blocks of a model with torch.compile for training, where a run is long enough to earn what that costs.

Measured on CPUs with bf16 products: a step of smollm2 takes a third less time, as RMSNorm, rotary positions and SwiGLU
are many small passes over memory; the first compilation takes a minute and a later process 15 s. For the encoders the
gain is 2 to 10 percent, so they are not compiled. Scoring is never compiled: it would have to be compiled again.
"""

import importlib
import os
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lora_repro.config.schema import Run
from lora_repro.config.settings import Settings
from lora_repro.errors import InputError
from lora_repro.models.precision import Products, products_of

FAMILIES = ("llama",)
"""Models that gain: all their blocks are alike and lie in `model.base_model.layers`."""
STEPS = 200
"""Steps of training from which on it pays even where nothing is cached."""


def compile_blocks(model: nn.Module, run: Run, settings: Settings, steps: int, device: torch.device) -> bool:
    """Lets the blocks of a model be compiled at their first training step, in place, if that pays or is asked for.

    Args:
        model: The model, with its method attached.
        run: Its run.
        settings: `compute.compile` and where the cache is.
        steps: Optimizer steps of the whole run, and not only of what is left: a resumed run does as before.
        device: Where the run is trained.

    Returns:
        Whether they will be compiled, which decides the bits of the results.

    Raises:
        InputError: If it is asked for and not possible.
    """
    asked = settings.compute.compile
    if asked is False or (asked is None and steps < STEPS):
        return False
    in_bf16 = device.type == "cpu" and products_of(run.train.dtype, device) is Products.bf16
    is_possible = run.arch.model_type in FAMILIES and run.method.can_be_compiled
    if not (is_possible and in_bf16 and _has_compiler()):
        if asked is None:
            return False
        raise InputError(
            f"compute.compile: true, but model={run.model.name} cannot be compiled here: that needs a model of the "
            f"kind {', '.join(FAMILIES)} (given: {run.arch.model_type}), a method that leaves its attention as it is "
            f"(given: {run.method.label}), a CPU that multiplies in bf16, and a C++ compiler with Python's header "
            "files.\nLeave compute.compile out."
        )
    _set_up(Path(settings.paths.cache).expanduser() / "compiled")
    body: Any = model.base_model
    for block in body.layers:
        block.__class__ = _compiled_kind(type(block))
    return True


@cache
def _has_compiler() -> bool:
    from torch._inductor import cpp_builder, exc

    try:
        has_headers = Path(sysconfig.get_path("include"), "Python.h").is_file()
        return has_headers and bool(cpp_builder.get_cpp_compiler())
    except exc.InvalidCxxCompiler:
        return False


def _set_up(folder: Path) -> None:
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
    dynamo: Any = importlib.import_module("torch._dynamo.config")
    inductor: Any = importlib.import_module("torch._inductor.config")
    inductor.compile_threads = 1  # no processes of its own, which would outlive an interrupted run
    dynamo.recompile_limit = dynamo.accumulated_recompile_limit = 10**6  # beyond it, torch would silently not compile
    dynamo.fail_on_recompile_limit_hit = True


@cache
def _compiled_kind(kind: type[nn.Module]) -> type[nn.Module]:
    @cache
    def compiled() -> Any:
        return torch.compile(kind.forward, dynamic=True)  # which imports its compiler

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        chosen = compiled() if self.training and torch.is_grad_enabled() else kind.forward
        return chosen(self, *args, **kwargs)

    return type(kind.__name__, (kind,), {"forward": forward})
