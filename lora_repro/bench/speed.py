"""Training speed and memory of this project beside PEFT's and the authors', as the table of docs/speed.md.

    python -m lora_repro.bench.speed --json speed.json

Four sides train LoRA (r = 8 on q and v) on `movies` from equal weights on equal examples in batches of 32, with equal
AdamW, schedule, clipping and dropout (none); smollm2 answers in words. Windows of the sides alternate, each in a
process of its own, and count training steps after a warm-up. A side whose first batch has another loss than ours, or
that trains another number of weights, is refused. Needs the extra `dev` (peft, accelerate, loralib).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lora_repro.bench.sides import SIDES
from lora_repro.bench.window import BATCHES, SECONDS, resolve_case, write_weights
from lora_repro.cli import guard
from lora_repro.errors import InputError
from lora_repro.machine import cores, gpus

MODELS = ("minilm", "mpnet", "smollm2")
WINDOWS = 5
TOLERANCE = 0.02
"""Between the losses of a first batch: absolute, or relative to a loss above 1. bf16 keeps 8 bits, so a product is off
by up to 1 / 256."""
FLAGS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
CPUINFO = Path("/proc/cpuinfo")

Window = dict[str, Any]
"""What a window found (`window.Found`), with model, method, threads and side."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures the windows in turn and prints the table."""
    options = _parser().parse_intermixed_args(arguments)
    if options.seconds <= 0:
        raise InputError(f"--seconds: must be above 0 (given: {options.seconds:g}).")
    given = [f"compute.device={options.device}", *options.overrides]
    windows: list[Window] = []
    for model in options.models:
        for method in options.methods:
            overrides = [f"method={method}", *given]
            resolved = resolve_case(model, overrides)
            with tempfile.TemporaryDirectory() as weights:
                write_weights(resolved, Path(weights))
                for threads in options.threads:
                    for number in range(options.windows):
                        for side in options.sides:
                            command = [side, "--weights", weights, "--seconds", str(options.seconds)]
                            command += ["--batches", str(options.batches), f"model={model}", *overrides]
                            found = run_window([*command, f"compute.threads={threads}"], threads)
                            case = {"model": model, "method": method, "threads": threads, "side": side}
                            windows.append(case | found)
                            print(f"window {number + 1}: {case} {_rate(windows[-1]):.1f} examples/s", file=sys.stderr)
                            refuse_other_work(windows)
                            if options.json is not None:
                                text = json.dumps({"machine": machine(windows), "windows": windows}, indent=1)
                                options.json.write_text(text + "\n", encoding="utf-8")
    print(f"{table(windows)}\n\n{notes(windows)}")


