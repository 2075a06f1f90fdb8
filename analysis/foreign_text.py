"""Text from foreign files, made harmless for terminals, Markdown and error messages."""

import re
from collections.abc import Iterable, Sequence

from lora_repro.errors import printable, shown

_MOST = 24
"""Names in a list."""


def paragraph(text: str) -> str:
    """Writes a whole text, made harmless, with each line indented."""
    return "\n".join(f"  {printable(line)}" for line in text.splitlines())


def grouped(names: Iterable[str]) -> str:
    """Lists names, those that differ only in numbers as one: encoder.layer.*.bias (12)."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"(?<![0-9A-Za-z])\d+(?![0-9A-Za-z])", "*", name), []).append(name)
    return _first([shown(m[0]) if len(m) == 1 else f"{shown(group)} ({len(m)})" for group, m in groups.items()])


def first_names(names: Iterable[object]) -> str:
    """Lists names; of many only the first, with how many there are."""
    return _first([shown(name) for name in names])


def _first(names: Sequence[str]) -> str:
    more = f" ... ({len(names)} in all)" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more


def escaped(text: str) -> str:
    """Writes a foreign text so that Markdown prints it as it is, HTML in it too; `aligned` sees to the bars."""
    return re.sub(r"([\\`*\[\]<>$&])", r"\\\1", printable(text))
