"""Numbers of a claim that need no run: weights and bytes, counted from a model's shapes."""

from dataclasses import replace
from typing import Any

from analysis.claims.declared import Part, Selector
from lora_repro.config.schema import load_group
from lora_repro.errors import InputError
from lora_repro.methods import MethodConfig
from lora_repro.models.arch import Arch

FP16 = 2
"""Bytes of a weight, as the paper counts checkpoints."""
TASKS = 100
"""For which footnote 4 of the paper counts storage."""

UNITS = {
    "trained": "times fewer trained weights",
    "share": "of all weights are trained",
    "bytes": "bytes in FP16",
    "bytes_of_100_tasks": "bytes in FP16 for one model and 100 tasks",
}


def counted(part: Part) -> tuple[float, str]:
    """Returns the number of a part whose test is `count`, and how it comes about.

    `trained` is a ratio: how many weights `than` trains over those of `of`. All others are of `of` alone.

    Raises:
        InputError: If there is no such model, method or measure.
    """
    arch, method = _of(part.of)
    trained, total = method.count(arch).method, arch.size()
    who = f"{method.label} trains {trained:,} of {total:,} weights"
    match part.measure:
        case "trained":
            _, other = _of(part.than[0])
            more = other.count(arch).method
            return more / trained, f"{who}, {other.label} {more:,}: {more / trained:,.0f} times as many."
        case "share":
            return trained / total, f"{who}: {100 * trained / total:.4f} %."
        case "bytes":
            return float(FP16 * trained), f"{who}: {FP16 * trained / 1e6:.1f} MB in FP16."
        case "bytes_of_100_tasks":
            size = FP16 * (total + TASKS * trained)
            return float(size), f"{who}: one model and {TASKS} updates take {size / 1e9:.0f} GB in FP16."
    raise InputError(f"claims.yaml: count: there is no measure {part.measure!r}. Measures: {', '.join(UNITS)}.")


def _of(selector: Selector) -> tuple[Arch, MethodConfig]:
    from analysis.budgets import model_of

    given: dict[str, Any] = dict(selector)
    _, arch = model_of(given.pop("model"), None, None)
    method = load_group("method", given.pop("method"))
    if isinstance(targets := given.get("targets"), str):
        given["targets"] = targets.split(",")
    return arch, replace(method, **given)
