"""What a run trained, on disk: LoRA in PEFT's layout, other methods as plain tensors. Written and read here."""

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from lora_repro.adapter_names import FACTORS, PEFT_PREFIX, factor_name
from lora_repro.arch import Arch, Site
from lora_repro.config import PEFT_CONFIG, PEFT_WEIGHTS, Run, adapter_folder
from lora_repro.errors import InputError, MissingInputError
from lora_repro.files import write_atomically
from lora_repro.methods import FullConfig, LoRAConfig
from lora_repro.methods.lora_layers import features_of, rows_in
from lora_repro.record import TRAINED, read_result

log = logging.getLogger(__name__)


def save_adapter(model: nn.Module, run: Run, folder: Path, keep_full: bool) -> None:
    """Writes the trained tensors into a run's directory.

    LoRA goes to `adapter/`, a folder that PEFT opens on the same base, the head in its `modules_to_save`. PEFT has one
    update for a fused layer: there its A is ours stacked, its B ours block by block, and our own factors lie beside.
    Of other methods `trained.safetensors` holds what was trained, of full fine-tuning only where `keep_full` asks.
    """
    if isinstance(run.method, LoRAConfig):
        (folder / "adapter").mkdir(exist_ok=True)
        tensors = trained_tensors(model, run)
        if fused := _fused(run.method, run.arch):
            write_atomically(folder / "adapter" / FACTORS, save(tensors))
            tensors = _stacked(tensors, fused, run.method)
        write_atomically(folder / "adapter" / PEFT_WEIGHTS, save(tensors))
        config = json.dumps(_peft_config(run, run.method), indent=2)
        write_atomically(folder / "adapter" / PEFT_CONFIG, config + "\n")
    elif keep_full or not isinstance(run.method, FullConfig):
        write_atomically(folder / TRAINED, save(trained_tensors(model, run)))


def save_snapshot(model: nn.Module, run: Run, path: Path, step: int) -> None:
    """Writes the trained tensors as they are now, under the names that `trained_tensors` gives them.

    The metadata has one key: safetensors writes several in random order.
    """
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, save(trained_tensors(model, run), {"step": str(step)}))


def trained_tensors(model: nn.Module, run: Run) -> dict[str, Tensor]:
    """Returns what is trained (and a frozen A), by the names of files: PEFT's for LoRA, else the model's own.

    The factors of a fused layer's matrices, which PEFT does not know, have the letter in their name.
    """
    names = _peft_names(run.method, run.arch) if isinstance(run.method, LoRAConfig) else {}
    return {
        names.get(name, name): parameter.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad or name in names
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
        result, problem, _ = read_result(folder)
        if result is None:
            why = problem if problem is not None else f"the run {folder.name} is not finished."
            raise MissingInputError(f"train.init_from: {why} Compute it first.")
        base = result["config"]["model"]
        if base["digest"] != run.model.digest:
            raise InputError(
                f"train.init_from: the run {folder.name} adapts other weights: {base['name']}, {base['digest'][:10]} "
                f"(here: {run.model.name}, {run.model.digest[:10]}).\nGive the run's own: model={base['name']}"
                + (" and its paths.model" if base["name"] == "local" else "")
            )
        folder = folder / "adapter" if (folder / "adapter").is_dir() else folder
    method = run.method
    fused: dict[str, list[Site]] = {}
    if isinstance(method, LoRAConfig):
        names, path, fused = _peft_names(method, run.arch), folder / PEFT_WEIGHTS, _fused(method, run.arch)
        if fused and (folder / FACTORS).is_file():
            path, fused = folder / FACTORS, {}
        _check_peft_config(folder, run, method, stacked=path.name == FACTORS)
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
    if fused:
        tensors = _split(tensors, fused, path)
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


def _fused(method: LoRAConfig, arch: Arch) -> dict[str, list[Site]]:
    """Returns the adapted sites of each layer that computes several matrices at once, by module."""
    fused: dict[str, list[Site]] = {}
    for site in arch.select(method.targets):
        if site.part is not None:
            fused.setdefault(site.module, []).append(site)
    return fused


def _peft_names(method: LoRAConfig, arch: Arch) -> dict[str, str]:
    """Maps our parameters' names to those of files."""
    names = {name: PEFT_PREFIX + name for name in arch.parameters if arch.is_head(name)}
    adapted = set()
    for site in arch.select(method.targets):
        adapted.add(site.module)
        for matrix in ("lora_A", "lora_B"):
            names[f"{site.module}.updates.{site.letter}.{matrix}"] = factor_name(site, matrix, site.part is not None)
    for name in method.unfrozen(arch):
        module = name.removesuffix(".bias")
        if module in adapted:
            names[f"{module}.base.bias"] = f"{PEFT_PREFIX}{module}.base_layer.bias"
        else:
            names[name] = PEFT_PREFIX + name
    return names


def _stacked(
    tensors: Mapping[str, Tensor], fused: Mapping[str, Sequence[Site]], method: LoRAConfig
) -> dict[str, Tensor]:
    """Makes one update of each fused layer's: A stacked, B in blocks; scales that differ go into B."""
    stacked = dict(tensors)
    for sites in fused.values():
        first = method.scaling_of(sites[0])
        A, blocks = [], []
        ranks = [method.r_of(site) for site in sites]
        for position, site in enumerate(sites):
            A.append(stacked.pop(factor_name(site, "lora_A", own=True)))
            B = stacked.pop(factor_name(site, "lora_B", own=True)) * (method.scaling_of(site) / first)
            assert site.part is not None
            columns = torch.zeros(site.features, sum(ranks))
            begin = sum(ranks[:position])
            features_of(columns, site.part)[..., begin : begin + ranks[position]] = rows_in(B, site.part)
            blocks.append(columns)
        stacked[factor_name(sites[0], "lora_A", own=False)] = torch.cat(A)
        stacked[factor_name(sites[0], "lora_B", own=False)] = torch.stack(blocks).sum(0)
    return stacked


def _split(tensors: Mapping[str, Tensor], fused: Mapping[str, Sequence[Site]], path: Path) -> dict[str, Tensor]:
    """Makes updates of q, k, v from PEFT's one update of a fused layer: the same A for all, the rows of B for each.

    Raises:
        InputError: If it also changes a matrix that is not adapted here.
    """
    split = dict(tensors)
    for module, sites in fused.items():
        A, B = (split.pop(factor_name(sites[0], matrix, own=False), None) for matrix in ("lora_A", "lora_B"))
        if A is None or B is None:
            continue  # told by whoever looks for the factors
        rest = B.clone()
        for site in sites:
            if len(B) != site.features:
                raise InputError(
                    f"train.init_from: lora_B of {module} in {path} has {len(B)} rows, this model's layer "
                    f"{site.features} features.\nGive an adapter of this base."
                )
            split[factor_name(site, "lora_A", own=True)] = A.clone()
            split[factor_name(site, "lora_B", own=True)] = features_of(B, site.part).flatten(0, 1).contiguous()
            features_of(rest, site.part).zero_()
        if rest.any():
            raise InputError(
                f"train.init_from: PEFT's update of {module} in {path} changes q, k and v.\n"
                "Give them all: method.targets=[q,k,v]"
            )
    return split


def _peft_config(run: Run, method: LoRAConfig) -> dict[str, Any]:
    """Returns adapter_config.json; the base is named as the hub does, never by a path."""
    sites = run.arch.select(method.targets)
    ranks: dict[str, int] = {}
    scalings: dict[str, float] = {}
    for site in sites:
        ranks[site.module] = ranks.get(site.module, 0) + method.r_of(site)
        scalings.setdefault(site.module, method.scaling_of(site))
    alphas = {module: scalings[module] * r for module, r in ranks.items()}
    r, alpha = ranks[sites[0].module], alphas[sites[0].module]
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if run.arch.head_modules else "CAUSAL_LM",
        "base_model_name_or_path": run.model.hub or run.model.name,
        "r": r,
        "rank_pattern": {module: other for module, other in ranks.items() if other != r},
        "lora_alpha": alpha,
        "alpha_pattern": {module: other for module, other in alphas.items() if other != alpha},
        "lora_dropout": method.dropout,
        "target_modules": list(ranks),
        "modules_to_save": list(run.arch.head_modules) or None,
        "bias": method.bias.value,
        "fan_in_fan_out": any(site.transposed for site in sites),
        "use_rslora": False,  # its scale is in lora_alpha
        "inference_mode": True,
    }


