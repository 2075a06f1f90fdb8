"""The kind `weight`: how much of a weight's own directions lies in the first directions of its updates (Figure 8)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.items import Picture, Request, register
from analysis.render.captions import MIDDLE, about, beyond, conclusion, describe_layers, describe_nulls, verdict
from analysis.render.grids import Frame, Panel, draw_curve, lay_out
from analysis.section7.chance import inputs_or_why_not, left_factor
from analysis.section7.compared_runs import ComparedRuns, Trained
from analysis.section7.grid import Grid, grid_json
from analysis.section7.item import UpdateItem
from analysis.section7.nulls import DRAWS, Band, bands, gaussian_band
from analysis.section7.projection import top_directions
from analysis.section7.sides import Side, directions_of
from analysis.section7.starts import FIRST_SEED, start_of
from analysis.section7.statistics import GAUSSIAN, INPUTS, START
from analysis.section7.subspace import directions, near_equal, phi_grid
from analysis.section7.update import Update
from lora_repro import draw
from lora_repro.errors import InputError


@dataclass
class PaperCurves:
    """Curves that were read off the paper's figure, one a rank."""

    what: str
    """The facts' name of them, as their points write it; {0} stands for the rank."""
    i: list[int]
    """Where their values lie, in the paper's width."""


@register("weight")
@dataclass(kw_only=True)
class WeightFigure(UpdateItem):
    """Grids of phi(i, j) between a weight and its updates, one a rank."""

    word = "figure"
    takes = ("side",)

    colours: list[float]
    """What the ends of the colour map stand for (the facts: normalisation)."""
    top: str
    """Which part of the weight's directions, from the first: 1/10."""
    directions: int
    """How many of each update."""
    width: int
    """d of the paper's weight."""
    points: PaperCurves
    """The paper's values at the last column."""

    def picture(self, request: Request) -> Picture:
        """Compares the runs of the first seed with the weight they start from.

        Raises:
            InputError: If nothing was learned on this side.
            MissingInputError: If a run or the weights are missing.
        """
        data = read_weight(ComparedRuns(self, request.scale, request.store, request.overrides), Side(request.side))
        words = [title(data), *caption(data)]
        return Picture(partial(draw_weight, data, words), words, weight_json(data), [run.run_id for run in data.runs])


class WeightGrids(NamedTuple):
    """A weight against the updates of several ranks."""

    item: WeightFigure
    scale: str
    side: Side
    ranks: list[int]
    runs: list[Trained]
    grids: list[Grid]
    """Of each rank; i counts the weight's directions, j the update's."""
    random: Grid
    no_inputs: str

    def paper_points(self, r: int) -> tuple[list[float], list[float]] | None:
        """Returns what was read off the paper's figure for a rank, its i at the same part of our width.

        None of what the paper does not show: it compares the weight with A.
        """
        if self.side is not Side.A:
            return None
        points = self.item.points
        for fact in self.item.facts["points"]:
            if fact["weight"] == self.random.site.role and fact["what"] == points.what.format(r):
                return [i / self.item.width * self.random.d for i in points.i], fact["values"]
        return None


def read_weight(compared: ComparedRuns, side: Side) -> WeightGrids:
    """Reads the runs of the first seed and the weight they start from.

    Raises:
        InputError: If nothing was learned on this side.
        MissingInputError: If a run or the weights are missing.
    """
    from lora_repro.models.base_weights import base_matrices

    item = compared.item
    assert isinstance(item, WeightFigure)
    (site,) = compared.sites
    runs = compared.finished([(r, compared.seeds[0]) for r in compared.ranks])
    updates = [run.updates([site])[0] for run in runs]
    W = base_matrices(compared.run, compared.settings, [site])[site.name]
    top = math.ceil(Fraction(item.top) * min(W.shape))
    found = top_directions(W, top, draw.generator("top directions", site.name))
    own = found.V if side.reads_inputs else found.U
    learned = [directions_of(update, side) for update in updates]
    if any(not len(each.s) for each in learned):
        raise InputError(f"--side {side.value}: {side.of} is zero, nothing was learned. Give --side A.")
    shown = [each.U[:, : item.directions] for each in learned]
    chance, no_inputs = _chance(compared, side, updates, own, [V.shape[1] for V in shown])
    equal = near_equal(found.s)
    grids = [
        Grid(site, len(own), phi_grid(own, V), {name: each[position] for name, each in chance.items()}, None, groups)
        for position, (V, groups) in enumerate(
            zip(shown, ((equal, near_equal(each.s[: item.directions])) for each in learned), strict=True)
        )
    ]
    widest = max(grids, key=lambda grid: grid.phi.shape[1])
    matrix = draw.generator("a Gaussian matrix", len(own)).standard_normal((widest.phi.shape[1], len(own)))
    random = widest._replace(phi=phi_grid(own, directions(matrix)), near_equal=(equal, []))
    return WeightGrids(item, compared.scale, side, compared.ranks, runs, grids, random, no_inputs)


