"""Tables of methods across tasks: means over tasks, differences, selection bias, the paper's rows beside ours."""

import csv
import io
import json
import re
import shlex
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
from helpers.commands import call
from helpers.fixture_types import Captured
from helpers.handmade_runs import write_run, write_status
from scipy.stats import t, ttest_rel

from analysis import explain
from analysis.items import Request, load_item, names
from analysis.kinds.across import AcrossTable, Columns, PaperRows, read_across
from analysis.render.across import printed
from analysis.render.explain import markdown as explained
from analysis.render.printed import PrintedTable, markdown
from analysis.render.printed import write as write_as
from lora_repro.config.compose import compose
from lora_repro.errors import InputError
from lora_repro.sweep.grid import load
from lora_repro.sweep.job import Job, Sweep
from lora_repro.tasks.targets import Example

TABLE2 = cast(AcrossTable, load_item("table", "2"))
TASKS = ("task=rte,cola,stsb",)
FULL = {"rte": (0.60, 0.64), "cola": (0.30, 0.38), "stsb": (0.80, 0.81)}
"""Cross-fitted scores of full fine-tuning by task, of seeds 0 and 1."""
GAIN = {"full": (0.0, 0.0), "lora": (0.03, 0.01), "bitfit": (-0.02, -0.02), "adapter_h": (-0.1, -0.2)}
"""What a method scores more than that, on every task."""
FLATTERED = {"full": 0.02, "lora": 0.01, "bitfit": 0.0, "adapter_h": 0.01}
"""How much better dev looks at its best epoch."""


@cache
def sweep(*given: str) -> Sweep:
    return load(compose, ["+sweeps=table2", "scale=smoke", *given])


