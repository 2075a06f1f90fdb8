"""Generated tables: which columns and rows a table has follows from its name alone. No torch."""

from functools import cache
from itertools import combinations
from typing import NamedTuple

import numpy as np

from lora_repro import draw
from lora_repro.errors import InputError
from lora_repro.tasks.execution import Column, Table
from lora_repro.tasks.sql.domains import DOMAINS, NAMES, Domain, Numbers, Words

KEY = "name"
ROWS = 12
INSTANCES = 3
"""So many sets of rows has each table; a query is right if its result is right on all of them."""
WORDS, NUMBERS, VALUES = 2, 2, 4
"""Columns of text and of numbers in a table, and the different texts in a column."""

BLOCKS = 4
"""Tables with each choice of columns."""
SHARES = {"train": 24, "eval": 5, "test": 7}
"""How many of the 36 choices of columns of each subject belong to a split, so that no split has another one's table."""


class Schema(NamedTuple):
    """A table without its rows."""

    name: str
    """Of the subject and a number: players_17."""
    domain: Domain
    words: tuple[Words, ...]
    """The columns of text, with the values that this table has."""
    numbers: tuple[Numbers, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns in their order."""
        return (KEY, *(each.column for each in self.words), *(each.column for each in self.numbers))


@cache
def _choices(domain: Domain) -> list[tuple[tuple[Words, ...], tuple[Numbers, ...]]]:
    """Returns the choices of columns of a subject in drawn order, those of train first."""
    found = [
        (words, numbers)
        for words in combinations(domain.words, WORDS)
        for numbers in combinations(domain.numbers, NUMBERS)
    ]
    assert len(found) == sum(SHARES.values())
    return [found[i] for i in draw.generator("sql", "columns", domain.many).permutation(len(found))]


def names_of(split: str) -> list[str]:
    """Returns the tables of a split in drawn order."""
    places = [number for number in range(BLOCKS * sum(SHARES.values())) if split_of(number) == split]
    names = [f"{domain.many}_{number}" for domain in DOMAINS for number in places]
    return [names[i] for i in draw.generator("sql", "tables", split).permutation(len(names))]


def split_of(number: int) -> str:
    """Returns the split that tables of this number belong to."""
    place = number % sum(SHARES.values())
    return "train" if place < SHARES["train"] else "eval" if place < SHARES["train"] + SHARES["eval"] else "test"


@cache
def schema(name: str) -> Schema:
    """Returns the columns of a table.

    Raises:
        InputError: If there is no such table.
    """
    many, _, digits = name.partition("_")
    domain = next((domain for domain in DOMAINS if domain.many == many), None)
    if domain is None or not (digits.isascii() and digits.isdecimal()):
        raise InputError(f"task sql: there is no table {name!r}.\nTables are called players_17, books_4 and so on.")
    words, numbers = _choices(domain)[int(digits) % sum(SHARES.values())]
    rng = draw.generator("sql", "values", name)
    kept = [
        each._replace(values=tuple(np.array(each.values)[rng.permutation(len(each.values))[:VALUES]].tolist()))
        for each in words
    ]
    return Schema(name, domain, tuple(kept), numbers)


@cache
def instances(name: str) -> tuple[Table, ...]:
    """Returns a table with its sets of rows.

    In a set of rows all names differ, and so do all values of a column of numbers: every order is one order.

    Raises:
        InputError: If there is no such table.
    """
    return tuple(_table(schema(name), i) for i in range(INSTANCES))


def _table(about: Schema, instance: int) -> Table:
    rng = draw.generator("sql", "rows", about.name, instance)
    names = [NAMES[i] for i in rng.permutation(len(NAMES))[:ROWS]]
    texts = [_texts(rng, each) for each in about.words]
    numbers = [(each.low + rng.permutation(each.high - each.low + 1)[:ROWS]).tolist() for each in about.numbers]
    types = ["text"] * (1 + len(texts)) + ["integer"] * len(numbers)
    columns = tuple(Column(column, type) for column, type in zip(about.columns, types, strict=True))
    return Table(about.name, columns, tuple(zip(names, *texts, *numbers, strict=True)))


def _texts(rng: np.random.Generator, about: Words) -> list[str]:
    """Draws a column of text, in which every value occurs."""
    positions = np.concatenate([np.arange(VALUES), rng.integers(VALUES, size=ROWS - VALUES)])
    return [about.values[i] for i in rng.permutation(positions)]
