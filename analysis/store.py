"""The store that commands read: its default, how a command line names another, and ledgers that stand for one."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEFAULT_STORE = "outputs"
"""The folder that holds runs/, if none is given."""

_LEDGERS: dict[str, str] = {}
"""The ledgers that are open, by the folder that stands for each."""


@contextmanager
def opened(store: str) -> Iterator[str]:
    """Yields the folder of a store: of a ledger one that holds its runs until the end.

    Raises:
        InputError: If the file is no ledger.
    """
    from lora_repro.store import ledger, statistics_files

    if not ledger.is_ledger(store):
        yield store
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "runs").mkdir()
        found = ledger.read(store)
        ledger.restore(found.rows, folder)
        statistics_files.restore(found.statistics, folder)
        _LEDGERS[folder] = store
        try:
            yield folder
        finally:
            del _LEDGERS[folder]


def name_of(store: str | Path) -> str:
    """Returns what a user calls a store."""
    return _LEDGERS.get(str(store), str(store))


def store_arguments(store: str | Path) -> list[str]:
    """Returns the option by which `python -m analysis` reads this store; none for the default."""
    return [] if str(store) == DEFAULT_STORE else ["--runs", name_of(store)]


def elsewhere(store: str | Path) -> list[str]:
    """Returns the override by which a run writes into this store; none for the default, and for a ledger."""
    from lora_repro.sweep.grid import overrides

    return [] if str(store) in (DEFAULT_STORE, *_LEDGERS) else overrides({"paths.outputs": str(store)})
