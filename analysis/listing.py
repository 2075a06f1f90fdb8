"""What a store holds, run by run: how each stands, what it scored, and in what the runs differ."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from analysis.runs import flat, runs_folder, standing
from lora_repro.config.identity import RUN_ID
from lora_repro.store.reading import read_bytes
from lora_repro.store.status import State
from lora_repro.tasks.recorded import task_of

FOLLOWS = ("model.", "task.digest", "task.num_labels", "task.split_sizes", "task.member")
"""Keys that a choice of model or task brings along; the model's name alone is told."""
ORDER = (*(state.value for state in State if state is not State.todo), "not counted", "todo")
"""Of states, as they are counted."""


class Listed(NamedTuple):
    """A run of a store."""

    run_id: str
    state: str
    """As in analysis.runs.Standing."""
    reason: str | None
    config: dict[str, Any]
    """Its science by dotted key; empty where the record does not tell."""
    metrics: dict[str, float]
    """The last epoch's, without baselines and the loss."""


def listed(store: str | Path) -> list[Listed]:
    """Returns all runs of a store, sorted by id.

    Raises:
        InputError: If the folder is no store.
    """
    folder = runs_folder(store)
    names = sorted(path.name for path in folder.iterdir() if RUN_ID.fullmatch(path.name) and path.is_dir())
    return [_listed(store, name) for name in names]


def _listed(store: str | Path, run_id: str) -> Listed:
    stands = standing(store, run_id)
    result = stands.result if stands.result is not None else {}
    config = result.get("config") or _configured(Path(store) / "runs" / run_id / "config.yaml")
    metrics = result.get("metrics", {})
    if result and (task := task_of(config)) is not None:
        names = [metric.name for metric in task.targets.shown]
        metrics = {key: value for key, value in metrics.items() if key.rpartition("/")[2] in names}
    return Listed(run_id, stands.state, stands.reason, flat(config), metrics)


def _configured(path: Path) -> dict[str, Any]:
    """Returns the science of a run that has no result, as far as its config.yaml tells."""
    try:
        text = read_bytes(path)
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            return {}  # a record repeats nothing, and nested repetitions of a small file can fill the memory
        content = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    run = content.get("run") if isinstance(content, dict) else None
    return run if isinstance(run, dict) else {}


def varying(runs: Sequence[Listed]) -> list[str]:
    """Returns the keys in which runs differ, in the order of the configuration."""
    known = [run.config for run in runs if run.config]
    keys = dict.fromkeys(key for config in known for key in config)
    told = [key for key in keys if key == "model.name" or not key.startswith(FOLLOWS)]
    return [key for key in told if len({repr(config.get(key)) for config in known}) > 1]


def counts(runs: Sequence[Listed]) -> dict[str, int]:
    """Returns how many runs are in each state that occurs."""
    found = Counter(run.state for run in runs)
    return {state: found[state] for state in ORDER if state in found}


def row(run: Listed, keys: Sequence[str], metrics: Sequence[str]) -> Mapping[str, Any]:
    """Returns what a line of the list holds: id, what varies, state, scores in [0, 1]."""
    return {
        "run_id": run.run_id,
        **{key: run.config.get(key) for key in keys},
        "state": run.state,
        **{name: run.metrics.get(name) for name in metrics},
    }
