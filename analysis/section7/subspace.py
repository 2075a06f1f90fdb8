"""What an update consists of, from its factors: directions, spectra, and how much two subspaces share (Section 7).

Nothing here makes a matrix of d_out x d_in. All is done in float64. A and B of r <= d have Gram matrices of r x r, from
which directions follow by products alone, ten times as fast as by reflections; see `_thin`.

Singular vectors have no sign, and none of the figures here depends on one. Where singular values are equal the single
vectors within the group are not determined either, only their span: `near_equal` finds such groups.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from analysis.section7.update import Update
from lora_repro.errors import InputError

MAX_CONDITION = 1e4
"""Up to this condition a Gram matrix gives the directions: their error is eps times its square, 2e-8."""

NEAR = 1e-4
"""Singular values nearer than this part of the largest count as equal: there the rounding of float32 factors (6e-8)
turns a vector by up to about 1e-3 (Wedin 1972: by the perturbation over the gap)."""

_SQUARABLE = 1e200
"""Sums of squares between this and its inverse are exact: far from the ends of float64's range, 1e308 and 1e-308."""

TRACY_WIDOM_99 = 2.0234
"""99 % quantile of the Tracy-Widom law of order 1 (Johnstone, Annals of Statistics 2001, Section 1.2 has the law)."""


class Svd(NamedTuple):
    """A singular value decomposition, U diag(s) V^T, without the zeros beyond the rank that is asked for."""

    U: Float[np.ndarray, "d_out r"]
    s: Float[np.ndarray, " r"]
    """Not below 0, in falling order."""
    V: Float[np.ndarray, "d_in r"]


class Directions(NamedTuple):
    """Singular vectors of one side as columns, and their singular values in falling order."""

    U: Float[np.ndarray, "d k"]
    s: Float[np.ndarray, " k"]


class _Thin(NamedTuple):
    """A tall matrix X = Q R, whose orthonormal Q is not multiplied out."""

    R: Float[np.ndarray, "r r"]
    rotated: Callable[[np.ndarray], np.ndarray]
    """Returns Q u of some u with r rows."""


