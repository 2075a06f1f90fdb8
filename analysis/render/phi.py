"""Draws grids of phi as the paper does (Figures 3, 4, 6, 7), and below each what of it is beyond chance."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from analysis.chance import simplest
from analysis.nulls import LEAST, Band
from analysis.phi_figure import Grid, PhiPicture
from analysis.render import style
from analysis.render.captions import phi_caption, phi_title

COLUMNS = 4
"""Panels side by side."""

PANEL_WIDTH, LEGEND_WIDTH, CURVE_HEIGHT, GAP = 2.35, 1.15, 1.35, 0.62
"""In inches."""


class Panel(NamedTuple):
    """A column of the figure: one grid, whole or the first part of it."""

    title: str
    grid: Grid
    is_zoom: bool

    @property
    def phi(self) -> np.ndarray:
        """What is shown of it."""
        i = self.grid.phi.shape[0]
        return self.grid.phi[:, :i] if self.is_zoom else self.grid.phi


class Look(NamedTuple):
    """What a figure of panels has beside them."""

    title: str
    caption: list[str]
    colours: Sequence[float]
    rows: str
    """What i counts."""
    height: float
    """Of a grid, in inches."""
    extend: Literal["neither", "both", "max"] = "neither"
    """Whether values beyond the colours are told by the colour bar's ends."""


def draw(picture: PhiPicture) -> Figure:
    """Draws a figure: grids as in the paper, what explains their cells, and curves with the nulls' bands."""
    i, j = picture.grids[0].phi.shape
    look = Look(
        phi_title(picture),
        phi_caption(picture),
        picture.item.colours,
        f"i (r = {picture.ranks[0]})",
        PANEL_WIDTH if i == j else 1.05,
        "max" if max(grid.phi.max() for grid in picture.grids) > picture.item.colours[1] + LEAST else "neither",
    )
    return lay_out(_panels(picture), partial(draw_panel_curve, picture=picture), look)


def lay_out(panels: Sequence[Panel], curve: Callable[[Axes, Panel], Axes], look: Look) -> Figure:
    """Lays panels out, each a column of three: the grid, what explains its cells, and a curve of it.

    Args:
        panels: The columns; lines of four stand below each other.
        curve: Draws the third.
        look: Title, caption, colours.
    """
    columns = min(COLUMNS, len(panels))
    lines = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    width = columns * PANEL_WIDTH + LEGEND_WIDTH
    height = len(lines) * (2 * look.height + CURVE_HEIGHT + 3 * GAP) + 0.3
    figure = Figure((width, height + style.caption_height(width, look.caption)), layout="constrained")
    axes: Any = figure.subplots(
        3 * len(lines),
        columns + 1,
        squeeze=False,
        height_ratios=[look.height, look.height, CURVE_HEIGHT] * len(lines),
        width_ratios=[PANEL_WIDTH] * columns + [LEGEND_WIDTH],
    )
    for number, line in enumerate(lines):
        block = axes[3 * number : 3 * number + 3]
        images = [draw_phi(axis, panel, look.colours) for axis, panel in zip(block[0], line, strict=False)]
        levels = [draw_levels(axis, panel) for axis, panel in zip(block[1], line, strict=False)]
        for axis, panel in zip(block[2], line, strict=False):
            curve(axis, panel)
        _colour_bar(figure, images[0], block[0, -1], look.extend)
        _levels_bar(figure, levels[0], block[1, -1], list(line[0].grid.bands))
        _legend(block[2, 0], block[2, -1])
        block[0, 0].set_ylabel(look.rows)
        block[1, 0].set_ylabel(look.rows)
        block[2, 0].set_ylabel(r"$\phi$")
        for axis in block[:, len(line) : columns].flat:
            axis.set_axis_off()
    figure.suptitle(look.title, fontsize=10, x=0.012, ha="left")
    style.put_caption(figure, look.caption)
    return figure


def draw_phi(ax: Axes, panel: Panel, colours: Sequence[float]) -> AxesImage:
    """Draws one grid: i downwards, j to the right, counted from 1."""
    image = ax.imshow(
        panel.phi,
        cmap=style.PHI,
        vmin=colours[0],
        vmax=colours[1],
        aspect="auto",
        interpolation="nearest",
        extent=_extent(panel.phi),
    )
    ax.set_title(panel.title)
    _count(ax, panel.phi)
    return image


def draw_levels(ax: Axes, panel: Panel) -> AxesImage:
    """Draws which null explains each cell: the first one whose band it does not exceed."""
    names = list(panel.grid.bands)
    cut = {name: Band(*(edge[:, : panel.phi.shape[1]] for edge in band)) for name, band in panel.grid.bands.items()}
    image = ax.imshow(
        simplest(panel.phi, cut),
        cmap=ListedColormap([*(style.LEVELS[name] for name in names), style.BEYOND]),
        norm=BoundaryNorm(np.arange(-0.5, len(names) + 1), len(names) + 1),
        aspect="auto",
        interpolation="nearest",
        extent=_extent(panel.phi),
    )
    _count(ax, panel.phi)
    return image


