"""status.json of a run: the state of its last attempt, for people to read. No torch."""

from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

from lora_repro.store.reading import is_count, is_number, read_json


class State(str, Enum):
    """The state of a run."""

    todo = "todo"
    """It has no directory."""
    running = "running"
    failed = "failed"
    diverged = "diverged"
    interrupted = "interrupted"
    """Ended by a signal, a full disk or missing weights; the same command continues it."""
    stale = "stale"
    """Its process was killed or ran out of memory, so it could not record an end; the same command continues it."""
    finished = "finished"
    blocked = "blocked"
    """It has a result.json that cannot be read, or belongs to another run or version; it is left as it is."""


_SHAPE: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(("state", "error", "host"), lambda value: isinstance(value, str)),
    **dict.fromkeys(("pid", "attempts", "deaths"), is_count),
    **dict.fromkeys(("started", "updated"), is_number),
}
"""The keys that are read, and what their values must be."""


def last_written(folder: Path) -> float | None:
    """Returns when a run last wrote something, by the file system's clock; None if it never did."""
    names = ("lock", "status.json", "metrics.jsonl", "run.log", "checkpoint")
    times = []
    for name in names:
        with suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    return max(times, default=None)


def read_status(folder: Path) -> dict[str, Any]:
    """Reads a run directory's status.json. A missing or damaged file is empty, and wrong values are left out."""
    try:
        status = read_json(folder / "status.json")
    except (OSError, ValueError):
        return {}
    known = status.items() if isinstance(status, dict) else []
    return {key: value for key, value in known if key not in _SHAPE or _SHAPE[key](value)}
