"""How files of adapters name their tensors: a row a way of writing, from a tensor's name to a module and a factor."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from analysis.adapters.base import Factors
from analysis.adapters.tensors import Tensors
from analysis.words import grouped, shown
from lora_repro.errors import InputError

_COMPONENT = r"(?P<module>(?:unet|text_encoder(?:_2)?|transformer(?=\.(?:single_)?transformer_blocks))\..+)"
"""Of a pipeline: `transformer` alone begins GPT-2's names too."""

_ALPHA = r"(?P<module>.+)\.(?:lora_)?(?P<factor>alpha)"
"""A number beside the factors: as ComfyUI's names of Wan, Flux and others have it."""

LAYOUTS: dict[str, tuple[str, ...]] = {
    "kohya": (
        r"(?P<module>(?:lora|lycoris)_(?:unet|te\d?|transformer)_.+)\.(?P<factor>lora_down|lora_up|alpha)(?:\.weight)?",
    ),
    "diffusers": (
        rf"{_COMPONENT}\.lora_(?P<factor>A|B)\.weight",  # with PEFT
        r"(?P<module>.+)\.(?:lora|lora_linear_layer)\.(?P<factor>down|up|alpha)(?:\.weight)?",  # before PEFT
        r"(?P<module>.+)\.processor\.(?P<end>to_[a-z]+)_lora\.(?P<factor>down|up)\.weight",  # before those
        rf"{_COMPONENT}\.(?P<factor>alpha)",
    ),
    "PEFT": (
        r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<factor>A|B)\.(?:(?P<name>[^.]+)\.)?weight",
        r"(?:base_model\.model\.)?(?P<module>.+)\.lora_embedding_(?P<factor>A|B)(?:\.(?P<name>[^.]+))?",
        rf"(?:base_model\.model\.)?{_ALPHA}",
    ),
    "down and up": (r"(?P<module>.+)\.(?P<factor>lora_down|lora_up)(?:\.weight)?", _ALPHA),
    "loralib": (r"(?:module\.)?(?P<module>.+)\.lora_(?P<factor>A|B)", rf"(?:module\.)?{_ALPHA}"),
}
"""Tried in this order: the first that has both factors of a module is the file's."""

_FACTORS = {"A": "A", "B": "B", "lora_down": "A", "lora_up": "B", "down": "A", "up": "B", "alpha": "alpha"}

_OTHER = {
    "dora_scale": "DoRA, which scales each column of W_0 + B A",
    "lora_magnitude_vector": "DoRA, which scales each column of W_0 + B A",
    "lora_E": "AdaLoRA, which has a diagonal between B and A",
    "lora_mid": "LyCORIS's three factors of a convolution",
    "hada_w1_a": "LoHa, a product of two low-rank matrices entry by entry",
    "lokr_w1": "LoKr, a Kronecker product",
    "oft_blocks": "OFT, a rotation of W_0",
}
"""Names of tensors, and the method that has them: no B A that is added to W_0."""


class Pair(NamedTuple):
    """The names of a module's tensors in the file."""

    module: str
    A: str
    B: str
    alpha: str | None


class Found(NamedTuple):
    """What a file's names came to."""

    layout: str
    pairs: Sequence[Pair]
    unknown: Sequence[str]


def find(tensors: Tensors, layouts: Sequence[str] = tuple(LAYOUTS)) -> Found | None:
    """Returns a file's pairs of factors; None where it has none.

    Raises:
        InputError: If a factor lacks the other, or the file is of a method that adds no B A.
    """
    for name in tensors.shapes:
        if method := next((words for mark, words in _OTHER.items() if mark in name.split(".")), None):
            raise InputError(
                f"{tensors.path}: is of {method} ({shown(name)}).\nGive a LoRA adapter: B A, added to a weight."
            )
    for layout in layouts:
        if found := _read_as(tensors, layout):
            return found
    return None


def _read_as(tensors: Tensors, layout: str) -> Found | None:
    modules: dict[str, dict[str, str]] = {}
    unknown = list(tensors.others)
    for name in tensors.shapes:
        found = next((m for pattern in LAYOUTS[layout] if (m := re.fullmatch(pattern, name))), None)
        if found is None:
            unknown.append(name)
            continue
        groups = found.groupdict()
        module = f"{groups['module']}.processor.{groups['end']}" if groups.get("end") else groups["module"]
        factor = _FACTORS[groups["factor"]]
        there = modules.setdefault(module, {})
        if factor in there:
            raise InputError(
                f"{tensors.path}: holds two updates of {shown(module)} ({shown(there[factor])}, {shown(name)}).\n"
                "Give a file of one adapter."
            )
        there[factor] = name
    unknown += [there.pop("alpha") for there in modules.values() if there.keys() == {"alpha"}]
    modules = {module: there for module, there in modules.items() if there}
    if not modules:
        return None
    for lacking, other in (("A", "B"), ("B", "A")):
        if alone := [there[other] for there in modules.values() if lacking not in there]:
            raise InputError(
                f"{tensors.path}: {len(alone)} factors {other} stand without their {lacking}: {grouped(alone)}.\n"
                "Give a whole copy of the adapter."
            )
    pairs = [Pair(module, there["A"], there["B"], there.get("alpha")) for module, there in modules.items()]
    return Found(layout, pairs, unknown)


def widths(tensors: Tensors, pair: Pair) -> tuple[int, int, int, int]:
    """Returns d_in, the rows of A, the columns of B, and d_out; of a convolution A is (r, in x kernel).

    Raises:
        InputError: If a factor is no matrix, or is empty.
    """
    A, B = tensors.shapes[pair.A], tensors.shapes[pair.B]
    for name, shape in ((pair.A, A), (pair.B, B)):
        if len(shape) < 2 or 0 in shape:
            raise InputError(
                f"{tensors.path}: {shown(name)} has shape {shape}: a factor has at least one row and one column.\n"
                "Give a whole copy of the adapter."
            )
    if any(size != 1 for size in B[2:]):
        raise InputError(
            f"{tensors.path}: {shown(pair.B)} has shape {B}: the second factor of a convolution is 1 x 1.\n"
            "Give an adapter whose first factor has the kernel."
        )
    return int(np.prod(A[1:], dtype=object)), A[0], B[1], B[0]


def refuse_misfits(tensors: Tensors, pairs: Sequence[Pair]) -> None:
    """Refuses factors whose product does not exist.

    Raises:
        InputError: Naming the first.
    """
    for pair in pairs:
        _, rows, columns, _ = widths(tensors, pair)
        if rows != columns:
            raise InputError(
                f"{tensors.path}: {shown(pair.A)} has {rows} rows and {shown(pair.B)} {columns} columns; r is both.\n"
                "Give a whole copy of the adapter."
            )


def factors(tensors: Tensors, pair: Pair, scaling: float | None) -> Factors:
    """Reads the factors of a module, as matrices."""
    A, B = tensors.read(pair.A), tensors.read(pair.B)
    return Factors(_flat(A), _flat(B), scaling)


def alpha_of(tensors: Tensors, pair: Pair) -> float | None:
    """Reads the alpha that stands beside a module's factors; None where none does.

    Raises:
        InputError: If it is not one number.
    """
    if pair.alpha is None:
        return None
    alpha = tensors.read(pair.alpha)
    if alpha.size != 1:
        raise InputError(
            f"{tensors.path}: {shown(pair.alpha)} has shape {alpha.shape}; alpha is one number.\n"
            "Give a whole copy of the adapter."
        )
    return float(alpha.reshape(()))


def _flat(values: np.ndarray) -> Float[np.ndarray, "rows columns"]:
    return values.reshape(len(values), -1)