def _thin(X: Float[np.ndarray, "d r"], name: str) -> _Thin:
    """Factors a tall matrix by the eigenvectors of X^T X; by Householder QR where that would not be exact enough.

    Raises:
        InputError: If a value is not finite.
    """
    X = np.asarray(X, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        gram = X.T @ X
    scale = 1.0
    if not 1 / _SQUARABLE < gram.diagonal().max(initial=0) < _SQUARABLE:
        scale = _power_above(X, name)
        X = X / scale
        gram = X.T @ X
    values, vectors = np.linalg.eigh(gram)
    if values[0] * MAX_CONDITION**2 > values[-1]:
        roots = np.sqrt(values)
        return _Thin(scale * (vectors * roots).T, lambda u: X @ ((vectors / roots) @ u))
    from scipy.linalg import qr  # twice as fast here as numpy's

    Q, R = qr(X, mode="economic", check_finite=False)  # pyright: ignore[reportAssignmentType]
    return _Thin(scale * R, lambda u: Q @ u)


def _power_above(X: Float[np.ndarray, "d r"], name: str) -> float:
    """Returns the power of two above all entries, by which they are divided without rounding; 1 of a zero matrix.

    Raises:
        InputError: If a value is not finite.
    """
    largest = float(np.abs(X).max(initial=0))
    if not math.isfinite(largest):
        raise InputError(f"{name} holds values that are not finite.\nGive an update that did not diverge.")
    return 2.0 ** min(math.frexp(largest)[1], 1023)


def factor_directions(X: Float[np.ndarray, "d_1 d_2"], side: Literal["left", "right"] = "right") -> Directions:
    """Returns the singular vectors of a thin factor, and its singular values.

    Args:
        X: A (r x d_in; its right vectors are what the paper's Figures 3 and 4 compare) or B (d_out x r; left).
        side: `right` needs a matrix that is not taller than wide, `left` one that is not wider than tall.

    Raises:
        InputError: If a value is not finite.
        ValueError: If the matrix has the other shape.
    """
    tall = X.T if side == "right" else X
    if tall.shape[0] < tall.shape[1]:
        raise ValueError(f"directions: side={side} of a {X.shape[0]} x {X.shape[1]} matrix. Give the other side.")
    thin = _thin(tall, "A factor")
    u, s, _ = np.linalg.svd(thin.R)
    return Directions(thin.rotated(u), s)


def directions(X: Float[np.ndarray, "d_1 d_2"], side: Literal["left", "right"] = "right") -> Float[np.ndarray, "d r"]:
    """Returns the singular vectors of `factor_directions` alone."""
    return factor_directions(X, side).U


def factor_singular_values(X: Float[np.ndarray, "d_1 d_2"]) -> Float[np.ndarray, " r"]:
    """Returns the singular values of a thin factor, in falling order: those of `directions`.

    Raises:
        InputError: If a value is not finite.
    """
    return np.linalg.svd(_thin(X.T if X.shape[0] < X.shape[1] else X, "A factor").R, compute_uv=False)


def svd(update: Update) -> Svd:
    """Returns the singular value decomposition of dW = scaling B A (of B A where the scaling is unknown).

    By two thin factorisations and an r x r decomposition between them; (B G^-1, G A) gives the same.

    Raises:
        InputError: If a value is not finite, or too large.
    """
    A, B, core = _factored(update)
    u, s, vt = np.linalg.svd(core)
    return Svd(B.rotated(u), s, A.rotated(vt.T))


def update_directions(update: Update, side: Literal["left", "right"]) -> Directions:
    """Returns one side of `svd`.

    Raises:
        InputError: If a value is not finite, or too large.
    """
    A, B, core = _factored(update)
    u, s, vt = np.linalg.svd(core)
    return Directions(B.rotated(u) if side == "left" else A.rotated(vt.T), s)


def singular_values(update: Update) -> Float[np.ndarray, " r"]:
    """Returns the singular values of dW as `svd` does, without its vectors, which take half of the time.

    Raises:
        InputError: If a value is not finite, or too large.
    """
    return np.linalg.svd(_factored(update)[2], compute_uv=False)


def _factored(update: Update) -> tuple[_Thin, _Thin, Float[np.ndarray, "r r"]]:
    """Returns both factors as Q R, and the middle of dW = Q_B (scaling R_B R_A^T) Q_A^T."""
    scaling = update.scaling if update.scaling is not None else 1.0
    A, B = _thin(update.A.T, f"lora_A of {update.module}"), _thin(update.B, f"lora_B of {update.module}")
    with np.errstate(over="ignore", invalid="ignore"):
        core = scaling * (B.R @ A.R.T)
    if not np.isfinite(core).all():
        raise InputError(f"B A of {update.module} is too large for float64.\nGive an update that did not diverge.")
    return A, B, core


def phi_grid(U: Float[np.ndarray, "d i"], V: Float[np.ndarray, "d j"]) -> Float[np.ndarray, "i j"]:
    """Returns phi(i, j) = ||U_i^T V_j||_F^2 / min(i, j) of the first i and the first j columns, for all i and j.

    1 where one subspace lies in the other, 0 where they are orthogonal. Source: Section 7.2, Eq. 4.

    Args:
        U: Orthonormal columns, the leading direction first.
        V: The same of the other update.
    """
    squares = np.square(U.T.astype(np.float64) @ V.astype(np.float64))
    return squares.cumsum(0).cumsum(1) / smaller(*squares.shape)


def smaller(i: int, j: int) -> Float[np.ndarray, "i j"]:
    """Returns min(i, j) for all cells of a grid: how many dimensions two subspaces can share."""
    return np.minimum.outer(np.arange(1.0, i + 1), np.arange(1.0, j + 1))


def rho(U: Float[np.ndarray, "d i"], V: Float[np.ndarray, "d j"]) -> Float[np.ndarray, " i"]:
    """Returns rho_i = ||V^T u_i||^2: how much of each single direction of U lies in the span of V; j / d by chance."""
    return np.square(V.T.astype(np.float64) @ U.astype(np.float64)).sum(0)


def shared_dimensions(phi: Float[np.ndarray, "i j"], d: int) -> Float[np.ndarray, "i j"]:
    """Returns min(i, j) phi - i j / d: how many dimensions are shared beyond chance, in a space of d dimensions."""
    i, j = phi.shape
    return smaller(i, j) * phi - np.outer(np.arange(1, i + 1), np.arange(1, j + 1)) / d


def principal_angles(U: Float[np.ndarray, "d i"], V: Float[np.ndarray, "d j"]) -> Float[np.ndarray, " angles"]:
    """Returns the min(i, j) principal angles of two subspaces, in radians, the smallest first.

    From cosines and, below 45 degrees, from sines: a cosine does not resolve small angles (Bjorck and Golub 1973).
    """
    if U.shape[1] < V.shape[1]:
        U, V = V, U
    U, V = U.astype(np.float64), V.astype(np.float64)
    inner = U.T @ V
    cosines = np.linalg.svd(inner, compute_uv=False).clip(0, 1)
    sines = factor_singular_values(V - U @ inner).clip(0, 1)[::-1]
    return np.where(cosines**2 > 0.5, np.arcsin(sines), np.arccos(cosines))


def near_equal(s: Float[np.ndarray, " r"], tol: float = NEAR) -> list[range]:
    """Returns the groups of neighbours in s that are too near to be ordered: within them only the span is determined.

    Args:
        s: Singular values in falling order.
        tol: The gap up to which neighbours count as equal, in parts of the largest singular value.
    """
    ends = [0, *(np.flatnonzero(s[:-1] - s[1:] > tol * s[0]) + 1).tolist(), len(s)]
    return [range(begin, end) for begin, end in pairwise(ends) if end - begin > 1]


def norm(s: Float[np.ndarray, " r"]) -> float:
    """Returns the Frobenius norm from the singular values."""
    return math.hypot(*s.tolist())


def stable_rank(s: Float[np.ndarray, " r"], whole: float | None = None) -> float:
    """Returns ||dW||_F^2 / ||dW||_2^2; 0 of a zero matrix.

    Args:
        s: The singular values, or the first ones.
        whole: ||dW||_F, where these are not all.
    """
    if not s[0] > 0:
        return 0.0
    return float(np.square(s / s[0]).sum()) if whole is None else float((whole / s[0]) ** 2)


def effective_rank(s: Float[np.ndarray, " r"]) -> float:
    """Returns exp of the entropy of s / sum s (Roy and Vetterli 2007); 0 of a zero matrix."""
    if not s[0] > 0:
        return 0.0
    p = s[s > 0] / s.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def energy(s: Float[np.ndarray, " r"]) -> Float[np.ndarray, " r"]:
    """Returns the part of ||dW||_F^2 that the first 1, 2, ... directions hold; 0 throughout of a zero matrix."""
    if not s[0] > 0:
        return np.zeros(len(s))
    sums = np.square(s / s[0]).cumsum()
    return sums / sums[-1]


def moved(factors: Iterable[tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]]) -> float:
    """Returns ||A - A_0||_F / ||A_0||_F of one matrix, or of several together: how far training has moved A.

    Args:
        factors: A and A_0 of each.

    Raises:
        ValueError: If all A_0 are zero, as that of an adapted embedding is.
    """
    change = start = 0.0
    for A, A_0 in factors:
        A_0 = A_0.astype(np.float64)
        change += float(np.square(A - A_0).sum())
        start += float(np.square(A_0).sum())
    if start == 0:
        raise ValueError("moved: A_0 is zero, so no distance can be measured by it.")
    return math.sqrt(change / start)