def weight_json(data: WeightGrids) -> list[dict[str, Any]]:
    """Returns an entry a grid, the random matrix last."""
    shared = {"figure": data.item.number, "scale": data.scale, "side": data.side.value}
    entries = []
    for grid, r, run in zip(data.grids, data.ranks, data.runs, strict=True):
        about = {"r": [r], "run_ids": [run.run_id], "seeds": [run.run.seed]}
        entries.append({"layer": grid.site.layer, "weight": grid.site.role, **shared, **about, **grid_json(grid)})
    site = data.random.site
    about = {"r": [], "run_ids": [], "seeds": []}
    return [*entries, {"layer": site.layer, "weight": "random", **shared, **about, **grid_json(data.random)}]


def _chance(
    compared: ComparedRuns, side: Side, updates: list[Update], own: Float[np.ndarray, "d i"], columns: list[int]
) -> tuple[dict[str, list[Band]], str]:
    """Returns the nulls' bands of each rank's grid: what an update that knows nothing of the weight shares with it."""
    d, i = own.shape
    by_columns = {
        j: gaussian_band(i, j, d, draw.generator("null", GAUSSIAN, i, j, d), grids=len(columns)) for j in set(columns)
    }
    found = {GAUSSIAN: [by_columns[j] for j in columns]}
    if not side.reads_inputs:
        return found, ""
    (site,) = compared.sites
    left = [left_factor(update) if side.of == "dW" else None for update in updates]

    def pictures(own: np.ndarray, drawn: Callable[[int, int], np.ndarray]) -> Iterator[list[np.ndarray]]:
        """Draws pictures: the weight's directions against those of an A for each rank."""
        for number in range(DRAWS):
            factors = [drawn(number, len(update.A)) for update in updates]
            yield [
                phi_grid(own, directions(A if factor is None else factor @ A)[:, :j])
                for A, factor, j in zip(factors, left, columns, strict=True)
            ]

    if compared.run.train.init_from is None:
        start = start_of(compared.run)
        found[START] = bands(
            pictures(own, lambda number, r: start._replace(seed=FIRST_SEED + number).draw_A(site.name, r, site.d_in)),
            what="untrained A",
        )
    inputs, no_inputs = inputs_or_why_not(compared.run, compared.settings, [site])
    if inputs is not None:
        generator, roots = draw.generator("null", INPUTS, "weight"), np.sqrt(inputs[0].values)
        in_their_axes = inputs[0].directions.T @ own
        found[INPUTS] = bands(
            pictures(in_their_axes, lambda number, r: generator.standard_normal((r, len(roots))) * roots),
            what="A made of inputs",
        )
    return found, no_inputs


def title(data: WeightGrids) -> str:
    """Returns the figure's title."""
    title = data.item.title.format(data.random.site.role)
    return f"Figure {data.item.number}: {title}; {about(data.runs[0].run)}, scale={data.scale}"


def caption(data: WeightGrids) -> list[str]:
    """Returns its caption's paragraphs."""
    low, high = data.item.colours
    top, columns = data.random.phi.shape
    weight = f"W_{data.random.site.role}"
    circles = ""
    if any(data.paper_points(r) for r in data.ranks):
        circles = (
            "; circles: approximate values read off the paper's figure, to compare the shape (GPT-3, at the same part "
            f"of d = {data.item.width})"
        )
    return [
        f"phi(i, j) between the first i directions of {weight} (its first {top}, {data.item.top} of all) and the "
        f"first j of its update ({columns}): how much of the latter lies in the former. Seed "
        f"{data.runs[0].run.seed}; {data.side.description}, and the same side of {weight}. "
        f"{describe_layers(data.item, data.runs[0].run)}; d = {data.random.d}.",
        f"Above: phi, colours from {low:g} to {high:g} as in the paper, arrows for values beyond. {MIDDLE} Below: the "
        f"last column, over the means (dashed) and bands of the nulls{circles}.",
        conclusion(data.grids),
        describe_nulls(data.grids[0].bands, data.side, data.no_inputs, "the figure"),
        *beyond(data.grids, [f"r = {r}" for r in data.ranks]),
        verdict(data.runs[0].run, data.scale),
    ]


def draw_weight(data: WeightGrids, words: list[str]) -> Figure:
    """Draws a panel for each rank and one for a random matrix."""
    role = data.random.site.role
    panels = [
        Panel(rf"$\Delta W_{role}$, r = {r}", grid, False) for r, grid in zip(data.ranks, data.grids, strict=True)
    ]
    ranks = dict(zip((panel.title for panel in panels), data.ranks, strict=True))

    def curve(ax: Axes, panel: Panel) -> Axes:
        def last(grid: np.ndarray) -> np.ndarray:
            return grid[:, -1]

        bands = {name: Band(*map(last, band)) for name, band in panel.grid.bands.items()}
        points = data.paper_points(ranks[panel.title]) if panel.title in ranks else None
        draw_curve(ax, last(panel.phi), bands, points=points)
        ax.set_ylim(bottom=0)
        ax.set_xlabel(f"i, at j = {panel.phi.shape[1]}")
        return ax

    frame = Frame(
        *(words[0], words[1:]),
        data.item.colours,
        rf"i ($W_{role}$)",
        is_square=True,
        extend="both",
    )
    return lay_out([*panels, Panel("a Gaussian matrix", data.random, False)], curve, frame)
