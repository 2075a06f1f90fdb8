"""The record of a run, `outputs/runs/<run_id>/`: written here, read here. No torch."""

import dataclasses
import json
import logging
import os
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lora_repro.config import Resolved
from lora_repro.errors import DivergedError, InputError

SCHEMA = 1
"""Version of result.json; a reader refuses others."""

log = logging.getLogger(__name__)


class State(str, Enum):
    """What status.json says of a run; `todo` stands for a run without a directory."""

    todo = "todo"
    running = "running"
    failed = "failed"
    diverged = "diverged"
    interrupted = "interrupted"
    finished = "finished"


class Result(NamedTuple):
    """What reading a run's result.json came to: the result, or why it does not count."""

    result: dict[str, Any] | None
    problem: str | None


class _RunLog(logging.FileHandler):
    """The run's log file; where it cannot be written, the run goes on."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Says nothing: the words stand on stderr too."""


class Record:
    """One run's directory.

    Args:
        outputs: The store (paths.outputs).
        run_id: The run's id, its directory's name under runs/.
    """

    def __init__(self, outputs: str | Path, run_id: str) -> None:
        self.run_id = run_id
        self.folder = Path(outputs) / "runs" / run_id

    def read(self) -> Result:
        """Reads result.json. A run is finished exactly when it parses and carries this run id and schema."""
        return read_result(self.folder)

    @property
    def state(self) -> State:
        """Where the run stands: finished by its result, otherwise what status.json says."""
        if self.read().result is not None:
            return State.finished
        try:
            state = State(self.status()["state"])
        except (ValueError, KeyError):
            return State.todo
        return State.todo if state is State.finished else state  # its result is gone or damaged

    @contextmanager
    def running(self, resolved: Resolved) -> Iterator[None]:
        """Holds status.json while a run is computed, and writes down how it ended.

        Raises:
            InputError: If the directory belongs to another schema, or cannot be written.
        """
        self._make_room(resolved)
        handler = _RunLog(self.folder / "run.log", mode="w", delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger().addHandler(handler)
        try:
            yield
        except DivergedError as error:
            self._end(State.diverged, error)
            raise
        except KeyboardInterrupt as error:
            self._end(State.interrupted, error)
            raise
        except BaseException as error:
            self._end(State.failed, error)
            raise
        finally:
            logging.getLogger().removeHandler(handler)
            handler.close()

    def status(self) -> dict[str, Any]:
        """Reads status.json; a missing or damaged one says nothing."""
        try:
            status = json.loads((self.folder / "status.json").read_text())
        except (OSError, ValueError):
            return {}
        return status if isinstance(status, dict) else {}

    def log_metrics(self, row: dict[str, Any]) -> None:
        """Appends an object to metrics.jsonl."""
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def save_predictions(self, rows: list[dict[str, Any]]) -> None:
        """Writes predictions.parquet: split, epoch, example id, label, prediction, scores."""
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), self.folder / "predictions.parquet")

    def finish(self, result: dict[str, Any]) -> None:
        """Writes result.json, last and atomically: from now on the run is finished."""
        write_atomically(
            self.folder / "result.json", json.dumps({"schema": SCHEMA, **result}, indent=1, allow_nan=False) + "\n"
        )
        self._write_status(State.finished)

    def _make_room(self, resolved: Resolved) -> None:
        """Prepares the directory for a new attempt; what an earlier attempt left is told and replaced."""
        found = self.read()
        if found.problem and (schema := _schema_of(self.folder)) not in (None, SCHEMA):
            raise InputError(
                f"{self.folder}: result.json has schema {schema}, this version writes {SCHEMA}; it is left as it is.\n"
                "Use another store (paths.outputs=DIR), or move that directory away to compute the run anew."
            )
        before = self.status()
        if before.get("state") in (State.running.value, State.interrupted.value):
            log.info("An earlier attempt was interrupted; without a checkpoint it starts over.")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if found.problem and (self.folder / "result.json").exists():
                log.warning("%s It is kept as result.json.damaged, and the run is computed anew.", found.problem)
                os.replace(self.folder / "result.json", self.folder / "result.json.damaged")
            self._write_status(State.running, attempts=before.get("attempts", 0) + 1, started=time.time())
            (self.folder / "config.yaml").write_text(_config_yaml(resolved))
            (self.folder / "metrics.jsonl").write_text("")
        except OSError as error:
            raise InputError(
                f"paths.outputs: {self.folder} cannot be written ({error.strerror}).\n"
                "Give a folder that can: paths.outputs=DIR"
            ) from error

    def _end(self, state: State, error: BaseException) -> None:
        """Writes down how an attempt ended, as far as the disk lets it: nothing is decided by these words."""
        try:
            if state is State.failed:
                with (self.folder / "run.log").open("a") as file:
                    file.write(traceback.format_exc())
            told = {} if state is State.interrupted else {"error": f"{type(error).__name__}: {error}"[-2000:]}
            self._write_status(state, **told)
        except OSError as problem:
            log.warning("%s: its end, %s, could not be written (%s).", self.run_id, state.value, problem.strerror)

    def _write_status(self, state: State, **more: Any) -> None:
        """Writes status.json: words for people; nothing is decided by it but what is shown."""
        known = {key: value for key, value in self.status().items() if key in ("attempts", "started")}
        status = {"run_id": self.run_id, "state": state.value, "host": socket.gethostname(), "pid": os.getpid()}
        write_atomically(
            self.folder / "status.json",
            json.dumps({**known, **status, "updated": time.time(), **more}, indent=1) + "\n",
        )


def read_result(folder: Path) -> Result:
    """Reads a run directory's result.json; a missing one is no problem, a damaged or foreign one is."""
    path = folder / "result.json"
    try:
        text = path.read_text()
    except FileNotFoundError:
        return Result(None, None)
    except (OSError, UnicodeDecodeError) as error:
        return Result(None, f"{path} cannot be read ({error}).")
    try:
        result = json.loads(text)
    except ValueError as error:
        return Result(None, f"{path} is damaged and does not count ({error}).")
    if not isinstance(result, dict) or result.get("schema") != SCHEMA:
        schema = result.get("schema") if isinstance(result, dict) else None
        return Result(None, f"{path} does not count: it has schema {schema}, this version reads {SCHEMA}.")
    if result.get("run_id") != folder.name:
        return Result(None, f"{path} does not count: it is the result of {result.get('run_id')}.")
    if lacking := [key for key in ("config", "metrics", "metrics_by_epoch", "params") if key not in result]:
        return Result(None, f"{path} is damaged and does not count (it lacks {', '.join(lacking)}).")
    return Result(result, None)


def _schema_of(folder: Path) -> Any:
    try:
        return json.loads((folder / "result.json").read_text()).get("schema")
    except (OSError, ValueError, AttributeError):
        return None


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
    parts = {"run": plain(resolved.run), "circumstances": plain(resolved.circumstances)}
    return yaml.safe_dump(parts, sort_keys=False)


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that a reader, or a crash, sees the old content or the new, never a part."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
