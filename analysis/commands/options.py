"""What several commands read of their options: the scale, and overrides that say the same as an option."""

import argparse
from typing import TYPE_CHECKING

from lora_repro.config.catalogue import group_names
from lora_repro.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from analysis.items import Item, Request

SIDES = ("A", "B", "dW-right", "dW-left")
"""analysis.section7.sides.Side, spelt out so that --help imports no numpy; a test holds the two equal."""

FORMATS = ("md", "json", "csv", "latex", "html")
"""In which a table is written."""

PROTOCOLS = ("last_epoch", "best_epoch_on_dev", "held_out")
"""analysis.protocol.Protocol, spelt out so that --help imports no pandas; a test holds the two equal."""


def add_scale_option(parser: argparse.ArgumentParser) -> None:
    """Adds --scale to a command's options."""
    parser.add_argument("--scale", help="a scale of the sweep, as scale=demo (default: proxy)")


def add_store_option(parser: argparse.ArgumentParser) -> None:
    """Adds --runs to a command's options."""
    parser.add_argument(
        "--runs",
        metavar="DIR",
        help="the store, which holds runs/, or a ledger, FILE.parquet, or a folder of ledgers (default: outputs)",
    )


def directions(given: str) -> list[int]:
    """Reads how many directions of an update are kept: 0,1,2,4.

    Raises:
        InputError: If it is no list of numbers.
    """
    parts = [part.strip() for part in given.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise InputError(f"--keep: numbers of directions, 0 or more (given: {given}). Example: --keep 0,1,2,4,8")
    return [int(part) for part in parts]


def taken(options: argparse.Namespace, key: str, option: str | None, flag: str) -> str | None:
    """Takes an override out of the list that says the same as an option, and returns the value of the two.

    Raises:
        InputError: If both are given and differ.
    """
    values = [value for name, _, value in (o.partition("=") for o in options.overrides) if name == key]
    options.overrides = [override for override in options.overrides if override.partition("=")[0] != key]
    if option is not None:
        values.append(option)
    if len(set(values)) > 1:
        raise InputError(f"{key}: given as {' and '.join(dict.fromkeys(values))}. Give one of {flag} and {key}=.")
    return values[0] if values else None


def add_scale(options: argparse.Namespace) -> None:
    """Adds --scale, where it is given, to the overrides of a sweep."""
    if (scale := taken(options, "scale", options.scale, "--scale")) is not None:
        options.overrides.append(f"scale={scale}")


def scale_named(options: argparse.Namespace) -> str:
    """Returns the scale that is asked for.

    Raises:
        InputError: If there is no such scale.
    """
    scale = taken(options, "scale", options.scale, "--scale") or "proxy"
    scales = group_names("scale")
    if scale not in scales:
        raise InputError(f"--scale: no scale {scale!r}.{did_you_mean(scale, scales)}\nScales: {', '.join(scales)}.")
    return scale


def scale_of(options: argparse.Namespace, what: str) -> str:
    """Returns the scale that is asked for, of an item that has a sweep of its own.

    Raises:
        InputError: If there is no such scale, or a sweep is given.
    """
    scale = scale_named(options)
    if any(override.startswith("+sweeps=") for override in options.overrides):
        raise InputError(
            f"+sweeps: a {what} of the paper has a sweep of its own. Leave it out, or leave its number out."
        )
    return scale


def request_of(word: str, number: str, options: argparse.Namespace) -> tuple["Item", "Request"]:
    """Returns an item, and what the options ask of it.

    Raises:
        InputError: If there is no such item, or it does not take an option that is given.
    """
    from analysis.items import Request, load_item

    scale = scale_of(options, word)
    item = load_item(word, number)
    given = {
        name: value for name in ("protocol", "side", "again") if (value := getattr(options, name, None)) is not None
    }
    for name, value in given.items():
        if name not in item.takes:
            raise InputError(f"--{name} {value}: {item.name} takes no --{name}. Leave it out.")
    return item, Request(scale, str(options.runs), options.overrides, options.format, **given)
