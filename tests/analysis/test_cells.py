"""Cells on stores made by hand, with answers computed by hand."""

import math
import shlex
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest
from helpers import planned
from helpers.handmade_runs import SMOKE, fill, job, jobs, write_run, write_status

from analysis.cell import Cell, Place, SeedRun
from analysis.cells import _by_place, cells
from analysis.items import item_names, load_item, read_item
from analysis.join import Commands, planned_runs
from analysis.kinds.scores import ScoreTable
from analysis.protocol import Protocol, pick
from analysis.stats import summarise
from analysis.verdicts import NOT_HERE
from lora_repro.config.catalogue import group_names
from lora_repro.config.compose import compose
from lora_repro.errors import InputError
from lora_repro.sweep.grid import load
from lora_repro.tasks import Metric

TABLE6 = cast(ScoreTable, load_item("table", "6"))
TASK = "generated"
ACCURACY = Metric("accuracy", baseline="majority")


def cell(frame: pd.DataFrame, row: str, column: int, task: str = TASK) -> dict[str, Any]:
    found = [
        {str(key): value for key, value in each.items()}
        for each in frame.to_dict("records")
        if (each["row"], each["column"], each["task"]) == (row, column, task)
    ]
    (only,) = found
    return only


def test_summarise_gives_the_t_interval() -> None:
    mean, low, high, n = summarise([0.8, 0.9])
    assert (mean, n) == (pytest.approx(0.85), 2)
    half = 12.7062047 * 0.05  # t(0.975, 1 degree of freedom) times the standard error: 0.0707 / sqrt(2)
    assert low == pytest.approx(0.85 - half)
    assert high == pytest.approx(0.85 + half)


