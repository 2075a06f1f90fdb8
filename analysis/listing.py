"""What a store holds, run by run: status, scores, and in what the runs differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from analysis.diff import DESCRIBED
from analysis.runs import NUMERICS, configured, flat, run_status, runs_folder
from lora_repro.config.identity import RUN_ID
from lora_repro.store.finished_runs import numerics_version
from lora_repro.tasks import Unit
from lora_repro.tasks.recorded import task_of

DIGESTS = ("model.digest", "task.digest")
"""Listed where one name stands for several: a folder or a data set of the user's own."""
FOLLOWS = (
    *(f"model.{name}" for name in sorted(DESCRIBED)),
    *DIGESTS, "task.num_labels", "task.labels", "task.sizes_read", "task.split_sizes", "task.member",
)  # fmt: skip
"""Keys that follow from the choice of a model or task, and are not listed; a model's name is."""


class Listed(NamedTuple):
    """A run of a store."""

    run_id: str
    state: str
    """A key of analysis.states.STATES."""
    reason: str | None
    config: dict[str, Any]
    """Its configuration by dotted key, and the numerics version of its code; empty if the record has none."""
    metrics: dict[str, float]
    """The last epoch's, without baselines and the loss."""
    percent: frozenset[str] = frozenset()
    """Which of them are shares, printed in percent."""


def read_listing(store: str | Path) -> list[Listed]:
    """Returns all runs of a store, sorted by id.

    Raises:
        InputError: If the folder is no store.
    """
    folder = runs_folder(store)
    names = sorted(path.name for path in folder.iterdir() if RUN_ID.fullmatch(path.name) and path.is_dir())
    return [_listed(store, name) for name in names]


def _listed(store: str | Path, run_id: str) -> Listed:
    status = run_status(store, run_id)
    result = status.result if status.result is not None else {}
    config = result.get("config") or configured(Path(store) / "runs" / run_id)
    settings = flat(config)
    if config:
        settings[NUMERICS] = numerics_version(result or {"run_id": run_id, "config": config})
    metrics, percent = result.get("metrics", {}), frozenset()
    if result and (task := task_of(config)) is not None:
        units = {metric.name: metric.unit for metric in task.targets.shown}
        metrics = {key: value for key, value in metrics.items() if key.rpartition("/")[2] in units}
        percent = frozenset(key for key in metrics if units[key.rpartition("/")[2]] is Unit.percent)
    return Listed(run_id, status.state, status.reason, settings, metrics, percent)


def varying(runs: Sequence[Listed]) -> list[str]:
    """Returns the keys in which runs differ, in the order of the configuration."""
    known = [run.config for run in runs if run.config]
    keys = dict.fromkeys(key for config in known for key in config)
    listed = {"model.name"}
    for digest in DIGESTS:
        named = {(config.get(f"{digest.partition('.')[0]}.name"), config.get(digest)) for config in known}
        listed |= {digest} if len({name for name, _ in named}) < len(named) else set()
    chosen = [key for key in keys if key in listed or not key.startswith(FOLLOWS)]
    return [key for key in chosen if len({repr(config.get(key)) for config in known}) > 1]


def row(run: Listed, keys: Sequence[str], metrics: Sequence[str]) -> Mapping[str, Any]:
    """Returns the values of a run's line: id, the keys that vary, state, scores as in the record."""
    return {
        "run_id": run.run_id,
        **{key: run.config.get(key) for key in keys},
        "state": run.state,
        **{name: run.metrics.get(name) for name in metrics},
    }
