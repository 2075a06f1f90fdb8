"""Draws grids of phi as the paper does, below each phi minus the strongest null, and a curve over the nulls."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from analysis.render import style
from analysis.section7.chance import excess, unexplained
from analysis.section7.grid import Grid
from analysis.section7.nulls import Band

COLUMNS, MANY = 4, 8
"""Panels side by side, and how many narrow ones where there are more."""

PANEL_WIDTH, NARROW, LEGEND_WIDTH, CURVE_HEIGHT, GAP = 2.35, 1.62, 1.15, 1.35, 0.62
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


class Frame(NamedTuple):
    """What a figure has beside its panels."""

    title: str
    caption: list[str]
    colours: Sequence[float]
    rows: str
    """What i counts."""
    is_square: bool
    """Whether a grid is as high as wide; otherwise it is low."""
    extend: Literal["neither", "both", "max"] = "neither"
    """Whether arrows at the colour bar's ends show that there are values beyond."""


def lay_out(panels: Sequence[Panel], curve: Callable[[Axes, Panel], Axes], frame: Frame) -> Figure:
    """Lays panels out, each a column of three: the grid, the grid less the strongest null, and a curve of it.

    Args:
        panels: The columns; what does not fit stands below.
        curve: Draws the third.
        frame: Title, caption, colours.
    """
    is_wide = len(panels) <= COLUMNS
    columns, panel_width = (len(panels), PANEL_WIDTH) if is_wide else (MANY, NARROW)
    lines = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    reach = max(float(np.abs(excess(panel.grid.phi, panel.grid.bands)).max()) for panel in panels)
    width = columns * panel_width + LEGEND_WIDTH
    grid_height = panel_width if frame.is_square else 0.45 * panel_width
    height = len(lines) * (2 * grid_height + CURVE_HEIGHT + 3 * GAP) + 0.3
    figure = Figure((width, height + style.caption_height(width, frame.caption)), layout="constrained")
    axes: Any = figure.subplots(
        3 * len(lines),
        columns + 1,
        squeeze=False,
        height_ratios=[grid_height, grid_height, CURVE_HEIGHT] * len(lines),
        width_ratios=[panel_width] * columns + [LEGEND_WIDTH],
    )
    for number, line in enumerate(lines):
        block = axes[3 * number : 3 * number + 3]
        images = [draw_phi(axis, panel, frame.colours) for axis, panel in zip(block[0], line, strict=False)]
        differences = [draw_excess(axis, panel, reach) for axis, panel in zip(block[1], line, strict=False)]
        for axis, panel in zip(block[2], line, strict=False):
            curve(axis, panel)
        _colour_bar(figure, images[0], block[0, -1], r"$\phi(i, j)$", frame.extend)
        _colour_bar(figure, differences[0], block[1, -1], r"$\phi$ less null")
        _legend(block[2, 0], block[2, -1])
        block[0, 0].set_ylabel(frame.rows)
        block[1, 0].set_ylabel(frame.rows)
        block[2, 0].set_ylabel(r"$\phi$")
        for axis in block[:, len(line) : columns].flat:
            axis.set_axis_off()
    figure.suptitle(frame.title, fontsize=10, x=0.012, ha="left")
    style.put_caption(figure, frame.caption)
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


def draw_excess(ax: Axes, panel: Panel, reach: float) -> AxesImage:
    """Draws phi less the strongest null's mean, from -reach to reach, and encloses the cells above all nulls' bands."""
    columns = panel.phi.shape[1]
    image = ax.imshow(
        excess(panel.grid.phi, panel.grid.bands)[:, :columns],
        cmap=style.EXCESS,
        vmin=-reach,
        vmax=reach,
        aspect="auto",
        interpolation="nearest",
        extent=_extent(panel.phi),
    )
    lines = outline(unexplained(panel.grid.phi, panel.grid.bands)[:, :columns])
    ax.add_collection(LineCollection(lines, colors="black", linewidths=0.8))
    _count(ax, panel.phi)
    return image


def outline(cells: Bool[np.ndarray, "i j"]) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Returns the lines, each from (j, i) to (j, i), between marked cells and what is not marked.

    They run along the edge of the grid too: all cells above the nulls must not frame like none.
    """
    framed = np.pad(cells, 1)
    upright = np.argwhere(framed[1:-1, 1:] != framed[1:-1, :-1])
    level = np.argwhere(framed[1:, 1:-1] != framed[:-1, 1:-1])
    lines = [((j + 0.5, i + 0.5), (j + 0.5, i + 1.5)) for i, j in upright.tolist()]
    return lines + [((j + 0.5, i + 0.5), (j + 1.5, i + 0.5)) for i, j in level.tolist()]


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


def _extent(phi: np.ndarray) -> tuple[float, float, float, float]:
    return (0.5, phi.shape[1] + 0.5, phi.shape[0] + 0.5, 0.5)


def _count(ax: Axes, phi: np.ndarray) -> None:
    """Puts ticks at 1 and at eighths."""
    for axis, n in ((ax.xaxis, phi.shape[1]), (ax.yaxis, phi.shape[0])):
        step = max(1, n // 8)
        axis.set_ticks([1, *(tick for tick in range(step, n + 1, step) if tick > max(1, 0.8 * step + 1 - 1e-9))])
    ax.set_xlabel("j")
    ax.spines[:].set_visible(False)


def _colour_bar(figure: Figure, image: AxesImage, holder: Axes, words: str, extend: str = "neither") -> None:
    holder.set_axis_off()
    bar = figure.colorbar(image, cax=holder.inset_axes((0, 0.02, 0.1, 0.96)), extend=extend)
    bar.set_label(words)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def _legend(source: Axes, holder: Axes) -> None:
    holder.set_axis_off()
    holder.legend(*source.get_legend_handles_labels(), loc="center left", bbox_to_anchor=(-0.05, 0.5), borderpad=0)
