"""Whether a query's result is the right one: SQLite runs it in memory, where it can only read. No torch.

A query is right if it returns what its reference returns, on every set of rows that is given for the table: another
query that happens to return the same rows is then told apart more often (Zhong et al. 2020, "Semantic Evaluation for
Text-to-SQL with Distilled Test Suites"). Rows are compared with their repetitions; their order counts only where the
outermost query of the reference has ORDER BY. Names of columns do not count, the order of columns does. A query that
fails, writes, or exceeds a limit is wrong. The limits are counts of SQLite's own steps and not seconds, so that every
machine finds the same.
"""

import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, repeat
from typing import Any, NamedTuple

MOST_ROWS = 10_000
MOST_STEPS = 2_000_000
"""Steps of SQLite's virtual machine: about a tenth of a second."""
MOST_CHARACTERS = 100_000
"""Of a query, and of a value that it makes."""
STEPS_AT_ONCE = 10_000
FUNCTIONS = {
    *("abs", "avg", "coalesce", "count", "glob", "ifnull", "iif", "instr", "length", "like", "lower", "ltrim", "max"),
    *("min", "nullif", "replace", "round", "rtrim", "substr", "substring", "sum", "total", "trim", "typeof", "upper"),
}
"""Functions that a query may call: none that reads files, loads code, or returns another value on another day."""

Result = list[tuple[Any, ...]]


class Column(NamedTuple):
    """A column of a table."""

    name: str
    type: str
    """As SQLite declares it: text, integer or real."""


class Table(NamedTuple):
    """A table, and one set of rows of it."""

    name: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]


Instances = Sequence[Table]
"""The same table with different sets of rows."""


