"""A model that has an architecture's layers and no data, on which PEFT's tuners are counted."""

import warnings
from math import prod
from typing import Any, NamedTuple

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from lora_repro.errors import InputError
from lora_repro.methods.base import Count
from lora_repro.methods.peft.config import PeftConfig
from lora_repro.methods.peft.not_offered import refuse_idle_patterns
from lora_repro.methods.peft.tuner import NAME, build, file_names, owner_of
from lora_repro.models.arch import Arch


class Attached(NamedTuple):
    """What a tuner is on an architecture."""

    counted: Count
    config: Any
    """PEFT's configuration, as the tuner has completed it."""
    modules: list[str]
    """The modules that it adapts."""
    device: str
    """Where it can be built without a model's weights: meta, or cpu if it looks at values that it has drawn."""


def attached_to_skeleton(method: PeftConfig, arch: Arch) -> Attached:
    """Attaches a tuner to a model without data.

    Raises:
        InputError: If PEFT refuses.
    """
    settings = (method.peft_type, repr(method.config), repr(method.targets), repr(method.layers))
    key = (*settings, arch.model_type, arch.sites, tuple(arch.parameters.items()))
    if key not in _known:
        _known[key] = _attached(method, arch)
    return _known[key]


_known: dict[tuple[Any, ...], Attached] = {}
"""What was attached in this process: a sweep counts the same tuner for each seed."""


def _attached(method: PeftConfig, arch: Arch) -> Attached:
    method = method.without_start()
    device = "meta"
    try:
        model = _built(method, arch, device)
    except InputError as error:
        if not isinstance(error.__cause__, RuntimeError):
            raise
        model = None
    if model is None or _has_plain_tensors(model):
        device = "cpu"
        model = _built(method, arch, device)
    by_module: dict[str, int] = {}
    sites = {site.module: site.name for site in arch.sites if site.part is None}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            module = name.partition(f".{NAME}")[0].rpartition(".")[0]
            by_module[sites.get(module, module)] = by_module.get(sites.get(module, module), 0) + parameter.numel()
    total = sum(parameter.numel() for parameter in model.parameters()) + arch.head_size
    owner = owner_of(model)
    modules = list(getattr(owner.base_model, "targeted_module_names", []))
    file_names(method, model, arch)  # refuses what could not be saved
    refuse_idle_patterns(method.peft_type, method.keys, modules)
    _refuse_other_layers(method, arch, modules)
    count = Count(sum(by_module.values()), arch.head_size, total, by_module)
    return Attached(count, owner.peft_config[NAME], modules, device)


def _refuse_other_layers(method: PeftConfig, arch: Arch, modules: list[str]) -> None:
    """Refuses modules outside the layers that are asked for: beside whole names and patterns PEFT reads no layers.

    Raises:
        InputError: With the first of them.
    """
    asked = method.layers if method.layers is not None else method.keys.get("layers_to_transform")
    if method.targets is not None or asked is None:
        return
    layers = {asked} if isinstance(asked, int) else {*asked}
    if (other := next((module for module in modules if arch.layer_of(module) not in layers), None)) is not None:
        key = "method.layers" if method.layers is not None else "method.config.layers_to_transform"
        raise InputError(
            f"{key}: {method.peft_type} of PEFT does not read it beside these target_modules, and would adapt {other} "
            f"(given: {asked}).\nGive method.targets and method.layers, or the short names of modules: [query]."
        )


def _has_plain_tensors(model: nn.Module) -> bool:
    """Tells whether a layer of the tuner keeps tensors that are neither parameters nor buffers."""
    own = {"_parameters", "_buffers"}
    return any(
        isinstance(each, torch.Tensor)
        for layer in model.modules()
        if isinstance(layer, BaseTunerLayer)
        for name, value in vars(layer).items()
        if name not in own
        for each in (value.values() if isinstance(value, dict) else [value])
    )


def _built(method: PeftConfig, arch: Arch, device: str) -> nn.Module:
    with torch.device(device), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = skeleton(arch)
        build(method, model, arch)
    return model


def skeleton(arch: Arch) -> nn.Module:
    """Returns a model with the layers of the backbone under their names, everything frozen."""
    model = _Skeleton(arch.model_type)
    sites = {site.module: site for site in arch.sites}
    modules: dict[str, list[str]] = {}
    for name in arch.backbone:
        modules.setdefault(name.rpartition(".")[0], []).append(name.rpartition(".")[2])
    for module, names in modules.items():
        parent: nn.Module = model
        *parents, last = module.split(".")
        for part in parents:
            if part not in parent._modules:
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        layer = _layer(module, {name: arch.parameters[f"{module}.{name}"] for name in names}, sites)
        parent.add_module(last, layer)
    return model.requires_grad_(False)


def _layer(module: str, shapes: dict[str, tuple[int, ...]], sites: dict[str, Any]) -> nn.Module:
    weight, site = shapes.get("weight", ()), sites.get(module)
    if {*shapes} <= {"weight", "bias"} and len(weight) == 2:
        if (site is not None and site.layer is None) or "embed" in module or module.endswith(("wte", "wpe")):
            return nn.Embedding(*weight)
        if site is not None and site.transposed:
            return Conv1D(weight[1], weight[0])
        return nn.Linear(weight[1], weight[0], bias="bias" in shapes)
    if {*shapes} <= {"weight", "bias"} and len(weight) == 1:
        return nn.LayerNorm(prod(weight), bias="bias" in shapes)
    layer = nn.Module()
    for name, shape in shapes.items():
        layer.register_parameter(name, nn.Parameter(torch.empty(shape)))
    return layer


class _Skeleton(nn.Module):
    """What PEFT asks of a model of transformers."""

    is_gradient_checkpointing = False

    def __init__(self, model_type: str) -> None:
        super().__init__()
        self.config = {"model_type": model_type}

    def forward(self) -> None:
        """Has nothing to compute with."""