def draw_panel_curve(ax: Axes, panel: Panel, picture: PhiPicture) -> Axes:
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
    points = picture.paper_points(panel.grid.site, curve) if panel.grid is not picture.random else None
    draw_curve(ax, cut(panel.grid.phi), bands, permuted, points, other_seed, other_labels)
    ax.set_ylim(0, 1)
    if n > 16:
        ax.set_xscale("log", base=2)
        ax.set_xticks(ticks := [2**k for k in range(n.bit_length())], labels=list(map(str, ticks)))
    ax.set_xlabel("i = j" if curve == "diagonal" else f"i, at j = {last}")
    return ax


def draw_curve(
    ax: Axes,
    values: np.ndarray,
    bands: Mapping[str, Band],
    permuted: np.ndarray | None = None,
    points: tuple[Sequence[float], Sequence[float]] | None = None,
    other_seed: np.ndarray | None = None,
    other_labels: np.ndarray | None = None,
) -> Axes:
    """Draws values at 1, 2, ... over the bands of the nulls."""
    x = np.arange(1, len(values) + 1)
    some = np.arange(len(x)) if len(x) <= 16 else 2 ** np.arange(len(x).bit_length()) - 1
    draw_bands(ax, x, bands)
    if permuted is not None:
        ax.plot(x[some], permuted[some], "x", color=style.PERMUTED, label="permuted labels")
    if other_labels is not None:
        ax.plot(x[some], other_labels[some], "+", color=style.SECOND, label="true and permuted")
    if other_seed is not None:
        ax.plot(x, other_seed, "D", color=style.BEYOND, markerfacecolor="none", label="another seed")
    if points is not None:
        ax.plot(*points, "o", color=style.PAPER, markerfacecolor="none", label="paper, GPT-3 (read\noff its figure)")
    ax.plot(x, values, "-" if len(x) > 16 else "o-", color=style.BEYOND, label="measured")
    if len(x) <= 8:
        ax.set_xticks(x)
    return ax


def draw_bands(ax: Axes, x: np.ndarray, bands: Mapping[str, Band]) -> Axes:
    """Draws the bands of the nulls over each other, the one that allows most at the back, and their means."""
    for name, band in reversed(list(bands.items())):
        colour = style.COLOURS[name]
        ax.fill_between(x, band.low, band.high, color=style.pale(colour), linewidth=0, label=style.WORDS[name])
    for name, band in bands.items():
        colour = style.COLOURS[name]
        ax.plot(x, band.low, x, band.high, color=colour, linewidth=0.6)
        ax.plot(x, band.mean, "--", color=colour, linewidth=0.8)
    return ax


def _panels(picture: PhiPicture) -> list[Panel]:
    """Returns the columns, layer by layer: the grids, and their zooms where the figure has them."""
    panels = []
    for layer in dict.fromkeys(grid.site.layer for grid in picture.grids):
        grids = [grid for grid in picture.grids if grid.site.layer == layer]
        several = len({grid.site.layer for grid in picture.grids}) > 1
        where = f", layer {(layer or 0) + 1}" if several else ""
        panels += [Panel(rf"$\Delta W_{grid.site.letter}${where}", grid, False) for grid in grids]
        if picture.item.zoom:
            panels += [
                Panel(rf"$\Delta W_{grid.site.letter}${where}, j to {len(grid.phi)}", grid, True) for grid in grids
            ]
    if picture.random is not None:
        panels.append(Panel("two Gaussian matrices", picture.random, False))
    return panels


def _extent(phi: np.ndarray) -> tuple[float, float, float, float]:
    return (0.5, phi.shape[1] + 0.5, phi.shape[0] + 0.5, 0.5)


def _count(ax: Axes, phi: np.ndarray) -> None:
    """Puts ticks at 1 and at eighths."""
    for axis, n in ((ax.xaxis, phi.shape[1]), (ax.yaxis, phi.shape[0])):
        step = max(1, n // 8)
        axis.set_ticks([1, *(tick for tick in range(step, n + 1, step) if tick > max(1, 0.8 * step + 1 - 1e-9))])
    ax.set_xlabel("j")
    ax.spines[:].set_visible(False)


def _colour_bar(figure: Figure, image: AxesImage, holder: Axes, extend: str) -> None:
    holder.set_axis_off()
    bar = figure.colorbar(image, cax=holder.inset_axes((0, 0.02, 0.1, 0.96)), extend=extend)
    bar.set_label(r"$\phi(i, j)$")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def _levels_bar(figure: Figure, image: AxesImage, holder: Axes, names: Sequence[str]) -> None:
    """Tells the colours of what explains a cell."""
    holder.set_axis_off()
    bar = figure.colorbar(image, cax=holder.inset_axes((0, 0.02, 0.1, 0.96)), ticks=range(len(names) + 1))
    bar.ax.set_yticklabels([*(style.WORDS[name] for name in names), "beyond all"])
    bar.ax.tick_params(length=0)
    bar.set_label("not above")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def _legend(source: Axes, holder: Axes) -> None:
    holder.set_axis_off()
    holder.legend(*source.get_legend_handles_labels(), loc="center left", bbox_to_anchor=(-0.05, 0.5), borderpad=0)
