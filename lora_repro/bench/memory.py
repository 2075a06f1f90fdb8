"""The peak memory of training, measured beside what lora_repro.costs.memory says of it.

    python -m lora_repro.bench.memory model=mpnet task=movies method=lora [OVERRIDES ...]
    python -m lora_repro.bench.memory --models minilm mpnet smollm2 --methods lora full task=movies

Trains some batches of the task, lengths mixed as they are in an epoch and its longest batch among them. The peak is the
process's on a CPU and the allocator's on a GPU. With --models or --methods each pair is measured in a process of its
own, as memory that was freed is seldom given back, and a table is printed. `--rounded` computes as a CPU does that has
no bf16 products.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

from lora_repro.cli import guard
from lora_repro.config.resolve import Resolved

STEPS = 40


class Measured(NamedTuple):
    """What was found."""

    model: str
    method: str
    dtype: str
    length: int
    """Tokens of the longest batch."""
    peak: float | None
    """In GiB; None where the system does not say."""
    estimate: float
    """In GiB."""
    memory: dict[str, int | None]
    """The parts of the estimate, in bytes."""


def measure(resolved: Resolved, steps: int, rounded: bool = False) -> Measured:
    """Trains some batches, which must be the first of the process, and returns the peak beside its estimate."""
    from torch import nn

    from lora_repro.costs.memory import estimate_run
    from lora_repro.machine import GIB
    from lora_repro.models import precision
    from lora_repro.tasks.batches import batches, padded_length
    from lora_repro.tasks.encoding import encode
    from lora_repro.training import device as devices
    from lora_repro.training import train

    run = resolved.run
    with precision.computing_as(precision.Products.rounded) if rounded else nullcontext():
        device = devices.prepare(resolved.settings.compute)
        split = encode(run, resolved.settings)["train"]
        devices.reset_peak_memory(device)
        lengths = split.lengths.tolist()
        order = batches(lengths, run.train.batch_size, run.seed, 0)
        longest = max(order, key=lambda indices: max(lengths[index] for index in indices))
        state = train.start(train.build(resolved, device), run, len(lengths))
        state.model.train()
        devices.use_huge_pages()
        for indices in [*order[: steps // 2], longest, *order[steps // 2 : steps - 1]]:
            split.loss(state.model, indices, run.train.dtype, device).backward()
            if run.train.max_grad_norm is not None:
                nn.utils.clip_grad_norm_(list(state.trained().values()), run.train.max_grad_norm)
            state.optimizer.step()
            state.optimizer.zero_grad()
        peak = devices.peak_memory_gib(device)
        length = padded_length(max(lengths[index] for index in longest)) + split.objective.reserved
        found = estimate_run(run, device, length)
    total = found.on(device) or 0
    dtype = f"{run.train.dtype.value}{' rounded' * rounded}"
    return Measured(run.model.name, run.method.label, dtype, length, peak, total / GIB, found._asdict())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures one run, or a table of them, and prints peak and estimate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", metavar="MODEL", help="measure each of these models")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="measure each of these methods")
    parser.add_argument("--steps", type=int, default=STEPS, help="default: %(default)s")
    parser.add_argument("--rounded", action="store_true", help="compute as a CPU without bf16 products")
    parser.add_argument("--json", action="store_true", help="print one object a run, and no table")
    options, overrides = parser.parse_known_args(arguments)
    if options.models is None and options.methods is None:
        found = [_measured(overrides, options)._asdict()]
    else:
        named = [*(options.models or ()), *(options.methods or ())]
        overrides += [value for value in named if "=" in value]  # overrides may stand behind the names
        models = [f"model={name}" for name in options.models or () if "=" not in name] or [None]
        methods = [f"method={name}" for name in options.methods or () if "=" not in name] or [None]
        given = ["--steps", str(options.steps), *["--rounded"] * options.rounded, *overrides]
        found = [_in_a_process([*given, *filter(None, pair)]) for pair in ((a, b) for a in models for b in methods)]
    print("\n".join(map(json.dumps, found)) if options.json else table(found))


def _measured(overrides: Sequence[str], options: argparse.Namespace) -> Measured:
    from lora_repro.config.compose import compose
    from lora_repro.config.resolve import resolve

    resolved = resolve(compose([*overrides, "log.wandb=off"]))
    return measure(resolved, options.steps, options.rounded)


def _in_a_process(arguments: list[str]) -> dict[str, Any]:
    line = [sys.executable, "-m", "lora_repro.bench.memory", "--json", *arguments]
    return json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout)


def table(found: Sequence[dict[str, Any]]) -> str:
    """Writes what was found as a Markdown table."""
    lines = [
        "| model | method | dtype | longest | measured GiB | estimated GiB | ratio |",
        "| - | - | - | - | - | - | - |",
    ]
    for each in found:
        peak = each["peak"]
        measured, ratio = ("unknown", "") if peak is None else (f"{peak:.2f}", f"{each['estimate'] / peak:.2f}")
        names = f"{each['model']} | {each['method']} | {each['dtype']} | {each['length']} tokens"
        lines.append(f"| {names} | {measured} | {each['estimate']:.2f} | {ratio} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(guard(main, "nothing is kept"))
