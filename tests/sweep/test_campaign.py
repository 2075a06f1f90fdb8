"""A sweep under way: what it leaves out, what it takes over, and what happens when its launcher breaks."""

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.fake_launcher import Launches, ended, run, sweep, write_result
from helpers.handmade_runs import jobs, write_run, write_status
from hydra.core.utils import JobReturn

from lora_repro.config.settings import LogConfig
from lora_repro.errors import RunBusyError, RunFailedError
from lora_repro.store.lock import Lock
from lora_repro.store.record import Record
from lora_repro.sweep import campaign, watch
from lora_repro.sweep.grid import Job
from lora_repro.sweep.slurm_queue import Queue, Task


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "POLL_S", 0.05)


def test_failed_runs_wait_to_be_asked_for_and_diverged_ones_are_never_repeated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lora_repro")
    failed, diverged, *rest = sweep().jobs
    write_status(tmp_path, failed, "failed", "RuntimeError: no")
    write_status(tmp_path, diverged, "diverged", "DivergedError: no")
    launches = Launches(tmp_path)
    assert run(sweep(), tmp_path, launches) == 1
    assert launches.batches == [[job.run_id] for job in rest]
    assert "1 failed (repeated with compute.retry_failed=true)" in caplog.text
    assert "1 diverged (not repeated)" in caplog.text
    again = Launches(tmp_path)
    assert run(sweep("compute.retry_failed=true"), tmp_path, again) == 1
    assert again.batches == [[failed.run_id]]


@pytest.mark.parametrize("state", ["interrupted", "running"])
def test_interrupted_and_stale_runs_go_on(tmp_path: Path, state: str) -> None:
    first = sweep().jobs[0]
    write_status(tmp_path, first, state)
    launches = Launches(tmp_path)
    assert run(sweep(), tmp_path, launches) == 0
    assert launches.batches[0] == [first.run_id] and len(launches.batches) == 4


def test_a_run_whose_process_died_twice_comes_last(tmp_path: Path) -> None:
    first, *rest = sweep().jobs
    write_status(tmp_path, first, "running")
    path = tmp_path / "runs" / first.run_id / "status.json"
    path.write_text(json.dumps({"state": "running", "deaths": 1}))
    launches = Launches(tmp_path)
    assert run(sweep(), tmp_path, launches) == 0
    assert launches.batches == [[job.run_id] for job in [*rest, first]]


def test_a_run_of_another_process_is_waited_for_and_taken_over_when_that_leaves_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lora_repro")
    first, *rest = sweep().jobs
    (tmp_path / "runs" / first.run_id).mkdir(parents=True)
    lock = Lock(tmp_path / "runs" / first.run_id / "lock")
    lock.acquire()
    launches = Launches(tmp_path)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            lock.release()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(campaign.time, "sleep", wait)
        assert run(sweep(), tmp_path, launches) == 0
    assert launches.batches == [[job.run_id] for job in [*rest, first]] and len(waits) == 3
    assert "1 running elsewhere" in caplog.text and "waiting for them" in caplog.text


@pytest.mark.parametrize("one_by_one", [True, False])
def test_a_run_that_another_process_finishes_is_not_launched(one_by_one: bool, tmp_path: Path) -> None:
    first, *rest = sweep().jobs
    folder = tmp_path / "runs" / first.run_id
    folder.mkdir(parents=True)
    lock = Lock(folder / "lock")
    lock.acquire()
    launches = Launches(tmp_path)

    def finish(seconds: float) -> None:
        lock.release()
        write_result(tmp_path, first)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(campaign.time, "sleep", finish)
        assert run(sweep(), tmp_path, launches, one_by_one) == 0
    assert [name for batch in launches.batches for name in batch] == [job.run_id for job in rest]


@pytest.mark.parametrize(
    ("state", "arguments", "is_repeated"),
    [
        ("diverged", (), False),
        ("diverged", ("compute.retry_failed=true",), False),
        ("failed", (), False),
        ("failed", ("compute.retry_failed=true",), True),
    ],
)
def test_a_run_that_goes_wrong_in_another_process_is_repeated_only_if_a_plan_would_repeat_it(
    state: str, arguments: tuple[str, ...], is_repeated: bool, tmp_path: Path
) -> None:
    asked = sweep(*arguments)
    first, second, *rest = asked.jobs

    def go_wrong_elsewhere(job: Job) -> None:
        write_result(tmp_path, job)
        write_status(tmp_path, second, state, "no")

    launches = Launches(tmp_path, {first.run_id: go_wrong_elsewhere})
    assert run(asked, tmp_path, launches) == (0 if is_repeated else 1)
    expected = [first, second, *rest] if is_repeated else [first, *rest]
    assert launches.batches == [[job.run_id] for job in expected]


