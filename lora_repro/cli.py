"""What both programs do with a command line: correct it, refuse what is wrong, and explain errors. No torch."""

import re
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lora_repro import interrupt
from lora_repro.config.catalogue import HOME, group_names, refuse_bare_sweep, refuse_no_choice
from lora_repro.config.compose import refuse_repeated_keys
from lora_repro.config.declared_types import as_declared
from lora_repro.config.explain import explain
from lora_repro.config.hydra_limits import refuse_flags, refuse_setting
from lora_repro.config.presets import WARMUP_RATIO, WARMUP_STEPS
from lora_repro.config.settings import refuse_home
from lora_repro.costs import budget
from lora_repro.errors import InputError, RunFailedError, describe_os_error, did_you_mean
from lora_repro.sweep.grid import refuse_idle_scale
from lora_repro.terminal import clean_streams

LONGEST_NAME = 255
"""The longest file name that file systems take; no key or choice is longer."""

GOES_ON = "finished runs are kept, and the same command goes on from here"

MULTIRUN = ("-m", "--multirun")


def guard(command: Callable[[], None], after: str = GOES_ON) -> int:
    """Runs a command and returns its exit code. Errors that a user can fix are printed without a traceback.

    Args:
        command: The command.
        after: What the same command does after Ctrl-C, to be printed.
    """
    with clean_streams():
        return _guarded(command, after)


def _guarded(command: Callable[[], None], after: str) -> int:
    interrupt.listen(program=True)
    try:
        command()
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal may be closed
            print(f"\nInterrupted; {after}.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except RecursionError:
        print("Error: an argument is nested too deeply. Remove brackets.", file=sys.stderr)
        return 1
    except UnicodeDecodeError as error:
        print(f"Error: {_not_text() or 'a file'}: not UTF-8 text ({error.reason}).", file=sys.stderr)
        return 1
    except (InputError, RunFailedError, HydraException, OmegaConfBaseException, YAMLError, OSError) as error:
        return say(error)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 0


def _not_text() -> str | None:
    """Returns the first file of conf/ and sweeps/ that is not text: Python's error does not name it."""
    for path in sorted([*HOME.glob("conf/**/*.yaml"), *HOME.glob("sweeps/**/*.yaml")]):
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return str(path)
    return None


def say(error: Exception) -> int:
    """Prints an error in a few lines on stderr and returns the exit code."""
    if isinstance(error, HydraException | OmegaConfBaseException | YAMLError):
        text = explain(error)
    elif isinstance(error, OSError):
        text = describe_os_error(error)
    else:
        text = str(error)
    print(f"Error: {text}", file=sys.stderr)
    return 1


def refuse_impossible_names(argv: Sequence[str]) -> None:
    """Refuses names that no file and no key can have, before the file system sees them.

    Raises:
        InputError: With the beginning of the name.
    """
    for argument in argv:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            readable = argument.encode(errors="surrogateescape").decode(errors="backslashreplace")
            raise InputError(
                f"{readable[:80]}: not UTF-8 text. Set the terminal's encoding to UTF-8, or type it again."
            ) from error
        for name in re.split(r"[/,=\[\]{} ]", argument):
            if len(name.encode()) > LONGEST_NAME:
                raise InputError(
                    f"{name[:40]}...: a name of {len(name)} characters (given in {argument[:40]}...).\n"
                    f"Shorten it: at most {LONGEST_NAME}."
                )


def normalise(argv: Sequence[str]) -> list[str]:
    """Refuses arguments that Hydra would silently misread, and returns those that Hydra gets.

    In Hydra `+key=value` adds any key, without a check. Here it means `key=value`, so that a misspelt key is refused.

    Raises:
        InputError: If a sweep is written in a form that would run one default job, a key is deleted, or a part of Hydra
            is set that `hydra_limits` refuses.
    """
    refuse_impossible_names(argv)
    argv = _scale_as_override(argv)
    refuse_flags(argv)
    multirun = [argument for argument in argv if argument in MULTIRUN]
    arguments = multirun[:1]  # in front, because argparse does not take a flag after an override
    given = []
    for argument in argv:
        if argument in MULTIRUN:
            continue
        if argument.startswith("-") or "=" not in argument:
            if argument.startswith("~"):
                raise InputError(f"{argument}: a key cannot be deleted. Set the value that you want.")
            arguments.append(argument)
            continue
        (override,) = OverridesParser.create().parse_overrides([argument])
        refuse_repeated_keys([argument])
        given.append(override)
        refuse_setting(override)
        _refuse_no_sweep(override, argv)
        if override.key_or_group in ("tune", "start", "regime") and not multirun:
            raise InputError(f"{argument}: only a sweep has this. Give -m: python -m lora_repro -m {shlex.join(argv)}")
        if override.is_sweep_override() and not multirun:
            raise InputError(
                f"{argument}: several values make a sweep. Give -m: python -m lora_repro -m {shlex.join(argv)}"
            )
        if not override.is_sweep_override():
            refuse_no_choice(override.get_key_element().lstrip("+"), override.value())
            if override.key_or_group == "paths.outputs":
                refuse_home(str(override.value()))
        arguments.append(_as_declared(override, argument))
    arguments += _instead_of_preset(given)
    if not multirun:
        values = {override.key_or_group: override.value() for override in given}
        budget.refuse_both(values, str(values.get("method", "lora")))
        refuse_idle_scale(given)
    return arguments


def _instead_of_preset(given: Sequence[Override]) -> list[str]:
    """Returns what goes with an override where a preset has another key for the same thing, which would win over it."""
    keys = {override.key_or_group for override in given}
    is_ratio = {"preset", WARMUP_RATIO} <= keys and WARMUP_STEPS not in keys
    return [f"{WARMUP_STEPS}=null"] if is_ratio else []


def _scale_as_override(argv: Sequence[str]) -> list[str]:
    """Replaces `--scale demo`, which `python -m analysis table` takes, by scale=demo."""
    found, rest = [], iter(argv)
    for argument in rest:
        value = next(rest, "") if argument == "--scale" else argument.removeprefix("--scale=")
        found.append(f"scale={value}" if argument.startswith("--scale") and value != argument else argument)
    return found


def _as_declared(override: Override, argument: str) -> str:
    """Returns an override without a leading plus, and with 8 for 8.0 where an integer is declared."""
    key = override.key_or_group
    if key == "sweeps" or key.split(".")[0] == "hydra":
        return argument
    given = override.value()
    if (value := as_declared(key, given)) is not given:
        argument = f"{override.get_key_element()}={value}"
    return argument.lstrip("+")


def _refuse_no_sweep(override: Override, argv: Sequence[str]) -> None:
    """Refuses forms that name a sweep but would run a single default job."""
    key, names = override.key_or_group, group_names("sweeps")
    if key == "sweep":
        value = override.get_value_string()
        raise InputError(
            f"{override.input_line}: a sweep is chosen with +sweeps (with an s).\n"
            f"Give: -m +sweeps={value if value in names else names[0]} (sweeps: {', '.join(names)})."
        )
    if key != "sweeps":
        return
    if not override.is_add():
        raise InputError(f"{override.input_line}: write one plus. Give: -m +sweeps={override.get_value_string()}")
    name = override.get_value_string()
    if name not in names:
        raise InputError(f"+sweeps: no sweep {name!r}.{did_you_mean(name, names)}\nSweeps: {', '.join(names)}.")
    refuse_bare_sweep(name)
    if not any(flag in argv for flag in MULTIRUN):
        raise InputError(f"+sweeps={name} is a sweep. Give -m: python -m lora_repro -m {shlex.join(argv)}")
