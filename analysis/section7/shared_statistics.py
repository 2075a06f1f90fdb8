"""What two runs share, as one number a seed or a pair of seeds, beside chance and controls (Section 7.2)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float

from analysis.section7.chance import left_factor
from analysis.section7.nulls import Left, Principal, input_pictures
from analysis.section7.run_weights import RunWeights
from analysis.section7.sides import Directions, Side
from analysis.section7.starts import start_of, start_pictures
from analysis.section7.statistics import ANOTHER_SEED, GAUSSIAN, INPUTS, OTHER_LABELS, PERMUTED, START, Statistic
from analysis.section7.subspace import phi_grid, rho, shared_dimensions
from analysis.stats import pseudo_values
from lora_repro import draw

SIDES = (Side.A, Side.update_right)
"""A is what the paper compares; dW is what the run does."""

FIRST = (1, 4, 8)
"""How many first directions are asked for."""

DRAWS = 50
"""Of a null whose mean has no closed form: the mean over layers is then known to 0.01 shared dimensions."""

Values = Float[np.ndarray, " n"]
"""Several numbers of one comparison, in the order of their labels."""


def of_ranks(weights: RunWeights, inputs: Sequence[Principal] | None) -> Iterator[Statistic]:
    """Yields how much of the first directions of the smaller rank lies in the larger rank's, seed by seed.

    `shared_dims`: min(i, j) phi(i, j) - i j / d, of the first i directions and all j; `rho`: of single directions.
    Means over layers. One number a seed also where the control is another seed: the mean over all other seeds.

    Args:
        weights: The runs; the two ranks are those of its item.
        inputs: The principal directions of what each matrix reads; None leaves their null out.
    """
    (i, j), seeds = weights.compared.ranks, weights.compared.seeds
    labels = [("shared_dims", f"first {n}") for n in _firsts(i)] + [("rho", f"direction {n + 1}") for n in range(i)]
    for side in SIDES:
        nulls = {} if side.of == "dW" else _drawn(weights, i, j, None, inputs)
        for seed in seeds:
            one, other = weights.directions(i, seed, side), weights.directions(j, seed, side)
            if one is None or other is None:
                continue
            if side.of == "dW":
                nulls = _drawn(weights, i, j, _left(weights, i, j, seed), inputs)
            values = _by_weight(weights, map(overlap, one, other))
            own = (weights.run_id(i, seed), weights.run_id(j, seed))
            beside = [
                (GAUSSIAN, _gaussian(weights, i, j), ()),
                *((name, chance, ()) for name, chance in nulls.items()),
                *_controls(weights, i, j, seed, side),
            ]
            for against, chance, more in beside:
                for weight, found in values.items():
                    for (name, what), value, by_chance in zip(labels, found, chance[weight], strict=True):
                        setting = f"{side.value}, {what} of r={i} in r={j}"
                        yield weights.statistic(name, weight, setting, (seed,), (value, by_chance), against, own + more)


def of_seeds(weights: RunWeights) -> Iterator[Statistic]:
    """Yields how many dimensions the larger rank's runs of two seeds share, of q, of v and of q less v (Figure 4).

    `seeds_shared_dims`: of every pair of seeds; `seeds_shared_dims_jackknife`: one number a seed, the only ones that a
    t test may take (`analysis.stats.pseudo_values`). Means over layers.
    """
    r, seeds = weights.compared.ranks[1], weights.compared.seeds
    firsts = _firsts(r)
    for side in SIDES:
        true, permuted = {}, {}
        for pair in combinations(seeds, 2):
            for found, is_permuted in ((true, False), (permuted, True)):
                if is_permuted and not weights.has_permuted(r):
                    continue
                one, other = (weights.directions(r, seed, side, is_permuted) for seed in pair)
                if one is not None and other is not None:
                    shared = [_diagonal(a.U, b.U, firsts) for a, b in zip(one, other, strict=True)]
                    found[pair] = _with_difference(_by_weight(weights, shared))
        zero = {pair: {weight: np.zeros(len(firsts)) for weight in found} for pair, found in true.items()}
        for against, chance in ((GAUSSIAN, zero), (PERMUTED, permuted)):
            yield from _of_pairs(weights, side, true, chance, against)


def _of_pairs(
    weights: RunWeights,
    side: Side,
    values: Mapping[tuple[int, int], Mapping[str, Values]],
    chance: Mapping[tuple[int, int], Mapping[str, Values]],
    against: str,
) -> Iterator[Statistic]:
    """Yields the statistics of all pairs that are there, and, if none is missing, those of each seed."""
    r, seeds = weights.compared.ranks[1], weights.compared.seeds
    pairs = [pair for pair in values if pair in chance]

    def run_ids(of: Iterable[int]) -> tuple[str, ...]:
        kinds = (False, True) if against == PERMUTED else (False,)
        return tuple(weights.run_id(r, seed, permuted) for permuted in kinds for seed in of)

    for weight in next(iter(values.values()), {}):
        for k, first in enumerate(_firsts(r)):
            setting = f"{side.value}, first {first} of r={r}"
            two = {pair: (float(values[pair][weight][k]), float(chance[pair][weight][k])) for pair in pairs}
            for pair, numbers in two.items():
                yield weights.statistic("seeds_shared_dims", weight, setting, pair, numbers, against, run_ids(pair))
            if len(seeds) < 3 or len(pairs) < len(seeds) * (len(seeds) - 1) // 2:
                continue
            found, by_chance = (pseudo_values({pair: two[pair][which] for pair in pairs}) for which in (0, 1))
            for seed in seeds:
                numbers = (found[seed], by_chance[seed])
                name = "seeds_shared_dims_jackknife"
                yield weights.statistic(name, weight, setting, (seed,), numbers, against, run_ids(seeds))


def overlap(one: Directions, other: Directions) -> Values:
    """Returns the shared dimensions of the first directions of the one with all of the other, then each one's rho."""
    grid = shared_dimensions(phi_grid(one.U, other.U), len(one.U))
    return np.concatenate([grid[[n - 1 for n in _firsts(len(grid))], -1], rho(one.U, other.U)])


