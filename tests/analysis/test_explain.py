"""A cell is traced to what it is made of: the paper's facts, its runs, their code and machines, and its tuning.

The kinds of public reports behind these tests: seeds that crashed or diverged are left out of a mean (openai/mle-bench
pull request 104, wandb/senpai pull request 2831), runs of two configurations are averaged (SlopDotCash/asi pull request
346), nobody knows which checkpoint or code a printed number is of (yang-song/score_sde issue 11, awslabs/gluonts issue
834).
"""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from helpers import planned
from helpers.commands import call
from helpers.fixture_types import Captured
from helpers.handmade_runs import PROVENANCE, SMOKE, fill, job, write_run, write_status

from analysis.explain import Explanation, in_order, read
from analysis.items import Request, item_names, names, read_item
from analysis.kinds.methods import MethodTable
from analysis.kinds.scores import ScoreTable
from analysis.render.explain import markdown, to_json
from analysis.stats import paired
from lora_repro.config.compose import compose
from lora_repro.sweep.grid import load

HERE = ("--scale", "smoke")
QV_2 = ("explain", "table6", "targets=q,v", "r=2", *HERE)


def explained(capsys: Captured, store: Path, *arguments: object) -> list[dict[str, Any]]:
    code, out, err = call(capsys, "explain", *arguments, "--format", "json", "--runs", store)
    assert code == 0, err
    return json.loads(out)


def text(capsys: Captured, store: Path, *arguments: object) -> str:
    code, out, err = call(capsys, *arguments, "--runs", store)
    assert code == 0, err
    return out


def ours(found: list[dict[str, Any]]) -> dict[str, Any]:
    (cell,) = [each for each in found if each["runs"]]
    return cell


def test_a_cell_says_what_it_is_made_of(capsys: Captured, tmp_path: Path) -> None:
    fill(tmp_path)
    out = text(capsys, tmp_path, *QV_2)
    ids = [job("qv", 2, seed).run_id for seed in (0, 1)]
    assert "3 of its 34 cells" in out
    assert "Paper: 73.3 ± 0.5 (validation accuracy, percent), r2 in the line model gpt3_175b" in out
    assert "analysis/items/table6.yaml" in out and "wikisql 73.3" not in out
    assert "Ours: 85.0 [21.5, 148.5] n=2. Each score is the accuracy in percent on dev after the last epoch." in out
    assert "12.71 times the standard deviation 7.07 over the root of 2" in out  # t(0.975, 1); |0.9 - 0.8| / sqrt(2)
    for seed, run_id in enumerate(ids):
        score = f"{80 + 10 * seed}.00"
        assert re.search(
            rf"\| {seed} +\| {run_id} \| finished \| {score} \| 2 \(2 scored\) +\| none +\| 0123456789 ", out
        )
    assert "Computed with one commit: 0123456789." in out
    assert "Computed with one machine and versions: a CPU, 2 CPU thread(s), torch 2.13.0." in out
    assert f"Records: {tmp_path}/runs/RUN/" in out and f"analysis diff {ids[0]} {ids[1]} --runs {tmp_path}" in out


def test_the_paper_is_said_to_have_no_number_of_a_task_only_where_it_has_none(tmp_path: Path) -> None:
    item = cast(MethodTable, read_item("table15"))
    assert item.paper is not None
    asked = replace(item, paper=replace(item.paper, scores={"generated": "mnli_m"}))
    for each, count in ((item, 1), (asked, 0)):
        found = read(each, Request("smoke", str(tmp_path)), ["method=full"])
        assert markdown(found, str(tmp_path), names()).count("Paper: it has no number for generated.") == count


def test_its_command_computes_exactly_its_runs(capsys: Captured, tmp_path: Path) -> None:
    cell = ours(explained(capsys, tmp_path, "table6", "targets=q", "r=1", *HERE))
    arguments = shlex.split(cell["command"])[4:]
    jobs = load(compose, [word for word in arguments if not word.startswith("paths.outputs=")]).jobs
    assert [each.run_id for each in jobs] == [run["run_id"] for run in cell["runs"]]
    assert {run["state"] for run in cell["runs"]} == {"todo"}


