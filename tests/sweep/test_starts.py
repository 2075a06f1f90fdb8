"""Runs that start from other runs of their sweep: which run is meant, what waits for what, and what is refused."""

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import fake_slurm, processes
from helpers.handmade_runs import write_run, write_status
from helpers.launched_sweeps import FEW, begun, command, start
from helpers.launched_sweeps import run as in_process
from helpers.waiting import PATIENCE_S, wait_for
from hydra.core.utils import JobReturn

from analysis.sweep_table import read_sweep
from lora_repro.config.compose import compose
from lora_repro.config.settings import LogConfig
from lora_repro.errors import DivergedError, InputError
from lora_repro.sweep import campaign
from lora_repro.sweep.grid import Job, Sweep, load
from lora_repro.training import job as training

THREE, TWO = "generated_three", "generated"
BOTH = ("model=tiny_bert", f"task={THREE},{TWO}", "method=lora")
FROM_THREE = f"start={{task:{THREE}}}"
TUNED = "tune={train.learning_rate:[0.001,0.003,0.01],seed:[100,101]}"

Score = Callable[[Job], float | None]


def sweep(*arguments: str, store: Path | None = None) -> Sweep:
    return load(compose, [*BOTH, *arguments], store)


def of(found: Any, task: str) -> list[Job]:
    return [job for job in found if job.resolved.run.task.name == task]


def starts(jobs: Any) -> dict[str, str | None]:
    return {job.run_id: job.resolved.run.train.init_from for job in jobs}


def test_a_run_starts_from_the_one_of_its_model_method_and_seed_and_has_the_id_of_that_typed() -> None:
    found = sweep("seed=0,1", "method.r=1,2", FROM_THREE).jobs
    plain = load(compose, ["model=tiny_bert", f"task={THREE}", "method=lora", "method.r=1,2", "seed=0,1"]).jobs
    assert [job.run_id for job in of(found, THREE)] == [job.run_id for job in plain]
    assert all(job.resolved.run.train.init_from is None for job in of(found, THREE))
    for job in of(found, TWO):
        run = job.resolved.run
        (start,) = (
            each.run_id
            for each in plain
            if (each.resolved.run.seed, each.resolved.run.method) == (run.seed, run.method)
        )
        given = ["model=tiny_bert", f"task={TWO}", f"method.r={job.point['method.r']}", f"seed={run.seed}"]
        (typed,) = load(compose, [*given, f"train.init_from={start}"]).jobs
        assert run.train.init_from == start and typed.run_id == job.run_id


def test_a_named_seed_is_the_start_of_all_and_null_is_a_start_too() -> None:
    """The paper starts every seed of RTE from its best MNLI run."""
    found = sweep("seed=0,1", f"start=null,{{task:{THREE},seed:0}}").jobs
    first = of(found, THREE)[0].run_id
    assert len(of(found, THREE)) == 2
    assert sorted(map(str, starts(of(found, TWO)).values())) == sorted([first, first, "None", "None"])


def test_of_several_it_is_the_one_that_agrees_in_all_that_both_give() -> None:
    found = sweep("seed=0", "train.learning_rate=1e-3,1e-2", FROM_THREE).jobs
    rate = {job.run_id: job.resolved.run.train.learning_rate for job in found}
    two = of(found, TWO)
    assert len(two) == 2
    assert all(rate[str(job.resolved.run.train.init_from)] == rate[job.run_id] for job in two)


def test_a_start_may_have_a_start() -> None:
    given = f"start={{task:{TWO},train.epochs:1}}"
    found = sweep("seed=0", "train.epochs=1,2", given).jobs
    chain = f"start={{task:{TWO},start:{{task:{THREE}}}}}"
    assert len(found) == 4
    with pytest.raises(InputError, match="no run of this sweep has"):
        sweep("seed=0", chain)


def grids(*of_grids: dict[str, Any]) -> Callable[[list[str]], Any]:
    """Composes with a sweep file that has these grids."""

    def composed(arguments: list[str]) -> Any:
        cfg = compose([line for line in arguments if not line.startswith("+sweeps")])
        if any(line.startswith("+sweeps") for line in arguments):
            cfg.sweep = {"name": "table6", "smoke": list(of_grids)}
        return cfg

    return composed


GRID = {"model": "tiny_bert", "method": "lora", "seed": [0]}
SMOKE = ["+sweeps=table6", "scale=smoke"]


