"""Tables of any sweep: which axes are found, which are refused, and that no cell hides what it is a mean of."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.handmade_runs import SMOKE, fill, jobs, write_run, write_status

from analysis import sweep_table
from analysis.cell import Table, records
from analysis.items import names
from analysis.protocol import Protocol
from analysis.render import plots, style
from analysis.render.printed import markdown, write
from analysis.render.tables import printed
from analysis.sweep_table import read_sweep
from lora_repro.errors import InputError
from lora_repro.sweep.grid import Sweep

BASE = ("model=tiny_bert", "task=generated")


def place(table: Table) -> list[tuple[str, Any]]:
    return [(cell.place.row, cell.place.column) for cell in table.cells]


def axes(*given: str, rows: Sequence[str] | None = None, columns: Sequence[str] | None = None) -> tuple[str, str]:
    """Returns the labels of the rows and the columns of a sweep that has no runs."""
    table = read_sweep([*BASE, *given], "nowhere", rows=rows, columns=columns)
    return table.rows, table.columns


def with_losses(*epochs: tuple[float, float]) -> dict[str, Any]:
    """Returns what a record holds of epochs whose loss on dev and test equals the accuracy there."""
    rows = [
        {"epoch": number, "eval/majority": 0.5, "test/majority": 0.5}
        | {f"eval/{name}": dev for name in ("loss", "accuracy")}
        | {f"test/{name}": test for name in ("loss", "accuracy")}
        for number, (dev, test) in enumerate(epochs, 1)
    ]
    return {"metrics_by_epoch": rows, "metrics": {key: value for key, value in rows[-1].items() if "/" in key}}


def test_a_sweep_is_a_table_of_what_varies(tmp_path: Path) -> None:
    fill(tmp_path)
    table = read_sweep(SMOKE, tmp_path)
    assert place(table) == [("q", 1), ("q", 2), ("q,v", 1), ("q,v", 2)]
    assert all(cell.summary.mean == pytest.approx(0.85) and cell.n == 2 for cell in table.cells)
    assert [run.score for run in table.cells[0].runs] == [0.8, pytest.approx(0.9)]
    text = markdown(printed(table, names()))
    assert text.startswith("## Sweep table6\n") and "Rows: method.targets; columns: method.r (found from what" in text
    assert "| q       | generated (tiny_bert) | 85.0 [21.5, 148.5] n=2 |" in text
    assert "not judged" not in text and "Paper" not in text


def test_the_key_with_most_values_makes_the_columns_and_all_others_the_rows() -> None:
    assert axes("method.r=1,2,4", "method.targets=[q],[v]") == ("targets", "r")
    assert axes("method.r=1,2", "method.targets=[q],[v],[q,v]") == ("r", "targets")
    assert axes("method.targets=[q],[v]", "method.r=1,2") == axes("method.r=1,2", "method.targets=[q],[v]")
    assert axes("method.r=1,2,4", "method.targets=[q],[v]", "method.alpha=8,16") == ("targets / alpha", "r")
    assert axes("method.r=1,2", "seed=0,1,2,3") == ("", "r")
    assert axes("seed=0,1") == ("", "")


def test_an_axis_that_is_given_leaves_the_rest_to_the_other() -> None:
    given = ("method.r=1,2,4", "method.targets=[q],[v]", "method.alpha=8,16")
    assert axes(*given, columns=["method.alpha"]) == ("r / targets", "alpha")
    assert axes(*given, rows=["method.r", "method.alpha"]) == ("r / alpha", "targets")
    assert axes(*given, rows=["method.alpha"], columns=["method.targets", "method.r"]) == ("alpha", "targets / r")


def test_a_key_that_follows_from_another_is_no_axis() -> None:
    """With the budget fixed r follows from the targets, and other keys follow from the method."""
    assert axes("method.budget=1024", "method.targets=[q],[q,v]") == ("", "targets")
    assert axes("method=lora,full,head_only") == ("", "method")
    table = read_sweep([*BASE, "method=full,lora", "seed=0"], "nowhere", columns=["trained_by_method"])
    assert table.rows == "" and table.column_values == sorted(table.column_values, key=float)


def test_models_and_tasks_have_lines_of_their_own_unless_they_are_an_axis() -> None:
    given = ["model=tiny_bert,minilm", "task=generated", "method.r=1,2"]
    lines = read_sweep(given, "nowhere")
    assert {cell.place.model for cell in lines.cells} == {"tiny_bert", "minilm"} and len(lines.cells) == 4
    columns = read_sweep(given, "nowhere", columns=["model"])
    assert place(columns) == [("1", "tiny_bert"), ("1", "minilm"), ("2", "tiny_bert"), ("2", "minilm")]
    assert "| r | task (model) | model = tiny_bert " in markdown(printed(columns, names()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": ["method.rank"]}, r"(?s)--rows: no run of the sweep has a key 'method\.rank'\. Did you mean 'method"),
        ({"columns": ["train.epochs"]}, r"(?s)--columns: train\.epochs is 2 in all runs.*vary: method\.targets, meth"),
        ({"rows": ["method.r"], "columns": ["method.r"]}, "given twice"),
        ({"metrics": ["f1"]}, r"(?s)generated has no metric 'f1'.*accuracy, loss"),
        ({"rows": ["method.r"], "columns": ["seed"]}, r"(?s)method\.targets: a cell is a mean over seeds only.*\[q\]"),
    ],
)
def test_what_a_sweep_cannot_show_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_sweep(SMOKE, "nowhere", **options)


def test_runs_of_two_configurations_are_never_one_mean() -> None:
    """As in wandb/wandb#2566, where a grouped chart averaged runs of different configurations."""
    both = [*SMOKE, "train.learning_rate=1e-3,1e-2"]
    with pytest.raises(InputError, match=r"train\.learning_rate: .*\(given: 0\.001, 0\.01\)"):
        read_sweep(both, "nowhere", rows=["method.targets"], columns=["method.r"])
    assert len(read_sweep(both, "nowhere").cells) == 8


