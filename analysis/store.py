"""The store that commands read: its default, how a command line names another, and ledgers that stand for one."""

import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lora_repro.errors import InputError

if TYPE_CHECKING:
    from lora_repro.store.answers import Answers
    from lora_repro.store.ledger import Row

DEFAULT_STORE = "outputs"
"""The folder that holds runs/, if none is given."""

_LEDGERS: dict[str, "_Open"] = {}
"""The ledgers that are open, by the folder that stands for each."""


class _Open(NamedTuple):
    """A ledger, or a folder of them, that stands for a store."""

    path: str
    rows: "dict[str, Row]"
    """By run id."""


@contextmanager
def opened(store: str) -> Iterator[str]:
    """Yields the folder of a store: of a ledger, or of a folder of ledgers, one that holds its runs until the end.

    Of a run that several ledgers keep, the first ledger by name counts.

    Raises:
        InputError: If there is no such ledger, or the file is neither one nor a folder.
    """
    from analysis.section7.statistics import merge_files
    from lora_repro.store import ledger, statistics_files

    paths = ledger.ledgers_of(store)
    if not paths:
        if Path(store).is_file():
            raise InputError(f"{store}: no store is a file. Give the folder that holds runs/, or a ledger, *.parquet.")
        yield store
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "runs").mkdir()
        read = [ledger.read(path) for path in paths]
        rows = ledger.merge(*(each.rows for each in read))
        ledger.restore(rows, folder, is_lasting=False)
        for each in reversed(read):  # the first counts here too
            statistics_files.restore(
                merge_files(each.statistics, statistics_files.texts_of(folder, each.statistics)), folder
            )
        _LEDGERS[folder] = _Open(store, {row.run_id: row for row in rows})
        try:
            yield folder
        finally:
            del _LEDGERS[folder]


def name_of(store: str | Path) -> str:
    """Returns what a user calls a store."""
    return _LEDGERS[str(store)].path if str(store) in _LEDGERS else str(store)


def answers_of(store: str | Path, run_id: str, split: str, epoch: int) -> "Answers | None":
    """Returns what a run answered for a split after an epoch; None if neither the store nor its ledger keeps it.

    Args:
        store: The folder that holds runs/, or stands for a ledger.
        run_id: The run's id.
        split: `eval` or `test`.
        epoch: As the record counts epochs.
    """
    from lora_repro.store.answers import read_answers
    from lora_repro.store.layout import PREDICTIONS
    from lora_repro.store.record import Record

    if str(store) not in _LEDGERS:
        return read_answers(Record(store, run_id).folder / PREDICTIONS, split, epoch)
    row = _LEDGERS[str(store)].rows.get(run_id)
    kept = None if row is None else row.eval if split == "eval" else row.test
    return kept if kept is not None and kept.epoch == epoch else None


def shares_of(store: str | Path, run_id: str) -> list[float] | None:
    """Returns how often a run without test is right about each example of dev, as `read_shares` has it.

    None of a run with test, or if neither the store nor its ledger keeps the answers.
    """
    row = next(iter(rows_of(store, [run_id])), None)
    return None if row is None else row.shares


def rows_of(store: str | Path, run_ids: Collection[str]) -> "list[Row]":
    """Returns what a ledger keeps of runs that ended: of a store that stands for one, that ledger's own rows."""
    from lora_repro.store import ledger

    if str(store) not in _LEDGERS:
        return ledger.collect(store, run_ids)
    wanted = set(run_ids)
    return [row for row in _LEDGERS[str(store)].rows.values() if row.run_id in wanted]


def store_arguments(store: str | Path) -> list[str]:
    """Returns the option by which `python -m analysis` reads this store; none for the default."""
    return [] if str(store) == DEFAULT_STORE else ["--runs", name_of(store)]


def folder_arguments(store: str | Path) -> list[str]:
    """Returns `store_arguments` for commands that write into the store: none for a ledger, which is not written to."""
    return [] if str(store) in _LEDGERS else store_arguments(store)


def elsewhere(store: str | Path) -> list[str]:
    """Returns the override by which a run writes into this store; none for the default, and for a ledger."""
    from lora_repro.sweep.grid import overrides

    return [] if str(store) in (DEFAULT_STORE, *_LEDGERS) else overrides({"paths.outputs": str(store)})
