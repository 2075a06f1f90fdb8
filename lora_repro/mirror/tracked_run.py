"""A run in a tracker, made from the run's record alone.

A run's id is its id there too, and offline it has one folder, so that a later `wandb sync` makes no duplicates.
"""

import importlib
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lora_repro.config.catalogue import group_names
from lora_repro.config.identity import run_name
from lora_repro.config.settings import Mirror, Tracker
from lora_repro.store.digests import as_written, trained_files
from lora_repro.store.layout import SETTINGS_KEY
from lora_repro.store.reading import is_number, read_bytes, read_lines
from lora_repro.store.result import read_result
from lora_repro.store.status import State, read_status

ENDED = {State.finished.value, State.diverged.value, State.failed.value}
"""States in which a run is mirrored offline. An interrupted run goes on, and is mirrored once it has ended."""


class TrackedRun:
    """A run in the tracker, made from its record."""

    def __init__(self, folder: Path, online: bool, project: str | None = None) -> None:
        config = yaml.safe_load(read_bytes(folder / "config.yaml"))
        run, settings = config["run"], config[SETTINGS_KEY]
        names = [run[part]["name"] for part in ("model", "task", "method")]
        scale = settings["scale"]["name"]
        self.folder, self.name = folder, run_name(folder)
        self.logged: set[tuple[int, bool]] = set()
        """Step of each logged line, and whether it holds a loss."""
        self.broken: list[int] = []
        """Numbers of the lines of metrics.jsonl that could not be read the last time."""
        outputs = folder.parent.parent
        name, group = settings["log"].get("name"), settings["log"].get("group")
        of_sweep = f"{settings['sweep']['name']}-{scale}" if settings["sweep"] else None
        sweeps = tuple(f"{sweep}-{scale}" for sweep in group_names("sweeps"))
        is_of_sweep = of_sweep is not None or (group is not None and group.startswith(sweeps))  # others have no scale
        described: dict[str, Any] = {
            "project": project if project is not None else settings["log"]["project"],
            "group": group if group is not None else of_sweep,
            "config": run,
        }
        self.is_wandb = settings["log"]["tracker"] == Tracker.wandb.value
        if missing := not_installed(settings["log"]["tracker"]):
            raise ModuleNotFoundError(missing)
        if not self.is_wandb:  # trackio: no ids beside names, no modes, job types, tags or artifacts
            tracker = importlib.import_module("trackio")
            with suppress(ValueError):  # there is no such project yet
                for old in list(tracker.Api().runs(described["project"])):
                    if old.name == self.name:  # otherwise each line of the record would be there twice
                        old.delete()
            self.run: Any = tracker.init(**described, name=self.name, resume="never")
            return
        self.began = self._began()
        for old in [] if online else (outputs / "wandb").glob(f"offline-run-*-{self.name}"):
            shutil.rmtree(old)
        import wandb

        self.run = wandb.init(
            **described, id=self.name, name=name if name is not None else self.name, job_type=names[2],
            tags=[*names, *([scale] if is_of_sweep else [])], dir=outputs, settings=_quiet(),
            mode="online" if online else "offline", resume="allow" if online else None,
        )  # fmt: skip

    def tail(self) -> None:
        """Logs the new lines of metrics.jsonl, each at its own step; a resumed run may have rewritten the file.

        Each line carries the training time until then, so that curves over time do not depend on when it is mirrored.
        """
        for line in self._lines():
            key = (line["step"], "loss" in line)
            if key not in self.logged:
                self.logged.add(key)
                clock = {"_timestamp": self.began + line["wall_time_s"]} if self.is_wandb else {}
                self.run.log({name: value for name, value in line.items() if name != "step"} | clock, step=line["step"])

    def _lines(self) -> list[dict[str, Any]]:
        """Reads metrics.jsonl. A line of scores has no time of its own and takes that of the last step before it.

        The last line may be half-written; it is read again the next time.
        """
        rows, self.broken = read_lines(self.folder / "metrics.jsonl")
        lines: list[dict[str, Any]] = []
        seconds = 0.0
        for row in rows:
            seconds = row["wall_time_s"] if is_number(row.get("wall_time_s")) else seconds
            lines.append(row | {"wall_time_s": seconds})
        return lines

    def _began(self) -> float:
        """Returns when the run would have begun without interruptions. W&B draws curves over the time since then."""
        lines, status = self._lines(), read_status(self.folder)
        spent = lines[-1]["wall_time_s"] if lines else 0.0
        ended = status["updated"] if status.get("state") in ENDED and "updated" in status else time.time()
        return ended - spent

    def unreadable_lines(self) -> str:
        """Names the lines of metrics.jsonl that could not be mirrored; empty if all are."""
        if not self.broken:
            return ""
        lines = f"{'line' if len(self.broken) == 1 else 'lines'} {', '.join(map(str, self.broken[:5]))}"
        more = f" and {len(self.broken) - 5} more" if len(self.broken) > 5 else ""
        return f"{lines}{more} of {self.folder / 'metrics.jsonl'}, which cannot be read"

    def end(self) -> None:
        """Adds the summary and the adapter, and finishes the run in the tracker."""
        result, state = read_result(self.folder).result, state_of(self.folder)
        if not self.is_wandb:
            self.run.finish()
            return
        self.run.summary["state"] = state
        if result is not None:
            self.run.summary.update(result["metrics"])
            counts = {f"params.{key}": result["params"][key] for key in ("method", "head", "trainable", "total")}
            self.run.summary.update(counts)
            seconds = {key: result[key] for key in ("run_seconds", "train_seconds") if key in result}
            self.run.summary.update(seconds)  # W&B's own runtime is that of the mirroring
            self._add_trained(result)
        self.run.finish(exit_code=0 if state == State.finished.value else 1)

    def _add_trained(self, result: dict[str, Any]) -> None:
        import wandb

        trained = [as_written(path) for path in trained_files(self.folder, result) if path.exists()]
        if trained:
            artifact = wandb.Artifact(self.name, type="adapter")
            for path in trained:
                artifact.add_file(str(path))
            self.run.log_artifact(artifact)


