"""Scores against trained weights as SVG that follows the page's colours; a point opens its cell."""

import math
from collections.abc import Callable, Sequence

from analysis.render.report.elements import Element, paragraph, tag
from analysis.render.style import method_styles
from analysis.report.data import Panel, Point, Report

WIDTH, HEIGHT = 640.0, 320.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 14.0, 10.0, 34.0
"""Free around the axes."""
TICKS = 5
PERCENT = 100.0

SHAPES = {
    "o": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0Z",
    "s": "M-4-4H4V4H-4Z",
    "D": "M0-5 5 0 0 5-5 0Z",
    "d": "M0-6 4 0 0 6-4 0Z",
    "^": "M0-5 5 4H-5Z",
    "v": "M0 5 5-4H-5Z",
    "<": "M-5 0 4-5V5Z",
    ">": "M5 0-4-5V5Z",
    "P": "M-2-5H2V-2H5V2H2V5H-2V2H-5V-2H-2Z",
    "X": "M-5-3-3-5 0-2 3-5 5-3 2 0 5 3 3 5 0 2-3 5-5 3-2 0Z",
    "h": "M0-5 4.3-2.5V2.5L0 5-4.3 2.5V-2.5Z",
    "H": "M-5 0-2.5-4.3H2.5L5 0 2.5 4.3H-2.5Z",
    "p": "M0-5 4.8-1.6 2.9 4H-2.9L-4.8-1.6Z",
    "8": "M-2-5H2L5-2V2L2 5H-2L-5 2V-2Z",
    "*": "M0-6 1.5-2H6L2.5 1 4 6 0 3-4 6-2.5 1-6-2H-1.5Z",
}
"""Paths of matplotlib's markers."""
PLAIN = SHAPES["s"]
BLACK = "#000000"


def panels(report: Report) -> list[Element]:
    """Returns the part of the page that shows parameters against quality."""
    if not report.panels:
        return [paragraph("No table of methods has a line with all its runs.")]
    how = (
        "Each point is one setting of a method, a mean over its seeds with its 95 % interval. Points open as cells do."
    )
    return [paragraph(how, class_="how"), *map(_panel, report.panels)]


def _panel(panel: Panel) -> Element:
    styles = method_styles([point.method for point in panel.points])
    legend = [tag("span", _mark(*styles[method], 0.0, 0.0, inside=True), f" {method}") for method in styles]
    return tag(
        "figure",
        tag("figcaption", tag("strong", panel.title), f" ({panel.metric})"),
        tag("div", *legend, class_="legend"),
        tag("div", _drawn(panel, styles), class_="wide"),
        class_="scatter",
    )


def _drawn(panel: Panel, styles: dict[str, tuple[str, str]]) -> Element:
    x, decades, zero = _across([point.trained for point in panel.points])
    ends = [end for point in panel.points for end in (point.mean, point.low, point.high) if end is not None]
    bottom, top = panel.unit * min(ends), panel.unit * max(ends)
    if panel.unit == PERCENT:  # an interval over few seeds may reach beyond what a share can be
        bottom, top = max(0.0, bottom), min(PERCENT, top)
    ticks = _ticks(bottom, top)
    low, high = ticks[0], ticks[-1]

    def y(score: float) -> float:
        inside = min(max(panel.unit * score, low), high)
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - inside) / (high - low)

    made = tag(
        "svg", viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}", role="group", aria_label=f"{panel.title}: a point opens its cell"
    )
    for tick in ticks:
        at = y(tick / panel.unit)
        made.append(_line(LEFT, at, WIDTH - RIGHT, at, "grid"))
        made.append(tag("text", f"{tick:g}", x=_number(LEFT - 6), y=_number(at + 4), class_="end"))
    for decade in decades:
        at = x(10.0**decade)
        made.append(_line(at, TOP, at, HEIGHT - BOTTOM, "grid"))
        made.append(tag("text", _count(10.0**decade), x=_number(at), y=_number(HEIGHT - BOTTOM + 15), class_="middle"))
    if zero:
        made.append(tag("text", "0", x=_number(x(0.0)), y=_number(HEIGHT - BOTTOM + 15), class_="middle"))
    made.append(tag("text", "trained weights", x=_number((WIDTH + LEFT) / 2), y=_number(HEIGHT - 4), class_="middle"))
    for point in panel.points:
        made.append(_point(point, x(float(point.trained)), y, styles[point.method]))
    return made


def _point(point: Point, at: float, y: Callable[[float], float], style: tuple[str, str]) -> Element:
    bars = []
    if point.low is not None and point.high is not None:
        bars.append(_line(at, y(point.low), at, y(point.high), "bar", style[1]))
    mark = _mark(*style, at, y(point.mean))
    name = f"{point.method}, {point.trained:,} weights: {point.text}"
    return tag("a", tag("title", name), *bars, mark, role="button", tabindex="0", data_box=point.box, aria_label=name)


def _mark(marker: str, colour: str, x: float, y: float, inside: bool = False) -> Element:
    fill = "currentColor" if colour == BLACK else colour
    path = tag("path", d=SHAPES.get(marker, PLAIN), fill=fill, transform=f"translate({_number(x)} {_number(y)})")
    return tag("svg", path, viewBox="-7 -7 14 14", width="12", height="12", aria_hidden="true") if inside else path


def _line(x1: float, y1: float, x2: float, y2: float, kind: str, colour: str = "") -> Element:
    ends = {name: _number(value) for name, value in zip(("x1", "y1", "x2", "y2"), (x1, y1, x2, y2), strict=True)}
    stroke = {} if not colour else {"stroke": "currentColor" if colour == BLACK else colour}
    return tag("line", class_=kind, **ends, **stroke)


def _across(counts: Sequence[int]) -> tuple[Callable[[float], float], list[int], bool]:
    """Returns where a number of weights stands on a logarithmic axis, its decades, and whether 0 has a place left."""
    above = [count for count in counts if count > 0] or [1]
    low, high = math.log10(min(above)) - 0.1, math.log10(max(above)) + 0.1
    zero = any(count == 0 for count in counts)
    start = LEFT + (40.0 if zero else 0.0)

    def x(count: float) -> float:
        if count <= 0:
            return LEFT + 14
        return start + (WIDTH - RIGHT - start) * (math.log10(count) - low) / (high - low)

    return x, list(range(math.ceil(low), math.floor(high) + 1)), zero


def _ticks(low: float, high: float) -> list[float]:
    """Returns round numbers around a range, TICKS or a few more."""
    step = (high - low or 1.0) / TICKS
    size = 10 ** math.floor(math.log10(step))
    step = next(each * size for each in (1, 2, 5, 10) if each * size >= step)
    first, last = math.floor(low / step), math.ceil(high / step)
    last = last if last > first else first + 1
    return [round(float(number * step), 10) for number in range(first, last + 1)]


def _count(number: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


def _number(value: float) -> str:
    return f"{value:.1f}"
