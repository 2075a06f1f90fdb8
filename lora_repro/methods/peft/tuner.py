"""Puts a tuner of PEFT on a model, in place: training, saving and scoring go on with the model as with any other."""

import inspect
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import peft
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.oft.layer import OFTLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import PeftType
from peft.utils.save_and_load import get_peft_model_state_dict
from torch import nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from lora_repro import draw
from lora_repro.costs.trace import is_without_data, replace_tensors
from lora_repro.errors import InputError
from lora_repro.methods.peft.config import PeftConfig
from lora_repro.models.arch import Arch
from lora_repro.models.fused import FusedLinear
from lora_repro.store.adapter_identity import PEFT_PREFIX

NAME = "default"
"""What PEFT calls an adapter that has no other name."""

_OWNER = "_peft_model"
"""The attribute of a model that refers to PEFT's model around it, past torch's list of submodules."""

log = logging.getLogger(__name__)


def attach(method: PeftConfig, model: nn.Module, arch: Arch, seed: int) -> None:
    """Lets PEFT build its tuner into a model, in place.

    PEFT draws from torch's global generator, which is set for it from the seed and put back. It never sees the head, so
    that it neither adapts nor freezes it. It works on a copy of the frozen weights: those that it leaves as they are
    go back to the shared memory.

    Raises:
        InputError: If PEFT refuses.
    """
    if is_without_data(model):
        _attach_without_data(method, model, arch)
        return
    frozen = {parameter: parameter.data for parameter in model.parameters()}
    for parameter, shared in frozen.items():
        parameter.data = shared.clone()
    with torch.random.fork_rng(devices=[]), _plain(model, arch), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.manual_seed(int(draw.generator("peft", seed).integers(2**62)))
        build(method, model, arch)
    for line in dict.fromkeys(str(each.message) for each in said if issubclass(each.category, UserWarning)):
        log.info("PEFT: %s", line)
    for parameter, shared in frozen.items():
        if parameter.data.equal(shared):
            parameter.data = shared


def _attach_without_data(method: PeftConfig, model: nn.Module, arch: Arch) -> None:
    """Attaches to a model whose memory is estimated, with tensors that PEFT can work on in the place of its own."""
    from lora_repro.methods.peft.skeleton import attached_to_skeleton

    with _plain(model, arch):
        with unset_fake_temporarily(), warnings.catch_warnings():
            device = attached_to_skeleton(method, arch).device
            warnings.simplefilter("ignore")
            replace_tensors(model, device)
            with torch.device(device):
                build(method.without_start(), model, arch)
        replace_tensors(model, "cpu")


def build(method: PeftConfig, model: nn.Module, arch: Arch) -> None:
    """Lets PEFT build its tuner into a model that has no head.

    Raises:
        InputError: If PEFT refuses.
    """
    try:
        owner = peft.PeftModel(model, peft_config(method, arch), NAME)  # pyright: ignore[reportArgumentType]
    except Exception as error:
        raise InputError(
            f"method.peft_type={method.peft_type}: PEFT {peft.__version__} refuses it on this {arch.model_type}: "
            f"{' '.join(str(error).split())}\nGive other keys in method.config, or other method.targets."
        ) from error
    vars(model)[_OWNER] = owner
    _refuse_other_blocks(model)


def _refuse_other_blocks(model: nn.Module) -> None:
    """Refuses blocks of OFT that do not divide a layer's width: PEFT takes others instead, and says so in a warning."""
    config = owner_of(model).peft_config[NAME]
    for name, layer in model.named_modules():
        if isinstance(layer, OFTLayer):
            key, found = ("r", layer.r) if config.r else ("oft_block_size", layer.oft_block_size)
            if (given := getattr(config, key)) != found[NAME]:
                raise InputError(
                    f"method.config.{key}: must divide the width of every layer, and that of {name} is "
                    f"{layer.in_features} (given: {given}).\nThe nearest there is {found[NAME]}."
                )


