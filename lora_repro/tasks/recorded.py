"""The task of a record: what it declares about the numbers that the record holds. No torch."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lora_repro.config.catalogue import group_names
from lora_repro.tasks.base import TaskConfig


def task_of(config: Mapping[str, Any]) -> TaskConfig | None:
    """Returns the task of a recorded configuration.

    Args:
        config: What result.json holds under `config`.

    Returns:
        None where this version has no such task, or the task has no such field.
    """
    return _task_of(json.dumps(config["task"]))


@cache
def _task_of(text: str) -> TaskConfig | None:
    from lora_repro.config.schema import load_group

    recorded = json.loads(text)
    if recorded.get("name") not in group_names("task"):
        return None
    declared = OmegaConf.structured(load_group("task", recorded["name"]))
    try:
        task = OmegaConf.to_object(OmegaConf.merge(declared, recorded))
    except (OmegaConfBaseException, TypeError, ValueError):
        return None
    return task if isinstance(task, TaskConfig) else None
