"""Tables: what is printed of hand-made stores."""

import json
import shutil
from pathlib import Path
from typing import cast

import pandas as pd
import pytest
from helpers import planned
from helpers.handmade_runs import PROVENANCE, fill, job, jobs, write_run, write_status

from analysis.cell import Table, records
from analysis.cells import cells, read_cells
from analysis.items import load_item, names
from analysis.kinds.scores import ScoreTable
from analysis.protocol import Protocol
from analysis.render.lines import aligned, to_json
from analysis.render.printed import markdown
from analysis.render.tables import printed
from analysis.sweep_table import read_sweep
from lora_repro.config.compose import compose
from lora_repro.methods import LoRAConfig, PeftConfig
from lora_repro.sweep.grid import load

TABLE6 = cast(ScoreTable, load_item("table", "6"))


def text_of(table: Table) -> str:
    return markdown(printed(table, names()))


def lines_of(text: str, whose: str) -> list[list[str]]:
    """Returns the cells of the grid's lines that are labelled so."""
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return [line[2:] for line in split if line[1] == whose]


def test_finished_cells_stand_in_percent_beside_the_paper(tmp_path: Path) -> None:
    fill(tmp_path)
    text = text_of(read_cells(TABLE6, "smoke", tmp_path))
    ours = "85.0 [21.5, 148.5] n=2"
    assert lines_of(text, "ours, generated (tiny_bert)") == [[ours, ours, "", "", "", "60.0"]] * 2
    assert lines_of(text, "paper, WikiSQL")[1] == ["73.4", "73.3", "73.7", "73.8", "73.5", ""]
    assert len(lines_of(text, "paper, MNLI")) == 3
    assert "±0.5 (WikiSQL), ±0.1 (MNLI)" in text
    assert "10 / 10 / 10 examples (train / dev / test), classes negative / positive: dev 40.0 / 60.0 %" in text
    assert "Verdict: smoke: plumbing, not judged." in text
    assert "12.7 standard errors" in text
    assert "commit 0123456789" in text
    assert "Missing" not in text
    assert "A line that is not there: this scale has no such run." in text  # q,k,v,o


def test_rslora_is_named_among_the_settings_where_it_is_on(tmp_path: Path) -> None:
    assert "rslora false" not in text_of(read_cells(TABLE6, "smoke", tmp_path))
    assert "alpha 8, rslora true, learning_rate" in text_of(read_cells(TABLE6, "smoke", tmp_path, ["regime=rslora"]))


def test_versions_of_peft_are_named_and_an_arm_that_mixes_them_is_told(tmp_path: Path) -> None:
    arguments = ["model=tiny_bert", "task=generated", "method=peft", "method.peft_type=LORA,IA3", "seed=0,1"]
    for each in load(compose, arguments).jobs:
        run = each.resolved.run
        is_old = isinstance(run.method, PeftConfig) and run.method.peft_type == "IA3" and run.seed == 0
        found = PROVENANCE | {"peft": {"version": "0.17.0" if is_old else "0.18.0"}}
        write_run(tmp_path, each, [(0.8, 0.7)], provenance=found)
    text = text_of(read_sweep(arguments, tmp_path))
    assert "torch 2.13.0, peft 0.18.0; a CPU, 2 CPU thread(s), torch 2.13.0, peft 0.17.0." in text
    assert (
        "Runs of one arm were computed with several versions of PEFT: peft_type = IA3 (peft 0.17.0, peft 0.18.0)."
        in text
    )


def test_runs_of_different_machines_are_told(tmp_path: Path) -> None:
    fill(tmp_path)
    assert "- Computed on a CPU, 2 CPU thread(s), torch 2.13.0." in text_of(read_cells(TABLE6, "smoke", tmp_path))
    (tmp_path / "other").mkdir()
    for each in jobs():
        device = "a CPU" if each.resolved.run.seed == 0 else "a GPU"
        write_run(tmp_path / "other", each, [(0.8, 0.7)], provenance=PROVENANCE | {"device_class": device})
    text = text_of(read_cells(TABLE6, "smoke", tmp_path / "other"))
    assert (
        "which changes results a little: a CPU, 2 CPU thread(s), torch 2.13.0; a GPU, 2 CPU thread(s), torch 2.13.0."
        in text
    )


