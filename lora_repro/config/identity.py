"""A run's id, and the fingerprint of the fields that enter it. No torch."""

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
"""Raised when a change of code changes the numbers of an unchanged configuration; it enters every run's id."""

RUN_ID = re.compile(r"[a-z0-9_]+-[a-z0-9_-]+-s\d+-[0-9a-f]{10}")

NOT_SCIENCE = {"science": False}
"""Metadata of a field that describes and never changes a number: it stays out of the identity."""


def science(value: Any) -> Any:
    """Reduces a configuration to what enters its identity: names, and typed values that differ from their default.

    A field at its dataclass default is left out, so that a field added later, neutral by default, changes no old id.
    """
    if not is_dataclass(value):
        return value.value if isinstance(value, Enum) else value
    return {
        f.name: typed
        for f in fields(value)
        if f.metadata.get("science", True)
        and ((typed := _to_declared_type(science(getattr(value, f.name)), f)) != _default(f) or f.name == "name")
    }


def fingerprint(value: Any) -> str:
    """Returns ten hex digits of the sha256 over the science and NUMERICS_VERSION."""
    text = json.dumps({"numerics_version": NUMERICS_VERSION, "run": science(value)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _default(declared: Field) -> Any:
    default = declared.default_factory() if declared.default_factory is not NO_DEFAULT else declared.default
    return default.value if isinstance(default, Enum) else default


def _to_declared_type(value: Any, declared: Field) -> Any:
    """Makes 8 and 8.0, 0.0 and -0.0 one value: a number becomes what the field declares."""
    options = get_args(declared.type) if isinstance(declared.type, UnionType) else (declared.type,)
    number = next((option for option in options if option in (int, float)), None)
    return number(value) + 0 if number and type(value) in (int, float) and value == number(value) else value


def run_id(run: "Run") -> str:
    """Returns a readable prefix and the fingerprint of the science: no path, no weights, no data are needed."""
    return f"{run.model.name}-{run.task.name}-{run.method.label}-s{run.seed}-{fingerprint(run)}"


def run_name(folder: Path) -> str:
    """Returns the run that a directory stands for: by its own name, or, of a link by another name, by its target's."""
    name = folder.absolute().name
    return name if RUN_ID.fullmatch(name) else folder.resolve().name
