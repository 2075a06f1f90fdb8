"""Files of loralib, the authors' package: factors by module, without alpha; q, k and v grouped in MergedLinear."""

from collections.abc import Callable, Sequence
from functools import partial

from analysis.adapters.backbone import Backbone
from analysis.adapters.base import Adapter, Factors, Matrix, Options, Place, matrices
from analysis.adapters.layouts import Found, Pair, factors, refuse_misfits, widths
from analysis.adapters.names import BLOCKS, FUSED, named
from analysis.adapters.tensors import Tensors
from analysis.words import shown
from lora_repro.arch import Part
from lora_repro.errors import InputError

_AUTHORS = ("q", "v")
"""enable_lora=[True, False, True] in the authors' GPT-2 code, examples/NLG/src/model.py of microsoft/LoRA."""


def read_loralib(tensors: Tensors, given: str, found: Found, backbone: Backbone, options: Options) -> Adapter:
    """Opens a state dict of loralib, which holds neither lora_alpha nor MergedLinear's enable_lora.

    Raises:
        InputError: If factors do not fit, or grouped ones cannot be told apart.
    """
    members: list[Matrix] = []
    takes, assumed = {"alpha"}, False
    for pair in found.pairs:
        d_in, rows, r, d_out = widths(tensors, pair)
        read = partial(factors, tensors, pair, None if options.alpha is None else options.alpha / r)
        number = d_out // d_in
        if named(pair.module).letter == BLOCKS and rows == number * r and d_out == number * d_in:
            letters = options.enable_lora if options.enable_lora is not None else FUSED if number == 3 else _AUTHORS
            assumed = assumed or (options.enable_lora is None and number < 3)
            takes.add("enable_lora")
            members += _groups(tensors, pair, letters, d_in, number, read, backbone)
        else:
            refuse_misfits(tensors, [pair])
            members += matrices(pair.module, d_in, d_out, read, backbone)
    notes = []
    if options.alpha is None:
        notes.append(
            "Holds no alpha, as all files of loralib: B A stands as it is, without a scale (--alpha gives it)."
        )
    if assumed:
        notes.append("Does not say which two of q, k, v it adapts: taken as q and v (--enable-lora).")
    return Adapter(given, "loralib file", members, found.unknown, notes, frozenset(takes))


def _groups(
    tensors: Tensors,
    pair: Pair,
    letters: Sequence[str],
    d: int,
    number: int,
    read: Callable[[], Factors],
    backbone: Backbone,
) -> list[Matrix]:
    """Returns the matrices of a MergedLinear: r rows of A and d rows of B for each, one after the other."""
    if len(letters) != number:
        raise InputError(
            f"{tensors.path}: {shown(pair.module)} adapts {number} of q, k and v, and {','.join(letters)} are "
            f"{len(letters)}.\nName them in this order, as enable_lora was: --enable-lora "
            f"{','.join(FUSED[:number])}"
        )
    layer = named(pair.module).layer

    def group(index: int) -> Factors:
        A, B, scaling, norm = read()
        r = B.shape[1]
        return Factors(A[index * r : (index + 1) * r], B[index * d : (index + 1) * d], scaling, norm)

    return [
        Place(layer, letter, Part(FUSED.index(letter), len(FUSED))).matrix(
            pair.module, d, len(FUSED) * d, partial(group, index), backbone
        )
        for index, letter in enumerate(letters)
    ]
