"""Composes a configuration outside of a running Hydra: for planning, tables, fetching and tests. No torch."""

from collections.abc import Sequence

import hydra
from omegaconf import DictConfig

from lora_repro.config.catalogue import HOME
from lora_repro.config.repeated import refuse_repeated_keys


def compose(overrides: Sequence[str]) -> DictConfig:
    """Returns what `python -m lora_repro OVERRIDES` would compose.

    Raises:
        InputError: If a key stands twice in a dictionary among them.
        HydraException: If an override, or a choice of a group, does not exist.
    """
    refuse_repeated_keys(overrides)
    with hydra.initialize_config_dir(str(HOME / "conf"), version_base="1.3"):
        return hydra.compose("config", list(overrides))
