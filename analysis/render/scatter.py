"""Draws scores against numbers of trained weights: a panel a task and model, a marker and a colour a method."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from analysis.render import style
from lora_repro.tasks import Metric, Unit

WIDTH, HEIGHT, AROUND = 2.15, 1.95, 0.5
"""Of a panel, and what stands around all, in inches."""

COLUMNS = 3
"""Panels side by side: with them a figure is as wide as a page's text."""

LEGEND_COLUMNS, LEGEND_LINE = 6, 0.17
"""Methods in a line of the legend, and its height in inches."""


class Point(NamedTuple):
    """A point of the figure; shares in [0, 1]."""

    task: str
    model: str
    method: str
    trained: int
    mean: float
    low: float | None = None
    """The ends of its interval; None of one seed."""
    high: float | None = None
    is_ours: bool = False


def draw_points(
    points: Sequence[Point],
    metrics: Mapping[str, Metric],
    printed: Mapping[str, Mapping[str, str]],
    words: Sequence[str],
) -> Figure:
    """Draws a panel for each task and model, in the order of the points.

    Args:
        points: What is drawn.
        metrics: By task, what the score is.
        printed: How tasks and models are printed (analysis/names.yaml).
        words: Title and caption.
    """
    title, *caption = words
    panels: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        panels.setdefault((point.task, point.model), []).append(point)
    styles = style.method_styles([point.method for point in points])
    columns, lines = min(COLUMNS, len(panels)), math.ceil(len(panels) / COLUMNS)
    width, legend = COLUMNS * WIDTH + AROUND, math.ceil(len(styles) / LEGEND_COLUMNS) * LEGEND_LINE
    height = lines * HEIGHT + legend + AROUND + style.caption_height(width, caption)
    figure = Figure((width, height), layout="constrained")
    grid = figure.add_gridspec(lines + 1, columns, height_ratios=[legend, *[HEIGHT] * lines])
    above = figure.add_subplot(grid[0, :])
    axes: Any = [figure.add_subplot(grid[1 + at // columns, at % columns]) for at in range(len(panels))]
    labels = [style.axis_label(metrics[task]) for task, _ in panels]
    for number, (ax, ((task, model), some)) in enumerate(zip(axes, panels.items(), strict=True)):
        draw_panel(ax, some, metrics[task], styles)
        where = f"{printed['models'].get(model, model)}, {printed['tasks'].get(task, task)}"
        ax.set_title(f"{'ours' if some[0].is_ours else 'paper'}: {where}")
        ax.set_xlabel("trained weights")
        is_told = number % columns == 0 or labels[number] != labels[number - 1]
        ax.set_ylabel(labels[number] if is_told else "")
    handles = [
        Line2D([], [], linestyle="", marker=marker, color=colour, label=method)
        for method, (marker, colour) in styles.items()
    ]
    above.set_axis_off()
    above.legend(handles=handles, loc="center", ncols=LEGEND_COLUMNS, borderpad=0, handletextpad=0.2)
    figure.suptitle(title, fontsize=10, x=0.012, ha="left")
    style.put_caption(figure, caption)
    return figure


def draw_panel(ax: Axes, points: Sequence[Point], metric: Metric, styles: Mapping[str, tuple[str, str]]) -> Axes:
    """Draws a task's points over a logarithmic axis.

    A log axis has no 0, so methods that train no weight stand left of a dotted line.
    """
    factor = style.factor(metric)
    counts = [point.trained for point in points if point.trained > 0]
    low, high = (min(counts), max(counts)) if counts else (1, 10)
    margin = max((high / low) ** 0.08, 1.5)
    zero, is_broken = low / margin**3, any(point.trained == 0 for point in points)
    ax.set_xscale("log")
    for method in dict.fromkeys(point.method for point in points):
        some = sorted((point for point in points if point.method == method), key=lambda point: point.trained)
        marker, colour = styles[method]
        x = [point.trained if point.trained > 0 else zero for point in some]
        y = [factor * point.mean for point in some]
        is_ours = some[0].is_ours
        ax.plot(
            x,
            y,
            linestyle="-" if zero not in x and len(set(x)) == len(x) else "",  # a line is a curve over counts
            linewidth=0.5,
            marker=marker,
            markersize=4.5,
            color=colour,
            markerfacecolor=colour if is_ours else "white",
            label=method,
        )
        for at, point in zip(x, some, strict=True):
            if point.low is not None and point.high is not None:
                ends = (factor * point.low, factor * point.high)
                if metric.unit is Unit.percent:
                    ends = (max(0.0, ends[0]), min(100.0, ends[1]))
                ax.plot([at, at], ends, color=colour, linewidth=0.9)
    ax.set_xlim(zero / margin if is_broken else low / margin, high * margin)
    decades = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high * margin) + 1e-9) + 1)
    step = max(1, math.ceil(len(decades) / 4))
    ticks = {10.0**decade: f"$10^{{{decade}}}$" for decade in decades[::step]}
    if is_broken:
        ticks = {zero: "0", **ticks}
        ax.axvline(low / margin**1.5, color="#888888", linewidth=0.6, linestyle=":")
    ax.xaxis.set_major_locator(FixedLocator(list(ticks)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(list(ticks), labels=list(ticks.values()))
    ends = [factor * end for point in points for end in (point.mean, point.low, point.high) if end is not None]
    bottom, top = min(ends), max(ends)
    if metric.unit is Unit.percent:
        bottom, top = max(0.0, bottom), min(100.0, top)
    pad = max(0.06 * (top - bottom), 0.005 * (factor if metric.unit is Unit.percent else abs(top)), 1e-6)
    ax.set_ylim(bottom - pad, top + pad)
    return ax