class Logged(NamedTuple):
    """What a report logs of one sweep, as a run of the sweep's group."""

    group: str
    name: str
    tables: Mapping[str, tuple[list[str | int], list[list[str]]]]
    """Columns and lines of texts, by name."""
    pages: Mapping[str, str]
    """HTML and SVG, by name."""


def log_report(logged: Iterable[Logged], outputs: Path, project: str, online: bool) -> list[str]:
    """Logs tables and pages to W&B, and returns the names of the groups.

    Args:
        logged: One run each. Its id is made of group and name, and offline it has one folder, so that a report that is
            made again makes no duplicates.
        outputs: Where W&B writes, into a folder wandb/.
        project: W&B's.
        online: To the server; else into files for `wandb sync`.

    Raises:
        ModuleNotFoundError: If wandb is not installed.
    """
    if missing := not_installed(Tracker.wandb.value):
        raise ModuleNotFoundError(missing)
    os.environ.update(environment(outputs))
    import wandb

    groups = []
    for each in logged:
        name = f"{each.group}-{each.name}"
        for old in [] if online else (outputs / "wandb").glob(f"offline-run-*-{name}"):
            shutil.rmtree(old)
        run: Any = wandb.init(
            project=project, group=each.group, id=name, name=each.name, job_type="report", dir=outputs,
            settings=_quiet(), mode="online" if online else "offline", resume="allow" if online else None,
        )  # fmt: skip
        found: dict[str, Any] = {key: wandb.Html(text, inject=False) for key, text in each.pages.items()}
        for key, (columns, lines) in each.tables.items():
            found[key] = wandb.Table(columns=columns, data=[list[Any](line) for line in lines])
        run.log(found, step=0)
        run.finish(exit_code=0)
        groups.append(each.group)
    return groups


def _quiet() -> Any:
    """Returns settings by which W&B prints nothing and collects nothing but what it is given."""
    import wandb

    return wandb.Settings(
        silent=True, console="off", disable_git=True, disable_code=True, disable_job_creation=True,
        x_disable_meta=True, x_disable_stats=True, x_save_requirements=False,
    )  # fmt: skip


def state_of(folder: Path) -> str:
    """Returns a run's state: finished by its result, otherwise as its status.json says."""
    if read_result(folder).result is not None:
        return State.finished.value
    return read_status(folder).get("state", State.todo.value)


def is_online(folder: Path) -> bool:
    """Tells whether the run was started with `log.wandb=online`."""
    log_settings = yaml.safe_load(read_bytes(folder / "config.yaml"))[SETTINGS_KEY]["log"]
    return log_settings["wandb"] == Mirror.online.value


def not_installed(tracker: str) -> str:
    """Says that a tracker's package is not installed and how to install it; empty if it is installed."""
    return "" if find_spec(tracker) is not None else f"{tracker} is not installed. Install it: pip install {tracker}"


def environment(outputs: Path) -> dict[str, str]:
    """Returns an environment in which W&B prints nothing and writes into the store alone."""
    data = str(outputs / "wandb")
    own = {"WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "WANDB_DATA_DIR": data, "WANDB_CACHE_DIR": f"{data}/cache"}
    here = str(Path(__file__).resolve().parents[2])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    theirs = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}  # that of a notebook's own W&B
    return theirs | own | {"PYTHONPATH": os.pathsep.join(paths[::-1])}
