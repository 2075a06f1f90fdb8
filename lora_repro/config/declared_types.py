"""Checks a composed configuration against the types that the dataclasses declare. No torch.

Hydra and OmegaConf check single values. They let pass a key that was added with `+`, a list that an interpolation puts
in place, and the items of a list within a list.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args, get_origin

from omegaconf import DictConfig, OmegaConf

from lora_repro.config.schema import Config, TrainConfig
from lora_repro.errors import InputError, did_you_mean
from lora_repro.methods import METHODS
from lora_repro.models.arch import ModelConfig
from lora_repro.tasks import FAMILIES

PLURALS = {float: "numbers", int: "whole numbers", str: "text"}
"""What a list of a type holds, for messages."""


def refuse_other_types(cfg: DictConfig, values: Mapping[str, Any], path: str = "") -> None:
    """Refuses values for a list or dictionary that are none, or whose items have another type than declared.

    Args:
        cfg: A configuration made of a dataclass.
        values: Its resolved values.
        path: Its dotted key.

    Raises:
        InputError: Naming the key, the value and what it must be.
    """
    declared = OmegaConf.get_type(cfg)
    for field in fields(declared) if isinstance(declared, type) and declared is not dict else ():
        key, value, kind = f"{path}{field.name}", values.get(field.name), get_origin(field.type)
        if isinstance(value, Mapping) and kind is None and isinstance(node := cfg[field.name], DictConfig):
            refuse_other_types(node, value, f"{key}.")
        elif kind is dict and not isinstance(value, Mapping):
            raise InputError(f"{key}: must be keys and values (given: {value}), as in {{a:1,b:2}}.")
        elif kind is list:
            (item,) = get_args(field.type)
            if not isinstance(value, list) or not all(_fits(each, item) for each in value):
                raise InputError(
                    f"{key}: must be a list of {PLURALS.get(item, 'values')} (given: {value}).\n"
                    "A list is written [A,B], as in method.targets=[q,v]."
                )


def _fits(value: Any, kind: Any) -> bool:
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind if kind in PLURALS else True


def refuse_lost_keys(given: Any, typed: Any, path: str = "") -> None:
    """Refuses keys that no dataclass has, such as `+method.rank=4`: `to_object` would drop them without an error.

    Raises:
        InputError: With the keys that there are.
    """
    if not (isinstance(given, dict) and isinstance(typed, dict)) or path in (
        "sweep",
        "tune",
        "start",
        "model.config",
        "model.files",
    ):
        return
    for key, value in given.items():
        full_key = f"{path}.{key}" if path else str(key)
        if key not in typed:
            raise InputError(unknown_key(full_key, sorted(map(str, typed))))
        refuse_lost_keys(value, typed[key], full_key)


def unknown_key(full_key: str, keys: list[str]) -> str:
    """Says that a dotted key does not exist, and which do."""
    parent, _, key = full_key.rpartition(".")
    if parent == "model.sites" and not keys:
        return f"{full_key}: is only for model=local; the matrices of this model are known here.\nLeave it out."
    if parent == "method.config":
        return f"{full_key}: keys of a tuner are given all at once.\nExample: 'method.config={{{key}:VALUE}}'"
    listed = f"Keys {f'of {parent}' if parent else 'at the top'}: {', '.join(keys)}."
    return (
        f"{full_key}: there is no such key.{did_you_mean(key, keys)}\n"
        f"{listed if keys else f'{parent} has no keys: leave it out.'}"
    )


def as_declared(key: str, value: Any) -> Any:
    """Returns 8 for 8.0 where a dotted key is declared as an integer, and any other value unchanged."""
    if not isinstance(value, float) or not value.is_integer():
        return value
    group, _, name = key.rpartition(".")
    sections = {"model": [ModelConfig], "task": FAMILIES.values(), "method": METHODS.values(), "train": [TrainConfig]}
    declared = [f.type for section in sections.get(group, [Config]) for f in fields(section) if f.name == name]
    return int(value) if any(kind is int or int in get_args(kind) for kind in declared) else value
