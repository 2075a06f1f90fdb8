"""status.json of a run: how an attempt at it stands, in words for people. No torch."""

from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

from lora_repro.store.reading import is_count, is_number, read_json


class State(str, Enum):
    """How a run stands."""

    todo = "todo"
    """It has no directory."""
    running = "running"
    failed = "failed"
    diverged = "diverged"
    interrupted = "interrupted"
    """Ended by a signal, or by its surroundings (a full disk, missing weights); the same command goes on."""
    stale = "stale"
    """Its process is gone without a word: killed, or out of memory; the same command goes on."""
    finished = "finished"
    blocked = "blocked"
    """A result.json is there that cannot be read here, or is of another run or version; it is left as it is."""


_SHAPE: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(("state", "error", "host"), lambda value: isinstance(value, str)),
    **dict.fromkeys(("pid", "attempts", "deaths"), is_count),
    **dict.fromkeys(("started", "updated"), is_number),
}
"""What is read of status.json, and what it must be."""


def last_sign(folder: Path) -> float | None:
    """Returns when something was last written in a run's directory, by the file system's clock; None: never."""
    names = ("lock", "status.json", "metrics.jsonl", "run.log", "checkpoint")
    times = []
    for name in names:
        with suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    return max(times, default=None)


def read_status(folder: Path) -> dict[str, Any]:
    """Reads a run directory's status.json; a missing or damaged one says nothing, and nor does a wrong value."""
    try:
        status = read_json(folder / "status.json")
    except (OSError, ValueError):
        return {}
    known = status.items() if isinstance(status, dict) else []
    return {key: value for key, value in known if key not in _SHAPE or _SHAPE[key](value)}
