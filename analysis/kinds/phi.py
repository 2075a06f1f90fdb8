"""The kind `phi`: grids of phi(i, j) between two runs at some layers, beside chance (Section 7.2; Figure 3)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.items import Picture, Request, register
from analysis.render.captions import (
    MIDDLE,
    ONE_SEED,
    PLUS,
    about,
    beyond,
    conclusion,
    describe_layers,
    describe_nulls,
    describe_outside,
    describe_permuted,
    joined,
    place_of,
    verdict,
)
from analysis.render.grids import Frame, Panel, draw_curve, lay_out
from analysis.section7.chance import TwoRuns, cropped, inputs_or_why_not, nulls, shared_numbers
from analysis.section7.compared_runs import ComparedRuns, Trained
from analysis.section7.control import Control, control, snapshots_json
from analysis.section7.grid import Grid, grid_json
from analysis.section7.item import PAPER_DEPTH, UpdateItem, layer_at
from analysis.section7.nulls import LEAST, Band
from analysis.section7.sides import Directions, Side
from analysis.section7.subspace import directions, near_equal, phi_grid
from lora_repro import draw
from lora_repro.errors import InputError, MissingInputError
from lora_repro.models.arch import Site


@dataclass
class PaperCurve:
    """A curve that was read off the paper's figure."""

    what: str
    """The facts' name of it, as their points write it."""
    i: list[int]
    """Where its values lie."""


@register("phi")
@dataclass(kw_only=True)
class PhiFigure(UpdateItem):
    """Grids of phi(i, j) between two runs."""

    word = "figure"
    takes = ("side",)

    colours: list[float]
    """What the ends of the colour map stand for (the facts: normalisation)."""
    zoom: bool
    """Whether the first columns are shown once more, as many as there are rows."""
    random: bool
    """Whether two Gaussian matrices are shown beside."""
    points: dict[str, PaperCurve] = field(default_factory=dict)
    """The paper's values: of the last column (`whole`), and of the `diagonal`."""

    def picture(self, request: Request) -> Picture:
        """Compares two runs.

        Raises:
            InputError: If there are too few seeds, or nothing was learned on this side.
            MissingInputError: If a run is missing, with the command that computes it.
        """
        data = read_phi(ComparedRuns(self, request.scale, request.store, request.overrides), Side(request.side))
        words = [title(data), *caption(data)]
        beside = [each.trained for each in data.permuted.runs] if data.permuted is not None else []
        runs = [*data.runs, *([data.other_seed] if data.other_seed is not None else []), *beside]
        return Picture(partial(draw_phi, data, words), words, phi_json(data), [run.run_id for run in runs])


class PhiGrids(NamedTuple):
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
        """Returns what was read off the paper's figure at this matrix, where side and ranks are the paper's."""
        if self.side is not Side.A or curve not in self.item.points or list(self.ranks) != self.item.ranks:
            return None
        at, depth = self.item.points[curve], self.runs[0].run.arch.num_layers
        layer = next(layer_at(part, PAPER_DEPTH) for part in self.item.layers if layer_at(part, depth) == site.layer)
        place = {"layer": layer + 1, "weight": site.role, "what": at.what}
        for fact in self.item.facts["points"]:
            if fact.items() >= place.items():
                return at.i, fact["values"]
        return None


def read_phi(compared: ComparedRuns, side: Side) -> PhiGrids:
    """Reads the runs of a figure and compares them.

    Runs of two ranks are of the first seed, and the second rank of the second seed stands beside, if there is one; runs
    of one rank are of the first two seeds.

    Args:
        compared: The runs of the item's sweep.
        side: Which directions are compared.

    Raises:
        InputError: If there are too few seeds, or nothing was learned on this side.
        MissingInputError: If a run is missing, with the command that computes it.
    """
    item = compared.item
    assert isinstance(item, PhiFigure)
    wanted = wanted_runs(compared)
    first, second = compared.finished(wanted)
    pair = TwoRuns(compared.sites, first.updates(compared.sites), second.updates(compared.sites), side)
    numbers = shared_numbers([pair])
    found = cropped(pair, numbers)
    assert found is not None
    inputs, no_inputs = (
        inputs_or_why_not(compared.run, compared.settings, compared.sites) if side.reads_inputs else (None, "")
    )
    chance = nulls(pair, numbers, compared.run, inputs)
    permuted, no_permuted = control(compared, [first, second], numbers, side)
    other_seed, apart, no_other_seed = _other_seed(compared, pair, numbers)
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
        for position, (site, (one, other)) in enumerate(zip(compared.sites, found, strict=True))
    ]
    random = _random(grids[0]) if item.random else None
    ranks = (wanted[0][0], wanted[1][0])
    runs = (first, second)
    why_not = (no_inputs, no_permuted)
    return PhiGrids(
        item, compared.scale, side, runs, ranks, grids, random, permuted, *why_not, other_seed, no_other_seed
    )


