"""How tools name the tensors in an adapter's file: patterns that find module and factor in a tensor's name."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from analysis.adapters.base import Factors
from analysis.adapters.beside import refuse_other_method, sort_out
from analysis.adapters.products import Product, products_in
from analysis.adapters.tensors import Tensors
from analysis.foreign_text import grouped
from lora_repro.errors import InputError, shown

_COMPONENT = r"(?P<module>(?:unet|text_encoder(?:_2)?|transformer(?=\.(?:single_)?transformer_blocks))\..+)"
"""Of a pipeline: `transformer` alone begins GPT-2's names too."""

_TOOL = r"(?P<module>(?:lora|lycoris)_(?:unet|te\d?|transformer)_.+)"

_ALPHA = r"(?P<module>.+)\.(?:lora_)?(?P<factor>alpha)"
"""A number beside the factors: as ComfyUI's names of Wan, Flux and others have it."""

LAYOUTS: dict[str, tuple[str, ...]] = {
    "kohya": (
        rf"{_TOOL}\.(?P<factor>lora_down|lora_up|alpha)(?:\.weight)?",
        rf"{_TOOL}\.lora_(?P<factor>mid)\.weight",
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
        r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<factor>E|diag)(?:\.(?P<name>[^.]+))?",
        rf"(?:base_model\.model\.)?{_ALPHA}",
    ),
    "down and up": (
        r"(?P<module>.+)\.(?P<factor>lora_down|lora_up)(?:\.weight)?",
        r"(?P<module>.+)\.lora_(?P<factor>mid)\.weight",
        _ALPHA,
    ),
    "AdapterHub": (r"(?P<module>.+)\.loras\.(?P<name>[^.]+)\.lora_(?P<factor>A|B)",),
    "torchtune": (r"(?P<module>.+)\.lora_(?P<factor>a|b)\.weight", _ALPHA),
    "MLX": (r"(?P<module>.+)\.lora_(?P<factor>a|b)",),
    "loralib": (
        r"(?:module\.|base_model\.model\.)?(?P<module>.+)\.lora_(?P<factor>A|B|E)",  # and AdaLoRA, in PEFT too
        rf"(?:module\.)?{_ALPHA}",
    ),
}
"""Tried in this order: the first whose pattern matches a factor names the file's layout."""

_FACTORS = {
    "a": "A",
    "b": "B",
    "lora_down": "A",
    "lora_up": "B",
    "down": "A",
    "up": "B",
    "E": "diagonal",
    "diag": "diagonal",
}
"""What tools call the factors otherwise. AdaLoRA's E and KaSA's diag stand between B and A."""


class FactorNames(NamedTuple):
    """The names of a module's tensors in the file."""

    module: str
    A: str
    B: str
    alpha: str | None = None
    diagonal: str | None = None
    """r numbers between B and A."""
    mid: str | None = None
    """The kernel between two 1 x 1 factors of a convolution, as LyCORIS has it."""
    transposed: bool = False
    """A is (d_in, r) and B (r, d_out), as MLX has them."""
    is_embedding: bool = False
    """PEFT's lora_embedding_A and _B: the weight is a table of W's columns, and A starts at zero."""


class FileContents(NamedTuple):
    """What a file holds, by its tensors' names."""

    layout: str
    pairs: Sequence[FactorNames]
    products: Mapping[str, Product]
    """Updates that are no B A."""
    unknown: Sequence[str]
    vectors: Sequence[str]
    """Changes of biases and norms."""


def find(tensors: Tensors, layouts: Sequence[str] = tuple(LAYOUTS)) -> FileContents | None:
    """Returns a file's pairs of factors; None where it has none.

    Raises:
        InputError: If a factor is without the other, the file is of a method that adds no B A, or a tensor that is not
            known may change the update.
    """
    refuse_other_method(tensors.path, tensors.shapes)
    products = products_in(tensors)
    taken = {name for product in products.values() for name in (*product.parts.values(), product.alpha)}
    modules: dict[str, dict[str, str]] = {}
    transposed = set[str]()
    beginnings, used = set[str](products), list[str]()
    for layout in layouts:
        there = _read_as(tensors, layout, [name for name in tensors.shapes if name not in taken], beginnings)
        if both := [module for module in there if module in modules]:
            raise InputError(
                f"{tensors.path}: holds two updates of {shown(both[0])}, under the names of {used[0]} and {layout}.\n"
                "Give a file of one adapter."
            )
        if there:
            used.append(layout)
            transposed |= there.keys() if layout == "MLX" else set()
            modules |= there
            taken |= {name for names in there.values() for name in names.values()}
    if not modules and not products:
        refuse_other_method(tensors.path, tensors.shapes, alone=True)
        return None
    for missing, other in (("A", "B"), ("B", "A")):
        if alone := [there[other] for there in modules.values() if missing not in there]:
            raise InputError(
                f"{tensors.path}: {len(alone)} factors {other} stand without their {missing}: {grouped(alone)}.\n"
                "Give a whole copy of the adapter."
            )
    if "loralib" in used and (len(used) > 1 or products):
        raise InputError(
            f"{tensors.path}: holds factors under loralib's names and under others.\nGive a file of one adapter."
        )
    if stacked := [module for module in modules if module.rpartition(".")[2] in ("experts", "base_layer")]:
        raise InputError(
            f"{tensors.path}: {shown(stacked[0])} is a stack of experts (PEFT's target_parameters): no B A.\n"
            "Give a LoRA adapter of single layers."
        )
    unknown, vectors = sort_out(tensors.path, [name for name in tensors.shapes if name not in taken], beginnings)
    pairs = [
        FactorNames(module, **there, transposed=module in transposed, is_embedding=".lora_embedding_A" in there["A"])
        for module, there in modules.items()
    ]
    return FileContents(used[0] if used else "products", pairs, products, [*tensors.others, *unknown], vectors)


