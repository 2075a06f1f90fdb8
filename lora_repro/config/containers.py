"""Lists and dictionaries of a configuration, checked against what is declared. No torch.

OmegaConf checks single values, and the items of a list as it stands; not what an interpolation puts in the place of a
list, nor a list within a list.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args, get_origin

from omegaconf import DictConfig, OmegaConf

from lora_repro.errors import InputError

WORDS = {float: "numbers", int: "whole numbers", str: "text"}


def refuse_other_types(cfg: DictConfig, values: Mapping[str, Any], path: str = "") -> None:
    """Refuses containers of a typed configuration that are none, or hold something else than is declared.

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
            raise InputError(f"{key}: must be of keys and values (given: {value}), as in {{a:1,b:2}}.")
        elif kind is list:
            (item,) = get_args(field.type)
            if not isinstance(value, list) or not all(_fits(each, item) for each in value):
                raise InputError(
                    f"{key}: must be a list of {WORDS.get(item, 'values')} (given: {value}).\n"
                    "A list reads [A,B], as in method.targets=[q,v]."
                )


def _fits(value: Any, kind: Any) -> bool:
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind if kind in WORDS else True
