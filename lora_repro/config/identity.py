"""A run's id, and which fields of a configuration enter it. No torch."""

import hashlib
import json
import re
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

if TYPE_CHECKING:
    from lora_repro.config.schema import Run

NUMERICS_VERSION = 2
"""Raise it when a change of the code changes the numbers of an unchanged configuration. It enters every run's id.

A change that concerns a few kinds of runs is named in `Run.changes` instead.
"""

RUN_ID = re.compile(r"[a-z0-9_]+-[a-z0-9_-]+-s\d+-[0-9a-f]{10}")

NOT_IN_ID = {"in_id": False}
"""Metadata of a field that never changes a number, so that it stays out of the run's id."""


_PLAIN = {bool, int, float, str, list, dict, type(None)}
"""Types of values that enter ids as they are."""


def id_fields(value: Any) -> Any:
    """Reduces a configuration to what enters the run's id: names, and values that differ from their default.

    A field at its default is left out. So a field that is added later, with a default that changes nothing, changes no
    old id. So are the fields that a section calls `idle`.
    """
    if type(value) in _PLAIN:
        return value
    if not is_dataclass(value):
        return value.value if isinstance(value, Enum) else value
    entering, idle = {}, getattr(value, "idle", ())
    for name, number, default in _declared(type(value)):
        if name in idle:
            continue
        typed = id_fields(getattr(value, name))
        if number is not None and type(typed) in (int, float) and typed == number(typed):
            typed = number(typed) + 0  # 8 and 8.0, or 0.0 and -0.0, give one id
        if typed != default or name == "name":
            entering[name] = typed
    return entering


def fingerprint(run: "Run", numerics: int | None = None) -> str:
    """Returns the first ten hex digits of the sha256 over `id_fields`, `Run.changes` and the numerics version.

    Args:
        run: The configuration.
        numerics: The numerics version; None: this code's. Version 1 is from before all changes.
    """
    version = NUMERICS_VERSION if numerics is None else numerics
    entering = {"numerics_version": version, "run": id_fields(run)}
    if version > 1 and run.changes:
        entering["changes"] = run.changes
    return hashlib.sha256(json.dumps(entering, sort_keys=True).encode()).hexdigest()[:10]


class _Declared(NamedTuple):
    """A field that enters ids."""

    name: str
    number: type[int] | type[float] | None
    """The type that the field declares, where it is a number's."""
    default: Any


@cache
def _declared(kind: type) -> tuple[_Declared, ...]:
    """Returns the fields of a dataclass that enter ids."""
    return tuple(_Declared(f.name, _number(f), _default(f)) for f in fields(kind) if f.metadata.get("in_id", True))


def _default(declared: Field) -> Any:
    default = declared.default_factory() if declared.default_factory is not NO_DEFAULT else declared.default
    return default.value if isinstance(default, Enum) else default


def _number(declared: Field) -> type[int] | type[float] | None:
    options = get_args(declared.type) if isinstance(declared.type, UnionType) else (declared.type,)
    return next((option for option in options if option in (int, float)), None)


def run_id(run: "Run", numerics: int | None = None) -> str:
    """Returns a readable prefix and the fingerprint. It needs no weights, no data and no path.

    Args:
        run: The configuration.
        numerics: The numerics version of the code that computes it; None: of this code.
    """
    return f"{run.model.name}-{run.task.name}-{run.method.label}-s{run.seed}-{fingerprint(run, numerics)}"


def numerics_of(run: "Run", name: str) -> int | None:
    """Returns the numerics version, this code's or an earlier one, under which a run has an id; None if under none."""
    return next((version for version in range(NUMERICS_VERSION, 0, -1) if run_id(run, version) == name), None)


def run_name(folder: Path) -> str:
    """Returns the id of the run in a folder: the folder's name, or the name of the folder that a link leads to."""
    name = folder.name or folder.absolute().name
    return name if RUN_ID.fullmatch(name) else folder.resolve().name
