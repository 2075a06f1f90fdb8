"""WikiSQL's queries: written as text, read again, and run on their table. No torch.

A query selects one column, perhaps aggregated, where some conditions hold. Its text names columns as the table's header
does, in SQL's words but not in its grammar: SELECT COUNT School/Club Team FROM 1-10015132-11 WHERE No. = '3'.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Any, NamedTuple

from lora_repro.tasks.execution import Column, Result, Table, is_same, opened, result
from lora_repro.tasks.text_metrics.wikisql import AGGREGATES, OPERATORS, unquoted

NUMBER = re.compile(r"[-+]?\d*\.\d+|\d+")
"""What the official script takes out of a text that is compared with numbers: the first of these."""
LARGEST = 2**63 - 1
"""The largest whole number that SQLite takes."""
WHOLE = re.compile(r"select (.+?) from (\S+)(?: where (.+))?")


class Condition(NamedTuple):
    """A column, one of OPERATORS by its number, and a value as text."""

    column: int
    operator: int
    value: str


class Query(NamedTuple):
    """A logical form, as the release has it."""

    select: int
    aggregate: int
    conditions: tuple[Condition, ...]


class Reference(str):
    """A right query as the model is to write it, with the query itself, which the text does not always tell.

    MAX points is also the name of a column in some tables, a column may have no name, and a value quotes in itself.
    """

    query: Query

    @classmethod
    def of(cls, query: Query, table: "Header", form: "Sql") -> "Reference":
        """Writes a query."""
        found = cls(written(query, table, form))
        found.query = query
        return found


class Header(NamedTuple):
    """A table of WikiSQL."""

    name: str
    columns: tuple[str, ...]
    is_real: tuple[bool, ...]
    """Whether a column holds numbers."""
    rows: tuple[tuple[Any, ...], ...] = ()
    """Read for the tables of dev and test."""


class Sql(str, Enum):
    """How a query is written."""

    quoted = "quoted"
    """FROM the table's name, and texts in quotes, which tell where a value ends: as the part in mlx-examples has it."""
    release = "release"
    """FROM table, without quotes: as the release prints a query."""


def written(query: Query, table: Header, form: Sql) -> str:
    """Writes a query. A number has no quotes where its column holds numbers."""
    aggregate = f"{AGGREGATES[query.aggregate]} " if query.aggregate else ""
    name = table.name if form is Sql.quoted else "table"
    conditions = []
    for column, operator, value in query.conditions:
        shown = f"'{value}'" if form is Sql.quoted and not table.is_real[column] else value
        conditions.append(f"{table.columns[column]} {OPERATORS[operator]} {shown}")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT {aggregate}{table.columns[query.select]} FROM {name}{where}"


def logical_form(predictions: Sequence[str], references: Sequence[Sequence[str]], tables: Sequence[Header]) -> float:
    """Returns the share of queries with the column, aggregate and set of conditions of one of their references.

    It is the official script's comparison, without regard to case. A name of a column may hold AND or FROM, so that
    the text alone does not always tell where a condition begins: the tables do. A prediction that is written as its
    reference is right, whatever else it could mean.

    Args:
        predictions: A query an example.
        references: The right queries of each example.
        tables: The table of each example.

    Raises:
        ValueError: If there are no examples, or not one prediction and table for each.
    """
    _refuse_other_lengths("logical form", predictions, references, tables)
    hits = 0
    for text, right, table in zip(predictions, references, tables, strict=True):
        hits += any(_is_asked(text, reference, table) for reference in right)
    return hits / len(references)


def _is_asked(text: str, reference: str, table: Header) -> bool:
    """Tells whether a text is its reference, or has its logical form."""
    found, wanted = parsed(text, table), _meant(reference, table)
    is_form = found is not None and wanted is not None and _form(found, table) == _form(wanted, table)
    return is_form or _plain(text) == _plain(reference)


def _meant(reference: str, table: Header) -> Query | None:
    """Returns the query of the release, or what can be read where there is a text alone."""
    return reference.query if isinstance(reference, Reference) else parsed(reference, table)


def _form(query: Query, table: Header) -> tuple[int, int, frozenset[Condition]]:
    """Returns the logical form as far as a text can tell it: of two columns with one name the first, in any case."""
    columns = [_plain(column) for column in table.columns]
    first = [columns.index(column) for column in columns]
    conditions = (
        Condition(first[each.column], each.operator, unquoted(_plain(each.value))) for each in query.conditions
    )
    return first[query.select], query.aggregate, frozenset(conditions)


def _refuse_other_lengths(what: str, *of: Sequence[Any]) -> None:
    if len({*map(len, of)}) > 1 or not of[0]:
        raise ValueError(
            f"{what}: needs one prediction and one table for each of at least one example "
            f"(given: {', '.join(str(len(each)) for each in of)})."
        )


def _plain(text: str) -> str:
    return " ".join(text.lower().strip().removesuffix(";").split())


