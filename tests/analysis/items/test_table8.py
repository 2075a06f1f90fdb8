"""Table 8: few-shot prompting, which trains nothing, beside LoRA and the paper's numbers."""

from pathlib import Path

from helpers.commands import call
from helpers.fixture_types import Captured
from helpers.handmade_runs import jobs, write_run

ACCURACY = {"few_shot": (0.4, 0.5), "calibrated": (0.5, 0.7), "lora": (0.8, 0.9)}
"""On dev, of seeds 0 and 1."""


def fill(store: Path) -> None:
    for job in jobs("+sweeps=table8", "scale=smoke"):
        run = job.resolved.run
        name = "calibrated" if getattr(run.method, "calibrated", False) else run.method.name
        write_run(store, job, [(ACCURACY[name][run.seed], 0.5)])


def test_few_shot_prompting_stands_beside_lora_with_nothing_trained(tmp_path: Path, capsys: Captured) -> None:
    fill(tmp_path)
    code, out, err = call(capsys, "table", "8", "--scale", "smoke", "--runs", str(tmp_path))
    assert (code, err) == (0, "") and out.startswith("## Table 8: Few-shot prompting against fine-tuning")
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in out.splitlines() if line[:1] == "|"]
    of = {(row[1], row[2]): row[3:] for row in rows if row[0] == "tiny_llama"}
    assert of["few_shot", "shots=2"][0] == of["few_shot", "shots=2 calibrated=true"][0] == "0"
    assert of["few_shot", "shots=2 calibrated=true"][1].startswith("60.0 [")
    assert of["lora", "targets=q,v r=8"][1].startswith("85.0 [")
    assert of["few_shot minus lora targets=q,v r=8", "shots=2"][1] == "-40.00 (all equal) n=2"  # 45 - 85
    assert of["few_shot minus lora targets=q,v r=8", "shots=2 calibrated=true"][1].startswith("-25.00 [")


def test_the_papers_lines_stand_beside_ours_at_its_scale(tmp_path: Path, capsys: Captured) -> None:
    code, out, _ = call(capsys, "table", "8", "--scale", "paper", "--runs", str(tmp_path))
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in out.splitlines() if line[:1] == "|"]
    paper = {row[1]: row[-2:] for row in rows if row[0] == "gpt3_175b (paper)"}
    assert code == 0 and rows[0][-2:] == ["MNLI (accuracy)", "RTE (accuracy)"]
    assert paper == {"few_shot": ["40.6", "69.0"], "full": ["89.5", "85.4"]}
