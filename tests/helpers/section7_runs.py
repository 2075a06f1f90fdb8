"""Stores of finished runs whose adapters are made by hand: no training, and what they share is known."""

from pathlib import Path
from typing import cast

import numpy as np
from helpers.handmade_runs import jobs, write_run
from safetensors.numpy import save_file

from analysis.items import load_item
from analysis.section7.item import UpdateItem
from lora_repro import draw
from lora_repro.methods import LoRAConfig
from lora_repro.methods.lora import Start
from lora_repro.store.adapter_identity import PEFT_WEIGHTS
from lora_repro.sweep.grid import Job

SECTION7 = ("+sweeps=section7", "scale=smoke")
"""tiny_bert: r = 4, 8 and 16, seeds 0 and 1, and on permuted labels r = 8 and 16."""

SHARED = 60.0
"""How far W_q's A moves along a direction that all runs share, over what a row of A_0 measures."""


def section7(r: int, seed: int, permuted: bool = False) -> Job:
    """Returns a job of section7 at scale smoke."""
    for job in jobs(*SECTION7):
        run = job.resolved.run
        assert isinstance(run.method, LoRAConfig)
        if (run.method.r, run.seed, run.task.permute_labels) == (r, seed, permuted):
            return job
    raise KeyError((r, seed, permuted))


def factors(job: Job, moved: float) -> dict[str, np.ndarray]:
    """Returns an adapter: A_0 moved along one direction in W_q, which all runs share, and along none in W_v."""
    run = job.resolved.run
    method = run.method
    assert isinstance(method, LoRAConfig)
    tensors = {}
    for site in run.arch.select(method.targets):
        A = Start(run.seed).draw_A(site.name, method.r, site.d_in)
        shared = draw.generator("shared", site.name).standard_normal(site.d_in)
        along = draw.generator("rows", run.seed, method.r, site.name).standard_normal(method.r)
        if site.role == "q":
            step = moved * np.linalg.norm(A[0]) / np.linalg.norm(shared) / np.sqrt(method.r)
            A = A + (step * np.outer(along, shared)).astype(np.float32)
        B = draw.normal(run.seed, f"{site.name}.B.{method.r}", (site.d_out, method.r), 0.1)
        for factor, value in (("lora_A", A), ("lora_B", B)):
            tensors[f"base_model.model.{site.module}.{factor}.weight"] = value
    return tensors


def write_toy(store: Path, job: Job) -> Path:
    """Writes a finished run; of one on permuted labels, snapshots along its way too."""
    folder = write_run(store, job, [(0.8, 0.7)])
    (folder / "adapter").mkdir()
    permuted = job.resolved.run.task.permute_labels
    save_file(factors(job, 2 * SHARED if permuted else SHARED), folder / "adapter" / PEFT_WEIGHTS)
    if permuted:
        (folder / "snapshots").mkdir()
        for fraction in (0.0, 0.5, 1.0):
            path = folder / "snapshots" / f"{fraction:g}.safetensors"
            save_file(factors(job, 2 * SHARED * fraction), path)
    return folder


def fill(store: Path) -> None:
    """Writes all runs of section7 at scale smoke."""
    for job in jobs(*SECTION7):
        write_toy(store, job)


def item(number: str) -> UpdateItem:
    """Returns the entry of a figure of Section 7, or of Table 7 by `7t`."""
    return cast(UpdateItem, load_item("table" if number == "7t" else "figure", number.removesuffix("t")))
