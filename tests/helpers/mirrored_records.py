"""Records of a finished run, made by hand, that a tracker is to show."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from helpers.handmade_runs import job, write_run

from lora_repro.config.settings import Mirror, Settings
from lora_repro.store.record import plain
from lora_repro.sweep.grid import Job

LINES = [
    {"step": 2, "epoch": 1, "examples": 32, "loss": 0.7, "lr": 0.01, "wall_time_s": 0.1},
    {"step": 2, "epoch": 1, "eval/accuracy": 0.5, "eval/loss": 0.69},
    {"step": 4, "epoch": 2, "examples": 64, "loss": 0.5, "lr": 0.005, "wall_time_s": 0.2},
    {"step": 4, "epoch": 2, "eval/accuracy": 0.75, "eval/loss": 0.6},
]


def settings(of: Job, store: Path, how: str) -> Settings:
    found = of.resolved.settings
    settings, paths = replace(found.log, wandb=Mirror(how)), replace(found.paths, outputs=str(store))
    return replace(found, log=settings, paths=paths, sweep={"name": "table6"})


def write_record(
    store: Path, how: str = "offline", lines: list[dict[str, Any]] = LINES, seed: int = 0
) -> tuple[Path, Settings]:
    """Writes a finished run by hand: q, r = 1."""
    of = job("q", 1, seed)
    wanted = settings(of, store, how)
    folder = write_run(store, of, [(0.5, 0.5), (0.75, 0.7)])
    config = {"run": plain(of.resolved.run), "circumstances": plain(wanted)}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    return folder, wanted
