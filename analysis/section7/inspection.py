"""What an adapter adds to each matrix, in figures: norm, singular values, effective rank, size beside W_0."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from analysis.adapters import Adapter, Loaded, Matrix, Origin
from analysis.foreign_text import first_names, grouped
from analysis.section7.projection import squared_norm
from analysis.section7.rounding import Rounded, above_rounding, describe_rounding
from analysis.section7.sides import singular_values_of
from analysis.section7.subspace import above_edge, effective_rank, energy, moved, norm, stable_rank, variance_of
from lora_repro.errors import InputError, MissingInputError, shown

ROUNDING = 1e-6
"""Part of ||dW||_F^2 that may be missing although all singular values are there."""


class Inspected(NamedTuple):
    """One matrix of an adapter. Keys of the JSON that `inspect` prints."""

    layer: int | None
    """0-based, as in the checkpoint."""
    weight: str
    module: str
    shape: tuple[int, int]
    """d_out, d_in."""
    r: int
    scaling: float | None
    singular_values: Float[np.ndarray, " k"]
    """Of dW = scaling B A, in falling order; of a pair of checkpoints the first ones."""
    norm: float
    """||dW||_F, of all directions."""
    effective_rank: float | None
    """exp of the entropy of the singular values, as parts of their sum; None where only the first ones are kept."""
    energy_kept: float
    """The part of ||dW||_F^2 in the singular values above: below 1 only for pairs of checkpoints."""
    relative_norm: float | None
    """||dW||_F / ||W_0||_F; None without a base, or where W_0 is zero."""
    stable_rank: float
    """||dW||_F^2 / ||dW||_2^2."""
    energy: Float[np.ndarray, " k"]
    """The part of ||dW||_F^2 in the first 1, 2, ... of the singular values."""
    moved: float | None
    """||A - A_0||_F / ||A_0||_F; None where A_0 cannot be drawn again."""
    above_edge: int | None
    """How many singular values of A an untrained A does not have; None where it is not known how A was drawn."""
    rounding: float | None
    """The norm of what rounding alone makes of dW = W' - W; None where dW stands in factors."""
    rounding_edge: float | None
    """The largest singular value that rounding alone makes."""
    above_rounding: int | None
    """How many of the singular values of dW above lie above that edge: the others may be rounding's."""

    @property
    def directions_of_90(self) -> int | None:
        """How many directions hold 90 % of ||dW||_F^2; None if fewer are kept."""
        enough = np.flatnonzero(self.energy >= 0.9)
        return int(enough[0]) + 1 if len(enough) else None


class Inspection(NamedTuple):
    """An adapter's matrices, and notes on them."""

    rows: list[Inspected]
    notes: list[str]


def select(adapter: Adapter, layers: Sequence[int] | None, weights: Sequence[str] | None) -> list[Matrix]:
    """Returns an adapter's matrices of these layers and roles (None: all).

    Raises:
        InputError: If a layer or a role has no matrix, or no matrix has both.
    """
    for flag, wanted, there in (
        ("--layers", layers, [m.layer for m in adapter.matrices if m.layer is not None]),
        ("--weights", weights, [m.weight for m in adapter.matrices]),
    ):
        known = dict.fromkeys(there)
        if absent := [each for each in wanted or () if each not in known]:
            raise InputError(
                f"{flag}: {shown(adapter.name)} has no {shown(absent[0])} (given: {first_names(wanted or ())}).\n"
                f"There are: {first_names(known) or 'none'}."
            )
    found = [
        matrix
        for matrix in adapter.matrices
        if (layers is None or matrix.layer in layers) and (weights is None or matrix.weight in weights)
    ]
    if not found:
        raise InputError(
            f"--layers, --weights: {shown(adapter.name)} has no matrix of both.\nLeave one of the two out."
        )
    return found