def _check_peft_config(folder: Path, run: Run, method: LoRAConfig, stacked: bool) -> None:
    """Refuses an adapter whose rank or scale is not the run's: its tensors would fit, its output would not."""
    try:
        config = json.loads((folder / PEFT_CONFIG).read_text())
        r, alpha = int(config["r"]), float(config["lora_alpha"])
        patterns = [dict(config.get(key) or {}) for key in ("rank_pattern", "alpha_pattern")]
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
    if config.get("use_dora"):
        raise InputError(
            "train.init_from: the adapter uses PEFT's use_dora, which method=lora does not have.\n"
            "Give an adapter without it."
        )
    if config.get("layer_replication"):
        raise InputError(
            "train.init_from: the adapter has PEFT's layer_replication: it was trained in a model of other "
            "layers, each a copy of one of the base's.\nGive an adapter without it."
        )
    ours = _peft_config(run, method)
    plain = not (any(patterns) or config.get("use_rslora") or ours["rank_pattern"] or ours["alpha_pattern"])
    if plain and not stacked and not method.rslora and (r, alpha) != (method.r, method.alpha):
        raise InputError(
            f"train.init_from: the adapter has r = {r} and alpha = {alpha:g}, the run r = {method.r} and alpha = "
            f"{method.alpha:g}.\nGive the adapter's: method.r={r} method.alpha={alpha:g}"
        )
    for site in run.arch.select(method.targets):
        if stacked and site.part is not None:
            theirs, mine = _rank_and_scale(config, site.module), _rank_and_scale(ours, site.module)
        else:
            theirs, mine = _rank_and_scale(config, site.module), (method.r_of(site), method.scaling_of(site))
        if theirs[0] != mine[0] or not math.isclose(theirs[1], mine[1]):
            raise InputError(
                f"train.init_from: at {site.module} the adapter has rank {theirs[0]} and scale {theirs[1]:g}, the run "
                f"{mine[0]} and {mine[1]:g}.\nGive the adapter's method.r, r_pattern, alpha and rslora."
            )


def _rank_and_scale(config: Mapping[str, Any], module: str) -> tuple[int, float]:
    """Returns the rank and the scale of PEFT's update of a module; its patterns end like the module's name."""

    def of(pattern: str, default: str) -> Any:
        given = config.get(pattern) or {}
        return next((given[key] for key in given if re.fullmatch(rf"(.*\.)?({key})", module)), config[default])

    r = int(of("rank_pattern", "r"))
    return r, float(of("alpha_pattern", "lora_alpha")) / (math.sqrt(r) if config.get("use_rslora") else r)
