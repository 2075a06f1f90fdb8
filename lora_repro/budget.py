"""Parameter budgets: what `18M` or `0.01%` means, and the rank that meets it (paper, Sections 4.2 and 7.1). No torch.

A whole number is an upper bound. A number as papers print it (18M, 0.35M, 0.01%) means a count that prints so when it
is rounded or cut: the paper's "18M" are 18,874,368 weights. Of several ranks the one nearest to the number is taken.
"""

import math
import re
from dataclasses import replace
from typing import NamedTuple

from lora_repro.arch import Arch
from lora_repro.errors import InputError
from lora_repro.methods.lora import LoRAConfig

UNITS = {"K": 10**3, "M": 10**6, "B": 10**9}
TOLERATED = (0.97, 1.05)
"""Utilisation outside of which a comparison at this budget is flagged."""


class Budget(NamedTuple):
    """A budget that was read."""

    weights: float
    """The number of weights that it names."""
    unit: float | None
    """What one unit of the printed number is worth; None for an upper bound."""
    decimals: int

    def admits(self, count: int) -> bool:
        """Tells whether a count lies below the bound, or prints as the budget does."""
        if self.unit is None:
            return count <= self.weights
        step = 10**self.decimals
        printed = round(self.weights / self.unit * step)
        return printed in (math.floor(count / self.unit * step), math.floor(count / self.unit * step + 0.5))


def read(given: object, arch: Arch) -> Budget:
    """Reads a budget.

    Args:
        given: A whole number of weights, or 18M, 0.35M, 1.2B, 0.01% (of the whole model, the head apart).
        arch: The model that percents refer to.

    Raises:
        InputError: If it is neither.
    """
    text = str(given).strip().replace(",", "").replace("_", "")
    if re.fullmatch(r"[1-9]\d*", text):
        return Budget(int(text), None, 0)
    found = re.fullmatch(r"(\d+)(?:\.(\d+))?([KMB%])", text)
    if found is None or not float(text[:-1]) > 0:
        raise InputError(
            f"method.budget: a number of weights (an upper bound), or 18M, 0.35M, 0.01% (given: {given}).\n"
            "Example: method.budget=18M"
        )
    unit = (arch.size() - arch.head_size) / 100 if found[3] == "%" else UNITS[found[3]]
    return Budget(float(text[:-1]) * unit, unit, len(found[2] or ""))


def count_at(method: LoRAConfig, arch: Arch, r: int) -> int:
    """Returns how many weights the method trains at a rank."""
    return replace(method, r=r).count(arch).method


def ranks_of(method: LoRAConfig, arch: Arch, budget: Budget) -> list[int]:
    """Returns the ranks that meet a budget, the best one first: of a bound the largest, else the nearest."""
    most = min(min(site.d_in, site.d_out) for site in arch.select(method.targets))
    one, base = count_at(method, arch, 1), count_at(method, arch, 2)
    slope = base - one  # counts are linear in r: a guess, and its neighbours
    about = round((budget.weights - one) / slope) + 1 if slope else 1
    spread = 1 + (math.ceil(budget.unit / slope) if budget.unit and slope else 1)
    candidates = range(max(1, about - spread), min(most, about + spread) + 1)
    if budget.unit is None:
        candidates = [min(most, r) for r in candidates if r <= most]
    met = [r for r in candidates if budget.admits(count_at(method, arch, r))]
    return sorted(met, key=lambda r: abs(count_at(method, arch, r) - budget.weights))


def solve(method: LoRAConfig, arch: Arch) -> int:
    """Returns the rank that meets the method's budget.

    Raises:
        InputError: If none does; it names the neighbours.
    """
    method.check_targets(arch)
    budget = read(method.budget, arch)
    if ranks := ranks_of(method, arch, budget):
        return ranks[0]
    most = min(min(site.d_in, site.d_out) for site in arch.select(method.targets))
    below = max((r for r in range(1, most + 1) if count_at(method, arch, r) <= budget.weights), default=None)
    neighbours = [r for r in (below, (below or 0) + 1) if r is not None and r <= most]
    told = " and ".join(f"r = {r} trains {count_at(method, arch, r):,}" for r in neighbours)
    raise InputError(
        f"method.budget: no rank on {', '.join(method.targets)} meets {method.budget} of {arch.model_type} "
        f"with d = {arch.d_model} and {arch.num_layers} layers; {told}.\n"
        f"Give one of them: method.r={neighbours[0]}, or another budget."
    )


def utilisation(method: LoRAConfig, arch: Arch) -> float:
    """Returns the trained weights over those that the budget names."""
    return method.count(arch).method / read(method.budget, arch).weights
