"""The commands on adapters: inspect and compare."""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.commands.options import SIDES, add_store_option
from analysis.output import write_output
from lora_repro.errors import InputError

if TYPE_CHECKING:
    from analysis.adapters import Adapter


_ADAPTER = (
    "a run's id or directory, a PEFT folder, a file of loralib, diffusers or kohya, or a full checkpoint (with --base)"
)


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the two commands to the program's."""
    inspect = commands.add_parser("inspect", help="what an adapter adds to each matrix: inspect ADAPTER")
    inspect.set_defaults(command=_inspect, writes={"--out": "out"})
    inspect.add_argument("adapter", nargs=1, metavar="ADAPTER", help=_ADAPTER)
    compare = commands.add_parser("compare", help="what two adapters share (Section 7): compare ADAPTER ADAPTER")
    compare.set_defaults(command=_compare, writes={"--html": "html", "--out": "out"})
    compare.add_argument("adapter", nargs=2, metavar="ADAPTER", help=_ADAPTER)
    compare.add_argument(
        "--side",
        choices=SIDES,
        default=SIDES[0],
        help="directions to compare: right singular vectors of A (Figures 3 and 4), left ones of B, or those of dW = "
        "(alpha/r) B A in the space of inputs (right) or of outputs (left). A and B alone are not unique: B G and "
        "G^-1 A make the same dW. Default: %(default)s",
    )
    compare.add_argument("--html", metavar="FILE", help="write a page that shows all grids and needs no network")
    for command in (inspect, compare):
        command.add_argument(
            "--base", metavar="MODEL", help="what was adapted: a folder, a file, or a model of conf/model"
        )
        command.add_argument("--layers", metavar="LIST", help="only these, counted from 0: 0,3-5")
        command.add_argument("--weights", metavar="LIST", help="only these matrices: q,v")
        command.add_argument("--alpha", type=float, help="lora_alpha, where the file does not hold it")
        command.add_argument(
            "--enable-lora", metavar="LIST", help="which of q, k, v loralib's MergedLinear adapts (default: q,v)"
        )
        command.add_argument("--top", type=int, help="directions kept of dW between full checkpoints (default: 64)")
        command.add_argument("--format", choices=("md", "json", "csv"), default="md", help="default: %(default)s")
        command.add_argument("--out", metavar="FILE", help="write to a file instead of stdout")
        add_store_option(command)


def _inspect(options: argparse.Namespace) -> str:
    from analysis.render import updates
    from analysis.section7.inspection import inspect, select

    (adapter,) = _read_adapters(options, "inspect")
    chosen = select(adapter, _layers(options.layers), _names(options.weights))
    found = inspect(adapter, chosen, with_base=options.base is not None)
    if options.format == "md":
        return updates.inspection_markdown(adapter, found)
    _print_notes(found.notes)
    return updates.inspection_json(found) if options.format == "json" else updates.inspection_csv(found)


def _compare(options: argparse.Namespace) -> str:
    from analysis.render import updates
    from analysis.section7.comparison import compare
    from analysis.section7.inspection import select
    from analysis.section7.sides import Side

    first, second = _read_adapters(options, "compare")
    layers, weights = _layers(options.layers), _names(options.weights)
    chosen = select(first, layers, weights), select(second, layers, weights)
    found = compare(first, second, chosen, Side(options.side), with_figures=options.html is not None)
    if options.html is not None:
        from analysis.render.explorer import page

        write_output("--html", options.html, page(first, second, found, options.line))
    if options.format == "md":
        return updates.comparison_markdown(first, second, found)
    _print_notes(found.notes)
    return updates.comparison_json(found) if options.format == "json" else updates.comparison_csv(found)


def _read_adapters(options: argparse.Namespace, command: str) -> list["Adapter"]:
    """Opens the adapters, and refuses options that say nothing about any of them."""
    from analysis.adapters import Options, read

    if options.overrides:
        number = "one adapter" if len(options.adapter) == 1 else "two adapters"
        raise InputError(f"{command}: takes {number}, and no {options.overrides[0]}.\nLeave it out.")
    if options.alpha is not None and not 0 < options.alpha < float("inf"):
        raise InputError(f"--alpha: must be a finite number above 0 (given: {options.alpha:g}).")
    if options.top is not None and options.top < 1:
        raise InputError(f"--top: must be at least 1 (given: {options.top}).")
    enabled = _names(options.enable_lora)
    if enabled is not None and (len(set(enabled)) < len(enabled) or not set(enabled) <= set("qkv")):
        raise InputError(
            f"--enable-lora: some of q, k and v (given: {options.enable_lora}). Example: --enable-lora q,v"
        )
    top = options.top if options.top is not None else Options().top
    given = Options(options.base, options.alpha, enabled, top, options.runs)
    adapters = [read(name, given) for name in options.adapter]
    for flag, value in (("alpha", options.alpha), ("enable_lora", enabled), ("top", options.top)):
        if value is not None and not any(flag in adapter.takes for adapter in adapters):
            raise InputError(
                f"--{flag.replace('_', '-')}: says nothing about {' and '.join(a.format for a in adapters)}.\n"
                "Leave it out."
            )
    return adapters


def _layers(given: str | None) -> list[int] | None:
    """Reads a list of layers: 0,3-5.

    Raises:
        InputError: If it is none.
    """
    if given is None:
        return None
    layers: list[int] = []
    for part in given.split(","):
        found = re.fullmatch(r"\s*(\d{1,4})(?:-(\d{1,4}))?\s*", part)
        if found is None or (found[2] is not None and int(found[2]) < int(found[1])):
            raise InputError(f"--layers: numbers and ranges, counted from 0 (given: {given}). Example: --layers 0,3-5")
        layers += range(int(found[1]), int(found[2] if found[2] is not None else found[1]) + 1)
    return layers


def _names(given: str | None) -> list[str] | None:
    return None if given is None else [word.strip() for word in given.split(",")]


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        print(note, file=sys.stderr)
