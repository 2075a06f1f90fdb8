"""Figure 2: the paper's points are those it plots, ours are means with their intervals, and no point is lost."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from helpers import planned
from helpers.commands import figure, smoke
from helpers.fixture_types import Captured
from helpers.handmade_runs import jobs, write_run, write_status
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.items import Request, facts_of, load_item, names
from analysis.kinds import scatter
from analysis.kinds.scatter import Scatter, paper_points
from analysis.render import style
from analysis.render.scatter import Point, draw_panel, draw_points
from analysis.stats import summarise
from lora_repro.methods import LoRAConfig
from lora_repro.sweep.grid import Job, Sweep
from lora_repro.tasks import Metric, Unit

FIGURE2 = cast(Scatter, load_item("figure", "2"))
ACCURACY = Metric("accuracy", Unit.percent)
TRAINED = {"full": 23_360, "ft_top2": 9000, "bitfit": 300, "head_only": 0, 1: 128, 4: 512, 16: 2048}


def runs() -> list[Job]:
    return jobs("+sweeps=table15", "scale=smoke")


def setting(job: Job) -> Any:
    """The method's name, or r of LoRA."""
    method = job.resolved.run.method
    return method.r if isinstance(method, LoRAConfig) and method.name == "lora" else method.name


def write(store: Path, job: Job, trained: int | None = None) -> None:
    """Finishes a run: 0.5 with seed 0 and 0.6 with seed 1; the number of weights is what the record says."""
    score = 0.5 + 0.1 * job.resolved.run.seed
    known = TRAINED.get(setting(job), 4096) if trained is None else trained
    params = {"trainable": known + 20, "method": known, "head": 20, "total": 100, "by_module": {}}
    write_run(store, job, [(score, score + 0.2)], params=params)


@pytest.fixture
def full_store(tmp_path: Path) -> Path:
    for job in runs():
        write(tmp_path, job)
    return tmp_path


