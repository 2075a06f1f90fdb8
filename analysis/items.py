"""The paper's items and facts, read from their files."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lora_repro.errors import InputError, did_you_mean

HERE = Path(__file__).resolve().parent


@dataclass
class Axis:
    """The rows or the columns of a table."""

    key: str
    """The configuration's key that makes them."""
    label: str
    values: dict[str | int, str]
    """Our values in their order, and how the paper's facts write each."""
    facts: str | None = None
    """The key of the facts' rows that holds it; None where the values are themselves such keys (columns of scores)."""


@dataclass
class Item:
    """A table or figure of the paper; items.yaml explains the fields."""

    name: str
    kind: str
    title: str
    facts: dict[str, Any]
    """What the paper says: the content of a file in analysis/paper."""
    rows: Axis
    columns: Axis
    metric: str
    aggregate: str
    settings: list[str]
    fluctuation: dict[str, str] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
    """The keys of the facts' rows that hold a task's score, where columns are no such keys."""
    notes: list[str] = field(default_factory=list)

    @property
    def number(self) -> str:
        """The item's number in the paper."""
        return self.name.removeprefix(self.kind)


def load_item(kind: str, number: str) -> Item:
    """Returns the item that the paper calls, say, Table 6.

    Raises:
        InputError: If there is none of this kind and number.
    """
    entries = _read(HERE / "items.yaml")
    name = f"{kind}{number}"
    if name not in entries or entries[name]["kind"] != kind:
        numbers = [key.removeprefix(kind) for key, entry in entries.items() if entry["kind"] == kind]
        raise InputError(
            f"{kind} {number}: there is no such item here.{did_you_mean(name, entries)}\n"
            f"Give one of: {', '.join(f'{kind} {n}' for n in numbers)}."
        )
    entry = entries[name]
    facts = _read(HERE / "paper" / entry.pop("paper"))
    axes = {"rows": Axis(**entry.pop("rows")), "columns": Axis(**entry.pop("columns"))}
    return Item(name=name, facts=facts, **axes, **entry)


def names() -> dict[str, dict[str, str]]:
    """Returns how tasks and models are printed, and their footnotes."""
    return _read(HERE / "names.yaml")


def _read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())
