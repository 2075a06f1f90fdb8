"""Which tuners the installed PEFT has and which keys they take, read from its source: importing PEFT imports torch."""

import ast
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from lora_repro.errors import InputError

HOW_TO_INSTALL = "Install it: pip install 'lora_repro[peft]'"


class Tuner(NamedTuple):
    """A tuner as PEFT declares it."""

    keys: dict[str, Any]
    """The keys of its configuration, with their defaults where these are plain values, else None."""
    annotations: dict[str, ast.expr]
    """The annotations of the same keys, as PEFT's source has them."""
    is_prompt: bool
    """It trains virtual tokens in front of the input, and changes no layer."""


def is_installed() -> bool:
    """Tells whether PEFT is there."""
    return _folder() is not None


def version() -> str:
    """Returns PEFT's version.

    Raises:
        InputError: If it is not installed.
    """
    try:
        return version_of("peft")
    except PackageNotFoundError:
        raise InputError(f"method=peft: PEFT is not installed.\n{HOW_TO_INSTALL}") from None


@cache
def tuners() -> dict[str, Tuner]:
    """Returns the tuners that PEFT registers, by peft_type.

    Raises:
        InputError: If PEFT is not installed.
    """
    folder = _folder()
    if folder is None:
        raise InputError(f"method=peft: PEFT is not installed.\n{HOW_TO_INSTALL}")
    classes = {
        node.name: node
        for path in [folder / "config.py", *sorted((folder / "tuners").rglob("*.py"))]
        for node in _parsed(path).body
        if isinstance(node, ast.ClassDef)
    }
    found = {}
    for path in sorted((folder / "tuners").glob("*/__init__.py")):
        for name, config in _registered(path):
            bases = list(_with_bases(config, classes))
            fields = [field for base in reversed(bases) for field in _fields(classes[base])]
            keys = {key: default for key, default, _ in fields}
            annotations = {key: annotation for key, _, annotation in fields}
            found[name.upper()] = Tuner(keys, annotations, "PromptLearningConfig" in bases)
    return found


def _folder() -> Path | None:
    spec = find_spec("peft")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _registered(path: Path) -> Iterator[tuple[str, str]]:
    """Yields name and class of configuration of every call of register_peft_method in a file."""
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "register_peft_method":
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            name, config = given.get("name"), given.get("config_cls")
            if isinstance(name, ast.Constant) and isinstance(config, ast.Name):
                yield str(name.value), config.id


def _with_bases(name: str, classes: dict[str, ast.ClassDef]) -> Iterator[str]:
    """Yields a class and those that it inherits from, as far as PEFT defines them."""
    if name in classes:
        yield name
        for base in classes[name].bases:
            yield from _with_bases(getattr(base, "id", ""), classes)


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, Any, ast.expr]]:
    """Yields the fields of a dataclass: name, default and annotation."""
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            default: Any = line.value
            if isinstance(default, ast.Call):
                default = next((each.value for each in default.keywords if each.arg == "default"), None)
            try:
                value = ast.literal_eval(default) if default is not None else None
            except ValueError:  # a name, as of an enum
                value = None
            yield line.target.id, value, line.annotation