def test_a_tie_has_an_interval_without_width_and_one_seed_has_none(tmp_path: Path) -> None:
    for each in jobs():
        write_run(tmp_path, each, [(0.5, 0.5)])
    assert "50.0 [50.0, 50.0] n=2" in text_of(read_cells(TABLE6, "smoke", tmp_path))
    single = lines_of(text_of(read_cells(TABLE6, "smoke", tmp_path, ["seed=0"])), "ours, generated (tiny_bert)")
    assert single[0][0] == "50.0 n=1"


def test_missing_runs_are_dashes_and_each_cause_is_told_once_with_its_command(tmp_path: Path) -> None:
    gone = [job("q", 1, 1), job("q", 2, 1), job("qv", 1, 0), job("qv", 2, 1)]
    for each in jobs():
        if each not in gone:
            write_run(tmp_path, each, [(0.8, 0.7)])
    write_status(tmp_path, gone[1], "failed", "RuntimeError: no\nmemory")
    write_status(tmp_path, gone[2], "diverged", "the loss is nan")
    text = text_of(read_cells(TABLE6, "smoke", tmp_path))
    q, qv = lines_of(text, "ours, generated (tiny_bert)")
    assert q[:2] == ["— (1/2 seeds)", "— (1/2 seeds, 1 failed)"]
    assert qv[:2] == ["— (1/2 seeds, 1 diverged)", "— (1/2 seeds)"]
    assert "Missing: 4 of 8 runs." in text
    assert text.count("not run yet") == 1
    whole = f"python -m lora_repro -m +sweeps=table6 scale=smoke paths.outputs={tmp_path}"
    not_run = "- 2 runs not run yet (targets q r = 1; targets q,v r = 2).\n"
    assert f"{not_run}  `{whole}`" in text
    failed = f"- 1 run failed (targets q r = 2, seed 1): RuntimeError: no memory\n  `{whole.rpartition(' ')[0]} "
    assert f"{failed}'method.targets=[q]' method.r=2 paths.outputs={tmp_path}`" in text
    assert "1 run diverged (a diverged run is not repeated) (targets q,v r = 1, seed 0): the loss is nan" in text


def test_an_empty_store_is_all_dashes_and_no_zero(tmp_path: Path) -> None:
    text = text_of(read_cells(TABLE6, "demo", tmp_path))
    (ours,) = lines_of(text, "ours, movies (minilm)")
    assert ours == ["— (0/2 seeds)", "", "", "— (0/2 seeds)", "— (0/2 seeds)"]
    assert "6 runs not run yet (in all cells)" in text
    assert "demo, not judged" in text
    assert "mean-pooled" in text


def test_planned_runs_share_lines_with_the_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned.plan(monkeypatch, "analysis.cells")
    text = text_of(read_cells(TABLE6, "paper", tmp_path))
    shared = lines_of(text, "paper / ours, WikiSQL (big)")
    assert shared[0][0] == "68.8 / —"
    assert len(shared) == 3
    assert text.count(planned.WHY) == 1
    assert "not judged here; python -m analysis claims" in text


def test_each_task_is_shown_by_a_metric_that_it_has(tmp_path: Path) -> None:
    table = read_cells(TABLE6, "paper", tmp_path)
    assert {(cell.place.task, cell.metric.name) for cell in table.cells} == {
        ("wikisql", "logical_form"), ("mnli", "accuracy"),
    }  # fmt: skip
    text = text_of(table)
    assert "logical_form in percent, accuracy in percent, on dev" in text
    assert lines_of(text, "paper / ours, WikiSQL (cerebras_13b)")[0][0] == "68.8 / — (0/2 seeds)"