def _read_as(tensors: Tensors, layout: str, names: Sequence[str], beginnings: set[str]) -> dict[str, dict[str, str]]:
    """Returns the factors of each module, as far as the names are of this layout, and adds how the names begin."""
    modules: dict[str, dict[str, str]] = {}
    raw: dict[str, str] = {}
    for name in names:
        found = next((m for pattern in LAYOUTS[layout] if (m := re.fullmatch(pattern, name))), None)
        if found is None:
            continue
        groups = found.groupdict()
        module = f"{groups['module']}.processor.{groups['end']}" if groups.get("end") else groups["module"]
        factor = _FACTORS.get(groups["factor"], groups["factor"])
        there = modules.setdefault(module, {})
        if factor in there:
            raise InputError(
                f"{tensors.path}: holds two updates of {shown(module)} ({shown(there[factor])}, {shown(name)}).\n"
                "Give a file of one adapter."
            )
        there[factor] = name
        raw[module] = name[: found.end("module")]
    modules = {module: there for module, there in modules.items() if "A" in there or "B" in there}
    beginnings.update(raw[module] for module in modules)
    return modules


def rotary_note(found: FileContents) -> list[str]:
    """Says where the outputs of q and k stand in another order than in the files of the base."""
    if found.layout != "torchtune":
        return []
    return ["torchtune orders the rows of q and k otherwise than Hugging Face: left directions of these are no match."]


def widths(tensors: Tensors, pair: FactorNames) -> tuple[int, int, int, int]:
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
    if pair.transposed:
        if len(A) != 2 or len(B) != 2:
            raise InputError(
                f"{tensors.path}: {shown(pair.A)} has shape {A}: it is of a stack of experts, whose update is no B A.\n"
                "Give a LoRA adapter of single layers."
            )
        A, B = A[::-1], B[::-1]
    if any(size != 1 for size in B[2:]):
        raise InputError(
            f"{tensors.path}: {shown(pair.B)} has shape {B}: the second factor of a convolution is 1 x 1.\n"
            "Give an adapter whose first factor has the kernel."
        )
    kernel = tensors.shapes[pair.mid][2:] if pair.mid is not None else ()
    return math.prod((*A[1:], *kernel)), A[0], B[1], B[0]


def refuse_misfits(tensors: Tensors, pairs: Sequence[FactorNames]) -> None:
    """Refuses factors whose product does not exist.

    Raises:
        InputError: Naming the first.
    """
    for pair in pairs:
        _, rows, columns, _ = widths(tensors, pair)
        if rows != columns:
            raise InputError(
                f"{tensors.path}: {shown(pair.A)} has {rows} rows and {shown(pair.B)} {columns} columns; r is both.\n"
                "Give a whole copy of the adapter. Of a convolution in groups, merge it, and give the whole checkpoint "
                "with --base."
            )


def factors(tensors: Tensors, pair: FactorNames, scaling: float | None) -> Factors:
    """Reads the factors of a module, as matrices. What stands between them goes into B, or A where it is a kernel.

    Raises:
        InputError: If what stands between them does not fit.
    """
    A, B = tensors.read(pair.A), tensors.read(pair.B)
    if pair.transposed:
        A, B = A.T, B.T
    B = _flat(B)
    between = [name for name in (pair.diagonal, pair.mid) if name is not None]
    r = len(A)
    if pair.diagonal is not None and math.prod(tensors.shapes[pair.diagonal]) == r:
        B = B * tensors.read(pair.diagonal).reshape(r)
    elif pair.mid is not None and tensors.shapes[pair.mid][:2] == (r, r) and math.prod(A.shape[2:]) == 1:
        A = np.einsum("mn...,ni->mi...", tensors.read(pair.mid), A.reshape(A.shape[:2]))
    elif between:
        raise InputError(
            f"{tensors.path}: {shown(between[0])} of {tensors.shapes[between[0]]} does not fit between factors of r = "
            f"{r}.\nGive a whole copy of the adapter."
        )
    return Factors(_flat(A), B, scaling)


def alpha_of(tensors: Tensors, pair: FactorNames) -> float | None:
    """Reads the alpha that stands beside a module's factors; None where none does."""
    return None if pair.alpha is None else number(tensors, pair.alpha)


def number(tensors: Tensors, name: str) -> float:
    """Reads a tensor that is one number.

    Raises:
        InputError: If it is more than one.
    """
    value = tensors.read(name)
    if value.size != 1:
        raise InputError(
            f"{tensors.path}: {shown(name)} has shape {value.shape}; alpha is one number.\n"
            "Give a whole copy of the adapter."
        )
    return float(value.reshape(()))


def _flat(values: np.ndarray) -> Float[np.ndarray, "rows columns"]:
    return values.reshape(len(values), -1)
