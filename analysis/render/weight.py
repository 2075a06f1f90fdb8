"""Draws a weight against its updates as the paper does (Figure 8), and below what of it is beyond chance."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.render.captions import weight_caption, weight_title
from analysis.render.phi import Look, Panel, draw_curve, lay_out
from analysis.section7.nulls import Band
from analysis.section7.weight_figure import WeightPicture


def draw(picture: WeightPicture) -> Figure:
    """Draws a panel for each rank and one for a random matrix."""
    role = picture.random.site.role
    panels = [
        Panel(rf"$\Delta W_{role}$, r = {r}", grid, False) for r, grid in zip(picture.ranks, picture.grids, strict=True)
    ]
    ranks = dict(zip((panel.title for panel in panels), picture.ranks, strict=True))

    def curve(ax: Axes, panel: Panel) -> Axes:
        def last(grid: np.ndarray) -> np.ndarray:
            return grid[:, -1]

        bands = {name: Band(*map(last, band)) for name, band in panel.grid.bands.items()}
        points = picture.paper_points(ranks[panel.title]) if panel.title in ranks else None
        draw_curve(ax, last(panel.phi), bands, points=points)
        ax.set_ylim(bottom=0)
        ax.set_xlabel(f"i, at j = {panel.phi.shape[1]}")
        return ax

    look = Look(
        weight_title(picture),
        weight_caption(picture),
        picture.item.colours,
        rf"i ($W_{role}$)",
        is_square=True,
        extend="both",
    )
    return lay_out([*panels, Panel("a Gaussian matrix", picture.random, False)], curve, look)