def inspect(adapter: Adapter, matrices: Sequence[Matrix], with_base: bool) -> Inspection:
    """Reads the figures of these matrices, one after the other.

    Args:
        adapter: The adapter.
        matrices: Some of its matrices.
        with_base: Read W_0 too, for relative norms.

    Raises:
        InputError: If a matrix cannot be read, or all were left as they are.
    """
    notes = notes_on(adapter)
    if with_base and (problem := _why_no_base(matrices)):
        with_base = False
        notes.append(problem)
    rows, unchanged, rounded = [], list[Matrix](), list[Rounded]()
    absent, zero = list[str](), list[str]()
    for matrix in matrices:
        loaded = adapter.loaded(matrix)
        if len(loaded.update.A):
            W_0 = matrix.frozen() if with_base else None
            row = figures(matrix, loaded, W_0)
            rows.append(row)
            if row.relative_norm is None:
                (absent if W_0 is None else zero).append(f"{row.module} ({row.weight})")
            rounded.append(Rounded(loaded.rounding, row.above_rounding, row.r))
        else:
            unchanged.append(matrix)
    if not rows:
        raise InputError(
            f"{shown(adapter.name)}: all {len(matrices)} matrices are as they are in the base.\nGive a trained one."
        )
    for why, names in (("does not have them", absent), ("is zero there", zero)):
        if with_base and names:
            notes.append(f"No relative norms, as the base {why}: {grouped(names)}.")
    notes += describe_rounding(shown(adapter.name), rounded)
    return Inspection(rows, [*notes, *describe_unchanged(adapter, unchanged)])


def figures(
    matrix: Matrix,
    loaded: Loaded,
    W_0: Float[np.ndarray, "d_out d_in"] | None = None,
    s: Float[np.ndarray, " k"] | None = None,
) -> Inspected:
    """Returns the figures of a matrix that is not left as it is.

    Args:
        matrix: The matrix.
        loaded: Its update.
        W_0: What it is added to.
        s: The singular values of dW, where they are known.
    """
    update, whole, rounding = loaded
    distance, variance = since_start(update.A, matrix.origin)
    s = s if s is not None else singular_values_of(update)
    total = whole if whole is not None else norm(s)
    kept = min(1.0, (norm(s) / whole) ** 2) if whole else 1.0
    size_of_base = math.sqrt(squared_norm(W_0)) if W_0 is not None else 0.0
    return Inspected(
        matrix.layer,
        matrix.weight,
        matrix.module,
        (matrix.d_out, matrix.d_in),
        len(update.A),
        update.scaling,
        s,
        total,
        effective_rank(s) if kept > 1 - ROUNDING else None,
        kept,
        total / size_of_base if size_of_base > 0 else None,
        stable_rank(s, whole),
        kept * energy(s),
        distance,
        above_edge(update.A, variance) if variance is not None else None,
        rounding.norm if rounding is not None else None,
        rounding.edge if rounding is not None else None,
        above_rounding(s, rounding),
    )


def since_start(A: Float[np.ndarray, "r d_in"], origin: Origin) -> tuple[float | None, float | None]:
    """Returns how far A has moved from its start, and the variance of the start's entries; None what is not known."""
    if origin.draw is None:
        return None, origin.variance
    A_0 = origin.draw(*A.shape)
    return moved([(A, A_0)]), variance_of(A_0)


def notes_on(adapter: Adapter) -> list[str]:
    """Returns what the figures of an adapter do not show: assumptions, and tensors that are no part of an update."""
    name = shown(adapter.name)
    other = [f"Tensors that are no part of an update: {grouped(adapter.unknown)}."] if adapter.unknown else []
    return [f"{name}: {note}" for note in (*adapter.notes, *other)]


def describe_unchanged(adapter: Adapter, matrices: Sequence[Matrix]) -> Iterator[str]:
    """Says which matrices were left as they are."""
    if matrices:
        yield f"{shown(adapter.name)}: left as they are: {grouped(f'{m.module} ({m.weight})' for m in matrices)}."


def _why_no_base(matrices: Sequence[Matrix]) -> str | None:
    try:
        found = next((matrix for matrix in matrices if matrix.frozen() is not None), None)
    except MissingInputError as error:
        return f"No relative norms: {' '.join(str(error).split())}"
    return None if found is not None else "No relative norms: the base has none of these matrices."