@contextmanager
def opened(table: Table) -> Iterator[sqlite3.Connection]:
    """Makes a table in a database of its own, which then can only be read."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        columns = ", ".join(f"{quoted(column.name)} {column.type}" for column in table.columns)
        connection.execute(f"CREATE TABLE {quoted(table.name)} ({columns})")
        places = ", ".join("?" * len(table.columns))
        connection.executemany(f"INSERT INTO {quoted(table.name)} VALUES ({places})", table.rows)
        connection.execute("PRAGMA query_only = ON")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_CHARACTERS)
        connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, MOST_CHARACTERS)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.set_authorizer(_authorised)
        yield connection
    finally:
        connection.close()


def quoted(name: str) -> str:
    """Returns a name as SQL writes it, whatever characters it has."""
    return '"' + name.replace('"', '""') + '"'


def _authorised(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ):
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in FUNCTIONS:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def result(connection: sqlite3.Connection, query: str, values: Sequence[Any] = ()) -> Result | None:
    """Runs a query and returns its rows; None if it fails, writes, returns no table, or exceeds a limit.

    Args:
        connection: From `opened`.
        query: One statement.
        values: What stands in the places of its question marks.
    """
    is_enough = chain(repeat(False, MOST_STEPS // STEPS_AT_ONCE), repeat(True))
    connection.set_progress_handler(partial(next, is_enough), STEPS_AT_ONCE)
    try:
        cursor = connection.execute(query, tuple(values))
        rows = cursor.fetchmany(MOST_ROWS + 1)
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError):  # or a NUL or half a character in the query
        return None
    finally:
        connection.set_progress_handler(None, 0)
    return None if cursor.description is None or len(rows) > MOST_ROWS else rows


def is_same(found: Result | None, wanted: Result, is_ordered: bool) -> bool:
    """Tells whether two results are the same rows; 5 and 5.0 are one value, 5 and '5' are two.

    Args:
        found: Of the query; None if it failed.
        wanted: Of the reference.
        is_ordered: Whether their order counts.
    """
    if found is None or len(found) != len(wanted):
        return False
    ours, theirs = ([tuple(map(_comparable, row)) for row in rows] for rows in (found, wanted))
    return ours == theirs if is_ordered else Counter(ours) == Counter(theirs)


def _comparable(value: Any) -> Any:
    """Rounds a float to twelve digits: a mean depends in the last one on the order in which rows are added."""
    return float(f"{value:.12g}") if isinstance(value, float) else value


def is_ordered(query: str) -> bool:
    """Tells whether a query orders its rows: ORDER BY outside of texts and parentheses."""
    outside, depth = [], 0
    for part in re.split(r"('(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|[()])", query):
        if part in ("(", ")"):
            depth += 1 if part == "(" else -1
        elif depth == 0 and part[:1] not in ("'", '"'):
            outside.append(part)
    return re.search(r"\border\s+by\b", " ".join(outside), re.IGNORECASE) is not None


def table_name(query: str) -> str | None:
    """Returns the table that a query reads first; None if it names none."""
    found = re.search(r"\bfrom\s+\"?([^\s\"';,()]+)", query, re.IGNORECASE)
    return found[1] if found else None


TablesOf = Callable[[str], Instances]
"""Returns the table that a reference names."""


def accepted(
    queries: Sequence[Sequence[str]], references: Sequence[Sequence[str]], tables: TablesOf
) -> list[list[bool]]:
    """Tells for each query whether it returns what one of the references returns, on all sets of rows.

    Args:
        queries: The queries of each example.
        references: The right queries of each example, all of one table.
        tables: Returns the table with this name, with one or more sets of rows.

    Raises:
        ValueError: If a reference names no table, or fails.
    """
    of_table: dict[str, list[int]] = {}
    for example, of in enumerate(references):
        of_table.setdefault(_named(of), []).append(example)
    right = [[[True] * len(of) for _ in asked] for asked, of in zip(queries, references, strict=True)]
    for name, indices in of_table.items():
        for instance in tables(name):
            with opened(instance) as connection:
                for example in indices:
                    _hold(connection, queries[example], references[example], right[example])
    return [[any(of) for of in each] for each in right]


def _hold(
    connection: sqlite3.Connection, queries: Sequence[str], references: Sequence[str], right: list[list[bool]]
) -> None:
    """Notes for each query which references it differs from."""
    wanted = []
    for text in references:
        if (rows := result(connection, text)) is None:
            raise ValueError(f"execution: the reference {text!r} cannot be run on its table.")
        wanted.append((rows, is_ordered(text)))
    for query, of in zip(queries, right, strict=True):
        if any(of):
            found = result(connection, query)
            of[:] = [still and is_same(found, *each) for still, each in zip(of, wanted, strict=True)]


def execution(predictions: Sequence[str], references: Sequence[Sequence[str]], tables: TablesOf) -> float:
    """Returns the share of queries whose result equals that of one of their references.

    Args:
        predictions: A query an example, as it was written.
        references: The right queries of each example, all of one table.
        tables: Returns the table with this name, with one or more sets of rows.

    Raises:
        ValueError: If there are no examples, not one prediction for each, or a reference names no table or fails.
    """
    _refuse_other_lengths(predictions, references)
    right = accepted([[query] for query in predictions], references, tables)
    return sum(each for (each,) in right) / len(right)


def blind(references: Sequence[Sequence[str]], tables: TablesOf) -> float:
    """Returns what the best of a few fixed queries reaches that do not read the question: the baseline of `execution`.

    They count the rows, show all of them, show one column, or compute the least, most, mean or sum of one column.

    Raises:
        ValueError: If there are no examples, or a reference names no table or fails.
    """
    _refuse_other_lengths(references, references)
    right = accepted([_blind_queries(tables(_named(of))[0]) for of in references], references, tables)
    hits = Counter(number for each in right for number, is_right in enumerate(each) if is_right)
    return max(hits.values(), default=0) / len(references)


def _blind_queries(table: Table) -> list[str]:
    name, columns = quoted(table.name), [quoted(column.name) for column in table.columns]
    of_columns = [f"{function}({column})" for column in columns for function in ("", "MIN", "MAX", "AVG", "SUM")]
    return [f"SELECT {what} FROM {name}" for what in ("COUNT(*)", "*", *of_columns)]


def _named(references: Sequence[str]) -> str:
    name = table_name(references[0]) if references else None
    if name is None:
        raise ValueError(f"execution: the reference names no table (given: {list(references)}).")
    return name


def _refuse_other_lengths(predictions: Sequence[Any], references: Sequence[Any]) -> None:
    if not references or len(predictions) != len(references):
        raise ValueError(
            f"execution: needs one prediction for each of at least one example "
            f"(given: {len(predictions)} and {len(references)})."
        )
