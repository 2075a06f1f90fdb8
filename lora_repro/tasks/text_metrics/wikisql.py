"""Matches of WikiSQL's queries, whose form is always SELECT [MAX] column FROM table WHERE column = value AND ...

A query is a text, or the object of the official files as JSON: {"sel": 3, "agg": 0, "conds": [[5, 0, "Butler CC"]]}.
The tables are not needed: this is logical form accuracy, and says nothing about what the queries return.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from lora_repro.tasks.metrics import exact_match
from lora_repro.tasks.text_metrics.given import refuse_unfit

AGGREGATES = ("", "MAX", "MIN", "COUNT", "SUM", "AVG")
OPERATORS = ("=", ">", "<")
"""As the official files number them."""

_QUERY = re.compile(r"select\s+(?P<selected>.+?)\s+from\s+(?P<table>\S+)(?:\s+where\s+(?P<where>.+?))?\s*;?\s*", re.S)
_AGGREGATED = re.compile(r"(?P<name>max|min|count|sum|avg)(?:\s*\(\s*(?P<inner>.+?)\s*\)|\s+(?P<outer>.+))", re.S)
_CONDITION = re.compile(r"(?P<column>.+?)\s*(?P<operator>[=<>])\s*(?P<value>.*)", re.S)
QUOTE = "'"


class LogicalForm(NamedTuple):
    """What a query asks for. The table is given with the question, and so not compared."""

    column: str
    aggregator: str
    conditions: frozenset[tuple[str, str, str]]
    """Column, operator and value; their order means nothing."""


def match_in_any_case(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns the share of queries that equal a reference but for case and white space.

    Raises:
        ValueError: If there is no example, not one prediction for each, or an example without a reference.
    """
    refuse_unfit("match in any case", predictions, references)
    return exact_match(
        [text.lower() for text in predictions], [[text.lower() for text in texts] for texts in references]
    )


def logical_form(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns the share of queries with the column, the aggregator and the set of conditions of a reference.

    Raises:
        ValueError: If there is no example, not one prediction for each, an example without a reference, or a reference
            that is no such query.
    """
    matches = logical_form_of_each(predictions, references)
    return sum(matches) / len(matches)


def logical_form_of_each(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Returns 1 or 0 for each query."""
    refuse_unfit("logical form", predictions, references)
    found = []
    for number, (text, texts) in enumerate(zip(predictions, references, strict=True), 1):
        right = [logical_form_of(each) for each in texts]
        if None in right:
            raise ValueError(
                f"logical form: the reference of example {number} is no query of WikiSQL "
                f"(given: {texts[right.index(None)][:80]!r}). Needed: SELECT [MAX] column FROM table [WHERE ...]."
            )
        found.append(float(logical_form_of(text) in right))
    return found


def logical_form_of(query: str) -> LogicalForm | None:
    """Reads a query as WikiSQL's own evaluation does: names and values in any case; None if it is none."""
    if query.lstrip().startswith("{"):
        return _of_object(query)
    read = _QUERY.fullmatch(_spaced(query))
    if read is None:
        return None
    conditions = _conditions(read["where"]) if read["where"] is not None else frozenset()
    aggregated = _AGGREGATED.fullmatch(read["selected"])
    selected = read["selected"] if aggregated is None else aggregated["inner"] or aggregated["outer"]
    aggregator = "" if aggregated is None else aggregated["name"]
    return None if conditions is None else LogicalForm(unquoted(selected), aggregator, conditions)


def _of_object(query: str) -> LogicalForm | None:
    try:
        given = json.loads(query)
        conditions = [(column, OPERATORS[_index(operator)], value) for column, operator, value in given["conds"]]
        aggregator, column = AGGREGATES[_index(given["agg"])], str(_index(given["sel"]))
    except (ValueError, LookupError, TypeError):
        return None
    return LogicalForm(column, aggregator.lower(), frozenset((str(c), o, str(v).lower()) for c, o, v in conditions))


def _index(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(value)
    return value


def _conditions(where: str) -> frozenset[tuple[str, str, str]] | None:
    """Returns the conditions, None if one has no operator; an AND may be a part of a name or a value."""
    joined: list[str] = []
    for piece in re.split(r"\s+and\s+", where):
        if joined and (_is_open(joined[-1]) or None in map(_CONDITION.fullmatch, (joined[-1], piece))):
            joined[-1] += f" and {piece}"
        else:
            joined.append(piece)
    read = [_CONDITION.fullmatch(each) for each in joined]
    return (
        None
        if None in read
        else frozenset(
            (unquoted(each["column"]), each["operator"], unquoted(each["value"])) for each in read if each is not None
        )
    )


def _is_open(condition: str) -> bool:
    """Tells whether a value begins with a quotation mark that does not end it."""
    read = _CONDITION.fullmatch(condition)
    value = "" if read is None else read["value"]
    return value[:1] == QUOTE and (len(value) == 1 or value[-1] != QUOTE)


def unquoted(text: str) -> str:
    """Takes the quotes off; a quote that is written twice is one. Double quotes belong to many of WikiSQL's values."""
    inner = text[1:-1] if len(text) > 1 and text[0] == text[-1] == QUOTE else text
    return inner.replace(2 * QUOTE, QUOTE).strip()


def _spaced(text: str) -> str:
    return " ".join(text.lower().split())
