import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import processes
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from lora_repro.cli import normalise
from lora_repro.config.catalogue import common_grid, group_names
from lora_repro.config.compose import compose
from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.errors import InputError
from lora_repro.methods.peft.config import PeftConfig
from lora_repro.sweep.grid import Point, expand, load, overrides

SMOKE = ["model=tiny_bert", "task=generated"]


def with_sweep(grids: Any, scale: str = "smoke") -> Callable[[list[str]], DictConfig]:
    """Composes as usual, with a sweep of the test's own in the place of sweeps/table6.yaml."""

    def composed(arguments: list[str]) -> DictConfig:
        cfg = compose([*(a for a in arguments if not a.startswith("+sweeps")), f"scale={scale}"])
        cfg.sweep = {"name": "table6", scale: grids} if not isinstance(grids, dict) else grids
        return cfg

    return composed


def loaded(grids: Any, *arguments: str) -> list[Point]:
    return [job.point for job in load(with_sweep(grids), ["+sweeps=table6", "scale=smoke", *arguments]).jobs]


def test_an_axis_may_be_a_key_below_one_that_the_grid_sets() -> None:
    grid = {"seed": [0], "model": "tiny_bert", "task": "generated", "method": "peft", "train.learning_rate": 1e-3}
    points = loaded([grid | {"method.config": {"r": 4}}], "method.config.r=2,8")
    assert [point["method.config.r"] for point in points] == [2, 8]


def test_expand_multiplies_axes_and_orders_by_seed() -> None:
    points = expand(
        [{"seed": [0, 1], "method.targets": [["q"], ["q", "v"]], "method.r": [1, 2]}, {"seed": 0, "x": "y"}]
    )
    assert len(points) == 9
    assert [point["seed"] for point in points] == [0] * 5 + [1] * 4
    assert points[1] == {"seed": 0, "method.targets": ["q"], "method.r": 2}
    assert points[4] == {"seed": 0, "x": "y"}


def test_a_point_is_written_in_hydras_grammar() -> None:
    point = {"method.targets": ["q", "v"], "a": None, "b": True, "c": 1e-05, "d": "it's, so", "e": "plain-1.0/x"}
    read = {o.key_or_group: o.value() for o in OverridesParser.create().parse_overrides(overrides(point))}
    assert read["method.targets"] == ["q", "v"] and read["a"] is None and read["b"] is True
    assert read["c"] == 1e-05 and str(read["e"]) == "plain-1.0/x" and read["d"] == "it's, so"


LARGE = {("leaderboard", "proxy"), ("table15", "proxy"), ("table16", "proxy"), ("table2", "proxy"), ("table2", "paper")}
"""Sweeps that take seconds to load; the quick tests load them at the other scales."""


@pytest.mark.parametrize(
    ("sweep", "scale"),
    [
        pytest.param(sweep, scale, marks=pytest.mark.long if (sweep, scale) in LARGE else [])
        for sweep in group_names("sweeps")
        for scale in group_names("scale")
    ],
)
def test_every_sweep_loads_at_every_scale(sweep: str, scale: str) -> None:
    found = load(compose, [f"+sweeps={sweep}", f"scale={scale}"])
    assert found.to_compute or found.planned
    assert len({job.run_id for job in found.jobs}) == len(found.jobs)


@pytest.mark.parametrize(
    ("scale", "expected"),  # init_r, target_r, and per unit of init_r 12 or 24 matrices of 2 d + 1 weights
    [
        ("proxy", {(7, 5, 12 * 7 * 769), (24, 16, 12 * 24 * 769)}),
        ("paper", {(8, 5, 24 * 8 * 1537), (24, 16, 24 * 24 * 1537)}),
    ],
)
def test_the_leaderboard_has_adalora_at_both_budgets(scale: str, expected: set[tuple[int, int, int]]) -> None:
    grids = [g for g in compose(["+sweeps=leaderboard"]).sweep[scale] if g.get("method.peft_type") == "ADALORA"]
    runs = [job.resolved.run for job in load(with_sweep(grids), ["+sweeps=table6", "scale=smoke"]).to_compute]
    given = [(run.method.keys, run.trained_by_method) for run in runs if isinstance(run.method, PeftConfig)]
    assert {(keys["init_r"], keys["target_r"], count) for keys, count in given} == expected


def test_table6_has_the_runs_that_the_issue_asks_for() -> None:
    sizes = {scale: len(load(compose, ["+sweeps=table6", f"scale={scale}"]).jobs) for scale in group_names("scale")}
    assert sizes == {"demo": 6, "paper": 64, "proxy": 160, "smoke": 8}


