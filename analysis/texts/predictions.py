"""What a system wrote, in the forms that the official scripts take, and JSON for texts with line breaks."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from analysis.texts import wikisql
from analysis.texts.lines import content_of, lines_of
from analysis.texts.tables import OUTPUT, SOURCE, column_among, read_columns
from lora_repro.errors import InputError, shown

FORMS = (
    "a text a line; CSV or TSV with the columns mr and output; .json with a list of texts; .jsonl with a text or an "
    'object a line, as {"prediction": "..."} or WikiSQL\'s {"query": {"sel": ...}}'
)
KEYS = ("prediction", "output", "summary", "query", "text")
"""Where an object has the text."""


class Predictions(NamedTuple):
    """The texts of a file."""

    name: str
    texts: list[str]
    places: list[str]
    sources: list[str] | None = None
    """What each puts into words, in a table that says so."""


def read_predictions(path: Path) -> Predictions:
    """Reads texts in whichever of FORMS they are.

    Raises:
        InputError: If there is no such file, or it has none of these forms. The message names the line.
    """
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return _of_table(path)
    if suffix not in (".json", ".jsonl", ".ndjson"):
        lines = lines_of(path)
        return Predictions(str(path), lines, [f"line {number}" for number in range(1, len(lines) + 1)])
    entries = _entries(path, one=suffix == ".json")
    texts = [(_text(path, place, entry), place) for place, entry in entries]
    return Predictions(str(path), [text for text, _ in texts], [place for _, place in texts])


def _of_table(path: Path) -> Predictions:
    rows = read_columns(path)
    texts = [text.strip() for text in rows[column_among(rows, OUTPUT)]]
    try:
        sources = rows[column_among(rows, SOURCE)]
    except InputError:
        sources = None
    return Predictions(str(path), texts, [rows.place(row).rpartition(", ")[2] for row in range(len(texts))], sources)


def _entries(path: Path, one: bool) -> Iterator[tuple[str, Any]]:
    """Yields the entries of a JSON list, or of a file with an entry a line, with their places."""
    content = content_of(path)
    lines = [content] if one else content.split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            place = f"line {error.lineno if one else number}" if isinstance(error, json.JSONDecodeError) else "line 1"
            raise InputError(f"{path}, {place}: is not JSON ({error}).\nForms of predictions: {FORMS}.") from None
        if not one:
            yield f"line {number}", entry
        elif isinstance(entry, list):
            yield from ((f"entry {place}", each) for place, each in enumerate(entry, 1))
        else:
            raise InputError(f"{path}: must hold a list (found: {shown(entry)}).\nForms of predictions: {FORMS}.")


def _text(path: Path, place: str, entry: Any) -> str:
    """Returns the text of an entry; where WikiSQL's baseline has written an error, none."""
    if isinstance(entry, dict):
        found = next((entry[key] for key in KEYS if key in entry), "" if "error" in entry else None)
        entry = wikisql.query_of(found) if isinstance(found, dict) else found
    if not isinstance(entry, str):
        raise InputError(f"{path}, {place}: is no text (found: {shown(entry)}).\nForms of predictions: {FORMS}.")
    return entry.strip()
