"""A table as it is printed, whichever kind it is of, and its text in each format."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from analysis.render.lines import aligned, to_csv, to_json
from lora_repro.errors import InputError


class PrintedTable(NamedTuple):
    """A table in words. In lines outside the grid code stands between backticks, and `- ` begins one of a list."""

    title: str
    grid: list[list[str]]
    """Its lines, the header first; empty of an item without numbers."""
    records: Sequence[Mapping[str, Any]]
    """Its numbers as they are stored: CSV has a line for each, and JSON an object."""
    above: Sequence[str] = ()
    """Lines between title and grid: what is compared."""
    below: Sequence[Sequence[str]] = ()
    """Paragraphs below the grid, each of lines."""
    json: Any = None
    """What JSON holds in place of the records; None: the records."""


def write(table: PrintedTable, form: str) -> str:
    """Writes a table as md, json, csv, latex or html.

    Raises:
        InputError: If the format is one of numbers, and there are none.
    """
    if form == "md":
        return markdown(table)
    if form == "json":
        return to_json(table.records if table.json is None else table.json)
    if not (table.records if form == "csv" else table.grid):
        raise InputError(f"--format {form}: there are no numbers in {table.title}. Leave it out.")
    if form == "csv":
        return csv(table.records)
    from analysis.render import markup

    return markup.latex(table) if form == "latex" else markup.html(table)


def markdown(table: PrintedTable) -> str:
    """Writes title, lines, grid and paragraphs."""
    parts = [[f"## {table.title}"], table.above, aligned(table.grid) if table.grid else [], *table.below]
    return "\n\n".join("\n".join(part) for part in parts if part)


def csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Writes a line a record, with all columns that occur; numbers in full, blanks between the parts of a list."""
    columns = list(dict.fromkeys(key for record in records for key in record))
    return to_csv([columns, *([_flat(record.get(key)) for key in columns] for record in records)])


def _flat(value: Any) -> Any:
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_flat(part)}" for key, part in value.items())
    if isinstance(value, tuple | list):
        return " ".join(str(_flat(part)) for part in value)
    return "" if value is None or value != value else value
