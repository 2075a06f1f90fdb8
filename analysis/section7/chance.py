"""What two runs share, matrix by matrix, and what they would share by chance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from analysis.section7.nulls import (
    CONFIDENCE,
    Band,
    Principal,
    Statistic,
    above,
    bands,
    gaussian_band,
    input_pictures,
    principal,
    rho_band,
)
from analysis.section7.sides import Directions, Side, directions_of
from analysis.section7.starts import start_of, start_pictures
from analysis.section7.statistics import GAUSSIAN, INPUTS, START
from analysis.section7.subspace import phi_grid, rho
from analysis.section7.update import Update
from lora_repro import draw
from lora_repro.config.schema import Run
from lora_repro.config.settings import Settings
from lora_repro.errors import InputError, MissingInputError
from lora_repro.models.arch import Site

NULLS = {
    GAUSSIAN: "uniformly random directions",
    START: "those of untrained A",
    INPUTS: "those of an A that is a random combination of inputs, without a start and without labels (an upper bound: "
    "runs that share their inputs and nothing else may share much less)",
}


@dataclass(frozen=True)
class TwoRuns:
    """Two runs: what each learned of the same matrices."""

    sites: list[Site]
    first: list[Update]
    second: list[Update]
    side: Side

    @cached_property
    def directions(self) -> list[tuple[Directions, Directions]]:
        """Returns the singular vectors of the two at each site, as many as there are; see `cropped`."""
        return [
            (directions_of(one, self.side), directions_of(other, self.side))
            for one, other in zip(self.first, self.second, strict=True)
        ]


def shared_numbers(pairs: Sequence[TwoRuns]) -> tuple[int, int]:
    """Returns how many directions the first and the second of all pairs have at every site: so many are compared.

    Raises:
        InputError: If there are none: nothing was learned on this side.
    """
    found = [two for pair in pairs for two in pair.directions]
    i, j = (min(len(two[which].s) for two in found) for which in (0, 1))
    if not i or not j:
        side = pairs[0].side
        raise InputError(f"--side {side.value}: {side.of} is zero, nothing was learned. Give --side A.")
    return i, j


def cropped(pair: TwoRuns, numbers: tuple[int, int]) -> list[tuple[Directions, Directions]] | None:
    """Returns the first `numbers` directions of both runs at each site, or None if a run has fewer."""
    i, j = numbers
    found = [
        (Directions(one.U[:, :i], one.s[:i]), Directions(other.U[:, :j], other.s[:j])) for one, other in pair.directions
    ]
    return found if all((len(one.s), len(other.s)) == numbers for one, other in found) else None


def inputs_of(run: Run, settings: Settings, sites: Sequence[Site]) -> list[Principal]:
    """Returns the principal directions of what each matrix reads: by forward passes, kept in the cache.

    Raises:
        MissingInputError: If weights or data are missing.
    """
    from lora_repro.training.second_moments import second_moments

    found = second_moments(run, settings, sites)
    return [principal(found[site.name]) for site in sites]


def inputs_or_why_not(run: Run, settings: Settings, sites: Sequence[Site]) -> tuple[list[Principal] | None, str]:
    """Returns the inputs' principal directions, or None and the reason."""
    try:
        return inputs_of(run, settings, sites), ""
    except MissingInputError as error:
        return None, str(error)


def nulls(
    pair: TwoRuns,
    numbers: tuple[int, int],
    run: Run,
    inputs: Sequence[Principal] | None,
    statistic: Statistic = phi_grid,
) -> dict[str, list[Band]]:
    """Returns each null's bands, one a matrix; each null's hold for all cells of all matrices together.

    The Gaussian null serves every side. Untrained A and inputs serve the sides in the space of inputs; to compare
    dW = (alpha/r) B A they draw A and take the runs' own B.

    Args:
        pair: The two runs.
        numbers: How many directions of each are compared.
        run: Either of them: how A starts.
        inputs: The principal directions of what each matrix reads; None leaves their null out.
        statistic: `phi_grid` or `rho`.
    """
    i, j = numbers
    widths = [one.A.shape[1] if pair.side.reads_inputs else len(one.B) for one in pair.first]
    shapes = [(i, j, d) for d in widths]
    found = {GAUSSIAN: _gaussian(shapes, statistic)}
    if not pair.side.reads_inputs:
        return found
    ranks = (len(pair.first[0].A), len(pair.second[0].A))
    left = None
    if pair.side.of == "dW":
        left = [(left_factor(one), left_factor(other)) for one, other in zip(pair.first, pair.second, strict=True)]

    def first(U: np.ndarray, V: np.ndarray) -> np.ndarray:
        return statistic(U[:, :i], V[:, :j])

    if run.train.init_from is None:
        pictures = start_pictures(start_of(run), pair.sites, *ranks, statistic=first, left=left)
        found[START] = bands(pictures, what="untrained A")
    if inputs is not None:
        generator = draw.generator("null", INPUTS, *ranks)
        pictures = input_pictures([p.values for p in inputs], *ranks, generator, statistic=first, left=left)
        found[INPUTS] = bands(pictures, what="A made of inputs")
    return found


def keeps_B(side: Side) -> bool:
    """Whether the nulls of a side are drawn with the runs' own B, so that each pair of runs has nulls of its own."""
    return side.of == "dW" and side.reads_inputs


def excess(values: Float[np.ndarray, "..."], bands: Mapping[str, Band]) -> Float[np.ndarray, "..."]:
    """Returns each cell less the mean of the strongest null there, the one with the largest mean."""
    return values - np.max([band.mean for band in bands.values()], axis=0)


def unexplained(values: Float[np.ndarray, "..."], bands: Mapping[str, Band]) -> Bool[np.ndarray, "..."]:
    """Returns which cells lie above the bands of all nulls."""
    return np.all([above(values, band) for band in bands.values()], axis=0)


def _gaussian(shapes: Sequence[tuple[int, int, int]], statistic: Statistic) -> list[Band]:
    """Returns the Gaussian bands for (i, j, d); of matrices of one shape they are the same."""
    by_shape = {}
    for shape in dict.fromkeys(shapes):
        i, j, d = shape
        if statistic is rho:
            by_shape[shape] = rho_band(i, j, d, cells=i * len(shapes))
        else:
            generator = draw.generator("null", GAUSSIAN, i, j, d)
            by_shape[shape] = gaussian_band(i, j, d, generator, grids=len(shapes), confidence=CONFIDENCE)
    return [by_shape[shape] for shape in shapes]


def left_factor(update: Update) -> Float[np.ndarray, "r r"]:
    """Returns R of B = Q R, which replaces B for right singular vectors, since (B A)^T B A = (R A)^T R A."""
    return np.linalg.qr(update.B.astype(np.float64))[1]
