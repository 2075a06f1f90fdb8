"""The data of Figures 3, 4, 6 and 7: phi(i, j) between two runs at some layers, beside chance (Section 7.2)."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from analysis.items import PAPER_DEPTH, PhiFigure, layer_at
from analysis.section7.chance import Pair, cropped, inputs_or_why_not, nulls, shared_numbers
from analysis.section7.compared_runs import Arms, Trained
from analysis.section7.control import Control, cells_outside, control, listed, places
from analysis.section7.nulls import Band, expected_phi, outside
from analysis.section7.sides import Directions, Side
from analysis.section7.subspace import directions, near_equal, phi_grid
from lora_repro import draw
from lora_repro.errors import InputError, MissingInputError
from lora_repro.models.arch import Site

DIGITS = 6
"""Of bands, which are drawn, in JSON; phi is written in full."""


class Grid(NamedTuple):
    """phi(i, j) of one matrix."""

    site: Site
    d: int
    """Width of the space in which the directions lie."""
    phi: Float[np.ndarray, "i j"]
    bands: dict[str, Band]
    permuted: Float[np.ndarray, "i j"] | None
    """The same of the runs on permuted labels."""
    near_equal: tuple[list[range], list[range]]
    """Groups of directions of the two runs whose singular values are too near to order them."""
    other_seed: Float[np.ndarray, "i j"] | None = None
    """Of two ranks: the same, where the second run is of another seed."""
    other_labels: Float[np.ndarray, "i j"] | None = None
    """The same, where the second run is on permuted labels and the first is not."""

    @property
    def curve(self) -> str:
        """Which cells sum the grid up: the diagonal of a square one, else the last column."""
        return "diagonal" if self.phi.shape[0] == self.phi.shape[1] else "whole"


class PhiPicture(NamedTuple):
    """All grids of a figure, and what is to be said of them."""

    item: PhiFigure
    scale: str
    side: Side
    runs: tuple[Trained, Trained]
    ranks: tuple[int, int]
    grids: list[Grid]
    random: Grid | None
    """Two Gaussian matrices."""
    permuted: Control | None
    no_inputs: str
    """Why there is no null of inputs."""
    no_permuted: str
    """Why there are no runs on permuted labels; empty where they are there or are not asked for."""
    other_seed: Trained | None
    """The second run of another seed: it had another order of the examples, and another start of the head."""
    no_other_seed: str

    def paper_points(self, site: Site, curve: str) -> tuple[list[int], list[float]] | None:
        """Returns what was read off the paper's figure at this matrix, where the ranks are the paper's."""
        if curve not in self.item.points or list(self.ranks) != self.item.ranks:
            return None
        at, depth = self.item.points[curve], self.runs[0].run.arch.num_layers
        layer = next(layer_at(part, PAPER_DEPTH) for part in self.item.layers if layer_at(part, depth) == site.layer)
        place = {"figure": int(self.item.number), "layer": layer + 1, "weight": site.role, "what": at["what"]}
        for fact in self.item.facts["points_subspace"]:
            if fact.items() >= place.items():
                return at["i"], fact["values"]
        return None


def phi_picture(arms: Arms, side: Side) -> PhiPicture:
    """Reads the runs of a figure and compares them.

    Runs of two ranks are of the first seed, and the second rank of the second seed stands beside, if there is one; runs
    of one rank are of the first two seeds.

    Args:
        arms: The runs of the item's sweep.
        side: Which directions are compared.

    Raises:
        InputError: If there are too few seeds, or nothing was learned on this side.
        MissingInputError: If a run is missing, with the command that computes it.
    """
    item = arms.item
    assert isinstance(item, PhiFigure)
    wanted = wanted_runs(arms)
    first, second = arms.finished(wanted)
    pair = Pair(arms.sites, first.updates(arms.sites), second.updates(arms.sites), side)
    numbers = shared_numbers([pair])
    found = cropped(pair, numbers)
    assert found is not None
    inputs, no_inputs = inputs_or_why_not(arms.run, arms.settings, arms.sites) if side.reads_inputs else (None, "")
    chance = nulls(pair, numbers, arms.run, inputs)
    permuted, no_permuted = control(arms, [first, second], numbers, side)
    other_seed, apart, no_other_seed = _other_seed(arms, pair, numbers)
    grids = [
        Grid(
            site,
            len(one.U),
            phi_grid(one.U, other.U),
            {name: bands[position] for name, bands in chance.items()},
            phi_grid(*(each.U for each in permuted.directions[position])) if permuted is not None else None,
            (near_equal(one.s), near_equal(other.s)),
            phi_grid(*(each.U for each in apart[position])) if apart is not None else None,
            phi_grid(*(each.U for each in permuted.other_labels[position])) if permuted is not None else None,
        )
        for position, (site, (one, other)) in enumerate(zip(arms.sites, found, strict=True))
    ]
    random = _random(grids[0]) if item.random else None
    ranks = (wanted[0][0], wanted[1][0])
    runs = (first, second)
    why_not = (no_inputs, no_permuted)
    return PhiPicture(item, arms.scale, side, runs, ranks, grids, random, permuted, *why_not, other_seed, no_other_seed)


def _other_seed(
    arms: Arms, pair: Pair, numbers: tuple[int, int]
) -> tuple[Trained | None, list[tuple[Directions, Directions]] | None, str]:
    """Returns the second rank's run of the second seed and its directions beside the first run's, or why not."""
    one, other = arms.ranks
    if one == other:
        return None, None, ""
    if len(arms.seeds) < 2:
        return None, None, f"Another seed: none is given. Example: seed={arms.seeds[0]},{arms.seeds[0] + 1}"
    try:
        (run,) = arms.finished([(other, arms.seeds[1])])
    except MissingInputError:
        return None, None, f"Another seed: r = {other}, seed {arms.seeds[1]} is not computed yet: {arms.command}"
    found = cropped(replace(pair, second=run.updates(arms.sites)), numbers)
    if found is None:
        return None, None, f"Another seed: {run.run_id} has fewer directions than {numbers[1]}."
    return run, found, ""


def wanted_runs(arms: Arms) -> list[tuple[int, int]]:
    """Returns rank and seed of the two runs that a figure compares."""
    one, other = arms.ranks
    if one != other:
        return [(one, arms.seeds[0]), (other, arms.seeds[0])]
    if len(arms.seeds) < 2:
        raise InputError(f"seed: {arms.item.name} compares two seeds (given: {arms.seeds[0]}). Example: seed=0,1")
    return [(one, arms.seeds[0]), (other, arms.seeds[1])]


def to_json(picture: PhiPicture) -> list[dict[str, Any]]:
    """Returns an entry a grid, as `compare` does, and beside it the nulls and what lies outside of their bands."""
    shared = {
        "figure": picture.item.number,
        "scale": picture.scale,
        "run_ids": [run.run_id for run in picture.runs],
        "seeds": [run.run.seed for run in picture.runs],
        "r": list(picture.ranks),
        "side": picture.side.value,
        "other_seed_run_id": picture.other_seed.run_id if picture.other_seed is not None else None,
        "permuted_at": places(picture.permuted.runs) if picture.permuted is not None else [],
    }
    entries = [
        {"layer": grid.site.layer, "weight": grid.site.role, **shared, **grid_json(grid)} for grid in picture.grids
    ]
    if picture.random is not None:
        entries.append({"layer": None, "weight": "random", **shared, "run_ids": [], **grid_json(picture.random)})
    return entries


def grid_json(grid: Grid) -> dict[str, Any]:
    """Writes a grid, its nulls, and what lies outside of their bands."""
    return {
        "d": grid.d,
        "phi": grid.phi.tolist(),
        "null": expected_phi(grid.phi.shape[0], grid.phi.shape[1], grid.d).tolist(),
        "nulls": {name: band_json(band, grid.phi) for name, band in grid.bands.items()},
        "permuted": listed(grid.permuted),
        "permuted_outside": cells_outside(grid.permuted, grid.bands),
        "other_seed": listed(grid.other_seed),
        "other_seed_outside": cells_outside(grid.other_seed, grid.bands),
        "other_labels": listed(grid.other_labels),
        "other_labels_outside": cells_outside(grid.other_labels, grid.bands),
        "near_equal": [[[group.start + 1, group.stop] for group in groups] for groups in grid.near_equal],
    }


def band_json(band: Band, values: np.ndarray) -> dict[str, Any]:
    """Writes a null's mean and band, and how many cells of the values lie outside."""
    edges = {name: np.round(edge, DIGITS).tolist() for name, edge in band._asdict().items()}
    return edges | outside(values, band)._asdict()


def _random(like: Grid) -> Grid:
    """Compares two Gaussian matrices as wide as a grid's, which its Gaussian band holds."""
    i, j = like.phi.shape
    generator = draw.generator("two Gaussian matrices", i, j, like.d)
    one, other = (directions(generator.standard_normal((r, like.d))) for r in (i, j))
    plain = like._replace(permuted=None, near_equal=([], []), other_seed=None, other_labels=None)
    return plain._replace(phi=phi_grid(one, other))
