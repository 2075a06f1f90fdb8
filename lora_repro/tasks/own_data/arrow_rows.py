"""Rows of data sets that the library datasets has read. No torch.

datasets is imported where it is needed, as it takes seconds.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lora_repro.errors import InputError, shown
from lora_repro.tasks.rows import Rows, no_column


class Declared(NamedTuple):
    """Rows, and what the data set declares about their labels."""

    rows: Rows
    names: list[str]
    """The names of the classes in the data set's order (ClassLabel); empty where it declares none."""


def saved(folder: Path, only: Sequence[str], optional: Sequence[str], label: str | None) -> dict[str, Declared]:
    """Reads a folder that `save_to_disk` of datasets wrote.

    Args:
        folder: The folder.
        only: The columns that are kept, and must be there.
        optional: Columns that are kept where they are there.
        label: The column whose class names are asked for.

    Returns:
        The rows of each split as the data set calls it; under "" where it has no splits.

    Raises:
        InputError: If it cannot be read, or has no such column.
    """
    from datasets import Dataset, load_from_disk

    try:
        found = load_from_disk(str(folder))
    except Exception as error:  # of many kinds, as the files may hold anything
        raise InputError(
            f"paths.data: datasets cannot read {folder} ({shown(error)}).\nSave it again with save_to_disk."
        ) from None
    splits = {"": found} if isinstance(found, Dataset) else {str(name): part for name, part in found.items()}
    return {split: declared(part, split or folder.name, only, optional, label) for split, part in splits.items()}


def named(numbers: Sequence[int | None], classes: Sequence[str]) -> list[str | None]:
    """Returns the names behind the numbers of classes; None where datasets has written -1, as there is no label."""
    return [classes[number] if number is not None and number >= 0 else None for number in numbers]


def declared(dataset: Any, name: str, only: Sequence[str], optional: Sequence[str], label: str | None) -> Declared:
    """Returns the rows of a split.

    Args:
        dataset: A `Dataset` of datasets.
        name: What messages call it.
        only: The columns that are kept, and must be there.
        optional: Columns that are kept where they are there.
        label: The column whose class names are asked for.

    Raises:
        InputError: If there is no such column.
    """
    from datasets import ClassLabel

    names = list(dataset.column_names)
    for column in only:
        if column not in names:
            raise no_column(name, column, names)
    kept = list(dict.fromkeys([*only, *(column for column in optional if column in names)]))
    table = dataset.select_columns(kept).with_format("arrow")[:]
    columns = {column: table.column(column).to_pylist() for column in kept}
    kind = dataset.features.get(label) if label in kept else None
    classes = [*map(str, kind.names)] if isinstance(kind, ClassLabel) else []
    if classes and label is not None:
        columns[label] = named(columns[label], classes)
    return Declared(Rows(name, columns, range(1, len(dataset) + 1), "row"), classes)
