"""Tables in Markdown, for terminals too, and data in JSON and CSV. Plain text only."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Writes a Markdown table whose columns are aligned in a terminal; the first line is the header."""
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    widths = [max(len(line[i]) for line in escaped) for i in range(len(escaped[0]))]
    padded = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in escaped
    ]
    return [padded[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *padded[1:]]


def to_json(data: Iterable[Mapping[str, Any]] | Mapping[str, Any]) -> str:
    """Writes a list of objects, or one object; nan and infinity, which JSON lacks, are null."""
    return json.dumps(_plain(data if isinstance(data, Mapping) else list(data)), indent=1, allow_nan=False)


def to_csv(records: Sequence[Sequence[Any]]) -> str:
    """Writes lines of comma-separated values; the first is the header."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(records)
    return text.getvalue().rstrip("\n")


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