def _other_seed(
    compared: ComparedRuns, pair: TwoRuns, numbers: tuple[int, int]
) -> tuple[Trained | None, list[tuple[Directions, Directions]] | None, str]:
    """Returns the second rank's run of the second seed and its directions beside the first run's, or why not."""
    one, other = compared.ranks
    if one == other:
        return None, None, ""
    if len(compared.seeds) < 2:
        example = f"seed={compared.seeds[0]},{compared.seeds[0] + 1}"
        return None, None, f"Another seed is not shown, as one is given. Example of two: {example}"
    try:
        (run,) = compared.finished([(other, compared.seeds[1])])
    except MissingInputError:
        missing = f"r = {other}, seed {compared.seeds[1]} is not computed yet: {compared.command}"
        return None, None, f"Another seed is not shown: {missing}"
    found = cropped(replace(pair, second=run.updates(compared.sites)), numbers)
    if found is None:
        return None, None, f"Another seed is not shown: {run.run_id} has fewer directions than {numbers[1]}."
    return run, found, ""


def wanted_runs(compared: ComparedRuns) -> list[tuple[int, int]]:
    """Returns rank and seed of the two runs that a figure compares."""
    one, other = compared.ranks
    if one != other:
        return [(one, compared.seeds[0]), (other, compared.seeds[0])]
    if len(compared.seeds) < 2:
        raise InputError(
            f"seed: {compared.item.name} compares two seeds (given: {compared.seeds[0]}). Example: seed=0,1"
        )
    return [(one, compared.seeds[0]), (other, compared.seeds[1])]


def phi_json(data: PhiGrids) -> list[dict[str, Any]]:
    """Returns an entry a grid, as `compare` does, and beside it the nulls and what lies outside of their bands."""
    shared = {
        "figure": data.item.number,
        "scale": data.scale,
        "run_ids": [run.run_id for run in data.runs],
        "seeds": [run.run.seed for run in data.runs],
        "r": list(data.ranks),
        "side": data.side.value,
        "other_seed_run_id": data.other_seed.run_id if data.other_seed is not None else None,
        "permuted_at": snapshots_json(data.permuted.runs) if data.permuted is not None else [],
    }
    entries = [{"layer": grid.site.layer, "weight": grid.site.role, **shared, **grid_json(grid)} for grid in data.grids]
    if data.random is not None:
        entries.append({"layer": None, "weight": "random", **shared, "run_ids": [], **grid_json(data.random)})
    return entries


def _random(like: Grid) -> Grid:
    """Compares two Gaussian matrices as wide as a grid's, which its Gaussian band holds."""
    i, j = like.phi.shape
    generator = draw.generator("two Gaussian matrices", i, j, like.d)
    one, other = (directions(generator.standard_normal((r, like.d))) for r in (i, j))
    plain = like._replace(permuted=None, near_equal=([], []), other_seed=None, other_labels=None)
    return plain._replace(phi=phi_grid(one, other))


def title(data: PhiGrids) -> str:
    """Returns a figure's number and title, and what was trained."""
    title = data.item.title.format(*data.ranks)
    return f"Figure {data.item.number}: {title}; {about(data.runs[0].run)}, scale={data.scale}"


def caption(data: PhiGrids) -> list[str]:
    """Returns the caption's paragraphs."""
    return [
        _shown(data),
        _how_to_read(data),
        conclusion(data.grids),
        describe_nulls(data.grids[0].bands, data.side, data.no_inputs, "the figure"),
        *beyond(data.grids, [place_of(grid) for grid in data.grids]),
        *_of_other_seed(data),
        *describe_permuted([data.permuted], [data.no_permuted]),
        *_outside_the_bands("Crosses outside the bands", data.grids, [grid.permuted for grid in data.grids]),
        *_outside_the_bands(PLUS, data.grids, [grid.other_labels for grid in data.grids]),
        *_order(data.grids),
        verdict(data.runs[0].run, data.scale),
    ]


def _shown(data: PhiGrids) -> str:
    one, other = data.runs
    i, j = data.ranks
    whose = data.side.of if data.side.of != "dW" else r"dW"
    seeds = (one.run.seed, other.run.seed)
    of = f"one run of r = {i} (rows, i) and one of r = {j} (columns, j), both of seed {seeds[0]}"
    if i == j:
        of = f"two runs of r = {i}, of seed {seeds[0]} (rows, i) and seed {seeds[1]} (columns, j)"
    return (
        f"phi(i, j) between {of}: how much of the first i directions of the one's {whose} lies in the first j of the "
        "other's, from 0 (nothing) to 1 (the smaller space lies in the larger). Section 7.2, Eq. 4, with "
        f"{data.side.description}. {describe_layers(data.item, one.run)}; d = "
        f"{joined(dict.fromkeys(grid.d for grid in data.grids))}."
    )


