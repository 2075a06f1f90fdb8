"""An update beside the weight it is added to: projections, amplification, position, sign (Section 7.3, Table 7).

A weight may be large (12288 x 12288): it stays in its dtype, and blocks of its rows are brought to float64 in turn.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from analysis.section7.subspace import Svd, norm, svd
from analysis.section7.update import Update
from lora_repro.errors import InputError

ROWS = 512
"""Rows of a weight that are brought to float64 at once: 50 MB of d_in = 12288."""

DENSE = 1024
"""Up to this width a whole decomposition takes a second."""

BLOCK = 32
"""Directions by which the Krylov space grows: the products run at full speed, and few are in vain."""

RESIDUAL = 1e-6
"""||W^T u - sigma v|| over the largest singular value, up to which a direction counts as found."""


ROUNDING = 1e-14
"""What is left of W^T W v, over its largest, where there is nothing left."""


class Projections(NamedTuple):
    """A weight projected on the first r directions of its update: a block of Table 7, and further figures."""

    r: int
    weight_norm: float
    update_norm: float
    on_update: float
    """||U^T W V||_F for the directions of dW."""
    on_weight: float
    """The same for W's own: the most there is."""
    on_random: float
    """The same for random ones, root mean square."""
    amplification: float
    """||dW||_F over `on_update`."""
    random_amplification: float
    """What it would be of a random update of the same norm: its fall with r is arithmetic."""
    position: float
    """Where `on_update` lies between `on_random` (0) and `on_weight` (1)."""
    sign: float
    """The cosine of dW and W, of all of the update: above 0 it adds to W, below 0 it cancels."""
    random_sign: float
    """Standard deviation of that cosine for a random update."""


def projections(W: Float[np.ndarray, "d_out d_in"], update: Update, own: Svd, r: int | None = None) -> Projections:
    """Returns what Table 7 says of one update.

    Args:
        W: The weight before training.
        update: Its update.
        own: W's leading directions, at least r of them; see `top_directions`.
        r: How many directions (default: the update's rank, as in the paper).
    """
    r = r if r is not None else len(update.A)
    if len(own.s) < r:
        raise ValueError(f"projections: r = {r} needs as many directions of W (given: {len(own.s)}).")
    found = svd(update)
    weight_norm, update_norm = math.sqrt(squared_norm(W)), norm(found.s)
    on_update, on_weight = projection(W, found.U, found.V, r), norm(own.s[:r])
    on_random = random_projection(weight_norm, r, *W.shape)
    return Projections(
        r,
        weight_norm,
        update_norm,
        on_update,
        on_weight,
        on_random,
        amplification(update_norm, on_update),
        amplification(update_norm, on_random),
        position(on_update, on_random, on_weight),
        sign(W, update),
        random_sign(*W.shape),
    )


def projection(
    W: Float[np.ndarray, "d_out d_in"],
    U: Float[np.ndarray, "d_out k"],
    V: Float[np.ndarray, "d_in k"],
    r: int | None = None,
) -> float:
    """Returns ||U_r^T W V_r||_F, for the first r columns of U and V (default: all)."""
    r = r if r is not None else U.shape[1]
    return float(np.linalg.norm(U[:, :r].T @ _times(W, V[:, :r])))


def random_projection(W_norm: float, r: int, d_out: int, d_in: int) -> float:
    """Returns r ||W||_F / sqrt(d_in d_out): the root mean square of the projection on r random directions, exactly."""
    return r * W_norm / math.sqrt(d_out * d_in)


def amplification(dW_norm: float, projected: float) -> float:
    """Returns ||dW||_F over ||U^T W V||_F; infinite where W has nothing there."""
    return dW_norm / projected if projected > 0 else math.inf


def position(projected: float, random: float, own: float) -> float:
    """Returns where a projection lies between random directions' (0) and W's own (1); nan where the two are one."""
    return (projected - random) / (own - random) if own != random else math.nan


def sign(W: Float[np.ndarray, "d_out d_in"], update: Update) -> float:
    """Returns <dW, W> / (||dW||_F ||W||_F), from tr(A W^T B): no dW is made. 0 where dW or W is zero.

    A norm does not distinguish amplifying (above 0) from cancelling (below 0).
    """
    scaling = update.scaling if update.scaling is not None else 1.0
    inner = scaling * float((_transposed_times(W, update.B).T * update.A).sum())
    norms = norm(svd(update).s) * math.sqrt(squared_norm(W))
    return inner / norms if norms > 0 else 0.0


