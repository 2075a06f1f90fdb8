"""Finished runs: found by id or directory, with their result and their typed configuration. No torch."""

import json
from collections.abc import Mapping
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lora_repro.config.catalogue import group_names
from lora_repro.config.identity import RUN_ID, numerics_of, run_id
from lora_repro.config.schema import Run, TrainConfig, load_group
from lora_repro.errors import InputError, MissingInputError, did_you_mean, no_such_choice, shown
from lora_repro.methods import METHODS
from lora_repro.models.arch import ModelConfig
from lora_repro.store.adapter_identity import adapter_folder
from lora_repro.store.result import read_result


def find_run(given: str, store: str | Path) -> Path | None:
    """Returns the directory of a run, or None if there is none.

    Args:
        given: A run's directory, its adapter/, or its id. Nothing but an id becomes a path in the store.
        store: Where an id is looked for.
    """
    if (folder := adapter_folder(given)).is_dir():
        return folder
    folder = Path(store, "runs", given)
    return folder if RUN_ID.fullmatch(given) and folder.is_dir() else None


def run_folder(given: str, store: str | Path, command: str) -> Path:
    """Returns the directory of a run as `find_run` does.

    Args:
        given: A run's directory, its adapter/, or its id.
        store: Where an id is looked for.
        command: Which command reads the run: the start of what an error says.

    Raises:
        MissingInputError: If there is none.
    """
    folder = find_run(given, store)
    if folder is not None:
        return folder
    near = did_you_mean(given, [path.name for path in Path(store).glob("runs/*")]) if "/" not in given else ""
    raise MissingInputError(
        f"{command}: no run {shown(given)}: neither a directory nor an id in {Path(store, 'runs')}.{near}\n"
        "Give a run id, with --runs DIR where its store is not outputs, or the run's directory."
    )


def finished(folder: Path, command: str = "") -> dict[str, Any]:
    """Returns what result.json of a finished run holds.

    Args:
        folder: The run's directory.
        command: Which command reads it: the start of what an error says.

    Raises:
        MissingInputError: If it is not finished, or its result does not count.
    """
    found, start = read_result(folder), f"{command}: " if command else ""
    if found.problem is not None:
        raise MissingInputError(f"{start}{found.problem}\n{found.remedy}")
    if found.result is None:
        raise MissingInputError(
            f"{start}{folder} holds no result.json: the run is not finished.\n"
            "Compute it first; python -m analysis status shows the state of a sweep's runs."
        )
    return found.result


def run_of(result: Mapping[str, Any]) -> Run:
    """Returns the typed configuration in a result.json, of an earlier numerics version too.

    Neither weights nor data are needed.

    Args:
        result: What `read_result` found.

    Raises:
        InputError: If this version has no such task, method or field, or the run has its id under no numerics version
            up to this one.
    """
    name, config = result["run_id"], result["config"]
    named = (config.get(group) for group in ("task", "method"))
    task, method = (str(part.get("name")) if isinstance(part, Mapping) else "" for part in named)
    if method not in METHODS:
        raise InputError(f"{name}: {no_such_choice('method', method, list(METHODS))}")
    if task not in group_names("task"):
        raise InputError(f"{name}: {no_such_choice('task', task, group_names('task'))}")
    classes = {"model": ModelConfig, "task": type(load_group("task", task)), "method": METHODS[method]}
    try:
        parts: dict[str, Any] = {
            group: deepcopy(_typed(cls, json.dumps(config[group])))
            for group, cls in {**classes, "train": TrainConfig}.items()
        }
        run = Run(seed=config["seed"], **parts)
        run.method.check(run.arch)  # the id holds the model's digest and not its shapes
        numerics, found = numerics_of(run, name), run_id(run)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except (OmegaConfBaseException, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise InputError(
            f"{name}: its configuration does not fit this version ({str(error).splitlines()[0]}).\n"
            "Read it with the version that its provenance names, or compute the run again."
        ) from error
    if numerics is None:
        raise InputError(
            f"{name}: its configuration has the id {found} here; another version wrote it.\n"
            "Read it with the version that its provenance names, or compute the run again."
        )
    return run


@lru_cache(maxsize=1024)
def _typed(kind: type, text: str) -> Any:
    """Returns a part of a configuration, given as JSON. Many runs of a store have the same."""
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), json.loads(text)))


def numerics_version(result: Mapping[str, Any]) -> int | None:
    """Returns the numerics version of the code that computed a finished run; None if it cannot be told.

    Args:
        result: What `read_result` found. A record from before its provenance held the version is told by its id.
    """
    recorded = result.get("provenance", {}).get("numerics_version")
    if recorded is not None:
        return recorded
    try:
        return numerics_of(run_of(result), result["run_id"])
    except InputError:
        return None
