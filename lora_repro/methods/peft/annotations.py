"""Whether a value fits the annotation of a key in PEFT's source, where the annotation says so in plain types."""

import ast
from collections.abc import Iterator
from typing import Any

_PLAIN = {"bool": "true or false", "int": "a number", "float": "a number", "str": "a text"}
"""Plain types, and how a message calls them. PEFT writes int where it takes any number, as for lora_alpha."""
_PATTERN = "["
"""Opens what stands for a number of one's own in a Literal: pissa_niter_[number of iters]."""


def refused(value: Any, annotation: ast.expr) -> str | None:
    """Says what a value must be; None if it fits, or if the annotation has a type that is not plain.

    Args:
        value: As YAML gives it.
        annotation: As PEFT's source has it: `bool | Literal["gaussian"]`, `Optional[Union[list[str], str]]`.
    """
    kinds = [*_alternatives(annotation)]
    if any(_fits(value, kind) is not False for kind in kinds):
        return None
    return " or ".join(dict.fromkeys(_words(kind) for kind in kinds))


def _alternatives(kind: ast.expr) -> Iterator[ast.expr]:
    """Yields the members of a union, however it is written."""
    match kind:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            yield from _alternatives(left)
            yield from _alternatives(right)
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            yield from _alternatives(inner)
            yield ast.Constant(None)
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=members)):
            for member in members:
                yield from _alternatives(member)
        case _:
            yield kind


def _fits(value: Any, kind: ast.expr) -> bool | None:
    """Tells whether a value is of a type; None where that is not known."""
    match kind:
        case ast.Constant(value=None):
            return value is None
        case ast.Name(id="bool"):
            return isinstance(value, bool)
        case ast.Name(id="int" | "float"):
            return isinstance(value, int | float) and not isinstance(value, bool)
        case ast.Name(id="str"):
            return isinstance(value, str)
        case ast.Name(id="dict") | ast.Subscript(value=ast.Name(id="dict")):
            return isinstance(value, dict)
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            return isinstance(value, list) and all(refused(each, inner) is None for each in value)
        case ast.Subscript(value=ast.Name(id="Literal")):
            names = _names(kind)
            return value in names or any(_PATTERN in n and str(value).startswith(n.split(_PATTERN)[0]) for n in names)
    return None


def _names(literal: ast.Subscript) -> list[str]:
    members = literal.slice.elts if isinstance(literal.slice, ast.Tuple) else [literal.slice]
    return [str(member.value) for member in members if isinstance(member, ast.Constant)]


def _words(kind: ast.expr) -> str:
    match kind:
        case ast.Constant(value=None):
            return "null"
        case ast.Name(id=name) if name in _PLAIN:
            return _PLAIN[name]
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            return f"a list, each {' or '.join(_words(each) for each in _alternatives(inner))}"
        case ast.Subscript(value=ast.Name(id="Literal")):
            return " or ".join(_names(kind))
    return "keys with values"
