"""Which single directions of one rank lie in what another rank learned: every layer, matrix and seed, beside chance.

phi sums directions up; rho_i = ||V^T u_i||^2 says of each u_i of the smaller rank how much of it the whole space V of
the larger one holds. The paper has no such figure.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from analysis.arms import Arms, Permuted, Trained
from analysis.chance import Pair, inputs_or_why_not, nulls
from analysis.items import RhoFigure
from analysis.nulls import Band
from analysis.phi_figure import band_json, permuted_grid_json, permuted_json
from analysis.sides import Side
from analysis.subspace import rho
from lora_repro.arch import Site


class Shares(NamedTuple):
    """rho_i of one matrix."""

    site: Site
    d: int
    rho: Float[np.ndarray, "seeds i"]
    bands: dict[str, Band]
    """Of one seed's pictures, all matrices together."""
    permuted: Float[np.ndarray, "seeds i"] | None
    in_inputs: Float[np.ndarray, "seeds i"] | None
    """How much of each direction lies in as many leading principal directions of the inputs as the larger rank has."""


class RhoPicture(NamedTuple):
    """rho_i of all matrices."""

    item: RhoFigure
    scale: str
    side: Side
    ranks: tuple[int, int]
    pairs: list[tuple[Trained, Trained]]
    """The two ranks of each seed."""
    shares: list[Shares]
    permuted: list[tuple[Permuted, ...]]
    no_inputs: str
    no_permuted: str


def rho_picture(arms: Arms, side: Side) -> RhoPicture:
    """Reads the runs of two ranks, of every seed, and compares them.

    Raises:
        InputError: If nothing was learned on this side.
        MissingInputError: If a run is missing, with the command that computes it.
    """
    item = arms.item
    assert isinstance(item, RhoFigure)
    one, other = arms.ranks
    runs = arms.finished([(r, seed) for seed in arms.seeds for r in (one, other)])
    pairs = list(zip(runs[::2], runs[1::2], strict=True))
    compared = [Pair(arms.sites, a.updates(arms.sites), b.updates(arms.sites), side) for a, b in pairs]
    inputs, no_inputs = inputs_or_why_not(arms.run, arms.circumstances, arms.sites) if side.reads_inputs else (None, "")
    chance = nulls(compared[0], arms.run, inputs, rho)
    found = [pair.directions() for pair in compared]
    permuted = [beside for pair in pairs if (beside := arms.permuted(pair)) is not None]
    no_permuted = "" if permuted or not arms.has_permuted else f"They are not computed yet: {arms.command}"
    of_permuted = [
        Pair(arms.sites, a.updates(arms.sites), b.updates(arms.sites), side).directions() for a, b in permuted
    ]
    shares = []
    for position, site in enumerate(arms.sites):
        in_inputs = None
        if inputs is not None:
            in_inputs = np.array([rho(f[position][0].U, inputs[position].directions[:, :other]) for f in found])
        shares.append(
            Shares(
                site,
                len(found[0][position][0].U),
                np.array([rho(f[position][0].U, f[position][1].U) for f in found]),
                {name: bands[position] for name, bands in chance.items()},
                np.array([rho(f[position][0].U, f[position][1].U) for f in of_permuted]) if of_permuted else None,
                in_inputs,
            )
        )
    permuted_pairs = [tuple(beside) for beside in permuted]
    return RhoPicture(item, arms.scale, side, (one, other), pairs, shares, permuted_pairs, no_inputs, no_permuted)


def to_json(picture: RhoPicture) -> list[dict[str, Any]]:
    """Returns an entry a matrix."""
    return [
        {
            "layer": each.site.layer,
            "weight": each.site.letter,
            "figure": picture.item.name,
            "scale": picture.scale,
            "run_ids": [[run.run_id for run in pair] for pair in picture.pairs],
            "seeds": [pair[0].run.seed for pair in picture.pairs],
            "r": list(picture.ranks),
            "side": picture.side.value,
            "permuted_at": [permuted_json(pair) for pair in picture.permuted],
            "d": each.d,
            "rho": each.rho.tolist(),
            "null": picture.ranks[1] / each.d,
            "nulls": {name: band_json(band, each.rho) for name, band in each.bands.items()},
            **permuted_grid_json(each.permuted, each.bands),
            "in_inputs": each.in_inputs.tolist() if each.in_inputs is not None else None,
        }
        for each in picture.shares
    ]