def test_the_quick_composition_equals_hydras() -> None:
    for scale in ("smoke", "demo", "proxy"):
        for job in load(compose, ["+sweeps=table6", f"scale={scale}", "train.epochs=1"]).jobs[::7]:
            slow = resolve(compose(job.overrides))
            assert slow.run == job.resolved.run and run_id(slow.run) == job.run_id
            assert replace(slow.settings, sweep=None) == job.resolved.settings


@pytest.mark.parametrize(
    "axes",
    [
        ["method.r_pattern={v:2},{q:1},null", "seed=0"],
        ["method.alpha=${method.r},${seed}", "method.r=1,2", "seed=3"],
        ["task=movies", "task.split_sizes={train:4000},{test:3957}", "train.max_steps=null,5"],
        ["method=lora,full", "train.init_from=null,tiny_bert-generated-lora-r2-qv-s0-0123456789"],
        ["method.budget=1K,3000", "method.targets=[v,q],[q]", "log.snapshots=[0,1]"],
    ],
)
def test_a_job_is_the_run_that_its_overrides_compose(axes: list[str]) -> None:
    """A dictionary too: it is merged into the one of the files, as Hydra merges it for a single run."""
    jobs = load(compose, [*SMOKE, *axes]).jobs
    assert len(jobs) >= 2
    for job in jobs:
        alone = resolve(compose(job.overrides))
        assert repr(alone.run) == repr(job.resolved.run) and run_id(alone.run) == job.run_id
        assert repr(alone.settings) == repr(job.resolved.settings)


def test_an_axis_of_the_command_line_replaces_the_grids() -> None:
    grid = {"seed": [0, 1], "model": "tiny_bert", "task": "generated", "method": "lora", "method.r": [1, 2]}
    points = loaded([grid], "seed=5,6,7", "method.r=4")
    assert [(p["seed"], p["method.r"]) for p in points] == [(5, 4), (6, 4), (7, 4)]


MADE_UP = {"seed": 0, "model": "tiny_bert", "task": "generated"}
SEVERAL = [
    MADE_UP | {"method": "lora", "task.train_size": 64},
    MADE_UP | {"method": "lora", "task.form": "text", "model": "tiny_llama"},
    MADE_UP | {"method": ["full", "bitfit"]},
    MADE_UP | {"method": "adapter_h", "method.bottleneck": 2},
]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["method=lora"], [("tiny_bert", "lora", 64), ("tiny_llama", "lora", None)]),
        (["method=adapter_h,bitfit"], [("tiny_bert", "bitfit", None), ("tiny_bert", "adapter_h", None)]),
        (["model=tiny_llama"], [("tiny_llama", "lora", None)]),
        (["method=bitfit", "model=tiny_bert", "task=generated"], [("tiny_bert", "bitfit", None)]),
    ],
)
def test_a_choice_that_grids_have_keeps_these_grids(given: list[str], kept: list[tuple[str, str, int | None]]) -> None:
    points = loaded(SEVERAL, *given)
    assert [(point["model"], point["method"], point.get("task.train_size")) for point in points] == kept


def test_a_choice_that_no_grid_has_takes_the_place_of_the_first() -> None:
    points = loaded(SEVERAL, "method=adapter_p")  # LoRA's grids are two
    assert [(point["method"], point["model"], point.get("task.train_size")) for point in points] == [
        ("adapter_p", "tiny_bert", 64),
        ("adapter_p", "tiny_llama", None),
    ]
    two = [MADE_UP | {"method": "full"}, MADE_UP | {"method": "full", "model": "tiny_llama", "task.form": "text"}]
    assert [point["task.form"] for point in loaded(two[::-1], "model=tiny_llama")] == ["text"]
    assert [point.get("task.form") for point in loaded(two, "model=minilm", "train.learning_rate=1e-3")] == [None]


def test_where_all_grids_have_one_task_others_are_given_in_its_place() -> None:
    points = loaded(SEVERAL[:1], "task=generated,generated_three")
    assert [(point["task"], point["task.train_size"]) for point in points] == [
        ("generated", 64),
        ("generated_three", 64),
    ]


