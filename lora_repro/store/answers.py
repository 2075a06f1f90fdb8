"""What a run answered for the examples of a split after an epoch, as predictions.parquet holds it. No torch."""

from pathlib import Path
from typing import NamedTuple

KEYS = ("split", "epoch", "id", "document", "input", "prediction", "scores")
"""Columns that are not the target, which has a name of its own in each kind of task."""


class Answers(NamedTuple):
    """The answers of a run for one split after one epoch, in the order of the examples."""

    epoch: int
    labels: list[str]
    """Targets, as text."""
    predictions: list[str]
    """Answers, as text."""
    documents: list[int] | None
    """The document of each example, counted from 0; None of records from before it was kept."""


def read_answers(path: Path, split: str, epoch: int) -> Answers | None:
    """Reads predictions.parquet; None if there is no file, or nothing in it of this split and epoch."""
    from pyarrow import parquet

    if not path.is_file():
        return None
    table = parquet.read_table(path, filters=[("split", "=", split), ("epoch", "=", epoch)])
    if not table.num_rows:
        return None
    target = next(name for name in table.column_names if name not in KEYS)
    labels, predictions = ([str(value) for value in table.column(name).to_pylist()] for name in (target, "prediction"))
    documents = table.column("document").to_pylist() if "document" in table.column_names else None
    return Answers(epoch, labels, predictions, documents)
