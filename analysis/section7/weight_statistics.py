"""Updates beside the weight they are added to, as one number a seed (Section 7.3, Table 7, Figure 8)."""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from analysis.section7.item import layer_at
from analysis.section7.projection import (
    Projections,
    position,
    projection,
    projections,
    random_projection,
    squared_norm,
    top_directions,
)
from analysis.section7.run_weights import RunWeights
from analysis.section7.shared_statistics import SIDES
from analysis.section7.statistics import GAUSSIAN, RANDOM_UPDATE, Statistic
from analysis.section7.subspace import Svd, directions, norm, phi_grid
from lora_repro import draw
from lora_repro.errors import MissingInputError
from lora_repro.models.arch import Site

DRAWS = 50
"""Random updates whose mean is chance."""

TOP, FIRST = Fraction(1, 10), 4
"""How much of the weight, and how many directions of the update, Figure 8 compares."""


class Weight(NamedTuple):
    """A weight before training."""

    site: Site
    W: Float[np.ndarray, "d_out d_in"]
    own: Svd
    """Its leading directions."""


class Random(NamedTuple):
    """What random directions give of one weight at one rank."""

    log_projection: float
    """Mean of log ||U^T W V||_F."""
    position: float
    """Mean."""


def of_weights(weights: RunWeights, roles: Sequence[str], layers: Sequence[str]) -> Iterator[Statistic]:
    """Yields, for each run on true labels, what Table 7 and Figure 8 ask of it.

    `amplification`: ||dW||_F / ||U^T W V||_F, over layers the geometric mean; `amplification_ratio`: that over a random
    update's of the same norm; `position`: of the projection, between random (0) and W's own directions (1); `sign`: the
    cosine of dW and W in standard deviations of a random update's; `phi_in_top_of_w`: how much of the update's first
    directions lies in the first tenth of W's.

    Args:
        weights: The runs.
        roles: Of which matrices: q.
        layers: Parts of the depth, of whose layers there are statistics beside those over all layers.
    """
    from lora_repro.models.base_weights import base_matrices

    compared = weights.compared
    runs = [(r, seed) for r in compared.ranks_there for seed in compared.seeds if compared.job(r, seed) is not None]
    there = [(r, seed, updates) for r, seed in runs if (updates := weights.updates(r, seed)) is not None]
    sites = [site for site in compared.sites if site.role in roles]
    if not there or not sites:
        return
    try:
        matrices = base_matrices(compared.run, compared.settings, sites)
    except MissingInputError as error:
        weights.left_out[f"Updates beside W: {error}"] = None
        return
    ranks = sorted({r for r, _, _ in there})
    known = [_weight(site, matrices[site.name], ranks[-1]) for site in sites]
    random = {(r, each.site.name): _random(each, r) for r in ranks for each in known}
    chosen = {layer_at(part, compared.run.arch.num_layers) for part in layers}
    groups = {role: [each for each in known if each.site.role == role] for role in roles}
    groups |= {f"layer {each.site.layer} {each.site.role}": [each] for each in known if each.site.layer in chosen}
    for r, seed, updates in there:
        beside = {site.name: update for site, update in zip(compared.sites, updates, strict=True)}
        for where, group in groups.items():
            found = [projections(each.W, beside[each.site.name], each.own) for each in group]
            chance = [random[r, each.site.name] for each in group]
            yield from _projected(weights, (r, seed), where, found, chance)
            yield from _in_top(weights, (r, seed), where, group)


def _weight(site: Site, W: Float[np.ndarray, "d_out d_in"], r: int) -> Weight:
    count = max(r, _top_of(W))
    return Weight(site, W, top_directions(W, count, draw.generator("top directions", site.name)))


def _random(weight: Weight, r: int) -> Random:
    """Draws random updates of a weight: uniformly distributed directions on both sides."""
    generator = draw.generator("random update", weight.site.name, r)
    W = weight.W
    typical = random_projection(math.sqrt(squared_norm(W)), r, *W.shape)
    drawn = []
    for _ in range(DRAWS):
        U, V = (directions(generator.standard_normal((r, d))) for d in W.shape)
        drawn.append(projection(W, U, V))
    own = norm(weight.own.s[:r])
    return Random(_mean(map(math.log, drawn)), _mean(position(each, typical, own) for each in drawn))


def _projected(
    weights: RunWeights, run: tuple[int, int], where: str, found: Sequence[Projections], chance: Sequence[Random]
) -> Iterator[Statistic]:
    """Yields what Table 7 says of the updates of one run, given by rank and seed."""
    (r, seed), run_id = run, weights.run_id(*run)
    if not all(each.update_norm > 0 and each.on_update > 0 for each in found):
        weights.left_out[f"{run_id} changes {where} in no layer or not in all, or W is zero there."] = None
        return
    amplified = _mean(math.log(each.amplification) for each in found)
    by_chance = _mean(math.log(a.update_norm) - b.log_projection for a, b in zip(found, chance, strict=True))
    numbers = {
        "amplification": (math.exp(amplified), math.exp(by_chance)),
        "amplification_ratio": (math.exp(amplified - by_chance), 1.0),
        "position": (_mean(each.position for each in found), _mean(each.position for each in chance)),
        "sign": (_mean(each.sign / each.random_sign for each in found), 0.0),
    }
    for name, value_and_chance in numbers.items():
        yield weights.statistic(name, where, f"r={r}", (seed,), value_and_chance, RANDOM_UPDATE, (run_id,))


def _in_top(weights: RunWeights, run: tuple[int, int], where: str, group: Sequence[Weight]) -> Iterator[Statistic]:
    """Yields how much of a run's first directions lies in those of the weight."""
    r, seed = run
    position_of = {site.name: position for position, site in enumerate(weights.compared.sites)}
    first = min(FIRST, r)
    for side in SIDES:
        found = weights.directions(r, seed, side)
        if found is None:
            continue
        tops = [_top_of(each.W) for each in group]
        phi = [
            phi_grid(each.own.V[:, :top], found[position_of[each.site.name]].U[:, :first])[-1, -1]
            for each, top in zip(group, tops, strict=True)
        ]
        expected = _mean(max(top, first) / each.site.d_in for each, top in zip(group, tops, strict=True))
        setting = f"{side.value}, first {first} of r={r}"
        run_ids = (weights.run_id(r, seed),)
        yield weights.statistic("phi_in_top_of_w", where, setting, (seed,), (_mean(phi), expected), GAUSSIAN, run_ids)


def _top_of(W: Float[np.ndarray, "d_out d_in"]) -> int:
    return math.ceil(TOP * min(W.shape))


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)