def peft_config(method: PeftConfig, arch: Arch) -> Any:
    """Returns PEFT's own configuration object, with what follows from the model."""
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(method.peft_type)]
    keys = inspect.signature(kind).parameters
    given = dict(method.keys)
    sites = method.sites_of_targets(arch)
    if sites is not None:
        given["target_modules"] = list(dict.fromkeys(site.module for site in sites))
    elif method.layers is not None:
        given["layers_to_transform"] = method.layers
    elif method.peft_type == "LN_TUNING" and "target_modules" not in given:  # PEFT knows them of few architectures
        given["target_modules"] = norms(arch)
    elif method.peft_type == "TRAINABLE_TOKENS" and "target_modules" not in given:
        given["target_modules"] = [site.module for site in arch.select(["embed"])]
    if "fan_in_fan_out" in keys:
        given["fan_in_fan_out"] = any(site.transposed for site in arch.sites)
    if "total_step" in keys:  # what the run has is said in `after_step`
        given["total_step"] = method.given("tinit") + method.given("tfinal") + 1
    if sites is not None and "feedforward_modules" in keys and "feedforward_modules" not in given:
        given["feedforward_modules"] = [site.module for site in sites if site.role == "down"]
    return kind(**given)


def norms(arch: Arch) -> list[str]:
    """Returns the norms of the backbone: what has a weight that is a vector."""
    weights = (name for name in arch.backbone if name.endswith(".weight") and len(arch.parameters[name]) == 1)
    return [name.removesuffix(".weight") for name in weights]


def owner_of(model: nn.Module) -> Any:
    """Returns PEFT's model around a model."""
    return vars(model)[_OWNER]


def added_modules(model: nn.Module) -> list[nn.Module]:
    """Returns the modules that a tuner has added beside the layers that it adapts."""
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    return [child for layer in layers for name, child in layer.named_children() if name != "base_layer"]


def file_names(method: PeftConfig, model: nn.Module, arch: Arch) -> dict[str, str]:
    """Returns what PEFT's file calls the parameters and buffers that it holds, and the head, by our names.

    Raises:
        InputError: If PEFT saves something that is none of them.
    """
    owner = owner_of(model)
    pattern = getattr(owner.peft_config[NAME], "rank_pattern", None)
    owner.peft_config[NAME].rank_pattern = None  # AdaLoRA's, by which it would cut what it saves
    try:
        state = owner.state_dict(keep_vars=True)
        saved = get_peft_model_state_dict(owner, state, NAME, save_embedding_layers=False)
    finally:
        owner.peft_config[NAME].rank_pattern = pattern
    places = {id(tensor): name for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    names = {name: PEFT_PREFIX + name for name in arch.parameters if arch.is_head(name)}
    for key, tensor in sorted(saved.items(), key=lambda item: len(item[0])):  # of one tensor PEFT's shortest name
        name = places.get(id(tensor))
        if name is None:
            raise InputError(
                f"method.config: with these keys {method.peft_type} of PEFT saves {key}, which is no tensor of the "
                f"model (given: {method.keys}).\nGive others, or another method.peft_type."
            )
        names.setdefault(name, key)
    return names


@contextmanager
def _plain(model: nn.Module, arch: Arch) -> Iterator[None]:
    """Takes the modules of the head out of a model, and its linear layers for torch's; undoes it afterwards."""
    heads = {name: model.get_submodule(name) for name in arch.head_modules}
    fused = [module for module in model.modules() if type(module) is FusedLinear]
    try:
        for module in fused:
            module.__class__ = nn.Linear  # pyright: ignore[reportAttributeAccessIssue]  (some tuners ask for just this class)
        for name in heads:
            _set(model, name, nn.Identity())
        yield
    finally:
        for module in fused:
            module.__class__ = FusedLinear
        for name, module in heads.items():
            _set(model, name, module)


def _set(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
