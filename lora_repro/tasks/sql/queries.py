"""Questions about a table, and the queries that answer them: nine kinds, each of one clause of SQL. No torch."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lora_repro.tasks.sql.domains import Numbers
from lora_repro.tasks.sql.tables import KEY, Schema

Rng = np.random.Generator


class Asked(NamedTuple):
    """A question and its answer."""

    question: str
    query: str
    looser: tuple[str, ...]
    """Queries that leave out a part of the condition: the question is worth asking where they return other rows."""


class Condition(NamedTuple):
    """Which rows are meant."""

    words: str
    """As it follows the noun: older than 30."""
    sql: str
    column: str | None = None
    """The column of text that it names: where all rows have the same value, nobody asks for it."""
    parts: tuple[str, ...] = ()
    """What is left where a part of it is left out; empty: nothing."""


AGGREGATES = {"MIN": "lowest", "MAX": "highest", "AVG": "average", "SUM": "total"}
COUNTED = {2: "two", 3: "three", 4: "four"}
CONDITIONED = 0.6
"""How often a question has a condition that could do without."""


def _one(rng: Rng, *choices: str) -> str:
    return choices[int(rng.integers(len(choices)))]


def _number(rng: Rng, about: Schema) -> Numbers:
    return about.numbers[int(rng.integers(len(about.numbers)))]


def _value(rng: Rng, number: Numbers, low: float = 0.15, high: float = 0.85) -> int:
    span = number.high - number.low
    return number.low + int(rng.integers(round(low * span), round(high * span) + 1))


def _of_text(rng: Rng, about: Schema) -> Condition:
    words = about.words[int(rng.integers(len(about.words)))]
    value = _one(rng, *words.values)
    asked = _one(rng, f"whose {words.column} is {value}", f"with the {words.column} {value}")
    return Condition(asked, f"{words.column} = '{value}'", words.column)


def _of_number(rng: Rng, about: Schema) -> Condition:
    number = _number(rng, about)
    value = _value(rng, number)
    if rng.integers(2):
        return Condition(f"{number.more} {value}", f"{number.column} > {value}")
    return Condition(f"{number.less} {value}", f"{number.column} < {value}")


def _simple(rng: Rng, about: Schema) -> Condition:
    return _of_text(rng, about) if rng.integers(2) else _of_number(rng, about)


def _and(rng: Rng, about: Schema) -> Condition:
    number, text = _of_number(rng, about), _of_text(rng, about)
    first, second = (number, text) if rng.integers(2) else (text, number)
    words = f"{number.words} {text.words}" if first is number else f"{text.words} and {number.words}"
    return Condition(words, f"{first.sql} AND {second.sql}", text.column, (first.sql, second.sql))


def _or(rng: Rng, about: Schema) -> Condition:
    if rng.integers(2):
        words = about.words[int(rng.integers(len(about.words)))]
        one, other = (words.values[i] for i in rng.permutation(len(words.values))[:2])
        first, second = f"{words.column} = '{one}'", f"{words.column} = '{other}'"
        return Condition(f"whose {words.column} is {one} or {other}", f"{first} OR {second}", None, (first, second))
    number, text = _of_number(rng, about), _of_text(rng, about)
    return Condition(f"{number.words} or {text.words}", f"{number.sql} OR {text.sql}", None, (number.sql, text.sql))


def _between(rng: Rng, about: Schema) -> Condition:
    number = _number(rng, about)
    low, high = _value(rng, number, 0.1, 0.5), _value(rng, number, 0.5, 0.9)
    words = _one(rng, f"with {number.column} between {low} and {high}", f"with {number.column} from {low} to {high}")
    sql = f"{number.column} BETWEEN {low} AND {high}"
    return Condition(words, sql, None, (f"{number.column} >= {low}", f"{number.column} <= {high}"))


def _asked(about: Schema, question: str, start: str, condition: Condition | None, end: str = "") -> Asked:
    """Puts a query together: SELECT what FROM table [WHERE condition] [end]."""
    wheres = [None] if condition is None else [condition.sql, None, *condition.parts]
    queries = [
        " ".join(part for part in (start, f"FROM {about.name}", where and f"WHERE {where}", end) if part)
        for where in wheres
    ]
    return Asked(question, queries[0], tuple(queries[1:]))


def _listed(rng: Rng, about: Schema, condition: Condition) -> Asked:
    """Asks for a column of the rows that are meant."""
    many = about.domain.many
    shown = _shown(rng, condition, [KEY, KEY, *about.columns[1:]])
    question = (
        _one(rng, f"Which {many} are there {condition.words}?", f"Name the {many} {condition.words}.")
        if shown == KEY
        else _one(
            rng,
            f"Give the {shown} of the {many} {condition.words}.",
            f"Show the {shown} of {many} {condition.words}.",
        )
    )
    return _asked(about, question, f"SELECT {shown}", condition)


def _shown(rng: Rng, condition: Condition | None, columns: list[str]) -> str:
    """Draws a column to be shown: none in which the condition allows a single value."""
    return _one(rng, *(column for column in columns if condition is None or column != condition.column))


def _perhaps(rng: Rng, about: Schema) -> Condition | None:
    return _simple(rng, about) if rng.random() < CONDITIONED else None


def _nouns(about: Schema, condition: Condition | None) -> str:
    return f"{about.domain.many} {condition.words}" if condition is not None else f"all {about.domain.many}"


def order(rng: Rng, about: Schema) -> Asked:
    """Asks for rows in an order."""
    condition, number, falls = _perhaps(rng, about), _number(rng, about), bool(rng.integers(2))
    shown = _shown(rng, condition, [KEY, KEY, *(each.column for each in about.words)])
    first, last = (number.most, number.least) if falls else (number.least, number.most)
    way = _one(
        rng, f"from the {first} to the {last}", f"by {number.column} in {'falling' if falls else 'rising'} order"
    )
    question = f"List the {shown} of {_nouns(about, condition)}, {way}."
    return _asked(about, question, f"SELECT {shown}", condition, f"ORDER BY {number.column}{' DESC' if falls else ''}")


def limit(rng: Rng, about: Schema) -> Asked:
    """Asks for the first rows in an order."""
    condition, number, falls, n = (
        _perhaps(rng, about),
        _number(rng, about),
        bool(rng.integers(2)),
        int(rng.integers(1, 5)),
    )
    first = number.most if falls else number.least
    among = f" among the {_nouns(about, condition)}" if condition is not None else ""
    noun = f"{about.domain.one} is the {first}" if n == 1 else f"{COUNTED[n]} {about.domain.many} are the {first}"
    end = f"ORDER BY {number.column}{' DESC' if falls else ''} LIMIT {n}"
    return _asked(about, f"Which {noun}{among}?", f"SELECT {KEY}", condition, end)


def group(rng: Rng, about: Schema) -> Asked:
    """Asks for a number for each value of a column of text."""
    condition, number = _perhaps(rng, about), _number(rng, about)
    column = _shown(rng, condition, [each.column for each in about.words])
    function = _one(rng, "COUNT", *AGGREGATES)
    if function == "COUNT":
        start, end = f"For each {column}, how many {about.domain.many}", "are there?"
        words = condition.words if condition is not None else ""
        question, computed = " ".join(f"{start} {words} {end}".split()), "COUNT(*)"
    else:
        what = f"{AGGREGATES[function]} {number.column}"
        question, computed = (
            f"For each {column}, what is the {what} of {_nouns(about, condition)}?",
            f"{function}({number.column})",
        )
    return _asked(about, question, f"SELECT {column}, {computed}", condition, f"GROUP BY {column}")


def count(rng: Rng, about: Schema) -> Asked:
    """Asks how many rows there are."""
    condition, many = _simple(rng, about), about.domain.many
    question = _one(rng, f"How many {many} {condition.words} are there?", f"Count the {many} {condition.words}.")
    return _asked(about, question, "SELECT COUNT(*)", condition)


def aggregate(rng: Rng, about: Schema) -> Asked:
    """Asks for the least, most, mean or sum of a column of numbers."""
    condition, number, function = _perhaps(rng, about), _number(rng, about), _one(rng, *AGGREGATES)
    question = f"What is the {AGGREGATES[function]} {number.column} of {_nouns(about, condition)}?"
    return _asked(about, question, f"SELECT {function}({number.column})", condition)


KINDS: dict[str, Callable[[Rng, Schema], Asked]] = {
    "where": lambda rng, about: _listed(rng, about, _simple(rng, about)),
    "and": lambda rng, about: _listed(rng, about, _and(rng, about)),
    "or": lambda rng, about: _listed(rng, about, _or(rng, about)),
    "between": lambda rng, about: _listed(rng, about, _between(rng, about)),
    "order": order,
    "limit": limit,
    "group": group,
    "count": count,
    "aggregate": aggregate,
}
"""The kinds of questions, by the clause that they are about."""
