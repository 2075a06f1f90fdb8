"""PEFT's folders: adapter_config.json says the scale, adapter_model.safetensors or .bin holds the factors."""

import math
from functools import partial
from pathlib import Path

from analysis.adapters.backbone import Backbone, arch_named
from analysis.adapters.base import Adapter, from_law, matrices
from analysis.adapters.layouts import alpha_of, factors, find, refuse_misfits, widths
from analysis.adapters.peft_config import load_config, notes_on, scaling, start_variance
from analysis.adapters.replication import replicated, replication_note
from analysis.adapters.tensors import open_tensors
from analysis.words import shown
from lora_repro.config import PEFT_CONFIG, PEFT_WEIGHTS
from lora_repro.errors import InputError, MissingInputError

_WEIGHTS = (PEFT_WEIGHTS, "adapter_model.bin")


def is_peft(folder: Path) -> bool:
    """Tells whether a folder is PEFT's."""
    return (folder / PEFT_CONFIG).is_file()


def read_peft(folder: Path, given: str, backbone: Backbone) -> Adapter:
    """Opens a PEFT folder.

    Raises:
        InputError: If it is damaged, of another kind than LoRA, or its shapes contradict its settings.
    """
    settings = folder / PEFT_CONFIG
    config = load_config(settings)
    path = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise MissingInputError(
            f"{folder}: holds {PEFT_CONFIG} and none of {', '.join(_WEIGHTS)}.\nGive a whole copy of the folder."
        )
    tensors = open_tensors(path)
    found = find(tensors, ["PEFT"])
    if found is None:
        raise InputError(
            f"{path}: holds no lora_A and lora_B (its first tensor: {shown(next(iter(tensors.shapes), 'none'))}).\n"
            "Give a folder as PEFT's save_pretrained writes it."
        )
    refuse_misfits(tensors, found.pairs)
    if backbone.arch is None:
        backbone = Backbone(arch_named(config.get("base_model_name_or_path")), backbone.open_weights)
    backbone = replicated(backbone, config.get("layer_replication"), settings)
    members = []
    for pair in found.pairs:
        d_in, r, _, d_out = widths(tensors, pair)
        scale = scaling(config, pair.module, r, settings)
        alpha = alpha_of(tensors, pair)
        if alpha is not None and not math.isclose(alpha / r, scale):
            raise InputError(
                f"{path}: {shown(pair.alpha)} is {alpha:g}, which makes the scale {alpha / r:g}; {PEFT_CONFIG} makes "
                f"it {scale:g}.\nGive the configuration that belongs to the weights, or the file alone."
            )
        read = partial(factors, tensors, pair, scale)
        found_here = matrices(pair.module, d_in, d_out, read, backbone)
        members += [from_law(m, start_variance(config, r, d_in)) for m in found_here]
    adapter = Adapter(given, "PEFT folder", members, found.unknown, [*notes_on(config), *replication_note(backbone)])
    base = config.get("base_model_name_or_path")
    adapter.base = base if isinstance(base, str) and base else None
    return adapter
