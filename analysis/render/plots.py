"""A table of scores as a plot: scores against columns that are numbers, or beside each other."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.cell import Cell, Table
from analysis.render import style
from analysis.render.tables import Names, line_name
from lora_repro.errors import InputError
from lora_repro.tasks import Metric, Unit

WIDTH, PANEL = 4.8, 2.8
"""Inches: of the figure, and the height of a panel."""

MARKERS = "osD^vPX"
DECADE = 10
"""Columns that span this factor stand on a logarithmic axis."""


class Series(NamedTuple):
    """Points of one colour: a row of the table and a task with its model."""

    label: str
    cells: list[Cell]


def draw(table: Table, names: Names) -> Figure:
    """Draws a table, a panel for each metric.

    Raises:
        InputError: If no cell has a number.
    """
    drawn = [cell for cell in table.ours if cell.summary.mean is not None]
    if not drawn:
        raise InputError(f"--plot: no cell has all its runs, so there is nothing to draw.\nRun them: {table.command}")
    metrics = list(dict.fromkeys(cell.metric for cell in drawn))
    text = caption(table, names)
    height = len(metrics) * PANEL + style.caption_height(WIDTH, text)
    figure = Figure((WIDTH, height), layout="constrained")
    for number, metric in enumerate(metrics, 1):
        axes = figure.add_subplot(len(metrics), 1, number)
        _panel(axes, table, [cell for cell in drawn if cell.metric == metric], metric, names)
        if table.columns and number == 1 and len(axes.containers) > 1:
            axes.legend()
    style.put_caption(figure, text)
    return figure


def caption(table: Table, names: Names) -> list[str]:
    """Says in one sentence what is seen and in a second how to read it."""
    ours = table.ours
    drawn = [cell for cell in ours if cell.summary.mean is not None]
    scores = " and ".join(dict.fromkeys(cell.metric.title for cell in drawn))
    lines = list(dict.fromkeys(line_name(cell.place, names) for cell in drawn))
    against = f" against {table.columns}" if table.columns else ""
    each = f", one colour per value of {table.rows}" if table.rows and table.columns else ""
    whose = f": {lines[0]}" if len(lines) == 1 and lines[0] else ""
    counts = sorted({cell.n for cell in drawn})
    seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    bars = "bars are two-sided 95 % t intervals" if counts[-1] > 1 else "one seed has no interval"
    missing = len(ours) - len(drawn)
    gaps = f"; {missing} of {len(ours)} cells are not drawn because runs are missing" if missing else ""
    panels = {metric: [cell for cell in drawn if cell.metric == metric] for metric in (cell.metric for cell in drawn)}
    baselines = [metric.baseline for metric, cells in panels.items() if _common_baseline(cells) is not None]
    dotted = f"; the dotted line is {' and '.join(filter(None, baselines))}" if baselines else ""
    cut = cut_words(drawn)
    return [
        f"{scores[0].upper()}{scores[1:]}{against}{each}{whose}.",
        f"Points are means over n = {seeds} {'seed' if seeds == '1' else 'seeds'} {table.protocol.description}; "
        f"{bars}{cut}{dotted}{gaps}.",
    ]


def _panel(axes: Axes, table: Table, cells: Sequence[Cell], metric: Metric, names: Names) -> None:
    columns = [column for column in table.column_values if any(cell.place.column == column for cell in cells)]
    series = _series(table, cells, names)
    factor = style.factor(metric)
    colours = [style.SECOND, style.BEYOND, *style.COLOURS.values(), style.PERMUTED, style.PAPER]
    numbers = [column for column in columns if isinstance(column, int | float)]
    is_line = len(numbers) == len(columns) > 1
    positions: dict[Any, float] = {column: number for number, column in enumerate(columns)}
    if is_line:
        positions = {column: float(column) for column in numbers}
    elif not table.columns:
        series = [Series("", [each.cells[0]]) for each in series]
    for number, (label, members) in enumerate(series):
        dodge = 0.0 if is_line else 0.5 * ((number + 0.5) / len(series) - 0.5)
        x = [positions[cell.place.column] + dodge if table.columns else float(number) for cell in members]
        means = [factor * (cell.summary.mean or 0.0) for cell in members]
        low, high = _bars(members, factor)
        axes.errorbar(
            x,
            means,
            yerr=[low, high],
            color=colours[number % len(colours)] if table.columns else style.SECOND,
            marker=MARKERS[number // len(colours) % len(MARKERS)],
            linestyle="-" if is_line else "none",
            capsize=2,
            elinewidth=0.8,
            label=label or None,
        )
    if is_line and min(numbers) > 0 and max(numbers) / min(numbers) >= DECADE:
        axes.set_xscale("log")
    ticks = list(positions.values()) if table.columns else list(range(len(series)))
    words = [str(column) for column in columns] if table.columns else [s.label for s in _series(table, cells, names)]
    axes.set_xticks(ticks, words, rotation=0 if sum(map(len, words)) < 45 else 30, minor=False)
    axes.minorticks_off()
    if (baseline := _common_baseline(cells)) is not None:
        axes.axhline(factor * baseline, color=style.PAPER, linestyle=":", linewidth=0.8)
    if cut_words(cells):
        bottom, top = axes.get_ylim()
        axes.set_ylim(max(bottom, 0), min(top, 100))
    axes.set_xlabel(table.columns)
    axes.set_ylabel(style.axis_label(metric))


def _series(table: Table, cells: Sequence[Cell], names: Names) -> list[Series]:
    """Groups cells by row and line; the order of points is that of the columns."""
    are_several = len({line_name(cell.place, names) for cell in cells}) > 1
    order = {column: number for number, column in enumerate(table.column_values)}
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        row = [f"{table.rows} {cell.place.row}"] if table.rows else []
        line = [line_name(cell.place, names)] if are_several or not table.rows else []
        groups.setdefault(", ".join([*row, *line]), []).append(cell)
    return [
        Series(label, sorted(members, key=lambda cell: order[cell.place.column])) for label, members in groups.items()
    ]


def _bars(cells: Sequence[Cell], factor: float) -> tuple[list[float], list[float]]:
    """Returns how far intervals reach below and above the means; 0 where one seed has none."""
    low, high = [], []
    for cell in cells:
        mean, bottom, top, _ = cell.summary
        low.append(0.0 if mean is None or bottom is None else factor * (mean - bottom))
        high.append(0.0 if mean is None or top is None else factor * (top - mean))
    return low, high


def _common_baseline(cells: Sequence[Cell]) -> float | None:
    """Returns the baseline that all cells share."""
    baselines = {cell.baseline for cell in cells}
    return baselines.pop() if len(baselines) == 1 else None


def cut_words(cells: Sequence[Cell]) -> str:
    """Says that intervals are cut if one of a share reaches beyond 0 or 1; else nothing."""
    ends = [end for cell in cells if cell.metric.unit is Unit.percent for end in cell.summary[1:3] if end is not None]
    return ", cut at 0 and 100 %" if ends and (min(ends) < 0 or max(ends) > 1) else ""
