"""Numbers of trained weights as the paper prints them, beside what a sweep's runs train."""

from collections.abc import Iterable, Sequence
from decimal import Decimal

from analysis.items import facts_of, item_names, names
from lora_repro.costs import budget
from lora_repro.models.arch import Arch
from lora_repro.sweep.grid import Job

SWEEP = "+sweeps="


def printed_size(count: int) -> str:
    """Writes a number of weights of the paper with all its digits: 0.35M, 3.0M, 175B."""
    if count and count % 10**9 == 0:
        return f"{count // 10**9}B"
    text = f"{Decimal(count) / 10**6:,f}"
    return f"{text}{'' if '.' in text else '.0'}M"


def prints_as(count: int, printed: int, arch: Arch) -> bool:
    """Tells whether a count, rounded or cut to the digits of a printed one, is written like it: 294,912 as 0.3M."""
    return budget.read(printed_size(printed).replace(",", ""), arch).admits(count)


def count_lines(arguments: Iterable[str], jobs: Sequence[Job]) -> list[str]:
    """Says for each model and method of a sweep how many weights are trained, and which number the paper prints.

    Only what the paper's table of the same name has rows for is told; of a sweep at another scale that is nothing.

    Args:
        arguments: Of the sweep, `+sweeps=table2` among them.
        jobs: Its runs.
    """
    sweep = next((each.removeprefix(SWEEP) for each in arguments if each.startswith(SWEEP)), None)
    if sweep is None or sweep not in item_names():
        return []
    methods, printed = names()["methods"], dict[tuple[str, str], list[int]]()
    for row in facts_of(sweep).get("rows", []):
        if {"model", "method", "trainable_params"} <= row.keys():
            of = row["model"], str(methods.get(row["method"], row["method"]))
            printed.setdefault(of, []).append(row["trainable_params"])
    lines: dict[str, None] = {}
    for job in jobs:
        run = job.resolved.run
        counts = printed.get((run.model.name, run.method.name))
        if counts is None:
            continue
        trained, arch = run.trained_by_method, run.arch
        nearest = min(counts, key=lambda count: abs(count - trained))
        other = abs(trained / nearest - 1)
        more = "more" if trained > nearest else "fewer"
        differs = "" if prints_as(trained, nearest, arch) else f", and these are {other:.1%} {more}"
        text = f"{trained:,} weights; the paper prints {printed_size(nearest)}{differs}"
        lines[f"Trained: {run.model.name} {run.method.label} {text}."] = None
    return [*lines]
