"""The typed science of a finished run, read back from its record. No torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lora_repro.config.catalogue import group_names
from lora_repro.config.identity import run_id
from lora_repro.config.schema import Run, TrainConfig, load_group
from lora_repro.errors import InputError, MissingInputError, no_such_choice
from lora_repro.methods import METHODS
from lora_repro.models.arch import ModelConfig
from lora_repro.store.result import read_result


def finished(folder: Path) -> dict[str, Any]:
    """Returns what result.json of a finished run holds.

    Args:
        folder: The run's directory.

    Raises:
        MissingInputError: If it is not finished, or its result does not count.
    """
    found = read_result(folder)
    if found.problem is not None:
        raise MissingInputError(f"{found.problem}\n{found.remedy}")
    if found.result is None:
        raise MissingInputError(f"{folder} holds no result.json\nGive the directory of a finished run.")
    return found.result


def run_of(result: Mapping[str, Any]) -> Run:
    """Returns the run whose result.json this is; weights and data are not needed.

    Args:
        result: What `read_result` found.

    Raises:
        InputError: If this version has no such task, method or field, or the run would have another id here.
    """
    name, config = result["run_id"], result["config"]
    task, method = (str(config.get(group, {}).get("name")) for group in ("task", "method"))
    if method not in METHODS:
        raise InputError(f"{name}: {no_such_choice('method', method, list(METHODS))}")
    if task not in group_names("task"):
        raise InputError(f"{name}: {no_such_choice('task', task, group_names('task'))}")
    classes = {"model": ModelConfig, "task": type(load_group("task", task)), "method": METHODS[method]}
    try:
        parts: dict[str, Any] = {
            group: OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), config[group]))
            for group, cls in {**classes, "train": TrainConfig}.items()
        }
        run = Run(seed=config["seed"], **parts)
        run.method.check(run.arch)  # the id does not see shapes: a model's digest stands for them
        found = run_id(run)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except (OmegaConfBaseException, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise InputError(
            f"{name}: its configuration does not fit this version ({str(error).splitlines()[0]}).\n"
            "Read it with the version that its provenance names, or compute the run again."
        ) from error
    if found != name:
        raise InputError(
            f"{name}: its configuration has the id {found} here; another version wrote it.\n"
            "Read it with the version that its provenance names, or compute the run again."
        )
    return run
