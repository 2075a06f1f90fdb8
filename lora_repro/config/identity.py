"""A run's id, and which fields of a configuration enter it. No torch."""

import hashlib
import json
import re
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from lora_repro.config.schema import Run

NUMERICS_VERSION = 1
"""Raise it when a change of the code changes the numbers of an unchanged configuration. It enters every run's id."""

RUN_ID = re.compile(r"[a-z0-9_]+-[a-z0-9_-]+-s\d+-[0-9a-f]{10}")

NOT_IN_ID = {"in_id": False}
"""Metadata of a field that never changes a number, so that it stays out of the run's id."""


def id_fields(value: Any) -> Any:
    """Reduces a configuration to what enters the run's id: names, and values that differ from their default.

    A field at its default is left out. So a field that is added later, with a default that changes nothing, changes no
    old id.
    """
    if not is_dataclass(value):
        return value.value if isinstance(value, Enum) else value
    return {
        f.name: typed
        for f in fields(value)
        if f.metadata.get("in_id", True)
        and ((typed := _to_declared_type(id_fields(getattr(value, f.name)), f)) != _default(f) or f.name == "name")
    }


def fingerprint(value: Any) -> str:
    """Returns the first ten hex digits of the sha256 over `id_fields` and NUMERICS_VERSION."""
    text = json.dumps({"numerics_version": NUMERICS_VERSION, "run": id_fields(value)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _default(declared: Field) -> Any:
    default = declared.default_factory() if declared.default_factory is not NO_DEFAULT else declared.default
    return default.value if isinstance(default, Enum) else default


def _to_declared_type(value: Any, declared: Field) -> Any:
    """Converts a number to the type that the field declares, so that 8 and 8.0, or 0.0 and -0.0, give one id."""
    options = get_args(declared.type) if isinstance(declared.type, UnionType) else (declared.type,)
    number = next((option for option in options if option in (int, float)), None)
    return number(value) + 0 if number and type(value) in (int, float) and value == number(value) else value


def run_id(run: "Run") -> str:
    """Returns a readable prefix and the fingerprint. It needs no weights, no data and no path."""
    return f"{run.model.name}-{run.task.name}-{run.method.label}-s{run.seed}-{fingerprint(run)}"


def run_name(folder: Path) -> str:
    """Returns the id of the run in a folder: the folder's name, or the name of the folder that a link leads to."""
    name = folder.absolute().name
    return name if RUN_ID.fullmatch(name) else folder.resolve().name
