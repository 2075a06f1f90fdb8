"""What runs cost, and what computed them."""

from typing import Any

import pandas as pd

from analysis.report.data import Cost
from lora_repro.store.result import run_seconds_of

MACHINE = ("provenance.device_class", "provenance.threads", "provenance.bf16", "provenance.compiled")


def costs_of(runs: pd.DataFrame) -> tuple[Cost, ...]:
    """Returns the runs and hours of each machine, then of all; tuning runs and those of no item count too."""
    groups: dict[str, list[float | None]] = {}
    for row in runs.to_dict("records"):
        known = {key: _number(row.get(key)) for key in ("run_seconds", "train_seconds")}
        groups.setdefault(_machine(row), []).append(run_seconds_of(known))
    found = [_cost(machine, seconds) for machine, seconds in sorted(groups.items())]
    if len(found) > 1:
        found.append(_cost("all", [each for seconds in groups.values() for each in seconds]))
    return tuple(found)


def _cost(machine: str, seconds: list[float | None]) -> Cost:
    known = [each for each in seconds if each is not None]
    hours = sum(known) / 3600 if known else None
    text = "not recorded" if hours is None else f"{hours:.2f} h"
    if known and len(known) < len(seconds):
        text += f" ({len(seconds) - len(known)} without a time)"
    return Cost(machine, len(seconds), hours, text)


def _machine(row: dict[str, Any]) -> str:
    device, threads, bf16, compiled = (row.get(key) for key in MACHINE)
    parts = [
        str(device) if isinstance(device, str) else "not recorded",
        f"{threads:.0f} threads" if _number(threads) is not None else None,
        f"bf16: {bf16}" if isinstance(bf16, str) else None,
        "compiled" if compiled is True else None,
    ]
    return ", ".join(part for part in parts if part)


def commits_of(runs: pd.DataFrame) -> tuple[str, ...]:
    """Returns the commits at which runs were computed, those of tuning too."""
    if "provenance.commit" not in runs:
        return ()
    changed = runs["provenance.dirty"] if "provenance.dirty" in runs else [None] * len(runs)
    found = [
        f"{commit[:10]}{' with uncommitted changes' if dirty is True else ''}"
        for commit, dirty in zip(runs["provenance.commit"], changed, strict=True)
        if isinstance(commit, str)
    ]
    return tuple(sorted(set(found)))


def environment_of(runs: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    """Returns the commits, versions and numerics of all runs, each with the number of runs where they differ."""
    columns = [str(column) for column in runs.columns]
    wanted = ["provenance.commit", "provenance.dirty", "provenance.numerics_version"]
    wanted += sorted(column for column in columns if column.startswith("provenance.versions."))
    wanted += [key for key in MACHINE if key not in wanted]
    found = []
    for column in wanted:
        if column in columns:
            counts = runs[column].map(_word).value_counts(sort=False).sort_index()
            values = [value if len(counts) == 1 else f"{value} ({count})" for value, count in counts.items()]
            found.append((column.removeprefix("provenance.").removeprefix("versions."), "; ".join(map(str, values))))
    return tuple(found)


def _word(value: Any) -> str:
    if value is None or value != value:
        return "not recorded"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value == value else None
