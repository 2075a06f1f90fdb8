"""What rounding of stored weights alone adds to W' - W: a smaller update cannot be distinguished from it.

A weight that is stored with p bits is off by up to half a unit in its last place, ulp = 2^(e + 1 - p) at a magnitude of
2^e. Errors of independent values are uniform in there, of variance ulp^2 / 12: a random matrix of full rank, whatever
the rank of the update. By how its variances stand in rows and columns, its largest singular value is bounded.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from analysis.section7.subspace import random_edge

_BLOCK = 2**22
"""Entries that are processed at once: a temporary array of 32 MB."""

_CLEARLY_LESS = 0.9
"""Of the norm of rounding: what lies below it was not rounded; the norm of n errors varies by 0.5 / sqrt(n) of it."""

_NEAR_A_STEP = 10
"""Times the norm of rounding: up to there the error of a sum with a value that has no more digits depends on dW."""


class Precision(NamedTuple):
    """A type of numbers with a fraction."""

    name: str
    """As safetensors spells it."""
    bits: int
    """Of the significand, with the leading one."""
    smallest: int
    """The exponent below which numbers have fewer digits."""


_BF16, _F16 = Precision("BF16", 8, -126), Precision("F16", 11, -14)
_F32, _F64 = Precision("F32", 24, -126), Precision("F64", 53, -1022)


class Rounding(NamedTuple):
    """What rounding alone makes of W' - W."""

    norm: float
    """The Frobenius norm that is expected of it."""
    edge: float
    """What its largest singular value does not exceed, but for one in a hundred."""
    kept_as: str
    """The type whose rounding it is."""
    of_base: bool
    """Whether it is W that has these few digits, and W' has more."""
    is_near_a_step: bool
    """Whether both have as few digits and dW is near one step: then the error is no independent noise."""


class Rounded(NamedTuple):
    """A matrix beside the rounding of its dW."""

    rounding: Rounding | None
    """None where dW stands in factors."""
    above: int | None
    """How many directions stand above it."""
    of: int
    """How many directions there are."""


def rounding_of(
    trained: Float[np.ndarray, "d_out d_in"], base: Float[np.ndarray, "d_out d_in"], norm: float
) -> Rounding:
    """Returns what rounding puts into the difference of two weights.

    It is that of the coarser of the two. Where this is the base and the difference is smaller than its rounding, the
    training started at the rounded values, which hence are exact, and what is left is the rounding of the trained one.
    By their values, not by their file: who saves bf16 weights as fp32 adds no digits.

    Args:
        trained: W'.
        base: W.
        norm: ||W' - W||_F.
    """
    own, theirs = precision_of(trained), precision_of(base)
    if theirs.bits < own.bits:
        size, edge = _at(trained, theirs)
        if norm >= _CLEARLY_LESS * size:
            return Rounding(size, edge, theirs.name, of_base=True, is_near_a_step=False)
    size, edge = _at(trained, own)
    return Rounding(size, edge, own.name, False, theirs.bits <= own.bits and norm < _NEAR_A_STEP * size)


def above_rounding(s: Float[np.ndarray, " k"], rounding: Rounding | None) -> int | None:
    """Returns how many of these singular values of dW rounding alone does not make; None where dW is not rounded."""
    return None if rounding is None else int((s > rounding.edge).sum())


def describe_rounding(name: str, matrices: Sequence[Rounded]) -> Iterator[str]:
    """Yields a note for the matrices in which rounding may be mistaken for what was learned.

    Args:
        name: What people call it.
        matrices: All of its matrices that are inspected.
    """
    by_type: dict[tuple[str, bool], list[Rounding]] = {}
    for rounding, above, of in matrices:
        if rounding is not None and above is not None and above < of:
            by_type.setdefault((rounding.kept_as, rounding.of_base), []).append(rounding)
    for (kept_as, of_base), found in by_type.items():
        near = sum(rounding.is_near_a_step for rounding in found)
        yield (
            f"{name}: in {len(found)} of {len(matrices)} matrices some directions of dW are no larger than what the "
            f"rounding of the {'base' if of_base else 'trained weights'} to {kept_as} alone makes. They, and what they "
            "add to norms, ranks and energies, may be rounding."
            + " If the training started at the rounded values of the base, they are not."
            * of_base
            + f" In {near} of them dW is near one step of {kept_as}: there the error depends on dW and may raise a few "
            "directions above it." * (near > 0)
        )


def precision_of(values: Float[np.ndarray, "d_out d_in"]) -> Precision:
    """Returns the coarsest type that holds all values as they are."""
    single = np.ascontiguousarray(values, np.float32)
    if values.dtype == np.float64 and not np.array_equal(single, values):
        return _F64
    if not (single.view(np.uint32) & 0xFFFF).any():
        return _BF16
    with np.errstate(over="ignore"):
        return _F16 if np.array_equal(single.astype(np.float16), single) else _F32


def _at(values: Float[np.ndarray, "d_out d_in"], precision: Precision) -> tuple[float, float]:
    """Returns norm and edge of the rounding of these values.

    Source of the edge: Bandeira and van Handel (2016), Theorem 1.1, the largest row's and the largest column's norm;
    for equal variances that is sigma (sqrt(rows) + sqrt(columns)). It is moved to where 99 % lie below, as
    `random_edge` is for equal variances.
    """
    rows, columns = np.zeros(len(values)), np.zeros(values.shape[1])
    step = max(1, _BLOCK // max(1, values.shape[1]))
    for begin in range(0, len(values), step):
        mantissa, exponent = np.frexp(values[begin : begin + step])
        exponent[mantissa == 0] = precision.smallest
        variance = np.ldexp(1 / 12, 2 * (np.maximum(exponent - 1, precision.smallest) + 1 - precision.bits))
        rows[begin : begin + step] = variance.sum(1)
        columns += variance.sum(0)
    largest = float(np.sqrt(rows.max()) + np.sqrt(columns.max()))
    equal = float(np.sqrt(len(rows)) + np.sqrt(len(columns)))
    return float(np.sqrt(rows.sum())), largest * random_edge(*values.shape) / equal
