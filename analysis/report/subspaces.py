"""Says how to look at the subspaces of updates, where weights are kept."""

import shlex
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from analysis.store import name_of
from lora_repro.store.adapter_identity import PEFT_WEIGHTS
from lora_repro.store.layout import ADAPTER


def with_weights(store: str, runs: pd.DataFrame) -> dict[tuple[str, ...], list[str]]:
    """Returns the LoRA runs whose weights are in a store, by model and matrices."""
    found: dict[tuple[str, ...], list[str]] = {}
    for row in runs.to_dict("records"):
        folder = Path(store) / "runs" / row["run_id"] / ADAPTER
        if row.get("method.name") == "lora" and (folder / PEFT_WEIGHTS).is_file():
            alike = tuple(str(row.get(key)) for key in ("model.name", "method.targets"))
            found.setdefault(alike, []).append(row["run_id"])
    return found


def about_subspaces(store: str, scale: str, kept: Mapping[tuple[str, ...], list[str]]) -> str:
    """Returns the command that compares two runs whose weights are in the store, or says that there are none."""
    most = max(kept.values(), key=len, default=[])
    if len(most) < 2:
        sweep = shlex.join(["python", "-m", "lora_repro", "-m", "+sweeps=section7", f"scale={scale}"])
        return (
            "There are no two LoRA runs of one model and the same matrices with their weights (a ledger keeps no "
            f"weights). Compute some: `{sweep}`"
        )
    folders = [str(Path(name_of(store)) / "runs" / run) for run in most[:2]]
    line = shlex.join(["python", "-m", "analysis", "compare", *folders, "--html", "compare.html"])
    count = sum(map(len, kept.values()))
    return f"{count} LoRA runs are there with their weights. A page that compares what two of them learned: `{line}`"
