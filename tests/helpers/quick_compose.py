"""Composes runs as `compose` does, but reads the files that they choose once for all tests of a process."""

from collections.abc import Sequence
from copy import deepcopy
from functools import cache

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from lora_repro.config.catalogue import GROUPS, is_choice
from lora_repro.config.compose import compose, refuse_repeated_keys


def compose_quickly(overrides: Sequence[str]) -> DictConfig:
    """Returns what `compose` returns: a copy of what the chosen files give, with the values of the other overrides.

    What is chosen otherwise than by a file is composed by `compose` itself, and so are several values of one key.
    """
    choices = [override for override in overrides if override.partition("=")[0] in GROUPS]
    values = [override for override in overrides if override not in choices]
    files = [(key.partition("@")[0], name) for key, _, name in (choice.partition("=") for choice in choices)]
    if not all(is_choice(group, name) for group, name in files) or any(not value[:1].isalpha() for value in values):
        return compose(overrides)
    refuse_repeated_keys(values)
    parsed = OverridesParser.create().parse_overrides(values)
    if any(override.is_sweep_override() for override in parsed):
        return compose(overrides)
    cfg = deepcopy(_chosen(tuple(choices)))
    ConfigLoaderImpl._apply_overrides_to_config(parsed, cfg)
    return cfg


@cache
def _chosen(choices: tuple[str, ...]) -> DictConfig:
    return compose(choices)
