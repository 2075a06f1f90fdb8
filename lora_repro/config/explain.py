"""Errors of Hydra and OmegaConf in our words: what is wrong, what was given, what to do. No torch."""

import re

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import MarkedYAMLError

from lora_repro.config.resolve import unknown_key
from lora_repro.config.settings import tilde_message
from lora_repro.errors import InputError, did_you_mean, no_such_choice
from lora_repro.methods import refuse_untrainable


def explain(error: Exception) -> str:
    """Says what is wrong in an error of Hydra or OmegaConf, what was given, and what to do."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        where = f"{mark.name}, line {mark.line + 1}"
        return f"{where}: this is no YAML ({error.problem}).\nCorrect that line; mind the indentation."
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
        if group == "method":
            try:
                refuse_untrainable(name)
            except InputError as refusal:
                return str(refusal)
        names = [option for option in error.options or [] if not option.endswith("_schema")]
        return no_such_choice(group, name, names)
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        if key.startswith("paths.") and value.startswith("~"):
            return tilde_message(key, value)
        return (
            f"{error.override}: cannot be read as an override ({str(error).splitlines()[0]}).\n"
            "An override reads KEY=VALUE, a list KEY=[A,B]; quote what the shell would take: 'method.targets=[q,v]'."
        )
    return "\n".join(str(error).splitlines()[:4])


def _explain_value(text: str) -> str:
    """Says what a value must be, from OmegaConf's words."""
    if found := re.search(r"Value '(.*)' of type '.*' could not be converted to (\w+)", text):
        return f"must be of type {found[2].lower()} (given: {found[1]})."
    if found := re.search(r"Invalid value '(.*)', expected one of \[(.*)\]", text):
        return f"must be one of {found[2]} (given: {found[1]}).{did_you_mean(found[1], found[2].split(', '))}"
    if "is not Optional" in text:
        return "must have a value (given: null)."
    if found := re.search(r"Invalid value assigned: (\w+) is not a ListConfig", text):
        return f"must be a list (given: a value of type {found[1]}). A list reads [A,B], as in method.targets=[q,v]."
    if found := re.search(r"Cannot convert '\w+' to string: '(.*)'", text):
        return f"must be text (given: {found[1]})."
    if "Cannot merge" in text:
        return "a list is given for keys and values, or keys and values for a list. Lists read [A,B], the others {a:1}."
    return text