def test_chains_are_resolved_and_circles_are_refused() -> None:
    one = GRID | {"task": THREE}
    two = GRID | {"task": TWO, "start": {"task": THREE}}
    three = GRID | {"task": "tweets", "start": {"task": TWO}}
    a, b, c = load(grids(three, two, one), SMOKE).jobs
    assert (a.resolved.run.train.init_from, b.resolved.run.train.init_from) == (b.run_id, c.run_id)
    circle = one | {"start": {"task": "tweets"}}
    with pytest.raises(InputError, match="start from each other, so none can be the first"):
        load(grids(circle, two, three), SMOKE)
    tuned = {"tune": {"train.learning_rate": [1e-3, 1e-2], "seed": [100]}}
    with pytest.raises(InputError, match="start from each other"):
        load(grids(circle | tuned, two | tuned, three | tuned), SMOKE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seed=0", "start={task:genrated_three}"], r"no run of this sweep has task=genrated_three.*\n.*Did you mean"),
        (["seed=0", "start={task:tweets}"], "task of its runs: generated_three, generated"),
        (["seed=0", "start=generated_three"], r"must be keys and values.*train\.init_from=ID"),
        (["seed=0", "start={}"], "must be keys and values"),
        (["seed=0", "start={task:[generated_three,generated]}"], "task: one run is named by plain values"),
        (["seed=0", "start={task:generated_three,method.rank:2}"], "has task=generated_three, method.rank=2"),
        (["seed=0", "start={method:full}", "method=lora,full", f"task={TWO}"], "has no place for its weights"),
        (["seed=0", FROM_THREE, "train.init_from=a-b-s0-0123456789"], "start names it already"),
        (["seed=0", FROM_THREE, "method=head_only"], "trains the head alone"),
        (
            ["seed=0", "method.r=4,8", "start={task:generated_three,method.r:8}"],
            "a run of method.r=4 cannot take over what was trained with 8.\nLeave method.r out",
        ),
        (["seed=0", FROM_THREE, "tune={method.alpha:[4,8],seed:[100]}"], "tune: method.alpha: a run that starts"),
        (["seed=0", FROM_THREE, "method=full", "log.save_full=false"], "log.save_full=false: other runs"),
    ],
)
def test_impossible_starts_are_refused(arguments: list[str], message: str) -> None:
    base = [line for line in BOTH if line.partition("=")[0] not in {each.partition("=")[0] for each in arguments}]
    with pytest.raises(InputError, match=message):
        load(compose, [*base, *arguments])


def test_a_start_that_is_not_one_run_is_refused_with_what_to_write() -> None:
    one, two = GRID | {"task": THREE}, GRID | {"task": TWO, "start": {"task": THREE}}
    with pytest.raises(
        InputError, match=r"2 runs of this sweep have .*learning_rate is 0.001 or 0.01.\nSay which: start"
    ):
        load(grids(one | {"train.learning_rate": [1e-3, 1e-2]}, two), SMOKE)
    with pytest.raises(InputError, match=r"seed is 0 there and 1 here.*\n.*start: \{task: generated_three, seed: 0\}"):
        load(grids(one, two | {"seed": [1]}), SMOKE)
    with pytest.raises(InputError, match=r"method\.r is 2 there and 8 here"):
        load(grids(one | {"method.r": 2}, two), SMOKE)


def test_settings_of_a_task_may_differ_between_a_run_and_its_start() -> None:
    """The paper's Table 10 has another dropout, batch and rate for each task; the weights of the base are the same."""
    one, two = GRID | {"task": THREE}, GRID | {"task": TWO, "start": {"task": THREE}}
    own = [{"model.head_dropout": 0.1, "train.epochs": 1}, {"model.head_dropout": 0.2, "train.batch_size": 8}]
    first, second = load(grids(one | own[0], two | own[1]), SMOKE).jobs
    assert second.resolved.run.train.init_from == first.run_id


def test_a_run_without_a_start_is_told_nothing_about_its_head() -> None:
    """One line of the command asks both readings of the paper; the runs of the start are those of any other sweep."""
    found = sweep("seed=0", FROM_THREE, "train.init_head=fitting,anew").jobs
    assert len(of(found, THREE)) == 1 and len(of(found, TWO)) == 2
    assert {job.resolved.run.train.init_head.value for job in of(found, TWO)} == {"fitting", "anew"}