def test_values_that_print_alike_are_cells_of_their_own() -> None:
    """As in wandb/wandb#9777, where a learning rate of 0.003 was shown rounded and its group was empty."""
    table = read_sweep([*BASE, "train.learning_rate=0.003,0.0030000001"], "nowhere")
    assert table.column_values == [0.003, 0.0030000001]
    header = next(line for line in markdown(printed(table, names())).splitlines() if "learning_rate = " in line)
    assert "learning_rate = 0.003 " in header and "learning_rate = 0.0030000001 " in header


def test_a_part_of_the_seeds_is_no_mean_and_the_command_supplies_the_rest(tmp_path: Path) -> None:
    """As in embeddings-benchmark/mteb#1809, where a mean stood beside a result that was missing."""
    sweep = [*BASE, "method.r=1,2", "seed=0,1,2"]
    for job in jobs(*sweep):
        if job.resolved.run.seed < 2 or job.point["method.r"] == 1:
            write_run(tmp_path, job, [(0.8, 0.7)])
    table = read_sweep(sweep, tmp_path)
    whole, part = table.cells
    assert (whole.summary.mean, whole.n) == (pytest.approx(0.8), 3)
    assert (part.summary.mean, part.n, len(part.runs)) == (None, 2, 3)
    text = markdown(printed(table, names()))
    assert "— (2/3 seeds)" in text and f"method.r=2 paths.outputs={tmp_path}" in text
    (line,) = [
        entry
        for entry in csv.DictReader(write(printed(table, names()), "csv").splitlines())
        if entry["method.r"] == "2"
    ]
    assert (line["mean"], line["scores"], line["n"], line["n_expected"]) == ("", "0.8 0.8 ", "2", "3")


