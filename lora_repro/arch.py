"""Shapes of a model from its configuration: every parameter, and the one map from W_q to a module. No torch."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from math import prod
from typing import Any, NamedTuple

from omegaconf import MISSING

from lora_repro.errors import InputError
from lora_repro.identity import NOT_SCIENCE

LETTERS = ("q", "k", "v", "o")
"""The paper's names of the attention matrices (Section 4.2), in the order in which they are always listed."""

Shape = tuple[int, ...]


class Source(str, Enum):
    """Where a model's weights come from."""

    pretrained = "pretrained"
    random = "random"


@dataclass
class ModelConfig:
    """Which backbone. Only name, digest and dropout are science; all else describes what the digest names.

    So nothing else can be overridden (`resolve` refuses it), and what the weights come with must agree with it.
    """

    name: str = MISSING
    digest: str = MISSING
    """sha256 of model.safetensors, checked when the weights are loaded."""
    dropout: float = MISSING
    """Dropout of the backbone while training, hidden states and attention alike."""
    source: Source = field(default=Source.pretrained, metadata=NOT_SCIENCE)
    config: dict[str, Any] = field(default=MISSING, metadata=NOT_SCIENCE)
    """The keys of transformers' config.json that fix shapes and function."""
    package: str | None = field(default=None, metadata=NOT_SCIENCE)
    package_folder: str | None = field(default=None, metadata=NOT_SCIENCE)
    hub: str | None = field(default=None, metadata=NOT_SCIENCE)
    revision: str | None = field(default=None, metadata=NOT_SCIENCE)
    files: dict[str, str] = field(default_factory=dict, metadata=NOT_SCIENCE)
    """Other files that are needed, each with its sha256."""

    def check(self) -> None:
        """Refuses an impossible dropout.

        Raises:
            InputError: If dropout is not in [0, 1).
        """
        if not 0 <= self.dropout < 1:
            raise InputError(f"model.dropout: must be in [0, 1) (given: {self.dropout}).")


class Site(NamedTuple):
    """One weight matrix that can be adapted: W of shape (d_out, d_in) in `module`."""

    layer: int
    letter: str
    module: str
    d_in: int
    d_out: int

    @property
    def name(self) -> str:
        """The name that draws and records use, whatever the module is called: `layers.0.q`."""
        return f"layers.{self.layer}.{self.letter}"


class Arch(NamedTuple):
    """Every parameter of a sequence classifier: names and shapes as transformers has them."""

    model_type: str
    d_model: int
    num_layers: int
    max_length: int
    """The longest input, in tokens."""
    parameters: Mapping[str, Shape]
    head_modules: tuple[str, ...]
    """Modules that every method trains (in the authors' code too): the classifier, with BERT's pooler."""
    sites: tuple[Site, ...]

    def is_head(self, parameter: str) -> bool:
        """Tells whether a parameter belongs to the head."""
        return parameter.startswith(tuple(f"{module}." for module in self.head_modules))

    @property
    def head_size(self) -> int:
        """Number of weights of the head."""
        return self.size(name for name in self.parameters if self.is_head(name))

    def select(self, letters: list[str]) -> list[Site]:
        """Returns the sites of these letters, layer by layer.

        Raises:
            InputError: If a letter names no matrix of this architecture.
        """
        here = [letter for letter in LETTERS if any(site.letter == letter for site in self.sites)]
        for letter in letters:
            if letter not in here:
                raise InputError(
                    f"method.targets: no matrix {letter!r} in {self.model_type} (given: [{', '.join(letters)}]).\n"
                    f"Matrices here: {', '.join(here)}. Example: method.targets=[q,v]"
                )
        return [site for site in self.sites if site.letter in letters]

    def size(self, parameters: Iterable[str] | None = None) -> int:
        """Counts the weights of these parameters (default: of all)."""
        return sum(prod(self.parameters[name]) for name in (self.parameters if parameters is None else parameters))


