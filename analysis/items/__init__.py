"""The tables and figures of the paper and our own: one YAML file an item, found by its name.

An item's file holds what the item shows and, under `facts`, what the paper says. Its `kind` names the module of
analysis/kinds that reads, computes and prints it; the fields of a file are those of that module's dataclass.
"""

import pkgutil
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from analysis import kinds
from analysis.items.entry import build, read_yaml
from lora_repro.config.catalogue import group_names
from lora_repro.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.render.printed import PrintedTable

ITEMS = Path(__file__).resolve().parent
"""The folder of the items' files."""

NAMES = ITEMS.parent / "names.yaml"
"""How tasks and models are printed."""


class Request(NamedTuple):
    """What a command line asks of an item."""

    scale: str
    store: str
    """The folder that holds runs/."""
    overrides: Sequence[str] = ()
    """The sweep's own: `seed=0,1,2`."""
    format: str | None = None
    """One of FORMATS (analysis/commands/options.py); None asks for a picture alone."""
    protocol: str | None = None
    """Which number is taken from a run: a value of analysis.protocol.Protocol; None: the item's own."""
    again: str | None = None
    """A second store, in which the same runs were computed again."""
    side: str = "A"
    """Which directions of an update are compared: a value of analysis.section7.sides.Side."""


class Picture(NamedTuple):
    """A figure of an item at one scale."""

    draw: "Callable[[], Figure]"
    """Draws it anew at each call."""
    caption: list[str]
    """Its title, and paragraphs."""
    data: list[dict[str, Any]]
    """What is drawn, as JSON writes it."""
    run_ids: list[str]
    """Of the runs it is made of."""


@dataclass(kw_only=True)
class Item:
    """What every item has. A kind is a subclass that adds its own fields and `printed`, or `picture`."""

    name: str
    """The name of its file, without .yaml: table5, figure3, freeze_a."""
    title: str
    facts: dict[str, Any] = field(default_factory=dict)
    """What the paper says; empty of an item that the paper lacks. May be another item's name: its facts are read."""

    word: ClassVar[str] = "table"
    """By which command an item is asked for whose name says neither table nor figure."""
    takes: ClassVar[tuple[str, ...]] = ()
    """Fields of a request that change what it shows, beyond scale, store and overrides."""

    @property
    def number(self) -> str:
        """The item's number in the paper; of one that the paper lacks, its name."""
        return self.name.removeprefix("table").removeprefix("figure")

    def check(self) -> None:
        """Refuses fields that do not fit each other, the facts or the sweep.

        Raises:
            InputError: Naming the field.
        """

    def printed(self, request: Request) -> "PrintedTable":
        """Returns the item as a table, which is written in every format."""
        raise NotImplementedError

    def text(self, request: Request) -> str:
        """Returns the item in the format that is asked for."""
        from analysis.render.printed import write

        return write(self.printed(request), request.format or "md")

    @property
    def is_drawn(self) -> bool:
        """Whether it is a figure, and no table."""
        return type(self).picture is not Item.picture

    def picture(self, request: Request) -> Picture | None:
        """Returns the item as a figure; None of one that is a table."""
        return None


K = TypeVar("K", bound=type[Item])

KINDS: dict[str, type[Item]] = {}
"""The kinds whose modules have been imported."""


def register(name: str) -> "Callable[[K], K]":
    """Registers the class of a kind under the name that items' files write, which is that of its module."""

    def add(kind: K) -> K:
        KINDS[name] = kind
        return kind

    return add


def load_item(word: str, number: str) -> Item:
    """Returns the item that the paper calls, say, Table 6.

    Args:
        word: `table` or `figure`.
        number: Its number, or the name of an item that the paper lacks.

    Raises:
        InputError: If there is no such item, or its file is wrong.
    """
    name = f"{word}{number}" if number[:1].isdigit() else number
    if name in item_names() and (other := _word(name)) != word:
        raise InputError(f"{word} {number}: it is a {other}.\nGive: python -m analysis {other} {number}")
    if name not in item_names():
        known = {each for each in item_names() if _word(each) == word}
        ordered = sorted(known, key=lambda n: (not n[-1].isdigit(), n.removeprefix(word).zfill(2)))
        alone = [each for each in ordered if read_yaml(ITEMS / f"{each}.yaml").get("kind") == "facts"]
        from_runs = [each for each in ordered if each not in alone]
        listed = [", ".join(f"{word} {each.removeprefix(word)}" for each in some) for some in (from_runs, alone)]
        papers = f" The paper's numbers alone: {listed[1]}." if alone else ""
        raise InputError(
            f"{word} {number}: there is no such item here.{did_you_mean(name, known)}\n"
            f"Give one of: {listed[0]}.{papers}"
        )
    return read_item(name)


def read_item(name: str) -> Item:
    """Reads an item from its file.

    Raises:
        InputError: If a field is unknown, missing, of another type or does not fit the rest, or there is no such kind.
    """
    path = ITEMS / f"{name}.yaml"
    entry = read_yaml(path)
    kind = _kind(entry.pop("kind", None), path)
    if isinstance(facts := entry.get("facts"), str):
        entry["facts"] = facts_of(facts)
    item = build(kind, {"name": name, **entry}, path.name)
    item.check()
    return item


def refuse_unknown_sweep(name: str, sweep: str) -> None:
    """Refuses a sweep of an item that is not there.

    Raises:
        InputError: With the sweeps that are.
    """
    if sweep not in (sweeps := group_names("sweeps")):
        raise InputError(
            f"{name}.yaml: sweep: no sweep {sweep!r}.{did_you_mean(sweep, sweeps)}\nSweeps: {', '.join(sweeps)}."
        )


def facts_of(name: str) -> dict[str, Any]:
    """Returns what the paper says of an item.

    Raises:
        InputError: If there is no such item.
    """
    if name not in (there := item_names()):
        raise InputError(f"{name}: there is no such item.{did_you_mean(name, there)}\nItems: {', '.join(there)}.")
    return read_yaml(ITEMS / f"{name}.yaml").get("facts", {})


def item_names() -> list[str]:
    """Returns the names of all items."""
    return sorted(path.stem for path in ITEMS.glob("*.yaml"))


def names() -> dict[str, dict[str, str]]:
    """Returns how tasks and models are printed, and their footnotes."""
    return read_yaml(NAMES)


def _word(name: str) -> str:
    """Returns by which command an item is asked for."""
    if numbered := re.fullmatch(r"(table|figure)\d+", name):
        return numbered[1]
    path = ITEMS / f"{name}.yaml"
    return _kind(read_yaml(path).get("kind"), path).word


def _kind(name: object, path: Path) -> type[Item]:
    there = sorted({*KINDS, *(module.name for module in pkgutil.iter_modules(kinds.__path__))})
    if name not in there:
        raise InputError(
            f"{path.name}: kind: no kind {name!r}.{did_you_mean(str(name), there)}\nKinds: {', '.join(there)}."
        )
    if name not in KINDS:
        import_module(f"{kinds.__name__}.{name}")
    return KINDS[str(name)]
