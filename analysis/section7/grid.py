"""phi(i, j) of one matrix beside its nulls and controls, and how it is written as JSON."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from analysis.section7.control import cells_outside, listed
from analysis.section7.nulls import Band, expected_phi, outside
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
    """phi of the runs on permuted labels."""
    near_equal: tuple[list[range], list[range]]
    """Groups of directions of the two runs whose singular values are too near to order them."""
    other_seed: Float[np.ndarray, "i j"] | None = None
    """phi with the second rank's run from another seed; None if both ranks are equal."""
    other_labels: Float[np.ndarray, "i j"] | None = None
    """phi with the second run on permuted labels and the first on the true ones."""

    @property
    def curve(self) -> str:
        """Which cells summarise the grid: the diagonal of a square one, else the last column."""
        return "diagonal" if self.phi.shape[0] == self.phi.shape[1] else "whole"


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
