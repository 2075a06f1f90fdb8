"""What a run trained, on disk: LoRA in PEFT's layout, other methods as plain tensors. Written and read here."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from lora_repro.arch import Arch
from lora_repro.config import PEFT_CONFIG, PEFT_WEIGHTS, Run, adapter_folder
from lora_repro.errors import InputError, MissingInputError
from lora_repro.files import write_atomically
from lora_repro.methods import FullConfig, LoRAConfig
from lora_repro.record import TRAINED, read_result

log = logging.getLogger(__name__)

PEFT_PREFIX = "base_model.model."


def save_adapter(model: nn.Module, run: Run, folder: Path, keep_full: bool) -> None:
    """Writes the trained tensors into a run's directory.

    LoRA goes to `adapter/`, a folder that PEFT opens on the same base, the head in its `modules_to_save`. Of other
    methods `trained.safetensors` holds what was trained, of full fine-tuning only where `keep_full` asks for it.
    """
    if isinstance(run.method, LoRAConfig):
        (folder / "adapter").mkdir(exist_ok=True)
        write_atomically(folder / "adapter" / PEFT_WEIGHTS, save(trained_tensors(model, run)))
        config = json.dumps(_peft_config(run, run.method), indent=2)
        write_atomically(folder / "adapter" / PEFT_CONFIG, config + "\n")
    elif keep_full or not isinstance(run.method, FullConfig):
        write_atomically(folder / TRAINED, save(trained_tensors(model, run)))


def save_snapshot(model: nn.Module, run: Run, path: Path, step: int) -> None:
    """Writes the trained tensors as they are now, under the names that `save_adapter` gives them.

    The metadata has one key: safetensors writes several in random order.
    """
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, save(trained_tensors(model, run), {"step": str(step)}))


def trained_tensors(model: nn.Module, run: Run) -> dict[str, Tensor]:
    """Returns what is trained, by the names of files: PEFT's for LoRA, the model's own otherwise."""
    names = _peft_names(run.method, run.arch) if isinstance(run.method, LoRAConfig) else {}
    return {
        names.get(name, name): parameter.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def load_adapter(model: nn.Module, run: Run, given: str, outputs: str) -> None:
    """Copies an adapter, and its head, into a model that has the run's method attached, in place.

    Args:
        model: The model to fill.
        run: Its run; method and shapes must be the adapter's.
        given: A run id (looked for in `outputs`), a run directory, or a PEFT folder.
        outputs: The store.

    Raises:
        MissingInputError: If there is no such adapter.
        InputError: If it is of another method, rank or scale, or a run on other weights.
    """
    folder = adapter_folder(given)
    if not folder.is_dir():
        folder = Path(outputs) / "runs" / given
    if not folder.is_dir():
        raise MissingInputError(
            f"train.init_from: no run {given} in {outputs}/runs. Compute it first, or give its directory."
        )
    if (folder / "config.yaml").is_file():
        result = read_result(folder).result
        if result is None:
            raise MissingInputError(f"train.init_from: the run {folder.name} is not finished. Compute it first.")
        base = result["config"]["model"]
        if base["digest"] != run.model.digest:
            raise InputError(
                f"train.init_from: the run {folder.name} adapts other weights: {base['name']}, {base['digest'][:10]} "
                f"(here: {run.model.name}, {run.model.digest[:10]}).\nGive the run's own: model={base['name']}"
                + (" and its paths.model" if base["name"] == "local" else "")
            )
        folder = folder / "adapter" if (folder / "adapter").is_dir() else folder
    method = run.method
    if isinstance(method, LoRAConfig):
        _check_peft_config(folder, method)
        names, path = _peft_names(method, run.arch), folder / PEFT_WEIGHTS
    else:
        names, path = {name: name for name, p in model.named_parameters() if p.requires_grad}, folder / TRAINED
    if not path.is_file():
        raise MissingInputError(
            f"train.init_from: {folder} holds no {path.name}, which method={method.name} would start from.\n"
            "Full fine-tuning keeps no weights; give the run of another method, or choose that run's method."
        )
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise MissingInputError(f"train.init_from: {path} is damaged ({error}).\nGive a whole copy of it.") from error
    found = {name: tensors.pop(key) for name, key in names.items() if key in tensors}
    if not all(name in found for name in names if run.arch.is_head(name)):
        if not run.train.epochs:
            raise InputError(
                f"train.init_from: {path} holds no trained head, so there is nothing to score.\n"
                "Train from it (train.epochs=1 or more), or save it with the head in modules_to_save."
            )
        log.warning("%s holds no trained head; the head starts anew.", path)
    _copy(model, found, run.arch, names)
    if tensors:
        raise InputError(
            f"train.init_from: {path} holds {len(tensors)} tensors that method={method.label} has no place for, "
            f"first {next(iter(tensors))}.\nIt belongs to other targets or another base."
        )


def _copy(model: nn.Module, tensors: Mapping[str, Tensor], arch: Arch, names: Mapping[str, str]) -> None:
    parameters = dict(model.named_parameters())
    absent = [name for name in names if name not in tensors and not arch.is_head(name)]
    if absent:
        raise InputError(
            f"train.init_from: the adapter lacks {len(absent)} tensors, first {names[absent[0]]}.\n"
            "Give method.targets as the adapter has them, or a whole copy of it."
        )
    for name, tensor in tensors.items():
        if tensor.shape != parameters[name].shape:
            raise InputError(
                f"train.init_from: {names[name]} has shape {tuple(tensor.shape)}, this model needs "
                f"{tuple(parameters[name].shape)}. Choose the adapter's own base, task and method."
            )
        if not tensor.isfinite().all():
            raise InputError(
                f"train.init_from: {names[name]} holds values that are not finite.\nGive one that did not diverge."
            )
        with torch.no_grad():
            parameters[name].copy_(tensor)


def _peft_names(method: LoRAConfig, arch: Arch) -> dict[str, str]:
    """Maps our parameters' names to PEFT's."""
    names = {name: PEFT_PREFIX + name for name in arch.parameters if arch.is_head(name)}
    for site in arch.select(method.targets):
        for matrix in ("lora_A", "lora_B"):
            names[f"{site.module}.updates.{site.letter}.{matrix}"] = f"{PEFT_PREFIX}{site.module}.{matrix}.weight"
    return names


def _peft_config(run: Run, method: LoRAConfig) -> dict[str, Any]:
    """Returns adapter_config.json; the base is named as the hub does, never by a path."""
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": run.model.hub or run.model.name,
        "r": method.r,
        "lora_alpha": method.alpha,
        "lora_dropout": method.dropout,
        "target_modules": [site.module for site in run.arch.select(method.targets)],
        "modules_to_save": list(run.arch.head_modules),
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "inference_mode": True,
    }


def _check_peft_config(folder: Path, method: LoRAConfig) -> None:
    """Refuses an adapter whose rank or scale is not the run's: its tensors would fit, its output would not."""
    try:
        config = json.loads((folder / PEFT_CONFIG).read_text())
        r, alpha = int(config["r"]), float(config["lora_alpha"])
    except FileNotFoundError:
        raise MissingInputError(
            f"train.init_from: {folder} holds no {PEFT_CONFIG}, and without it the adapter's scale is unknown."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise MissingInputError(
            f"train.init_from: {folder / PEFT_CONFIG} is damaged ({error!r}).\n"
            "Give it as PEFT's save_pretrained writes it."
        ) from error
    if config.get("peft_type", "LORA") != "LORA":
        raise InputError(f"train.init_from: the adapter is PEFT's {config['peft_type']}.\nGive a LoRA adapter.")
    for key in ("rank_pattern", "alpha_pattern", "use_rslora", "use_dora"):
        if config.get(key):
            raise InputError(
                f"train.init_from: the adapter uses PEFT's {key}, which method=lora does not have.\n"
                "Give an adapter without it."
            )
    if (r, alpha) != (method.r, method.alpha):
        raise InputError(
            f"train.init_from: the adapter has r = {r} and alpha = {alpha:g}, the run r = {method.r} and alpha = "
            f"{method.alpha:g}.\nGive the adapter's: method.r={r} method.alpha={alpha:g}"
        )
