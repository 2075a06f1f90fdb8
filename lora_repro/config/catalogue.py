"""The choices that there are in conf/ and sweeps/, and the refusal of any other. No torch."""

import re
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lora_repro.errors import InputError, no_such_choice

HOME = next(folder for folder in Path(__file__).resolve().parents[1:3] if (folder / "conf" / "config.yaml").is_file())
"""The folder that holds conf/ and sweeps/: the package in an installed wheel, the repository in a checkout."""

NAME = re.compile(r"[a-z0-9_]+")

GROUPS = ("model", "task", "method", "train", "scale", "preset", "preset@train")
"""The keys that choose a file of conf/, or a scale."""

OURS = "ours"
"""The preset that is there without a choice: this project's own settings by model and method, files of conf/preset."""

BY_TASK = HOME / "conf" / "preset" / "by_task"
"""The presets by model, method and task: preset=NAME."""

SCALES = ("demo", "paper", "proxy", "smoke")
"""How large a sweep is. sweeps/ says what each scale runs, docs/sweeps_and_tables.md what each is for."""


def group_names(group: str) -> list[str]:
    """Returns the choices of a group: files of conf/ or sweeps/, or the scales, which need no file."""
    if group == "scale":
        return list(SCALES)
    if group == "preset":
        return preset_names()
    folder = HOME / "sweeps" if group == "sweeps" else HOME / "conf" / group.partition("@")[0]
    return sorted(path.stem for path in folder.glob("*.yaml"))


def is_choice(group: str, name: str) -> bool:
    """Tells whether a name is a choice of model, task or method, without a look at the others."""
    return NAME.fullmatch(name) is not None and Path(f"{HOME}/conf/{group}/{name}.yaml").exists()


def preset_names() -> list[str]:
    """Returns the presets by task, this project's own first."""
    return [OURS, *sorted(path.stem for path in BY_TASK.glob("*.yaml"))]


def preset(model: str, method: str) -> str:
    """Names the settings in conf/preset: those of model and method, else of the model, else of the method."""
    names = group_names("preset@train")
    return next((name for name in (f"{model}_{method}", model, method) if name in names), model)


def common_grid(name: str) -> dict[str, Any]:
    """Returns the keys and values that several grids of sweeps/ share: sweeps/common/NAME.yaml.

    Raises:
        InputError: If there is no such file.
    """
    return _part_of_grids("common", name)


def regime_names() -> list[str]:
    """Returns the regimes that there are."""
    return sorted(path.stem for path in (HOME / "sweeps" / "regimes").glob("*.yaml"))


def regime(name: str) -> dict[str, Any]:
    """Returns the keys and values that a regime gives to all grids of a sweep: sweeps/regimes/NAME.yaml.

    Raises:
        InputError: If there is no such file.
    """
    return _part_of_grids("regimes", name)


def _part_of_grids(folder: str, name: str) -> dict[str, Any]:
    place = HOME / "sweeps" / folder
    names = sorted(path.stem for path in place.glob("*.yaml"))
    if name not in names:
        raise InputError(no_such_choice(f"sweeps/{folder}", name, names))
    content = OmegaConf.to_container(OmegaConf.load(place / f"{name}.yaml"))
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def refuse_bare_sweep(name: str) -> None:
    """Refuses a sweep file without its first line: Hydra would put its keys at the top of the configuration.

    Raises:
        InputError: With the line to write.
    """
    if not (HOME / "sweeps" / f"{name}.yaml").read_bytes().startswith(b"# @package sweep\n"):
        raise InputError(f"sweeps/{name}.yaml: the first line must be: # @package sweep")


def refuse_no_choice(group: str, given: Any) -> None:
    """Refuses what is not a name, for a key that chooses a file; any other key passes.

    A preset that does not exist is refused too: the settings by model and method are optional, so Hydra would skip a
    misspelt one, and the others are no files of their own.

    Args:
        group: A group of conf/, as model, method or preset@train; or another key.
        given: One value of it.

    Raises:
        InputError: With the choices.
    """
    if group not in GROUPS:
        return
    names = group_names(group)
    if isinstance(given, list):
        several = ",".join(map(str, given))
        raise InputError(f"{group}: must be one name (given: [{several}]).\nA sweep over them: -m {group}={several}")
    if not isinstance(given, str) or not given or "${" in given:
        shown = "null" if given is None else "nothing" if given == "" else given
        raise InputError(f"{group}: must be a name (given: {shown}).\nChoices: {', '.join(names)}.")
    if group in ("preset", "preset@train") and given not in names:
        raise InputError(no_such_choice(group, given, names))