def test_flags_are_told(tmp_path: Path) -> None:
    fill(tmp_path)
    folder = tmp_path / "runs" / job("q", 1, 0).run_id / "result.json"
    result = json.loads(folder.read_text())
    result["flags"]["one_class"] = True
    folder.write_text(json.dumps(result))
    text = text_of(read_cells(TABLE6, "smoke", tmp_path))
    assert "Flag one_class in 1 of 8 runs (targets q r = 1)." in text


def test_the_held_out_protocol_is_named(tmp_path: Path) -> None:
    fill(tmp_path)
    text = text_of(read_cells(TABLE6, "smoke", tmp_path, protocol=Protocol.held_out))
    assert "on test at the epoch best on dev" in text
    assert "75.0 [11.5, 138.5] n=2" in text


def test_json_equals_the_frame(tmp_path: Path) -> None:
    fill(tmp_path)
    frame = cells(TABLE6, "smoke", tmp_path)
    entries = json.loads(to_json(records(read_cells(TABLE6, "smoke", tmp_path))))
    assert [list(entry) for entry in entries] == [list(frame.columns)] * len(frame)
    for entry, row in zip(entries, frame.to_dict("records"), strict=True):
        for key, value in row.items():
            if isinstance(value, float) and pd.isna(value):
                assert entry[str(key)] is None
            else:
                assert entry[str(key)] == (list(value) if isinstance(value, tuple) else value)


def test_an_ablation_that_the_paper_lacks_is_a_table_of_ours_alone(tmp_path: Path) -> None:
    for each in jobs("+sweeps=freeze_a", "scale=smoke"):
        method = each.resolved.run.method
        assert isinstance(method, LoRAConfig)
        write_run(tmp_path, each, [(0.7 if method.freeze_A else 0.8, 0.5)])
    item = cast(ScoreTable, load_item("table", "freeze_a"))
    text = text_of(read_cells(item, "smoke", tmp_path))
    assert "One learning rate" not in text_of(read_cells(item, "smoke", tmp_path, ["regime=tuned"]))
    assert "## Table freeze_a: " in text and "the paper has no such table" in text and "Paper:" not in text
    (header,) = lines_of(text, "percent")
    assert header[:2] == ["freeze_A = false", "freeze_A = true"]
    (line,) = lines_of(text, "ours, generated (tiny_bert)")
    assert [cell.partition(" ")[0] for cell in line[:2]] == ["80.0", "70.0"]


def test_columns_stand_in_line() -> None:
    assert aligned([["a", "bb"], ["ccc", "—"], ["", "x|y"]]) == [
        "| a   | bb   |",
        "|-----|------|",
        "| ccc | —    |",
        "|     | x\\|y |",
    ]


@pytest.mark.parametrize("scale", ["smoke", "demo", "proxy", "paper"])
def test_table6_prints_at_every_scale(tmp_path: Path, scale: str) -> None:
    assert f"(scale={scale})" in text_of(read_cells(TABLE6, scale, tmp_path))


def test_json_holds_null_for_what_is_no_number() -> None:
    assert json.loads(to_json([{"a": float("nan"), "b": [float("inf"), 1.5], "c": None}])) == [
        {"a": None, "b": [None, 1.5], "c": None}
    ]


def test_copies_are_told_apart_where_the_texts_are_written_alike(tmp_path: Path) -> None:
    """A sha256 is taken of the texts as they are read: another form of a task gives another one of equal files."""

    def told(*axes: str) -> bool:
        arguments = ["model=tiny_llama", "task=generated", "method=lora", "seed=0", *axes]
        for each, sha in zip(load(compose, arguments, tmp_path).jobs, "ab", strict=True):
            data = {
                name: {"n": 8, "labels": {"0": 4, "1": 4}, "sha256": sha * 64} for name in ("train", "eval", "test")
            }
            shutil.rmtree(tmp_path / "runs" / each.run_id, ignore_errors=True)
            write_run(tmp_path, each, [(0.5, 0.5)], data=data)
        return "read different examples of train" in text_of(read_sweep(arguments, tmp_path))

    assert not told("task.form=label,text")
    assert told("task.train_size=32,64")