class Slurm(Queue):
    """A queue that computes what it is given."""

    def __init__(self, launches: Launches) -> None:
        self.launches = launches

    def compute(self, lines: Mapping[str, Sequence[str]], outputs: str, initial: int) -> list[JobReturn]:
        return self.launches(list(lines.values()), initial)


def test_runs_in_slurms_queue_are_no_runs_to_make_and_are_waited_for_though_they_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "lora_repro")
    running, pending, *rest = sweep().jobs
    (tmp_path / "runs" / running.run_id).mkdir(parents=True)
    lock = Lock(tmp_path / "runs" / running.run_id / "lock")
    lock.acquire()
    tasks = {job.run_id: Task("12", "x") for job in (running, pending)}
    monkeypatch.setattr(campaign, "jobs_in_queue", lambda outputs: tasks)

    def finish(job: Job) -> None:
        lock.release()
        write_result(tmp_path, job)

    launches = Launches(tmp_path, {running.run_id: finish})
    launcher = campaign.Launcher(launches, on_cluster=True, queue=Slurm(launches))
    campaign.run(sweep, str(tmp_path), LogConfig(), launcher)
    (batch,) = launches.batches
    assert batch == [*(job.run_id for job in rest), running.run_id, pending.run_id]
    assert "2 to run, 1 running elsewhere, 1 waiting in Slurm's queue" in caplog.text


def test_a_job_that_finds_its_run_busy_is_launched_again(tmp_path: Path) -> None:
    first = sweep().jobs[0]
    tries: list[str] = []

    def busy_once(job: Job) -> Exception | None:
        tries.append(job.run_id)
        return RunBusyError(job.run_id, "process 1 on x") if len(tries) == 1 else write_result(tmp_path, job)

    launches = Launches(tmp_path, {first.run_id: busy_once})
    assert run(sweep(), tmp_path, launches, one_by_one=False) == 0
    assert [len(batch) for batch in launches.batches] == [4, 1]


def test_failures_are_told_and_cost_the_others_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = sweep().jobs[0]
    launches = Launches(tmp_path, {first.run_id: lambda job: RunFailedError(f"{job.run_id} failed: on purpose")})
    assert run(sweep(), tmp_path, launches) == 1
    assert "Not finished: " in caplog.text and "on purpose" in caplog.text
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 3


class BrokenError(Exception):
    """What a launcher raises when one of its workers is killed."""


class Workers:
    """A launcher with a process a run, two at a time; `deadly` kills its own each time, and as joblib's the other dies.

    Args:
        store: Where the runs lie.
        deadly: The run that kills its process.
        seen: Locks name the processes, so that the watch can tell which of them died first.
    """

    def __init__(self, store: Path, deadly: str, seen: bool) -> None:
        self.store, self.deadly, self.seen = store, deadly, seen
        self.batches: list[list[str]] = []

    def __call__(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        named = [next(job for job in jobs() if set(job.overrides) <= set(line)) for line in job_overrides]
        self.batches.append([job.run_id for job in named])
        for pair in (named[:2], named[2:]):
            if self.deadly in (job.run_id for job in pair):
                self._die(pair)
            for job in pair:
                write_result(self.store, job)
        return [ended() for _ in named]

    def _die(self, pair: list[Job]) -> None:
        processes = {job.run_id: subprocess.Popen(["sleep", "60"]) for job in pair}
        for run_id, process in processes.items():
            folder = self.store / "runs" / run_id
            folder.mkdir(exist_ok=True, parents=True)
            (folder / "status.json").write_text(json.dumps({"state": "running", "pid": process.pid}))
            if self.seen:
                owner = replace(Lock(folder / "lock").owner, pid=process.pid)
                (folder / "lock").write_text(json.dumps(asdict(owner)))
        time.sleep(3 * watch.WATCH_S)  # the watch has seen them
        for run_id in sorted(processes, key=lambda run_id: run_id != self.deadly):
            processes[run_id].kill()
            time.sleep(0.02)
        for process in processes.values():
            process.wait()
        raise BrokenError("a worker was killed")


def test_a_run_that_kills_its_worker_twice_is_launched_by_itself_and_the_others_stay_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "WATCH_S", 0.05)
    innocent, deadly, *rest = [job.run_id for job in sweep().jobs]
    workers = Workers(tmp_path, deadly, seen=True)
    assert run(sweep(), tmp_path, workers, one_by_one=False) == 1
    everyone = [innocent, deadly, *rest]
    assert workers.batches == [everyone, everyone, [innocent, *rest], [deadly]]
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 3
    assert caplog.text.count(f"The worker of {deadly} died") == 3 and f"The worker of {innocent}" not in caplog.text
    assert "The launcher broke (BrokenError); launching 4 runs again" in caplog.text
    assert f"{deadly}: its process died without an error (out of memory?)" in caplog.text