def arch_of(config: Mapping[str, Any], num_labels: int) -> Arch:
    """Derives all shapes from the keys of a transformers config.json.

    Args:
        config: The mapping, with `model_type`.
        num_labels: Width of the classifier's output.

    Raises:
        InputError: If the architecture is unknown or a key is missing.
    """
    return _arch(json.dumps(dict(config), sort_keys=True, default=str), num_labels)


@cache
def _arch(config_json: str, num_labels: int) -> Arch:
    config = json.loads(config_json)
    family = str(config.get("model_type"))
    if family not in FAMILIES:
        raise InputError(
            f"model: unknown architecture {family!r} (model_type in config.json).\n"
            f"Known: {', '.join(FAMILIES)}. To add one, give its shapes and sites in lora_repro/arch.py."
        )
    try:
        return FAMILIES[family](config, num_labels)
    except KeyError as error:
        raise InputError(
            f"model: config.json of this {family} lacks the key {error}.\nGive the one that belongs to the weights."
        ) from None


_LARGEST = {
    "hidden_size": 10**6,
    "intermediate_size": 10**7,
    "num_hidden_layers": 1000,
    "num_attention_heads": 10**4,
    "vocab_size": 10**7,
    "max_position_embeddings": 10**7,
    "type_vocab_size": 1000,
}
"""What no model reaches: an absurd number is refused before memory is asked for."""


def _bert(config: Mapping[str, Any], num_labels: int) -> Arch:
    """BERT and RoBERTa (post-LayerNorm encoders with learned positions)."""
    prefix = config["model_type"]
    for key, most in _LARGEST.items():
        if type(config[key]) is not int or not 1 <= config[key] <= most:
            raise InputError(
                f"model: {key} must be a whole number from 1 to {most} (given: {config[key]}).\n"
                "Give the config.json that belongs to the weights."
            )
    d, d_ff, num_layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    if d % config["num_attention_heads"]:
        raise InputError(
            f"model: hidden_size {d} is no multiple of {config['num_attention_heads']} attention heads.\n"
            "Give the config.json that belongs to the weights."
        )
    shapes: dict[str, Shape] = {}

    def linear(module: str, d_in: int, d_out: int) -> None:
        shapes[f"{module}.weight"] = (d_out, d_in)
        shapes[f"{module}.bias"] = (d_out,)

    def norm(module: str) -> None:
        shapes[f"{module}.weight"] = (d,)
        shapes[f"{module}.bias"] = (d,)

    for table, rows in (
        ("word", config["vocab_size"]),
        ("position", config["max_position_embeddings"]),
        ("token_type", config["type_vocab_size"]),
    ):
        shapes[f"{prefix}.embeddings.{table}_embeddings.weight"] = (rows, d)
    norm(f"{prefix}.embeddings.LayerNorm")
    sites = []
    for layer in range(num_layers):
        block = f"{prefix}.encoder.layer.{layer}"
        modules = {
            "q": f"{block}.attention.self.query",
            "k": f"{block}.attention.self.key",
            "v": f"{block}.attention.self.value",
            "o": f"{block}.attention.output.dense",
        }
        for letter, module in modules.items():
            linear(module, d, d)
            sites.append(Site(layer, letter, module, d, d))
        norm(f"{block}.attention.output.LayerNorm")
        linear(f"{block}.intermediate.dense", d, d_ff)
        linear(f"{block}.output.dense", d_ff, d)
        norm(f"{block}.output.LayerNorm")
    positions = config["max_position_embeddings"]
    if prefix == "bert":
        linear("bert.pooler.dense", d, d)
        linear("classifier", d, num_labels)
        head_modules = ("bert.pooler", "classifier")
    else:
        linear("classifier.dense", d, d)
        linear("classifier.out_proj", d, num_labels)
        head_modules = ("classifier",)
        positions -= config["pad_token_id"] + 1  # RoBERTa numbers positions from pad_token_id + 1
    return Arch(prefix, d, num_layers, positions, shapes, head_modules, tuple(sites))


FAMILIES: dict[str, Callable[[Mapping[str, Any], int], Arch]] = {"bert": _bert, "roberta": _bert}
