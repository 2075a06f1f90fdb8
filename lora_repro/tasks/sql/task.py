r"""A generated task: a question about a table is answered by a query, which is run. Not in the paper.

One example: input "players_40 (name, team, league, age, points)\nQuestion: Which two players are the oldest?", to be
written: "SELECT name FROM players_40 ORDER BY age DESC LIMIT 2".

Each table gets a question of each of nine kinds (where, and, or, between, order, limit, group, count, aggregate). A
split has tables of its own, with columns that no table of another split has together, and questions of its own: no
query of dev or test is one of train on another table.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from sqlite3 import Connection
from typing import ClassVar

from omegaconf import MISSING

from lora_repro import draw
from lora_repro.errors import InputError
from lora_repro.tasks import notices
from lora_repro.tasks.base import Splits
from lora_repro.tasks.execution import is_ordered, is_same, opened, result
from lora_repro.tasks.generated import refuse_other_digest
from lora_repro.tasks.queries import Queries
from lora_repro.tasks.sql.queries import KINDS, Asked
from lora_repro.tasks.sql.tables import instances, names_of, schema
from lora_repro.tasks.targets import Example, Targets
from lora_repro.tasks.texts import TextConfig

TRIES = 200
"""A question of a kind that no draw makes worth asking would be a mistake in the grammar."""


@dataclass
class SqlConfig(TextConfig):
    """The examples and the rows of the tables are the same on all machines."""

    fixed: ClassVar[tuple[str, ...]] = ("digest", "tables")
    one_line: ClassVar[bool] = True

    tables: dict[str, int] = MISSING
    """The number of tables of train, eval and test, each with nine questions."""

    @property
    def targets(self) -> Targets:
        """Queries, which are run on the tables."""
        return Queries(instances)

    def sizes(self) -> dict[str, int] | None:
        """Returns nine questions a table."""
        return {split: len(KINDS) * number for split, number in self.tables.items()}

    def load(self, data: str | None, cache: str) -> Splits:
        """Makes all examples.

        Args:
            data: Not used, as nothing is read.
            cache: Not used.

        Raises:
            InputError: If the examples and tables are not those of `digest`.
        """
        splits = {split: [*part] for split, part in examples(tuple(self.tables.items())).items()}
        names = dict.fromkeys(example.document for part in splits.values() for example in part)
        refuse_other_digest(self, [splits, [instances(name) for name in names]])
        return splits

    def notices(self, splits: Splits) -> list[str]:
        """Says that the texts are generated, how many there are, and whether some repeat."""
        return [f"{self.name} is a generated task.", *notices.of_texts(splits)]


@lru_cache(maxsize=2)
def examples(number_of_tables: tuple[tuple[str, int], ...]) -> Splits:
    """Makes the examples of each split; those of few tables are the first of those of more.

    Raises:
        InputError: If more tables of a split are asked for than there are.
    """
    splits: Splits = {}
    known: dict[str, str] = {}
    for split, number in number_of_tables:
        names = names_of(split)
        if not 1 <= number <= len(names):
            raise InputError(f"task.tables: {split} can have 1 to {len(names)} tables (given: {number}).")
        splits[split] = [each for name in names[:number] for each in _of_table(split, name, known)]
    return splits


def meaning(example: Example) -> str:
    """Returns the query of an example without the number of its table."""
    return example.target[0].replace(example.document, example.document.rpartition("_")[0])


def _of_table(split: str, name: str, known: dict[str, str]) -> list[Example]:
    """Asks a question of each kind about a table.

    Args:
        split: The split.
        name: The table.
        known: The meanings of other splits, and of this one so far, with their split; it is added to.
    """
    rng, about = draw.generator("sql", "questions", name), schema(name)
    found = []
    with ExitStack() as stack:
        connections = [stack.enter_context(opened(instance)) for instance in instances(name)]
        for kind, ask in KINDS.items():
            for _ in range(TRIES):
                asked = ask(rng, about)
                text = f"{name} ({', '.join(about.columns)})\nQuestion: {asked.question}"
                example = Example(f"{name}-{kind}", text, [asked.query], name)
                if known.get(meaning(example), split) == split and _is_worth_asking(asked, connections):
                    break
            else:
                raise InputError(f"task sql: no question of the kind {kind} can be asked about {name}.")
            known[meaning(example)] = split
            found.append(example)
    return found


def _is_worth_asking(asked: Asked, connections: Sequence[Connection]) -> bool:
    """Tells whether a query finds something on each set of rows, and looser ones find something else on one of them."""
    wanted = [result(connection, asked.query) for connection in connections]
    if not all(rows and rows != [(None,)] and rows != [(0,)] for rows in wanted):
        return False
    return all(
        any(
            not is_same(result(connection, looser), rows or [], is_ordered(asked.query))
            for connection, rows in zip(connections, wanted, strict=True)
        )
        for looser in asked.looser
    )
