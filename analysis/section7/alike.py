"""Whether two adapters have one start, or one factor: what they share is then not what they learned.

A is drawn row by row, and training moves it from there. Two adapters of one seed, or of one frozen A, agree row by row:
row 1 of the one is nearer to row 1 of the other than to its row 2. Two adapters that learned the same do not agree so,
because the start decides which row of A takes up a direction. So a row's inner products with the other rows are the
null, whatever law A was drawn from.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

SAME = 0.9999
"""The cosine from which two factors are one: bf16 copies of fp32 values have 0.999999."""

_CERTAIN = 5.0
"""Rows belong to each other above this many standard deviations of the null."""

_NOTICEABLE = 0.1
"""Below this mean cosine the common start makes up under 1 % of A's squared norm."""

_SINGLE = 0.3
"""The same bound for r = 1, where there are no other rows to compare: three standard deviations at a width of 100."""


class Alike(NamedTuple):
    """How far the factors of one matrix in two adapters agree, entry by entry."""

    A: float | None
    """The cosine of A, by rows that both have; None where one is zero, or the widths differ."""
    B: float | None
    """The same of B, by columns."""
    spread: float
    """The standard deviation of A's cosine if its rows do not belong to each other, from those that do not."""
    ratio: float | None
    """How many times the first's dW the second's is, where both factors are the same."""
    ranks: tuple[int, int]


def alike(
    first: tuple[Float[np.ndarray, "r d_in"], Float[np.ndarray, "d_out r"], float | None],
    second: tuple[Float[np.ndarray, "r_2 d_in_2"], Float[np.ndarray, "d_out_2 r_2"], float | None],
) -> Alike:
    """Compares A, B and scaling of one matrix in two adapters; of different ranks the first rows and columns."""
    (A, B, scaling), (A_2, B_2, scaling_2) = first, second
    cosine, spread = _cosine(A, A_2)
    of_B, _ = _cosine(B.T, B_2.T)
    ratio = None
    if len(A) == len(A_2) and cosine is not None and of_B is not None and min(abs(cosine), abs(of_B)) > SAME:
        size, size_2 = (
            (1 if s is None else s) * float(np.linalg.norm(a)) * float(np.linalg.norm(b))
            for a, b, s in ((A, B, scaling), (A_2, B_2, scaling_2))
        )
        ratio = math.copysign(size_2 / size, cosine * of_B) if size else None
    return Alike(cosine, of_B, spread, ratio, (len(A), len(A_2)))


def describe_alike(found: Sequence[Alike], of_inputs: bool, side_of_dW: bool, moved: str) -> Iterator[str]:
    """Yields what two adapters have in common that neither has learned.

    Args:
        found: A matrix each.
        of_inputs: Whether the directions that are compared lie in the space of inputs, as A's rows do.
        side_of_dW: Whether they are those of dW.
        moved: How far A of each has moved, where that is known; as a sentence.
    """
    ratios = [each.ratio for each in found if each.ratio is not None]
    if len(ratios) == len(found):
        same = max(ratios) - min(ratios) < 1e-3 * abs(ratios[0])
        size = "" if same and abs(ratios[0] - 1) < 1e-3 else _times(min(ratios), max(ratios))
        yield f"The two are one adapter: A and B of both are the same in all {len(found)} matrices{size}."
        return
    known = [each.A for each in found if each.A is not None]
    of_A = [cosine for cosine in known if abs(cosine) > SAME]
    if of_A and of_inputs:
        yield (
            f"A of the two is the same in {len(of_A)} of {len(found)} matrices: frozen, or it never left their one "
            f"start.{moved} What they share here is that A and not what they learned, and chance is no measure of it. "
            "Compare B instead: --side B."
        )
    elif of_inputs and known and _have_one_start(found):
        span = f"{min(known):.3f}" if len(known) == 1 else f"{min(known):.3f} to {max(known):.3f}"
        yield (
            f"Row by row A of the two is alike (cosine {span}, by chance about 0 +- {_chance(found):.3f}): they have "
            f"one start, or one was trained from the other, and A has kept much of it.{moved} What they share here is "
            f"{'in part' if side_of_dW else 'first of all'} that start, and chance is no measure of it. Compare "
            "B instead: --side B."
        )
    elif of_inputs and known and all(min(each.ranks) == 1 for each in found) and _mean(known) > _SINGLE:
        yield (
            "One of the two has one row of A (r = 1): these files do not show whether the two have one start or "
            "learned the same."
        )
    of_B = [each.B for each in found if each.B is not None and abs(each.B) > SAME]
    if of_B and not of_inputs:
        yield (
            f"B of the two is the same in {len(of_B)} of {len(found)} matrices: frozen, or it never left their one "
            "start. What they share here is that B and not what they learned."
        )


def _cosine(X: Float[np.ndarray, "r d"], Y: Float[np.ndarray, "r_2 d_2"]) -> tuple[float | None, float]:
    """Returns the cosine of the rows that both have, and what its standard deviation would be for any other rows."""
    if X.shape[1] != Y.shape[1]:
        return None, 0.0
    k = min(len(X), len(Y))
    X, Y = X[:k].astype(np.float64), Y[:k].astype(np.float64)
    sizes = float(np.linalg.norm(X)) * float(np.linalg.norm(Y))
    if not 0 < sizes < math.inf:
        return None, 0.0
    inner = X @ Y.T / sizes
    others = inner[~np.eye(k, dtype=bool)]
    return float(np.trace(inner)), math.sqrt(k * float(np.square(others).mean())) if k > 1 else 1.0


def _have_one_start(found: Sequence[Alike]) -> bool:
    """Returns whether rows belong to each other in all matrices together. A single row has no others to compare."""
    known = [each for each in found if each.A is not None]
    total = sum(each.A for each in known if each.A is not None)
    return total > max(_CERTAIN * math.sqrt(sum(each.spread**2 for each in known)), _NOTICEABLE * len(known))


def _mean(cosines: Sequence[float]) -> float:
    return sum(map(abs, cosines)) / len(cosines)


def _chance(found: Sequence[Alike]) -> float:
    return max(each.spread for each in found)


def _times(least: float, most: float) -> str:
    size = f"{least:.4g}" if most - least < 1e-3 * abs(most) else f"{least:.4g} to {most:.4g}"
    return f", and dW of the second is {size} times the first's"
