"""The shapes of an architecture that no function here counts, in the form that a run's record stores. No torch."""

import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

from lora_repro.models.arch.base import Arch, Shape
from lora_repro.models.arch.listing import grouped
from lora_repro.models.arch.names import find_sites


class Blueprint(NamedTuple):
    """The parameters of a model with the head of a task, and what does not follow from their names."""

    parameters: Mapping[str, Shape]
    head: tuple[str, ...]
    """The modules that the task adds to the backbone; none in a language model."""
    d_model: int
    num_heads: int
    attention_width: int
    """The outputs of q together."""
    max_length: int
    vocabulary: int
    is_decoder: bool
    transposed: tuple[str, ...] = ()
    """The modules that keep their weight as (d_in, d_out)."""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, the parameters as one line for those that differ in a number."""
        lines = {name: list(shape) for name, shape in grouped(self.parameters)}
        return {**self._asdict(), "parameters": lines, "head": list(self.head), "transposed": list(self.transposed)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Blueprint":
        """Reads what `to_dict` wrote."""
        shapes = {name: tuple(shape) for line, shape in values["parameters"].items() for name in _names(line)}
        lists = {"head": tuple(values["head"]), "transposed": tuple(values["transposed"])}
        return cls(**{**values, **lists, "parameters": shapes})

    def arch(self, model_type: str, num_labels: int | None, sites: Mapping[str, str]) -> Arch:
        """Returns the architecture, its matrices found by their names or by `model.sites`.

        Args:
            model_type: The key of config.json.
            num_labels: Width of the head's output; None of a language model.
            sites: What `model.sites` says.

        Raises:
            InputError: If the sites mean no matrix, or more than one.
        """
        shell = Arch(
            model_type, self.d_model, 0, self.num_heads, self.max_length, dict(self.parameters), self.head, (),
            self.is_decoder,
        )  # fmt: skip
        if num_labels is not None and shell.output is not None:
            for name in (f"{shell.output}.weight", f"{shell.output}.bias"):
                if name in shell.parameters:
                    shell = shell._replace(
                        parameters={**shell.parameters, name: (num_labels, *shell.parameters[name][1:])}
                    )
        backbone = {name: shell.parameters[name] for name in shell.backbone}
        found, reading = find_sites(
            backbone, sites, self.transposed, self.num_heads, self.attention_width, self.vocabulary
        )
        layers = [layer for name in backbone if (layer := shell.layer_of(name)) is not None]
        return shell._replace(num_layers=max(layers, default=-1) + 1, sites=found, reading=reading)


def _names(line: str) -> Iterator[str]:
    """Yields the names that a line of `grouped` stands for: h.{0..2,5}.w stands for four."""
    choices = [_numbers(part) for part in re.split(r"(\{[\d.,]+\})", line)]
    yield from map("".join, product(*choices))


def _numbers(part: str) -> list[str]:
    if not part.startswith("{"):
        return [part]
    found: list[str] = []
    for span in part.strip("{}").split(","):
        first, _, last = span.partition("..")
        found += map(str, range(int(first), int(last or first) + 1))
    return found
