"""Numbers of a claim that need no run: weights and bytes, counted from a model's shapes."""

from dataclasses import replace
from typing import Any

from analysis.claims.declared import Part, Selector
from lora_repro.config.schema import load_group
from lora_repro.methods import MethodConfig
from lora_repro.models.arch import Arch

FP16 = 2
"""Bytes of a weight, as the paper counts checkpoints."""
TASKS = 100
"""For which footnote 4 of the paper counts storage."""


def counted(part: Part) -> tuple[float, str]:
    """Returns the number of a part whose test is `count`, and how it comes about.

    `trained` is a ratio: how many weights `than` trains over those of `of`. All others are of `of` alone: the share
    of its weights that is trained, bytes of the trained ones in FP16, of one model with 100 updates, of 100 copies of
    what is trained, and the share of weights and Adam's moments that frozen weights save.

    Raises:
        InputError: If there is no such model or method.
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
            return float(FP16 * trained), f"{who}: {_size(FP16 * trained)} in FP16."
        case "bytes_of_100_tasks":
            size = FP16 * (total + TASKS * trained)
            return float(size), f"{who}: one model and {TASKS} updates take {size / 1e9:.0f} GB in FP16."
        case "bytes_of_100_copies":
            size = FP16 * TASKS * trained
            return float(size), f"{who}: {TASKS} copies take {size / 1e12:.1f} TB in FP16."
        case "saved_of_adam":
            # Weights, and two moments of each that is trained; gradients and activations are left out.
            saved = 1 - (total + 2 * trained) / (3 * total)
            return saved, f"{who}: of weights and Adam's two moments {100 * saved:.1f} % are saved."
    raise AssertionError(part.measure)


def _of(selector: Selector) -> tuple[Arch, MethodConfig]:
    from analysis.budgets import model_of

    given: dict[str, Any] = dict(selector)
    _, arch = model_of(given.pop("model"), None, None)
    method = load_group("method", given.pop("method"))
    if isinstance(targets := given.get("targets"), str):
        given["targets"] = targets.split(",")
    return arch, replace(method, **given)


def _size(count: int) -> str:
    """Writes bytes as a person would print them."""
    return f"{count / 1e9:.0f} GB" if count >= 1e10 else f"{count / 1e6:.1f} MB"
