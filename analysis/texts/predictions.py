"""What a system wrote, in the forms that the official scripts take, and JSON for texts with line breaks."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from analysis.texts import wikisql
from analysis.texts.lines import content_of, lines_of
from analysis.texts.tables import OUTPUT, SOURCE, column_among, read_columns
from lora_repro.errors import InputError, shown
from lora_repro.store.answers import read_texts
from lora_repro.store.layout import PREDICTIONS
from lora_repro.tasks.targets import split_name

FORMS = (
    "a text a line; CSV or TSV with the columns mr and output; .json with a list of texts; .jsonl with a text or an "
    'object a line, as {"prediction": "..."} or WikiSQL\'s {"query": {"sel": ...}}; the folder of a run of this project'
)
KEYS = ("prediction", "output", "summary", "query", "sql", "text")
"""Where an object has the text."""


class Predictions(NamedTuple):
    """The texts of a file."""

    name: str
    texts: list[str]
    places: list[str]
    sources: list[str] | None = None
    """What each puts into words, in a table that says so."""
    note: str | None = None
    """Which of several texts they are."""
    references: list[list[str]] | None = None
    """What is right for each, where a run's record says so."""
    ids: list[str] | None = None
    """The example of each, where a file names it."""


def read_predictions(path: Path) -> Predictions:
    """Reads texts in whichever of FORMS they are.

    Raises:
        InputError: If there is no such file, or it has none of these forms. The message names the line.
    """
    suffix = path.suffix.lower()
    if (record := path / PREDICTIONS if path.is_dir() else path).name == PREDICTIONS:
        return _of_run(record)
    if suffix in (".csv", ".tsv"):
        return _of_table(path)
    if suffix not in (".json", ".jsonl", ".ndjson"):
        lines = lines_of(path, may_be_blank=True)
        return Predictions(str(path), lines, [f"line {number}" for number in range(1, len(lines) + 1)])
    entries = list(_entries(path, one=suffix == ".json"))
    texts, places = [_text(path, place, entry) for place, entry in entries], [place for place, _ in entries]
    ids = [str(entry["id"]) for _, entry in entries if isinstance(entry, dict) and entry.get("id") is not None]
    return Predictions(str(path), texts, places, ids=ids if len(ids) == len(texts) else None)


def _of_run(path: Path) -> Predictions:
    """Takes what a run wrote last: for test, or for dev where there is no test."""
    try:
        found = read_texts(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: holds no predictions of a run ({' '.join(str(error).split())[:120]}).") from None
    if found is None:
        raise InputError(f"{path}: holds no texts beside their references.\nGive a run that wrote texts.")
    texts, places = [text.strip() for text in found.texts], [f"example {each}" for each in found.ids]
    note = f"{path}: the {len(texts):,} texts for {split_name(found.split)} after epoch {found.epoch}."
    return Predictions(str(path), texts, places, note=note, references=found.references)


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
        if not entry.keys() & {*KEYS, "error"}:
            raise InputError(
                f"{path}, {place}: has none of the keys {', '.join(KEYS)} (found: {shown(', '.join(entry))}).\n"
                f"Forms of predictions: {FORMS}."
            )
        found = next((entry[key] for key in KEYS if key in entry), "")  # of an error no text
        entry = wikisql.query_of(found) if isinstance(found, dict) else found
    if not isinstance(entry, str):
        raise InputError(f"{path}, {place}: is no text (found: {shown(entry)}).\nForms of predictions: {FORMS}.")
    return entry.strip()
