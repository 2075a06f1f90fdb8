"""Which single directions of one rank lie in what another rank learned: every layer, matrix and seed, beside chance.

phi sums directions up; rho_i = ||V^T u_i||^2 says of each u_i of the smaller rank how much of it the whole space V of
the larger one holds. The paper has no such figure.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from analysis.items import RhoFigure
from analysis.section7.chance import Pair, cropped, inputs_or_why_not, keeps_B, nulls, shared_numbers
from analysis.section7.compared_runs import Arms, Trained
from analysis.section7.control import Control, cells_outside, control, listed, places
from analysis.section7.nulls import Band
from analysis.section7.phi_figure import band_json
from analysis.section7.sides import Directions, Side
from analysis.section7.subspace import rho
from lora_repro.models.arch import Site


class Shares(NamedTuple):
    """rho_i of one matrix."""

    site: Site
    d: int
    rho: Float[np.ndarray, "seeds i"]
    bands: list[dict[str, Band]]
    """For each seed, of its picture of all matrices; where A is looked at, every seed's are the same."""
    permuted: list[Float[np.ndarray, " i"] | None]
    """For each seed, the same of the runs on permuted labels."""
    other_labels: list[Float[np.ndarray, " i"] | None]
    """For each seed, the same of the smaller rank and the larger one on permuted labels."""
    other_seed: Float[np.ndarray, "seeds i"] | None
    """For each seed, the same with the larger rank of the next seed; None where there is one seed."""
    in_inputs: Float[np.ndarray, "seeds i"] | None
    """How much of each direction lies in as many leading principal directions of the inputs as the larger rank has."""


class RhoPicture(NamedTuple):
    """rho_i of all matrices."""

    item: RhoFigure
    scale: str
    side: Side
    ranks: tuple[int, int]
    numbers: tuple[int, int]
    """How many directions of each are compared: the ranks, or fewer where a run has fewer."""
    pairs: list[tuple[Trained, Trained]]
    """The two ranks of each seed."""
    shares: list[Shares]
    permuted: list[Control | None]
    """Of each seed."""
    no_inputs: str
    no_permuted: list[str]
    """Why seeds have no runs on permuted labels, where these are asked for."""


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
    numbers = shared_numbers(compared)
    found = [directions for pair in compared if (directions := cropped(pair, numbers)) is not None]
    inputs, no_inputs = inputs_or_why_not(arms.run, arms.settings, arms.sites) if side.reads_inputs else (None, "")
    of_first = nulls(compared[0], numbers, arms.run, inputs, rho)
    chance = [of_first] * len(pairs)
    if keeps_B(side):
        chance[1:] = [nulls(pair, numbers, arms.run, inputs, rho) for pair in compared[1:]]
    controls = [control(arms, pair, numbers, side) for pair in pairs]
    apart = [
        [(one, other) for (one, _), (_, other) in zip(own, next_seed, strict=True)]
        for own, next_seed in zip(found, [*found[1:], found[0]], strict=True)
    ]
    shares = []
    for position, site in enumerate(arms.sites):
        in_inputs = None
        if inputs is not None:
            leading = inputs[position].directions[:, : numbers[1]]
            in_inputs = np.array([rho(directions[position][0].U, leading) for directions in found])
        shares.append(
            Shares(
                site,
                len(found[0][position][0].U),
                np.array([_rho(directions[position]) for directions in found]),
                [{name: bands[position] for name, bands in of_seed.items()} for of_seed in chance],
                [_rho(each.directions[position]) if each is not None else None for each, _ in controls],
                [_rho(each.other_labels[position]) if each is not None else None for each, _ in controls],
                np.array([_rho(directions[position]) for directions in apart]) if len(pairs) > 1 else None,
                in_inputs,
            )
        )
    permuted, reasons = [each for each, _ in controls], [why for _, why in controls if why]
    no_permuted = list(dict.fromkeys(reasons))
    return RhoPicture(item, arms.scale, side, (one, other), numbers, pairs, shares, permuted, no_inputs, no_permuted)


def to_json(picture: RhoPicture) -> list[dict[str, Any]]:
    """Returns an entry a matrix; what stands in lists has an element for each seed."""
    return [
        {
            "layer": each.site.layer,
            "weight": each.site.role,
            "figure": picture.item.name,
            "scale": picture.scale,
            "run_ids": [[run.run_id for run in pair] for pair in picture.pairs],
            "seeds": [pair[0].run.seed for pair in picture.pairs],
            "r": list(picture.ranks),
            "side": picture.side.value,
            "permuted_at": [places(beside.runs) if beside is not None else None for beside in picture.permuted],
            "d": each.d,
            "rho": each.rho.tolist(),
            "null": picture.numbers[1] / each.d,
            "nulls": [
                {name: band_json(band, values) for name, band in bands.items()}
                for bands, values in zip(each.bands, each.rho, strict=True)
            ],
            "permuted": [listed(values) for values in each.permuted],
            "permuted_outside": [
                cells_outside(values, bands) for bands, values in zip(each.bands, each.permuted, strict=True)
            ],
            "other_labels": [listed(values) for values in each.other_labels],
            "other_seed": listed(each.other_seed),
            "in_inputs": listed(each.in_inputs),
        }
        for each in picture.shares
    ]


def _rho(pair: tuple[Directions, Directions]) -> Float[np.ndarray, " i"]:
    return rho(pair[0].U, pair[1].U)