def test_a_grid_without_the_key_has_what_every_run_has() -> None:
    grids = [{"seed": 0, "model": "tiny_bert", "task": "generated", "method.r": 2}, MADE_UP | {"method": "full"}]
    assert [point["method"] for point in loaded(grids, "method=full")] == ["full"]
    assert [point["method.r"] for point in loaded(grids, "method=lora")] == [2]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["method=lora,head_only"], "method: no grid of this sweep has head_only, while some have the others"),
        (["method=lora,adpter_h"], "method: there is no 'adpter_h'. Did you mean 'adapter_h'"),
        (["model=tiny_llama", "method=full"], "model=tiny_llama: no grid of this sweep has it with method=full"),
        (
            ["model=tiny_llama,tiny_bert", "method=bitfit"],
            "model=tiny_llama: no grid of this sweep has it with method=",
        ),
    ],
)
def test_choices_that_would_be_dropped_are_refused(given: list[str], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as refused:
        loaded(SEVERAL, *given)
    assert "In sweeps/table6.yaml, scale=smoke." in str(refused.value)


def test_a_choice_that_leaves_out_the_starts_is_refused() -> None:
    given = ["+sweeps=table2", "scale=paper", "model=roberta_base", "method=lora"]
    with pytest.raises(
        InputError, match=r"start from runs of task=mnli, which it leaves out.\nGive both: task=rte,mnli"
    ):
        load(compose, [*given, "task=rte"])
    assert len(load(compose, [*given, "task=rte,mnli"]).jobs) == 10


def test_one_task_of_table_2_can_be_run() -> None:
    jobs = load(compose, ["+sweeps=table2", "scale=proxy", "task=rte", "tune=null"]).jobs
    assert {job.resolved.run.task.name for job in jobs} == {"rte"}
    assert all(job.resolved.run.task.train_size in (None, 1000) for job in jobs)


def test_common_keys_stand_where_a_grid_names_them_and_its_own_win() -> None:
    demo = {"model": "minilm", "task": "movies", "task.eval_size": 500, "task.test_size": 1000, "train.epochs": 2}
    assert loaded([{"common": "demo", "seed": [3], "task.train_size": 99}]) == [
        {"seed": 3, **demo, "task.train_size": 99}
    ]


@pytest.mark.parametrize("sweep", group_names("sweeps"))
def test_every_demo_takes_the_common_sizes(sweep: str) -> None:
    """A comparison across tables needs the same examples and epochs."""
    points = [job.point for job in load(compose, [f"+sweeps={sweep}", "scale=demo"]).jobs]
    common = {key: value for key, value in common_grid("demo").items() if key != "seed"}
    assert points and all(common.items() <= point.items() for point in points)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("method.r=1,2", "method.r=4,8"),
        ("seed=0,1", "++seed=2"),
        ("regime=tuned", "regime=one_rate"),
        ("tune=null", "tune=null"),
        ("start=null", "start=null"),
    ],
)
def test_values_that_would_be_lost_are_refused(first: str, second: str) -> None:
    message = f"is given twice ({first} and {second}), and the last one would count alone"
    with pytest.raises(InputError, match=re.escape(message)):
        load(compose, ["+sweeps=table6", "scale=smoke", first, "log.level=info", "log.level=debug", second])


def test_an_axis_leaves_a_grid_alone_that_cannot_take_it() -> None:
    lora = {"seed": [0], "model": "tiny_bert", "task": "generated", "method": "lora", "method.r": [1, 2]}
    full = {"seed": [0], "model": "tiny_bert", "task": "generated", "method": "full"}
    points = loaded([lora, full], "method.r=4,8", "train.learning_rate=0.1,0.2")
    assert len(points) == 4 + 2
    assert [p.get("method.r") for p in points if p["method"] == "full"] == [None, None]


@pytest.mark.parametrize("methods", [["full", "lora"], ["lora", "full"]])
def test_of_the_methods_of_a_grid_those_take_an_axis_that_can(methods: list[str]) -> None:
    base = {"seed": [0], "model": "tiny_bert", "task": "generated"}
    points = loaded([base | {"method": methods}, base | {"seed": [1], "method": "lora"}], "method.r=1,2")
    found = {(point["seed"], point["method"], point.get("method.r")) for point in points}
    assert found == {(0, "full", None), (0, "lora", 1), (0, "lora", 2), (1, "lora", 1), (1, "lora", 2)}
    assert len(points) == 5


@pytest.mark.parametrize(
    "words",
    [
        ["preset=paper", "model=roberta_large", "method=lora", "task=rte", "train.epochs=1"],
        ["method.bottleneck=2,4", "method=adapter_h", *SMOKE],
        ["task.text=review", "task.label=stars", "task=table", "model=tiny_bert", "paths.data=reviews.csv"],
    ],
)
def test_the_order_of_the_command_line_says_nothing_of_what_fits(words: list[str], tmp_path: Path) -> None:
    data = "".join(f"text {number},{number % 2}\n" for number in range(40))
    (tmp_path / "reviews.csv").write_text("review,stars\n" + data)
    words = [word.replace("reviews.csv", str(tmp_path / "reviews.csv")) for word in words]
    in_order = {job.run_id for job in load(compose, ["seed=0,1", *words]).jobs}
    for order in (words[::-1], [*words[2:], *words[:2]]):
        assert {job.run_id for job in load(compose, [*order, "seed=0,1"]).jobs} == in_order != set()


