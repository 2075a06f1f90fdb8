"""Two adapters, matrix by matrix: how much of what the one learned lies in what the other learned (Section 7.2)."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from analysis.adapters import Adapter, Loaded, Matrix
from analysis.adapters.names import canonical, stack_of
from analysis.foreign_text import grouped
from analysis.section7.alike import Alike, alike, describe_alike
from analysis.section7.inspection import Inspected, figures, notes_on, since_start
from analysis.section7.nulls import expected_phi
from analysis.section7.rounding import Rounded, above_rounding, describe_rounding
from analysis.section7.sides import Side, all_directions, nonzero, singular_values_of
from analysis.section7.subspace import Directions, above_start, phi_grid, principal_angles, rho
from lora_repro.errors import InputError, shown
from lora_repro.machine import cores
from lora_repro.models.arch import ROLES

MatrixPair = tuple[Matrix, Matrix]

MOST_WORKERS = 4
"""Threads that compare matrices; each holds two updates of its own, 60 MB of them at d = 12288 and r = 64."""


class Compared(NamedTuple):
    """One matrix of two adapters."""

    layer: int | None
    """0-based, as in the checkpoint."""
    weight: str
    modules: tuple[str, str]
    side: Side
    d: int
    """Width of the space in which the directions lie."""
    phi: Float[np.ndarray, "i j"]
    """phi(i, j) of the first i directions of the first adapter and the first j of the second."""
    null: Float[np.ndarray, "i j"]
    """What random directions would give: max(i, j) / d."""
    strengths: tuple[Float[np.ndarray, " i"], Float[np.ndarray, " j"]]
    """The singular values that belong to the directions: of A, B or dW, as the side says."""
    rho: Float[np.ndarray, " i"]
    """How much of each single direction of the first lies in all of the second's; j / d by chance."""
    angles: Float[np.ndarray, " angles"]
    """The principal angles of all directions of the two, in degrees, the smallest first."""
    rounded: tuple[Rounded, Rounded]
    """How many directions of dW of each rounding alone does not make."""
    alike: Alike
    """How far A and B of the two agree entry by entry."""
    moved: tuple[float | None, float | None]
    """||A - A_0||_F / ||A_0||_F of each; None where A_0 cannot be drawn again."""
    above_edge: tuple[int | None, int | None]
    """How many singular values of each A an untrained A does not have; None if unknown or not compared."""
    figures: tuple[Inspected, Inspected] | None
    """What `inspect` prints of each, if asked for."""


class Comparison(NamedTuple):
    """Two adapters' common matrices, and notes on them."""

    rows: list[Compared]
    notes: list[str]


def paired(first: Sequence[Matrix], second: Sequence[Matrix]) -> list[MatrixPair]:
    """Returns the matrices that two adapters share, in the first one's order.

    Matched first by name; then by name without regard to `.` and `_`, if that is unique on both sides; then by layer
    and role, if each adapter has only one such matrix: `encoder.layer.0...` of a bare model is
    `bert.encoder.layer.0...` of a classifier.
    """
    found: dict[Matrix, Matrix] = {}
    for key in (_exactly, _key, _site):
        left = _single([m for m in first if m not in found], key)
        taken = set(found.values())
        others = _single([m for m in second if m not in taken], key)
        for known in left.keys() & others.keys():
            if key is not _site or _same_stack(left[known], others[known]):
                found[left[known]] = others[known]
    return [(matrix, found[matrix]) for matrix in first if matrix in found]


def _exactly(matrix: Matrix) -> tuple[str, str]:
    """Returns a module's name and the role: a fused layer has several matrices; of others the name is enough."""
    return matrix.module, matrix.weight if matrix.weight in ROLES else ""


def _key(matrix: Matrix) -> tuple[str, str]:
    return canonical(matrix.module), _exactly(matrix)[1]


def _site(matrix: Matrix) -> tuple[int | None, str] | None:
    """Returns layer and role; None where they do not identify the matrix."""
    return (matrix.layer, matrix.weight) if matrix.layer is not None or matrix.weight == "embed" else None


def _single(matrices: Sequence[Matrix], key: Callable[[Matrix], Hashable]) -> dict[Hashable, Matrix]:
    """Returns, by its key, each matrix that has one of its own."""
    times = Counter(map(key, matrices))
    return {key(m): m for m in matrices if key(m) is not None and times[key(m)] == 1}


def _same_stack(first: Matrix, second: Matrix) -> bool:
    stacks = {stack_of(first.module), stack_of(second.module)} - {""}
    return len(stacks) < 2


