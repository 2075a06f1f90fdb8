"""The paper's items and facts, read from their files."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lora_repro.errors import InputError, did_you_mean
from lora_repro.models.arch import Arch, Site

HERE = Path(__file__).resolve().parent

PAPER_DEPTH = 96
"""Layers of GPT-3, on which Section 7 of the paper looks."""


class Facts(NamedTuple):
    """What the paper says of an item that is not reproduced here."""

    name: str
    """Table 2, Figure 5."""
    title: str
    about: dict[str, str]
    """What its numbers are, and what they show."""
    rows: list[dict[str, Any]]
    """Its numbers; empty where none are known."""


@dataclass
class Axis:
    """The rows or the columns of a table."""

    key: str
    """The configuration's key that makes them."""
    label: str
    values: dict[str | int, str | int]
    """Our values in their order, and how the paper's facts write each."""
    facts: str | None = None
    """The key of the facts' rows that holds it; None where the values are themselves such keys (columns of scores)."""


@dataclass
class Item:
    """A table or figure; items.yaml explains the fields."""

    name: str
    title: str
    facts: dict[str, Any]
    """What the paper says: the content of a file in analysis/paper; empty of an item that the paper lacks."""

    @property
    def number(self) -> str:
        """The item's number in the paper; of one that the paper lacks, its name."""
        return self.name.removeprefix("table").removeprefix("figure")


@dataclass
class ScoreTable(Item):
    """A table of scores, a line for each task and model."""

    rows: Axis
    columns: Axis
    metric: str
    aggregate: str
    settings: list[str]
    fluctuation: dict[str, str] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
    """The keys of the facts' rows that hold a task's score, where columns are no such keys."""
    notes: list[str] = field(default_factory=list)


@dataclass
class UpdateItem(Item):
    """What is asked of the updates themselves (Section 7)."""

    sweep: str
    """Which runs there are; several items share one."""
    layers: list[str]
    """Parts of the depth, or `all`."""
    weights: list[str]
    ranks: list[int]
    ranks_at: dict[str, list[int]]
    """Other ranks, at scales whose runs do not have these."""

    def ranks_for(self, scale: str) -> list[int]:
        """Returns the ranks that are asked for at a scale."""
        return self.ranks_at.get(scale, self.ranks)

    def sites(self, arch: Arch) -> list[Site]:
        """Returns the matrices that are asked for, layer by layer, each once.

        Raises:
            InputError: If the architecture has no such matrix.
        """
        depth = arch.num_layers
        chosen = range(depth) if self.layers == ["all"] else {layer_at(part, depth) for part in self.layers}
        return [site for site in arch.select(self.weights) if site.layer in chosen]


@dataclass
class PhiFigure(UpdateItem):
    """Grids of phi(i, j) between two runs: Figures 3, 4, 6 and 7."""

    colours: list[float]
    """What the ends of the colour map stand for."""
    zoom: bool
    """Show the first columns once more, as many as there are rows."""
    random: bool
    """Show two Gaussian matrices beside."""
    points: dict[str, dict[str, Any]]
    """What was read off the paper's figure: for each curve the fact's `what`, and `i`, where its values lie."""


@dataclass
class RhoFigure(UpdateItem):
    """How much of each direction of one run lies in what another learned."""


@dataclass
class WeightFigure(UpdateItem):
    """Grids of phi(i, j) between a weight and its updates: Figure 8."""

    colours: list[float]
    top: str
    """Which part of the weight's directions, from the first."""
    directions: int
    """How many of each update."""
    width: int
    """Of the paper's weight."""
    points: dict[str, Any]
    """What was read off the paper's figure: the fact's `what`, by rank, and `i`, where its values lie."""


@dataclass
class ProjectionTable(UpdateItem):
    """A weight projected on directions of its updates: Table 7."""

    width: int
    """Of the paper's weight, for what random directions give there."""


KINDS: dict[str, type[Item]] = {
    "table": ScoreTable,
    "phi": PhiFigure,
    "rho": RhoFigure,
    "weight": WeightFigure,
    "projections": ProjectionTable,
}


def layer_at(part: str, depth: int) -> int:
    """Returns the layer at a part of the depth: part times depth, rounded up, counted from 0 as in checkpoints.

    So 1/96, 1/3, 1/2, 2/3 and 1 are layers 0, 31, 47, 63 and 95 of 96. The paper counts them from 1: 1, 32, 48, 64, 96.
    """
    return math.ceil(Fraction(part) * depth) - 1


def load_item(word: str, number: str) -> Item:
    """Returns the item that the paper calls, say, Table 6.

    Args:
        word: `table` or `figure`.
        number: Its number, or the name of one that the paper lacks.

    Raises:
        InputError: If there is none of this kind and number.
    """
    entries = _read(HERE / "items.yaml")
    known = {name: entry for name, entry in entries.items() if _word(entry) == word}
    name = f"{word}{number}" if number[:1].isdigit() else number
    if name not in known:
        numbers = [key.removeprefix(word) for key in known]
        alone = [facts.name.lower() for facts in _not_reproduced(word)]
        planned = f"\nOf {', '.join(alone)} there are the paper's numbers alone; their runs are planned."
        raise InputError(
            f"{word} {number}: there is no such item here.{did_you_mean(name, known)}\n"
            f"Give one of: {', '.join(f'{word} {n}' for n in numbers)}.{planned if alone else ''}"
        )
    entry = known[name]
    kind = KINDS[entry.pop("kind")]
    facts = _read(HERE / "paper" / entry.pop("paper")) if "paper" in entry else {}
    if kind is ScoreTable:
        entry |= {"rows": Axis(**entry["rows"]), "columns": Axis(**entry["columns"])}
    return kind(name=name, facts=facts, **entry)


def facts_alone(word: str, number: str) -> Facts | None:
    """Returns the paper's numbers of an item that is not reproduced here; None of any other.

    Args:
        word: `table` or `figure`.
        number: Its number.
    """
    return next((facts for facts in _not_reproduced(word) if facts.name == f"{word.title()} {number}"), None)


def _not_reproduced(word: str) -> list[Facts]:
    """Returns what the paper says of all its tables, or figures, that are no items here."""
    here = _read(HERE / "items.yaml")
    if word == "figure":
        figures = _read(HERE / "paper" / "figures.yaml")
        parts = [(entry, figures.get(f"points_figure_{entry['figure']}", [])) for entry in figures["figures"]]
    else:
        tables = (_read(path) for path in sorted((HERE / "paper").glob("table_*.yaml")))
        parts = [(table | table.get("metrics", {}), table["rows"]) for table in tables]
    found = []
    for entry, rows in parts:
        if f"{word}{entry[word]}" not in here:
            about = {key: value for key, value in entry.items() if isinstance(value, str) and key not in _NOT_ABOUT}
            numbers = [{key: value for key, value in row.items() if key != word} for row in rows]
            found.append(Facts(f"{word.title()} {entry[word]}", entry["title"], about, numbers))
    return found


_NOT_ABOUT = ("title", "paper", "data")


def names() -> dict[str, dict[str, str]]:
    """Returns how tasks and models are printed, and their footnotes."""
    return _read(HERE / "names.yaml")


def _word(entry: Mapping[str, Any]) -> str:
    """Returns how an item is asked for."""
    return "table" if KINDS[entry["kind"]] in (ScoreTable, ProjectionTable) else "figure"


def _read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())
