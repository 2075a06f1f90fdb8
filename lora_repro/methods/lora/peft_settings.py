"""PEFT's adapter_config.json: the rank and scale of each update, and settings that mean more than B A. No torch."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lora_repro.errors import InputError, MissingInputError, shown
from lora_repro.methods.patterns import Budget, Pattern
from lora_repro.store.reading import parse_foreign_json

WITHOUT_EFFECT = frozenset(
    {
        *("auto_mapping", "base_model_name_or_path", "peft_version", "revision", "task_type"),
        *("inference_mode", "lora_dropout", "merge_weights"),  # of the training; the last one is PEFT's before 0.3
        *("bias", "modules_to_save"),  # the tensors tell
        *(
            "eva_config",
            "corda_config",
            "lora_ga_config",
            "loftq_config",
            "qalora_group_size",
        ),  # beside what is refused
        *("fan_in_fan_out", "megatron_config", "megatron_core"),  # PEFT goes by the layer
    }
)
"""Settings that do not change what the tensors of the file compute."""

CHECKED = frozenset(
    {
        *("peft_type", "init_lora_weights"),
        *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    }
)
"""Settings that are compared with the model and the method."""

MORE_THAN_BA = {
    "use_dora": "scales each column of W_0 + B A",
    "use_qalora": "pools the input before A",
    "use_bdlora": "keeps only blocks of a factor",
    "target_parameters": "adapts stacks of experts",
    "lora_bias": "adds a bias to B",
    "alora_invocation_tokens": "switches the adapter on behind certain tokens only",
    "trainable_token_indices": "replaces rows of the token embedding",
    "layer_replication": "repeats layers of the base",
    "arrow_config": "mixes several adapters by the input",
    "monteclora_config": "draws its updates at random",
    "kasa_config": "cuts W_0 and puts a diagonal between B and A",
    "velora_config": "trains with another gradient",
    "ensure_weight_tying": "adapts the output layer with the token embedding",
}
"""Settings with which an adapter computes more than W_0 + (alpha / r) B A, and what (peft/tuners/lora/variants.py)."""

_NO_BA = ("use_dora", "use_qalora", "use_bdlora", "arrow_config", "target_parameters")
"""Those of them whose update is no B A at all: their adapters are not inspected either."""

_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "peft_type": ((str,), "a name"),
    "base_model_name_or_path": ((str,), "a name"),
    "init_lora_weights": ((bool, str), "true, false or a name"),
    "use_rslora": ((bool,), "true or false"),
    "use_dora": ((bool,), "true or false"),
    "use_qalora": ((bool,), "true or false"),
    "lora_bias": ((bool,), "true or false"),
    "fan_in_fan_out": ((bool,), "true or false"),
    "use_bdlora": ((dict, bool), "settings by name"),
    "rank_pattern": ((dict,), "numbers by name"),
    "alpha_pattern": ((dict,), "numbers by name"),
    "kasa_config": ((dict,), "settings by name"),
    "arrow_config": ((dict,), "settings by name"),
    "velora_config": ((dict,), "settings by name"),
    "monteclora_config": ((dict,), "settings by name"),
    "target_parameters": ((list,), "a list of names"),
    "target_modules": ((list, str), "a list of names or a pattern"),
    "exclude_modules": ((list, str), "a list of names or a pattern"),
    "layers_to_transform": ((list, int), "numbers of layers"),
    "alora_invocation_tokens": ((list,), "a list of tokens"),
    "enable_lora": ((list,), "a list of true and false"),
}
"""What is read of the settings, null or of these types. What is not read may be anything."""

_ITEMS = {"target_modules": str, "exclude_modules": str, "layers_to_transform": int}
"""The type of the items in a list of these."""

_REMEDY = "Give it as PEFT's save_pretrained writes it."


class PeftLoRA(NamedTuple):
    """The settings of a LoRA adapter, or of a method that has LoRA's settings."""

    source: str
    """The file, as messages name it."""
    kind: str
    """peft_type."""
    r: int
    alpha: float
    ranks: Mapping[str, tuple[Pattern, float]]
    """rank_pattern, in the order of the file."""
    alphas: Mapping[str, tuple[Pattern, float]]
    """alpha_pattern."""
    given: Mapping[str, Any]
    """All settings of the file."""

    @property
    def rslora(self) -> bool:
        """Whether the scale is alpha / sqrt(r)."""
        return bool(self.given.get("use_rslora"))

    def rank(self, module: str) -> int:
        """Returns the rank of a module's update."""
        return int(self._first("rank_pattern", self.ranks, module, float(self.r)))

    def scaling(self, module: str) -> float:
        """Returns the scale of a module's update: alpha / r, or alpha / sqrt(r) in rsLoRA."""
        alpha, r = self._first("alpha_pattern", self.alphas, module, self.alpha), self.rank(module)
        return alpha / (math.sqrt(r) if self.rslora else r)

    def doubts(self, modules: Sequence[str]) -> list[str]:
        """Describes modules whose rank or alpha depends on the order of keys in the file, and keys that match nothing.

        PEFT takes the first key that matches, but sorts the keys when it saves, so training may have used another one.
        """
        problems = []
        for name, patterns in (("rank_pattern", self.ranks), ("alpha_pattern", self.alphas)):
            found = {module: self._all(name, patterns, module) for module in modules}
            unclear = {m: keys for m, keys in found.items() if len({patterns[key][1] for key in keys}) > 1}
            if unclear:
                module, keys = next(iter(unclear.items()))
                values = ", ".join(f"{shown(key)} = {patterns[key][1]:g}" for key in keys)
                problems.append(
                    f"{name}: several keys with other values match {len(unclear)} of {len(modules)} modules, first "
                    f"{shown(module)} ({values}). PEFT takes the first in the file and sorts the keys when it saves, "
                    "so the adapter may have been trained with another."
                )
            used = {key for keys in found.values() for key in keys}
            if idle := [shown(key) for key in patterns if key not in used]:
                problems.append(f"{name}: {len(idle)} keys match no module of the adapter, first {idle[0]}.")
        return problems

    def _first(self, name: str, patterns: Mapping[str, tuple[Pattern, float]], module: str, default: float) -> float:
        keys = self._all(name, patterns, module)
        return patterns[keys[0]][1] if keys else default

    def _all(self, name: str, patterns: Mapping[str, tuple[Pattern, float]], module: str) -> list[str]:
        found = []
        for key, (pattern, _) in patterns.items():
            try:
                if pattern.matches(module):
                    found.append(key)
            except ValueError as error:
                raise _unmatched(self.source, name, key, error) from None
        return found


