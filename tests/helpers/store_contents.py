"""What a store holds, compared but for times."""

import json
from pathlib import Path
from typing import Any

TIMES = {
    "updated",
    "started",
    "attempts",
    "deaths",
    "pid",
    "wall_time_s",
    "train_seconds",
    "train_cpu_seconds",
    "run_seconds",
}
TIMES |= {"train_examples_per_s", "peak_memory_gib", "peak_memory_is_bound"}
"""Keys of the record's JSON that say when, how long, how often."""


def contents(store: Path) -> dict[str, Any]:
    """Returns every file of a store by its path, without times; run.log, words with times, only by its name."""
    return {path.relative_to(store).as_posix(): _content(path) for path in store.rglob("*") if path.is_file()}


def _content(path: Path) -> Any:
    if path.name == "run.log":
        return None
    if path.suffix in (".json", ".jsonl") and "adapter" not in path.parts:
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        return [_timeless(json.loads(line)) for line in lines]
    return path.read_bytes()


def _timeless(value: Any) -> Any:
    """Leaves out times, and what a commit in the middle of a test changes."""
    if not isinstance(value, dict):
        return value
    return {key: _timeless(item) for key, item in value.items() if key not in TIMES | {"commit", "dirty"}}


def differences(one: Path, other: Path) -> list[str]:
    """Returns the files in which two stores differ but for times, or that only one has."""
    first, second = contents(one), contents(other)
    return sorted(name for name in first.keys() | second.keys() if first.get(name, "") != second.get(name, ""))
