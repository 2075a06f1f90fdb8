"""Draws rho_i of every layer and matrix against chance."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.render import style
from analysis.render.captions import rho_caption, rho_title
from analysis.render.phi import draw_bands
from analysis.shared_directions import RhoPicture, Shares

WIDTH, HEIGHT, LEGEND = 1.5, 1.35, 1.35
"""Of a panel, and of the legend beside, in inches."""

COLUMNS, MANY, COLUMNS_OF_MANY = 8, 48, 16
"""Layers side by side, and with how many layers there are more of them."""


def draw(picture: RhoPicture) -> Figure:
    """Draws a panel for each layer (across) and matrix (down)."""
    layers = list(dict.fromkeys(each.site.layer for each in picture.shares))
    letters = list(dict.fromkeys(each.site.letter for each in picture.shares))
    columns = min(len(layers), COLUMNS if len(layers) <= MANY else COLUMNS_OF_MANY)
    lines = [layers[start : start + columns] for start in range(0, len(layers), columns)]
    caption = rho_caption(picture)
    width = max(columns, 2) * WIDTH + LEGEND
    rows = len(lines) * len(letters)
    height = rows * HEIGHT + 0.8 + style.caption_height(width, caption)
    figure = Figure((width, height), layout="constrained")
    axes: Any = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    at = {(each.site.layer, each.site.letter): each for each in picture.shares}
    for number, line in enumerate(lines):
        for down, letter in enumerate(letters):
            for across, layer in enumerate(line):
                ax = axes[number * len(letters) + down, across]
                draw_shares(ax, at[layer, letter])
                if down == 0:
                    ax.set_title(f"layer {(layer or 0) + 1}")
                if across == 0:
                    ax.set_ylabel(rf"$\Delta W_{letter}$: $\rho_i$")
                if number * len(letters) + down == rows - 1:
                    ax.set_xlabel(f"i (r = {picture.ranks[0]})")
            for ax in axes[number * len(letters) + down, len(line) :]:
                ax.set_axis_off()
    handles, words = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, words, loc="outside right upper")
    figure.suptitle(rho_title(picture), fontsize=10, x=0.012, ha="left")
    style.put_caption(figure, caption)
    return figure


def draw_shares(ax: Axes, shares: Shares) -> Axes:
    """Draws rho_i of all seeds as points over the bands of the nulls."""
    x = np.arange(1, shares.rho.shape[1] + 1)
    draw_bands(ax, x, shares.bands)
    if shares.in_inputs is not None:
        ax.plot(x, shares.in_inputs.mean(0), "_", color=style.SECOND, label="in the inputs'\nprincipal directions")
    if shares.permuted is not None:
        ax.plot(x, shares.permuted.T, "x", color=style.PERMUTED, label=_first("permuted labels", shares.permuted))
    ax.plot(x, shares.rho.T, "o", color=style.BEYOND, label=_first("measured, each seed", shares.rho))
    ax.set_ylim(0, 1)
    ax.set_xticks([1, *range(4, x[-1] + 1, 4)] if len(x) <= 16 else [1, *range(16, x[-1] + 1, 16)])
    return ax


def _first(words: str, seeds: np.ndarray) -> list[str]:
    """Labels the first seed's points alone."""
    return [words, *["_nolegend_"] * (len(seeds) - 1)]
