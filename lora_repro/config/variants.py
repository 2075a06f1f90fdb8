"""Resolves many configurations that differ in a few keys, as the points of a sweep do. No torch.

OmegaConf takes milliseconds for a whole configuration. Here a section (model, method, train ...) is typed once for each
combination of its own values, and every configuration takes its sections from there. This holds only while no section
depends on another one. What could make one depend is resolved as a whole: an interpolation, a dictionary, a key below
another key. So is whatever is refused, because `resolve` words the refusal.
"""

import re
from collections.abc import Mapping
from copy import copy, deepcopy
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lora_repro.config.resolve import Resolved, check, resolve, typed
from lora_repro.config.schema import Config
from lora_repro.errors import InputError

_OF_ENVIRONMENT = re.compile(r"\$\{oc\.env:[^${}]*\}")
"""The only interpolations that refer to no key of the configuration."""

_SECTIONS = tuple(
    field.name for field in fields(Config) if field.name not in ("seed", "sweep", "tune", "start", "regime")
)


_known: dict[tuple[Any, ...], Any] = {}
"""What sections were typed to in this process: the sweeps of a report share most of theirs."""


class Variants:
    """The configurations that a composed one becomes when keys of it are set.

    Args:
        composed: The configuration; its sweep is left out.
    """

    def __init__(self, composed: DictConfig) -> None:
        self._composed = composed
        composed.sweep = None  # a run does not need it, and copying it takes time
        content = OmegaConf.to_container(composed)
        assert isinstance(content, dict)
        self._seed, self._regime = content.get("seed"), content.get("regime")
        self._keys: dict[str, set[str]] = {}
        """The keys of each section; none if sections may depend on each other."""
        if content.keys() == {field.name for field in fields(Config)} and not _refers(content):
            self._keys = {name: {*map(str, content[name])} for name in _SECTIONS if isinstance(content[name], dict)}
        self._typed: dict[tuple[Any, ...], Any] = {}
        """The sections that were typed, by name and values."""
        self._written = {name: repr(content[name]) for name in self._keys}
        self._drafts: dict[tuple[str, ...], DictConfig] = {}
        """Copies of sections, by name and the keys of which each use sets all."""

    def resolve(self, values: Mapping[str, Any]) -> Resolved:
        """Returns the checked configuration with these values, which are set as Hydra sets overrides.

        Args:
            values: By dotted key.

        Raises:
            InputError: If a value is impossible.
            OmegaConfBaseException: If there is no such key, or a value has another type than declared.
        """
        if (sections := self._by_section(values)) is not None:
            try:
                parts = {name: copy(self._section(name, sections.get(name, {}))) for name in _SECTIONS}
                return check(Config(**parts, seed=values.get("seed", self._seed), regime=self._regime))
            except (InputError, OmegaConfBaseException):
                pass  # it is said below
        whole = deepcopy(self._composed)
        for key, value in values.items():
            OmegaConf.update(whole, key, value)
        return resolve(whole)

    def _by_section(self, values: Mapping[str, Any]) -> dict[str, dict[str, Any]] | None:
        """Returns values by section and key; None if they may depend on each other or concern a whole section."""
        if self._keys.keys() != {*_SECTIONS} or type(values.get("seed", self._seed)) is not int:
            return None
        found: dict[str, dict[str, Any]] = {}
        for full_key, value in values.items():
            section, _, key = full_key.partition(".")
            if full_key == "seed":
                continue
            if key not in self._keys.get(section, ()) or not _is_plain(value):
                return None
            found.setdefault(section, {})[key] = value
        return found

    def _section(self, name: str, values: Mapping[str, Any]) -> Any:
        known, kind = (name, repr(values)), (name, *values)
        typed_before, written = self._typed, self._written[name]
        if "${" not in written:  # then nothing outside, as a variable of the environment, decides what it becomes
            typed_before, known = _known, (*known, OmegaConf.get_type(self._composed[name]), written)
        if known not in typed_before:
            if kind not in self._drafts:
                self._drafts[kind] = deepcopy(self._composed[name])
            for key, value in values.items():
                OmegaConf.update(self._drafts[kind], key, value)
            typed_before[known] = typed(self._drafts[kind], name)
        return typed_before[known]


def _refers(value: Any) -> bool:
    """Tells whether a value of a configuration may follow from another one."""
    if isinstance(value, dict | list):
        return any(map(_refers, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and "${" in value and _OF_ENVIRONMENT.fullmatch(value) is None


def _is_plain(value: Any) -> bool:
    """Tells whether a value replaces the earlier one whatever that is, and refers to no other."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float) or (type(value) is str and "${" not in value)
