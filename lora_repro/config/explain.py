"""Explains errors of Hydra and OmegaConf: what is wrong, what was given, what to do. No torch."""

import re

from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import MarkedYAMLError

from lora_repro.config.declared_types import unknown_key
from lora_repro.config.settings import tilde_message
from lora_repro.errors import InputError, did_you_mean, no_such_choice

COMMANDS = "\nCommands such as plan, status and table belong to the other program: python -m analysis --help"


def explain(error: Exception) -> str:
    """Says what is wrong, what was given and what to do, for an error of Hydra, OmegaConf or the YAML parser."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return (
            f"{mark.name}, line {mark.line + 1}: this is not YAML ({error.problem}).\n"
            "Correct that line, and check its indentation."
        )
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, ConfigCompositionException) and (ours := _of_ours(error)) is not None:
        return explain(ours)
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, ConfigKeyError | ConfigAttributeError):
        keys = sorted(map(str, cause.parent_node)) if isinstance(cause.parent_node, DictConfig) else []
        return unknown_key(str(cause.full_key), keys)
    if isinstance(cause, OmegaConfBaseException):
        return f"{cause.full_key or 'configuration'}: {_explain_value(str(cause).splitlines()[0])}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None:
        group, _, name = error.missing_cfg_file.rpartition("/")
        if ".." in group:  # a path where a name belongs
            group, _, name = error.missing_cfg_file.partition("/")
        names = [option for option in error.options or [] if not option.endswith("_schema")]
        return no_such_choice(group, name, names)
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        if key.startswith("paths.") and value.startswith("~"):
            return tilde_message(key, value)
        return (
            f"{error.override}: is not an override ({str(error).splitlines()[0]}).\n"
            "An override is KEY=VALUE, a list KEY=[A,B]. Quote brackets for the shell: 'method.targets=[q,v]'."
            f"{COMMANDS if error.override.isalpha() else ''}"
        )
    return "\n".join(str(error).splitlines()[:4])


def _of_ours(error: BaseException) -> InputError | MarkedYAMLError | None:
    """Returns the error that an error of Hydra stands for, where a resolver of this project raised it."""
    behind = error.__cause__ or error.__context__
    found = isinstance(behind, InputError | MarkedYAMLError)
    return behind if found else None if behind is None else _of_ours(behind)


def _explain_value(text: str) -> str:
    """Says what a value must be, for a message of OmegaConf."""
    if found := re.search(r"Value '(.*)' of type '.*' could not be converted to (\w+)", text):
        return f"must be of type {found[2].lower()} (given: {found[1]})."
    if found := re.search(r"Invalid value '(.*)', expected one of \[(.*)\]", text):
        return f"must be one of {found[2]} (given: {found[1]}).{did_you_mean(found[1], found[2].split(', '))}"
    if "is not Optional" in text:
        return "must have a value (given: null)."
    if found := re.search(r"Invalid value assigned: (\w+) is not a ListConfig", text):
        return (
            f"must be a list (given: a value of type {found[1]}). A list is written [A,B], as in method.targets=[q,v]."
        )
    if found := re.search(r"Cannot convert '\w+' to string: '(.*)'", text):
        return f"must be text (given: {found[1]})."
    if "Cannot merge" in text:
        return "must be a list, written [A,B], or keys and values, written {a:1}; the other of the two is given."
    return text
