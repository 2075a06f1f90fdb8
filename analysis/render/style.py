"""The style of all figures, and how they are written: the same figure gives the same bytes each time."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from analysis.output import write_output
from analysis.section7.statistics import GAUSSIAN, INPUTS, START
from lora_repro.errors import InputError
from lora_repro.tasks import Metric, Unit

FORMATS = ("svg", "pdf", "png")

PHI = "magma"
"""Of grids of phi: perceptually uniform, dark at 0, near what the paper's figures use."""

COLOURS = {GAUSSIAN: "#BBBBBB", START: "#009E73", INPUTS: "#56B4E9"}
"""Of the nulls; the colours of Okabe and Ito (2008), which the colour-blind can tell."""

WORDS = {GAUSSIAN: "Gaussian", START: "$A_0$", INPUTS: "inputs"}
"""Their names in a figure."""

BEYOND = "#D55E00"
"""Measured values, and what no null explains."""

SECOND = "#0072B2"
"""Another measured quantity beside it."""

PERMUTED = "#CC79A7"
"""Runs on permuted labels."""

PAPER = "#000000"
"""What was read off the paper's figures."""

METHODS = {
    "lora": ("o", BEYOND),
    "full": ("s", "#000000"),
    "head_only": ("D", "#888888"),
    "bitfit": ("^", "#009E73"),
    "ft_top2": ("v", "#E69F00"),
    "adapter_h": ("P", SECOND),
    "adapter_l": ("X", "#56B4E9"),
    "prefix_embed": ("<", PERMUTED),
    "prefix_layer": (">", "#882255"),
    "lora_prefix_embed": ("d", PERMUTED),
    "lora_prefix_layer": ("*", "#882255"),
}
"""Marker and colour of each method, the same in all figures."""

OTHER_METHODS = [(marker, colour) for colour in ("#555555", "#CC6677", "#4477AA") for marker in "hp8Hv"]
"""Markers and colours of methods that have none of their own."""

EXCESS = LinearSegmentedColormap.from_list("excess", [SECOND, "#FFFFFF", BEYOND])
"""Of differences from the nulls: blue below, orange above."""

RC: Any = {
    "font.family": "DejaVu Sans",  # matplotlib ships it
    "mathtext.fontset": "dejavusans",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "savefig.dpi": 200,
    "svg.hashsalt": "lora_repro",  # else the names within a file are drawn anew each time
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}

CAPTION_SIZE, CAPTION_LEADING = 7, 1.35
"""Points, and lines of text to a line."""

CAPTION_MARGIN = 0.15
"""Inches free on both sides."""


def method_styles(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Returns marker and colour of each of these methods, in the order of a legend."""
    others = dict.fromkeys(method for method in methods if method not in METHODS)
    more = dict(zip(others, cycle(OTHER_METHODS), strict=False))
    return {method: style for method, style in (METHODS | more).items() if method in methods}


def pale(colour: str) -> tuple[float, float, float]:
    """Returns a colour, two thirds of the way to white."""
    red, green, blue = to_rgb(colour)
    return (2 + red) / 3, (2 + green) / 3, (2 + blue) / 3


@contextmanager
def styled() -> Iterator[None]:
    """Sets the style while a figure is made; what the caller has set stays as it was."""
    with matplotlib.rc_context(RC):
        yield


def put_caption(figure: Figure, paragraphs: Sequence[str]) -> None:
    """Writes a caption below a figure, wrapped to its width."""
    width = figure.get_figwidth()
    lines = "\n".join(line for paragraph in paragraphs for line in _wrapped(paragraph, width))
    figure.supxlabel(
        lines, x=CAPTION_MARGIN / width, ha="left", fontsize=CAPTION_SIZE, linespacing=CAPTION_LEADING, parse_math=False
    )


def caption_height(width: float, paragraphs: Sequence[str]) -> float:
    """Returns how many inches a caption takes below a figure of this width."""
    lines = sum(len(_wrapped(paragraph, width)) for paragraph in paragraphs)
    return lines * CAPTION_SIZE * CAPTION_LEADING * 1.2 / 72


def _wrapped(paragraph: str, width: float) -> list[str]:
    """Breaks a paragraph between words into lines that fit a figure of this width, by the widths of its words."""
    available = width - 2 * CAPTION_MARGIN
    lines, end = [""], 0.0
    for word in paragraph.split():
        end += _width(word + " ")
        if lines[-1] and end - _width(" ") > available:
            lines.append("")
            end = _width(word + " ")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines


@cache
def _width(text: str) -> float:
    """Returns a text's width in a caption, in inches."""
    font = FontProperties(family=RC["font.family"], size=CAPTION_SIZE)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def form_of(path: str, flag: str = "--out") -> str:
    """Returns the format that a file's name asks for.

    Raises:
        InputError: If it is none of those there are.
    """
    form = Path(path).suffix.lstrip(".").lower()
    if form not in FORMATS:
        raise InputError(f"{flag}: a file ending in {', '.join(f'.{each}' for each in FORMATS)} (given: {path}).")
    return form


def save(figure: Figure, path: str, about: str, flag: str = "--out") -> None:
    """Writes a figure in the format of the file's name. The same figure gives the same bytes: no date is written.

    Args:
        figure: The figure.
        path: The file.
        about: Where the figure comes from; kept in the file's metadata.
        flag: The option that names the file.

    Raises:
        InputError: If the file cannot be written, or is of another format.
    """
    form = form_of(path, flag)
    metadata = {
        "svg": {"Date": None, "Description": about},
        "pdf": {"CreationDate": None, "Subject": about},
        "png": {"Description": about},
    }
    drawn = io.BytesIO()
    figure.savefig(drawn, format=form, metadata=metadata[form])
    write_output(flag, path, drawn.getvalue())


def factor(metric: Metric) -> float:
    """Returns what a score is multiplied by where it is drawn."""
    return 100.0 if metric.unit is Unit.percent else 1.0


def axis_label(metric: Metric) -> str:
    """Labels an axis of scores."""
    return f"{metric.name}, %" if metric.unit is Unit.percent else metric.name