def settings_of(content: str | bytes, source: str) -> dict[str, Any]:
    """Reads JSON that holds settings by name, however it is damaged.

    Raises:
        MissingInputError: If it does not.
    """
    if content[:23] in ("version https://git-lfs", b"version https://git-lfs"):
        raise MissingInputError(f"{source}: is a Git-LFS pointer: the file was not downloaded.\ngit lfs pull")
    try:
        settings = parse_foreign_json(content if isinstance(content, bytes) else content.encode())
        if not isinstance(settings, dict):
            raise ValueError(f"holds a {type(settings).__name__}, no settings by name")
    except ValueError as error:
        raise MissingInputError(f"{source}: is damaged ({shown(error)}).\n{_REMEDY}") from error
    return settings


def lora_settings(settings: Mapping[str, Any], source: str, rank: str = "r", alpha: str = "lora_alpha") -> PeftLoRA:
    """Checks settings by name.

    Args:
        settings: What the file holds.
        source: What is named when something is wrong.
        rank: The name of the rank in it.
        alpha: The name of alpha in it.

    Raises:
        MissingInputError: If one is missing, or of a wrong type.
        InputError: If a setting makes the update no (alpha / r) B A, or a pattern cannot be matched.
    """
    for key, (types, words) in _TYPES.items():
        value = settings.get(key)
        fits = isinstance(value, types)
        if isinstance(value, list) and key in _ITEMS:
            fits = fits and all(type(item) is _ITEMS[key] for item in value)
        if value is not None and not fits:
            raise MissingInputError(f"{source}: {key} must be {words} (given: {_given(value)}).\n{_REMEDY}")
    if setting := next((key for key in _NO_BA if settings.get(key)), None):
        raise InputError(
            f"{source}: the adapter has {setting}, which {MORE_THAN_BA[setting]}.\n"
            "Give a LoRA adapter without it: dW = (alpha / r) B A."
        )
    budget = Budget()
    read = {}
    for name, number in (("rank_pattern", _rank), ("alpha_pattern", _alpha)):
        read[name] = {}
        for key, value in (settings.get(name) or {}).items():
            try:
                pattern = Pattern(key, budget)
            except ValueError as error:
                raise _unmatched(source, name, key, error) from None
            read[name][key] = pattern, float(number(value, f"{source}: {name} of {shown(key)}"))
    return PeftLoRA(
        source,
        str(settings.get("peft_type") or "LORA"),
        _rank(settings.get(rank), f"{source}: {rank}"),
        _alpha(settings.get(alpha), f"{source}: {alpha}"),
        read["rank_pattern"],
        read["alpha_pattern"],
        settings,
    )


def other_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that may change what is computed: those that are known to, and those that are not known."""
    harmless = WITHOUT_EFFECT | CHECKED
    return {
        key: value
        for key, value in config.items()
        if key not in harmless and value is not None and value is not False and value not in ({}, [], "")
    }


def _unmatched(source: str, name: str, key: str, error: ValueError) -> InputError:
    return InputError(f"{source}: {name} holds {shown(key)}, which {error}.\nWrite the modules' names.")


def _rank(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1 or value % 1 or value > 2**31:
        raise MissingInputError(f"{name} must be a whole number of 1 or more (given: {_given(value)}).\n{_REMEDY}")
    return int(value)


def _alpha(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e30 < value < 1e30:
        raise MissingInputError(f"{name} must be a number (given: {_given(value)}).\n{_REMEDY}")
    return float(value)


def _given(value: object) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "settings by name"
    return "nothing" if value is None else shown(json.dumps(value))
