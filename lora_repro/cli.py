"""What both programs do with a command line: mend what is meant, refuse what is not, end in words. No torch."""

import re
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from lora_repro.config import group_names, unknown_key
from lora_repro.errors import InputError, RunFailedError, did_you_mean

MULTIRUN = ("-m", "--multirun")


def guard(command: Callable[[], None]) -> int:
    """Runs a command and returns its exit code; what a person can mend is told in a few lines, without a traceback."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        command()
    except KeyboardInterrupt:
        print("\nInterrupted; finished runs are kept, the same command goes on.", file=sys.stderr)
        return 130
    except (InputError, RunFailedError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except (HydraException, OmegaConfBaseException) as error:
        print(f"Error: {explain(error)}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 0


def normalise(argv: Sequence[str]) -> list[str]:
    """Checks the overrides among the arguments that Hydra would take in silence, and returns what Hydra shall get.

    `+key=value` adds a key in Hydra, past the schema; here it means `key=value`, so that a misspelt key is refused.

    Raises:
        InputError: If a sweep is asked for in a form that would run one default job, or a key is deleted.
    """
    arguments = []
    for argument in argv:
        if argument.startswith("-") or "=" not in argument:
            if argument.startswith("~"):
                raise InputError(f"{argument}: nothing can be taken out of a configuration. Set the value you want.")
            arguments.append(argument)
            continue
        override = OverridesParser.create().parse_override(argument)
        _refuse_no_sweep(override, argv)
        plain = override.key_or_group != "sweeps" and override.key_or_group.split(".")[0] != "hydra"
        arguments.append(argument.lstrip("+") if plain else argument)
    return arguments


def _refuse_no_sweep(override: Override, argv: Sequence[str]) -> None:
    """Refuses the forms that name a sweep and would run a single default job."""
    key, names = override.key_or_group, group_names("sweeps")
    if key == "sweep" and "." not in key:
        value = override.get_value_string()
        raise InputError(
            f"{override.input_line}: sweeps are named by +sweeps (with an s).\n"
            f"Give: -m +sweeps={value if value in names else names[0]} (there are: {', '.join(names)})."
        )
    if key != "sweeps":
        return
    if not override.is_add():
        raise InputError(f"{override.input_line}: a sweep is added with a plus. Give: -m +{override.input_line}")
    name = override.get_value_string()
    if name not in names:
        raise InputError(f"+sweeps: no sweep {name!r}.{did_you_mean(name, names)}\nSweeps: {', '.join(names)}.")
    if not any(flag in argv for flag in MULTIRUN) and "-c" not in argv and "--cfg" not in argv and argv[0] != "":
        raise InputError(f"+sweeps={name} asks for many runs. Give -m: python -m lora_repro -m {' '.join(argv)}")


def explain(error: Exception) -> str:
    """Says what is wrong in an error of Hydra or OmegaConf, what was given, and what to do."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, ConfigKeyError):
        parent, _, key = str(cause.full_key).rpartition(".")
        keys = sorted(map(str, cause.parent_node)) if cause.parent_node is not None else []
        return unknown_key(f"{parent}.{key}" if parent else key, keys)
    if isinstance(cause, OmegaConfBaseException):
        return _explain_value(error, cause)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None:
        group, _, name = error.missing_cfg_file.rpartition("/")
        names = list(error.options or group_names(group))
        return f"{group}: no {name!r} here.{did_you_mean(name, names)}\nChoices: {', '.join(names)}."
    text = str(error).splitlines()
    if isinstance(error, OverrideParseException):
        return f"{text[0]}\nAn override reads KEY=VALUE; quote what the shell would take: 'method.targets=[q,v]'."
    return "\n".join(text[:4])


def _explain_value(error: Exception, cause: OmegaConfBaseException) -> str:
    """Says which key has a value of the wrong type."""
    first = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
    given = re.search(r"override '?(.*?)'?$", str(error).splitlines()[0])
    key = cause.full_key or (given.group(1) if given else "?")
    return f"{key}: {first}"