def jobs(*given: str) -> list[Job]:
    return sweep(*given).jobs


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs of three tasks; no test changes it."""
    store = tmp_path_factory.mktemp("store")
    fill(store, *TASKS)
    return store


def table(store: Path, *given: str, protocol: str | None = None) -> PrintedTable:
    request = Request("smoke", str(store), given or TASKS, protocol=protocol)
    return printed(read_across(TABLE2, request, sweep(*(given or TASKS))), names())


def write(store: Path, job: Job, fair: float, best: float, epochs: int = 2) -> None:
    """Writes a run whose dev is best after the first of its epochs, and falls by 0.05 in the last."""
    metric = job.resolved.run.task.targets.metrics[0].name
    dev = [best] if epochs == 1 else [best, best - 0.05]
    rows = [{"epoch": number, f"eval/{metric}": score} for number, score in enumerate(dev, 1)]
    last = {key: value for key, value in rows[-1].items() if key != "epoch"}
    task = job.resolved.run.task
    data = {split: task.targets.describe([Example("0", "a text", 1, "0")]) for split in task.all_splits}
    write_run(store, job, [(0, 0)], metrics_by_epoch=rows, metrics=last, cross_fitted={metric: fair}, data=data)


def kind(method: str) -> str:
    return "adapter_h" if method.startswith("adapter") else method


def fill(store: Path, *given: str) -> None:
    for job in jobs(*given):
        run = job.resolved.run
        fair = FULL[run.task.name][run.seed] + GAIN[kind(run.method.name)][run.seed]
        write(store, job, fair, fair + FLATTERED[kind(run.method.name)])


def records(store: Path, *given: str, protocol: str | None = None) -> list[dict[str, Any]]:
    return json.loads(write_as(table(store, *given, protocol=protocol), "json"))


def of(found: list[dict[str, Any]], what: str, method: str | None, column: str) -> dict[str, Any]:
    (one,) = [
        each
        for each in found
        if (each["what"], each["method"], each["column"], each["source"]) == (what, method, column, "ours")
    ]
    return one


def test_cells_hold_each_tasks_own_metric_cross_fitted(store: Path) -> None:
    found = records(store)
    metrics = {column: of(found, "score", "lora", column)["metric"] for column in FULL}
    assert metrics == {"rte": "accuracy", "cola": "matthews", "stsb": "pearson"}
    lora = of(found, "score", "lora", "cola")
    assert lora["scores"] == pytest.approx([0.33, 0.39]) and lora["mean"] == pytest.approx(0.36)
    assert (lora["low"], lora["high"]) == pytest.approx(t.interval(0.95, 1, 0.36, 0.03)) and lora["n"] == 2
    assert lora["trained"] == 2 * 2 * 2 * 8 * 32  # layers, matrices, A and B, r, d


def test_other_protocols_are_taken_from_dev(store: Path) -> None:
    best = of(records(store, protocol="best_epoch_on_dev"), "score", "full", "rte")
    last = of(records(store, protocol="last_epoch"), "score", "full", "rte")
    assert best["mean"] == pytest.approx(0.62 + 0.02) and last["mean"] == pytest.approx(0.62 + 0.02 - 0.05)


def test_the_mean_over_tasks_is_taken_seed_by_seed(store: Path) -> None:
    mean = of(records(store), "score", "full", "mean")
    seeds = [(0.60 + 0.30 + 0.80) / 3, (0.64 + 0.38 + 0.81) / 3]  # 0.5667 and 0.61
    assert mean["mean"] == pytest.approx(sum(seeds) / 2) and mean["n"] == 2
    assert mean["low"] == pytest.approx(sum(seeds) / 2 - t.ppf(0.975, 1) * (seeds[1] - seeds[0]) / 2)
    text = write_as(table(store), "md")
    assert "| 58.8 [31.3, 86.4] n=2 |" in " ".join(text.split())
    assert "over the tasks of a model's lines, taken seed by seed (tiny_bert rte, cola, stsb)" in text
    assert "It averages accuracy, matthews, pearson, as the paper's does." in text


def test_a_line_without_all_tasks_or_runs_has_no_mean(tmp_path: Path) -> None:
    for job in jobs(*TASKS):
        run = job.resolved.run
        if (run.method.name, run.task.name, run.seed) == ("lora", "stsb", 1):
            write_status(tmp_path, job, "failed", "out of memory")
            continue
        fair = FULL[run.task.name][run.seed] + GAIN[kind(run.method.name)][run.seed]
        write(tmp_path, job, fair, fair)
    found = records(tmp_path)
    of(found, "score", "full", "mean")
    assert not [each for each in found if each["method"] == "lora" and each["column"] == "mean"]
    assert of(found, "score", "lora", "stsb")["mean"] is None
    assert {each["column"] for each in found if each["what"] == "difference" and each["method"] == "lora"} == {
        "rte",
        "cola",
    }
    text = write_as(table(tmp_path), "md")
    (line,) = [line for line in text.splitlines() if line.startswith("| tiny_bert") and "| lora  " in line]
    assert "— (1/2 seeds, 1 failed) | —" in " ".join(line.split())
    assert "Missing: 1 of 36 runs." in text and "out of memory" in text
    assert "python -m lora_repro -m" in text and "seed=0,1" in text


def test_differences_are_paired_by_seed_and_marked_when_they_hold_zero(store: Path) -> None:
    found = records(store)
    lora = of(found, "difference", "lora", "rte")
    assert lora["baseline"] == "full" and lora["mean"] == pytest.approx(0.02) and lora["n"] == 2
    assert lora["low"] == pytest.approx(0.02 - t.ppf(0.975, 1) * 0.01)
    assert lora["p"] == pytest.approx(ttest_rel([0.63, 0.65], [0.60, 0.64]).pvalue)
    assert of(found, "difference", "lora", "mean")["mean"] == pytest.approx(0.02)
    lines = grid(store)
    assert lines["lora minus full"]["RTE (accuracy)"] == "+2.00 [-10.71, +14.71] ~"
    assert lines["bitfit minus full"]["CoLA (matthews)"] == "-2.00 (all equal) n=2"
    assert "full minus full" not in lines


def test_a_difference_is_in_the_unit_of_its_own_column(tmp_path: Path) -> None:
    """-0.09 and -0.10 have the mean -0.095, and 12.706 standard errors of 0.005 are 0.0635."""
    texts = load(compose, ["+sweeps=table3", "scale=smoke"])
    for job in texts.jobs:
        task, seed = job.resolved.run.task, job.resolved.run.seed
        less = 0.09 + 0.01 * seed if job.resolved.run.method.name == "ft_top2" else 0.0
        scores = {f"{split}/{metric.name}": 0.5 - less for split in ("eval", "test") for metric in task.targets.metrics}
        data = {split: task.targets.describe([Example("0", "a text", ["a text"], "0")]) for split in task.all_splits}
        write_run(tmp_path, job, [(0, 0)], metrics=scores, metrics_by_epoch=[{"epoch": 1, **scores}], data=data)
    table3 = cast(AcrossTable, load_item("table", "3"))
    header, *rows = printed(read_across(table3, Request("smoke", str(tmp_path)), texts), names()).grid
    (line,) = [dict(zip(header, row, strict=True)) for row in rows if row[1] == "ft_top2 minus full"]
    assert [line[column] for column in header[4:]] == ["-9.50 [-15.85, -3.15]", "-0.0950 [-0.1585, -0.0315]"]
    assert [column.partition(" (")[2] for column in header[4:]] == ["bleu)", "nist)"]


def test_equal_differences_are_called_equal_and_not_tested(store: Path) -> None:
    """Two seeds on a dev of 277 examples often differ by the same: an interval of no width would look certain."""
    text = markdown(table(store))
    assert "-2.00 [-2.00, -2.00]" not in text and "not tested" in text
    assert "Of 12 differences 0 exclude 0 one by one, and 0 when all are tested together" in text  # 15 less three


def grid(store: Path, *given: str) -> dict[str, dict[str, str]]:
    header, *lines = table(store, *given).grid
    return {line[1]: dict(zip(header, line, strict=True)) for line in lines}


def test_selection_bias_is_the_best_epoch_on_dev_minus_cross_fitted_over_all_runs(store: Path) -> None:
    bias = of(records(store), "selection bias", None, "stsb")
    assert bias["mean"] == pytest.approx((0.02 + 0.01 + 0.0 + 3 * 0.01) / 6) and bias["n"] == 12
    deviations = [0.01, 0.0, -0.01, 0.0, 0.0, 0.0] * 2
    sd = (sum(each**2 for each in deviations) / 11) ** 0.5
    assert bias["high"] - bias["mean"] == pytest.approx(t.ppf(0.975, 11) * sd / 12**0.5)
    assert len(set(bias["run_ids"])) == 12
    line = grid(store)["best epoch on dev minus cross-fitted"]
    assert line["STS-B (pearson)"].startswith("+1.00 [") and line["STS-B (pearson)"].endswith("n=12 runs")


def test_tasks_with_a_test_split_and_runs_of_one_epoch_have_no_selection_bias(tmp_path: Path) -> None:
    for job in jobs("task=rte,tweets"):
        if job.resolved.run.task.name == "tweets":
            write_run(tmp_path, job, [(0.9, 0.7), (0.8, 0.6)])  # dev and test are other examples
        else:
            write(tmp_path, job, 0.6, 0.6, epochs=1)
    assert not [each for each in records(tmp_path, "task=rte,tweets") if each["what"] == "selection bias"]


def test_the_papers_rows_stand_beside_the_model_of_their_shape_with_a_mean_over_the_same_tasks(tmp_path: Path) -> None:
    given = (*TASKS, "model=mpnet", "train.learning_rate=1e-3")
    fill(tmp_path, *given)
    lines = table(tmp_path, *given)
    header, *rows = lines.grid
    shown = [dict(zip(header, row, strict=True)) for row in rows]
    theirs = [row for row in shown if row["model"] == "roberta_base (paper)"]
    assert [row["method"] for row in theirs] == ["full", "bitfit", "adapter_d", "adapter_d", "lora"]
    lora = theirs[-1]
    assert lora["RTE (accuracy)"] == "86.6 ±0.7" and lora["trained"] == "0.3M" and lora["MNLI"] == "87.5 ±0.3"
    assert lora["mean"] == "80.5" and lora["paper's own mean"] == "87.2"  # (86.6 + 63.4 + 91.5) / 3; over all eight
    text = markdown(lines)
    assert "It has RoBERTa base's shape, but its pretraining is another" in text
    assert "Of a line of the paper it is over the same tasks." in text
    assert shown.index(lora) + 1 == next(
        n for n, row in enumerate(shown) if (row["model"], row["method"]) == ("mpnet", "lora")
    )


@pytest.mark.long
def test_at_the_papers_scale_all_its_rows_are_shown_with_or_without_runs(tmp_path: Path) -> None:
    found = read_across(TABLE2, Request("paper", str(tmp_path)))
    rows = [row for block in found.blocks for row in block.paper]
    assert len(rows) == len(TABLE2.facts["rows"]) == 14 and {row["model"] for row in rows} == set(TABLE2.models[3:])
    assert all(row in TABLE2.facts["rows"] for row in rows)


def test_json_and_csv_hold_every_number_of_the_paper_in_the_units_of_ours(store: Path) -> None:
    found = [each for each in records(store) if each["source"] == "paper"]
    assert len(found) == 14 * 9
    (lora,) = [e for e in found if (e["model"], e["method"], e["column"]) == ("roberta_base", "lora", "cola")]
    assert (lora["mean"], lora["sd"], lora["trained"]) == (0.634, 0.012, 300_000)
    lines = list(csv.DictReader(io.StringIO(write_as(table(store), "csv"))))
    assert len(lines) == len(records(store)) and "tuning" not in lines[0]


@pytest.mark.parametrize("form", ["latex", "html"])
def test_it_is_written_in_the_other_formats(store: Path, form: str) -> None:
    text = write_as(table(store), form)
    assert "lora minus full" in text and "RTE (accuracy)" in text


def test_two_values_of_a_key_in_one_cell_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.learning_rate: a cell is a mean over seeds only, and the runs of"):
        read_across(TABLE2, Request("smoke", str(tmp_path), ("train.learning_rate=1e-3,1e-2",)))


def test_two_lines_cannot_both_be_the_baseline(tmp_path: Path) -> None:
    item = replace(TABLE2, baseline={"method.bottleneck": 2})
    with pytest.raises(InputError, match=r"adapter_d bottleneck=2 and adapter_h .* of tiny_bert are its baseline"):
        read_across(item, Request("smoke", str(tmp_path)), sweep(*TASKS))


def test_rows_of_methods_that_ours_lack_are_shown_at_the_papers_scale_alone(tmp_path: Path) -> None:
    assert TABLE2.paper is not None
    paper = replace(TABLE2.paper, beside={"tiny_bert": "roberta_base"}, methods=TABLE2.paper.methods | {"bitfit": "x"})
    found = read_across(replace(TABLE2, paper=paper), Request("smoke", str(tmp_path)), sweep(*TASKS))
    assert [row["method"] for row in found.blocks[0].paper] == ["ft", "adapter_d", "adapter_d", "lora"]


def test_a_run_that_two_lines_share_stands_in_both(tmp_path: Path) -> None:
    """LoRA on RoBERTa large has on some tasks the settings of the restricted rows in the others too."""
    given = ("model=roberta_large", "task=mnli,mrpc", "seed=0", "method=lora", "preset=paper,paper_restricted")
    given = (*given, "train.batch_size=32", "train.epochs=10", "task.eval_size=null", "task.test_size=null")
    found = load(compose, ["+sweeps=table2", "scale=demo", *given])
    lines = read_across(TABLE2, Request("demo", str(tmp_path), given), found).lines
    by_preset = {line.settings["preset"]: line.cells for line in lines}
    assert {preset: set(cells) for preset, cells in by_preset.items()} == {
        "paper": {"mnli", "mrpc"},
        "paper_restricted": {"mnli", "mrpc"},
    }
    one, other = (by_preset[preset]["mnli"].runs[0].run_id for preset in ("paper", "paper_restricted"))
    assert one == other


def test_the_command_prints_it(tmp_path: Path, capsys: Captured) -> None:
    code, out, err = call(capsys, "table", "2", "--scale", "smoke", "--runs", tmp_path)
    assert code == 0 and out.startswith("## Table 2: GLUE development sets, methods across tasks")
    assert "Verdict: smoke: plumbing, not judged." in out and "Missing: 12 of 12 runs." in out
    assert "smoke" in out and "not reproduced" not in err


# Several draws of the training examples: Table 16.

TABLE16 = cast(AcrossTable, load_item("table", "16"))
DRAWN = {"full": {0: (0.50, 0.54), 1: (0.60, 0.60)}, "lora": {0: (0.55, 0.53), 1: (0.70, 0.68)}}
"""Test accuracy at n = 16 by draw, of seeds 0 and 1."""


@cache
def drawn(*given: str) -> Sweep:
    return load(compose, ["+sweeps=table16", "scale=smoke", *given])


def fill_draws(store: Path, found: Sweep) -> None:
    for job in found.jobs:
        run = job.resolved.run
        score = DRAWN.get(run.method.name, DRAWN["full"])[run.task.subset_seed][run.seed]
        score += 0.1 * (run.task.train_size == 64)
        write_run(store, job, [(score, score), (score - 0.1, score - 0.2)])


def cells_of(store: Path, *given: str) -> dict[str, Any]:
    found = json.loads(write_as(table16(store, *given), "json"))
    return {f"{each['what']} {each['method']} {each['column']}": each for each in found if each["source"] == "ours"}


def table16(store: Path, *given: str) -> PrintedTable:
    return printed(read_across(TABLE16, Request("smoke", str(store), given), drawn(*given)), names())


def test_an_interval_over_draws_averages_the_seeds_of_each_first(tmp_path: Path) -> None:
    fill_draws(tmp_path, drawn())
    found = cells_of(tmp_path)
    full = found["score full generated 16"]
    assert full["mean"] == pytest.approx((0.52 + 0.60) / 2) and (full["n"], full["over"]) == (2, "draws")
    assert full["high"] - full["mean"] == pytest.approx(t.ppf(0.975, 1) * 0.08 / 2)  # of 0.52 and 0.60, and not of four
    assert full["draws"] == [0, 1, 0, 1] and full["seeds"] == [0, 0, 1, 1]
    assert full["scores"] == [0.50, 0.60, 0.54, 0.60]
    lora = found["difference lora generated 16"]  # draw 0: 0.05 and -0.01; draw 1: 0.10 and 0.08
    assert lora["mean"] == pytest.approx((0.02 + 0.09) / 2) and lora["n"] == 2
    assert lora["p"] == pytest.approx(ttest_rel([0.54, 0.69], [0.52, 0.60]).pvalue)
    text = " ".join(markdown(table16(tmp_path)).split())
    assert "56.0 [5.2, 106.8] n=2 draws" in text and "generated, n = 64 (accuracy)" in text
    assert "an interval is over draws of the training examples (task.subset_seed), the seeds of each averaged" in text
    assert "over n seeds (0, 1), or over n draws of the training examples." in text
    assert "An interval over 2 draws reaches 12.7 standard errors" in text and "over 2 seeds reaches" not in text
    assert "| mean |" not in text


def test_explain_says_what_an_interval_over_draws_is_made_of(tmp_path: Path, capsys: Captured) -> None:
    fill_draws(tmp_path, drawn())
    words = ("method=lora", "train_size=16", "--scale", "smoke", "--runs", tmp_path)
    code, out, _ = call(capsys, "explain", "table16", *words)
    assert code == 0 and "### ours, tiny_bert, lora targets=q,v r=8 (tiny_bert), generated 16" in out
    assert "The number is the mean of 2 scores, one a draw of the training examples, the mean over its seeds." in out
    assert "10.61 over the root of 2" in out  # of 0.54 and 0.69
    assert "Minus the baseline, taken draw by draw: +5.50 [" in out
    code, out, _ = call(capsys, "explain", "table16", *words, "--format", "json")
    (cell,) = json.loads(out)
    assert (cell["n"], cell["over"], cell["runs_scored"], cell["runs_expected"]) == (2, "draws", 4, 4)


def test_explain_has_the_cells_of_the_papers_rows_too(tmp_path: Path) -> None:
    assert TABLE2.paper is not None
    item = replace(TABLE2, paper=replace(TABLE2.paper, beside={"tiny_bert": "roberta_base"}))
    found = explain.read(item, Request("smoke", str(tmp_path)), ["method=lora"])
    paper = {each.fact: each.cell.paper for each in found.entries if each.cell.paper is not None}
    assert len(paper) == 8 and len(found.entries) == 9 and paper["cola"] is not None
    assert (paper["cola"].value, paper["cola"].fluctuation) == (0.634, 0.012)
    text = explained(found, str(tmp_path), names())
    assert "Paper: 63.4 ± 1.2 (percent (correlations times 100), higher is better), cola in" in text
    assert "Paper: it has no number for generated." in text
    asked = replace(item.columns, facts=item.columns.facts | {"generated": "rte"})
    found = explain.read(replace(item, columns=asked), Request("smoke", str(tmp_path)), ["method=lora"])
    assert "it has no number for" not in explained(found, str(tmp_path), names())


def test_explain_finds_the_papers_rows_by_their_settings_and_prints_their_numbers_as_the_table(tmp_path: Path) -> None:
    item = cast(AcrossTable, load_item("table", "18"))
    assert item.paper is not None
    item = replace(item, paper=replace(item.paper, beside={"tiny_llama": "gpt2_medium"}))
    of_18 = Request("smoke", str(tmp_path))
    header, *rows = item.printed(of_18).grid
    (line,) = [dict(zip(header, row, strict=True)) for row in rows if "paper" in row[0] and row[2] == "r=4"]
    text = explained(explain.read(item, of_18, ["method=lora", "r=4"]), str(tmp_path), names())
    told = re.findall(r"^Paper: (\S+) \(BLEU", text, re.M)
    assert told == [cell for name, cell in line.items() if name.startswith("E2E")] and "70.38" in told
    assert "Paper: it has no number for restaurants." in text


def test_a_cell_of_one_draw_is_over_seeds(tmp_path: Path) -> None:
    given = ("task.subset_seed=1",)
    fill_draws(tmp_path, drawn(*given))
    lora = cells_of(tmp_path, *given)["score lora generated 16"]
    assert (lora["mean"], lora["n"], lora["over"]) == (pytest.approx(0.69), 2, "seeds")
    assert "draws" not in markdown(table16(tmp_path, *given)).split("Notes:")[0]


def test_a_missing_draw_leaves_no_number_and_its_command_names_all_draws(tmp_path: Path) -> None:
    found = drawn()
    fill_draws(tmp_path, found._replace(jobs=[job for job in found.jobs if job.resolved.run.task.subset_seed == 0]))
    cells = cells_of(tmp_path)
    assert cells["score lora generated 64"]["mean"] is None and "difference lora generated 64" not in cells
    command = cells["score lora generated 64"]["command"]
    assert "task.subset_seed=0,1" in command and "seed=0,1" in command and "task.train_size=64" in command
    again = load(compose, shlex.split(command.partition(" -m lora_repro -m ")[2])[:-1])
    assert {job.run_id for job in again.jobs} == {*cells["score lora generated 64"]["run_ids"]}
    assert "2/4 runs" in markdown(table16(tmp_path))


BY_METRIC = replace(
    TABLE2,
    columns=Columns(
        facts={"stsb pearson": "correlation", "stsb spearman": "ranks", "stsb loss": "loss"},
        shares=["correlation"],
        metrics=["pearson", "spearman", "loss"],
    ),
    mean=False,
    paper=PaperRows(methods={"ft": "full"}, beside={"tiny_bert": "printed"}, settings=["r"]),
    facts={
        "unit": "more is better",
        "rows": [
            {
                "model": "printed",
                "method": "ft",
                "r": 4,
                "correlation": 0.912,
                "ranks": 91.0,
                "loss": 1.25,
                "loss_std": 0.5,
            }
        ],
    },
)


def by_metric(store: Path) -> PrintedTable:
    given = ("task=stsb",)
    request = Request("smoke", str(store), given, protocol="last_epoch")
    return printed(read_across(BY_METRIC, request, sweep(*given)), names())


def test_metrics_of_one_task_make_a_column_each_in_their_own_units(tmp_path: Path) -> None:
    for job in jobs("task=stsb"):
        row = {"eval/pearson": 0.85, "eval/spearman": 0.5, "eval/loss": 1.75}
        task = job.resolved.run.task
        data = {split: task.targets.describe([Example("0", "a text", 1, "0")]) for split in task.all_splits}
        write_run(tmp_path, job, [(0, 0)], metrics_by_epoch=[{"epoch": 1, **row}], metrics=row, data=data)
    made = by_metric(tmp_path)
    assert made.grid[0][4:] == ["STS-B (pearson)", "STS-B (spearman)", "STS-B (loss)"]
    (paper,) = [line for line in made.grid if "paper" in line[0]]
    assert paper[1:] == ["full", "r=4", "", "91.2", "91.0", "1.25 ±0.5"]
    full = next(line for line in made.grid[1:] if line[1] == "full" and line is not paper)
    assert [cell.split(" ")[0] for cell in full[4:]] == ["85.0", "50.0", "1.750"]
    found = {(each["source"], each["column"]): each for each in made.json if each["what"] == "score"}
    assert [found["paper", f"stsb {name}"]["mean"] for name in ("pearson", "spearman", "loss")] == [0.912, 0.91, 1.25]
    assert found["paper", "stsb loss"]["sd"] == 0.5 and found["paper", "stsb loss"]["settings"] == {"r": 4}
    assert found["ours", "stsb spearman"]["metric"] == "spearman"


def test_the_columns_of_table_18_are_of_one_epoch(tmp_path: Path) -> None:
    """The loss on dev is best after the first epoch; texts are written after the second."""
    item = cast(AcrossTable, load_item("table", "18"))
    of_18 = load(compose, ["+sweeps=table18", "scale=smoke"])
    for job in of_18.jobs:
        task = job.resolved.run.task
        rows = [{"epoch": 1, "eval/loss": 1.0, "test/loss": 1.1}, {"epoch": 2, "eval/loss": 1.3, "test/loss": 1.4}]
        rows[1] |= {f"{split}/{metric.name}": 0.5 for split in ("eval", "test") for metric in task.targets.metrics}
        last = {key: value for key, value in rows[-1].items() if key != "epoch"}
        data = {split: task.targets.describe([Example("0", "?", ["a"], "0")]) for split in task.all_splits}
        write_run(tmp_path, job, [(0, 0)], metrics_by_epoch=rows, metrics=last, data=data)
    found = read_across(item, Request("smoke", str(tmp_path)), of_18)
    epochs = {(column, run.epoch) for line in found.lines for column, cell in line.cells.items() for run in cell.runs}
    assert len(found.columns) > 1 and epochs == {(column, 2) for column in found.columns}
    assert {cell.summary.mean for line in found.lines for name, cell in line.cells.items() if "loss" in name} == {1.4}


def test_a_table_of_metrics_says_what_the_paper_has_where_no_run_is_finished(tmp_path: Path) -> None:
    assert by_metric(tmp_path).grid[0][4:] == ["STS-B (pearson)", "STS-B (spearman)", "STS-B (loss)"]


def test_the_papers_metrics_of_parts_are_in_the_unit_of_the_whole(tmp_path: Path) -> None:
    """Table 14 prints TER and METEOR from 0 to 1 and BLEU in percent, each of unseen and seen categories too."""
    item = cast(AcrossTable, load_item("table", "14"))
    made = item.printed(Request("smoke", str(tmp_path)))
    full = {
        each["column"].partition(" ")[2]: each["mean"]
        for each in made.json
        if (each["source"], each["model"], each["method"]) == ("paper", "gpt2_medium", "full")
    }
    assert full == {
        **{"bleu_unseen": 0.277, "bleu_seen": 0.642, "bleu": 0.465},
        **{"meteor_unseen": 0.3, "meteor_seen": 0.45, "meteor": 0.38},
        **{"ter_unseen": 0.76, "ter_seen": 0.33, "ter": 0.53},
    }
    ter = item.columns.metric("webnlg ter_unseen")
    assert ter is not None and (ter.name, ter.higher_is_better) == ("ter_unseen", False)


def test_a_column_of_the_paper_in_no_known_unit_is_refused() -> None:
    columns = replace(BY_METRIC.columns, facts=BY_METRIC.columns.facts | {"stsb pearsen": "ranks"})
    with pytest.raises(InputError, match=r"there is no metric 'pearsen' \(given: 'stsb pearsen'\)"):
        replace(BY_METRIC, columns=columns).check()
    BY_METRIC.check()


def test_columns_by_key_and_by_metric_at_once_are_refused() -> None:
    both = replace(TABLE2, columns=replace(BY_METRIC.columns, key="task.train_size"))
    with pytest.raises(InputError, match="columns: give key or metrics"):
        both.check()


def test_a_task_that_has_none_of_the_named_metrics_shows_its_first(tmp_path: Path) -> None:
    item = replace(TABLE2, columns=Columns(metrics=["matthews", "spearman"]), paper=None)
    given = ("task=rte,cola,stsb",)
    found = read_across(item, Request("smoke", str(tmp_path), given), sweep(*given))
    assert found.columns == ["cola matthews", "rte accuracy", "stsb spearman"]


def test_mnli_says_what_its_mismatched_part_and_all_of_dev_score_and_on_which_copies_it_was_trained(
    tmp_path: Path,
) -> None:
    """The epoch is chosen on matched dev: the first, whose mismatched accuracy is not the best."""
    full = [job for job in jobs("task=mnli") if job.resolved.run.method.name == "full"]
    for job, sha in zip(full, ("a" * 64, "b" * 64), strict=True):
        rows = [
            {"epoch": epoch, "eval/accuracy": matched, "mismatched/accuracy": other, "overall/accuracy": both}
            for epoch, (matched, other, both) in enumerate([(0.8, 0.7, 0.75), (0.7, 0.9, 0.8)], 1)
        ]
        task = job.resolved.run.task
        data = {split: task.targets.describe([Example("0", "a text", 1, "0")]) for split in task.all_splits}
        last = {key: value for key, value in rows[-1].items() if key != "epoch"}
        given = {"cross_fitted": {"accuracy": 0.78}, "data": data | {"train": data["train"] | {"sha256": sha}}}
        write_run(tmp_path, job, [(0, 0)], metrics_by_epoch=rows, metrics=last, **given)
    text = markdown(table(tmp_path, "task=mnli"))
    assert "full (tiny_bert): mismatched 70.0\n" in text.replace(".\n", "\n")  # half of overall chose the epoch
    best = markdown(table(tmp_path, "task=mnli", protocol="best_epoch_on_dev"))
    assert "full (tiny_bert): mismatched 70.0, overall 75.0" in best
    assert "The runs on MNLI read different examples of train, so that their scores do not compare" in text
    assert "sha256 aaaaaaaaaa in 1, bbbbbbbbbb in 1" in text


def test_table_16_says_on_how_many_examples_which_column_is_scored(tmp_path: Path) -> None:
    """Its movies, all are the runs of Table 15, which are scored on all of dev and test."""
    found = read_across(cast(AcrossTable, load_item("table", "16")), Request("proxy", str(tmp_path)))
    (line,) = [line for line in printed(found, names()).above if line.startswith("- minilm on movies")]
    assert "eval_size 500 (column 100, 1000), all (column all)" in line
    assert "test_size 1000 (column 100, 1000), all (column all)" in line
    (line,) = [line for line in printed(found, names()).above if line.startswith("- minilm on MNLI (10k)")]
    assert "eval_size 500, epochs" in line and "test_size" not in line
