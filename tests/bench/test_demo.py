"""The demo beside a loop of scripts: the same runs on both sides, and scripts that train and score."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lora_repro.bench import demo, one_run_with_peft
from lora_repro.bench.window import resolve_case, write_weights
from lora_repro.config.compose import compose
from lora_repro.errors import InputError
from lora_repro.models.tokenizer import load_tokenizer
from lora_repro.sweep.grid import Job, load


@pytest.fixture(scope="module")
def jobs() -> list[Job]:
    return load(compose, demo.SWEEP).jobs


@pytest.mark.parametrize("runs", [1, 2, 3, 6])
def test_the_axes_leave_the_first_runs_of_the_sweep(runs: int, jobs: list[Job]) -> None:
    axes = demo.axes_of([job.point for job in jobs], runs)
    left = load(compose, [*demo.SWEEP, *axes]).jobs
    assert [job.run_id for job in left] == [job.run_id for job in jobs[:runs]]


def test_a_number_of_runs_that_is_no_grid_is_refused(jobs: list[Job]) -> None:
    with pytest.raises(InputError, match=r"--runs: must be 1, 2, 3, 6 \(given: 4\)"):
        demo.axes_of([job.point for job in jobs], 4)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_script_trains_the_runs_adapter_and_scores_both_splits_each_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = resolve_case("tiny_bert", ["task=generated", "method.r=3", "method.alpha=6", "train.learning_rate=1e-2"])
    resolved.run.train.epochs = 2
    model, data, output = tmp_path / "model", tmp_path / "data.json", tmp_path / "output"
    write_weights(resolved, model)
    load_tokenizer(resolved.run.model, None, "").save_pretrained(model)
    data.write_text(json.dumps({name: [("joy fun", 1), ("sad bad", 0)] * 8 for name in ("train", "eval", "test")}))
    monkeypatch.setattr(demo, "find_model", lambda *_: model)
    arguments = demo.script_arguments(Job([], "", resolved, {}), data, output)
    monkeypatch.setattr(sys, "argv", ["one_run_with_peft.py", *arguments, "--cpu"])
    one_run_with_peft.main()
    lines = json.loads((output / "scores.json").read_text())
    assert [line["epoch"] for line in lines if "eval_test_accuracy" in line] == [1.0, 2.0]
    assert sum("eval_eval_accuracy" in line for line in lines) == 2
    assert 0 <= demo.last_accuracy(lines) <= 1
    saved = load_file(output / "adapter_model.safetensors")
    A = [tensor for name, tensor in saved.items() if "lora_A" in name]
    assert len(A) == 2 * 2 and {tensor.shape for tensor in A} == {torch.Size((3, 32))}
    assert json.loads((output / "adapter_config.json").read_text())["lora_alpha"] == 6


def test_the_table_has_both_times_and_their_ratio() -> None:
    lines = demo.table([60.0, 390.0], 6, 2, [0.75, 0.745]).splitlines()
    assert lines[0].startswith("| the 6 runs of Table 6's demo, 2 threads |")
    assert lines[2:] == [
        "| `python -m lora_repro -m` | 60 | 10.0 | 0.750 |",
        "| a loop of scripts with Trainer + PEFT | 390 | 65.0 | 0.745 |",
        "| ratio | 6.50 | | |",
    ]


def test_the_last_accuracy_is_that_of_test() -> None:
    lines = [{"eval_test_accuracy": 0.5}, {"eval_eval_accuracy": 0.9}, {"eval_test_accuracy": 0.75}, {"loss": 1.0}]
    assert demo.last_accuracy(lines) == 0.75
