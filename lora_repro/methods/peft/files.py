"""A tuner's files: the folder that PEFT's save_pretrained would write, and what is read of one."""

import json
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from lora_repro.errors import InputError, MissingInputError, shown
from lora_repro.methods.patterns import chooser
from lora_repro.methods.peft.config import PeftConfig
from lora_repro.methods.peft.prompts import KEY, MODULE, encoded, prompt_config
from lora_repro.methods.peft.skeleton import attached_to_skeleton
from lora_repro.models.arch import Arch
from lora_repro.store.adapter_identity import PEFT_CONFIG, PEFT_PREFIX, PEFT_WEIGHTS
from lora_repro.store.digests import as_written
from lora_repro.store.files import write_atomically
from lora_repro.store.reading import parse_foreign_json
from lora_repro.store.tensors import Saved, read_plain, read_tensors, write_plain

OF_THE_RUN = frozenset(
    {"base_model_name_or_path", "inference_mode", "peft_version", "task_type", "modules_to_save", "auto_mapping"}
    | {"revision", "total_step", "rank_pattern"}
)
"""Keys in which two folders of one method may differ."""


def settings(method: PeftConfig, arch: Arch, base: str | None) -> dict[str, Any]:
    """Returns what adapter_config.json says: every key, with PEFT's defaults, and the modules by their whole names.

    Args:
        method: The method.
        arch: Shapes of the model.
        base: The base as the hub names it; never a path.
    """
    if method.is_prompt:
        config, modules = prompt_config(method, arch), []
    else:
        _, config, modules, _ = attached_to_skeleton(method, arch)
    found = {key: _plain(value) for key, value in config.to_dict().items()}
    if "init_lora_weights" in method.keys:
        found["init_lora_weights"] = method.keys["init_lora_weights"]  # which counting leaves out
    if "target_modules" in found:
        found["target_modules"] = sorted(modules)
    if short := found.get("feedforward_modules"):  # IA3's, which must be among the others
        found["feedforward_modules"] = _feedforward(short, sorted(modules))
    if "total_step" in found and method.run_steps is not None:
        found["total_step"] = method.run_steps
    if "layers_to_transform" in found:
        found["layers_to_transform"] = method.layers if method.layers is not None else found["layers_to_transform"]
    found |= {"task_type": "SEQ_CLS" if arch.head_modules else "CAUSAL_LM", "inference_mode": True}
    return found | {"base_model_name_or_path": base, "modules_to_save": list(arch.head_modules) or None}


def _feedforward(names: str | list[str], modules: Sequence[str]) -> list[str]:
    """Returns which modules IA3 takes to be meant: by a pattern of their whole names, or by ends of names."""
    is_meant = chooser(names) if isinstance(names, str) else lambda module: module.endswith(tuple(map(str, names)))
    return [module for module in modules if is_meant(module)]


def _targets(names: str | list[str], config: Mapping[str, Any], arch: Arch) -> list[str]:
    """Returns the modules of the backbone that PEFT takes `target_modules` to mean, by their whole names.

    Args:
        names: A file's `target_modules`.
        config: Settings that have the same `exclude_modules` and `layers_to_transform`.
        arch: Shapes of the model.
    """
    layers = config.get("layers_to_transform")
    layers = [layers] if isinstance(layers, int) else layers
    is_target, is_excluded = chooser(names), chooser(config.get("exclude_modules"))

    def is_in_layers(module: str) -> bool:
        """Tells whether a layer that is asked for has it: beside whole names and patterns PEFT reads no layers."""
        return not layers or isinstance(names, str) or module in names or arch.layer_of(module) in layers

    modules = {name.rpartition(".")[0] for name in arch.backbone}
    return sorted(each for each in modules if is_target(each) and not is_excluded(each) and is_in_layers(each))


def write(tensors: Mapping[str, Tensor], method: PeftConfig, arch: Arch, folder: Path, base: str | None) -> list[Path]:
    """Writes a folder that PEFT opens on the same base, the head in its `modules_to_save`, and returns its files.

    Of a prompt that an encoder makes, PEFT's file holds the embeddings, and trained.safetensors beside it the encoder.
    AdaLoRA's directions that were cut are in it, with a zero in E; so it has no rank_pattern.
    """
    theirs, more = dict(tensors), []
    if method.has_encoder:
        encoder = {name: theirs.pop(name) for name in tensors if name.startswith(MODULE)}
        theirs[KEY], more = encoded(encoder, method, arch), write_plain(encoder, folder)
    write_atomically(folder / PEFT_WEIGHTS, save(theirs, {"format": "pt"}))
    write_atomically(folder / PEFT_CONFIG, json.dumps(settings(method, arch, base), indent=2, sort_keys=True) + "\n")
    return [folder / PEFT_WEIGHTS, folder / PEFT_CONFIG, *more]


def read(method: PeftConfig, arch: Arch, folder: Path) -> Saved:
    """Reads a folder that `write` wrote, or PEFT with the same settings, however its file names the modules.

    Raises:
        MissingInputError: If files are missing or damaged.
        InputError: If its settings are others than the method's, or it is not what its run wrote.
    """
    path = folder / PEFT_CONFIG
    try:
        theirs = parse_foreign_json(as_written(path).read_bytes())
        if not isinstance(theirs, dict):
            raise ValueError("no settings by name")
    except FileNotFoundError:
        raise MissingInputError(f"{path} is missing.\nGive the folder as PEFT's save_pretrained writes it.") from None
    except ValueError as error:
        raise MissingInputError(f"{path} is damaged ({shown(error)}).\nGive a whole copy of the folder.") from error
    ours = settings(method, arch, None)
    for key in sorted((theirs.keys() | ours.keys()) - OF_THE_RUN):
        mine, other = ours.get(key), theirs.get(key)
        if key == "target_modules" and isinstance(other, str | list):  # behind exclude_modules and layers_to_transform
            other = _targets(other, ours, arch)
        elif key == "feedforward_modules" and isinstance(other, str | list):
            other = _feedforward(other, ours.get("target_modules") or [])
        elif key == "exclude_modules" and isinstance(mine, list) and isinstance(other, list):
            mine, other = sorted(mine), sorted(map(str, other))
        if mine != other:
            raise InputError(
                f"{path}: the adapter has {key} = {shown(str(other))[:200]}, the run {shown(str(mine))[:200]}.\n"
                "Give the adapter's own method.peft_type, method.config, method.targets and method.layers."
            )
    base = theirs.get("base_model_name_or_path")
    weights = folder / PEFT_WEIGHTS
    tensors, files = read_tensors(weights), (weights, path)
    for site in arch.sites:
        if site.role == "embed":  # beside an adapted embed_tokens PEFT saves the frozen table
            tensors.pop(f"{PEFT_PREFIX}{site.module}.base_layer.weight", None)
    if method.has_encoder:
        encoder = read_plain(folder)
        tensors.pop(KEY, None)
        tensors, files = {**tensors, **encoder.tensors}, (*files, *encoder.files)
    return Saved(tensors, weights, files, base if isinstance(base, str) and base else None)


def _plain(value: Any) -> Any:
    """Returns a value as JSON has it."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(value)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