def test_summarise_of_equal_one_and_no_values() -> None:
    assert summarise([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5, 3)
    assert summarise([0.5]) == (0.5, None, None, 1)
    assert summarise([]) == (None, None, None, 0)


ACCURACY = Metric("accuracy")
ERROR = Metric("mse", higher_is_better=False)
LOSS = Metric("loss", higher_is_better=False)
BLEU = Metric("bleu")


def epochs(*pairs: tuple[float, float]) -> list[dict[str, Any]]:
    return [{"epoch": i, "eval/accuracy": dev, "test/accuracy": test} for i, (dev, test) in enumerate(pairs)]


@pytest.mark.parametrize(("protocol", "value"), [("last_epoch", 0.6), ("best_epoch_on_dev", 0.9), ("held_out", 0.1)])
def test_each_protocol_takes_its_number(protocol: str, value: float) -> None:
    by_epoch = epochs((0.5, 0.8), (0.9, 0.1), (0.6, 0.7))
    score = pick({"metrics_by_epoch": by_epoch}, ACCURACY, Protocol(protocol))
    assert score is not None and score.value == value


def test_the_best_epoch_of_an_error_is_the_lowest() -> None:
    by_epoch = [{"eval/mse": dev, "test/mse": test} for dev, test in ((0.5, 0.8), (0.1, 0.3), (0.1, 0.2), (0.6, 0.7))]
    score = pick({"metrics_by_epoch": by_epoch}, ERROR, Protocol.held_out)
    assert score is not None and score.value == 0.3


def test_of_tied_epochs_the_first_is_held_out() -> None:
    score = pick({"metrics_by_epoch": epochs((0.9, 0.1), (0.9, 0.2))}, ACCURACY, Protocol.held_out)
    assert score is not None and score.value == 0.1


def test_all_metrics_of_a_run_are_of_one_epoch_of_those_that_are_answered() -> None:
    """The loss is best after epoch 1, which is not answered, and of the answered ones after 3; BLEU after 2."""
    by_epoch = [{"epoch": i, "eval/loss": dev, "test/loss": dev + 5} for i, dev in ((1, 1.0), (2, 1.3), (3, 1.2))]
    for row, bleu in zip(by_epoch[1:], (0.6, 0.5), strict=True):
        row |= {"eval/bleu": bleu, "test/bleu": bleu - 0.25}
    found = [pick({"metrics_by_epoch": by_epoch}, each, Protocol.held_out, by=BLEU) for each in (LOSS, BLEU)]
    assert found == [(6.3, 2, None), (0.35, 2, None)]


def test_a_record_without_the_metric_has_no_score() -> None:
    assert pick({"metrics_by_epoch": []}, ACCURACY, Protocol.last_epoch) is None
    assert pick({"metrics_by_epoch": epochs((math.nan, 0.1))}, ACCURACY, Protocol.last_epoch) is None
    assert pick({"metrics_by_epoch": epochs((0.1, 0.1))}, Metric("bleu"), Protocol.last_epoch) is None


def test_a_whole_cell_holds_mean_interval_and_runs(tmp_path: Path) -> None:
    fill(tmp_path)
    got = cell(cells(TABLE6, "smoke", tmp_path), "q,v", 2)
    assert (got["mean"], got["n"], got["n_expected"], got["missing"]) == (pytest.approx(0.85), 2, 2, ())
    assert (got["low"], got["high"]) == (pytest.approx(0.85 - 0.6353102), pytest.approx(0.85 + 0.6353102))
    assert got["run_ids"] == tuple(job("qv", 2, seed).run_id for seed in (0, 1))
    assert (got["model"], got["majority"], got["verdict"]) == (
        "tiny_bert",
        0.6,
        "smoke: plumbing, not judged",
    )
    assert got["commits"] == ("0123456789",) and got["computed_on"] == ("a CPU, 2 CPU thread(s), torch 2.13.0",)
    assert math.isnan(got["paper"])


def test_the_protocol_reaches_the_cells(tmp_path: Path) -> None:
    fill(tmp_path)
    got = cell(cells(TABLE6, "smoke", tmp_path, protocol=Protocol.held_out), "q", 1)
    assert (got["mean"], got["majority"]) == (pytest.approx(0.75), 0.5)


def test_the_papers_numbers_are_cells_in_the_same_unit(tmp_path: Path) -> None:
    frame = cells(TABLE6, "smoke", tmp_path)
    got = cell(frame, "q,v", 64, "wikisql")
    assert (got["paper"], got["paper_fluctuation"], got["paper_model"]) == (0.735, 0.005, "gpt3_175b")
    assert (got["n_expected"], got["run_ids"]) == (0, ())
    assert sum(math.isfinite(value) for value in frame["paper"]) == 30


def test_a_missing_seed_leaves_no_mean(tmp_path: Path) -> None:
    write_run(tmp_path, job("q", 1, 0), [(0.8, 0.7)])
    got = cell(cells(TABLE6, "smoke", tmp_path), "q", 1)
    assert math.isnan(got["mean"]) and math.isnan(got["low"])
    assert (got["n"], got["n_expected"]) == (1, 2)
    missing = {"run_id": job("q", 1, 1).run_id, "seed": 1, "state": "todo", "reason": None}
    assert got["missing"] == (missing,)


def test_failed_diverged_and_damaged_runs_are_named(tmp_path: Path) -> None:
    fill_but = [job("q", 1, 1), job("q", 2, 1), job("qv", 1, 1)]
    for each in jobs():
        if each not in fill_but:
            write_run(tmp_path, each, [(0.8, 0.7)])
    write_status(tmp_path, fill_but[0], "failed", "RuntimeError: no")
    write_status(tmp_path, fill_but[1], "diverged", "the loss is nan")
    (write_run(tmp_path, fill_but[2], [(0.8, 0.7)]) / "result.json").write_text("{")
    frame = cells(TABLE6, "smoke", tmp_path)
    states = {place: cell(frame, *place)["missing"][0]["state"] for place in (("q", 1), ("q", 2), ("q,v", 1))}
    assert states == {("q", 1): "failed", ("q", 2): "diverged", ("q,v", 1): "not counted"}
    assert cell(frame, "q", 1)["missing"][0]["reason"] == "RuntimeError: no"
    assert cell(frame, "q,v", 2)["n"] == 2


def test_a_result_of_another_schema_does_not_count(tmp_path: Path) -> None:
    write_run(tmp_path, job("q", 1, 0), [(0.8, 0.7)], schema=2)
    got = cell(cells(TABLE6, "smoke", tmp_path), "q", 1)
    assert (got["n"], got["missing"][0]["state"]) == (0, "not counted")


def test_extra_runs_in_the_store_change_no_cell(tmp_path: Path) -> None:
    fill(tmp_path)
    before = cells(TABLE6, "smoke", tmp_path)
    for extra in jobs(*SMOKE, "seed=2,3", "method.alpha=16"):
        write_run(tmp_path, extra, [(0.0, 0.0)])
    for extra in jobs(*SMOKE, "seed=2,3"):
        write_run(tmp_path, extra, [(0.0, 0.0)])
    pd.testing.assert_frame_equal(before, cells(TABLE6, "smoke", tmp_path))


def test_overrides_choose_the_runs_of_a_cell(tmp_path: Path) -> None:
    fill(tmp_path)
    got = cell(cells(TABLE6, "smoke", tmp_path, ["seed=0,1,2"]), "q", 2)
    assert (got["n"], got["n_expected"]) == (2, 3)
    assert cell(cells(TABLE6, "smoke", tmp_path, ["seed=0"]), "q", 2)["n_expected"] == 1


def test_a_rank_that_the_paper_lacks_is_a_column_in_its_place(tmp_path: Path) -> None:
    frame = cells(TABLE6, "smoke", tmp_path, ["method.r=3"])
    assert cell(frame, "q", 3)["n_expected"] == 2
    assert sorted(set(frame["column"])) == [1, 2, 3, 4, 8, 64]


def test_a_mean_over_more_than_seeds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.learning_rate: a cell is a mean over seeds only.*0\.001, 0\.01"):
        cells(TABLE6, "smoke", tmp_path, ["train.learning_rate=1e-3,1e-2"])


def test_runs_without_a_row_are_outside() -> None:
    full = jobs("model=tiny_bert", "task=generated", "method=full")
    places, outside = _by_place(TABLE6, [*jobs(), *full])
    assert outside == [full[0].run_id]
    assert sum(map(len, places.values())) == 8


@pytest.mark.parametrize(
    ("scale", "given"),
    [
        ("demo", []),
        ("smoke", ["seed=3,4", "method.r=1,4", "method.alpha=16"]),
    ],
)
def test_a_cells_command_expands_to_exactly_its_runs(tmp_path: Path, scale: str, given: list[str]) -> None:
    frame = cells(TABLE6, scale, tmp_path / "a store", given)
    ours = frame[frame["n_expected"] > 0]
    assert len(ours) >= 3
    for command, run_ids in zip(ours["command"], ours["run_ids"], strict=True):
        assert expansion(command) == set(run_ids)
    everything = {run_id for run_ids in ours["run_ids"] for run_id in run_ids}
    assert expansion(frame.attrs["command"]) == everything


def expansion(command: str) -> set[str]:
    words = shlex.split(command)
    assert words[:4] == ["python", "-m", "lora_repro", "-m"]
    return {job.run_id for job in load(compose, words[4:]).jobs}


def test_a_cell_of_a_sweep_of_several_grids_spells_its_settings_out() -> None:
    both = [*jobs(), *jobs(*SMOKE, "method.targets=[v]", "method.r=1", "method.alpha=16")]
    commands = Commands(list(SMOKE), [], "outputs", both)
    assert not commands.is_product
    pair = [each for each in both if each.resolved.run.method.label == "lora-r1-v"]
    assert len(pair) == 2
    assert expansion(commands.of(pair)) == {each.run_id for each in pair}


def test_grids_that_differ_in_their_keys_are_no_product() -> None:
    plain = jobs(*SMOKE, "method.targets=[v]", "method.r=1")
    scaled = jobs(*SMOKE, "method.targets=[v]", "method.r=1", "method.rslora=true")
    commands = Commands(list(SMOKE), [], "outputs", [*plain, *scaled])
    assert not commands.is_product
    for some in (plain, scaled):
        assert expansion(commands.of(some)) == {each.run_id for each in some}


def test_planned_runs_are_cells_with_their_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned.plan(monkeypatch, "analysis.cells")
    frame = cells(TABLE6, "paper", tmp_path)
    assert len(frame) == 30
    got = cell(frame, "q", 1, "wikisql")
    assert (got["paper"], got["n"], got["n_expected"]) == (0.688, 0, 1)
    assert planned.WHY in got["reason"]
    assert (got["command"], got["verdict"]) == (None, NOT_HERE)


def test_a_cell_says_all_reasons_why_its_runs_are_planned() -> None:
    runs = planned_runs([({"seed": 0}, "no data"), ({"seed": 1}, "no weights"), ({"seed": 2}, "no data")])
    assert Cell(Place("t", "m", "q", 1), ACCURACY, runs=runs).planned == "no data; no weights"


def test_of_several_baselines_a_cell_shows_the_hardest_to_beat() -> None:
    runs = tuple(SeedRun(seed, "id", "finished", None, 0.5, 1, baseline) for seed, baseline in enumerate((0.6, 0.4)))
    assert Cell(Place("t", "m", "q", 1), ACCURACY, runs=runs).baseline == 0.6
    assert Cell(Place("t", "m", "q", 1), ERROR, runs=runs).baseline == 0.4


def test_an_item_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"(?s)table 66: there is no such item here.*table 6"):
        load_item("table", "66")


