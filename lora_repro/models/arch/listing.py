"""The list of a model's matrices, shown where their roles are not known. No torch."""

import re
from collections.abc import Iterable, Mapping

from lora_repro.models.arch.base import Shape


def matrices(shapes: Mapping[str, Shape]) -> list[str]:
    """Lists the matrices among a checkpoint's tensors, with names that differ in one number on one line.

    Args:
        shapes: All tensors of the checkpoint, by name.

    Returns:
        For example `encoder.block.{0..11}.layer.0.SelfAttention.q.weight (768, 768)`.
    """
    return [f"{name} {shape}" for name, shape in grouped(shapes) if len(shape) == 2]


def grouped(shapes: Mapping[str, Shape]) -> list[tuple[str, Shape]]:
    """Returns the names and shapes of tensors, those that differ in one number together: h.{0..11}.attn.weight."""
    groups = [(_parts(name), shape) for name, shape in shapes.items()]
    for position in range(max((len(parts) for parts, _ in groups), default=0)):
        groups = _merged(groups, position)
    return [(".".join(map(_written, parts)), shape) for parts, shape in groups]


Parts = tuple[str | tuple[int, ...], ...]
"""A name taken apart at its dots; a number stands as all the numbers that were found in its place."""


def _parts(name: str) -> Parts:
    return tuple((int(part),) if re.fullmatch(r"\d{1,9}", part) else part for part in name.split("."))


def _merged(groups: Iterable[tuple[Parts, Shape]], position: int) -> list[tuple[Parts, Shape]]:
    """Merges the names that differ in the number at one position only."""
    numbers: dict[tuple[Parts, Shape], set[int]] = {}
    for parts, shape in groups:
        number = parts[position] if position < len(parts) else ""
        key = (*parts[:position], (), *parts[position + 1 :]) if isinstance(number, tuple) else parts
        numbers.setdefault((key, shape), set()).update(number if isinstance(number, tuple) else ())
    return [
        ((*parts[:position], tuple(sorted(found)), *parts[position + 1 :]) if found else parts, shape)
        for (parts, shape), found in numbers.items()
    ]


def _written(part: str | tuple[int, ...]) -> str:
    if isinstance(part, str):
        return part
    first, last = part[0], part[-1]
    if len(part) == 1:
        return str(first)
    return f"{{{first}..{last}}}" if len(part) == last - first + 1 else f"{{{','.join(map(str, part))}}}"
