"""Table 4: a query, a class and a summary in one table, each column with its task's own metric."""

import re
from pathlib import Path
from typing import cast

import pytest
from helpers.commands import call
from helpers.fixture_types import Captured
from helpers.handmade_runs import jobs, write_run

from analysis.items import Request, facts_of, names, read_item
from analysis.kinds.across import AcrossTable, read_across
from analysis.printed_counts import count_lines
from analysis.render.across import printed
from lora_repro.config.compose import compose
from lora_repro.sweep.grid import load
from lora_repro.sweep.job import Sweep
from lora_repro.tasks.targets import Classes, Example

TABLE4 = cast(AcrossTable, read_item("table4"))
AT_PAPER = ["+sweeps=table4", "scale=paper"]
SCORES = {"full": (0.4, 0.5), "lora": (0.5, 0.7), "adapter_h": (0.2, 0.4), "prefix_embed": (0.1, 0.3)}
"""On test, of seeds 0 and 1; of `sql` a tenth more, of `generated` two tenths."""
MORE = {"restaurants": 0.0, "sql": 0.1, "generated": 0.2}


def test_each_task_has_a_column_of_its_own_metric(tmp_path: Path, capsys: Captured) -> None:
    for job in jobs("+sweeps=table4", "scale=smoke"):
        task, method = job.resolved.run.task, job.resolved.run.method.name
        score = SCORES[method][job.resolved.run.seed] + MORE[task.name]
        metrics = {f"{split}/{metric.name}": score for split in ("eval", "test") for metric in task.targets.metrics}
        example = Example("0", "a text", 1 if isinstance(task.targets, Classes) else ["a text"], "0")
        data = {split: task.targets.describe([example]) for split in task.all_splits}
        write_run(tmp_path, job, [(0, 0)], metrics=metrics, metrics_by_epoch=[{"epoch": 1, **metrics}], data=data)
    code, out, err = call(capsys, "table", "4", "--scale", "smoke", "--runs", tmp_path)
    assert (code, err) == (0, "")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line[:1] == "|"]
    header, rows = lines[0], lines[2:]
    assert sorted(header[4:]) == ["generated (accuracy)", "restaurants (bleu)", "sql (execution)"]
    of = {row[1]: dict(zip(header, row, strict=True)) for row in rows if row[0] == "tiny_llama"}
    lora = of["lora"]
    found = {column: lora[column].split()[0] for column in header[4:]}
    assert found == {"restaurants (bleu)": "60.0", "sql (execution)": "70.0", "generated (accuracy)": "80.0"}
    assert of["prefix_embed"]["restaurants (bleu)"].startswith("20.0 [") and of["prefix_embed"]["sql (execution)"] == ""
    assert of["lora minus full"]["sql (execution)"].startswith("+15.00 [")


@pytest.fixture(scope="module")
def of_paper() -> Sweep:
    return load(compose, AT_PAPER)


def test_the_papers_scale_counts_what_is_printed(of_paper: Sweep) -> None:
    """Where the shapes and formulas make another number, by how much; the discrepancy table15_counts lists these."""
    assert len(of_paper.jobs) == 3 * 10 and not of_paper.planned
    lines = count_lines(AT_PAPER, of_paper.jobs)
    plan = dict(re.findall(r"Trained: gpt3_175b (\S+) (.*)\.$", line)[0] for line in lines)
    equal = {
        "prefix_embed-p256-i8": "3,244,032 weights; the paper prints 3.2M",
        "adapter_h-b1": "7,078,080 weights; the paper prints 7.1M",
        "adapter_h-b8": "40,109,568 weights; the paper prints 40.1M",
        "lora-r1-qv": "4,718,592 weights; the paper prints 4.7M",
        "lora-r2-v": "4,718,592 weights; the paper prints 4.7M",
        "lora-r8-qv": "37,748,736 weights; the paper prints 37.7M",
        "lora-r4-qkvo": "37,748,736 weights; the paper prints 37.7M",
    }
    other = {name: line.rpartition(", and these are ")[2] for name, line in plan.items() if name not in equal}
    assert {name: line for name, line in plan.items() if name in equal} == equal
    assert other == {"full": "0.4% fewer", "bitfit": "8.5% fewer", "prefix_layer-p8-i8": "6.6% fewer"}


def test_the_notes_name_the_numbers_that_table_15_prints_for_each_reading() -> None:
    notes = " ".join(TABLE4.notes)
    of = {
        (row["adapted_weights"], row["r"]): f"{row['wikisql']} and {row['mnli_m']}"
        for row in facts_of("table15")["rows"]
        if row["method"] == "lora"
    }
    assert f"the printed {of['v', 2]} belong to r = 2 on v; r = 1 on q and v has {of['qv', 1]}." in notes
    assert f"r = 8 on q and v ({of['qv', 8]} in its Table 15) and r = 4 on q, k, v and o ({of['qkvo', 4]})." in notes
    small, large = (row for row in TABLE4.facts["rows"] if row["method"] == "lora")
    assert f"{small['wikisql']} and {small['mnli_m']}" == of["v", 2]
    assert (str(large["wikisql"]), str(large["mnli_m"])) == (of["qkvo", 4].split()[0], of["qv", 8].split()[-1])


def test_no_note_calls_the_lines_untuned_that_are_tuned() -> None:
    untuned = [note for note in TABLE4.notes if "untuned" in note]
    assert untuned and all(note.startswith("Without `regime=tuned` ") for note in untuned)


def test_the_papers_lines_stand_beside_ours_at_its_scale(tmp_path: Path, of_paper: Sweep) -> None:
    header, *rows = printed(read_across(TABLE4, Request("paper", str(tmp_path)), of_paper), names()).grid
    samsum = ["SAMSum (rouge_1)", "SAMSum (rouge_2)", "SAMSum (rouge_l)"]
    assert header[4:] == ["WikiSQL (logical_form)", "MNLI (accuracy)", *samsum]
    paper = [row for row in rows if row[0] == "gpt3_175b (paper)"]
    assert len(paper) == 8 and paper[0][3:] == ["175,255.8M", "73.8", "89.5", "52.0", "28.0", "44.5"]
    ours = [row[2] for row in rows if row[:2] == ["GPT-3 175B", "lora"]]
    assert ours == ["targets=q,v r=1", "targets=v r=2", "targets=q,v r=8", "targets=q,k,v,o r=4"]
