"""A ledger: one Parquet file that keeps what tables and figures need of many runs, small enough to be committed.

A row is a run that ended: its id, its state (finished or diverged), its result.json, and what it answered for dev after
the last epoch and for test after the epoch that is best on dev; where dev is all that has labels, how often it is right
about each example at an epoch that other examples chose. Weights, logs and curves are not in it; statistics of
the weights are. `restore` makes a store of it, in which those runs count as finished, so a sweep goes on from a ledger
as from its own store. No torch.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from lora_repro.config.identity import RUN_ID
from lora_repro.errors import InputError, MissingInputError
from lora_repro.store import files, statistics_files
from lora_repro.store.answers import Answers, read_answers, read_shares
from lora_repro.store.finished_runs import run_of
from lora_repro.store.layout import PREDICTIONS
from lora_repro.store.reading import parse_json
from lora_repro.store.record import Record
from lora_repro.store.result import answered_epochs
from lora_repro.store.status import State

SCHEMA = 2
"""Version of the file; a reader refuses others."""
ABOUT = b"lora_repro"
"""The key of the file's metadata that holds its schema, and the command that wrote it."""
STATISTICS = b"lora_repro.statistics"
"""The key of the file's metadata that holds the statistics of its runs' weights; absent where there are none."""
NO_STATISTICS: Mapping[str, str] = MappingProxyType({})
SUFFIX = ".parquet"
ENDED = (State.finished, State.diverged)


class Row(NamedTuple):
    """A run that ended."""

    run_id: str
    state: str
    result: str | None
    """What result.json holds; None of a run that diverged."""
    error: str | None
    """Why it diverged."""
    eval: Answers | None
    """What it answered for dev after the last epoch; None where the store has no predictions."""
    test: Answers | None
    """The same for test, after the epoch that is best on dev."""
    shares: list[float] | None = None
    """Of a run without test, `read_shares`; None in ledgers from before it was kept."""


class Ledger(NamedTuple):
    """What a file holds."""

    rows: list[Row]
    about: dict[str, Any]
    """The command that wrote it."""
    statistics: dict[str, str]
    """Statistics of the runs' weights: the files of `lora_repro.store.statistics_files`, by name."""


def is_ledger(path: str | Path) -> bool:
    """Tells whether a store that is given is a ledger, be it there or not."""
    return Path(path).suffix == SUFFIX and not Path(path).is_dir()


def ledgers_of(store: str | Path) -> list[Path]:
    """Returns the ledgers that a store is made of: itself, or those of a folder without runs/, by name; else none."""
    if is_ledger(store):
        return [Path(store)]
    folder = Path(store)
    return sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() and not (folder / "runs").is_dir() else []


def collect(store: str | Path, run_ids: Iterable[str]) -> list[Row]:
    """Returns the runs of a store that ended, sorted by id."""
    found = []
    for run_id in sorted(set(run_ids)):
        record = Record(store, run_id)
        state, result = record.read_state()
        if state is State.finished and result is not None:
            text = json.dumps(result, indent=1, allow_nan=False) + "\n"  # as the record writes it
            found.append(Row(run_id, state.value, text, None, *_answers(record.folder / PREDICTIONS, result)))
        elif state is State.diverged:
            found.append(Row(run_id, state.value, None, str(record.status().get("error", "")), None, None))
    return found


def _answers(path: Path, result: Mapping[str, Any]) -> tuple[Answers | None, Answers | None, list[float] | None]:
    """Returns what a run answered for dev after its last epoch, for test after the epoch best on dev, and its shares.

    Of epochs, only those count after which it answered.
    """
    try:
        task = run_of(result).task
    except InputError:  # a task that this version does not have
        return None, None, None
    metric = task.targets.metrics[0]
    answered = answered_epochs(result, key := f"eval/{metric.name}")
    if not answered:
        return None, None, None
    epochs = [row["epoch"] for row in answered]
    best = epochs[metric.best([row[key] for row in answered])]
    shares = read_shares(path, task, epochs) if "cross_fitted" in result else None
    return read_answers(path, "eval", epochs[-1]), read_answers(path, "test", best), shares


