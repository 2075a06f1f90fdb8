"""Presets by model, method and task: what the paper prints, and what the authors' scripts have. No torch.

A file of conf/preset/by_task holds all values of one preset as the paper's tables print them, a line a task. To Hydra a
choice is a file, and more than a hundred small files could not be compared. So the entry that is chosen is handed to
Hydra when it composes, and what a preset sets is overridden and checked as what stands in any other file of conf/.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from lora_repro.config.catalogue import BY_TASK, OURS, preset_names
from lora_repro.errors import InputError, no_such_choice

GROUP = "printed"
"""Hydra's group of the chosen entries; conf/config.yaml chooses among them."""
ALL = "all"
"""The key of an entry that holds for each of its tasks."""

WARMUP_RATIO, WARMUP_STEPS = "train.warmup_ratio", "train.warmup_steps"
"""Two keys for one thing, of which steps win. Some presets have steps, so a ratio given beside one takes them away."""

Entry = dict[str, Any]
"""Values by dotted key, as `train.batch_size`; under `all` and under each task."""


def values_of(preset: str, model: str, method: str, task: str) -> dict[str, Any]:
    """Returns what a preset sets, by dotted key; nothing for `ours`, whose settings are chosen without it.

    Raises:
        InputError: If there is no such preset, or it has nothing for this model, method and task.
    """
    if preset == OURS:
        return {}
    entry = read(preset).get(model, {}).get(method, {})
    if task == ALL or task not in entry:
        raise InputError(_no_values(preset, model, method, task))
    return entry.get(ALL, {}) | entry[task]


@cache
def read(preset: str) -> dict[str, dict[str, Entry]]:
    """Returns a preset's entries by model and method.

    Raises:
        InputError: If there is no such preset, or its file is no tree of model, method, task and keys.
    """
    if preset not in (names := preset_names()):
        raise InputError(no_such_choice("preset", preset, names))
    path = BY_TASK / f"{preset}.yaml"
    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    if not _is_tree(content, depth=4):
        raise InputError(f"conf/preset/by_task/{preset}.yaml: must hold MODEL: {{METHOD: {{TASK: {{KEY: VALUE}}}}}}.")
    return content


def choose(preset: str, model: str, method: str, task: str) -> str:
    """Hands Hydra the entry of a preset for these choices, and returns its name in the group `printed`.

    Raises:
        InputError: As `values_of`.
    """
    name = f"{preset}-{model}-{method}-{task}"
    tree: dict[str, Any] = {}
    for key, value in values_of(preset, model, method, task).items():
        section, _, leaf = key.partition(".")
        tree.setdefault(section, {})[leaf] = value
    ConfigStore.instance().store(group=GROUP, name=name, node=tree)
    return name


def _is_tree(content: Any, depth: int) -> bool:
    """Tells whether mappings lie so many levels deep, none of them empty."""
    if not isinstance(content, dict) or not content:
        return False
    return depth == 1 or all(_is_tree(value, depth - 1) for value in content.values())


def refuse_idle_ratio(point: Mapping[str, Any], warmup_steps: int | None) -> None:
    """Refuses a warm-up as a ratio beside a preset that has it in steps, which would win.

    Args:
        point: What a run of a sweep sets.
        warmup_steps: What the run would have.

    Raises:
        InputError: With the key to set.
    """
    if "preset" in point and WARMUP_RATIO in point and WARMUP_STEPS not in point and warmup_steps is not None:
        raise InputError(
            f"{WARMUP_RATIO}: preset={point['preset']} has {WARMUP_STEPS}={warmup_steps} here, which wins over a ratio "
            f"(given: {point[WARMUP_RATIO]}).\nGive {WARMUP_STEPS}=null too."
        )


def _tasks(entry: Entry) -> list[str]:
    return [name for name in entry if name != ALL]


def _no_values(preset: str, model: str, method: str, task: str) -> str:
    """Says that a preset has no values for these choices, what it has instead, and which presets have some."""
    models = read(preset)
    methods = models.get(model, {})
    tasks = _tasks(methods.get(method, {}))
    if not methods:
        there = f"model={', '.join(models)}"
    elif not tasks:
        there = f"with model={model}: method={', '.join(methods)}"
    else:
        there = f"with model={model} method={method}: task={', '.join(tasks)}"
    entries = {name: read(name).get(model, {}).get(method, {}) for name in preset_names() if name not in (OURS, preset)}
    others = [name for name, entry in entries.items() if task in entry]
    others = others or [f"{name} (task={', '.join(_tasks(entry))})" for name, entry in entries.items() if entry]
    advice = (
        f"Others have some: preset={', preset='.join(others)}."
        if others
        else "No other preset has them. Leave it out, and set keys: KEY=VALUE."
    )
    return f"preset={preset}: has no values for model={model} method={method} task={task}.\nIt has {there}.\n{advice}"
