"""PEFT's settings of a LoRA adapter: whether it adds B A to a weight at all, and at which scale. No weights."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.words import shown
from lora_repro.errors import InputError, MissingInputError

_OTHER_SUMS = {
    "use_dora": "scales each column of W_0 + B A",
    "use_qalora": "pools the input before A",
    "use_bdlora": "keeps only blocks of a factor",
    "target_parameters": "adapts stacks of experts, whose update is no B A",
}
"""Settings of a LoRA adapter whose update is not (alpha / r) B A."""

_STARTS_IN_W0 = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Starts of A and B that take their place out of W_0: what is in B A is not only learned."""

_NOT_DRAWN = {
    "eva": "B started at zero, A in the leading directions of its inputs (Paischer et al. 2024): two such adapters "
    "share directions of A before any training.",
    "mica": "A started at zero, B in the weakest directions of W_0, where it stays: two such adapters of one base "
    "have the same B.",
}
"""Starts at which B A is zero, and a factor is not drawn at random (peft/tuners/lora/layer.py and eva.py)."""

_MOST_QUANTIFIERS = 3
"""In a pattern of a foreign file: more of them can keep a matcher busy for hours."""


def load_config(path: Path) -> dict[str, Any]:
    """Reads adapter_config.json.

    Raises:
        MissingInputError: If it is damaged.
        InputError: If it is no LoRA adapter's.
    """
    return checked(path.read_bytes(), path)


def checked(content: str | bytes, path: Path) -> dict[str, Any]:
    """Reads a LoRA adapter's settings and refuses those whose update is no (alpha / r) B A.

    Raises:
        MissingInputError: If they are damaged.
        InputError: If they are no LoRA adapter's.
    """
    try:
        config = json.loads(content)
        kind = config.get("peft_type", "LORA")
        numbers = []
        if kind == "LORA":
            numbers = [config["r"], config["lora_alpha"]]
            numbers += [*_values(config, "rank_pattern"), *_values(config, "alpha_pattern")]
        if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
            raise ValueError("r, lora_alpha and their patterns must be numbers")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MissingInputError(
            f"{path}: is damaged ({shown(repr(error))}).\nGive it as PEFT's save_pretrained writes it."
        ) from error
    if kind != "LORA":
        raise InputError(f"{path}: the adapter is PEFT's {shown(kind)}.\nGive a LoRA adapter.")
    if setting := next((key for key in _OTHER_SUMS if config.get(key)), None):
        raise InputError(
            f"{path}: the adapter has {setting}, which {_OTHER_SUMS[setting]}.\n"
            "Give a LoRA adapter without it: dW = (alpha / r) B A."
        )
    return config


def _values(config: Mapping[str, Any], pattern: str) -> list[Any]:
    return list((config.get(pattern) or {}).values())


def scaling(config: Mapping[str, Any], module: str, r: int, path: Path) -> float:
    """Returns alpha / r, or alpha / sqrt(r) in rsLoRA; a module's own r and alpha stand in patterns.

    Args:
        config: The settings.
        module: The module's name, without PEFT's prefix.
        r: The rows of its lora_A.
        path: What is named when something is wrong.

    Raises:
        InputError: If the settings say another r: then nobody knows the scale.
    """
    said = _matched(config, "rank_pattern", module, path, float(config["r"]))
    if said != r:
        raise InputError(
            f"{path}: says r = {said:g} for {shown(module)}, whose lora_A has {r} rows.\n"
            "Give the configuration that belongs to the weights: its alpha / r is the scale."
        )
    alpha = _matched(config, "alpha_pattern", module, path, float(config["lora_alpha"]))
    return alpha / (math.sqrt(r) if config.get("use_rslora") else r)


def start_variance(config: Mapping[str, Any], r: int, d_in: int) -> float | None:
    """Returns the variance of A_0's entries; None where they were not drawn one by one.

    Source: peft/tuners/lora/layer.py, reset_lora_parameters.
    """
    start = config.get("init_lora_weights")
    if start is True:
        return 1 / (3 * d_in)  # kaiming_uniform_(a=sqrt(5))
    return 1 / r**2 if start == "gaussian" else None


def _matched(config: Mapping[str, Any], pattern: str, module: str, path: Path, default: float) -> float:
    """Returns the value of the first pattern that a module's name ends with, as PEFT matches it."""
    for key, value in (config.get(pattern) or {}).items():
        if len(re.findall(r"[*+?{]", key)) > _MOST_QUANTIFIERS:
            raise InputError(f"{path}: {pattern} holds {shown(key)}, which is too costly to match.\nWrite it simpler.")
        try:
            if re.fullmatch(rf"(.*\.)?({key})", module):
                return float(value)
        except re.error as error:
            raise InputError(
                f"{path}: {pattern} holds {shown(key)}, which is no pattern ({error}).\nWrite a module's name."
            ) from None
    return default


def notes_on(config: Mapping[str, Any]) -> list[str]:
    """Says what B A is not, where the settings tell."""
    start = str(config.get("init_lora_weights"))
    if start.startswith(_STARTS_IN_W0):
        return [f"init_lora_weights={shown(start)}: B A did not start at zero, so it is not only what was learned."]
    return [f"init_lora_weights={start}: {_NOT_DRAWN[start]}"] if start in _NOT_DRAWN else []
