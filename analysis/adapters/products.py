"""Updates that are no product of two factors: LoHa, LoKr, and dW itself.

Sources: LyCORIS (lycoris/modules/loha.py and lokr.py) and PEFT (tuners/loha/layer.py and tuners/lokr/layer.py). LyCORIS
scales by alpha / r, and a LoKr of two full matrices not at all; PEFT always scales by alpha / r.
"""

import math
import re
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from analysis.adapters.backbone import Backbone
from analysis.adapters.base import Factors, Matrix, rows_of, sites_in
from analysis.adapters.checkpoints import first_directions
from analysis.adapters.tensors import Tensors
from lora_repro.errors import InputError, shown
from lora_repro.models.arch import Part

_PART = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\."
    r"(?P<part>hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)|diff)(?:\.default)?(?:\.weight)?"
)

_WORDS = {"hada": "LoHa", "lokr": "LoKr", "diff": "dW"}


class Product(NamedTuple):
    """A module's update, and the tensors that make it."""

    module: str
    parts: Mapping[str, str]
    """By what each is, without the tool's prefix (w1_a, w2, t2, diff): its name in the file."""
    kind: str
    """hada, lokr or diff."""
    alpha: str | None


def products_in(tensors: Tensors) -> dict[str, Product]:
    """Returns the updates in a file that are no B A, by the beginnings of their tensors' names.

    Raises:
        InputError: If one is not whole.
    """
    found: dict[str, Product] = {}
    for name in tensors.shapes:
        match = _PART.fullmatch(name)
        if match is None or (match["part"] == "diff" and len(tensors.shapes[name]) < 2):
            continue
        raw, (kind, _, part) = name[: match.end("module")], match["part"].partition("_")
        alpha = f"{raw}.alpha"
        product = found.setdefault(raw, Product(match["module"], {}, kind, alpha if alpha in tensors.shapes else None))
        found[raw] = product._replace(parts={**product.parts, part if part else kind: name})
        if kind != product.kind:
            raise InputError(
                f"{tensors.path}: holds two updates of {shown(match['module'])}, of {product.kind} and of {kind}.\n"
                "Give a file of one adapter."
            )
    for product in found.values():
        if missing := _missing_parts(product):
            raise InputError(
                f"{tensors.path}: {shown(product.module)} lacks {missing} of its {_WORDS[product.kind]}.\n"
                "Give a whole copy of the adapter."
            )
    return found


def names(products: Mapping[str, Product]) -> str:
    """Names the methods of these updates: LoHa, LoKr."""
    return ", ".join(sorted({_WORDS[product.kind] for product in products.values()}))


def _missing_parts(product: Product) -> str:
    there = product.parts.keys()
    if product.kind == "hada":
        return ", ".join(part for part in ("w1_a", "w1_b", "w2_a", "w2_b") if part not in there)
    if product.kind == "lokr":
        wanted = [] if "w1" in there else ["w1_a", "w1_b"]
        wanted += [] if "w2" in there else ["w2_a", "w2_b"]
        return ", ".join(part for part in wanted if part not in there)
    return ""


def rank_of(tensors: Tensors, product: Product) -> int | None:
    """Returns the r that alpha is divided by; None where no tensor shows it: for dW itself, and two full matrices."""
    return next((tensors.shapes[product.parts[p]][0] for p in ("w2_b", "w1_b") if p in product.parts), None)


def matrices_of(
    tensors: Tensors, product: Product, scaling: float | None, top: int, backbone: Backbone
) -> list[Matrix]:
    """Returns the matrices of a module's update: one, or q, k and v of a fused layer.

    Args:
        tensors: The file.
        product: The update.
        scaling: What it is multiplied by; None where the file does not say.
        top: How many directions of dW are kept.
        backbone: The base, as far as it is known.
    """
    d_out, d_in = _widths(tensors, product)
    return [
        place.matrix(
            product.module, d_in, d_out, partial(_factors, tensors, product, scaling, top, place.part), backbone
        )
        for place in sites_in(product.module, d_in, d_out, backbone)
    ]


def _widths(tensors: Tensors, product: Product) -> tuple[int, int]:
    """Returns d_out and d_in, of a convolution in x kernel, from the shapes alone."""
    shapes = {part: tensors.shapes[name] for part, name in product.parts.items()}
    for part, shape in shapes.items():
        if len(shape) < 2 or 0 in shape:
            raise InputError(
                f"{tensors.path}: {shown(product.parts[part])} has shape {shape}, which is no matrix.\n"
                "Give a whole copy of the adapter."
            )
    if product.kind == "diff":
        d_out, *d_in = shapes["diff"]
    elif product.kind == "hada":
        d_out = shapes["w1_a"][1 if "t1" in shapes else 0]
        d_in = [shapes["w1_b"][1], *shapes.get("t1", ())[2:]]
    else:
        outer = shapes["w1"] if "w1" in shapes else (shapes["w1_a"][0], shapes["w1_b"][1])
        if "w2" in shapes:
            inner = shapes["w2"]
        else:
            inner = (shapes["w2_a"][1 if "t2" in shapes else 0], shapes["w2_b"][1], *shapes.get("t2", ())[2:])
        d_out, d_in = outer[0] * inner[0], [outer[1], *inner[1:]]
    return d_out, math.prod(d_in)


def _factors(tensors: Tensors, product: Product, scaling: float | None, top: int, part: Part | None) -> Factors:
    d_out, d_in = _widths(tensors, product)
    try:
        dW = _dense(product.kind, {part: tensors.read(name) for part, name in product.parts.items()})
        dW = dW.reshape(d_out, d_in)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{tensors.path}: the parts of {shown(product.module)} do not fit together.\n"
            "Give a whole copy of the adapter."
        ) from error
    kept = first_directions(rows_of(dW if scaling is None else scaling * dW, part), top)
    return kept if scaling is not None else kept._replace(scaling=None)


def _dense(kind: str, values: Mapping[str, np.ndarray]) -> Float[np.ndarray, "..."]:
    """Returns dW without its scale, in the shape of the weight, or with a convolution's kernel in its columns."""
    part = {name: value.astype(np.float64) for name, value in values.items()}
    if kind == "diff":
        return part["diff"]
    if kind == "hada":
        return _low_rank(part, "t1", "w1") * _low_rank(part, "t2", "w2")
    outer = part["w1"] if "w1" in part else part["w1_a"] @ part["w1_b"]
    inner = part["w2"] if "w2" in part else _low_rank(part, "t2", "w2")
    return np.kron(outer.reshape(*outer.shape, *[1] * (inner.ndim - 2)), inner)


def _low_rank(part: Mapping[str, np.ndarray], core: str, name: str) -> np.ndarray:
    """Returns a matrix from its two factors, or a kernel from a core and two factors (a Tucker decomposition)."""
    a, b = part[f"{name}_a"], part[f"{name}_b"]
    return np.einsum("ij...,ip,jr->pr...", part[core], a, b) if core in part else a @ b