def write(
    path: Path, rows: Iterable[Row], about: Mapping[str, str], statistics: Mapping[str, str] = NO_STATISTICS
) -> None:
    """Writes a ledger, atomically; the same rows give the same bytes.

    Args:
        path: The file, *.parquet.
        rows: Its runs.
        about: The command, for readers.
        statistics: Those of its runs' weights, by file name.

    Raises:
        OSError: If it cannot be written.
    """
    import pyarrow
    from pyarrow import parquet

    texts, numbers = pyarrow.list_(pyarrow.string()), pyarrow.list_(pyarrow.int32())
    answers = pyarrow.struct(
        {"epoch": pyarrow.int32(), "labels": texts, "predictions": texts, "documents": numbers}.items()
    )
    kinds = dict.fromkeys(Row._fields, pyarrow.string()) | {"eval": answers, "test": answers}
    kinds |= {"shares": pyarrow.list_(pyarrow.float32())}
    metadata = {ABOUT: json.dumps({"schema": SCHEMA, **about}).encode()}
    if statistics:
        metadata[STATISTICS] = statistics_files.pack(statistics)
    schema = pyarrow.schema(list(kinds.items()), metadata)
    ordered = sorted(rows, key=lambda row: row.run_id)
    table = pyarrow.Table.from_pylist([_plain(row) for row in ordered], schema)
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd", compression_level=19, row_group_size=len(ordered) or 1)
    files.write_atomically(path, sink.getvalue().to_pybytes())


def _plain(row: Row) -> dict[str, Any]:
    return {key: value._asdict() if isinstance(value, Answers) else value for key, value in row._asdict().items()}


def _row(plain: Mapping[str, Any]) -> Row:
    kept = {key: None if plain[key] is None else Answers(**plain[key]) for key in ("eval", "test")}
    return Row(**{**plain, **kept})


def read(path: str | Path) -> Ledger:
    """Reads a ledger.

    Raises:
        MissingInputError: If there is no such file.
        InputError: If it is no ledger, or of another version.
    """
    from pyarrow import ArrowException, parquet

    if not Path(path).is_file():
        raise MissingInputError(
            f"{path}: there is no such ledger. Write it: python -m analysis ledger write {path} ..."
        )
    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise InputError(f"{path}: this is no Parquet file ({' '.join(str(error).split())[:120]}).") from error
    metadata = table.schema.metadata or {}
    given = metadata.get(ABOUT)
    about = parse_json(given) if given is not None else {}
    if about.get("schema") != SCHEMA or set(table.column_names) | {"shares"} != set(Row._fields):
        raise InputError(
            f"{path}: this is no ledger of version {SCHEMA} (its version: {about.get('schema')}; its columns: "
            f"{', '.join(table.column_names)[:120]}).\n"
            "Give one that `python -m analysis ledger write` wrote."
        )
    rows = [_row(each) for each in table.to_pylist()]
    for row in rows:
        if RUN_ID.fullmatch(row.run_id) is None or row.state not in {state.value for state in ENDED}:
            raise InputError(f"{path}: {row.run_id[:80]!r} ({row.state[:20]}) is no run that ended.")
    try:
        statistics = statistics_files.unpack(metadata[STATISTICS]) if STATISTICS in metadata else {}
    except ValueError as error:
        raise InputError(f"{path}: its statistics are damaged ({error}).\nWrite the ledger again.") from error
    return Ledger(rows, {key: value for key, value in about.items() if key != "schema"}, statistics)


def merge(*ledgers: Iterable[Row]) -> list[Row]:
    """Returns the runs of several ledgers; of a run that is in more than one the first counts, unless it diverged.

    A store that was made of a ledger has no predictions: those of the same result are kept.
    """
    found: dict[str, Row] = {}
    for row in (row for rows in ledgers for row in rows):
        first = found.get(row.run_id)
        if first is None or first.result is None or (first.eval is None and first.result == row.result):
            found[row.run_id] = row
    return list(found.values())


def restore(rows: Iterable[Row], store: str | Path, is_lasting: bool = True) -> list[str]:
    """Writes the runs of a ledger into a store, but for those that it has or that are being computed.

    Args:
        rows: Of a ledger.
        store: The folder that holds runs/.
        is_lasting: Whether anything will be computed in it: a folder that is read once needs no status.json beside a
            result, nor to survive a power cut. A thousand runs take seconds less.

    Returns:
        The ids of the runs that were written.

    Raises:
        OSError: If they cannot be written.
    """
    written = []
    for row in rows:
        record = Record(store, row.run_id)
        if record.read_state()[0] in (*ENDED, State.running, State.blocked):
            continue
        record.folder.mkdir(parents=True, exist_ok=True)
        status = {"run_id": row.run_id, "state": row.state} | ({} if row.error is None else {"error": row.error})
        if is_lasting or row.result is None:
            files.write_atomically(record.folder / "status.json", json.dumps(status, indent=1) + "\n", is_lasting)
        if row.result is not None:
            files.write_atomically(record.folder / "result.json", row.result, is_lasting)
        written.append(row.run_id)
    return written
