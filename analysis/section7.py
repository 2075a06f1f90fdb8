"""The commands of Section 7: figures of what updates share, Table 7, and what is left of an update when it is cut."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from analysis.options import scale_of
from lora_repro.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.items import Item
    from lora_repro.config import Circumstances

SIDES = ("A", "B", "dW-right", "dW-left")
"""analysis.sides.Side, spelt out so that --help imports no numpy; a test holds the two equal."""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands to the program's."""
    figure = commands.add_parser("figure", help="a figure of the paper, from our runs: figure 3 --scale demo")
    figure.set_defaults(command=_figure)
    figure.add_argument("number", metavar="N", help="the figure's number in the paper, or shared_directions")
    figure.add_argument("--scale", help="a scale of the sweep (default: proxy)")
    figure.add_argument(
        "--out",
        dest="images",
        metavar="FILE",
        action="append",
        help="write it to this file, .svg, .pdf or .png; may be given several times (default: figure3.svg)",
    )
    figure.add_argument(
        "--side",
        choices=SIDES,
        default=SIDES[0],
        help="directions to compare: right singular vectors of A (the paper's), left ones of B, or those of dW = "
        "(alpha/r) B A in the space of inputs (right) or of outputs (left). Default: %(default)s",
    )
    figure.add_argument(
        "--format", choices=("json",), help="write what is drawn to stdout; a file only where --out is given"
    )
    figure.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="the sweep's own overrides: seed=1")

    truncate = commands.add_parser(
        "truncate", help="what is left of a run when its update is cut: truncate RUN --keep 0,1,2"
    )
    truncate.set_defaults(command=_truncate)
    truncate.add_argument("run", metavar="RUN", help="a run's id, or its directory")
    truncate.add_argument("--keep", metavar="LIST", help="directions kept in every matrix (default: 0,1,2,4 ... all)")
    truncate.add_argument("--format", choices=("md", "json", "csv"), default="md", help="default: %(default)s")
    truncate.add_argument(
        "--out", dest="image", metavar="FILE", help="plot score against directions kept: .svg, .pdf or .png"
    )
    truncate.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="of compute and paths: compute.threads=1, paths.data=DIR"
    )
    for command in (figure, truncate):
        command.add_argument("--runs", metavar="DIR", help="the store, which holds runs/ (default: outputs)")


def _figure(options: argparse.Namespace) -> str:
    from analysis.items import load_item
    from analysis.render import style

    scale = scale_of(options, "figure")
    item = load_item("figure", options.number)
    images = options.images or ([] if options.format else [f"{item.name}.svg"])
    for image in images:
        style.form_of(image)
    draw, caption, data = _read(item, scale, options)
    if images:
        with style.styled():
            figure = draw()
            for image in images:
                style.save(figure, image)
    print(*caption, *(f"Written: {image}" for image in images), sep="\n", file=sys.stderr)
    return json.dumps(data) if options.format == "json" else ""


def _read(
    item: "Item", scale: str, options: argparse.Namespace
) -> tuple[Callable[[], "Figure"], list[str], list[dict[str, Any]]]:
    """Returns what draws a figure, its title and caption, and its data."""
    from analysis.arms import Arms
    from analysis.items import PhiFigure, RhoFigure, UpdateItem
    from analysis.render import captions
    from analysis.sides import Side

    assert isinstance(item, UpdateItem)
    arms, side = Arms(item, scale, options.runs, options.overrides), Side(options.side)
    if isinstance(item, PhiFigure):
        from analysis import phi_figure
        from analysis.render import phi

        picture = phi_figure.phi_picture(arms, side)
        words = [captions.phi_title(picture), *captions.phi_caption(picture)]
        return partial(phi.draw, picture), words, phi_figure.to_json(picture)
    if isinstance(item, RhoFigure):
        from analysis import shared_directions
        from analysis.render import rho

        picture = shared_directions.rho_picture(arms, side)
        words = [captions.rho_title(picture), *captions.rho_caption(picture)]
        return partial(rho.draw, picture), words, shared_directions.to_json(picture)
    from analysis import weight_figure
    from analysis.render import weight

    picture = weight_figure.weight_picture(arms, side)
    words = [captions.weight_title(picture), *captions.weight_caption(picture)]
    return partial(weight.draw, picture), words, weight_figure.to_json(picture)


def _truncate(options: argparse.Namespace) -> str:
    from analysis.render import style, truncation
    from analysis.truncation import find_run, truncate

    keep = _keep(options.keep)
    if options.image is not None:
        style.form_of(options.image)
    found = truncate(find_run(options.run, options.runs), keep, _circumstances(options.overrides))
    if options.image is not None:
        with style.styled():
            style.save(truncation.draw(found), options.image)
        print(f"Written: {options.image}", file=sys.stderr)
    if options.format == "md":
        return truncation.markdown(found)
    print(*found.notes, sep="\n", file=sys.stderr)
    return truncation.to_json(found) if options.format == "json" else truncation.to_csv(found)


def _keep(given: str | None) -> list[int] | None:
    """Reads a list of numbers of directions.

    Raises:
        InputError: If it is none.
    """
    if given is None:
        return None
    parts = [part.strip() for part in given.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise InputError(f"--keep: numbers of directions, 0 or more (given: {given}). Example: --keep 0,1,2,4,8")
    return [int(part) for part in parts]


def _circumstances(overrides: Sequence[str]) -> "Circumstances":
    """Returns where weights and data lie and where it is computed; what the run is, its record says.

    Raises:
        InputError: If an override is of something else.
    """
    from lora_repro.compose import compose
    from lora_repro.config import resolve

    for override in overrides:
        if not override.startswith(("compute.", "paths.", "log.")):
            raise InputError(
                f"{override}: a run is what its record says. Only compute.*, paths.* and log.* can be given here."
            )
    return resolve(compose(overrides)).circumstances


def projections(item: "Item", scale: str, options: argparse.Namespace) -> str:
    """Returns Table 7.

    Raises:
        InputError: If a protocol is given: nothing is scored.
        MissingInputError: If runs or weights are missing.
    """
    from analysis.arms import Arms
    from analysis.items import UpdateItem
    from analysis.projection_table import projection_table, to_json
    from analysis.render.projections import markdown

    assert isinstance(item, UpdateItem)
    if options.protocol != "last_epoch":
        raise InputError(f"--protocol: {item.name} is of weights, not of scores. Leave it out.")
    table = projection_table(Arms(item, scale, options.runs, options.overrides))
    return json.dumps(to_json(table), indent=1) if options.format == "json" else markdown(table)
