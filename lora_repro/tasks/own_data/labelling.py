"""Turns the values of a column into classes or scores, and refuses what is neither. No torch."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from lora_repro.errors import InputError, shown

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""What counts as a number in a text: not Python's 1_000, nan and inf, nor 1,5."""
UNLABELLED = ("-1", "-1.0")
"""What GLUE's test files on the hub have for a label or a score."""
SHOWN = 5

Place = Callable[[int], str]
"""Says where a row stands: mine.csv, line 17."""


class Values(NamedTuple):
    """A column of one split."""

    split: str
    """train, eval or test; for messages."""
    values: Sequence[Any]
    place: Place


def places(rows: Sequence[int], place: Place) -> str:
    """Names the first few of several rows."""
    more = f" and {len(rows) - SHOWN:,} more" if len(rows) > SHOWN else ""
    return "; ".join(map(place, rows[:SHOWN])) + more


def label_text(value: Any) -> str | None:
    """Returns what a label is called; None of a missing one. "NA" and "None" are names, white space around is not.

    Raises:
        ValueError: If it is a list or an object.
    """
    if isinstance(value, str):
        return value.strip() or None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool | int | float):
        return str(value)
    raise ValueError


def label_texts(column: Values, name: str) -> list[str | None]:
    """Returns what the labels of a column are called.

    Raises:
        InputError: If a value is a list or an object.
    """
    found: list[str | None] = []
    try:
        for value in column.values:
            found.append(label_text(value))
    except ValueError:
        raise InputError(
            f"task.label: {name!r} must hold one label a row, a text or a number "
            f"(found: {shown(column.values[len(found)])} at {column.place(len(found))}).\n"
            "Several labels for one text cannot be trained here."
        ) from None
    return found


def is_unlabelled(texts: Sequence[str | None]) -> bool:
    """Tells whether no row has a label: all are missing, or -1 as in GLUE's test files on the hub."""
    return all(text is None or text in UNLABELLED for text in texts)


def classes_of(
    texts: Sequence[str | None], column: Values, name: str, most: int, order: Sequence[str] = ()
) -> list[str]:
    """Returns the classes that the training rows have: numbers by size, other labels by their letters.

    Args:
        texts: What the labels of the training rows are called.
        column: Where they come from.
        name: The column's name.
        most: The most classes that are plausible (task.max_labels).
        order: The order that the data set itself declares, if it does (ClassLabel of datasets).

    Raises:
        InputError: If a label is missing, there is only one, or they look like scores or like no labels at all.
    """
    refuse_missing(texts, column, name)
    found = Counter(text for text in texts if text is not None)
    if len(found) < 2:
        raise InputError(
            f"task.label: all {len(texts):,} training rows have the same {name!r}, {shown(next(iter(found), ''))!r}.\n"
            "A classifier needs at least two labels. Is it the right column, and is the file sorted or cut?"
        )
    are_numbers = all(NUMBER.fullmatch(text) for text in found)
    if are_numbers and (broken := [text for text in found if not float(text).is_integer()]):
        raise InputError(
            f"task.label: {name!r} holds numbers with fractions ({', '.join(sorted(broken, key=float)[:SHOWN])}), "
            f"which are no classes.\nTo predict the number itself give task.target={name} instead of task.label."
        )
    if len(found) > most:
        what = (
            f"To predict the number itself give task.target={name} instead of task.label. If these are classes"
            if are_numbers
            else "Is it the column of the labels? If these are classes"
        )
        raise InputError(
            f"task.label: {name!r} has {len(found):,} different values in {len(texts):,} training rows "
            f"({', '.join(shown(text) for text, _ in found.most_common(SHOWN))} ...).\n"
            f"{what}: task.max_labels={len(found)}"
        )
    if order:
        return [label for label in order if label in found]
    if not are_numbers:
        return sorted(found)
    by_size = sorted(found, key=lambda text: (float(text), text))
    for first, second in pairwise(by_size):
        if float(first) == float(second):
            raise InputError(
                f"task.label: {name!r} writes one number in two ways, {first!r} ({found[first]:,} rows) and {second!r} "
                f"({found[second]:,} rows).\nWrite it in one."
            )
    return by_size


def refuse_missing(texts: Sequence[Any], column: Values, name: str) -> None:
    """Refuses rows without a label.

    Raises:
        InputError: Naming them.
    """
    if missing := [i for i, text in enumerate(texts) if text is None]:
        raise InputError(
            f"{column.split}: {len(missing):,} of {len(texts):,} rows have no {name!r} "
            f"({places(missing, column.place)}).\nGive them one, or remove them. Only a test file may lack all of its "
            "labels, and is not scored then."
        )


def indices(texts: Sequence[str | None], classes: Sequence[str], column: Values, name: str) -> list[int]:
    """Returns the classes of rows, counted from 0.

    Raises:
        InputError: If a row has no label, or one that the training rows do not have.
    """
    refuse_missing(texts, column, name)
    of = {label: index for index, label in enumerate(classes)}
    found = [of.get(str(text), -1) for text in texts]
    if -1 in found:
        unknown = [i for i, index in enumerate(found) if index < 0]
        others = ", ".join(repr(shown(text)) for text in dict.fromkeys(str(texts[i]) for i in unknown[: 100 * SHOWN]))
        raise InputError(
            f"{column.split}: {len(unknown):,} of {len(texts):,} rows have a {name!r} that no training row has: "
            f"{shown(others)} ({places(unknown, column.place)}).\n"
            f"Training has {shown(', '.join(map(repr, classes)))}. Remove these rows, or add such rows to training."
        )
    return found


def scores(column: Values, name: str) -> list[float]:
    """Returns the numbers of a column.

    Raises:
        InputError: If a value is none, or not finite.
    """
    found = [_score(value) for value in column.values]
    if wrong := [i for i, score in enumerate(found) if score is None]:
        hint = "Write 1.5 with a point." if "," in str(column.values[wrong[0]]) else "Correct or remove these rows."
        raise InputError(
            f"task.target: {len(wrong):,} of {len(found):,} rows of {column.split} have a {name!r} that is no finite "
            f"number (found: {shown(column.values[wrong[0]])!r}; {places(wrong, column.place)}).\n{hint}"
        )
    return [score for score in found if score is not None]


def _score(value: Any) -> float | None:
    if isinstance(value, str):
        text = value.strip()
        value = float(text) if NUMBER.fullmatch(text) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number beyond all floats
        return None


def refuse_constant(values: Sequence[float], name: str) -> None:
    """Refuses training rows that all have the same score.

    Raises:
        InputError: Naming it.
    """
    if min(values) == max(values):
        raise InputError(
            f"task.target: all {len(values):,} training rows have the same {name!r}, {values[0]:g}.\n"
            "Is it the right column?"
        )


def refuse_unlabelled(dev: Sequence[float], train: Sequence[float], name: str) -> None:
    """Refuses dev where all scores are -1, as where there is none in GLUE's test files, and training has no -1.

    Raises:
        InputError: Saying so.
    """
    if set(dev) == {-1.0} and -1.0 not in train:
        raise InputError(
            f"task.target: all {len(dev):,} rows of eval have -1 for {name!r}, which no training row has and which "
            "stands for no score in GLUE's test files.\nGive a file with scores, or leave it out: dev is then taken "
            "from train."
        )


def misspelt(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Returns pairs of labels that differ in upper and lower case alone."""
    seen: dict[str, str] = {}
    return [(seen[label.casefold()], label) for label in labels if seen.setdefault(label.casefold(), label) != label]