def random_sign(d_out: int, d_in: int) -> float:
    """Returns the standard deviation of `sign` for an update with random directions, whatever its spectrum; mean 0."""
    return 1 / math.sqrt(d_out * d_in)


def top_directions(
    W: Float[np.ndarray, "d_out d_in"], k: int, generator: np.random.Generator, tol: float = RESIDUAL
) -> Svd:
    """Returns the k leading singular triples of a weight.

    A narrow weight is decomposed whole, a wide one by a block Krylov method from random directions (Musco and Musco
    2015), until ||W^T u - sigma v|| <= tol sigma_1 for all k, while W v = sigma u to rounding.

    Args:
        W: The weight.
        k: How many directions.
        generator: Draws the first block; what is found does not depend on it beyond `tol`.
        tol: Bound of the residuals, relative to the largest singular value.

    Raises:
        InputError: If the weight is zero, and so has no directions, or a value is not finite.
        ValueError: If k is out of range.
    """
    narrow = min(W.shape)
    if not 1 <= k <= narrow:
        raise ValueError(f"top_directions: k must be from 1 to {narrow} (given: {k}).")
    if not 0 < squared_norm(W) < math.inf:
        raise InputError(
            "The weight is zero, or holds values that are not finite.\nGive the weights of a trained model."
        )
    if narrow <= DENSE or 4 * k > narrow:
        return _whole(W, k)
    if W.shape[0] < W.shape[1]:
        U, s, V = krylov(W.T, k, generator, tol)
        return Svd(V, s, U)
    return krylov(W, k, generator, tol)


def krylov(W: Float[np.ndarray, "d_1 d_2"], k: int, generator: np.random.Generator, tol: float) -> Svd:
    """Does the work of `top_directions`: block Lanczos on W^T W, its basis kept orthonormal throughout."""
    width = max(BLOCK, k // 8)
    basis, images = np.empty((W.shape[1], 0)), np.empty((W.shape[0], 0))
    block = np.linalg.qr(generator.standard_normal((W.shape[1], width)))[0]
    look_at = k
    while basis.shape[1] + width <= W.shape[1] // 2:
        image = _times(W, block)
        basis, images = np.hstack([basis, block]), np.hstack([images, image])
        step = _transposed_times(W, image)
        block, rest = np.linalg.qr(step - basis @ (basis.T @ step))
        block = np.linalg.qr(block - basis @ (basis.T @ block))[0]  # where little was left it was rounding
        if basis.shape[1] < look_at:
            continue
        look_at = 1.1 * basis.shape[1]
        squares, vectors = np.linalg.eigh(images.T @ images)
        squares, last = squares[: -k - 1 : -1], vectors[-width:, : -k - 1 : -1]
        bound = np.maximum(tol * np.sqrt(squares[0] * squares.clip(0)), ROUNDING * squares[0])
        # W^T W takes all of the basis but its last block into the basis: what is left over is what it does to that one.
        if (np.linalg.norm(rest @ last, axis=0) <= bound).all():
            Q, R = np.linalg.qr(images)
            u, s, vt = np.linalg.svd(R)
            return Svd(Q @ u[:, :k], s[:k], basis @ vt[:k].T)
    return _whole(W, k)


def _whole(W: Float[np.ndarray, "d_1 d_2"], k: int) -> Svd:
    U, s, vt = np.linalg.svd(W.astype(np.float64), full_matrices=False)
    return Svd(U[:, :k], s[:k], vt[:k].T)


def _times(W: Float[np.ndarray, "d_out d_in"], X: Float[np.ndarray, "d_in k"]) -> Float[np.ndarray, "d_out k"]:
    """Returns W X in float64."""
    X = X.astype(np.float64)
    return np.concatenate([W[i : i + ROWS].astype(np.float64) @ X for i in range(0, len(W), ROWS)])


def _transposed_times(
    W: Float[np.ndarray, "d_out d_in"], X: Float[np.ndarray, "d_out k"]
) -> Float[np.ndarray, "d_in k"]:
    """Returns W^T X in float64."""
    sums = np.zeros((W.shape[1], X.shape[1]))
    for i in range(0, len(W), ROWS):
        sums += W[i : i + ROWS].T.astype(np.float64) @ X[i : i + ROWS].astype(np.float64)
    return sums


def squared_norm(W: Float[np.ndarray, "d_out d_in"]) -> float:
    """Returns ||W||_F^2, summed in float64."""
    return sum(float(np.square(W[i : i + ROWS], dtype=np.float64).sum()) for i in range(0, len(W), ROWS))
