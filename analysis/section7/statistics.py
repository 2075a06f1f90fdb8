"""Statistics of Section 7: numbers of trained weights by seed or pair of seeds, and the file that keeps them. No torch.

They are computed once from a store that has weights (`analysis.section7.measuring`). Then they are read without them,
from the store or from a ledger.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lora_repro.errors import InputError
from lora_repro.store import statistics_files
from lora_repro.store.reading import parse_json

SWEEP = "section7"
"""The sweep whose weights are measured."""
VERSION = 1
"""Raised when code changes numbers: a file of another version is not read."""


class Statistic(NamedTuple):
    """One number of the trained weights of one seed, or of a pair of seeds."""

    name: str
    """What is measured, as docs/section7.md lists it: shared_dims, rho, amplification ..."""
    model: str
    task: str
    where: str
    """Of which matrix: `q` is the mean over layers, `layer 2 q` one layer (0-based), `q - v` a difference of means; of
    scores the split, `dev` or `test`."""
    setting: str
    """Whose directions, how many, and the ranks: `A, first 8 of r=8 in r=64`, `keep=4 of r=8`."""
    seeds: tuple[int, ...]
    """The seed, or both of a pair."""
    value: float
    chance: float | None
    """What `against` gives in its place; None of a number that is compared with nothing."""
    against: str
    """The null or the control: one of analysis.section7.chance's, or of those below; empty without one."""
    run_ids: tuple[str, ...]
    """The runs that value and chance are made of."""

    @property
    def key(self) -> tuple[Any, ...]:
        """What it is, without the numbers."""
        return self.name, self.model, self.task, self.where, self.setting, self.seeds, self.against


NAMES = (
    *("shared_dims", "rho", "seeds_shared_dims", "seeds_shared_dims_jackknife", "phi_in_top_of_w"),
    *("amplification", "amplification_ratio", "position", "sign", "truncated_gap", "whole_score"),
)
"""All that is measured (docs/section7.md)."""
GAUSSIAN, START, INPUTS = "Gaussian", "A_0", "inputs"
"""The nulls, from the weakest (knows only the shapes) to the strongest (knows the inputs)."""
ANOTHER_SEED = "another seed"
"""The larger rank's run is of another seed; the mean over all of them."""
PERMUTED = "permuted labels"
"""Both runs learn permuted labels, those of one seed the same ones, and have moved as far."""
OTHER_LABELS = "other labels"
"""The larger rank's run learns permuted labels, and has moved as far; the smaller one's the true labels."""
RANDOM_UPDATE = "random update"
"""Of the same norm and rank; its directions are random."""
AGAINST = (GAUSSIAN, START, INPUTS, ANOTHER_SEED, PERMUTED, OTHER_LABELS, RANDOM_UPDATE)
"""All that numbers are compared with."""


def name_of(sweep: str, scale: str) -> str:
    """Returns the name of the file that holds the statistics of a sweep at a scale."""
    return f"{sweep}-{scale}"


def read_statistics(store: str | Path, sweep: str, scale: str) -> list[Statistic]:
    """Returns the statistics that a store keeps of a sweep at a scale; none where they were not measured.

    Args:
        store: The folder that holds runs/; of a ledger the one that `analysis.store.opened` yields.
        sweep: section7.
        scale: proxy, say.

    Raises:
        InputError: If they are of another version of this code, or damaged.
    """
    name = name_of(sweep, scale)
    found = statistics_files.read(store, name)
    if not found and not statistics_files.path_of(store, name).exists():
        return []
    if found.get("version") != VERSION:
        raise InputError(
            f"{statistics_files.path_of(store, name)}: it is damaged, or of another version than {VERSION} (its "
            f"version: {found.get('version')}).\nMeasure again: python -m analysis measure {sweep} --scale {scale}"
        )
    return _statistics(found)


def write_statistics(store: str | Path, sweep: str, scale: str, found: Sequence[Statistic], command: str) -> Path:
    """Writes them, atomically, and returns the file.

    Raises:
        OSError: If it cannot be written.
    """
    about = {"version": VERSION, "sweep": sweep, "scale": scale, "command": command}
    return statistics_files.write(store, name_of(sweep, scale), about | _content(found))


def _statistics(content: Mapping[str, Any]) -> list[Statistic]:
    """Returns the statistics of a file."""
    run_ids, rows = content["run_ids"], []
    for row in content["statistics"]:
        own: dict[str, Any] = {**row, "seeds": tuple(row["seeds"])}
        runs = own.pop("runs")
        rows.append(Statistic(**own, run_ids=tuple(run_ids[i] for i in runs)))
    return rows


def _content(found: Iterable[Statistic]) -> dict[str, Any]:
    """Returns what a file holds of statistics: their runs, and rows that name those by number."""
    rows = [each._asdict() for each in found]
    run_ids = sorted({run_id for row in rows for run_id in row["run_ids"]})
    number = {run_id: i for i, run_id in enumerate(run_ids)}
    numbered = [row | {"runs": [number[run_id] for run_id in row.pop("run_ids")]} for row in rows]
    return {"run_ids": run_ids, "statistics": numbered}


def merge_files(new: Mapping[str, str], before: Mapping[str, str]) -> dict[str, str]:
    """Returns files, by name, with all statistics of `new`, and those of `before` that are not among them.

    Of a file that either has of another version, or damaged, the one of `new` stays as it is.
    """
    merged = dict(before)
    for name, text in new.items():
        ours, theirs = (_versioned(files.get(name)) for files in (new, before))
        if ours is not None and theirs is not None:
            found = _statistics(ours)
            both = merge(found, _statistics(theirs), theirs["run_ids"])
            text = statistics_files.as_text(ours | _content(both)) if len(both) > len(found) else text
        merged[name] = text
    return merged


def _versioned(text: str | None) -> dict[str, Any] | None:
    """Returns what a file of this version holds."""
    try:
        found = parse_json((text or "").encode())
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("version") == VERSION else None


def merge(new: Iterable[Statistic], before: Iterable[Statistic], run_ids: Collection[str]) -> list[Statistic]:
    """Returns all of `new`, and those of `before` that are not among them: the weights they are made of may be gone.

    Args:
        new: What was measured now.
        before: What a store keeps.
        run_ids: The runs of the sweep as it is today; a number of others is dropped.
    """
    found = {each.key: each for each in new}
    kept = [each for each in before if each.key not in found and set(each.run_ids) <= set(run_ids)]
    return [*found.values(), *kept]