def test_a_score_that_is_no_number_is_missing_and_not_dropped(tmp_path: Path) -> None:
    """As in embeddings-benchmark/mteb#3965, where means skipped nan."""
    sweep = [*BASE, "seed=0,1,2"]
    for job in jobs(*sweep):
        write_run(tmp_path, job, [(float("nan") if job.resolved.run.seed == 1 else 0.8, 0.7)])
    (cell,) = read_sweep(sweep, tmp_path).cells
    assert cell.summary.mean is None and [run.seed for run in cell.missing] == [1]
    assert cell.missing[0].state == "not counted"


def test_held_out_scores_are_of_the_epoch_best_on_dev_in_the_direction_of_the_metric(tmp_path: Path) -> None:
    """As in martinmamql/multimodal_routing#2, where the test split chose the epoch."""
    (job,) = jobs(*BASE, "seed=0")
    write_run(tmp_path, job, [(0.5, 0.5)], **with_losses((0.3, 0.9), (0.2, 0.5), (0.4, 0.1)))
    table = read_sweep([*BASE, "seed=0"], tmp_path, Protocol.held_out, metrics=["accuracy", "loss"])
    found = {cell.metric.name: (cell.runs[0].score, cell.runs[0].epoch) for cell in table.cells}
    assert found == {"accuracy": (0.1, 3), "loss": (0.5, 2)}
    text = markdown(printed(table, names()))
    assert "loss: lower is better." in text and "| generated (tiny_bert), loss " in text


def test_an_interval_is_that_of_the_mean_and_not_a_standard_deviation(tmp_path: Path) -> None:
    """As in UBC-DSCI/introduction-to-datascience-python#115, where std stood for the standard error."""
    sweep = [*BASE, "seed=0,1,2,3"]
    for job, score in zip(jobs(*sweep), [0.6, 0.7, 0.8, 0.9], strict=True):
        write_run(tmp_path, job, [(score, 0.5)])
    (cell,) = read_sweep(sweep, tmp_path).cells
    half = 3.1824463 * 0.1290994 / 2  # t(0.975, 3) times the standard deviation over the root of 4
    assert cell.summary[:3] == pytest.approx((0.75, 0.75 - half, 0.75 + half))


def test_flags_count_a_run_once_however_many_metrics_are_shown(tmp_path: Path) -> None:
    (job,) = jobs(*BASE, "seed=0")
    write_run(tmp_path, job, [(0.5, 0.5)], flags={"one_class": True}, **with_losses((0.5, 0.5)))
    table = read_sweep([*BASE, "seed=0"], tmp_path, metrics=["accuracy", "loss"])
    assert "Flag one_class in 1 of 1 runs" in markdown(printed(table, names()))
    assert "Missing: 2 of 2 runs." in markdown(
        printed(read_sweep([*BASE, "seed=0,1"], "no", metrics=["loss"]), names())
    )


def test_a_missing_run_is_named_once_however_many_metrics_are_shown(tmp_path: Path) -> None:
    sweep = [*BASE, "method.r=1,2", "seed=0"]
    done, failed = jobs(*sweep)
    write_run(tmp_path, done, [(0.5, 0.5)], **with_losses((0.5, 0.5)))
    write_status(tmp_path, failed, "failed", "no memory")
    text = markdown(printed(read_sweep(sweep, tmp_path, metrics=["accuracy", "loss"]), names()))
    assert "- 1 run failed (r = 2, seed 0): no memory\n" in text


def test_json_begins_with_the_axes_and_ends_with_the_score_of_each_seed(tmp_path: Path) -> None:
    fill(tmp_path)
    first, *_ = records(read_sweep(SMOKE, tmp_path))
    assert list(first)[:2] == ["method.targets", "method.r"] and first["scores"] == (0.8, pytest.approx(0.9))


def drawn(table: Table) -> Any:
    with style.styled():
        return plots.draw(table, names())