def at_least_1(text: str) -> int:
    """Reads a number of the command line.

    Raises:
        argparse.ArgumentTypeError: If it is below 1, or none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more (given: {text})")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="MODEL", help="default: %(default)s")
    parser.add_argument("--methods", nargs="+", default=["lora"], choices=("lora", "full", "head_only"))
    parser.add_argument(
        "--threads", nargs="+", type=at_least_1, default=[1] if gpus() else [1, 2], help="default: %(default)s"
    )
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES, help="default: all, in this order")
    parser.add_argument("--windows", type=at_least_1, default=WINDOWS, help="of each side; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="least length of one; default: %(default)s")
    parser.add_argument(
        "--batches",
        type=at_least_1,
        default=BATCHES,
        help="batches of an epoch, spread over lengths; default: %(default)s",
    )
    parser.add_argument("--device", default="auto", help="auto (a GPU where there is one) or cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every window there, too")
    parser.add_argument("overrides", nargs="*", help="of the run, e.g. train.dtype=fp32")
    return parser


def run_window(command: Sequence[str], threads: int) -> Window:
    """Trains one window in a process of its own.

    Raises:
        RuntimeError: With what the process wrote, if it failed.
    """
    environment = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "0", **os.environ, "OMP_NUM_THREADS": str(threads)}
    line = [sys.executable, "-m", "lora_repro.bench.window", *command]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(line[1:])} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def refuse_other_work(windows: Sequence[Window]) -> None:
    """Holds every window against the first of its model and method: the sides must train the same thing.

    Raises:
        InputError: If the first batch has another loss, or another number of weights is trained.
    """
    first: dict[tuple[str, str], Window] = {}
    for window in windows:
        reference = first.setdefault((window["model"], window["method"]), window)
        loss, expected = window["first_loss"], reference["first_loss"]
        same_loss = abs(loss - expected) <= TOLERANCE * max(1.0, abs(expected))
        if not same_loss or window["trained"] != reference["trained"]:
            raise InputError(
                f"{window['model']}, {window['method']}: the sides train something else. {_titled(reference)} has loss "
                f"{expected:.4f} on the first batch and trains {reference['trained']} weights, {_titled(window)} "
                f"{loss:.4f} and {window['trained']}.\nSpeeds of different work cannot be compared: correct the side."
            )


def table(windows: Sequence[Window]) -> str:
    """Writes medians, ranges and ratios as a Markdown table, in the order of the windows."""
    lines = [
        "| model | threads | side | examples/s, median (range) | ours / side | peak memory, GiB |",
        "|---|---|---|---|---|---|",
    ]
    cases: dict[tuple[str, str, int], dict[str, list[Window]]] = {}
    for window in windows:
        case = cases.setdefault((window["model"], window["method"], window["threads"]), {})
        case.setdefault(window["side"], []).append(window)
    for (model, method, threads), sides in cases.items():
        name = model if method == "lora" else f"{model}, {method}"
        for side, found in sides.items():
            rates = [_rate(window) for window in found]
            ratio = f"{_median(sides['ours']) / _median(found):.2f}" if "ours" in sides else ""
            peaks = [window["peak_memory_gib"] for window in found if window["peak_memory_gib"] is not None]
            peak = f"{statistics.median(peaks):.2f}" if peaks else "unknown"
            speed = f"{_median(found):.1f} ({min(rates):.1f} to {max(rates):.1f})"
            lines.append(f"| {name} | {threads} | {SIDES[side].title} | {speed} | {ratio} | {peak} |")
    return "\n".join(lines)


def notes(windows: Sequence[Window]) -> str:
    """Writes what each side does, what all of them compute alike, and on which machine."""
    sides = dict.fromkeys(window["side"] for window in windows)
    lines = [f"- **{SIDES[side].title}** {SIDES[side].does}" for side in sides]
    losses: dict[str, list[float]] = {}
    for window in windows:
        losses.setdefault(window["model"], []).append(window["first_loss"])
    spread = ", ".join(f"{model} {min(found):.4f} to {max(found):.4f}" for model, found in losses.items())
    cases = Counter((window["model"], window["method"], window["threads"], window["side"]) for window in windows)
    shortest = min(window["seconds"] for window in windows)
    lines.append(f"\nWindows of each side: {min(cases.values())}, the shortest of {shortest:.1f} s.")
    lines.append(f"Measured on {machine(windows)}. Loss of the first batch before training, over all sides: {spread}.")
    if alone := [window for window in windows if window["threads"] == 1 and window["device"] == "cpu"]:
        least = min(window["cpu_seconds"] / window["seconds"] for window in alone)
        lines.append(
            f"A window with one thread had at least {100 * least:.0f} % of a core; the rest other processes took."
        )
    return "\n".join(lines)


def machine(windows: Sequence[Window]) -> str:
    """Returns the processor with what it has for products, the cores, the device and torch's version."""
    text = CPUINFO.read_text(encoding="utf-8") if CPUINFO.exists() else ""
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    flags = values.get("flags", values.get("Features", "")).split()
    known = ", ".join(flag for flag in FLAGS if flag in flags) or "no AVX2"
    devices = ", ".join(dict.fromkeys(window["device"] for window in windows))
    name = values.get("model name", "an unknown CPU")
    return f"{name} ({known}), {cores()} cores, device {devices}, torch {version('torch')}"


def _titled(window: Window) -> str:
    return SIDES[window["side"]].title


def _rate(window: Window) -> float:
    return window["examples"] / window["seconds"]


def _median(windows: Sequence[Window]) -> float:
    return statistics.median(_rate(window) for window in windows)


if __name__ == "__main__":
    sys.exit(guard(main, "nothing is kept"))