def said(*line: str) -> str:
    """Returns what a command of the analysis prints."""
    done = processes.run(["analysis", *line])
    assert done.returncode == 0, done.stderr
    return done.stdout


class Computer:
    """Computes jobs by writing results, and notes their order."""

    def __init__(self, store: Path, score: Score) -> None:
        self.store, self.score = store, score
        self.computed: list[Job] = []

    def __call__(self, job: Job) -> None:
        self.computed.append(job)
        result = self.score(job)
        if result is None:
            write_status(self.store, job, "diverged", "DivergedError: no")
            raise DivergedError("no")
        write_run(self.store, job, [(result, result)])


def run(store: Path, compute: Callable[[Job], object], *arguments: str) -> int:
    launcher = campaign.Launcher(lambda *_, **__: list[JobReturn](), compute)
    try:
        campaign.run(lambda: sweep(*arguments, store=store), str(store), LogConfig(), launcher)
    except SystemExit as error:
        return int(str(error.code))
    return 0


def test_tuning_runs_start_from_the_tuning_run_of_their_seed_at_the_chosen_rate(tmp_path: Path) -> None:
    """Nothing that is reported decides a rate: reported seeds start from reported ones, tuning seeds from their own."""
    best = {THREE: 3e-3, TWO: 1e-3}

    def score(job: Job) -> float:
        run = job.resolved.run
        return 0.9 if run.train.learning_rate == best[run.task.name] else 0.5

    before = sweep("seed=0,1", FROM_THREE, TUNED, store=tmp_path)
    counts = (len(before.tuning_jobs), len(before.waiting_tuning), len(before.jobs), len(before.waiting))
    assert counts == (6, 6, 0, 4)
    for job in before.waiting_tuning:  # another sweep may have left what has the id of a stand-in
        write_run(tmp_path, job, [(0.99, 0.99)])
    again = sweep("seed=0,1", FROM_THREE, TUNED, store=tmp_path)
    assert (len(again.waiting_tuning), len(again.waiting)) == (6, 4)
    compute = Computer(tmp_path, score)
    assert run(tmp_path, compute, "seed=0,1", FROM_THREE, TUNED) == 0
    done = {job.run_id: job.resolved.run for job in compute.computed}
    order = list(done)
    for name, each in done.items():
        if each.task.name == TWO:
            start = done[str(each.train.init_from)]
            assert order.index(str(each.train.init_from)) < order.index(name)
            assert (start.task.name, start.seed, start.train.learning_rate) == (THREE, each.seed, 3e-3)
    reported = [each for each in done.values() if each.seed in (0, 1)]
    assert sorted((each.task.name, each.train.learning_rate) for each in reported) == sorted([*best.items()] * 2)
    finished = Computer(tmp_path, score)
    assert run(tmp_path, finished, "seed=0,1", FROM_THREE, TUNED) == 0 and not finished.computed


def test_a_tuned_run_whose_start_is_not_tuned_with_its_seeds_is_refused_unless_one_run_is_named() -> None:
    tuned = {"tune": {"train.learning_rate": [1e-3, 1e-2], "seed": [100, 101]}}
    one, two = GRID | {"task": THREE}, GRID | {"task": TWO, "start": {"task": THREE}} | tuned
    with pytest.raises(InputError, match=r"Tune the start with the seeds 100, 101 too; or name one run from which all"):
        load(grids(one, two), SMOKE)
    other = {"tune": {"train.learning_rate": [1e-3, 1e-2], "seed": [100]}}
    with pytest.raises(InputError, match=r"seed is 100 there and 101 here"):
        load(grids(one | other, two), SMOKE)
    found = load(grids(one, two | {"start": {"task": THREE, "seed": 0}}), SMOKE)
    (start,) = found.jobs
    assert set(starts(found.tuning_jobs).values()) == {start.run_id} and len(found.tuning_jobs) == 4


