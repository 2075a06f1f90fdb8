"""The kind `rho`: which single directions of one rank lie in what another rank learned, beside chance.

phi sums directions up; rho_i = ||V^T u_i||^2 says of each u_i of the smaller rank how much of it the whole space V of
the larger one holds. Shown are every layer, matrix and seed. The paper has no such figure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.items import Picture, Request, register
from analysis.render import style
from analysis.render.captions import (
    ONE_SEED,
    PLUS,
    about,
    counted,
    describe_nulls,
    describe_permuted,
    joined,
    verdict,
)
from analysis.render.grids import draw_bands
from analysis.section7.chance import TwoRuns, cropped, inputs_or_why_not, keeps_B, nulls, shared_numbers
from analysis.section7.compared_runs import ComparedRuns, Trained
from analysis.section7.control import Control, cells_outside, control, listed, snapshots_json
from analysis.section7.grid import band_json
from analysis.section7.item import UpdateItem
from analysis.section7.nulls import Band, outside
from analysis.section7.sides import Directions, Side
from analysis.section7.subspace import rho
from lora_repro.models.arch import Site

WIDTH, HEIGHT, LEGEND = 1.5, 1.35, 1.35
"""Of a panel, and of the legend beside, in inches."""

NARROWEST = 6.0
"""Of all panels together: the title needs it."""

COLUMNS, MANY, COLUMNS_OF_MANY = 8, 48, 16
"""Layers side by side, and with how many layers there are more of them."""


@register("rho")
@dataclass(kw_only=True)
class RhoFigure(UpdateItem):
    """How much of each direction of one run lies in what another learned."""

    word = "figure"
    takes = ("side",)

    def picture(self, request: Request) -> Picture:
        """Compares two ranks, of every seed.

        Raises:
            InputError: If nothing was learned on this side.
            MissingInputError: If a run is missing, with the command that computes it.
        """
        data = read_rho(ComparedRuns(self, request.scale, request.store, request.overrides), Side(request.side))
        words = [title(data), *caption(data)]
        beside = [each.trained for control in data.permuted if control is not None for each in control.runs]
        runs = [*(run for pair in data.pairs for run in pair), *beside]
        return Picture(partial(draw, data, words), words, rho_json(data), [run.run_id for run in runs])


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


class RhoShares(NamedTuple):
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


def read_rho(compared: ComparedRuns, side: Side) -> RhoShares:
    """Reads the runs of two ranks, of every seed, and compares them.

    Raises:
        InputError: If nothing was learned on this side.
        MissingInputError: If a run is missing, with the command that computes it.
    """
    item = compared.item
    assert isinstance(item, RhoFigure)
    one, other = compared.ranks
    runs = compared.finished([(r, seed) for seed in compared.seeds for r in (one, other)])
    pairs = list(zip(runs[::2], runs[1::2], strict=True))
    pairs_of_runs = [
        TwoRuns(compared.sites, a.updates(compared.sites), b.updates(compared.sites), side) for a, b in pairs
    ]
    numbers = shared_numbers(pairs_of_runs)
    found = [directions for pair in pairs_of_runs if (directions := cropped(pair, numbers)) is not None]
    inputs, no_inputs = (
        inputs_or_why_not(compared.run, compared.settings, compared.sites) if side.reads_inputs else (None, "")
    )
    of_first = nulls(pairs_of_runs[0], numbers, compared.run, inputs, rho)
    chance = [of_first] * len(pairs)
    if keeps_B(side):
        chance[1:] = [nulls(pair, numbers, compared.run, inputs, rho) for pair in pairs_of_runs[1:]]
    controls = [control(compared, pair, numbers, side) for pair in pairs]
    apart = [
        [(one, other) for (one, _), (_, other) in zip(own, next_seed, strict=True)]
        for own, next_seed in zip(found, [*found[1:], found[0]], strict=True)
    ]
    shares = []
    for position, site in enumerate(compared.sites):
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
    return RhoShares(item, compared.scale, side, (one, other), numbers, pairs, shares, permuted, no_inputs, no_permuted)


def rho_json(data: RhoShares) -> list[dict[str, Any]]:
    """Returns an entry a matrix; what stands in lists has an element for each seed."""
    return [
        {
            "layer": each.site.layer,
            "weight": each.site.role,
            "figure": data.item.name,
            "scale": data.scale,
            "run_ids": [[run.run_id for run in pair] for pair in data.pairs],
            "seeds": [pair[0].run.seed for pair in data.pairs],
            "r": list(data.ranks),
            "side": data.side.value,
            "permuted_at": [snapshots_json(beside.runs) if beside is not None else None for beside in data.permuted],
            "d": each.d,
            "rho": each.rho.tolist(),
            "null": data.numbers[1] / each.d,
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
        for each in data.shares
    ]


def _rho(pair: tuple[Directions, Directions]) -> Float[np.ndarray, " i"]:
    return rho(pair[0].U, pair[1].U)


def title(data: RhoShares) -> str:
    """Returns the title of the figure of single directions."""
    title = data.item.title.format(*data.ranks)
    return f"{title}; {about(data.pairs[0][0].run)}, scale={data.scale}"


def caption(data: RhoShares) -> list[str]:
    """Returns its caption's paragraphs."""
    (one, other), (i, j) = data.ranks, data.numbers
    seeds = [pair[0].run.seed for pair in data.pairs]
    shares = data.shares
    by_chance = joined(dict.fromkeys(f"{j} / {each.d} = {j / each.d:.3f}" for each in shares))
    in_inputs = drawn = ""
    if shares[0].in_inputs is not None:
        in_inputs = f" Blue dashes: how much of it lies in the first {j} principal directions of the layer's inputs."
    if keeps_B(data.side) and len(seeds) > 1:
        drawn = f" Drawn are the nulls of seed {seeds[0]}; each seed is counted against its own."
    apart = [each.other_seed if each.other_seed is not None else [None] * len(seeds) for each in shares]
    directions = f"Directions outside the bands, of {i * len(shares)} in a seed"
    diamonds = f"Diamonds: r = {other} of the next seed instead; {ONE_SEED}. Outside the bands"
    return [
        f"Each point is rho_i = ||V^T u_i||^2: how much of the i-th direction of r = {one} lies in the {j} directions "
        f"of r = {other}, trained from the same seed ({joined(seeds)}); by chance {by_chance}.",
        f"A panel shows a layer ({data.pairs[0][0].run.arch.num_layers}, counted from 0) and matrix; points above all "
        f"bands share more than any null explains.{in_inputs} Directions are {data.side.description}. The paper has no "
        "such figure.",
        describe_nulls(shares[0].bands[0], data.side, data.no_inputs, "one seed's figure") + drawn,
        *_seed_by_seed(directions, data, [each.rho for each in shares]),
        *_seed_by_seed(diamonds, data, apart),
        *describe_permuted(data.permuted, data.no_permuted),
        *_seed_by_seed("Crosses outside the bands", data, [each.permuted for each in shares]),
        *_seed_by_seed(PLUS, data, [each.other_labels for each in shares]),
        verdict(data.pairs[0][0].run, data.scale),
    ]


