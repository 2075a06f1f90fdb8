"""What a run answered for the examples of a split after an epoch, as predictions.parquet holds it. No torch."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lora_repro.tasks import TaskConfig

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


class Texts(NamedTuple):
    """What a run wrote for the examples of its last scored split, in the order of its record."""

    split: str
    """test, or eval where there is no test."""
    epoch: int
    ids: list[str]
    texts: list[str]
    references: list[list[str]]


def read_texts(path: Path) -> Texts | None:
    """Reads what predictions.parquet holds after the last epoch; None if it holds no texts with their references.

    Raises:
        OSError: If there is no such file.
        ValueError: If it is no Parquet file.
    """
    from pyarrow import parquet

    table = parquet.read_table(path)
    if not {"split", "epoch", "id", "prediction", "references"} <= {*table.column_names} or not table.num_rows:
        return None
    rows = table.select(["split", "epoch", "id", "prediction", "references"]).to_pylist()
    split = "test" if any(row["split"] == "test" for row in rows) else "eval"
    epoch = max(row["epoch"] for row in rows if row["split"] == split)
    last = [row for row in rows if (row["split"], row["epoch"]) == (split, epoch)]
    columns = ([row[name] for row in last] for name in ("id", "prediction", "references"))
    return Texts(split, epoch, *columns)


def read_shares(path: Path, task: "TaskConfig", epochs: list[int]) -> list[float] | None:
    """Returns how often a run is right about each example of dev, over its divisions, at epochs chosen on the others.

    Args:
        path: predictions.parquet.
        task: The run's task, whose dev split is all that has labels.
        epochs: Those after which it answered.

    Returns:
        Shares in [0, 1]; None if the task chooses epochs by another metric than accuracy, or answers or documents are
        missing.
    """
    from lora_repro.tasks.cross_fitting import shares_of_right
    from lora_repro.tasks.targets import ACCURACY

    if task.targets.metrics[0] != ACCURACY:
        return None
    found = [answers for epoch in epochs if (answers := read_answers(path, "eval", epoch)) is not None]
    if not found or len(found) < len(epochs) or found[0].documents is None:
        return None
    targets, *given = (
        [int(value) for value in values] for values in (found[0].labels, *(a.predictions for a in found))
    )
    return shares_of_right(task, targets, given, found[0].documents).tolist()