def test_an_axis_that_fits_no_grid_is_refused() -> None:
    full = {"seed": [0], "model": "tiny_bert", "task": "generated", "method": "full"}
    with pytest.raises(Exception, match="r") as refusal:
        loaded([full], "method.r=4,8")
    assert "Key 'r' not in 'FullConfig'" in str(refusal.value.__cause__)


def test_equal_runs_are_one_job() -> None:
    grid = {"model": "tiny_bert", "task": "generated", "method": "lora", "method.targets": [["q", "v"], ["v", "q"]]}
    assert len(loaded([grid])) == 1


def test_integers_written_with_a_point_are_integers() -> None:
    grid = {"seed": [0.0], "model": "tiny_bert", "task": "generated", "method": "lora", "method.r": [4.0]}
    assert loaded([grid])[0] | {"seed": 0, "method.r": 4} == loaded([grid])[0]
    assert "method.r=4" in load(with_sweep([grid]), ["+sweeps=table6"]).jobs[0].overrides


def test_a_sweep_file_without_its_first_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text("name: mine\n")
    monkeypatch.setattr("lora_repro.config.catalogue.HOME", tmp_path)
    with pytest.raises(InputError, match=r"sweeps/mine\.yaml: the first line must be: # @package sweep"):
        normalise(["-m", "+sweeps=mine"])


BASE = {"seed": [0], "model": "tiny_bert", "task": "generated", "method": "lora"}


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"name": "table6", "smok": [BASE]}, "'smok' is no scale. Did you mean 'smoke'"),
        ({"name": "table6", "demo": [BASE]}, "has no grids for scale=smoke. It has: demo"),
        ([BASE | {"method.r": []}], "the axis method.r is empty"),
        ([BASE | {"method.targets": ["q", "v"]}], r"method.targets is an axis of lists \(given: \[q,v\]\)"),
        ([BASE | {"method.targets": "q"}], "One fixed set of matrices is written"),
        ([{"common": "dem"}], "sweeps/common: there is no 'dem'. Did you mean 'demo'"),
        ([], "must be a list of grids"),
        (["method.r"], "must be a list of grids"),
        ([BASE | {"method.r": [1, 99]}], "from 1 to 32.*\nIn the job: .*method.r=99"),
        ([BASE | {"method.rank": [1]}], "method.rank: there is no such key"),
        ([BASE | {"method.r": ["one"]}], "must be of type integer"),
    ],
)
def test_a_wrong_sweep_file_is_refused_before_anything_starts(sweep: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.compile(message, re.DOTALL)):
        load(with_sweep(sweep), ["+sweeps=table6", "scale=smoke"])


def run(*arguments: str, check: bool = True) -> processes.Done:
    done = processes.run(["lora_repro", *arguments])
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("arguments", [["method=lora,full", "seed=0,1"]])
def test_a_sweep_plans_runs_skips_and_sums_up(arguments: list[str], tmp_path: Path) -> None:
    line = ["-m", *SMOKE, "task.train_size=32", "train.epochs=1", f"paths.outputs={tmp_path}", *arguments]
    first = run(*line)
    assert "Plan: 0 of 4 runs finished, 4 to run" in first.stderr
    assert "[4/4]" in first.stderr and "Sum: 4 of 4 runs finished, 0 to run" in first.stderr
    assert [path.name.split("-s")[1][0] for path in sorted((tmp_path / "runs").iterdir(), key=_started)] == list("0011")
    before = {path: path.read_bytes() for path in tmp_path.glob("runs/*/result.json")}
    again = run(*line)
    assert "Plan: 4 of 4 runs finished, 0 to run" in again.stderr
    assert {path: path.read_bytes() for path in before} == before and len(before) == 4
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


def _started(folder: Path) -> float:
    import json

    return json.loads((folder / "status.json").read_text())["started"]


def test_a_sweep_goes_on_after_a_failed_run_and_its_exit_code_says_so(tmp_path: Path) -> None:
    arms = ["train.learning_rate=1e30,1e-2", "method=full", "train.max_grad_norm=null"]
    done = run("-m", *SMOKE, "task.train_size=32", f"paths.outputs={tmp_path}", *arms, check=False)
    assert done.returncode == 1
    assert "Sum: 1 of 2 runs finished, 0 to run, 1 diverged (not repeated)" in done.stderr
    assert "Not finished: " in done.stderr and "Traceback" not in done.stderr
