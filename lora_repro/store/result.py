"""result.json of a finished run. Only this module reads it, and checks its shape. No torch."""

import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lora_repro.config.catalogue import group_names
from lora_repro.config.identity import run_name
from lora_repro.store.reading import NoFileError, is_count, is_number, read_json
from lora_repro.tasks.base import TaskConfig
from lora_repro.tasks.recorded import task_of
from lora_repro.tasks.targets import metric_of_any_kind

SCHEMA = 1
"""Version of result.json; a reader refuses others."""


class Result(NamedTuple):
    """A run's result.json, or why it does not count."""

    result: dict[str, Any] | None
    problem: str | None
    is_damaged: bool = False
    """The file is damaged: it may be moved aside and the run computed again. A foreign file is left as it is."""

    @property
    def remedy(self) -> str:
        """What to do about the problem."""
        if self.is_damaged:
            return "Compute the run again: the same command replaces a damaged result."
        return (
            "So it is left as it is: make it readable here, or move it away. Compute the run again in another store: "
            "paths.outputs=DIR"
        )


class _Kind(NamedTuple):
    """What a value must be: in words, and as a test."""

    description: str
    holds: Callable[[Any], bool]


def _of(kind: _Kind, description: str) -> _Kind:
    return _Kind(description, lambda value: isinstance(value, dict) and all(map(kind.holds, value.values())))


def _or_null(kind: _Kind) -> _Kind:
    return _Kind(f"{kind.description} or null", lambda value: value is None or kind.holds(value))


_OBJECT = _Kind("an object", lambda value: isinstance(value, dict))
_TEXT = _Kind("text", lambda value: isinstance(value, str))
_FLAG = _Kind("true or false", lambda value: isinstance(value, bool))
_FLAGS = _of(_FLAG, "an object of true and false")
_COUNT = _Kind("a whole number, 0 or more", is_count)
_POSITIVE = _Kind("a whole number, 1 or more", lambda value: is_count(value) and value > 0)
_NUMBER = _Kind("a number", is_number)
_AMOUNT = _Kind("a number, 0 or more", lambda value: is_number(value) and value >= 0)
_SPLIT = _Kind(
    "an object with n, 1 or more", lambda value: isinstance(value, dict) and is_count(value.get("n")) and value["n"] > 0
)

REQUIRED = ("run_id", "config", "metrics", "metrics_by_epoch", "params")
"""Keys of every result. Early results do not have all of the others."""

_SHAPE = {
    "run_id": _Kind("a run's id", lambda value: isinstance(value, str) and len(value) <= 255),
    "config": _OBJECT,
    **{f"config.{group}": _OBJECT for group in ("model", "task", "method", "train")},
    **{f"config.{group}.name": _TEXT for group in ("model", "task", "method")},
    "config.model.digest": _TEXT,
    "config.seed": _COUNT,
    "metrics": _OBJECT,
    "metrics_by_epoch": _Kind("a list of objects, one an epoch", lambda value: isinstance(value, list) and value != []),
    "params": _OBJECT,
    **{f"params.{key}": _COUNT for key in ("trainable", "method", "head", "total")},
    "params.by_module": _of(_COUNT, "an object of whole numbers"),
    "flags": _FLAGS,
    "flags_by_epoch": _of(_FLAGS, "an object of flags, one an epoch"),
    "data": _OBJECT,
    **{f"data.{split}": _SPLIT for split in ("train", "eval")},
    "cross_fitted": _of(_NUMBER, "an object of numbers"),
    **dict.fromkeys(("run_seconds", "train_seconds"), _AMOUNT),
    **dict.fromkeys(
        ("train_cpu_seconds", "train_examples_per_s", "peak_memory_gib", "merge_max_abs_error"), _or_null(_AMOUNT)
    ),
    "peak_memory_is_bound": _FLAG,
    "digests": _of(_TEXT, "an object of text"),
    "provenance": _OBJECT,
    "provenance.commit": _or_null(_TEXT),
    "provenance.dirty": _or_null(_FLAG),
    "provenance.device_class": _TEXT,
    "provenance.bf16": _or_null(_TEXT),
    "provenance.compiled": _FLAG,
    "provenance.threads": _POSITIVE,
    "provenance.versions": _of(_TEXT, "an object of text"),
    "provenance.numerics_version": _POSITIVE,
    "provenance.machines_before": _Kind(
        "a list of objects", lambda value: isinstance(value, list) and all(isinstance(item, dict) for item in value)
    ),
}
"""The values that are read, by dotted key, and what each must be if it is there."""

_PATHS = [(key, key.split("."), kind) for key, kind in _SHAPE.items()]

_ABSENT = object()


