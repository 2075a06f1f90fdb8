"""The rows of a split as columns of texts, answers, names and groups. No torch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

from lora_repro.errors import InputError, shown
from lora_repro.tasks.own_data.labelling import Values, label_text
from lora_repro.tasks.rows import Rows
from lora_repro.tasks.targets import Example


class Columns(NamedTuple):
    """Which columns are read."""

    only: list[str]
    """Those that every file must have."""
    optional: list[str]
    """Those that a test file may lack: the labels."""


class Part(NamedTuple):
    """The rows of one split before their labels are looked at."""

    rows: list[Rows]
    """Of its files, one after the other."""
    names: list[str]
    """The classes in the order that the data set declares, if it does."""


class Sheet:
    """The columns of a split.

    Args:
        split: train, eval or test; empty of rows that are in no split.
        part: Its rows.
        texts: The columns of the text: one or two.
        answer: The column of the labels or scores, which a test file may lack.
        id: The column of the rows' names; None: they are counted.
        group: The column of their groups; None: a text is a group of its own.

    Raises:
        InputError: If a text is none, or a name or group is missing.
    """

    def __init__(
        self, split: str, part: Part, texts: list[str], answer: str, id: str | None, group: str | None
    ) -> None:
        self._rows = part.rows
        self._kept: list[int] | None = None
        self._ends: list[int] = []
        for rows in part.rows:
            self._ends.append(len(rows) + (self._ends[-1] if self._ends else 0))
        columns = [self._column(name, self._texts) for name in texts]
        self.inputs: list[Any] = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
        if split == "test" and not any(answer in rows.columns for rows in part.rows):
            self.raw: list[Any] | None = None
        else:
            self.raw = list(chain.from_iterable(rows[answer] for rows in part.rows))
        self.group = None if group is None else self._column(group, self._names)
        counted = (f"{split}-{i}" if split else str(i) for i in range(1, len(self.inputs) + 1))
        self.ids = list(counted) if id is None else self._column(id, self._names)

    def place(self, row: int) -> str:
        """Says where a row stands."""
        row = row if self._kept is None else self._kept[row]
        file = next(i for i, end in enumerate(self._ends) if row < end)
        return self._rows[file].place(row - (self._ends[file - 1] if file else 0))

    def answers(self, split: str) -> Values:
        """Returns the labels or scores.

        Args:
            split: What messages call the rows.
        """
        assert self.raw is not None
        return Values(split or "the file", self.raw, self.place)

    def empty(self) -> list[int]:
        """Returns the rows without text."""
        if self.inputs and isinstance(self.inputs[0], tuple):
            return [i for i, pair in enumerate(self.inputs) if not (pair[0].strip() and pair[1].strip())]
        return [i for i, text in enumerate(self.inputs) if not text.strip()]

    def drop(self, rows: Iterable[int]) -> None:
        """Leaves rows out."""
        dropped = set(rows)
        self._kept = [i for i in range(len(self.inputs)) if i not in dropped]
        self.inputs, self.ids = [self.inputs[i] for i in self._kept], [self.ids[i] for i in self._kept]
        self.raw = None if self.raw is None else [self.raw[i] for i in self._kept]
        self.group = None if self.group is None else [self.group[i] for i in self._kept]

    def refuse_repeated_ids(self, column: str) -> None:
        """Refuses two rows of one name: predictions of runs are paired by it.

        Raises:
            InputError: Naming both.
        """
        seen: dict[str, int] = {}
        for row, name in enumerate(self.ids):
            if (first := seen.setdefault(name, row)) != row:
                repeated = len(self.ids) - len(set(self.ids))
                raise InputError(
                    f"task.id: {shown(name)!r} names two rows ({self.place(first)} and {self.place(row)}; {repeated:,} "
                    f"are repeated in all).\nMake the values of {column!r} unique, or leave task.id out."
                )

    def documents(self) -> list[str]:
        """Returns what each row belongs to: its group, or else its text, so that equal texts stay together."""
        if self.group is not None:
            return self.group
        if self.inputs and isinstance(self.inputs[0], tuple):
            return ["\t".join(pair) for pair in self.inputs]
        return self.inputs

    def examples(self, rows: Sequence[int], answers: Sequence[Any]) -> list[Example]:
        """Returns the examples of some rows."""
        documents = self.documents()
        return [Example(self.ids[i], self.inputs[i], answers[i], documents[i]) for i in rows]

    def _column(self, name: str, made: Callable[[Rows, str], Iterator[str]]) -> list[str]:
        return list(chain.from_iterable(made(rows, name) for rows in self._rows))

    def _texts(self, rows: Rows, name: str) -> Iterator[str]:
        for row, value in enumerate(rows[name]):
            if isinstance(value, str):
                if not value.isascii():
                    _refuse_half_characters(value, rows, row)
                yield value
            elif value is None:
                yield ""
            else:
                raise InputError(
                    f"task.text: {name!r} must hold texts (found: {shown(value)}, at {rows.place(row)}).\n"
                    "Is it the right column?"
                )

    def _names(self, rows: Rows, name: str) -> Iterator[str]:
        for row, value in enumerate(rows[name]):
            text = None if isinstance(value, list | dict) else label_text(value)
            if text is None:
                raise InputError(f"{rows.place(row)}: {name!r} is empty or no name (found: {shown(value)}).")
            yield text


def _refuse_half_characters(text: str, rows: Rows, row: int) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{rows.place(row)}: the text holds half of a character (a lone surrogate), which no tokenizer can read "
            f"(found: {shown(text)}).\nCorrect the row."
        ) from None