def test_a_run_whose_start_diverged_is_not_run_and_says_so_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def score(job: Job) -> float | None:
        run = job.resolved.run
        return None if (run.seed, run.task.name) == (0, THREE) else 0.75

    compute = Computer(tmp_path, score)
    assert run(tmp_path, compute, "seed=0,1", FROM_THREE) == 1
    assert [(job.resolved.run.task.name, job.resolved.run.seed) for job in compute.computed] == [
        (THREE, 0),
        (THREE, 1),
        (TWO, 1),
    ]
    bad = compute.computed[0].run_id
    assert f"Not run: the run that it starts from (task={THREE}, {bad}) diverged." in caplog.text
    assert "1 not run, as the runs that they start from failed or diverged" in caplog.text
    (cell,) = [cell for cell in read_sweep([*BOTH, "seed=0,1", FROM_THREE], tmp_path).cells if cell.task == TWO]
    assert (cell.n, len(cell.missing), cell.missing[0].state) == (1, 1, "starting")
    assert bad in str(cell.missing[0].reason) and FROM_THREE in str(cell.command)


def test_a_plan_counts_both_waves_and_a_cell_says_what_it_waits_for(
    tmp_path: Path,
) -> None:
    arguments = [*BOTH, "seed=0,1", FROM_THREE]
    write_run(tmp_path, of(sweep("seed=0,1", FROM_THREE).jobs, THREE)[0], [(0.5, 0.5)])
    plan = said("plan", *arguments, "--runs", str(tmp_path))
    assert plan.count("start first ") == 1 and "1 of 4 runs finished, 2 to run" in plan
    assert re.search(
        r"2 to run, about \d+ (s|min), then 1 that start from these \(1 with a new head\), about \d+ ", plan
    )
    status = said("status", *arguments, "--runs", str(tmp_path))
    assert "1 start first" in status and f"(task={THREE}, " in status and "is not finished" in status
    table = read_sweep(arguments, tmp_path)
    (cell,) = [cell for cell in table.cells if cell.task == TWO]
    assert len(cell.runs) == 2 and sorted(run.state for run in cell.missing) == ["starting", "todo"]
    assert cell.command is not None and FROM_THREE in cell.command


def test_a_table_has_one_cell_for_runs_that_differ_in_the_seed_of_their_start(tmp_path: Path) -> None:
    given = ["seed=0,1", f"start=null,{{task:{THREE}}}"]
    for job in sweep(*given).jobs:
        score = 0.6 + 0.2 * (job.start is not None)
        write_run(tmp_path, job, [(score, score)])
    table = read_sweep([*BOTH, *given], tmp_path)
    means = {(cell.task, cell.place.row, cell.place.column): cell.summary.mean for cell in table.cells}
    assert sorted(map(float, filter(None, means.values()))) == pytest.approx([0.6, 0.6, 0.8])
    assert any(f"task={THREE}" in map(str, place) for place in means)


def test_a_full_run_from_which_others_start_keeps_its_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = ["method=full", "seed=0"]
    base = [line for line in BOTH if not line.startswith("method=")]
    one, two = load(compose, [*base, *given, FROM_THREE], tmp_path).jobs
    assert (one.resolved.settings.log.save_full, two.resolved.settings.log.save_full) == (True, False)
    assert "log.save_full=true" in one.overrides and "log.save_full=true" not in two.overrides
    write_run(tmp_path, one, [(0.5, 0.5)], digests={})
    plan = campaign.plan(load(compose, [*base, *given, FROM_THREE], tmp_path), str(tmp_path))
    assert not plan.to_run and "has no weights here; log.rebuild=true" in plan.stopped[two.run_id]
    again = campaign.plan(load(compose, [*base, *given, FROM_THREE, "log.rebuild=true"], tmp_path), str(tmp_path))
    assert [job.run_id for job in again.to_run] == [one.run_id] and [job.run_id for job in again.after] == [two.run_id]
    tuned = load(compose, [*base, *given, FROM_THREE, TUNED], tmp_path / "none")
    assert all(job.resolved.settings.log.save_full for job in tuned.tuning_jobs)


