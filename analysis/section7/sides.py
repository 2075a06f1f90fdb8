"""The directions of an update that are compared: singular vectors of A, B or dW, with their singular values."""

from enum import Enum

import numpy as np
from jaxtyping import Float

from analysis.section7.subspace import Directions, factor_directions, singular_values, update_directions
from analysis.section7.update import Update

_NOISE = 1e-6
"""Part of the largest singular value below which one counts as zero: float32 factors are rounded at 6e-8."""


class Side(str, Enum):
    """Which singular vectors are compared."""

    A = "A"
    """Right ones of A, in the space of inputs: the paper's Figures 3 and 4. A alone is not unique."""
    B = "B"
    """Left ones of B, in the space of outputs."""
    update_right = "dW-right"
    """Right ones of dW = scaling B A: which inputs it reads."""
    update_left = "dW-left"
    """Left ones of dW: which outputs it writes."""

    @property
    def description(self) -> str:
        """What is compared, for people."""
        return {
            Side.A: "right singular vectors of A",
            Side.B: "left singular vectors of B",
            Side.update_right: "right singular vectors of dW (its inputs)",
            Side.update_left: "left singular vectors of dW (its outputs)",
        }[self]

    @property
    def of(self) -> str:
        """The matrix whose singular vectors these are."""
        return self.value.partition("-")[0]

    @property
    def reads_inputs(self) -> bool:
        """Whether they lie in the space of the layer's inputs, or of its outputs."""
        return self in (Side.A, Side.update_right)


def directions_of(update: Update, side: Side) -> Directions:
    """Returns the directions of an update on one side whose singular values are above zero; none where B is zero."""
    return nonzero(all_directions(update, side))


def all_directions(update: Update, side: Side) -> Directions:
    """Returns the directions of an update on one side, also those with a singular value of zero."""
    if side.of == "dW":
        return update_directions(slim(update), "right" if side.reads_inputs else "left")
    tall = (update.A.T if side is Side.A else update.B).astype(np.float64)
    if tall.shape[0] < tall.shape[1]:  # more rank than width
        U, s, _ = np.linalg.svd(tall, full_matrices=False)
        return Directions(U, s)
    return factor_directions(tall, "left")


def singular_values_of(update: Update) -> Float[np.ndarray, " k"]:
    """Returns the singular values of dW, those of r >= k directions."""
    return singular_values(slim(update))


def slim(update: Update) -> Update:
    """Returns the same dW with r not above its narrower side: adapters of narrow convolutions may have more."""
    A, B = update.A, update.B
    if A.shape[0] > A.shape[1]:
        Q, R = np.linalg.qr(A.astype(np.float64))
        A, B = R, B @ Q
    if B.shape[1] > B.shape[0]:
        Q, R = np.linalg.qr(B.astype(np.float64))
        A, B = R @ A, Q
    return update._replace(A=A, B=B)


def nonzero(found: Directions) -> Directions:
    """Returns the directions whose singular values are above zero, beyond rounding."""
    U, s = found
    count = int((s > _NOISE * s[0]).sum()) if s[0] > 0 else 0
    return Directions(U[:, :count], s[:count])
