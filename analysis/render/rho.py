"""Draws rho_i of every layer and matrix against chance."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.render import style
from analysis.render.captions import rho_caption, rho_title
from analysis.render.phi import draw_bands
from analysis.section7.shared_directions import RhoPicture, Shares

WIDTH, HEIGHT, LEGEND = 1.5, 1.35, 1.35
"""Of a panel, and of the legend beside, in inches."""

NARROWEST = 6.0
"""Of all panels together: the title needs it."""

COLUMNS, MANY, COLUMNS_OF_MANY = 8, 48, 16
"""Layers side by side, and with how many layers there are more of them."""


def draw(picture: RhoPicture) -> Figure:
    """Draws a panel for each layer (across) and matrix (down)."""
    layers = list(dict.fromkeys(each.site.layer for each in picture.shares))
    roles = list(dict.fromkeys(each.site.role for each in picture.shares))
    at = {(each.site.layer, each.site.role): each for each in picture.shares}
    columns = min(len(layers), COLUMNS if len(layers) <= MANY else COLUMNS_OF_MANY)
    lines = [layers[start : start + columns] for start in range(0, len(layers), columns)]
    panels = [[at[layer, role] for layer in line] for line in lines for role in roles]
    caption, title = rho_caption(picture), rho_title(picture)
    width = max(columns * WIDTH, NARROWEST) + LEGEND
    height = len(panels) * HEIGHT + 0.8 + style.caption_height(width, caption)
    figure = Figure((width, height), layout="constrained")
    axes: Any = figure.subplots(len(panels), columns + 1, squeeze=False, width_ratios=[WIDTH] * columns + [LEGEND])
    for down, (row, line) in enumerate(zip(axes, panels, strict=True)):
        for across, (ax, shares) in enumerate(zip(row, line, strict=False)):
            draw_shares(ax, shares)
            ax.set_title(f"layer {shares.site.layer}" if down % len(roles) == 0 else "")
            ax.set_ylabel(rf"$\Delta W_{shares.site.role}$: $\rho_i$" if across == 0 else "")
            ax.set_xlabel(f"i (r = {picture.ranks[0]})" if down == len(panels) - 1 else "")
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