def test_a_diverged_seed_is_shown_and_no_mean_printed(capsys: Captured, tmp_path: Path) -> None:
    write_run(tmp_path, job("qv", 2, 0), [(0.8, 0.7)])
    write_status(tmp_path, job("qv", 2, 1), "diverged", "the loss is nan at step 3 of 9")
    out = text(capsys, tmp_path, *QV_2)
    assert "Ours: — (1/2 seeds, 1 diverged)." in out and "There is no mean: 1 of 2 runs without a score" in out
    assert "Seed 1, diverged:\n  the loss is nan at step 3 of 9" in out and "A diverged run is not repeated." in out
    cell = ours(explained(capsys, tmp_path, *QV_2[1:]))
    assert (cell["mean"], cell["n"], cell["runs_scored"], cell["runs_expected"]) == (None, 0, 1, 2)
    assert [(run["state"], run["score"]) for run in cell["runs"]] == [("finished", 0.8), ("diverged", None)]


def test_a_run_of_another_commit_or_machine_is_visible(capsys: Captured, tmp_path: Path) -> None:
    write_run(tmp_path, job("qv", 2, 0), [(0.8, 0.7)])
    other = PROVENANCE | {"commit": "fedcba9876543210", "dirty": True, "threads": 1}
    write_run(tmp_path, job("qv", 2, 1), [(0.9, 0.7)], provenance=other)
    out = text(capsys, tmp_path, *QV_2)
    changed = "fedcba9876 with uncommitted changes"
    assert f"Its runs differ in their commit: 0123456789 (seed 0); {changed} (seed 1)." in out
    assert "differ in their machine and versions: a CPU, 2 CPU thread(s), torch 2.13.0 (seed 0); a CPU, 1 CPU" in out
    assert [run["commit"] for run in ours(explained(capsys, tmp_path, *QV_2[1:]))["runs"]] == ["0123456789", changed]


def test_the_epoch_that_is_taken_and_the_flags_of_each_run_are_shown(capsys: Captured, tmp_path: Path) -> None:
    for seed in (0, 1):
        flags = {"one_class": seed == 1, "b_zero": False}
        write_run(tmp_path, job("qv", 2, seed), [(0.9, 0.1), (0.6, 0.7)], flags=flags)
    for protocol, score, epoch in (("last_epoch", 0.6, 2), ("best_epoch_on_dev", 0.9, 1), ("held_out", 0.1, 1)):
        cell = ours(explained(capsys, tmp_path, *QV_2[1:], "--protocol", protocol))
        assert [(run["score"], run["epoch"], run["epochs"]) for run in cell["runs"]] == [(score, epoch, 2)] * 2
        assert [run["flags"] for run in cell["runs"]] == [[], ["one_class"]]


def test_flags_of_predictions_are_those_of_the_epoch_that_is_taken(capsys: Captured, tmp_path: Path) -> None:
    by_epoch = {"1": {"one_class": True}, "2": {"one_class": False}}
    for seed in (0, 1):
        flags = {"one_class": False, "b_zero": True}
        write_run(tmp_path, job("qv", 2, seed), [(0.9, 0.1), (0.6, 0.7)], flags=flags, flags_by_epoch=by_epoch)
    for protocol, flags in (("last_epoch", ["b_zero"]), ("best_epoch_on_dev", ["one_class", "b_zero"])):
        cell = ours(explained(capsys, tmp_path, *QV_2[1:], "--protocol", protocol))
        assert [run["flags"] for run in cell["runs"]] == [flags] * 2


