"""Columns of CSV and TSV files, as measure_scores.py of the E2E challenge finds them by their names."""

from collections.abc import Sequence
from pathlib import Path

from analysis.texts.lines import content_of
from lora_repro.errors import InputError, shown
from lora_repro.tasks.rows import Format, Rows, read_rows

SOURCE = ("mr", "source", "src", "meaning_representation", "meaning", "da", "dialogue_act")
REFERENCE = ("ref", "reference", "human", "human_reference", "target", "trg", "tgt")
OUTPUT = ("output", "out", "system_output", "system", "sys", "prediction", "ref", "reference", "text")

REPAIRS = {"Ł": "£", "Â£": "£", "Ã©": "é", "ã©": "é"}
"""What measure_scores.py takes for mistakes of encoding in tables."""


def read_columns(path: Path) -> Rows:
    """Reads a table, and mends what measure_scores.py mends.

    Raises:
        InputError: If it is none; the message names the line.
    """
    text = content_of(path)
    for wrong, right in REPAIRS.items():
        text = text.replace(wrong, right)
    is_tsv = "\t" in text.split("\n", 1)[0]
    format = Format.tsv if is_tsv else Format.csv
    return read_rows(text.encode(), str(path), format, quotes=True, has_options=False)


def column_among(rows: Rows, names: Sequence[str]) -> str:
    """Returns the column that has one of the names, in any case and with or without an s.

    Raises:
        InputError: If there is none, or more than one of the same rank.
    """
    plain: dict[str, list[str]] = {}
    for column in rows.columns:
        name = column.lower().strip().replace(" ", "_").replace("-", "_").removesuffix("s")
        plain.setdefault(name, []).append(column)
    alike = next((plain[name] for name in (name.removesuffix("s") for name in names) if name in plain), [])
    if len(alike) > 1:
        raise InputError(
            f"{rows.name}: the columns {', '.join(alike)} mean the same, so which one counts is not said.\n"
            "Rename or remove all but one."
        )
    found = next(iter(alike), None)
    if found is None:
        raise InputError(
            f"{rows.name}: there is no column called {', '.join(names[:3])} or the like "
            f"(found: {shown(', '.join(rows.columns))}).\nThe first row must name the columns."
        )
    return found
