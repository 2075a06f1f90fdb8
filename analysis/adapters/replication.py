"""PEFT's layer_replication: a model of more layers than its base, each a copy of one of the base's.

`[[0, 2], [1, 3]]` makes four layers of the base's layers 0, 1, 1 and 2 (peft/tuners/tuners_utils.py, replicate_layers).
An adapter counts the layers that it was trained in, so its layer 2 stands on the base's layer 1.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.adapters.backbone import Backbone
from lora_repro.errors import InputError, MissingInputError, shown
from lora_repro.models.arch import Site

_NUMBER = re.compile(r"((?:^|\.)(?:layers|encoder\.layer|h)\.)(\d{1,6})(?=\.)")
"""Where PEFT replicates: in `layers`, in BERT's `encoder.layer`, and in Falcon's and GPT-2's `h`."""

_MOST_LAYERS = 10_000

_SHOWN = 64
"""Layers that a note lists."""


@dataclass
class Replicated(Backbone):
    """A base whose layers stand several times in the model that was adapted."""

    copied_from: Sequence[int] = ()
    """For each layer of the adapted model, the base's layer that it is a copy of."""

    def sites(self, module: str) -> list[Site]:
        """Returns the matrices of a module, of the base's layer, under the number of the adapted model's."""
        found = _NUMBER.search(module)
        sites = super().sites(self.module_of(module))
        return sites if found is None else [site._replace(layer=int(found[2])) for site in sites]

    def module_of(self, module: str) -> str:
        """Returns what the base calls the module that this one is a copy of.

        Raises:
            InputError: If the settings make fewer layers.
        """

        def copied(found: re.Match[str]) -> str:
            layer = int(found[2])
            if layer >= len(self.copied_from):
                raise InputError(
                    f"{shown(module)}: its layer_replication makes {len(self.copied_from)} layers, counted from 0.\n"
                    "Give the configuration that belongs to the weights."
                )
            return f"{found[1]}{self.copied_from[layer]}"

        return _NUMBER.sub(copied, module, count=1)


def replicated(backbone: Backbone, given: object, path: Path) -> Backbone:
    """Returns the base as the adapter was trained on it.

    Args:
        backbone: The base.
        given: What the settings hold as layer_replication.
        path: What is named when something is wrong.

    Raises:
        MissingInputError: If that is no list of ranges of layers.
    """
    if not given:
        return backbone
    return Replicated(backbone.arch, backbone.open_weights, copied_from=_layers(given, path))


def replication_note(backbone: Backbone) -> list[str]:
    """Says which layers the adapter's are copies of."""
    if not isinstance(backbone, Replicated):
        return []
    shown_first = ", ".join(map(str, backbone.copied_from[:_SHOWN]))
    more = f", ... ({len(backbone.copied_from)} in all)" if len(backbone.copied_from) > _SHOWN else ""
    return [
        "layer_replication: layers are those of the adapted model, counted from 0; in this order they are copies of "
        f"the base's layers {shown_first}{more}."
    ]


def _layers(given: object, path: Path) -> list[int]:
    layers: list[int] = []
    for pair in given if isinstance(given, list) else [None]:
        if not (isinstance(pair, list) and len(pair) == 2 and all(type(end) is int and end >= 0 for end in pair)):
            raise _damaged(path, "must be pairs of layers, the first one and the one after the last")
        if len(layers) + pair[1] - pair[0] > _MOST_LAYERS:
            raise _damaged(path, f"makes more than {_MOST_LAYERS} layers")
        layers += range(*pair)
    return layers


def _damaged(path: Path, what: str) -> MissingInputError:
    return MissingInputError(f"{path}: layer_replication {what}.\nGive it as PEFT's save_pretrained writes it.")