def test_a_run_of_the_same_name_with_other_settings_is_named_and_not_counted(capsys: Captured, tmp_path: Path) -> None:
    fill(tmp_path)
    stale = load(compose, [*SMOKE, "method.r=2", "method.targets=[q,v]", "seed=0", "train.learning_rate=1e-5"]).jobs[0]
    write_run(tmp_path, stale, [(0.1, 0.1)])
    cell = ours(explained(capsys, tmp_path, *QV_2[1:]))
    assert cell["namesakes"] == [stale.run_id] and cell["mean"] == pytest.approx(0.85)
    assert f"Not counted: {stale.run_id}. They are called like runs of this cell" in text(capsys, tmp_path, *QV_2)


def test_an_arm_of_the_same_table_is_no_run_of_the_same_name(tmp_path: Path) -> None:
    """The value of alpha is in no name, as the sizes of PEFT's tuners are in none."""
    given = ["regime=one_rate", "method.alpha=4,8"]
    jobs = load(compose, ["+sweeps=table15", "scale=smoke", *given]).jobs
    assert len({job.run_id.rpartition("-")[0] for job in jobs}) < len(jobs)
    for each in jobs:
        write_run(tmp_path, each, [(0.8, 0.8)])
    item = cast(MethodTable, read_item("table15"))
    found = read(item, Request("smoke", str(tmp_path), tuple(given)), ["method=lora"])
    ours = [each for each in found.entries if each.cell.runs]
    assert len(ours) == 6 and not any(each.namesakes for each in ours)


def test_the_sweeps_own_words_choose_other_runs(capsys: Captured, tmp_path: Path) -> None:
    fill(tmp_path)
    out = text(capsys, tmp_path, *QV_2, "seed=1")
    assert "Ours: 90.0 n=1." in out and "It is one score: a single seed has no interval." in out
    assert "at scale=smoke seed=1." in out and "analysis table 6 seed=1 --scale smoke" in out
    cell = ours(explained(capsys, tmp_path, *QV_2[1:], "regime=tuned"))
    assert cell["tuning"]["key"] == "train.learning_rate" and cell["runs"][0]["state"] == "tuning"


def test_a_result_that_does_not_count_says_why(capsys: Captured, tmp_path: Path) -> None:
    fill(tmp_path)
    copied = tmp_path / "runs" / job("qv", 2, 1).run_id / "result.json"
    copied.write_text((tmp_path / "runs" / job("q", 1, 0).run_id / "result.json").read_text())
    cell = ours(explained(capsys, tmp_path, *QV_2[1:]))
    assert cell["runs"][1]["state"] == "not counted" and job("q", 1, 0).run_id in cell["runs"][1]["reason"]
    assert cell["mean"] is None


def test_a_ledger_stands_for_a_store(capsys: Captured, tmp_path: Path) -> None:
    fill(tmp_path / "store")
    ledger = tmp_path / "study.parquet"
    assert call(capsys, "ledger", "write", ledger, *SMOKE, "--runs", tmp_path / "store")[0] == 0
    out = text(capsys, ledger, *QV_2)
    assert "Ours: 85.0 [21.5, 148.5] n=2." in out and f"Records: in the ledger {ledger}" in out
    assert f"--runs {ledger}" in out and "/runs/RUN/" not in out


