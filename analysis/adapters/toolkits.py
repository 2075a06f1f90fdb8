"""Folders whose settings are called adapter_config.json and are not PEFT's: MLX's and AdapterHub's.

Sources: mlx-lm, mlx_lm/tuner/lora.py (dW is scale b^T a^T); adapters, src/adapters/methods/lora.py (alpha / r).
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from analysis.adapters.backbone import Backbone
from analysis.adapters.base import Adapter, Options, Origin, from_law, matrices
from analysis.adapters.layouts import FileContents, factors, find, refuse_misfits, widths
from analysis.adapters.loralib import read_loralib
from analysis.adapters.names import FUSED
from analysis.adapters.peft import read_peft
from analysis.adapters.tensors import Tensors, open_tensors
from lora_repro.errors import InputError, MissingInputError, shown
from lora_repro.methods.lora.peft_settings import lora_settings, settings_of
from lora_repro.store.adapter_identity import PEFT_CONFIG

_HUB_WEIGHTS = ("adapter.safetensors", "pytorch_adapter.bin")
_MLX_WEIGHTS = ("adapters.safetensors", "adapters.npz")


def read_settings_folder(
    folder: Path, given: str, backbone: Backbone, options: Options, weights: Path | None = None
) -> Adapter:
    """Opens a folder that holds adapter_config.json, whoever wrote it.

    Args:
        folder: The folder.
        given: What the user calls it.
        backbone: Its base, as far as it is known.
        options: Of the command line.
        weights: The file of PEFT's or torchtune's factors in it that is asked for; None for the one that is there.

    Raises:
        InputError: If it is damaged, or of a method that is not read here.
    """
    path = folder / PEFT_CONFIG
    settings = settings_of(path.read_bytes(), str(path))
    if "fine_tune_type" in settings or "lora_parameters" in settings:
        return _read_mlx(folder, given, backbone, settings)
    if "peft_type" not in settings and isinstance(settings.get("config"), dict | str):
        return _read_hub(folder, given, backbone, options, settings)
    return read_peft(folder, settings, given, backbone, options, weights)


def _read_mlx(folder: Path, given: str, backbone: Backbone, settings: Mapping[str, Any]) -> Adapter:
    where = str(folder / PEFT_CONFIG)
    kind, said = settings.get("fine_tune_type", "lora"), settings.get("lora_parameters")
    if kind != "lora":
        raise InputError(
            f"{where}: is of MLX's fine_tune_type {shown(kind)}, whose update is no B A.\n"
            "Fuse it (mlx_lm.fuse), and give the whole checkpoint with --base."
        )
    if not isinstance(said, dict):
        raise MissingInputError(f"{where}: holds no lora_parameters.\nGive it as mlx_lm.lora writes it.")
    alpha = said.get("alpha", said.get("rank"))  # old versions had alpha and a scale beside
    config = lora_settings({"rank": said.get("rank"), "alpha": alpha}, where, "rank", "alpha")
    scale = config.alpha / config.r * lora_settings({"r": 1, "scale": said.get("scale")}, where, "r", "scale").alpha
    tensors, found = _open(folder, _MLX_WEIGHTS, "MLX")
    refuse_misfits(tensors, found.pairs)
    members = []
    for pair in found.pairs:
        d_in, r, _, d_out = widths(tensors, pair)
        if r != config.r:
            raise InputError(
                f"{where}: says rank = {config.r} for {shown(pair.module)}, whose lora_a has {r} columns.\n"
                "Give the configuration that belongs to the weights."
            )
        read = partial(factors, tensors, pair, scale)
        found_here = matrices(pair.module, d_in, d_out, read, backbone)
        members += [from_law(m, 1 / (3 * d_in)) for m in found_here]  # uniform within 1 / sqrt(d_in)
    return Adapter(given, "MLX folder", members, found.unknown)


def _read_hub(folder: Path, given: str, backbone: Backbone, options: Options, settings: Mapping[str, Any]) -> Adapter:
    where, config = str(folder / PEFT_CONFIG), settings["config"]
    if not isinstance(config, dict) or config.get("architecture") != "lora":
        what = config.get("architecture") if isinstance(config, dict) else config
        raise InputError(
            f"{where}: is AdapterHub's, of the architecture {shown(what)}, which is not read here.\n"
            "Give one of the architecture lora, or merge it and give the whole checkpoint with --base."
        )
    wrong = [k for k in ("use_gating", "vera_d", "vera_b", "task_specific_matrix_type", "use_dora") if config.get(k)]
    if wrong or config.get("composition_mode", "add") != "add":
        setting = wrong[0] if wrong else "composition_mode"
        raise InputError(
            f"{where}: is AdapterHub's, with {setting} = {shown(config[setting])}: its update is no B A.\n"
            "Merge it, and give the whole checkpoint with --base."
        )
    tensors, found = _open(folder, _HUB_WEIGHTS, "AdapterHub")
    roles = [role for role in FUSED if role in (config.get("attn_matrices") or ())]
    read = lora_settings(config, where, "r", "alpha")
    options = options._replace(alpha=read.alpha, enable_lora=roles)
    adapter = read_loralib(tensors, given, found, backbone, options)
    adapter.format, adapter.takes = "AdapterHub folder", frozenset()
    if (start := config.get("init_weights", "lora")) != "lora":  # of others B does not start at zero
        adapter.matrices = [matrix._replace(origin=Origin()) for matrix in adapter.matrices]
        note = f"init_weights={shown(start)}: B A did not start at zero, so it is not only what was learned."
        adapter.notes = [*adapter.notes, note]
    base = settings.get("model_name")
    adapter.base = base if isinstance(base, str) and base else None
    return adapter


def _open(folder: Path, names: tuple[str, ...], layout: str) -> tuple[Tensors, FileContents]:
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise MissingInputError(
            f"{folder}: holds {layout}'s {PEFT_CONFIG} and none of {', '.join(names)}.\n"
            "Give a whole copy of the folder."
        )
    tensors = open_tensors(path)
    found = find(tensors, [layout])
    if found is None:
        raise InputError(
            f"{path}: holds no factors under {layout}'s names (its first tensor: "
            f"{shown(next(iter(tensors.shapes), 'none'))}).\nGive a whole copy of the folder."
        )
    return tensors, found