def compare(
    first: Adapter,
    second: Adapter,
    chosen: tuple[Sequence[Matrix], Sequence[Matrix]],
    side: Side,
    with_figures: bool = False,
) -> Comparison:
    """Compares what two adapters share, one matrix after the other.

    Args:
        first: Its directions are the rows, i.
        second: Its directions are the columns, j.
        chosen: The matrices of each that are to be compared.
        side: Which directions.
        with_figures: Read the figures of each, too.

    Raises:
        InputError: If they share no matrix, their widths differ, or nothing was learned on this side.
    """
    pairs = paired(*chosen)
    if not pairs:
        raise InputError(
            "compare: the two adapters have no matrix in common.\n"
            + "\n".join(
                f"{shown(adapter.name)} has {grouped(m.module + f' ({m.weight})' for m in matrices)}"
                for adapter, matrices in zip((first, second), chosen, strict=True)
            )
        )
    for pair in pairs:
        _refuse_other_width(first, second, pair, side)
    with ThreadPoolExecutor(_workers(first, second)) as executor:
        found = list(executor.map(lambda pair: _compared(first, second, pair, side, with_figures), pairs))
    rows = [row for row in found if row is not None]
    empty = [pair[0] for pair, row in zip(pairs, found, strict=True) if row is None]
    if not rows:
        raise InputError(
            f"compare: {side.of} is zero in all {len(pairs)} common matrices of one of the two: nothing was learned "
            "there.\nGive trained adapters" + (", or compare what they started from: --side A" * (side is not Side.A))
        )
    notes = [*notes_on(first), *(notes_on(second) if second.name != first.name else ())]
    if first.base is not None and second.base is not None and first.base != second.base:
        notes.append(f"They adapt models of different names: {shown(first.base)} and {shown(second.base)}.")
    notes = [*_describe_alike(rows, side), *notes]
    for index, adapter in enumerate((first, second)):
        notes += describe_rounding(shown(adapter.name), [row.rounded[index] for row in rows])
    notes += [f"Zero in one of the two, so not compared: {_listed(empty)}."] if empty else []
    return Comparison(rows, [*notes, *_alone(first, second, chosen, pairs)])


def _workers(first: Adapter, second: Adapter) -> int:
    """Returns how many matrices are compared at once: of full checkpoints one, as each dW is as large as its weight."""
    if any("top" in adapter.takes for adapter in (first, second)):
        return 1
    return min(MOST_WORKERS, cores())


def _compared(first: Adapter, second: Adapter, pair: MatrixPair, side: Side, with_figures: bool) -> Compared | None:
    """Compares one matrix; None where one of the two has no direction."""
    loaded = first.loaded(pair[0]), second.loaded(pair[1])
    if any(len(each.update.A) == 0 for each in loaded):
        return None
    whole = [all_directions(each.update, side) for each in loaded]
    ours, theirs = map(nonzero, whole)
    if not len(ours.s) or not len(theirs.s):
        return None
    d = len(ours.U)
    phi = phi_grid(ours.U, theirs.U)
    i, j = phi.shape
    distances, variances = zip(
        *(since_start(each.update.A, m.origin) for each, m in zip(loaded, pair, strict=True)), strict=True
    )
    above = [
        above_start(found.s, each.update.A.shape, variance) if side is Side.A and variance is not None else None
        for found, each, variance in zip(whole, loaded, variances, strict=True)
    ]
    return Compared(
        pair[0].layer,
        pair[0].weight,
        (pair[0].module, pair[1].module),
        side,
        d,
        phi,
        expected_phi(i, j, d),
        (ours.s, theirs.s),
        rho(ours.U, theirs.U),
        np.degrees(principal_angles(ours.U, theirs.U)),
        (_rounded(loaded[0], whole[0], side), _rounded(loaded[1], whole[1], side)),
        alike(_factors(loaded[0]), _factors(loaded[1])),
        (distances[0], distances[1]),
        (above[0], above[1]),
        (_figures(pair[0], loaded[0], whole[0], side), _figures(pair[1], loaded[1], whole[1], side))
        if with_figures
        else None,
    )


def _factors(loaded: Loaded) -> tuple[np.ndarray, np.ndarray, float | None]:
    return loaded.update.A, loaded.update.B, loaded.update.scaling


def _describe_alike(rows: Sequence[Compared], side: Side) -> Iterator[str]:
    said = ""
    known = [distance for row in rows for distance in row.moved if distance is not None]
    edges = [above for row in rows for above in row.above_edge]
    if len(known) == 2 * len(rows):
        said = f" It has moved from it by {min(known):.3g} to {max(known):.3g} times its norm."
    if edges and all(above == 0 for above in edges):
        said += " None of its directions stands out of an untrained A."
    yield from describe_alike([row.alike for row in rows], side.reads_inputs, side.of == "dW", said)


def _rounded(loaded: Loaded, found: Directions, side: Side) -> Rounded:
    if loaded.rounding is None:
        return Rounded(None, None, len(found.s))
    s = found.s if side.of == "dW" else singular_values_of(loaded.update)
    return Rounded(loaded.rounding, above_rounding(s, loaded.rounding), len(s))


def _figures(matrix: Matrix, loaded: Loaded, found: Directions, side: Side) -> Inspected:
    return figures(matrix, loaded, s=found.s if side.of == "dW" else None)


def _refuse_other_width(first: Adapter, second: Adapter, pair: MatrixPair, side: Side) -> None:
    a, b = ((m.d_in if side.reads_inputs else m.d_out) for m in pair)
    if a != b:
        raise InputError(
            f"compare: {pair[0].name}: {'inputs' if side.reads_inputs else 'outputs'} are {a} wide in "
            f"{shown(first.name)} and {b} in {shown(second.name)}.\nGive adapters of one base model."
        )


def _alone(
    first: Adapter, second: Adapter, chosen: tuple[Sequence[Matrix], Sequence[Matrix]], pairs: Sequence[MatrixPair]
) -> Iterator[str]:
    """Says what each of the two has alone."""
    for index, (adapter, matrices) in enumerate(zip((first, second), chosen, strict=True)):
        shared = {id(pair[index]) for pair in pairs}
        if alone := [matrix for matrix in matrices if id(matrix) not in shared]:
            yield f"Only in {shown(adapter.name)}: {_listed(alone)}."


def _listed(matrices: Sequence[Matrix]) -> str:
    return grouped(f"{matrix.module} ({matrix.weight})" for matrix in matrices)