def test_every_item_has_a_sweep_and_facts_for_all_its_values() -> None:
    tables = [item for item in map(read_item, item_names()) if isinstance(item, ScoreTable)]
    assert len(tables) >= 2
    for item in tables:
        assert item.sweep in group_names("sweeps")
        if not item.facts:
            assert item.rows.facts is item.columns.facts is None
            continue
        for fact in item.facts["rows"]:
            assert fact[item.rows.facts] in item.rows.values.values()
            if item.columns.facts is None:
                assert set(item.columns.values.values()) <= set(fact)
            else:
                assert fact[item.columns.facts] in item.columns.values.values() and set(item.tasks) <= set(fact)
        assert set(item.fluctuation.values()) <= set(item.facts["metrics"])


TABLE5 = cast(ScoreTable, load_item("table", "5"))


def records(frame: Any) -> list[dict[str, Any]]:
    return frame.to_dict("records")


def test_table_5_prints_the_papers_numbers_at_its_budget() -> None:
    """The PDF's Table 5, row by row."""
    frame = cells(TABLE5, "smoke", "nowhere")
    paper = frame[frame["paper_model"] == "gpt3_175b"]
    printed = {
        "wikisql": {"q": 70.4, "k": 70.0, "v": 73.0, "o": 73.2, "q,k": 71.4, "q,v": 73.7, "q,k,v,o": 73.7},
        "mnli": {"q": 91.0, "k": 90.8, "v": 91.0, "o": 91.3, "q,k": 91.3, "q,v": 91.3, "q,k,v,o": 91.7},
    }
    for task, row in printed.items():
        found = paper[(paper["task"] == task) & (paper["row"] == "18M")]
        assert {cell["column"]: round(100 * cell["paper"], 4) for cell in records(found)} == row
    spread = paper.groupby("task")["paper_fluctuation"].unique()
    assert (list(spread["wikisql"]), list(spread["mnli"])) == ([0.005], [0.001])


