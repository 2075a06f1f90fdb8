"""WikiSQL's queries in its files: as objects with numbers of columns, or as SQL."""

import json
from typing import Any

from lora_repro.errors import InputError, shown
from lora_repro.tasks.rows import Rows
from lora_repro.tasks.text_metrics.wikisql import logical_form_of

ANSWER = "\nA: "
"""Before the query in the lines of mlx-examples."""


def reference(rows: Rows, row: int) -> str:
    """Returns the right query of a row: its `sql`, or what follows `A: ` in its `text`.

    Raises:
        InputError: If it is no query; the message names the line.
    """
    columns = rows.columns
    query = columns["sql"][row] if "sql" in columns else str(columns["text"][row]).partition(ANSWER)[2]
    written = query_of(query)
    if logical_form_of(written) is None:
        raise InputError(
            f"{rows.place(row)}: is no query of WikiSQL (found: {shown(query)}).\n"
            "Needed: SELECT [MAX] column FROM table [WHERE ...], or an object with sel, agg and conds."
        )
    return written


def has_query(text: Any) -> bool:
    """Tells whether a text has the form of mlx-examples."""
    return isinstance(text, str) and ANSWER in text


def query_of(query: Any) -> str:
    """Returns a query as a text; an object as JSON."""
    return query.strip() if isinstance(query, str) else json.dumps(query)


def is_object(query: str) -> bool:
    """Tells whether a query names columns by their numbers."""
    return query.startswith("{")
