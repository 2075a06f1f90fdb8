"""Reads a store: all its finished runs as a frame, and the status of one run."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from analysis.states import NOT_COUNTED
from analysis.store import opened
from lora_repro.config.identity import RUN_ID
from lora_repro.config.identity import run_id as id_of
from lora_repro.errors import InputError
from lora_repro.store.finished_runs import numerics_version, run_of
from lora_repro.store.listing import Listing
from lora_repro.store.lock import GRACE_S, Owner
from lora_repro.store.reading import read_bytes
from lora_repro.store.record import Record
from lora_repro.store.result import read_result
from lora_repro.store.status import State, last_written
from lora_repro.sweep.watch import duration

WHOLE = ("metrics_by_epoch", "params.by_module")
"""Values that stay one column, as the record holds them."""

NOT_COLUMNS = ("schema", "run_id", "config", "metrics", "digests")
"""Keys of a result that are no columns, or are columns of their own."""

NUMERICS = "provenance.numerics_version"
"""The column that tells rows apart whose numbers cannot be compared."""


class RunStatus(NamedTuple):
    """The status of a run."""

    state: str
    """A key of analysis.states.STATES."""
    reason: str | None
    """Who computes it, or why it failed, diverged, was interrupted or is not counted, as far as the record says."""
    result: dict[str, Any] | None
    """What result.json holds, when the run is finished."""


def run_status(store: str | Path, run_id: str) -> RunStatus:
    """Returns the status of a run in a store; one without a directory is `todo`."""
    record = Record(store, run_id)
    result, problem, _ = record.read()
    if result is not None:
        return RunStatus(State.finished.value, None, result)
    if problem is not None:
        return RunStatus(NOT_COUNTED, problem, None)
    state, status = record.state, record.status()
    if state is State.running:
        return RunStatus(state.value, _running(record.holder(), record.folder), None)
    if state is State.stale:
        who = f"process {status.get('pid')} on {status.get('host')}"
        sign = last_written(record.folder)
        since = "" if sign is None else f"; it last wrote something {_when(sign)}"
        goes_on = _computed_anew(record.folder) or "the sweep's command continues the run"
        reason = f"{who} ended without a message{since}; {goes_on}"
        return RunStatus(state.value, reason, None)
    error = status.get("error")
    return RunStatus(state.value, str(error) if error is not None else None, None)


def run_states(store: str | Path, run_ids: Iterable[str]) -> Iterator[tuple[str, str, str | None]]:
    """Yields the id, state and reason of runs; a look at the store tells which of them have a directory."""
    listing = Listing(store)
    for run_id in run_ids:
        if listing.may_have(run_id):
            yield (run_id, *run_status(store, run_id)[:2])
        else:
            yield run_id, State.todo.value, None


def _running(owner: Owner | None, folder: Path) -> str:
    """Says who computes a run, and since when its lock is untouched if the owner is silent or on another machine."""
    who = f"by {owner if owner is not None else 'another process'}"
    try:
        sign = (folder / "lock").stat().st_mtime
    except OSError:  # it has just ended
        return who
    if owner is None or not owner.is_elsewhere:
        return who + (f"; it last touched its lock {_when(sign)}" if time.time() - sign > GRACE_S else "")
    goes_on = f"the sweep's command takes the run over once the lock has not been touched for {GRACE_S:.0f} s"
    return (
        f"{who}; its lock was last touched {_when(sign)}. If that machine is gone, {_computed_anew(folder) or goes_on}"
    )


def _computed_anew(folder: Path) -> str | None:
    """Says that no command continues a run, if its configuration has another id in this version; else None."""
    config = configured(folder)
    if not config:
        return None
    try:
        now = id_of(run_of({"run_id": folder.name, "config": config}))
    except InputError:
        return "this version cannot continue the run, because its config.yaml does not fit"
    if now == folder.name:
        return None
    return (
        f"code of other numerics began it, and no command continues it: the sweep's command computes the run as {now}"
    )


def configured(folder: Path) -> dict[str, Any]:
    """Returns the configuration of a run that has no result, as far as its config.yaml says."""
    try:
        text = read_bytes(folder / "config.yaml")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            return {}  # records have no aliases, and nested aliases in a small file can fill the memory
        content = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    run = content.get("run") if isinstance(content, dict) else None
    return run if isinstance(run, dict) else {}


def _when(moment: float) -> str:
    """Writes a file's time, and how long ago that is by this machine's clock."""
    ago = time.time() - moment
    away = f"{duration(ago)} ago" if ago >= 0 else f"{duration(-ago)} ahead of this machine's clock"
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(moment))} ({away})"


def runs_folder(store: str | Path) -> Path:
    """Returns the folder of a store that holds its runs.

    Raises:
        InputError: If there is none.
    """
    folder = Path(store) / "runs"
    if not folder.is_dir():
        raise InputError(
            f"{store}: no store of runs, it has no folder runs/.\nGive the folder that paths.outputs names."
        )
    return folder


def load_runs(store: str | Path) -> pd.DataFrame:
    """Returns one row for each finished run of a store or of a ledger, sorted by run id.

    Columns: `run_id`; the configuration, dotted (`method.r`, `task.name`, `seed`); the last epoch's metrics
    (`eval/accuracy`, in [0, 1]); `metrics_by_epoch`; `params.method`, `flags.one_class`, `data.train.n`,
    `provenance.commit`; times as the record names them (`run_seconds`). Only rows of one `provenance.numerics_version`
    are comparable; records from before it was recorded are told by their ids.

    Runs whose result does not count are no rows: `frame.attrs["problems"]` says which and why.

    Raises:
        InputError: If it is no store and no ledger.
    """
    with opened(str(store)) as folder:
        return _load_runs(runs_folder(folder))


def _load_runs(folder: Path) -> pd.DataFrame:
    rows, problems = [], []
    for name in sorted(entry.name for entry in os.scandir(folder) if RUN_ID.fullmatch(entry.name) and entry.is_dir()):
        result, problem, _ = read_result(folder / name)
        if result is not None:
            rows.append(_row(result))
        elif problem is not None:
            problems.append(problem)
    frame = pd.DataFrame(rows) if rows else pd.DataFrame({"run_id": []})
    frame.attrs["problems"] = problems
    return frame


def _row(result: dict[str, Any]) -> dict[str, Any]:
    row = {"run_id": result["run_id"]}
    _flatten(result["config"], "", row)
    row |= result["metrics"]
    _flatten({key: value for key, value in result.items() if key not in NOT_COLUMNS}, "", row)
    row[NUMERICS] = numerics_version(result)
    return row


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Joins nested keys by dots."""
    joined: dict[str, Any] = {}
    _flatten(values, "", joined)
    return joined


def _flatten(values: Mapping[str, Any], prefix: str, joined: dict[str, Any]) -> None:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name not in WHOLE:
            _flatten(value, f"{name}.", joined)
        else:
            joined[name] = value