def read_result(folder: Path) -> Result:
    """Reads a run directory's result.json. A missing file is no problem; a damaged, foreign or unreadable one is.

    Only a damaged file may be moved aside. One that cannot be read here and now may be whole.
    """
    path = folder / "result.json"
    try:
        result = read_json(path)
    except FileNotFoundError:
        if path.is_symlink():
            return Result(None, f"{path} does not count: it is a link to {path.readlink()}, which is not there.")
        return Result(None, None)
    except OSError as error:
        return Result(None, f"{path} cannot be read ({error.strerror}).")
    except NoFileError as error:
        return Result(None, f"{path} cannot be read ({error}).")
    except ValueError as error:
        problem = f"{path} is damaged and does not count ({error})."
        return Result(None, problem, is_damaged=not path.is_symlink())
    schema = result.get("schema") if isinstance(result, dict) else None
    if not isinstance(result, dict) or schema != SCHEMA or isinstance(schema, bool):
        is_another = is_count(schema) and not isinstance(schema, bool)
        given = schema if is_another else None
        problem = f"{path} does not count: it has schema {given}, this version reads {SCHEMA}."
        return Result(None, problem, is_damaged=not is_another)
    if (wrong := _wrong(result)) is not None:
        return Result(None, f"{path} is damaged and does not count ({wrong}).", is_damaged=True)
    if result["run_id"] != run_name(folder):
        return Result(None, f"{path} does not count: it is the result of {result['run_id']}.")
    return Result(result, None)


def _wrong(result: dict[str, Any]) -> str | None:
    """Says what is wrong with a result, or returns None."""
    if missing := [key for key in REQUIRED if key not in result]:
        return f"it has no {', '.join(missing)}"
    for key, path, kind in _PATHS:
        value: Any = result
        for part in path:
            value = value.get(part, _ABSENT) if isinstance(value, dict) else _ABSENT
        if value is _ABSENT:
            if key.startswith("config.") or (key.startswith("data.") and "data" in result):
                return f"it has no {key}"
        elif not kind.holds(value):
            return f"{key} must be {kind.description}"
    task, name = task_of(result["config"]), result["config"]["task"]["name"]
    if task is None and name in group_names("task"):
        return f"config.task is no configuration of task={name}"
    if task is not None:
        for split, described in result.get("data", {}).items():
            if split not in task.all_splits:
                return f"data.{split}: task={name} has no such split"
            if not task.targets.is_description(described):
                return f"data.{split} must be {task.targets.description}"
        if "data" in result and (missing := [split for split in task.all_splits if split not in result["data"]]):
            return f"it has no data.{missing[0]}"
    rows, bounds, metrics = result["metrics_by_epoch"], dict[str, tuple[float, float]](), {}
    if "cross_fitted" in result and (wrong := _wrong_metrics(result["cross_fitted"], task, bounds)) is not None:
        return f"cross_fitted: {wrong}"
    for row in rows:
        if not isinstance(row, dict) or not is_count(row.get("epoch")):
            return "each of metrics_by_epoch must be an object with its epoch"
        metrics = {key: value for key, value in row.items() if "/" in key}
        if (wrong := _wrong_metrics(metrics, task, bounds)) is not None:
            return f"metrics_by_epoch: {wrong}"
    if result["metrics"] != metrics:
        return "its metrics are not those of its last epoch"
    return None


def _wrong_metrics(
    metrics: dict[str, Any], task: TaskConfig | None, bounds: dict[str, tuple[float, float]]
) -> str | None:
    """Says what is wrong with the metrics of an epoch; `bounds` holds those of metrics that were met before."""
    if not metrics:
        return "there are none"
    for key, value in metrics.items():
        if key not in bounds:
            name = key.rpartition("/")[2]
            declared = metric_of_any_kind(name) if task is None else task.targets.metric(name)
            bounds[key] = (-math.inf, math.inf) if declared is None else (declared.low, declared.high)
        low, high = bounds[key]
        if not is_number(value) or not low <= value <= high:
            limits = (
                "finite" if low == -math.inf else f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
            )
            return f"{key} must be a number, {limits} (it is {str(value)[:40]})"
    return None


def answered_epochs(result: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Returns the rows of metrics_by_epoch that hold a metric: some tasks answer after the last epoch alone.

    There are none where the last epoch lacks it, so that the record does not say how the run ended.
    """
    by_epoch: list[dict[str, Any]] = result["metrics_by_epoch"]
    answered = [row for row in by_epoch if key in row]
    return answered if answered and answered[-1] is by_epoch[-1] else []


def first_difference(theirs: list[dict[str, Any]], ours: list[dict[str, Any]]) -> str | None:
    """Names the first metric in which the metrics_by_epoch of two results differ; None if they are equal."""
    for one, other in itertools.zip_longest(theirs, ours, fillvalue={}):
        for key in dict.fromkeys([*one, *other]):
            if one.get(key) != other.get(key):
                epoch = one.get("epoch", other.get("epoch"))
                return f"{key} after epoch {epoch} is {one.get(key)}, here {other.get(key)}"
    return None


def run_seconds_of(result: Mapping[str, Any]) -> float | None:
    """Returns how long a run took, at least as long as it trained; None where the record does not say.

    Early records of a resumed run have its last attempt alone in `run_seconds`, and all of them in `train_seconds`.
    """
    known = [seconds for key in ("run_seconds", "train_seconds") if (seconds := result.get(key)) is not None]
    return max(known, default=None)