def test_a_plot_draws_means_and_intervals_on_a_log_axis_where_columns_span_a_decade(tmp_path: Path) -> None:
    sweep = [*BASE, "method.r=1,4,16", "method.targets=[q],[v]", "seed=0,1"]
    for job in jobs(*sweep):
        write_run(tmp_path, job, [(0.7 + 0.01 * job.resolved.run.seed, 0.5)])
    table = read_sweep(sweep, tmp_path)
    (panel,) = drawn(table).axes
    assert panel.get_xscale() == "log" and panel.get_ylabel() == "accuracy, %"
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["targets q", "targets v"]
    line = panel.containers[0].lines[0]
    assert list(line.get_xdata()) == [1, 4, 16] and list(line.get_ydata()) == pytest.approx([70.5] * 3)
    low, high = panel.containers[0].lines[1]
    half = 100 * 12.7062047 * 0.005
    assert high.get_ydata()[0] - low.get_ydata()[0] == pytest.approx(2 * half)
    assert plots.caption(table, names()) == [
        "Accuracy in percent against r, one colour per value of targets: generated (tiny_bert).",
        "Points are means over n = 2 seeds on dev after the last epoch; bars are two-sided 95 % t intervals; the "
        "dotted line is majority.",
    ]


def test_a_plot_leaves_out_cells_with_missing_runs_and_says_so(tmp_path: Path) -> None:
    sweep = [*BASE, "method.targets=[q],[v],[q,v]", "seed=0,1"]
    for job in jobs(*sweep):
        if job.point["method.targets"] != ["q", "v"]:
            write_run(tmp_path, job, [(0.5, 0.5)])
        elif job.resolved.run.seed == 0:
            write_status(tmp_path, job, "failed", "RuntimeError: no")
    table = read_sweep(sweep, tmp_path)
    (panel,) = drawn(table).axes
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["q", "v"]
    assert panel.containers[0].lines[0].get_linestyle() == "None"
    assert "1 of 3 cells are not drawn because runs are missing" in plots.caption(table, names())[1]
    with pytest.raises(InputError, match=r"(?s)no cell has all its runs.*python -m lora_repro -m"):
        drawn(read_sweep(sweep, tmp_path / "empty"))


def test_an_interval_beyond_all_shares_is_cut_and_the_caption_says_so(tmp_path: Path) -> None:
    fill(tmp_path)
    table = read_sweep(SMOKE, tmp_path)
    assert drawn(table).axes[0].get_ylim()[1] <= 100 and "cut at 0 and 100 %" in plots.caption(table, names())[1]


def test_a_note_on_empty_cells_stands_only_below_a_table_that_has_some() -> None:
    tasks = ["model=minilm", "task=movies", "task.target=label,rating", "method.r=1,2"]
    assert "Empty cell" not in markdown(printed(read_sweep(tasks, "nowhere"), names()))
    assert "Empty cell" in markdown(printed(read_sweep(["+sweeps=section7", "scale=smoke"], "nowhere"), names()))


def test_a_sweep_that_is_planned_is_refused_with_a_remedy() -> None:
    with pytest.raises(InputError, match=r"(?s)all 4 runs of the sweep are planned.*Give another scale"):
        read_sweep(["+sweeps=margin", "scale=paper"], "nowhere")


def test_planned_runs_are_left_out_and_counted_with_all_their_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    point = {"seed": 0}
    sweep = Sweep(jobs(*SMOKE), [(point, "reason one"), (point, "reason two"), (point, "reason one")])
    monkeypatch.setattr(sweep_table, "load", lambda *_: sweep)
    table = read_sweep(SMOKE, "nowhere")
    assert len(table.cells) == 4 and "3 planned runs are left out: reason one; reason two." in table.notes


def test_records_are_json(tmp_path: Path) -> None:
    fill(tmp_path)
    assert json.dumps(records(read_sweep(SMOKE, tmp_path)), allow_nan=True)
