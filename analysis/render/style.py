"""How all figures look, and how they are written: one style, vector output, the same bytes each time."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from analysis.chance import GAUSSIAN, INPUTS, START
from lora_repro.errors import InputError

FORMATS = ("svg", "pdf", "png")

PHI = "magma"
"""Of grids of phi: perceptually uniform, dark at 0, near what the paper's figures use."""

COLOURS = {GAUSSIAN: "#BBBBBB", START: "#009E73", INPUTS: "#56B4E9"}
"""Of the nulls; the colours of Okabe and Ito (2008), which the colour-blind can tell."""

WORDS = {GAUSSIAN: "Gaussian", START: "$A_0$", INPUTS: "inputs"}
"""Their names in a figure."""

BEYOND = "#D55E00"
"""What no null explains; what is measured."""

SECOND = "#0072B2"
"""Another measured quantity beside it."""

PERMUTED = "#CC79A7"
"""Runs on permuted labels."""

PAPER = "#000000"
"""What was read off the paper's figures."""

LEVELS = {GAUSSIAN: "#F0F0F0", START: "#A6DBCB", INPUTS: "#56B4E9"}
"""The colours of cells that a null explains: the nulls' own, lighter where they cover much."""

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

CAPTION_SIZE = 7
CHARACTERS_AN_INCH = 20.5
"""How many characters of a caption fit, on average."""


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
    width = int((figure.get_figwidth() - 0.3) * CHARACTERS_AN_INCH)
    lines = "\n".join(textwrap.fill(paragraph, width, break_long_words=False) for paragraph in paragraphs)
    figure.supxlabel(lines, x=0.012, ha="left", fontsize=CAPTION_SIZE, linespacing=1.35, parse_math=False)


def caption_height(width: float, paragraphs: Sequence[str]) -> float:
    """Returns how many inches a caption takes below a figure of this width."""
    lines = sum(len(textwrap.wrap(text, int((width - 0.3) * CHARACTERS_AN_INCH))) for text in paragraphs)
    return lines * CAPTION_SIZE * 1.35 * 1.2 / 72


def form_of(path: str) -> str:
    """Returns the format that a file's name asks for.

    Raises:
        InputError: If it is none of those there are.
    """
    form = Path(path).suffix.lstrip(".").lower()
    if form not in FORMATS:
        raise InputError(f"--out: a file ending in {', '.join(f'.{each}' for each in FORMATS)} (given: {path}).")
    return form


def save(figure: Figure, path: str, about: str) -> None:
    """Writes a figure in the format of the file's name. The same figure gives the same bytes: no date is written.

    Args:
        figure: The figure.
        path: The file.
        about: Where the figure comes from; kept in the file's metadata.

    Raises:
        InputError: If the file cannot be written, or is of another format.
    """
    form = form_of(path)
    metadata = {
        "svg": {"Date": None, "Description": about},
        "pdf": {"CreationDate": None, "Subject": about},
        "png": {"Description": about},
    }
    try:
        figure.savefig(path, format=form, metadata=metadata[form])
    except OSError as error:
        raise InputError(
            f"--out: {path} cannot be written ({error.strerror}).\nGive a file in a folder that can."
        ) from error