def above_edge(A: Float[np.ndarray, "r d_in"], variance: float) -> int:
    """Returns how many singular values of A no untrained A has: those above the Marchenko-Pastur edge of its start.

    Of A, not of A - A_0: what training does to A is known exactly and has no noise in it, but it is the directions of
    A itself that phi compares, and below the edge they may be the start's. The start's entries are independent with
    mean 0 and variance sigma^2; their largest singular value is about sigma (sqrt(d_in) + sqrt(r)). As it fluctuates
    around that, the edge is put where 99 % of the starts stay below: at Johnstone's (2001, Theorem 1.1) centre and
    scale of the Tracy-Widom law.

    Args:
        A: The factor.
        variance: Of the entries of A_0: `variance_of` it, or of the law that it was drawn from.
    """
    return above_start(factor_singular_values(A), A.shape, variance)


def above_start(s: Float[np.ndarray, " r"], shape: Sequence[int], variance: float) -> int:
    """Returns what `above_edge` does, of an A of this shape whose singular values are known."""
    return int((s > math.sqrt(variance) * random_edge(*shape)).sum())


def random_edge(rows: int, columns: int) -> float:
    """Returns what the largest singular value of a random matrix exceeds once in a hundred draws.

    Its entries are independent with mean 0 and variance 1. Source: Johnstone (2001, Theorem 1.1).
    """
    r, d = sorted((rows, columns))
    wide, narrow = math.sqrt(max(d - 1, 1)), math.sqrt(r)  # of a single number the law is none, and this three sigma
    squared = (wide + narrow) ** 2 + TRACY_WIDOM_99 * (wide + narrow) * (1 / wide + 1 / narrow) ** (1 / 3)
    return math.sqrt(squared)


def variance_of(A_0: Float[np.ndarray, "r d_in"]) -> float:
    """Returns ||A_0||_F^2 / (r d_in)."""
    return float(np.square(A_0.astype(np.float64)).mean())
