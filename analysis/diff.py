"""Compares two runs: configuration, provenance, results; times and memory are listed separately.

Only `recorded` reads files.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file

from analysis.runs import flat
from lora_repro.errors import InputError
from lora_repro.models.arch import ModelConfig
from lora_repro.store.adapter_identity import PEFT_WEIGHTS
from lora_repro.store.digests import as_written
from lora_repro.store.finished_runs import finished, numerics_version, run_folder
from lora_repro.store.layout import TRAINED
from lora_repro.store.reading import Lines, read_lines

DESCRIBED = {f.name for f in fields(ModelConfig) if not f.metadata.get("in_id", True)}
"""Keys of `model` that its digest names."""

RESULTS = ("data", "params", "cross_fitted", "flags", "merge_max_abs_error")
"""Keys of result.json that hold results; others, as times and memory, are never a difference of results."""

APART = ("schema", "run_id", "config", "metrics", "metrics_by_epoch", "provenance", "digests")
"""Keys of result.json that are compared in another way, or follow from what is compared."""

COLUMNS = ["split", "epoch", "id", "prediction", "scores"]
"""The columns of predictions.parquet that are compared."""

Losses = dict[tuple[int, int], float]
"""Mean losses by span: of the steps after the first number, up to and with the second."""

Tensors = dict[str, np.ndarray]


class Kind(str, Enum):
    """What a difference is about; the values are those of the JSON."""

    configuration = "science"
    """Another configuration: these are two runs, not one run twice."""
    provenance = "provenance"
    """Code, versions, hardware, threads."""
    result = "result"
    other = "circumstance"
    """Times, memory and the like: never a difference of results."""


class Difference(NamedTuple):
    """One key that differs; of a distance between the two runs, `first` is None and `second` the distance."""

    key: str
    first: Any
    second: Any
    kind: Kind


class Recorded(NamedTuple):
    """What is compared of a finished run."""

    result: dict[str, Any]
    losses: Losses
    predictions: pd.DataFrame | None
    """None if the run has no predictions, so that two empty ones are not reported as equal."""
    tensors: Tensors | None
    """What was trained; None if it is not saved, as by full fine-tuning."""


def recorded(run: str, store: str) -> Recorded:
    """Reads a finished run.

    Args:
        run: Its id, looked for in the store, or its directory.
        store: The folder that holds runs/.

    Raises:
        InputError: If there is no such run, or it is not finished, or damaged, or its files are not what it wrote.
    """
    folder = run_folder(run, store, "diff")
    result = finished(folder, "diff")
    result["provenance"] = result.get("provenance", {}) | {"numerics_version": numerics_version(result)}
    weights = next((path for path in (folder / "adapter" / PEFT_WEIGHTS, folder / TRAINED) if path.is_file()), None)
    predictions, metrics = folder / "predictions.parquet", folder / "metrics.jsonl"
    for file in (predictions, weights):
        if file is not None:
            as_written(file)
    path = metrics
    try:
        rows, broken = read_lines(metrics) if metrics.is_file() else Lines([], [])
        if broken:
            raise ValueError(f"line {broken[0]} is no object with a step")
        steps = {row["step"]: row["loss"] for row in rows if "loss" in row}
        frame = pd.read_parquet(path := predictions, columns=COLUMNS) if predictions.is_file() else None
        tensors = load_file(path := weights) if weights is not None else None
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(
            f"diff: {path} is damaged ({' '.join(str(error).split())}).\n"
            "Move the run's directory away and compute it again."
        ) from error
    logged = sorted(steps)
    losses = {(before, step): steps[step] for before, step in zip([0, *logged], logged, strict=False)}
    return Recorded(result, losses, frame if frame is not None and len(frame) else None, tensors or None)


def differences(first: Recorded, second: Recorded) -> list[Difference]:
    """Returns every key that differs: configuration, provenance, results in the order in which they arose, all else."""
    a, b = first.result, second.result
    rest = (a.keys() | b.keys()) - {*APART, *RESULTS}
    return [
        *_pairs(_configuration(a), _configuration(b), Kind.configuration),
        *_pairs(flat(a.get("provenance", {})), flat(b.get("provenance", {})), Kind.provenance),
        *_pairs(_results(a, "data", "params"), _results(b, "data", "params"), Kind.result),
        *_first_loss(first.losses, second.losses),
        *_pairs(_by_epoch(a), _by_epoch(b), Kind.result),
        *_predictions(first.predictions, second.predictions),
        *_weights(first.tensors, second.tensors),
        *_pairs(_results(a, *RESULTS[2:]), _results(b, *RESULTS[2:]), Kind.result),
        *_pairs(flat({key: a.get(key) for key in sorted(rest)}), flat({key: b.get(key) for key in sorted(rest)})),
    ]


def _pairs(first: Mapping[str, Any], second: Mapping[str, Any], kind: Kind = Kind.other) -> Iterator[Difference]:
    for key in dict.fromkeys([*first, *second]):
        if first.get(key) != second.get(key):
            yield Difference(key, first.get(key), second.get(key), kind)


def _configuration(result: Mapping[str, Any]) -> dict[str, Any]:
    model = {key: value for key, value in result["config"].get("model", {}).items() if key not in DESCRIBED}
    return flat({**result["config"], "model": model})


def _results(result: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    found = flat({key: result[key] for key in keys if key in result})
    return {key: value for key, value in found.items() if key != "params.by_module"}  # follows from the totals


def _by_epoch(result: Mapping[str, Any]) -> dict[str, Any]:
    rows = result["metrics_by_epoch"]
    return {f"{key} after epoch {row['epoch']}": value for row in rows for key, value in row.items() if key != "epoch"}


def _first_loss(first: Losses, second: Losses) -> Iterator[Difference]:
    """Compares means over the same steps only: runs may log at different intervals."""
    differ = sorted(span for span in first.keys() & second.keys() if first[span] != second[span])
    if differ:
        yield Difference(f"loss at step {differ[0][1]}", first[differ[0]], second[differ[0]], Kind.result)


def _predictions(first: pd.DataFrame | None, second: pd.DataFrame | None) -> Iterator[Difference]:
    """Counts predictions that differ after each run's last epoch, and measures their scores, split by split."""
    if first is None or second is None:
        return
    ours, theirs = _last_epoch(first), _last_epoch(second)
    for split in sorted(ours.keys() ^ theirs.keys()):
        one, other = (len(side[split]) if split in side else None for side in (ours, theirs))
        yield Difference(f"{split}: predictions of one run only", one, other, Kind.result)
    for split in [split for split in ours if split in theirs]:
        a, b = ours[split], theirs[split]
        scores, others = np.array(a["scores"].tolist()), np.array(b["scores"].tolist())
        if a["id"].tolist() != b["id"].tolist() or scores.shape != others.shape:
            yield Difference(f"{split}: other examples or outputs", len(a), len(b), Kind.result)
            continue
        if count := int((a["prediction"].to_numpy() != b["prediction"].to_numpy()).sum()):
            yield Difference(f"{split}: predictions that differ, of {len(a)}", None, count, Kind.result)
        if distance := float(np.abs(scores - others).max(initial=0)):
            yield Difference(f"{split}: largest difference of a score", None, distance, Kind.result)


def _last_epoch(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    last = frame[frame["epoch"] == frame["epoch"].max()]
    return {str(split): pd.DataFrame(rows) for split, rows in last.groupby("split")}


def _weights(first: Tensors | None, second: Tensors | None) -> Iterator[Difference]:
    """Measures the largest difference of a weight for each kind of tensor, all layers together."""
    if first is None or second is None:
        return
    both = [name for name in first if name in second and first[name].shape == second[name].shape]
    if not len(both) == len(first) == len(second):
        alone = len(first) - len(both), len(second) - len(both)
        yield Difference("tensors of a name or shape that the other lacks", *alone, Kind.result)
    distances: dict[str, float] = {}
    for name in both:
        if first[name].dtype != second[name].dtype or first[name].tobytes() != second[name].tobytes():
            kind = re.sub(r"\.\d+\.", ".*.", name.removeprefix("base_model.model."))
            distance = np.abs(first[name].astype(float) - second[name].astype(float)).max(initial=0)
            distances[kind] = max(distances.get(kind, 0.0), float(distance))
    for kind, distance in distances.items():
        yield Difference(f"largest difference of {kind}", None, distance, Kind.result)
