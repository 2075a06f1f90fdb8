"""The matrices and layers that a method is limited to: how they are written, and which there are. No torch."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lora_repro.errors import InputError
from lora_repro.models.arch import ROLES, Site

EXAMPLE = "Example: 'method.layers=[0,1,2]' or method.layers=4-11"

_RANGE = re.compile(r"(\d{1,6})-(\d{1,6})", re.ASCII)


def in_order(targets: Any) -> Any:
    """Returns the letters of matrices in the order of ROLES, those that are none at the end; no list stays as it is."""
    if not isinstance(targets, list):
        return targets
    return sorted(targets, key=lambda role: ROLES.index(role) if role in ROLES else len(ROLES))


def read_layers(given: Any) -> Any:
    """Returns the numbers of layers, in order, that 5, `4-11` or [0, 1, 4-11] name; what cannot be read stays as it is.

    None, which names all, stays None.
    """
    found: list[int] = []
    for item in given if isinstance(given, list) else [given]:
        ends = _RANGE.fullmatch(item) if isinstance(item, str) else None
        if ends is not None and int(ends[1]) <= int(ends[2]):
            found += range(int(ends[1]), int(ends[2]) + 1)
        elif type(item) is int:
            found.append(item)
        else:
            return given
    return sorted(found) or given


def without_all(layers: Any, num_layers: int) -> Any:
    """Returns None where layers name all there are: all are all, however they are named, and one id."""
    return None if layers == [*range(num_layers)] else layers


def of_layers(sites: list[Site], layers: list[int] | None) -> list[Site]:
    """Returns the matrices of these layers; of None, all."""
    return sites if layers is None else [site for site in sites if site.layer in layers]


def refuse_other_layers(layers: Any, num_layers: int) -> None:
    """Refuses what names no layer, one twice, or one that does not exist.

    Args:
        layers: What `read_layers` returned.
        num_layers: How many there are.

    Raises:
        InputError: With the layers that there are.
    """
    if layers is None:
        return
    ends = _RANGE.fullmatch(layers) if isinstance(layers, str) else None
    if ends is not None:
        raise InputError(
            f"method.layers: a range begins with its lower end (given: {layers}).\n"
            f"Give method.layers={ends[2]}-{ends[1]}"
        )
    if not isinstance(layers, list) or not layers or not all(type(layer) is int for layer in layers):
        raise InputError(f"method.layers: numbers of layers, counted from 0 (given: {layers}).\n{EXAMPLE}")
    if repeated := [layer for layer, times in Counter(layers).items() if times > 1]:
        raise InputError(
            f"method.layers: {', '.join(map(str, repeated))} is named more than once.\nName each layer once. {EXAMPLE}"
        )
    if absent := [layer for layer in layers if not 0 <= layer < num_layers]:
        raise InputError(
            f"method.layers: there is no layer {absent[0]} (given: {shown_layers(layers)}).\n"
            f"This model has layers 0 to {num_layers - 1}. {EXAMPLE}"
        )


def refuse_embed_in_layers(targets: Sequence[str], layers: Any) -> None:
    """Refuses the token embedding among matrices of chosen layers.

    Raises:
        InputError: With both ways out.
    """
    if layers is not None and "embed" in targets:
        raise InputError(
            f"method.layers: the token embedding is in no layer (given: method.targets=[{','.join(targets)}]).\n"
            "Leave embed out of method.targets, or leave method.layers out."
        )


def shown_layers(layers: Sequence[int]) -> str:
    """Writes layers in order shortly: `0, 4-11`."""
    spans: list[list[int]] = []
    for layer in layers:
        if spans and layer == spans[-1][-1] + 1:
            spans[-1][1:] = [layer]
        else:
            spans.append([layer])
    return ", ".join("-".join(map(str, span)) for span in spans)
