"""The ladder: each size untrained, at r = 1 and at r = 8, and what r = 1 loses on it."""

from pathlib import Path

from helpers.commands import call
from helpers.fixture_types import Captured
from helpers.handmade_runs import jobs, write_run

from lora_repro.config.compose import compose
from lora_repro.sweep.grid import load

SIZES = ["smollm2", "gemma3_270m", "qwen2_5_coder_0_5b", "qwen2_5_coder_1_5b"]
ACCURACY = {0: (0.6,), 1: (0.7, 0.8), 8: (0.9, 0.8)}
"""On test, of seeds 0 and 1, by rank; 0 is the untrained model."""


def test_what_r_1_loses_stands_beside_the_untrained_model(tmp_path: Path, capsys: Captured) -> None:
    for job in jobs("+sweeps=ladder", "scale=smoke"):
        run = job.resolved.run
        if run.task.name == "generated":
            write_run(tmp_path, job, [(0.5, ACCURACY[getattr(run.method, "r", 0)][run.seed])])
    code, out, _ = call(capsys, "table", "ladder", "--scale", "smoke", "--runs", str(tmp_path))
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in out.splitlines() if line[:1] == "|"]
    of = {(row[1], row[2]): row[3:5] for row in rows if row[0] == "tiny_llama"}
    assert code == 0 and rows[0][-2:] == ["generated (accuracy)", "restaurants (bleu)"]
    assert of["few_shot", "shots=0"] == ["0", "60.0 n=1"]
    assert of["lora", "targets=q,v r=1"][1].startswith("75.0 [")
    assert of["lora minus lora targets=q,v r=8", "targets=q,v r=1"][1].startswith("-10.00 [")  # 75 - 85
    assert of["few_shot minus lora targets=q,v r=8", "shots=0"][1] == "-30.00 n=1"  # 60 - 90, of seed 0


def test_each_size_is_trained_on_the_same_examples_with_as_many_seeds() -> None:
    runs = [job.resolved.run for job in load(compose, ["+sweeps=ladder", "scale=proxy"]).jobs]
    assert {run.task.train_size for run in runs} == {300} and {run.train.max_length for run in runs} == {128}
    for task in ("movies", "sql"):
        for size in SIZES:
            here = [run for run in runs if (run.model.name, run.task.name) == (size, task)]
            found = sorted((getattr(run.method, "r", 0), run.seed) for run in here)
            assert found == [(0, 0), *((r, seed) for r in (1, 8) for seed in (0, 1, 2))]
