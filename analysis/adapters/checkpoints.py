"""Pairs of full checkpoints: what training added is W' - W, of which the first directions are kept as factors."""

from functools import partial

import numpy as np
from jaxtyping import Float

from analysis.adapters.backbone import Backbone
from analysis.adapters.base import Adapter, Factors, Matrix, Options, is_transposed, rows_of, sites_in
from analysis.adapters.tensors import Shape, Tensors
from analysis.foreign_text import grouped
from analysis.section7.rounding import rounding_of
from lora_repro.errors import InputError, shown
from lora_repro.models.arch import Part

_DENSE_UP_TO = 1024
"""Narrower side of dW up to which all singular values are computed; above it only the first ones, by Lanczos."""


_BUFFERS = ("position_ids", "token_type_ids", "masked_bias", "inv_freq", "relative_position_index")
"""Last names of buffers of transformers' models."""


def read_checkpoint(tensors: Tensors, given: str, backbone: Backbone, options: Options) -> Adapter:
    """Opens a full checkpoint against its base.

    Raises:
        InputError: If no base is given, or it has no matrix in common.
    """
    base = backbone.weights
    if base is None:
        raise InputError(
            f"{tensors.path}: holds no factors of an adapter (its first tensor: "
            f"{shown(next(iter(tensors.shapes), 'none'))}).\n"
            "If it is a full checkpoint, give what it was trained from: --base MODEL"
        )
    members: list[Matrix] = []
    alone, other, vectors, buffers = list[str](), list[str](), list[str](), list[str]()
    for name, shape in tensors.shapes.items():
        theirs = backbone.find_weight(name)
        if theirs is None:
            alone.append(name)
        elif _is_buffer(name, shape) or (name in tensors.whole and theirs in base.whole):
            buffers.append(name)
        elif base.shapes[theirs] != shape:
            other.append(name)
        elif len(shape) < 2:
            vectors.append(name)
        else:
            members += _matrices(tensors, name, base, theirs, backbone, options.top)
    if not members:
        raise InputError(
            f"{tensors.path}: has no matrix in common with the base {base.path}"
            + (f"; of other shapes: {grouped(other)}" if other else "")
            + (f"; without fractions, or masks: {grouped(buffers)}" if buffers else "")
            + ".\nGive the base that it was trained from."
        )
    words = (
        ("The base does not hold them", alone),
        ("The base holds them in another shape", other),
        ("No matrices", vectors),
        ("Positions, masks and the like, which are not trained", buffers),
    )
    notes = [f"{reason}: {grouped(names)}." for reason, names in words if names]
    return Adapter(given, "full checkpoint", members, tensors.others, notes, frozenset({"top"}))


def _is_buffer(name: str, shape: Shape) -> bool:
    """Tells what no training changes: positions, and masks that old versions saved with the weights.

    GPT-2's causal mask is called attn.bias, of (1, 1, n, n): a bias of an affine map has one dimension.
    """
    last = name.rpartition(".")[2]
    return last in _BUFFERS or (last == "bias" and len(shape) > 1)


def _matrices(tensors: Tensors, name: str, base: Tensors, theirs: str, backbone: Backbone, top: int) -> list[Matrix]:
    """Returns the matrices in a weight: one, or q, k and v of a fused layer."""
    module, shape = name.removesuffix(".weight"), tensors.shapes[name]
    d_out, d_in = shape[0], int(np.prod(shape[1:], dtype=object))
    bias = tensors.shapes.get(f"{module}.bias", ())
    transposed = is_transposed(module, backbone, (d_out, d_in), bias[0] if len(bias) == 1 else None)
    d_out, d_in = (d_in, d_out) if transposed else (d_out, d_in)
    return [
        place.matrix(
            module,
            d_in,
            d_out,
            partial(_difference, tensors, name, base, theirs, transposed, place.part, top),
            backbone,
        )
        for place in sites_in(module, d_in, d_out, backbone)
    ]


def _difference(
    tensors: Tensors, name: str, base: Tensors, theirs: str, transposed: bool, part: Part | None, top: int
) -> Factors:
    def matrix(values: np.ndarray) -> Float[np.ndarray, "rows d_in"]:
        flat = values.reshape(len(values), -1)
        return rows_of(flat.T if transposed else flat, part)

    trained, W_0 = matrix(tensors.read(name)), matrix(base.read(theirs))
    found = first_directions(trained - W_0.astype(np.float64), top)
    return found if found.norm is None else found._replace(rounding=rounding_of(trained, W_0, found.norm))


def first_directions(dW: Float[np.ndarray, "d_out d_in"], top: int) -> Factors:
    """Returns the first directions of a matrix as factors, S^(1/2) V^T and U S^(1/2); none of a zero matrix.

    Each has the roots of the singular values, so the singular vectors of both are those of dW, in their order.
    """
    norm = float(np.linalg.norm(dW))
    top = min(top, *dW.shape)
    if norm == 0:
        return Factors(np.zeros((0, dW.shape[1])), np.zeros((dW.shape[0], 0)), 1.0, norm)
    U, s, Vt = _leading(dW, top)
    kept = slice(0, min(top, int((s > s[0] * max(dW.shape) * np.finfo(np.float64).eps).sum())))
    roots = np.sqrt(s[kept])
    return Factors(roots[:, None] * Vt[kept], U[:, kept] * roots, 1.0, norm)


def _leading(dW: Float[np.ndarray, "d_out d_in"], top: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the first singular vectors and values, or all where that costs little."""
    if min(dW.shape) <= _DENSE_UP_TO or top * 4 > min(dW.shape):
        return np.linalg.svd(dW, full_matrices=False)
    from scipy.sparse.linalg import svds

    start = np.random.default_rng(0).standard_normal(min(dW.shape))  # equal input, equal output
    U, s, Vt = svds(dW, k=top, v0=start)
    assert U is not None and Vt is not None
    return U[:, ::-1], s[::-1], Vt[::-1]