def _seed_by_seed(words: str, data: RhoShares, found: Sequence[Sequence[np.ndarray | None] | np.ndarray]) -> list[str]:
    """Counts over all matrices what of each seed lies outside its bands; `found` has values by matrix and seed."""
    counts = []
    for at, (run, _) in enumerate(data.pairs):
        beside = [(values[at], each.bands[at]) for values, each in zip(found, data.shares, strict=True)]
        there = [(values, bands) for values, bands in beside if values is not None]
        if not there:
            continue
        of_nulls = []
        for name in there[0][1]:
            each = [outside(values, bands[name]) for values, bands in there]
            of_nulls.append(counted(name, sum(c.above for c in each), sum(c.below for c in each)))
        counts.append(f"seed {run.run.seed}: {', '.join(of_nulls)}")
    return [f"{words}: {'; '.join(counts)}."] if counts else []


def draw(data: RhoShares, words: list[str]) -> Figure:
    """Draws a panel for each layer (across) and matrix (down)."""
    layers = list(dict.fromkeys(each.site.layer for each in data.shares))
    roles = list(dict.fromkeys(each.site.role for each in data.shares))
    at = {(each.site.layer, each.site.role): each for each in data.shares}
    columns = min(len(layers), COLUMNS if len(layers) <= MANY else COLUMNS_OF_MANY)
    lines = [layers[start : start + columns] for start in range(0, len(layers), columns)]
    panels = [[at[layer, role] for layer in line] for line in lines for role in roles]
    title, *caption = words
    width = max(columns * WIDTH, NARROWEST) + LEGEND
    height = len(panels) * HEIGHT + 0.8 + style.caption_height(width, caption)
    figure = Figure((width, height), layout="constrained")
    axes: Any = figure.subplots(len(panels), columns + 1, squeeze=False, width_ratios=[WIDTH] * columns + [LEGEND])
    for down, (row, line) in enumerate(zip(axes, panels, strict=True)):
        for across, (ax, shares) in enumerate(zip(row, line, strict=False)):
            draw_shares(ax, shares)
            ax.set_title(f"layer {shares.site.layer}" if down % len(roles) == 0 else "")
            ax.set_ylabel(rf"$\Delta W_{shares.site.role}$: $\rho_i$" if across == 0 else "")
            ax.set_xlabel(f"i (r = {data.ranks[0]})" if down == len(panels) - 1 else "")
            ax.tick_params(labelleft=across == 0, labelbottom=down == len(panels) - 1)
        for ax in row[len(line) :]:
            ax.set_axis_off()
    handles, words = axes[0, 0].get_legend_handles_labels()
    axes[0, -1].legend(handles, words, loc="upper left", bbox_to_anchor=(-0.1, 1.0), borderpad=0)
    figure.suptitle(title, fontsize=10, x=0.012, ha="left")
    style.put_caption(figure, caption)
    return figure


