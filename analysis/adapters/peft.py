"""PEFT's folders: adapter_config.json says the scale, adapter_model.safetensors or .bin holds the factors."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from analysis.adapters.backbone import Backbone, arch_named, base_doubt, model_named, refuse_other_base
from analysis.adapters.base import Adapter, Options, from_law, matrices
from analysis.adapters.beside import vector_note
from analysis.adapters.layouts import FileContents, alpha_of, factors, find, refuse_misfits, rotary_note, widths
from analysis.adapters.loralib import read_loralib
from analysis.adapters.names import BLOCKS, FUSED, named
from analysis.adapters.peft_config import notes_on, refuse_other_kind, scaling, start_variance
from analysis.adapters.products import matrices_of, names, rank_of
from analysis.adapters.replication import replicated, replication_note
from analysis.adapters.tensors import Tensors, open_tensors
from lora_repro.errors import InputError, MissingInputError, shown
from lora_repro.methods.lora.peft_settings import PeftLoRA, lora_settings
from lora_repro.store.adapter_identity import PEFT_CONFIG, PEFT_WEIGHTS

_WEIGHTS = (PEFT_WEIGHTS, "adapter_model.bin", "adapter_model.pt")

EPOCHS = "adapter_[0-9]*.pt"
"""torchtune's files beside settings in PEFT's words, one for each epoch."""

_NAMES = {"ADALORA": ("init_r", "lora_alpha"), "LOHA": ("r", "alpha"), "LOKR": ("r", "alpha")}
"""What r and alpha are called in the settings of methods that are not LoRA."""


def is_peft(folder: Path) -> bool:
    """Returns whether a folder is PEFT's."""
    return (folder / PEFT_CONFIG).is_file()


def read_peft(
    folder: Path,
    content: Mapping[str, Any],
    given: str,
    backbone: Backbone,
    options: Options,
    weights: Path | None = None,
) -> Adapter:
    """Opens a PEFT folder.

    Args:
        folder: The folder.
        content: What its adapter_config.json holds.
        given: What the user calls it.
        backbone: Its base, as far as it is known.
        options: Of the command line.
        weights: The file of factors in it; None for the one that is there.

    Raises:
        InputError: If it is damaged, of a kind that is not read here, or its shapes contradict its settings.
    """
    settings = folder / PEFT_CONFIG
    kind = str(content.get("peft_type") or "LORA")
    refuse_other_kind(kind, str(settings))
    path = weights if weights is not None else _weights_in(folder)
    if kind == "ADALORA":  # which directions are left, as lists of true and false; patterns it has none
        content = {**content, "rank_pattern": None, "alpha_pattern": None}
    rank, alpha = _NAMES.get(kind, ("r", "lora_alpha"))
    config = lora_settings(content, str(settings), rank, alpha)
    tensors = open_tensors(path)
    found = find(tensors, ["PEFT", "torchtune", "loralib"])
    if found is None:
        raise InputError(
            f"{path}: holds no lora_A and lora_B (its first tensor: {shown(next(iter(tensors.shapes), 'none'))}).\n"
            "Give a folder as PEFT's save_pretrained writes it."
        )
    if config.given.get("enable_lora"):
        return _grouped(tensors, given, found, backbone, options, config)
    refuse_misfits(tensors, found.pairs)
    base = config.given.get("base_model_name_or_path")
    refuse_other_base(backbone, model_named(base), "the adapter")
    doubts = base_doubt(backbone, base)
    if backbone.arch is None:
        backbone = Backbone(arch_named(base), backbone.open_weights)
    backbone = replicated(backbone, config.given.get("layer_replication"), settings)
    members = []
    for pair in found.pairs:
        d_in, r, _, d_out = widths(tensors, pair)
        scale = scaling(config, pair.module, r)
        own = alpha_of(tensors, pair)
        if own is not None and not math.isclose(own / r, scale):
            raise InputError(
                f"{path}: {shown(pair.alpha)} is {own:g}, which makes the scale {own / r:g}; {PEFT_CONFIG} makes it "
                f"{scale:g}.\nGive the configuration that belongs to the weights, or the file alone."
            )
        read = partial(factors, tensors, pair, scale)
        found_here = matrices(pair.module, d_in, d_out, read, backbone, pair.is_embedding)
        variance = None if pair.is_embedding else start_variance(config, r, d_in)
        members += [from_law(m, variance) for m in found_here]
    for product in found.products.values():
        rank_here = rank_of(tensors, product)
        scale = config.scaling(product.module) if rank_here is None else scaling(config, product.module, rank_here)
        members += matrices_of(tensors, product, scale, options.top, backbone)
    modules = [*(pair.module for pair in found.pairs), *(product.module for product in found.products.values())]
    notes = [
        *notes_on(config, modules),
        *replication_note(backbone),
        *vector_note(found.vectors),
        *doubts,
        *rotary_note(found),
    ]
    words = "PEFT folder" if found.pairs else f"PEFT folder of {names(found.products)}"
    takes = frozenset({"top"} if found.products else ())
    return Adapter(given, words, members, found.unknown, notes, takes, base if base else None)


def _weights_in(folder: Path) -> Path:
    """Returns the file of factors in a folder.

    Raises:
        MissingInputError: If there is none.
        InputError: If there are several epochs.
    """
    whole = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    found = whole[:1] or sorted(folder.glob(EPOCHS), key=lambda path: (len(path.name), path.name))
    if not found:
        raise MissingInputError(
            f"{folder}: holds {PEFT_CONFIG} and none of {', '.join((*_WEIGHTS, EPOCHS))}.\n"
            "Give a whole copy of the folder."
        )
    if len(found) > 1:
        names = shown(", ".join(path.name for path in found))
        raise InputError(f"{folder}: holds the factors of {len(found)} epochs: {names}.\nGive one of them: {found[-1]}")
    return found[0]


def _grouped(
    tensors: Tensors, given: str, found: FileContents, backbone: Backbone, options: Options, config: PeftLoRA
) -> Adapter:
    """Opens a folder of PEFT before 0.2, which had loralib's MergedLinear: groups of factors for q, k and v."""
    flags = config.given["enable_lora"]
    if other := [pair.module for pair in found.pairs if named(pair.module).role != BLOCKS]:
        raise InputError(
            f"{config.source}: has enable_lora, of PEFT before 0.2, and {shown(other[0])} is no known layer of q, "
            "k and v.\nMerge it with that PEFT, and give the whole checkpoint with --base."
        )
    roles = [role for role, on in zip(FUSED, flags, strict=False) if on]
    options = options._replace(alpha=config.alpha, enable_lora=roles)
    adapter = read_loralib(tensors, given, found, backbone, options)
    adapter.format, adapter.takes = "PEFT folder", frozenset()
    adapter.base = config.given.get("base_model_name_or_path")
    return adapter
