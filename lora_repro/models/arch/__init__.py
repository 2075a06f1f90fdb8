"""Shapes of a model from its configuration, from which it is counted, planned and adapted. No torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Any

from omegaconf import MISSING

from lora_repro.config.identity import NOT_IN_ID
from lora_repro.errors import InputError
from lora_repro.models.arch.base import ROLES, Arch, Part, Shape, Site
from lora_repro.models.arch.blueprint import Blueprint
from lora_repro.models.arch.families import FAMILIES

__all__ = [
    "HOW_TO_ADD",
    "ROLES",
    "Arch",
    "Blueprint",
    "ModelConfig",
    "Part",
    "Shape",
    "Site",
    "Source",
    "arch_of",
    "is_counted",
]

HOW_TO_ADD = (
    "model=local paths.model=DIR reads the architecture of any classifier or language model of transformers from its "
    "folder. To count one from config.json alone: a function with Plan in lora_repro/models/arch/families.py, its line "
    "in FAMILIES there, conf/model/NAME.yaml, and a row in tests/helpers/architectures.py, which is compared with the "
    "class of transformers."
)


class Source(str, Enum):
    """Where a model's weights come from."""

    pretrained = "pretrained"
    random = "random"
    shapes = "shapes"
    """Nowhere: the model is counted and planned, never loaded."""


@dataclass
class ModelConfig:
    """Which backbone. Name, digest, dropouts and sites enter the run's id; all else describes what the digest names.

    So nothing else can be overridden (`resolve` refuses it), and what the weights come with must agree with it.
    """

    name: str = MISSING
    digest: str = MISSING
    """sha256 of model.safetensors, checked when the weights are loaded; or the hub's commit, see `revision`."""
    dropout: float = MISSING
    """Dropout of the backbone while training, hidden states and attention alike."""
    head_dropout: float | None = None
    """Dropout in front of the head's layers while training (null: dropout); the cls_dropout of DeBERTa's scripts."""
    sites: dict[str, str | None] = field(default_factory=dict)
    """Of model=local: which modules are q, k, v ..., where their names do not tell; see arch/names.py."""
    blueprint: dict[str, Any] = field(default_factory=dict, metadata=NOT_IN_ID)
    """Of model=local: what was read of an architecture that no function here counts; see arch/blueprint.py."""
    source: Source = field(default=Source.pretrained, metadata=NOT_IN_ID)
    config: dict[str, Any] = field(default=MISSING, metadata=NOT_IN_ID)
    """The keys of transformers' config.json that fix shapes and function."""
    package: str | None = field(default=None, metadata=NOT_IN_ID)
    package_folder: str | None = field(default=None, metadata=NOT_IN_ID)
    """The folder of the model in the package, or in the archive that its pieces make."""
    pieces: list[str] = field(default_factory=list, metadata=NOT_IN_ID)
    """Packages of which each holds a piece: joined in this order they are a zip archive of the model, or `gguf`."""
    archive: str | None = field(default=None, metadata=NOT_IN_ID)
    """sha256 of that archive."""
    gguf: str | None = field(default=None, metadata=NOT_IN_ID)
    """A GGUF file, in the package or made of the pieces, from which the weights are dequantised when they are fetched.
    """
    gguf_digest: str | None = field(default=None, metadata=NOT_IN_ID)
    """sha256 of the GGUF file."""
    hub: str | None = field(default=None, metadata=NOT_IN_ID)
    """The model's repository on the Hugging Face hub."""
    revision: str | None = field(default=None, metadata=NOT_IN_ID)
    """The commit of that repository; it is the digest too where the hub is the only source."""
    files: dict[str, str] = field(default_factory=dict, metadata=NOT_IN_ID)
    """Other files that are needed, each with its sha256."""

    def check(self) -> None:
        """Refuses impossible dropouts, and sites of a model that needs none.

        Raises:
            InputError: If a dropout is not in [0, 1), or sites are given for an architecture that is counted.
        """
        for key, value in (("dropout", self.dropout), ("head_dropout", self.head_dropout)):
            if value is not None and not 0 <= value < 1:
                raise InputError(f"model.{key}: must be in [0, 1) (given: {value}).")
        if self.given_sites and not self.blueprint:
            raise InputError(
                f"model.sites: the matrices of {self.config.get('model_type')} are known here (given: "
                f"{', '.join(self.given_sites)}).\nLeave it out; it is for an architecture that model=local reads."
            )

    def arch(self, num_labels: int | None) -> Arch:
        """Returns the model's shapes.

        Args:
            num_labels: Width of the classifier's output; None for a language model, which has no classifier.

        Raises:
            InputError: If the architecture is unknown, a key is missing, or `sites` mean no matrix.
        """
        if self.blueprint:
            return _from_blueprint(
                json.dumps([self.config.get("model_type"), self.blueprint, self.given_sites]), num_labels
            )
        return arch_of(self.config, num_labels)

    @property
    def given_sites(self) -> dict[str, str]:
        """The sites that are given."""
        return {key: pattern for key, pattern in self.sites.items() if pattern is not None}


def arch_of(config: Mapping[str, Any], num_labels: int | None) -> Arch:
    """Derives all shapes from the keys of a transformers config.json.

    Args:
        config: The mapping, with `model_type`.
        num_labels: Width of the classifier's output; None for a language model, which has no classifier.

    Raises:
        InputError: If the architecture is unknown or a key is missing.
    """
    return _arch(json.dumps(dict(config), sort_keys=True, default=str), num_labels)


@cache
def _arch(config_json: str, num_labels: int | None) -> Arch:
    config = json.loads(config_json)
    family = str(config.get("model_type"))
    if family not in FAMILIES:
        raise InputError(f"{_unknown(family)}\n{HOW_TO_ADD}")
    try:
        return FAMILIES[family](config, num_labels)
    except KeyError as error:
        raise InputError(
            f"model: config.json of this {family} has no key {error}.\nGive the one that belongs to the weights."
        ) from None
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(
            f"model: a key in config.json of this {family} has a value of the wrong kind ({error}).\n"
            "Give the one that belongs to the weights."
        ) from error


@cache
def _from_blueprint(blueprint_json: str, num_labels: int | None) -> Arch:
    model_type, blueprint, sites = json.loads(blueprint_json)
    return Blueprint.from_dict(blueprint).arch(str(model_type), num_labels, sites)


def is_counted(config: Mapping[str, Any]) -> bool:
    """Tells whether a function here counts this architecture from the keys of its config.json."""
    return config.get("model_type") in FAMILIES


def _unknown(family: str) -> str:
    return (
        f"model: the architecture {family!r} (model_type in config.json) is not counted here.\n"
        f"Counted: {', '.join(FAMILIES)}."
    )