def _how_to_read(data: PhiGrids) -> str:
    low, high = data.item.colours
    n = len(data.grids[0].phi)
    zoom = f' Panels "j to {n}" show the first {n} columns again.' if data.item.zoom else ""
    square = data.ranks[0] == data.ranks[1]
    curves = "diagonal" if square else f"last column (j = {data.ranks[1]}), and beside it the diagonal"
    circles = ""
    if any(data.paper_points(grid.site, grid.curve) for grid in data.grids):
        circles = "; circles: approximate values read off the paper's figure, to compare the shape (GPT-3, d = 12288)"
    return (
        f"Above: phi, colours from {low:g} to {high:g} as in the paper.{zoom} {MIDDLE} Below: the {curves}, "
        f"over the means (dashed) and bands of the nulls{circles}."
    )


def _outside_the_bands(words: str, grids: Sequence[Grid], found: Sequence[np.ndarray | None]) -> list[str]:
    """Counts a control's cells outside the bands, grid by grid."""
    counts = [
        f"{place_of(grid)}: {describe_outside(values, grid.bands)}"
        for grid, values in zip(grids, found, strict=True)
        if values is not None
    ]
    return [f"{words}: {'; '.join(counts)}."] if counts else []


def _of_other_seed(data: PhiGrids) -> list[str]:
    """Says what two runs share that do not have one seed, and counts the cells outside the bands."""
    if data.other_seed is None:
        return [data.no_other_seed] if data.no_other_seed else []
    words = f"Diamonds: r = {data.ranks[1]} of seed {data.other_seed.run.seed} instead; {ONE_SEED}. Outside the bands"
    return _outside_the_bands(words, data.grids, [grid.other_seed for grid in data.grids])


def _order(grids: Sequence[Grid]) -> list[str]:
    """Says which directions have no order, because their singular values are nearly equal."""
    places = [
        f"{place_of(grid)}, {which}: " + ", ".join(f"{group.start + 1} to {group.stop}" for group in groups)
        for grid in grids
        for which, groups in zip(("rows", "columns"), grid.near_equal, strict=True)
        if groups
    ]
    return (
        [f"Directions without an order, as their singular values are nearly equal: {'; '.join(places)}."]
        if places
        else []
    )


def draw_phi(data: PhiGrids, words: list[str]) -> Figure:
    """Draws a figure: grids as in the paper, the same less the strongest null, and curves with the nulls' bands."""
    i, j = data.grids[0].phi.shape
    frame = Frame(
        *(words[0], words[1:]),
        data.item.colours,
        f"i (r = {data.ranks[0]})",
        i == j,
        "max" if max(grid.phi.max() for grid in data.grids) > data.item.colours[1] + LEAST else "neither",
    )
    return lay_out(_panels(data), partial(draw_panel_curve, data=data), frame)


def draw_panel_curve(ax: Axes, panel: Panel, data: PhiGrids) -> Axes:
    """Draws the diagonal of a square grid or of a zoom, else the last column, with the bands of the nulls."""
    curve = "diagonal" if panel.is_zoom else panel.grid.curve
    n, last = len(panel.phi), panel.grid.phi.shape[1]

    def cut(grid: np.ndarray) -> np.ndarray:
        return grid.diagonal()[:n] if curve == "diagonal" else grid[:, -1]

    bands = {name: Band(*map(cut, band)) for name, band in panel.grid.bands.items()}
    grid = panel.grid
    permuted, other_labels, other_seed = (
        cut(each) if each is not None else None for each in (grid.permuted, grid.other_labels, grid.other_seed)
    )
    points = data.paper_points(panel.grid.site, curve) if panel.grid is not data.random else None
    draw_curve(ax, cut(panel.grid.phi), bands, permuted, points, other_seed, other_labels)
    ax.set_ylim(0, 1)
    if n > 16:
        ax.set_xscale("log", base=2)
        ax.set_xticks(ticks := [2**k for k in range(n.bit_length())], labels=list(map(str, ticks)))
    ax.set_xlabel("i = j" if curve == "diagonal" else f"i, at j = {last}")
    return ax


def _panels(data: PhiGrids) -> list[Panel]:
    """Returns the columns, layer by layer: the grids, and their zooms where the figure has them."""
    panels = []
    for layer in dict.fromkeys(grid.site.layer for grid in data.grids):
        grids = [grid for grid in data.grids if grid.site.layer == layer]
        several = len({grid.site.layer for grid in data.grids}) > 1
        of_layer, first = (f", layer {layer}", ",\n") if several else ("", ", ")
        panels += [Panel(rf"$\Delta W_{grid.site.role}${of_layer}", grid, False) for grid in grids]
        if data.item.zoom:
            panels += [
                Panel(rf"$\Delta W_{grid.site.role}${of_layer}{first}j to {len(grid.phi)}", grid, True)
                for grid in grids
            ]
    if data.random is not None:
        panels.append(Panel("two Gaussian matrices", data.random, False))
    return panels