def parsed(text: str, table: Header) -> Query | None:
    """Reads a query's text; None if it is none, or names a column that the table does not have.

    Names of columns may hold any words, so they are looked for as the table has them. Of two columns with one name the
    first is taken, which the text does not tell apart.
    """
    found = WHOLE.fullmatch(_plain(text))
    columns = [_plain(column) for column in table.columns]
    if found is None:
        return None
    select, aggregate = found[1], 0
    if select not in columns:
        word, _, select = found[1].partition(" ")
        aggregate = AGGREGATES.index(word.upper()) if word.upper() in AGGREGATES[1:] else -1
        if aggregate < 0 or select not in columns:
            return None
    conditions = _conditions(found[3], columns) if found[3] else ()
    return Query(columns.index(select), aggregate, conditions) if conditions is not None else None


def _conditions(text: str, columns: Sequence[str]) -> tuple[Condition, ...] | None:
    """Reads "column op value and column op value ..." in any way in which all of it is read."""
    longest_first = sorted(set(columns), key=len, reverse=True)

    @cache  # of k conditions there are k rests, and 2^k ways to come to them
    def read(text: str) -> tuple[Condition, ...] | None:
        for column in longest_first:
            if not text.startswith(f"{column} "):
                continue
            operator, _, rest = text[len(column) + 1 :].partition(" ")
            if operator not in OPERATORS or not rest:
                continue
            for value, more in _values(rest):
                others = read(more) if more else ()
                if others is not None and not _goes_on(value, columns):
                    return (Condition(columns.index(column), OPERATORS.index(operator), unquoted(value)), *others)
        return None

    return read(text)


def _values(text: str) -> Iterable[tuple[str, str]]:
    """Yields the values with which a text may begin, and what follows behind " and "."""
    start = 0
    while (at := text.find(" and ", start)) >= 0:
        yield text[:at], text[at + len(" and ") :]
        start = at + 1
    yield text, ""


def _goes_on(value: str, columns: Sequence[str]) -> bool:
    """Tells whether what would be a value holds another condition behind OR, which no query of WikiSQL has."""
    return any(f" or {column} {operator} " in value for column in columns for operator in OPERATORS)


def run(query: Query, table: Header) -> Result | None:
    """Runs a query on its table as the official script does: without regard to case; None if that fails."""
    columns = tuple(Column(f"col{i}", "real" if real else "text") for i, real in enumerate(table.is_real))
    rows = tuple(
        tuple(_cell(value, real) for value, real in zip(row, table.is_real, strict=True)) for row in table.rows
    )
    with opened(Table("asked", columns, rows)) as connection:
        what = f"{AGGREGATES[query.aggregate]}(col{query.select})" if query.aggregate else f"col{query.select}"
        values, wheres = [], []
        for column, operator, value in query.conditions:
            number = _number(value) if table.is_real[column] else value.lower()
            if number is None:
                return None
            values.append(number)
            wheres.append(f"col{column} {OPERATORS[operator]} ?")
        where = f" WHERE {' AND '.join(wheres)}" if wheres else ""
        return result(connection, f"SELECT {what} FROM asked{where}", values)


def _number(value: str) -> float | None:
    try:
        return float(value.replace(",", ""))
    except ValueError:
        found = NUMBER.findall(value)
        return float(found[0]) if found else None


def _cell(value: Any, is_real: bool) -> Any:
    if isinstance(value, int) and not -LARGEST <= value <= LARGEST:
        return float(str(value)) if is_real else str(value)  # as SQLite keeps smaller ones in such columns
    if not isinstance(value, str):
        return value
    if is_real:
        try:
            return float(value.replace(",", ""))
        except ValueError:
            pass
    return " ".join(value.lower().split())


def execution(predictions: Sequence[str], references: Sequence[Sequence[str]], tables: Sequence[Header]) -> float:
    """Returns the share of queries that return what one of their references returns, or are one of them.

    A reference that cannot be run is returned by no query.

    Args:
        predictions: A query an example.
        references: The right queries of each example.
        tables: The table of each example, with its rows.

    Raises:
        ValueError: If there are no examples, or not one prediction and table for each.
    """
    _refuse_other_lengths("execution", predictions, references, tables)
    hits = 0
    for text, right, table in zip(predictions, references, tables, strict=True):
        found = returned(text, table)
        wanted = [(reference, rows) for reference in right if (rows := returned(reference, table)) is not None]
        hits += any(
            is_same(found, rows, is_ordered=False) or _is_asked(text, reference, table) for reference, rows in wanted
        )
    return hits / len(references)


def returned(text: str, table: Header) -> Result | None:
    """Returns what a query's text, or a reference's own query, returns on its table; None if it is none or fails."""
    query = _meant(text, table)
    return run(query, table) if query is not None else None


def header_of(entry: Mapping[str, Any], with_rows: bool) -> Header:
    """Returns a table of the release, of whose fields all are there."""
    is_real = tuple(kind == "real" for kind in entry["types"])
    rows = tuple(map(tuple, entry["rows"])) if with_rows else ()
    return Header(entry["id"], tuple(" ".join(name.split()) for name in entry["header"]), is_real, rows)
