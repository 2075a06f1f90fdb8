"""What an item of Section 7 asks of runs: of which matrices, at which layers and ranks."""

import math
from dataclasses import dataclass, field
from fractions import Fraction

from analysis.items import Item, refuse_unknown_sweep
from lora_repro.models.arch import Arch, Site

PAPER_DEPTH = 96
"""Layers of GPT-3, which Section 7 of the paper examines."""


@dataclass(kw_only=True)
class UpdateItem(Item):
    """An item about the updates themselves, which compares the runs of a sweep."""

    sweep: str
    """Whose runs are compared; several items share one."""
    layers: list[str]
    """Parts of the depth, times the number of layers and rounded up (`layer_at`); or `all`."""
    weights: list[str]
    """Which matrices: q, v."""
    ranks: list[int]
    """Of the runs: [8, 64] compares two ranks of one seed, [64, 64] two seeds of one rank."""
    ranks_at: dict[str, list[int]] = field(default_factory=dict)
    """Other ranks, at scales whose sweep does not have these."""

    def check(self) -> None:
        """Refuses a sweep that is not there."""
        refuse_unknown_sweep(self.name, self.sweep)

    def ranks_for(self, scale: str) -> list[int]:
        """Returns the ranks that are compared at a scale."""
        return self.ranks_at.get(scale, self.ranks)

    def sites(self, arch: Arch) -> list[Site]:
        """Returns the matrices that are compared, layer by layer, each once.

        Raises:
            InputError: If the architecture has no such matrix.
        """
        depth = arch.num_layers
        chosen = range(depth) if self.layers == ["all"] else {layer_at(part, depth) for part in self.layers}
        return [site for site in arch.select(self.weights) if site.layer in chosen]


def layer_at(part: str, depth: int) -> int:
    """Returns the layer at a part of the depth: part times depth, rounded up, counted from 0 as in checkpoints.

    So 1/96, 1/3, 1/2, 2/3 and 1 are layers 0, 31, 47, 63 and 95 of 96. The paper counts them from 1: 1, 32, 48, 64, 96.
    """
    return math.ceil(Fraction(part) * depth) - 1
