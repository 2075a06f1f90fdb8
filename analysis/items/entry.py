"""Reads items' files: YAML in which no key stands twice, and typed fields of which none is unknown or missing."""

import types
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from lora_repro.errors import InputError, did_you_mean

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """PyYAML keeps the last of two values of one key and drops the other without a word: here it is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: list[object] = []
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise InputError(f"{self.name}:{key_node.start_mark.line + 1}: the key {key!r} stands there twice.")
            seen.append(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a file; once as long as it does not change, as PyYAML takes a tenth of a second for some.

    Raises:
        InputError: If it is no YAML, or a key stands in it twice.
    """
    return deepcopy(_read(path, path.stat().st_mtime_ns))


@lru_cache(maxsize=64)
def _read(path: Path, written_ns: int) -> dict[str, Any]:
    with path.open(encoding="utf-8") as stream:
        try:
            return yaml.load(stream, _Loader)
        except yaml.YAMLError as error:
            raise InputError(f"{path.name}: this is no YAML ({' '.join(str(error).split())}).") from error


def build(kind: type[T], entry: Mapping[str, Any], where: str) -> T:
    """Makes a dataclass of an entry.

    Args:
        kind: The dataclass.
        entry: Its fields.
        where: The file, and the field in it, for messages.

    Raises:
        InputError: If a field is unknown, missing or of another type. A number may be an integer where it is a float.
    """
    hints = get_type_hints(kind)
    known = {each.name: each for each in fields(kind) if each.init}  # pyright: ignore[reportArgumentType]
    choices = f"Fields: {', '.join(name for name in known if name != 'name')}."
    for name in entry:
        if name not in known:
            raise InputError(f"{where}: there is no field {name!r}.{did_you_mean(str(name), known)}\n{choices}")
    for name, each in known.items():
        if name not in entry and each.default is MISSING and each.default_factory is MISSING:
            raise InputError(f"{where}: the field {name!r} is missing.\n{choices}")
    return kind(**{name: _fit(value, hints[name], f"{where}: {name}") for name, value in entry.items()})


def _fit(value: Any, hint: Any, where: str) -> Any:
    """Returns a value that is of its declared type, dataclasses made."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any or (hint is float and type(value) is int):
        return value
    if origin in (Union, types.UnionType):
        for choice in arguments:
            try:
                return _fit(value, choice, where)
            except InputError:
                continue
    elif is_dataclass(hint) and isinstance(value, Mapping):
        return build(hint, value, where)  # pyright: ignore[reportArgumentType]
    elif origin is list and isinstance(value, list):
        return [_fit(each, arguments[0], where) for each in value]
    elif origin is dict and isinstance(value, dict):
        return {_fit(k, arguments[0], f"{where}: key"): _fit(v, arguments[1], f"{where}.{k}") for k, v in value.items()}
    elif type(value) is hint:
        return value
    expected = hint.__name__ if isinstance(hint, type) and origin is None else str(hint)
    raise InputError(
        f"{where}: must be {expected} (given: {value!r}).\n"
        "YAML reads on, off, yes and no as true and false, and 1e6 as text: put quotes around words, write 1000000."
    )