def test_where_nobody_sees_which_worker_died_first_all_that_died_twice_are_launched_one_by_one(tmp_path: Path) -> None:
    innocent, deadly, *rest = [job.run_id for job in sweep().jobs]
    workers = Workers(tmp_path, deadly, seen=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch, "WATCH_S", 0.01)
        assert run(sweep(), tmp_path, workers, one_by_one=False) == 1
    everyone = [innocent, deadly, *rest]
    assert workers.batches == [everyone, everyone, rest, [innocent], [deadly]]
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 3


@pytest.mark.parametrize("state", ["running", "interrupted", "failed"])
def test_a_run_that_had_not_begun_when_the_launcher_broke_is_launched_again(tmp_path: Path, state: str) -> None:
    """Its status tells of an earlier attempt, as another day's kill has left it."""
    asked = sweep("compute.retry_failed=true")
    first, second, *_ = asked.jobs
    write_status(tmp_path, second, state)
    tries: list[str] = []

    def break_once(job: Job) -> Exception | None:
        tries.append(job.run_id)
        write_result(tmp_path, job)
        if len(tries) == 1:
            raise BrokenError
        return None

    assert run(asked, tmp_path, Launches(tmp_path, {first.run_id: break_once}), one_by_one=False) == 0
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 4


def test_a_launcher_that_does_not_work_at_all_says_why(tmp_path: Path) -> None:
    def launch(*_: Any, **__: Any) -> list[JobReturn]:
        raise FileNotFoundError("sbatch")

    with pytest.raises(RunFailedError, match="The launcher does not work: FileNotFoundError: sbatch"):
        run(sweep(), tmp_path, launch, one_by_one=False)


def test_what_a_kill_left_beside_a_finished_run_is_cleared_by_the_next_sweep(tmp_path: Path) -> None:
    first = sweep().jobs[0]
    folder = write_run(tmp_path, first, [(0.5, 0.5)])
    (folder / "checkpoint").mkdir()
    (folder / "lock").write_text("")
    (folder / ".status.json.partial").write_text("{")
    assert run(sweep(), tmp_path, Launches(tmp_path)) == 0
    assert {path.name for path in folder.iterdir()} == {"result.json", "status.json"}
    assert Record(tmp_path, first.run_id).is_tidy


def test_finished_runs_that_lack_something_are_listed_and_rebuilt_when_asked(tmp_path: Path) -> None:
    for job in sweep().jobs:
        write_run(tmp_path, job, [(0.5, 0.5)])
    wants = ("log.snapshots=[0,1]",)
    plan = campaign.plan(sweep(*wants), str(tmp_path))
    assert len(plan.missing) == 4 and plan.to_run == []
    assert set(plan.missing.values().__iter__().__next__()) == {"snapshots/0.safetensors", "snapshots/1.safetensors"}
    assert "4 finished without outputs that log asks for (log.rebuild=true computes them)" in plan.describe()
    assert len(campaign.plan(sweep(*wants, "log.rebuild=true"), str(tmp_path)).to_run) == 4
    launches = Launches(tmp_path)
    assert run(sweep(*wants), tmp_path, launches) == 1 and launches.batches == []


def test_the_time_to_go_is_what_such_runs_take_not_the_pace_so_far(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lora_repro")
    sizes = {split: {"n": n, "labels": {"0": n}} for split, n in (("train", 400), ("eval", 100), ("test", 100))}

    def quick(job: Job) -> None:
        write_run(tmp_path, job, [(0.5, 0.5)], data=sizes, run_seconds=20.0)

    assert run(sweep(), tmp_path, Launches(tmp_path, {job.run_id: quick for job in sweep().jobs})) == 0
    assert "[1/4] about 60 s to go" in caplog.text and "[3/4] about 20 s to go" in caplog.text
