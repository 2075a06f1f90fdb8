"""Files of loralib, the authors' package: factors by module, without alpha; q, k and v grouped in MergedLinear.

A convolution with a k x k kernel has A of (r k, in k) and B of (out k, r k), and dW is B A viewed as (out, in, k, k)
(loralib 0.1.2, layers.py, ConvLoRA): factors that look like a linear layer's, unless the weight is seen beside them.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from analysis.adapters.backbone import Backbone
from analysis.adapters.base import Adapter, Factors, Matrix, MatrixSite, Options, from_law, matrices
from analysis.adapters.beside import vector_note
from analysis.adapters.layouts import FactorNames, FileContents, alpha_of, factors, refuse_misfits, widths
from analysis.adapters.names import BLOCKS, FUSED, named
from analysis.adapters.tensors import Shape, Tensors
from analysis.foreign_text import grouped
from lora_repro.errors import InputError, MissingInputError, shown
from lora_repro.models.arch import ROLES, Part

_AUTHORS = ("q", "v")
"""enable_lora=[True, False, True] in the authors' GPT-2 code, examples/NLG/src/model.py of microsoft/LoRA."""


def read_loralib(tensors: Tensors, given: str, found: FileContents, backbone: Backbone, options: Options) -> Adapter:
    """Opens a state dict of loralib, which holds neither lora_alpha nor MergedLinear's enable_lora.

    Raises:
        InputError: If factors do not fit, or grouped ones cannot be assigned.
    """
    members: list[Matrix] = []
    takes, assumed, without, taken_as_linear = {"alpha"}, False, False, list[str]()
    for pair in found.pairs:
        d_in, rows, r, d_out = widths(tensors, pair)
        own = alpha_of(tensors, pair)
        alpha = own if own is not None else options.alpha
        without = without or alpha is None
        read = partial(factors, tensors, pair, None if alpha is None else alpha / r)
        number = d_out // d_in
        if named(pair.module).role == BLOCKS and rows == number * r and d_out == number * d_in:
            roles = options.enable_lora if options.enable_lora is not None else FUSED if number == 3 else _AUTHORS
            assumed = assumed or (options.enable_lora is None and number < 3)
            takes.add("enable_lora")
            found_here = _groups(tensors, pair, roles, d_in, number, read, backbone)
            members += [from_law(m, 1 / (3 * d_in)) for m in found_here]  # kaiming_uniform_(a=sqrt(5))
            continue
        refuse_misfits(tensors, [pair])
        shape = _weight_shape(tensors, pair.module, backbone)
        if shape is not None and len(shape) > 2 and math.prod(shape[2:]) > 1:
            members.append(_convolution(tensors, pair, shape, alpha, backbone))
            continue
        if shape is None and named(pair.module).role not in ROLES and math.gcd(d_in, rows, d_out) > 1:
            if "conv" in pair.module.rpartition(".")[2].lower():
                read = partial(_refuse_unseen, tensors, pair)
            else:
                taken_as_linear.append(pair.module)
        # AdaLoRA's A is normal with a standard deviation of 0.02 (loralib/adalora.py), another one uniform
        variance = 0.02**2 if pair.diagonal is not None else 1 / (3 * d_in)
        members += [from_law(m, variance) for m in matrices(pair.module, d_in, d_out, read, backbone)]
    notes = []
    if without:
        notes.append(
            "Holds no alpha, as all files of loralib: B A stands as it is, without a scale (--alpha gives it)."
        )
    if taken_as_linear:
        notes.append(
            f"Does not say of what kind these layers are, taken as linear: {grouped(taken_as_linear)} (a convolution's "
            "kernel is seen with --base)."
        )
    if assumed:
        notes.append("Does not say which two of q, k, v it adapts: taken as q and v (--enable-lora).")
    notes += vector_note(found.vectors)
    return Adapter(given, "loralib file", members, found.unknown, notes, frozenset(takes))


def _weight_shape(tensors: Tensors, module: str, backbone: Backbone) -> Shape | None:
    """Returns the shape of the weight that a module adapts, where the file or the base holds it."""
    names = (f"{module}.conv.weight", f"{module}.weight")  # ConvLoRA's own, and a plain layer's
    if found := next((name for name in names if name in tensors.shapes), None):
        return tensors.shapes[found]
    try:
        weights = backbone.weights
    except MissingInputError:  # a known model, of which only the shapes are here: it is no convolution's
        return None
    there = map(backbone.find_weight, names)
    return next((weights.shapes[name] for name in there if weights is not None and name is not None), None)


def _convolution(tensors: Tensors, pair: FactorNames, shape: Shape, alpha: float | None, backbone: Backbone) -> Matrix:
    """Returns the matrix of a convolution, (out, in k k): of it B A holds k rows for each row.

    Raises:
        InputError: If B A is no view of the weight, or the convolution has groups.
    """
    columns, rows, _, height = widths(tensors, pair)
    d_out, per_group, k = shape[:3]
    if len(shape) != 4 or shape[3] != k or rows % k or columns % k or columns * height != math.prod(shape):
        raise InputError(
            f"{tensors.path}: B A of {shown(pair.module)} is {height} x {columns}, no view of its weight of {shape}.\n"
            "Give the base that the adapter was trained on."
        )
    if columns != per_group * k:
        raise InputError(
            f"{tensors.path}: {shown(pair.module)} is a convolution in groups, which is not read from factors.\n"
            "Merge it, and give the whole checkpoint with --base."
        )

    def read() -> Factors:
        A, B, *_ = factors(tensors, pair, None)
        scaling = None if alpha is None else alpha / (rows // k)
        return Factors(np.kron(np.eye(k, dtype=A.dtype), A), B.reshape(d_out, -1), scaling)

    layer, role = named(pair.module)
    return MatrixSite(layer, role).matrix(pair.module, per_group * k * k, d_out, read, backbone)


def _refuse_unseen(tensors: Tensors, pair: FactorNames) -> Factors:
    raise InputError(
        f"{tensors.path}: {shown(pair.module)} is called a convolution, and its factors do not tell its kernel: "
        "loralib views B A as the weight.\nGive the base: --base MODEL, or leave it out with --weights."
    )


def _groups(
    tensors: Tensors,
    pair: FactorNames,
    roles: Sequence[str],
    d: int,
    number: int,
    read: Callable[[], Factors],
    backbone: Backbone,
) -> list[Matrix]:
    """Returns the matrices of a MergedLinear: r rows of A and d rows of B for each, one after the other."""
    if len(roles) != number:
        raise InputError(
            f"{tensors.path}: {shown(pair.module)} adapts {number} of q, k and v, and {','.join(roles)} are "
            f"{len(roles)}.\nName them in this order, as enable_lora was: --enable-lora "
            f"{','.join(FUSED[:number])}"
        )
    layer = named(pair.module).layer

    def group(index: int) -> Factors:
        A, B, scaling, norm, _ = read()
        r = B.shape[1]
        return Factors(A[index * r : (index + 1) * r], B[index * d : (index + 1) * d], scaling, norm)

    return [
        MatrixSite(layer, role, Part(FUSED.index(role), len(FUSED))).matrix(
            pair.module, d, len(FUSED) * d, partial(group, index), backbone
        )
        for index, role in enumerate(roles)
    ]
