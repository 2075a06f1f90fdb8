"""Refuses parts of Hydra that a command line must not use: those that open a pickle, read foreign YAML or name a class.

Flags that show a configuration or start a sweep are allowed, and of Hydra's settings only the launcher's. No torch.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import Override

from lora_repro.errors import InputError

ELSEWHERE = (
    "configurations are read from conf/ and sweeps/ of this project only.\n"
    "Write a file there, such as conf/preset/minilm_lora.yaml, or set keys: KEY=VALUE."
)
REFUSED = {
    "--experimental-rerun": "it would open a pickle, which can run any code.\n"
    "Give the run's own command again: finished runs are skipped, others are resumed.",
    "--config-path": ELSEWHERE,
    "--config-name": ELSEWHERE,
    "--config-dir": ELSEWHERE,
}
SHORT = {"-cp": "--config-path", "-cn": "--config-name", "-cd": "--config-dir"}
MODES = (("--multirun", "-m"), ("--cfg", "-c"), ("--info", "-i"), ("--run", "-r"), ("--shell-completion", "-sc"))
"""Flags of which Hydra takes one at a time."""

LAUNCHER = "hydra.launcher."


def refuse_flags(argv: Sequence[str]) -> None:
    """Refuses flags of Hydra that read files from elsewhere, and flags that contradict each other.

    Raises:
        InputError: With what to do instead.
    """
    given: set[str] = set()
    for argument in argv:
        flag = argument.partition("=")[0]
        if not flag.startswith("-"):
            continue
        meant = [SHORT[flag]] if flag in SHORT else [name for name in REFUSED if _abbreviates(flag, name)]
        if len(meant) == 1:  # argparse refuses an abbreviation of several flags
            raise InputError(f"{flag}: refused, {REFUSED[meant[0]]}")
        given |= {name for name, short in MODES if flag == short or _abbreviates(flag, name)}
        if not flag.startswith("--") and len(flag) > 2 and flag != "-sc":
            raise InputError(f"{flag}: give each flag by itself, as in -m -c job.")
        if _abbreviates(flag, "--resolve") and not any(_shows(other) for other in argv):
            raise InputError(f"{flag}: works only with --cfg. Give: --cfg job --resolve")
    if given >= {"--multirun", "--cfg"}:
        raise InputError(
            "-m with --cfg: a sweep has many configurations.\nSee its runs: python -m analysis plan +sweeps=NAME"
        )
    if len(given) > 1:
        raise InputError(f"{' with '.join(sorted(given))}: give one of them.")


def refuse_setting(override: Override) -> None:
    """Refuses overrides that set anything of Hydra but the launcher, or that name a class.

    Raises:
        InputError: With what can be set.
    """
    key = override.key_or_group
    if override.package is not None and override.get_key_element().lstrip("+") != "preset@train":
        raise InputError(
            f"{override.input_line}: @ puts a choice in another place, which only preset@train may do.\n"
            f"Give: {key}={override.get_value_string()}"
        )
    if key.replace("/", ".").split(".")[0] != "hydra":
        return
    if key == "hydra/launcher":
        if override.is_sweep_override() or (isinstance(override.value(), str) and override.value()):
            return
        raise InputError(f"{override.input_line}: a launcher is chosen by its name. Give: hydra/launcher=joblib")
    if not key.startswith(LAUNCHER) or any(map(_is_special, key.split("."))) or _holds_special(override.value()):
        raise InputError(
            f"{override.input_line}: of Hydra only the launcher can be chosen and set, and no class can be named.\n"
            "Examples: hydra/launcher=joblib, hydra.launcher.n_jobs=4. For the folder of runs: paths.outputs=DIR"
        )


def _abbreviates(flag: str, name: str) -> bool:
    """Says whether argparse would read a flag as an abbreviation of this option."""
    return len(flag) > 2 and flag.startswith("--") and name.startswith(flag)


def _shows(argument: str) -> bool:
    flag = argument.partition("=")[0]
    return flag in ("-c", "-h") or _abbreviates(flag, "--cfg") or _abbreviates(flag, "--help")


def _is_special(key: Any) -> bool:
    """Says whether Hydra would act on a key when it makes an object, as on _target_."""
    return str(key).startswith("_")


def _holds_special(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_is_special(key) or _holds_special(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_holds_special, value))