def test_a_file_that_is_no_ledger_is_no_store(capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("nothing")
    code, _, err = call(capsys, *QV_2, "--runs", tmp_path / "notes.md")
    assert code != 0 and "no store is a file. Give the folder that holds runs/, or a ledger, *.parquet." in err


def test_lines_of_one_method_are_named_by_what_differs(capsys: Captured, tmp_path: Path) -> None:
    out = text(capsys, tmp_path, "explain", "leaderboard", "method=lora", "--scale", "smoke")
    headings = re.findall("^### .*", out, re.M)
    assert len(headings) > 1 and len(set(headings)) == len(headings)


def test_cells_come_in_the_tables_order_and_by_any_form_of_a_key(capsys: Captured, tmp_path: Path) -> None:
    def places(*words: str) -> list[tuple[str, Any]]:
        return [(each["row"], each["column"]) for each in explained(capsys, tmp_path, "table6", *words, *HERE)]

    assert len(places()) == 34
    assert places("task=generated") == [("q", 1), ("q", 2), ("q,v", 1), ("q,v", 2)]
    assert places("task.name=generated", "method.targets=[q,v]", "method.r=2") == [("q,v", 2)]
    assert places("model=tiny_bert", "targets=v,q", "r=1,2") == [("q,v", 1), ("q,v", 2)]
    assert places("model=gpt3_175b", "targets=q", "r=64", "task=wikisql,mnli") == [("q", 64), ("q", 64)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["table6", "r=3"], "has method.r=3.\nValues of method.r: 1, 2, 4, 8, 64."),
        (["table6", "targets=q,k"], "Values of method.targets: q, q,v, q,k,v,o."),
        (["table6", "task=wikisq"], "Did you mean 'wikisql'?"),
        (["table6", "targts=q"], "no cell of table6 has a key 'targts'. Did you mean 'targets'?"),
        (["table6", "rank=1"], "Keys in which its cells differ: task.name, model.name, method.targets, method.r."),
        (["table6", "dropout=0"], "several keys end so. Give one of model.dropout, method.dropout."),
        (["table6", "r=64", "task=generated"], "has all of r=64 task=generated. Give fewer."),
        (["table6", "r="], "selects nothing. Give KEY=VALUE"),
        (["tabel6"], "there is no item 'tabel6'. Did you mean 'table6'?"),
        (["rank_one"], "there is no item 'rank_one'. It is a claim: python -m analysis claims rank_one\n"),
        (["6", "target=q,v"], "no cell of table6 has a key 'target'. Did you mean 'targets'?"),
        (["table5", "table6"], "one item is explained (given: table5 and table6)"),
        ([], "one item is explained (given: none)"),
        (["figure5", "method=adapter_h"], "no runs of ours are behind it"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(
    capsys: Captured, tmp_path: Path, words: list[str], said: str
) -> None:
    code, out, err = call(capsys, "explain", *words, *HERE, "--runs", tmp_path)
    assert code != 0 and out == "" and said in err


def test_items_without_cells_say_where_their_numbers_come_from(capsys: Captured, tmp_path: Path) -> None:
    assert "Its numbers are the paper's" in text(capsys, tmp_path, "explain", "figure5")
    figure = text(capsys, tmp_path, "explain", "figure", "2")
    assert "the sweep table15" in figure and "python -m analysis explain table15" in figure
    assert "python -m analysis figure shared_directions --format json" in text(
        capsys, tmp_path, "explain", "shared_directions"
    )
    assert in_order(item_names())[:3] == ["table2", "table3", "table4"]


def test_planned_cells_say_why(capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned.plan(monkeypatch, "analysis.cells")
    out = text(capsys, tmp_path, "explain", "table6", "r=8", "targets=q", "task=mnli", "--scale", "paper")
    assert "Paper: 90.7 ± 0.1" in out and f"planned and cannot run: {planned.WHY}" in out
    planned.plan(monkeypatch, "lora_repro.sweep.grid")
    refused = call(capsys, "explain", "leaderboard", "--scale", "paper", "--runs", tmp_path)
    assert (
        refused[0] == 1 and "explain: leaderboard has no cells at scale=paper. Its runs are planned and" in refused[2]
    )
    out = text(capsys, tmp_path, "explain", "table15", "method=full", "--scale", "paper")
    assert "Ours is planned and cannot run yet" in out


TUNED = ("method.r=2", "tune={train.learning_rate:[1e-3,3e-3,1e-2],seed:[100]}")


def tuned(store: Path) -> Explanation:
    request = Request("smoke", str(store), TUNED, "md", "last_epoch")
    return read(cast(ScoreTable, read_item("table6")), request, ["task=generated", "targets=q,v"])


def test_a_tuned_cell_shows_every_value_that_was_tried(tmp_path: Path) -> None:
    waiting = markdown(tuned(tmp_path), str(tmp_path), names())
    assert "Nothing is chosen: 3 of the 3 tuning runs" in waiting and "train.learning_rate=tuned" in waiting
    assert waiting.count("Seed 0, 1, tuning first:") == 1
    for each in load(compose, [*SMOKE, *TUNED], tmp_path).tuning_jobs:
        score = {1e-3: 0.7, 3e-3: 0.9}.get(each.resolved.run.train.learning_rate, 0.6)
        score -= 0.1 * (each.point["method.targets"] == ["q"])
        write_run(tmp_path, each, [(score, score)])
    for each in load(compose, [*SMOKE, *TUNED], tmp_path).jobs:
        write_run(tmp_path, each, [(0.7 + each.resolved.run.seed / 10, 0.7)])
    explanation = tuned(tmp_path)
    (cell,) = json.loads(to_json(explanation))
    tuning = cell["tuning"]
    assert (tuning["key"], tuning["grid"]) == ("train.learning_rate", [1e-3, 3e-3, 1e-2])
    assert (tuning["chosen"], tuning["at_edge"], tuning["why_not"]) == (3e-3, False, None)
    assert tuning["place"] == {"place": 1, "with_neighbour": 2, "of": 2}  # 0.9 before 0.8, which is before 0.7
    assert [tried["scores"] for tried in tuning["tried"]] == [[0.7], [0.9], [0.6]]
    runs = [run_id for tried in tuning["tried"] for run_id in tried["run_ids"]]
    assert len(set(runs)) == 3 and all((tmp_path / "runs" / run_id).exists() for run_id in runs)
    assert [run["seed"] for run in cell["runs"]] == [0, 1] and cell["settings"]["train.learning_rate"] == 3e-3
    out = markdown(explanation, str(tmp_path), names())
    assert f"| 0.003 (chosen) | 90.00             | 100: 90.00, {runs[1]} |" in out
    assert "Chosen: 0.003, inside the grid. By tuning scores it has place 1 among the 2" in out
    assert "next to the chosen one it would have place 2." in out


def test_a_difference_to_a_baseline_says_what_is_taken_off(tmp_path: Path) -> None:
    fill(tmp_path)
    explanation = read(
        cast(ScoreTable, read_item("table6")), Request("smoke", str(tmp_path)), ["task=generated", "r=1"]
    )
    entries = [each._replace(difference=paired([0.02, 0.02])) for each in explanation.entries]
    changed = explanation._replace(entries=entries, baseline={"method.name": "lora"})
    out = markdown(changed, str(tmp_path), names())
    assert out.count("taken seed by seed: +2.00 (all equal) (baseline: method.name=lora).") == 2
    assert json.loads(to_json(changed))[0]["difference"]["n"] == 2


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("full_rank", {"Minus the baseline, taken"}),
        ("leaderboard", {"Minus the baseline of its budget, taken", "Minus the baseline of the largest budget, taken"}),
    ],
)
def test_a_difference_is_written_as_the_table_writes_it_with_its_budget_where_there_are_budgets(
    name: str, taken: set[str], tmp_path: Path
) -> None:
    for number, each in enumerate(load(compose, [f"+sweeps={name}", "scale=smoke", "tune=null"]).jobs):
        score = 0.5 + 0.0137 * (number % 7)
        write_run(tmp_path, each, [(score, score)])
    item, request = cast(MethodTable, read_item(name)), Request("smoke", str(tmp_path), ("tune=null",))
    out = markdown(read(item, request, []), str(tmp_path), names())
    grid = item.printed(request).grid
    told = re.findall(r"(Minus the baseline.*?, taken) seed by seed: (.*?) \(baseline", out)
    column = grid[0].index(f"minus {item.baseline_method}")
    assert {words for words, _ in told} == taken
    assert [difference for _, difference in told] == [row[column] for row in grid[1:] if row[column] != "the baseline"]