def _diagonal(U: Float[np.ndarray, "d r"], V: Float[np.ndarray, "d r"], firsts: Sequence[int]) -> Values:
    at = [n - 1 for n in firsts]
    return shared_dimensions(phi_grid(U, V), len(U))[at, at]


def _firsts(r: int) -> list[int]:
    return [*(n for n in FIRST if n < r), r]


def _by_weight(weights: RunWeights, of_sites: Iterable[Values]) -> dict[str, Values]:
    """Returns the mean over layers of each weight."""
    found: dict[str, list[Values]] = {}
    for site, values in zip(weights.compared.sites, of_sites, strict=True):
        found.setdefault(site.role, []).append(values)
    return {weight: np.mean(values, axis=0) for weight, values in found.items()}


def _with_difference(found: dict[str, Values]) -> dict[str, Values]:
    """Adds the first weight less the second: q - v."""
    (one, of_one), (other, of_other) = list(found.items())[:2]
    return found | {f"{one} - {other}": of_one - of_other}


def _gaussian(weights: RunWeights, i: int, j: int) -> dict[str, Values]:
    """Returns what Gaussian matrices give: no shared dimensions beyond chance, by definition, and rho = j / d."""
    chance = [np.concatenate([np.zeros(len(_firsts(i))), np.full(i, j / site.d_in)]) for site in weights.compared.sites]
    return _by_weight(weights, chance)


def _left(weights: RunWeights, i: int, j: int, seed: int) -> Left:
    one, other = weights.updates(i, seed), weights.updates(j, seed)
    assert one is not None and other is not None
    return [(left_factor(a), left_factor(b)) for a, b in zip(one, other, strict=True)]


def _drawn(
    weights: RunWeights, i: int, j: int, left: Left | None, inputs: Sequence[Principal] | None
) -> dict[str, dict[str, Values]]:
    """Returns the means of untrained A and of A made of inputs, which have no closed form."""

    def shared(U: np.ndarray, V: np.ndarray) -> np.ndarray:
        return overlap(Directions(U[:, :i], np.empty(0)), Directions(V[:, :j], np.empty(0)))

    found, compared = {}, weights.compared
    if compared.run.train.init_from is None:
        pictures = start_pictures(start_of(compared.run), compared.sites, i, j, DRAWS, shared, left)
        found[START] = _by_weight(weights, np.mean(list(pictures), axis=0))
    if inputs is not None:
        generator = draw.generator("null", INPUTS, i, j)
        pictures = input_pictures([each.values for each in inputs], i, j, generator, DRAWS, shared, left)
        found[INPUTS] = _by_weight(weights, np.mean(list(pictures), axis=0))
    return found


def _controls(
    weights: RunWeights, i: int, j: int, seed: int, side: Side
) -> Iterator[tuple[str, dict[str, Values], tuple[str, ...]]]:
    """Yields each control that is there whole: its name, its numbers, and the further runs that it takes."""
    one = weights.directions(i, seed, side)
    assert one is not None
    others = [each for each in weights.compared.seeds if each != seed]
    apart = [weights.directions(j, each, side) for each in others]
    if others and all(each is not None for each in apart):  # never a mean over a part of the seeds
        shared = [_by_weight(weights, map(overlap, one, each)) for each in apart if each is not None]
        means = {weight: np.mean([each[weight] for each in shared], axis=0) for weight in shared[0]}
        yield ANOTHER_SEED, means, tuple(weights.run_id(j, each) for each in others)
    if not weights.has_permuted(i) or not weights.has_permuted(j):
        return
    of_one, of_other = weights.directions(i, seed, side, True), weights.directions(j, seed, side, True)
    if of_other is not None:
        beside = weights.run_id(j, seed, permuted=True)
        yield OTHER_LABELS, _by_weight(weights, map(overlap, one, of_other)), (beside,)
        if of_one is not None:
            ids = (weights.run_id(i, seed, permuted=True), beside)
            yield PERMUTED, _by_weight(weights, map(overlap, of_one, of_other)), ids
