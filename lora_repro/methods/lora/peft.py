"""Writes adapter_config.json for our adapters, and refuses foreign ones that compute more than B A. No torch.

Source: peft/tuners/lora/config.py and layer.py, PEFT 0.21.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_repro.errors import InputError, MissingInputError
from lora_repro.methods.lora.config import LoRAConfig
from lora_repro.methods.lora.peft_settings import MORE_THAN_BA, lora_settings, other_settings, settings_of
from lora_repro.methods.patterns import chooser
from lora_repro.models.arch import Arch, Site

log = logging.getLogger(__name__)

DRAWN = ("true", "false", "none", "gaussian", "eva", "orthogonal", "mica")
"""Starts (init_lora_weights) that leave W_0 as it is."""

CHANGES_W0 = {"pissa": True, "olora": True, "loftq": True, "corda": False, "lora_ga": False}
"""Starts that take B A out of W_0, or round it; and whether PEFT's from_pretrained does so again."""


def settings(arch: Arch, method: LoRAConfig, base: str | None) -> dict[str, Any]:
    """Returns what adapter_config.json says of an adapter of ours.

    Args:
        arch: Shapes of the model.
        method: The method.
        base: The base as the hub names it; never a path.
    """
    sites = method.sites(arch)
    ranks: dict[str, int] = {}
    scalings: dict[str, float] = {}
    for site in sites:
        ranks[site.module] = ranks.get(site.module, 0) + method.r_of(site)
        scalings.setdefault(site.module, method.scaling_of(site))
    alphas = {module: scalings[module] * r for module, r in ranks.items()}
    r, alpha = ranks[sites[0].module], alphas[sites[0].module]
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if arch.head_modules else "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": r,
        "rank_pattern": {module: other for module, other in ranks.items() if other != r},
        "lora_alpha": alpha,
        "alpha_pattern": {module: other for module, other in alphas.items() if other != alpha},
        "lora_dropout": method.dropout,
        "target_modules": list(ranks),
        **({} if method.layers is None else {"layers_to_transform": method.layers}),
        "modules_to_save": list(arch.head_modules) or None,
        "bias": method.bias.value,
        "fan_in_fan_out": any(site.transposed for site in sites),
        "use_rslora": False,  # its scale is in lora_alpha
        "inference_mode": True,
    }


def check_settings(path: Path, arch: Arch, method: LoRAConfig, stacked: bool) -> str | None:
    """Refuses an adapter whose tensors would fit, and whose output would be another than PEFT's.

    Args:
        path: Its adapter_config.json.
        arch: Shapes of the model.
        method: The method whose updates are filled.
        stacked: Whether the tensors are our own factors of fused layers, beside the file that the settings speak of.

    Returns:
        What they call the base.

    Raises:
        MissingInputError: If the settings are missing or damaged.
        InputError: If they say another rank or scale than the method's, another start of the base, or something that
            is not known here.
    """
    config = _read(path)
    if config.get("peft_type", "LORA") != "LORA":
        raise InputError(f"{path}: the adapter is PEFT's {config['peft_type']}.\nGive a LoRA adapter.")
    _refuse_other_sums(config, path)
    _refuse_changed_base(config, path)
    theirs = lora_settings(config, str(path))
    sites = method.sites(arch)
    _refuse_other_modules(config, sites, path)
    ours = lora_settings(settings(arch, method, None), "method")
    is_plain = not (theirs.ranks or theirs.alphas or ours.ranks or ours.alphas or theirs.rslora or method.rslora)
    if is_plain and not stacked and (theirs.r, theirs.alpha) != (method.r, method.alpha):
        raise InputError(
            f"{path}: the adapter has r = {theirs.r} and alpha = {theirs.alpha:g}, the run r = {method.r} and alpha = "
            f"{method.alpha:g}.\nGive the adapter's: method.r={theirs.r} method.alpha={theirs.alpha:g}"
        )
    for site in sites:
        r, scaling = theirs.rank(site.module), theirs.scaling(site.module)
        mine = method.r_of(site), method.scaling_of(site)
        if stacked and site.part is not None:
            mine = ours.rank(site.module), ours.scaling(site.module)
        if r != mine[0] or not math.isclose(scaling, mine[1]):
            raise InputError(
                f"{path}: at {site.module} the adapter has rank {r} and scale {scaling:g}, the run "
                f"{mine[0]} and {mine[1]:g}.\nGive the adapter's method.r, r_pattern, alpha and rslora."
            )
    for doubt in theirs.doubts(list(dict.fromkeys(site.module for site in sites))):
        log.warning("%s: %s", path, doubt)
    base = config.get("base_model_name_or_path")
    return base if isinstance(base, str) and base else None


def _read(path: Path) -> dict[str, Any]:
    try:
        return settings_of(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise MissingInputError(
            f"{path} is missing, and without it the adapter's scale is unknown.\n"
            "Give the folder as PEFT's save_pretrained writes it."
        ) from None
    except OSError as error:
        raise MissingInputError(f"{path} cannot be read ({error.strerror}).\nGive a folder that can.") from error


def _refuse_other_sums(config: Mapping[str, Any], path: Path) -> None:
    for key, value in other_settings(config).items():
        what = f"which {MORE_THAN_BA.get(key, 'is not known here, and may change its output')}"
        raise InputError(
            f"{path}: the adapter has {key[:80]} = {str(value)[:80]}, {what}; method=lora adds (alpha / r) B A.\n"
            "Give an adapter without it, or merge it into its base with PEFT and give that: model=local paths.model=DIR"
        )


def _refuse_changed_base(config: Mapping[str, Any], path: Path) -> None:
    """Refuses an adapter that was not trained beside W_0: on W_0 itself its output is another."""
    start = str(config.get("init_lora_weights")).lower()
    if start in DRAWN:
        return
    kind = next((name for name in CHANGES_W0 if start.startswith(name)), None)
    if kind is None:
        raise InputError(
            f"{path}: init_lora_weights is {start[:80]}, a start that is not known here.\n"
            f"Known are: {', '.join(DRAWN)}. Give an adapter of one of these."
        )
    remedies = []
    if kind != "loftq":
        remedies.append(
            "convert it where it was trained: save_pretrained(DIR, path_initial_model_for_weight_conversion=START)"
        )
    if CHANGES_W0[kind]:
        remedies.append(
            "merge it with PEFT, PeftModel.from_pretrained(BASE, ADAPTER).merge_and_unload().save_pretrained(DIR), and "
            "give that as the model: model=local paths.model=DIR"
        )
    raise InputError(
        f"{path}: the adapter started from init_lora_weights={start[:80]}, which changes the base: it belongs to "
        f"these changed weights and not to the model's own.\nTo use it, {'; or '.join(remedies)}"
    )


def _refuse_other_modules(config: Mapping[str, Any], sites: Sequence[Site], path: Path) -> None:
    """Refuses settings that leave out a module of the method's: PEFT would pass over its tensors."""
    targets, excluded = config.get("target_modules"), config.get("exclude_modules")
    layers = config.get("layers_to_transform")
    layers = [layers] if isinstance(layers, int) else layers
    is_target, is_excluded = chooser(targets), chooser(excluded)
    for site in sites:
        chosen = not targets or targets == "all-linear" or is_target(site.module)
        if isinstance(targets, list) and layers and site.module not in targets:
            chosen = chosen and site.layer in layers
        if not chosen or (excluded and is_excluded(site.module)):
            raise InputError(
                f"{path}: by its target_modules, exclude_modules or layers_to_transform the adapter leaves "
                f"{site.module} as it is, and the method adapts it.\nGive method.targets and method.layers as the "
                "adapter has them."
            )