def test_a_start_whose_weights_no_ledger_kept_is_computed_again_where_a_run_still_needs_it(tmp_path: Path) -> None:
    given = [*BOTH, "seed=0", FROM_THREE]
    one, two = load(compose, given, tmp_path).jobs
    write_run(tmp_path, one, [(0.5, 0.5)], digests={"adapter/adapter_model.safetensors": "0"})  # which is not there

    def plan(*more: str) -> campaign.SweepPlan:
        return campaign.plan(load(compose, [*given, *more], tmp_path), str(tmp_path))

    assert not plan().to_run and "has no weights here; log.rebuild=true" in plan().stopped[two.run_id]
    again = plan("log.rebuild=true")
    assert [job.run_id for job in again.to_run] == [one.run_id] and [job.run_id for job in again.after] == [two.run_id]
    assert again.missing == {one.run_id: ["adapter/adapter_model.safetensors"]}
    assert "log.save_full=true" in again.to_run[0].overrides  # by which a launcher's worker computes it again
    write_run(tmp_path, two, [(0.5, 0.5)], digests={"adapter/adapter_model.safetensors": "0"})
    assert not plan("log.rebuild=true").to_run and not plan().missing


@pytest.mark.parametrize("method", ["lora", "bitfit", "full", "adapter_h"])
def test_every_method_takes_over_what_it_trained_and_draws_a_head_of_other_labels(method: str, tmp_path: Path) -> None:
    small = ["task.train_size=32", "task.eval_size=16", "task.test_size=16", "train.epochs=1", "log.wandb=off"]
    given = [f"method={method}", "seed=0", FROM_THREE, *small, "compute.device=cpu", f"paths.outputs={tmp_path}"]
    base = [line for line in BOTH if not line.startswith("method=")]
    launcher = campaign.Launcher(lambda *_, **__: list[JobReturn](), lambda job: training.compute(job.resolved))
    campaign.run(lambda: load(compose, [*base, *given], tmp_path), str(tmp_path), LogConfig(), launcher)
    one, two = load(compose, [*base, *given], tmp_path).jobs
    start, result = (json.loads((tmp_path / "runs" / job.run_id / "result.json").read_text()) for job in (one, two))
    origin = result["provenance"]["init_from"]
    digests = {Path(name).name: digest for name, digest in start["digests"].items()}
    assert origin["files"] and all(digests[name] == digest for name, digest in origin["files"].items())
    assert "head is of 3 labels, the task's of 2" in origin["head"]
    assert result["config"]["train"]["init_from"] == one.run_id


SWEEP = (*BOTH, *FEW, "train.epochs=6", "seed=0,1", FROM_THREE, "log.wandb=off", "log.checkpoint_every_s=0")


def ran_once_and_in_order(folder: Path) -> None:
    """Checks that each run was computed to its end by one process, and started from what its start had written."""
    results = [json.loads(path.read_text()) for path in folder.glob("store/runs/*/result.json")]
    known = {result["run_id"]: result for result in results}
    started = [result for result in results if result["config"]["task"]["name"] == TWO]
    assert (len(results), len(started)) == (4, 2)
    for result in started:
        theirs = known[result["config"]["train"]["init_from"]]
        assert theirs["config"]["seed"] == result["config"]["seed"]
        digests = {Path(name).name: digest for name, digest in theirs["digests"].items()}
        files = result["provenance"]["init_from"]["files"]
        assert files and files.items() <= digests.items()
    assert not list(folder.glob("store/runs/*/lock")) and not list(folder.glob("store/runs/*/checkpoint"))


def test_two_processes_share_a_sweep_and_one_goes_on_where_a_start_was_killed(tmp_path: Path) -> None:
    first, second = (start(tmp_path, command("basic", *SWEEP)) for _ in range(2))
    wait_for(lambda: begun(tmp_path) > 0)
    lock = next(tmp_path.glob(f"store/runs/*{THREE}*/lock"))
    killed, left = (first, second) if json.loads(lock.read_text())["pid"] == first.pid else (second, first)
    killed.send_signal(signal.SIGKILL)
    _, words = left.communicate(timeout=PATIENCE_S)
    killed.communicate(timeout=PATIENCE_S)
    assert left.returncode == 0 and "Traceback" not in words, words
    assert "Sum: 4 of 4 runs finished" in words
    ran_once_and_in_order(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["joblib", "submitit_slurm"])
def test_launchers_run_starts_first(launcher: str, tmp_path: Path) -> None:
    slurm = fake_slurm.install(tmp_path / "slurm") if launcher == "submitit_slurm" else {}
    done = in_process(tmp_path, command(launcher, *SWEEP), **slurm)
    assert done.returncode == 0 and "Sum: 4 of 4 runs finished" in done.stderr, done.stderr
    ran_once_and_in_order(tmp_path)
    if slurm:
        assert len(fake_slurm.scripts(tmp_path / "slurm" / "state")) == 2
