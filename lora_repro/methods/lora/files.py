"""LoRA's files: a folder that PEFT opens, and beside it our own factors of fused layers.

PEFT has one update for a fused layer: there its A is ours stacked, its B ours block by block. Our own factors are in a
second file, under names with the matrix in them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from lora_repro.errors import InputError
from lora_repro.methods.lora.config import LoRAConfig
from lora_repro.methods.lora.names import FACTORS, factor_name
from lora_repro.methods.lora.peft import check_settings, settings
from lora_repro.models.arch import Arch, Site
from lora_repro.models.parts import features_of, rows_in
from lora_repro.store.adapter_identity import PEFT_CONFIG, PEFT_PREFIX, PEFT_WEIGHTS
from lora_repro.store.digests import as_written
from lora_repro.store.files import write_atomically
from lora_repro.store.tensors import Saved, read_tensors

PEFT_COPIES = ("modules_to_save", "original_module")
"""Names below a module of the head under which PEFT saves its biases once more where all biases are trained, and under
which it does not read them."""


def file_names(method: LoRAConfig, arch: Arch) -> dict[str, str]:
    """Returns what the files call the head, the factors and the trained biases, by our parameters' names."""
    names = {name: PEFT_PREFIX + name for name in arch.parameters if arch.is_head(name)}
    adapted = set()
    for site in method.sites(arch):
        adapted.add(site.module)
        for matrix in ("lora_A", "lora_B"):
            names[f"{site.module}.updates.{site.role}.{matrix}"] = factor_name(site, matrix, site.part is not None)
    for name in method.unfrozen(arch):
        module = name.removesuffix(".bias")
        if module in adapted:
            names[f"{module}.base.bias"] = f"{PEFT_PREFIX}{module}.base_layer.bias"
        else:
            names[name] = PEFT_PREFIX + name
    return names


def write(tensors: Mapping[str, Tensor], method: LoRAConfig, arch: Arch, folder: Path, base: str | None) -> list[Path]:
    """Writes a folder that PEFT opens on the same base, the head in its `modules_to_save`, and returns its files.

    Args:
        tensors: All that is saved, by the names of `file_names`.
        method: The method.
        arch: Shapes of the model.
        folder: An existing folder.
        base: The base as the hub names it.
    """
    written = [folder / PEFT_WEIGHTS, folder / PEFT_CONFIG]
    if fused := _fused(method, arch):
        written.append(folder / FACTORS)
        write_atomically(folder / FACTORS, save(dict(tensors)))
        tensors = _stacked(tensors, fused, method)
    write_atomically(folder / PEFT_WEIGHTS, save(dict(tensors)))
    write_atomically(folder / PEFT_CONFIG, json.dumps(settings(arch, method, base), indent=2) + "\n")
    return written


def read(method: LoRAConfig, arch: Arch, folder: Path) -> Saved:
    """Reads a folder that `write`, or PEFT, wrote.

    Raises:
        MissingInputError: If files are missing or damaged.
        InputError: If the adapter has another rank, scale or start than the method, changes a matrix that the method
            does not, or is not what its run wrote.
    """
    weights, factors = folder / PEFT_WEIGHTS, folder / FACTORS
    fused = _fused(method, arch)
    has_factors = bool(fused) and factors.is_file()
    base = check_settings(as_written(folder / PEFT_CONFIG), arch, method, stacked=has_factors)
    tensors = read_tensors(weights)
    if has_factors:
        stacked, tensors = tensors, read_tensors(factors)
        _refuse_other_factors(stacked, tensors, fused, method, factors)
    elif fused:
        tensors = _split(tensors, fused, weights)
    copies = tuple(f"{PEFT_PREFIX}{module}.{kind}." for module in arch.head_modules for kind in PEFT_COPIES)
    tables = (site.module for site in arch.sites if site.role == "embed")  # PEFT saves that of an adapted embed_tokens
    copies += tuple(f"{PEFT_PREFIX}{module}.base_layer.weight" for module in tables)
    tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(copies)}
    files = (weights, folder / PEFT_CONFIG, *[factors] * has_factors)
    return Saved(tensors, factors if has_factors else weights, files, base)


def _fused(method: LoRAConfig, arch: Arch) -> dict[str, list[Site]]:
    """Returns the adapted sites of each layer that computes several matrices at once, by module."""
    fused: dict[str, list[Site]] = {}
    for site in method.sites(arch):
        if site.part is not None:
            fused.setdefault(site.module, []).append(site)
    return fused


def _refuse_other_factors(
    stacked: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    fused: Mapping[str, Sequence[Site]],
    method: LoRAConfig,
    path: Path,
) -> None:
    """Refuses factors of fused layers that are not those of the file beside, by which the adapter is identified."""
    try:
        expected = _stacked(own, fused, method)
        is_same = expected.keys() == stacked.keys() and all(expected[key].equal(stacked[key]) for key in expected)
    except (KeyError, RuntimeError):  # a factor is missing, or of another shape
        is_same = False
    if not is_same:
        raise InputError(
            f"{path} does not hold the same adapter as {PEFT_WEIGHTS} beside it.\n"
            f"Give a whole copy of the folder, or one without {FACTORS}."
        )


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
            continue  # store.adapter refuses a file without its factors
        rest = B.clone()
        for site in sites:
            if len(B) != site.features:
                raise InputError(
                    f"lora_B of {module} in {path} has {len(B)} rows, this model's layer "
                    f"{site.features} features.\nGive an adapter of this base."
                )
            split[factor_name(site, "lora_A", own=True)] = A.clone()
            split[factor_name(site, "lora_B", own=True)] = features_of(B, site.part).flatten(0, 1).contiguous()
            features_of(rest, site.part).zero_()
        if rest.any():
            raise InputError(
                f"PEFT's update of {module} in {path} changes q, k and v.\nGive them all: method.targets=[q,k,v]"
            )
    return split
