"""The record of a run, its directory `outputs/runs/<run_id>/`. No torch."""

import dataclasses
import itertools
import json
import logging
import os
import shutil
import socket
import stat
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from lora_repro.config.resolve import Resolved
from lora_repro.config.settings import LogConfig
from lora_repro.errors import (
    AlreadyFinishedError,
    DivergedError,
    InputError,
    RunFailedError,
    cannot_write,
    not_ours,
)
from lora_repro.methods import MethodConfig
from lora_repro.store import files
from lora_repro.store.digests import digests_of, trained_files
from lora_repro.store.layout import CHECKPOINT, FILES, FOLDERS, PREDICTIONS, SETTINGS_KEY, SNAPSHOTS, TRAINED
from lora_repro.store.lock import GRACE_S, Lock, Owner, holder, remove_dead
from lora_repro.store.result import SCHEMA, Result, first_difference, read_result
from lora_repro.store.status import State, read_status

log = logging.getLogger(__name__)


class _RunLog(logging.Handler):
    """The run's log file. The run goes on if it cannot be written, because stderr has the same lines."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def emit(self, record: logging.LogRecord) -> None:
        """Appends a line."""
        try:
            files.append(self.path, self.format(record) + "\n")
        except OSError:
            return


class Record:
    """One run's directory.

    Args:
        outputs: The store (paths.outputs).
        run_id: The run's id, its directory's name under runs/.
    """

    def __init__(self, outputs: str | Path, run_id: str) -> None:
        self.run_id = run_id
        self.folder = Path(outputs) / "runs" / run_id
        self._lock = Lock(self.folder / "lock")

    def read(self) -> Result:
        """Reads result.json. A run is finished exactly when it parses and carries this run id and schema."""
        return read_result(self.folder)

    @property
    def state(self) -> State:
        """The run's state."""
        return self.read_state()[0]

    def read_state(self) -> tuple[State, dict[str, Any] | None]:
        """Returns the run's state, and its result if it is finished.

        A run is finished if it has a result, running if its lock is held, and otherwise what status.json says.
        """
        result, problem, is_damaged = self.read()
        if result is not None:
            return State.finished, result
        if problem is not None and not is_damaged:
            return State.blocked, None
        if self.holder() is not None:
            return State.running, None
        try:
            state = State(self.status()["state"])
        except (ValueError, KeyError):
            return State.todo, None
        if state is State.running:
            return State.stale, None
        return State.todo if state is State.finished else state, None  # its result is gone or damaged

    def holder(self) -> Owner | None:
        """Returns the process that computes the run, or None."""
        return holder(self.folder / "lock")

    def is_free(self) -> bool:
        """Tells whether no process computes the run, and removes the lock of a machine that counts as dead."""
        if self.holder() is not None:
            return False
        remove_dead(self.folder / "lock")
        return True

    @contextmanager
    def running(self, resolved: Resolved) -> Iterator[None]:
        """Holds the run's lock while it is computed, and records in status.json how that ended.

        Raises:
            RunBusyError: If another process computes the run.
            AlreadyFinishedError: If another process has finished it.
            InputError: If the directory cannot be written, or holds a result that is foreign or cannot be read.
        """
        is_new = not self.folder.exists()
        self._make_room(resolved)
        handler = _RunLog(self.folder / "run.log")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger().addHandler(handler)
        try:
            yield
        except AlreadyFinishedError:
            self._end(State.finished, None)
            self._tidy()
            raise
        except DivergedError as error:
            self._end(State.diverged, error)
            raise
        except InputError as error:
            has_begun = any(os.path.lexists(self.folder / name) for name in ("metrics.jsonl", "result.json"))
            if is_new and not has_begun:  # no trace is left
                shutil.rmtree(self.folder, ignore_errors=True)
            else:
                self._end(State.interrupted, error)
            raise
        except (KeyboardInterrupt, SystemExit):
            self._end(State.interrupted, None)
            raise
        except OSError as error:
            self._end(State.interrupted, error)
            raise
        except BaseException as error:
            self._end(State.failed, error)
            raise
        finally:
            logging.getLogger().removeHandler(handler)
            self._lock.release()

    def refuse_loss_of_lock(self) -> None:
        """Ends a run that another machine computes: it took over while this one was stopped, or began with it.

        Raises:
            RunFailedError: If the lock is no longer this process's.
        """
        if not self._lock.is_ours():
            raise RunFailedError(
                f"{self.run_id}: another process has this run's lock and computes it. It took the run over, because "
                f"this one had not renewed its lock for {GRACE_S / 60:g} minutes; or it began at the same moment on "
                "another machine, and the file system passes no locks on."
            )

    def refuse_to_write_over(self, metrics_by_epoch: list[dict[str, Any]]) -> None:
        """Stops before this process writes over the files of another one that has finished the run meanwhile.

        Args:
            metrics_by_epoch: The metrics computed here. The warning says whether they equal the other ones.

        Raises:
            AlreadyFinishedError: If its result is there.
            InputError: If a result is there that cannot be read.
            RunFailedError: If the lock is no longer this process's.
        """
        self.refuse_loss_of_lock()
        try:
            self._make_way()
        except AlreadyFinishedError as error:
            other = first_difference(error.result["metrics_by_epoch"], metrics_by_epoch)
            log.warning(
                "%s was finished by another process meanwhile. Its result is kept, and the one computed here is not; "
                "its metrics %s.",
                self.run_id, f"differ: {other}" if other else "are the same",
            )  # fmt: skip
            raise

    def status(self) -> dict[str, Any]:
        """Reads status.json; a missing or damaged one is empty."""
        return read_status(self.folder)

    def log_metrics(self, row: dict[str, Any]) -> None:
        """Appends an object to metrics.jsonl."""
        files.append(self.folder / "metrics.jsonl", json.dumps(row) + "\n")

    def reset_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Sets metrics.jsonl back to the rows of a checkpoint."""
        files.write_atomically(self.folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def save_predictions(self, rows: list[dict[str, Any]]) -> None:
        """Writes predictions.parquet, a row for each prediction."""
        import pyarrow
        from pyarrow import parquet

        sink = pyarrow.BufferOutputStream()
        parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
        files.write_atomically(self.folder / PREDICTIONS, sink.getvalue().to_pybytes())

    def finish(self, result: dict[str, Any], written: Iterable[Path]) -> None:
        """Writes result.json, last and atomically. From then on the run is finished.

        Args:
            result: What it holds beside the schema and the sha256 of files.
            written: The files of the run's method.

        Raises:
            AlreadyFinishedError: As `refuse_to_write_over` does, and its other errors.
        """
        self.refuse_to_write_over(result["metrics_by_epoch"])
        self._write_result({"schema": SCHEMA, **result, "digests": digests_of(self.folder, written)})
        self._write_status(State.finished)
        self._tidy()

    def tidy(self) -> None:
        """Removes what a kill has left beside a finished run: checkpoints and partial files. Corrects its status."""
        try:
            self._lock.acquire(is_patient=False)
        except (RunFailedError, InputError, OSError):
            return  # another process does it, or the store is read-only
        try:
            if self.read().result is not None:
                if self.status().get("state") != State.finished.value:
                    self._write_status(State.finished)
                self._tidy()
        except OSError as error:
            log.debug("%s: not tidied (%s).", self.run_id, error)
        finally:
            self._lock.release()

    @property
    def is_tidy(self) -> bool:
        """Tells whether `tidy` has nothing to do."""
        leftover = (CHECKPOINT, "lock", f".result.json{files.PARTIAL}", f".status.json{files.PARTIAL}")
        return self.status().get("state") == State.finished.value and not any(
            (self.folder / name).exists() for name in leftover
        )

    def missing_outputs(self, settings: LogConfig, method: MethodConfig) -> list[str]:
        """Returns the files that `log` asks for and that a finished run's directory does not hold.

        save_full asks for all that is trained: also where the method always writes it, as a ledger keeps none of it.
        """
        wanted = [self.snapshot_path(fraction) for fraction in settings.snapshots]
        if settings.save_full and (result := self.read().result) is not None:
            on_request = [self.folder / (method.folder or TRAINED)] if method.is_saved_on_request else []
            wanted += trained_files(self.folder, result) or on_request
        return [path.relative_to(self.folder).as_posix() for path in wanted if not path.exists()]

    def snapshot_path(self, fraction: float) -> Path:
        """Returns the file of the snapshot after this fraction of training."""
        return self.folder / SNAPSHOTS / f"{fraction:g}.safetensors"

    def adopt(self, other: "Record") -> None:
        """Moves files that are missing here from another record of the same run, and adds their digests to the result.

        A run that was restored from a ledger lacks its configuration and its curves too, which come first. The digests
        are written before their files: a kill between the two leaves a digest without its file, and the same command
        then makes the file again. A result of an early version has no digests and gets none.
        """
        ours, theirs = self.read().result, other.read().result
        assert ours is not None and theirs is not None
        missing = {name: theirs["digests"][name] for name in theirs["digests"] if not (self.folder / name).exists()}
        unhashed = [name for name in ("config.yaml", "metrics.jsonl") if not (self.folder / name).exists()]
        for name in unhashed:
            os.replace(other.folder / name, self.folder / name)
        if "digests" in ours:
            self._write_result(ours | {"digests": ours["digests"] | missing})
        for name in missing:
            (self.folder / name).parent.mkdir(exist_ok=True)
            os.replace(other.folder / name, self.folder / name)
            files.sync_folder((self.folder / name).parent)

    def discard_checkpoint(self) -> None:
        """Removes the checkpoints."""
        shutil.rmtree(self.folder / CHECKPOINT, ignore_errors=True)

    def discard(self) -> None:
        """Removes the directory."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write_result(self, result: dict[str, Any]) -> None:
        text = json.dumps(result, indent=1, allow_nan=False) + "\n"
        files.write_atomically(self.folder / "result.json", text)

    def _tidy(self) -> None:
        self.discard_checkpoint()
        for partial in self.folder.rglob(f".*{files.PARTIAL}"):
            files.remove(partial)

    def _make_room(self, resolved: Resolved) -> None:
        """Takes the lock and prepares the directory for a new attempt."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            self._begin(resolved)
        except OSError as error:
            self._lock.release()
            raise self._unwritable(error) from error
        except BaseException:
            self._lock.release()
            raise

    def _make_way(self) -> None:
        """Moves a damaged result aside.

        Raises:
            AlreadyFinishedError: If the result is whole.
            InputError: If it is foreign or cannot be read.
        """
        found = self.read()
        if found.result is not None:
            raise AlreadyFinishedError(self.run_id, found.result)
        if found.problem is None:
            return
        if not found.is_damaged:
            raise InputError(f"{found.problem}\n{found.remedy}")
        names = (self.folder / f"result.json.damaged{i or ''}" for i in itertools.count())
        aside = next(path for path in names if not os.path.lexists(path))
        log.warning("%s It is kept as %s, and the run is computed again.", found.problem, aside.name)
        os.replace(self.folder / "result.json", aside)

    def _refuse_foreign_files(self, method: MethodConfig) -> None:
        """Refuses links, and anything that is not a file (or folder), under the names that the run writes."""
        folders = [*FOLDERS, *filter(None, [method.folder])]
        kinds = {**dict.fromkeys(FILES, stat.S_ISREG), **dict.fromkeys(folders, stat.S_ISDIR)}
        for name, is_ours in kinds.items():
            path = self.folder / name
            if os.path.lexists(path) and not is_ours(os.lstat(path).st_mode):
                raise not_ours(path)

    def _begin(self, resolved: Resolved) -> None:
        self._refuse_foreign_files(resolved.run.method)
        self._make_way()
        for partial in self.folder.rglob(f".*{files.PARTIAL}"):
            files.remove(partial)
        before = self.status()
        died = before.get("state") == State.running.value
        self._write_status(
            State.running,
            attempts=before.get("attempts", 0) + 1,
            deaths=before.get("deaths", 0) + died,
            started=time.time(),
        )
        files.write_atomically(self.folder / "config.yaml", _config_yaml(resolved))

    def _end(self, state: State, error: BaseException | None) -> None:
        """Records how an attempt ended, if the disk allows it: nothing depends on it."""
        if not self._lock.is_ours():
            return
        try:
            if state is State.failed:
                files.append(self.folder / "run.log", traceback.format_exc())
            reason = {} if error is None else {"error": f"{type(error).__name__}: {error}"[-2000:]}
            self._write_status(state, **reason)
        except OSError as problem:
            log.warning("%s ended as %s, which could not be recorded (%s).", self.run_id, state.value, problem.strerror)

    def _write_status(self, state: State, **more: Any) -> None:
        """Writes status.json, for people to read. A sweep reads only `failed` and `diverged`, which it leaves out."""
        known = {key: value for key, value in self.status().items() if key in ("attempts", "deaths", "started")}
        status = {"run_id": self.run_id, "state": state.value, "host": socket.gethostname(), "pid": os.getpid()}
        files.write_atomically(
            self.folder / "status.json",
            json.dumps({**known, **status, "updated": time.time(), **more}, indent=1) + "\n",
        )

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            f"paths.outputs: {cannot_write(self.folder, error)}.\nGive a folder that can: paths.outputs=DIR"
        )


def plain(value: Any) -> Any:
    """Turns a typed configuration into what JSON and YAML hold, field for field."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def _config_yaml(resolved: Resolved) -> str:
    parts = {"run": plain(resolved.run), SETTINGS_KEY: plain(resolved.settings)}
    return yaml.safe_dump(parts, sort_keys=False)