def test_the_papers_points_are_those_it_plots() -> None:
    """Table 15's rows, but for what the facts of the figure say of them."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for point in paper_points(FIGURE2):
        found.setdefault((point.task, point.method), {})[point.trained] = round(100 * point.mean, 4)
    budgets = [4_700_000, 9_400_000, 18_800_000, 37_700_000, 301_900_000, 603_800_000]
    assert found["wikisql", "lora"] == dict(zip(budgets, [73.4, 74.1, 73.7, 74.0, 73.6, 73.9], strict=True))
    assert found["mnli", "lora"] == dict(zip(budgets[:5], [91.7, 91.4, 91.7, 91.7, 91.4], strict=True))
    assert found["wikisql", "prefix_layer"][2_500_000] == 67.1 and 10_100_000 not in found["mnli", "prefix_layer"]
    assert 400_000 not in found["wikisql", "prefix_embed"] and found["mnli", "prefix_embed"][400_000] == 84.9
    assert found["wikisql", "full"] == {175_000_000_000: 73.8} and len(found["wikisql", "adapter_h"]) == 5
    assert {method for _, method in found} == {"full", "prefix_embed", "prefix_layer", "adapter_h", "lora"}


def test_points_that_the_figure_lacks_are_in_the_table_and_the_others_are_not() -> None:
    rows = {(row["method"], row["trainable_params"]) for row in facts_of("table15")["rows"]}
    for point in FIGURE2.facts["points"]:
        assert ((point["method"], point["trained"]) in rows) is not point["plotted"]
        assert ("percent" in point) is point["plotted"]


def test_ours_are_means_over_seeds_with_t_intervals_at_the_counts_that_runs_recorded(
    full_store: Path, capsys: Captured
) -> None:
    drawn = smoke(capsys, full_store, "2", "--format", "json")
    ours = [entry for entry in drawn.data if entry["source"] == "ours"]
    assert drawn.code == 0 and len(ours) == 15 and "Not drawn" not in drawn.err
    for entry in ours:
        name = entry["settings"]["method.r"] if entry["method"] == "lora" else entry["method"]
        assert (entry["trained"], entry["scores"], entry["seeds"]) == (TRAINED.get(name, 4096), [0.5, 0.6], [0, 1])
        summary = summarise([0.5, 0.6])
        assert [entry["mean"], entry["low"], entry["high"]] == [summary.mean, summary.low, summary.high]
    drawn = smoke(capsys, full_store, "2", "--format", "json", "--protocol", "held_out")
    assert {entry["mean"] for entry in drawn.data if entry["source"] == "ours"} == {0.75}


def test_missing_cells_are_named_with_their_command_and_not_drawn(tmp_path: Path, capsys: Captured) -> None:
    gone = [job for job in runs() if setting(job) in ("full", 4) and job.resolved.run.seed == 1]
    for job in runs():
        if job not in gone:
            write(tmp_path, job)
    write_status(tmp_path, gone[0], "failed", "no memory")
    drawn = smoke(capsys, tmp_path, "2", "--format", "json")
    none = [entry for entry in drawn.data if entry["source"] == "ours" and entry["mean"] is None]
    assert [(entry["method"], entry["scores"]) for entry in none] == [("full", [0.5, None]), ("lora", [0.5, None])]
    assert "Not drawn, 2 of 15 cells: full (1/2 seeds, 1 failed); lora r = 4 targets = q,v (1/2 seeds)." in drawn.err
    assert f"python -m lora_repro -m +sweeps=table15 scale=smoke paths.outputs={tmp_path}" in drawn.err


def test_runs_that_record_other_counts_are_refused(tmp_path: Path, capsys: Captured) -> None:
    for job in runs():
        write(tmp_path, job, trained=100 + job.resolved.run.seed)
    drawn = smoke(capsys, tmp_path, "2", "--format", "json")
    assert drawn.code == 1 and "differ in their seed alone record 100 and 101 trained weights" in drawn.err


def test_planned_runs_leave_the_papers_points_alone(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned.plan(monkeypatch, "analysis.kinds.scatter")
    drawn = figure(capsys, tmp_path, "2", "--scale", "paper", "--format", "json")
    assert drawn.code == 0 and {entry["source"] for entry in drawn.data} == {"paper"}
    assert "Ours are planned and cannot run yet" in drawn.err


def test_planned_runs_beside_others_are_counted_with_all_their_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = {"seed": 0, "method": "lora"}
    sweep = Sweep(runs(), [(point, "no weights"), (point, "no data"), (point, "no data")])
    monkeypatch.setattr(scatter, "load", lambda *_: sweep)
    caption = FIGURE2.picture(Request("smoke", str(tmp_path))).caption
    assert "3 more of our runs are planned and cannot run yet: no weights; no data." in caption


def test_it_takes_no_side(tmp_path: Path, capsys: Captured) -> None:
    drawn = smoke(capsys, tmp_path, "2", "--side", "B")
    assert drawn.code == 1 and "--side B: figure2 takes no --side" in drawn.err


POINTS = [
    Point("t", "m", "lora", 100, 0.5, 0.3, 0.6, True),
    Point("t", "m", "lora", 10_000, 0.7, 0.6, 0.85, True),
    Point("t", "m", "head_only", 0, 0.4, None, None, True),
    Point("t", "m", "full", 1_000_000, 0.8, 0.75, 0.85, True),
]


def panel(points: list[Point], metric: Metric = ACCURACY) -> Any:
    ax = Figure().add_subplot()
    return draw_panel(ax, points, metric, style.method_styles([point.method for point in points]))


def test_a_method_that_trains_no_weight_is_drawn_left_of_all_others_and_called_0() -> None:
    """Matplotlib's log axis drops what lies at 0 without a word (matplotlib issues 2872 and 18630)."""
    ax = panel(POINTS)
    marked = {line.get_label(): np.asarray(line.get_xdata()) for line in ax.lines if line.get_marker() != "None"}
    (zero,) = marked["head_only"]
    left, right = ax.get_xlim()
    assert 0 < left < zero < min(marked["lora"]) and max(marked["full"]) < right
    assert ax.get_xticks()[0] == zero and ax.get_xticklabels()[0].get_text() == "0"
    assert sum(map(len, marked.values())) == len(POINTS)
    assert "0" not in [label.get_text() for label in panel([p for p in POINTS if p.trained]).get_xticklabels()]


def test_bars_reach_from_the_lower_to_the_upper_end_of_each_interval() -> None:
    """Bars of other plots are deviations, or distances from the mean (seaborn issues 331 and 926)."""
    bars = sorted(
        (float(line.get_xdata()[0]), *map(float, line.get_ydata()))
        for line in panel(POINTS).lines
        if line.get_marker() == "None" and line.get_linestyle() == "-"
    )
    np.testing.assert_allclose(bars, [(100, 30, 60), (10_000, 60, 85), (1_000_000, 75, 85)])