def draw_shares(ax: Axes, shares: Shares) -> Axes:
    """Draws rho_i of all seeds as points over the bands of the nulls."""
    x = np.arange(1, shares.rho.shape[1] + 1)
    draw_bands(ax, x, shares.bands[0])
    if shares.in_inputs is not None:
        ax.plot(x, shares.in_inputs.mean(0), "_", color=style.SECOND, label="in the inputs'\nprincipal directions")
    if permuted := [values for values in shares.permuted if values is not None]:
        ax.plot(x, np.array(permuted).T, "x", color=style.PERMUTED, label=_first("permuted labels", len(permuted)))
    if mixed := [values for values in shares.other_labels if values is not None]:
        ax.plot(x, np.array(mixed).T, "+", color=style.SECOND, label=_first("true and\npermuted", len(mixed)))
    if shares.other_seed is not None:
        ax.plot(
            x,
            shares.other_seed.T,
            "D",
            color=style.BEYOND,
            markerfacecolor="none",
            label=_first("another seed", len(shares.other_seed)),
        )
    ax.plot(x, shares.rho.T, "o", color=style.BEYOND, label=_first("measured, each seed", len(shares.rho)))
    ax.set_ylim(0, 1)
    ax.set_xticks([1, *range(4, x[-1] + 1, 4)] if len(x) <= 16 else [1, *range(16, x[-1] + 1, 16)])
    return ax


def _first(words: str, seeds: int) -> list[str]:
    """Labels the first seed's points alone."""
    return [words, *["_nolegend_"] * (seeds - 1)]