def test_table_5_is_one_axis_at_an_equal_budget() -> None:
    for scale, compared, trained in (("smoke", 3, 1024), ("demo", 3, 36_864), ("proxy", 7, 36_864)):
        jobs = load(compose, ["+sweeps=table5", f"scale={scale}"]).jobs
        ranks = {",".join(run.method.targets): run.method.r for job in jobs for run in [job.resolved.run]}  # pyright: ignore
        assert len(ranks) == compared and all(r * len(key.split(",")) == ranks["q"] for key, r in ranks.items())
        assert {job.resolved.run.trained_by_method for job in jobs} == {trained}
        assert {job.resolved.run.utilisation for job in jobs} == {1.0}
    for arguments, trained in (([], 3_276_800), (["model=gpt3_175b", "method.budget=18874368"], 18_874_368)):
        runs = [job.resolved.run for job in load(compose, ["+sweeps=table5", "scale=paper", *arguments]).jobs]
        assert len(runs) == 2 * 7 * 2 and {run.trained_by_method for run in runs} == {trained}


def test_table_5_joins_runs_by_budget_and_targets(tmp_path: Path) -> None:
    for each in load(compose, ["+sweeps=table5", "scale=smoke"]).jobs:
        score = {"q": 0.5, "q,v": 0.6, "q,k,v,o": 0.7}[",".join(each.resolved.run.method.targets)]  # pyright: ignore
        write_run(tmp_path, each, [(score + 0.1 * each.resolved.run.seed, 0.0)])
    frame = cells(TABLE5, "smoke", tmp_path)
    ours = frame[frame["model"] == "tiny_bert"]
    means = {cell["column"]: (cell["row"], cell["mean"], cell["n"]) for cell in records(ours)}
    assert means == {
        "q": ("1024", pytest.approx(0.55), 2),
        "q,v": ("1024", pytest.approx(0.65), 2),
        "q,k,v,o": ("1024", pytest.approx(0.75), 2),
    }


def test_without_a_test_split_the_record_says_what_is_held_out() -> None:
    result = {
        "metrics_by_epoch": [{"epoch": 1, "eval/accuracy": 0.9}],
        "cross_fitted": {"accuracy": 0.8, "majority": 0.5},
    }
    assert pick(result, Metric("accuracy", baseline="majority"), Protocol.held_out) == (0.8, None, 0.5)
    assert pick(result, ACCURACY, Protocol.best_epoch_on_dev) == (0.9, 1, None)
    assert pick(result, ERROR, Protocol.held_out) is None