def test_an_error_is_drawn_as_it_is_and_lower_is_better(tmp_path: Path) -> None:
    mse = Metric("mse", higher_is_better=False)
    points = [
        Point("t", "m", "lora", 100, 1.25, 1.1, 1.4, True),
        Point("t", "m", "full", 1000, 150.0, None, None, True),
    ]
    ax = panel(points, mse)
    bottom, top = ax.get_ylim()
    drawn = [float(line.get_ydata()[0]) for line in ax.lines if line.get_marker() != "None"]
    assert drawn == [1.25, 150.0] and bottom < 1.1 and top > 150
    assert draw_points(points, {"t": mse}, names(), ["title", "caption"]).axes[1].get_ylabel() == "mse"
    ratings = Request("smoke", str(tmp_path), ("model=minilm", "task=movies", "task.target=rating"))
    item = replace(FIGURE2, metrics=["mse"], paper=None)
    assert "where it stands below those to its left" in item.picture(ratings).caption[2]


def test_an_interval_beyond_all_shares_is_cut_and_the_caption_says_so(full_store: Path) -> None:
    assert "t intervals, cut at 0 and 100 %." in FIGURE2.picture(Request("smoke", str(full_store))).caption[1]
    even = full_store / "even"
    for job in runs():
        params = {"trainable": 30, "method": TRAINED.get(setting(job), 4096), "head": 20, "total": 100, "by_module": {}}
        write_run(even, job, [(0.5, 0.5)], params=params)
    assert "cut at" not in FIGURE2.picture(Request("smoke", str(even))).caption[1]


def test_each_method_has_its_own_marker_and_the_legend_shows_it() -> None:
    """A legend that takes markers by position gives them to other methods (xarray issue 4126, seaborn issue 472)."""
    points = [
        *reversed(POINTS),
        Point("p", "m", "lora", 5, 0.5),
        *(Point("p", "m", f"new_{i}", 9, 0.5) for i in (1, 2)),
    ]
    drawn = draw_points(points, {"t": ACCURACY, "p": ACCURACY}, names(), ["title", "caption"])
    legend = drawn.axes[0].get_legend()
    assert legend is not None
    shown = {
        text.get_text(): (handle.get_marker(), handle.get_color())
        for text, handle in zip(legend.get_texts(), cast(list[Line2D], legend.legend_handles), strict=True)
    }
    assert set(shown) == {"lora", "full", "head_only", "new_1", "new_2"} and len(set(shown.values())) == 5
    for ax in drawn.axes[1:]:
        for line in ax.lines:
            if line.get_marker() != "None" and not str(line.get_label()).startswith("_"):
                assert shown[str(line.get_label())] == (line.get_marker(), line.get_color())
    assert shown["lora"] == style.METHODS["lora"]


def test_the_figure_is_as_wide_as_a_page_and_its_caption_fits(
    full_store: Path, tmp_path: Path, capsys: Captured
) -> None:
    files = [full_store / f"f.{form}" for form in ("svg", "png")]
    assert smoke(capsys, full_store, "2", *(word for file in files for word in ("--out", str(file)))).code == 0
    assert all(file.stat().st_size > 10_000 for file in files)
    picture = FIGURE2.picture(Request("smoke", str(full_store)))
    with style.styled():
        drawn = picture.draw()
        drawn.canvas.draw()
    assert drawn.get_figwidth() < 7.2
    for text in (drawn._supxlabel, drawn._suptitle):  # pyright: ignore[reportAttributeAccessIssue]
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= drawn.bbox.x1 and box.y0 >= -1
    assert picture.caption[1].startswith("Each point is one setting of a method")
    assert picture.caption[2].startswith("Read from left to right")


def test_a_figure_of_tuned_runs_says_how_they_were_tuned(tmp_path: Path) -> None:
    picture = replace(FIGURE2, sweep="leaderboard").picture(Request("smoke", str(tmp_path), (), "json"))
    (lora, *_) = [entry for entry in picture.data if entry["method"] == "lora" and entry["source"] == "ours"]
    assert lora["states"] == ["tuning", "tuning"] and lora["tuning"]["grid"] == (1e-3, 3e-3)
    expected = "train.learning_rate: chosen on dev by 12 tuning runs with other seeds."
    assert expected in " ".join(picture.caption)
