"""Tuning: which value is chosen, how a grid grows, what runs first, and what is refused."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.handmade_runs import write_run, write_status
from hydra.core.utils import JobReturn

from analysis.arms import read_arms
from analysis.protocol import Protocol
from analysis.render.tuning import sentences
from analysis.sweep_table import read_sweep
from lora_repro.config.compose import compose
from lora_repro.config.settings import LogConfig
from lora_repro.errors import DivergedError, InputError
from lora_repro.store.status import State
from lora_repro.sweep import campaign
from lora_repro.sweep.grid import Job, Sweep, load
from lora_repro.sweep.tuning import Scored, Trial, Tuning, choose, parse, rank
from lora_repro.tasks.metrics import LOSS, Metric

RATE = "train.learning_rate"
ACCURACY = Metric("accuracy")
BASE = ("model=tiny_bert", "task=generated", "method=lora", "seed=0,1")
TUNED = "tune={train.learning_rate:[0.001,0.003,0.01],seed:[100,101]}"

Scores = Callable[[float], float | None]


def tuning(scores: Mapping[float, float | None], metric: Metric = ACCURACY, values: object = None) -> Tuning:
    """Chooses among values whose two seeds both score as given; None diverges, a value that is absent has not run."""
    tune = parse({RATE: values if values is not None else [1e-3, 3e-3, 1e-2], "seed": [100, 101]})
    assert tune is not None

    def trial(value: float) -> Trial:
        state = State.todo if value not in scores else State.diverged if scores[value] is None else State.finished
        return Trial(value, tuple(Scored(f"{value}-{seed}", seed, state, scores.get(value)) for seed in tune.seeds))

    return choose(tune, metric, trial)


def test_the_best_mean_is_chosen_where_it_lies_inside_the_grid() -> None:
    found = tuning({1e-3: 0.7, 3e-3: 0.8, 1e-2: 0.6})
    assert (found.chosen, found.at_edge, found.runs, found.grown) == (3e-3, False, 6, ())
    assert found.best == 0.8 and found.neighbours == [0.7, 0.6]


def test_a_grid_that_ends_too_soon_grows_until_the_best_value_lies_inside() -> None:
    up = tuning({1e-3: 0.6, 3e-3: 0.7, 1e-2: 0.8, 3e-2: 0.9, 9e-2: 0.5})
    assert (up.chosen, up.grown, up.runs, up.at_edge) == (3e-2, (3e-2, 9e-2), 10, False)
    down = tuning({1e-3: 0.8, 3e-3: 0.7, 1e-2: 0.6, 3.3e-4: 0.75})
    assert (down.chosen, down.grown) == (1e-3, (3.3e-4,))


def test_a_grid_grows_three_times_and_then_says_that_the_value_is_at_its_edge() -> None:
    found = tuning({1e-3: 0.1, 3e-3: 0.2, 1e-2: 0.3, 3e-2: 0.4, 9e-2: 0.5, 0.27: 0.6})
    assert (found.chosen, found.at_edge, found.runs) == (0.27, True, 12)


def test_a_grid_grows_no_further_than_its_key_allows(tmp_path: Path) -> None:
    """A rank of 2/3 and a dropout of 2.7 are no runs: the sweep must still end."""
    for key, values, best, grown in (
        ("method.r", "[2,4]", 2, [2, 4]),
        ("method.r", "[1,2]", 6, [1, 2, 6, 18]),
        ("method.dropout", "[0.1,0.3]", 0.9, [0.1, 0.3, 0.9]),
    ):
        store, given = tmp_path / f"{key}{best}", f"tune={{{key}:{values},seed:[100]}}"
        while (found := sweep(store, tune=given)).waiting:
            for job in found.tuning_jobs:
                value = getattr(job.resolved.run.method, key.partition(".")[2])
                score = 0.9 - 0.01 * abs(value - best)
                if not (store / "runs" / job.run_id).exists():
                    write_run(store, job, [(score, score)])
        (only,) = found.tunings
        assert (only.chosen, [trial.value for trial in only.trials]) == (best, grown)
        assert only.at_edge == (best in (grown[0], grown[-1]))
        by_hand = load(compose, [*BASE, f"{key}={best}"], store)
        assert [job.run_id for job in by_hand.jobs] == [job.run_id for job in found.jobs]


def test_nothing_is_chosen_while_a_run_is_missing() -> None:
    assert tuning({1e-3: 0.7, 3e-3: 0.8}).why_not == "2 of the 6 tuning runs of an arm are missing"
    grown = tuning({1e-3: 0.1, 3e-3: 0.2, 1e-2: 0.3})
    assert grown.chosen is None and grown.why_not == "2 of the 8 tuning runs of an arm are missing"


def test_a_value_at_which_a_run_diverged_is_never_chosen_and_bounds_the_grid() -> None:
    """Searches elsewhere keep a first trial that is nan as their best (autokeras issue 1758, keras-tuner issue 656)."""
    first = tuning({1e-3: None, 3e-3: 0.8, 1e-2: 0.7})
    assert (first.chosen, first.at_edge) == (3e-3, False)
    found = tuning({1e-3: 0.7, 3e-3: 0.8, 1e-2: None})
    assert (found.chosen, found.at_edge, found.runs) == (3e-3, False, 6)
    assert found.neighbours == [0.7]
    nothing = tuning(dict.fromkeys([1e-3, 3e-3, 1e-2]))
    assert str(nothing.why_not).startswith(
        "tuning diverged at every train.learning_rate from 0.001 to 0.01: give lower"
    )


def test_the_smaller_of_two_equal_values_is_chosen_and_a_loss_is_better_when_lower() -> None:
    """Searches elsewhere take the worst value of a metric that goes the other way (setfit 100, simple_spearmint 9)."""
    assert tuning({1e-3: 0.5, 3e-3: 0.8, 1e-2: 0.8}).chosen == 3e-3
    assert tuning({1e-3: 0.5, 3e-3: 0.2, 1e-2: 0.8}, LOSS).chosen == 3e-3


def test_one_lucky_seed_does_not_decide() -> None:
    tune = parse({RATE: [1.0, 2.0, 3.0], "seed": [100, 101]})
    assert tune is not None
    scores = {1.0: (0.90, 0.10), 2.0: (0.60, 0.62), 3.0: (0.50, 0.55)}

    def trial(value: float) -> Trial:
        runs = zip(tune.seeds, scores[value], strict=True)
        return Trial(value, tuple(Scored("", seed, State.finished, score) for seed, score in runs))

    assert choose(tune, ACCURACY, trial).chosen == 2.0


def test_an_arm_whose_neighbouring_value_is_worse_than_another_arm_changes_its_place() -> None:
    arms = {
        "a": tuning({1e-3: 0.70, 3e-3: 0.80, 1e-2: 0.60}),
        "b": tuning({1e-3: 0.74, 3e-3: 0.75, 1e-2: 0.10}),
        "c": tuning({1e-3: 0.10, 3e-3: 0.20, 1e-2: 0.10}),
    }
    found = rank(arms)
    assert (found["a"].place, found["a"].with_neighbour) == (1, 2)
    assert (found["b"].place, found["b"].with_neighbour) == (2, 2)
    assert (found["c"].place, found["c"].with_neighbour) == (3, 3)
    alone = rank(arms | {"a": tuning({1e-3: None, 3e-3: 0.80, 1e-2: None})})  # the neighbours of its rate diverge
    assert (alone["a"].place, alone["a"].with_neighbour) == (1, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({RATE: [1e-3], "seed": [100]}, "one value is no choice"),
        ({RATE: [1e-3, 1e-3], "seed": [100]}, "one value is no choice"),
        ({RATE: [1e-3, -1e-3], "seed": [100]}, "numbers above 0"),
        ({RATE: ["linear", "constant"], "seed": [100]}, "numbers above 0"),
        ({RATE: 1e-3, "seed": [100]}, "numbers above 0"),
        ({RATE: [1e-3, 3e-3]}, "seed: must be a list of different seeds"),
        ({RATE: [1e-3, 3e-3], "seed": [100, 100]}, "seed: must be a list of different seeds"),
        ({RATE: [1e-3, 3e-3], "train.epochs": [1, 2], "seed": [100]}, "one key is tuned"),
        ({"seed": [100]}, "one key is tuned"),
        ({RATE: [1e-3, 3e-3], "seeds": [100]}, "Did you mean 'seed'"),
        ({"learning_rate": [1e-3, 3e-3], "seed": [100]}, "written with its section, as train.learning_rate"),
        ({RATE: [1e-3, 3e-3], "seed": [100], "by": 3}, "by: must be a dev score"),
        ({RATE: [1e-3, 3e-3], "seed": [100], "at": {"seed": 1}}, "at: must be settings other than"),
        ("yes", "must be keys and values"),
    ],
)
def test_impossible_tunings_are_refused(given: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*BASE, "seed=100", TUNED), "100 would be tuned with and reported too"),
        ((*BASE, TUNED.replace("[100,101]", "[1,7]")), "1 would be tuned with and reported too"),
        ((*BASE, "train.learning_rate=0.001", TUNED), "is tuned by this sweep, and given too"),
        ((*BASE, TUNED.replace("}", ",by:eval/f1}")), "no dev score 'eval/f1'"),
        ((*BASE, TUNED.replace("}", ",by:test/accuracy}")), "no dev score 'test/accuracy'"),
        ((*BASE, TUNED.replace("train.learning_rate", "train.rate")), "train.rate"),
    ],
)
def test_tunings_that_do_not_fit_their_sweep_are_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(Exception, match=message):
        load(compose, [line for line in arguments if not (line == "seed=0,1" and "seed=100" in arguments)])


def sweep(store: Path, *arguments: str, tune: str = TUNED) -> Sweep:
    return load(compose, [*BASE, *arguments, tune], store)


def finish(store: Path, jobs: list[Job], score: Scores) -> None:
    for job in jobs:
        result = score(job.resolved.run.train.learning_rate)
        assert result is not None
        write_run(store, job, [(result, result)])


def peak_at(best: float) -> Scores:
    return lambda rate: 0.9 if rate == best else 0.5


def test_reported_runs_are_known_once_their_tuning_is_finished(tmp_path: Path) -> None:
    first = sweep(tmp_path, "method.r=1,2")
    assert (len(first.tuning_jobs), len(first.jobs), len(first.waiting)) == (2 * 3 * 2, 0, 4)
    assert {job.resolved.run.seed for job in first.tuning_jobs} == {100, 101}
    of_r_1 = [job for job in first.tuning_jobs if job.point["method.r"] == 1]
    finish(tmp_path, of_r_1, peak_at(3e-3))
    second = sweep(tmp_path, "method.r=1,2")
    assert len(second.waiting) == 2
    assert [(job.resolved.run.seed, job.resolved.run.train.learning_rate) for job in second.jobs] == [
        (0, 3e-3),
        (1, 3e-3),
    ]
    by_hand = load(compose, [*BASE, "method.r=1", "train.learning_rate=3e-3"], tmp_path)
    assert [job.run_id for job in by_hand.jobs] == [job.run_id for job in second.jobs]


def test_arms_that_are_tuned_at_one_setting_share_their_tuning_runs(tmp_path: Path) -> None:
    tune = TUNED.replace("}", ",at:{method.r:2}}")
    first = sweep(tmp_path, "method.r=1,2,4", tune=tune)
    assert len(first.tuning_jobs) == 6 and {job.point["method.r"] for job in first.tuning_jobs} == {2}
    finish(tmp_path, list(first.tuning_jobs), peak_at(3e-3))
    second = sweep(tmp_path, "method.r=1,2,4", tune=tune)
    assert len(second.jobs) == 6 and len(second.tunings) == 1


def test_tune_null_takes_one_rate_for_all() -> None:
    assert len(load(compose, [*BASE, "method.r=1,2", "tune=null"]).to_compute) == 4


class Computer:
    """Computes jobs by writing results that peak at one rate, and notes their order."""

    def __init__(self, store: Path, score: Scores) -> None:
        self.store, self.score = store, score
        self.computed: list[tuple[int, float]] = []

    def __call__(self, job: Job) -> None:
        run = job.resolved.run
        self.computed.append((run.seed, run.train.learning_rate))
        result = self.score(run.train.learning_rate)
        if result is None:
            write_status(self.store, job, "diverged", "DivergedError: no")
            raise DivergedError("no")
        write_run(self.store, job, [(result, result)])


def run(store: Path, compute: Callable[[Job], object], *arguments: str, tune: str = TUNED) -> int:
    launcher = campaign.Launcher(lambda *_, **__: list[JobReturn](), compute)
    try:
        campaign.run(lambda: sweep(store, *arguments, tune=tune), str(store), LogConfig(), launcher)
    except SystemExit as error:
        return int(str(error.code))
    return 0


def test_a_sweep_tunes_grows_its_grid_and_then_computes_the_reported_runs(tmp_path: Path) -> None:
    compute = Computer(tmp_path, {1e-3: 0.5, 3e-3: 0.6, 1e-2: 0.7, 3e-2: 0.4}.get)
    assert run(tmp_path, compute) == 0
    first, grown, reported = compute.computed[:6], compute.computed[6:8], compute.computed[8:]
    assert sorted(first) == [(seed, rate) for seed in (100, 101) for rate in (1e-3, 3e-3, 1e-2)]
    assert grown == [(100, 3e-2), (101, 3e-2)]
    assert reported == [(0, 1e-2), (1, 1e-2)]
    again = Computer(tmp_path, compute.score)
    assert run(tmp_path, again) == 0 and not again.computed


def test_the_waves_of_a_sweep_are_one_group_of_a_tracker(tmp_path: Path) -> None:
    """Though the ranks differ in the reported runs alone."""
    compute, groups = Computer(tmp_path, {1e-3: 0.5, 3e-3: 0.6, 1e-2: 0.4}.get), list[str | None]()

    def noted(job: Job) -> None:
        groups.append(job.resolved.settings.log.group)
        compute(job)

    assert run(tmp_path, noted, "method.r=1,2", tune=TUNED.replace("}", ",at:{method.r:2}}")) == 0
    assert len(groups) == 6 + 4 and len(set(groups)) == 1


def test_a_tuning_run_that_is_removed_is_computed_again_and_nothing_else(tmp_path: Path) -> None:
    """A grid that was finished once does not look for what is missing elsewhere (wandb issue 1787)."""
    compute = Computer(tmp_path, {1e-3: 0.5, 3e-3: 0.6, 1e-2: 0.4}.get)
    assert run(tmp_path, compute) == 0
    gone = sweep(tmp_path).tuning_jobs[0]
    shutil.rmtree(tmp_path / "runs" / gone.run_id)
    again = Computer(tmp_path, compute.score)
    assert run(tmp_path, again) == 0
    assert again.computed == [(gone.resolved.run.seed, gone.resolved.run.train.learning_rate)]


def test_a_rate_that_diverges_in_tuning_is_no_failure_of_the_sweep(tmp_path: Path) -> None:
    compute = Computer(tmp_path, {1e-3: 0.5, 3e-3: 0.6, 1e-2: None}.get)
    assert run(tmp_path, compute) == 0
    assert compute.computed[6:] == [(0, 3e-3), (1, 3e-3)]


def test_a_sweep_whose_tuning_cannot_choose_says_so_and_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    compute = Computer(tmp_path, lambda _: None)
    assert run(tmp_path, compute) == 1
    assert "Not run: tuning diverged at every train.learning_rate" in caplog.text


def test_a_table_prints_what_was_chosen_and_dashes_with_a_command_before(tmp_path: Path) -> None:
    from analysis.items import names
    from analysis.render.printed import markdown, write
    from analysis.render.tables import printed

    arguments = [*BASE, "method.r=1,2", TUNED]
    before = markdown(printed(read_sweep(arguments, tmp_path), names()))
    assert (
        "6 of the 6 tuning runs of an arm are missing" in before
        and "2 tuning" in before
        and TUNED.partition("=")[0] in before
    )
    assert "Each arm takes at least 6 tuning runs, 12 in all; 12 of them are missing." in before
    finish(tmp_path, list(sweep(tmp_path, "method.r=1,2").tuning_jobs), peak_at(3e-3))
    jobs = sweep(tmp_path, "method.r=1,2").jobs
    finish(tmp_path, jobs, lambda _: 0.75)
    table = read_sweep(arguments, tmp_path)
    text = markdown(printed(table, names()))
    assert "75.0 [75.0, 75.0] n=2 @ 0.003" in text
    assert "Grid: 0.001, 0.003, 0.01." in text and "Each arm took 6 tuning runs, 12 in all." in text
    (one, other) = table.ours
    words = sentences([("one", one), ("other", replace(other, tuning=None))])
    assert {"Each tuned arm took 6 tuning runs, 6 in all.", "1 arm is not tuned: other."} <= {*words}
    words = sentences([("one", one), *((f"{number}", replace(other, tuning=None)) for number in range(7))])
    assert "7 arms are not tuned." in words  # more than are named
    assert "would change the place of 2 of 2 arms: r = 1 (1 to 2); r = 2 (1 to 2)." in text
    (record, _) = json.loads(write(printed(table, names()), "json"))
    assert record["chosen"] == 0.003 and record["seeds"] == [0, 1]
    assert [tried["mean"] for tried in record["tuning"]["tried"]] == [0.5, 0.9, 0.5]
    assert len({run_id for tried in record["tuning"]["tried"] for run_id in tried["run_ids"]}) == 6


def test_arms_are_ranked_among_those_of_their_own_task(tmp_path: Path) -> None:
    """A task on which all scores are lower takes no places."""
    from analysis.items import names
    from analysis.render.printed import markdown
    from analysis.render.tables import printed

    arguments = ["model=tiny_bert", "task=generated,tweets", "method=lora", "method.r=1,2", "seed=0,1", TUNED]
    scores = {"generated": {1e-3: 0.88, 3e-3: 0.9, 1e-2: 0.1}, "tweets": {1e-3: 0.5, 3e-3: 0.52, 1e-2: 0.1}}
    for job in load(compose, arguments, tmp_path).tuning_jobs:
        run = job.resolved.run
        score = scores[run.task.name][run.train.learning_rate] - 0.1 * (run.method.label.startswith("lora-r2"))
        write_run(tmp_path, job, [(score, score)])
    text = markdown(printed(read_sweep(arguments, tmp_path), names()))
    assert "would change the place of none of 4 arms among those of its task, model, budget and score." in text


def test_arms_are_ranked_among_those_of_their_own_budget(tmp_path: Path) -> None:
    """All arms of the larger budget are better; within a budget no neighbouring rate changes a place."""
    arguments = [
        *("model=tiny_bert", "task=generated", "seed=0", TUNED, "method=lora"),
        *("method.targets=[q],[v]", "method.budget=1024,4096"),
    ]
    for job in load(compose, arguments, tmp_path).tuning_jobs:
        run: Any = job.resolved.run
        score = {1e-3: 0.65, 3e-3: 0.7, 1e-2: 0.1}[run.train.learning_rate]
        score += 0.1 * (run.method.targets == ["q"]) + 0.02 * (run.method.r > 8)
        write_run(tmp_path, job, [(score, score)])
    cells = read_arms(
        load(compose, arguments, tmp_path).reported, str(tmp_path), ["accuracy"], Protocol.last_epoch, "x"
    )
    words = sentences([(cell.config.method.label, cell) for cell in cells if cell.config is not None])
    assert any("would change the place of none of 4 arms among those of its task" in each for each in words)
