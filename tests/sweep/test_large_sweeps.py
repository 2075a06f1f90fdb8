"""Plans of large sweeps: what is read and how often, and that what is not read anew could not have changed anything."""

import os
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from helpers.handmade_runs import fill, job, jobs, write_run, write_status

from analysis import load_runs
from analysis.runs import run_states, run_status
from lora_repro.bench.plans import write_store
from lora_repro.config.schema import Run
from lora_repro.store.record import Record
from lora_repro.store.status import State
from lora_repro.sweep.campaign import plan
from lora_repro.sweep.estimate import SCORED, Timing, expected, sizes_of, work
from lora_repro.sweep.grid import Sweep


def sweep() -> Sweep:
    return Sweep(jobs(), [])


def opened(monkeypatch: pytest.MonkeyPatch, of: Path) -> Counter[str]:
    """Counts the files below a folder that are opened, by name."""
    counts, real = Counter[str](), os.open

    def counted(path: Any, *arguments: Any, **more: Any) -> int:
        if str(path).startswith(str(of)):
            counts[Path(path).name] += 1
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", counted)
    return counts


def test_an_empty_store_is_planned_without_opening_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = opened(monkeypatch, tmp_path)
    found = plan(sweep(), str(tmp_path))
    assert set(found.states.values()) == {State.todo} and found.to_run == jobs()
    assert [state for _, state, _ in run_states(tmp_path, found.states)] == ["todo"] * len(jobs())
    assert not counts


def test_each_result_is_opened_once_for_a_plan_with_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = job("q", 1, 0)
    for each in jobs():
        if each is not left:
            write_run(tmp_path, each, [(0.5, 0.5)])
    counts = opened(monkeypatch, tmp_path)
    found = plan(sweep(), str(tmp_path))
    assert (found.to_run, found.count(State.finished)) == ([left], len(jobs()) - 1)
    assert found.seconds is not None and found.seconds > 0
    assert counts["result.json"] == len(jobs()) - 1


def test_load_runs_opens_each_result_once_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    (tmp_path / "runs" / "loop").symlink_to("loop")
    (tmp_path / "runs" / "gone").symlink_to("nowhere")
    (tmp_path / "runs" / "file").touch()
    counts = opened(monkeypatch, tmp_path)
    assert list(load_runs(tmp_path)["run_id"]) == sorted(each.run_id for each in jobs())
    assert counts == {"result.json": len(jobs())}


def test_a_result_that_is_rewritten_in_place_with_the_time_of_the_old_one_is_seen(tmp_path: Path) -> None:
    """No time, size or name of a file stands for what it holds."""
    fill(tmp_path)
    path = tmp_path / "runs" / job("q", 1, 0).run_id / "result.json"
    before, about = load_runs(tmp_path), path.stat()
    path.write_text(path.read_text().replace("0.8", "0.9"))
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert path.stat().st_size == about.st_size
    after = load_runs(tmp_path)
    old, new = (dict(zip(frame["run_id"], frame["eval/accuracy"], strict=True)) for frame in (before, after))
    assert new == old | {job("q", 1, 0).run_id: 0.9} != old


def test_the_benchmark_reads_records_that_count(tmp_path: Path) -> None:
    write_store(tmp_path, jobs())
    frame = load_runs(tmp_path)
    assert len(frame) == len(jobs()) and frame.attrs["problems"] == []
    assert set(plan(sweep(), str(tmp_path)).states.values()) == {State.finished}
    assert len(set(frame["eval/accuracy"])) > 1


def test_runs_that_begin_and_end_between_two_plans_are_seen(tmp_path: Path) -> None:
    one, other = job("q", 1, 0), job("q", 2, 1)
    assert plan(sweep(), str(tmp_path)).states[one.run_id] is State.todo
    write_status(tmp_path, one, "failed", "RuntimeError: no")
    write_run(tmp_path, other, [(0.5, 0.5)])
    found = plan(sweep(), str(tmp_path))
    assert (found.states[one.run_id], found.states[other.run_id]) == (State.failed, State.finished)
    assert {name: state for name, state, _ in run_states(tmp_path, found.states)}[one.run_id] == "failed"


def hide_store(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the store one that may be entered and not listed."""

    def refused(path: Any) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refused)


def file_in_place(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (store / "runs").rename(store / "away")
    (store / "runs").touch()


@pytest.mark.parametrize("damage", [lambda *_: None, hide_store, file_in_place])
def test_states_are_those_of_reading_every_run(
    damage: Callable[[Path, pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path, job("q", 1, 0), [(0.5, 0.5)])
    write_run(tmp_path, job("q", 1, 1), [(0.5, 0.5)], schema=99)
    (write_run(tmp_path, job("q", 2, 0), [(0.5, 0.5)]) / "result.json").write_text("{")
    write_status(tmp_path, job("q", 2, 1), "diverged")
    (tmp_path / "runs" / job("qv", 1, 0).run_id).symlink_to("nowhere")
    damage(tmp_path, monkeypatch)
    names = [each.run_id for each in jobs()]
    found = plan(sweep(), str(tmp_path))
    assert found.states == {name: Record(tmp_path, name).read_state()[0] for name in names}
    assert list(run_states(tmp_path, names)) == [(name, *run_status(tmp_path, name)[:2]) for name in names]


def brute_force(runs: list[Run], timings: list[Timing]) -> float | None:
    """Looks at every timing for every run."""
    known = []
    for run in runs:
        likenesses, sizes = [], sizes_of(run)
        for timing in timings:
            if timing.model != (run.model.name, run.model.digest):
                continue
            if sizes is None and (timing.task != run.task.name or not timing.is_whole):
                continue
            likeness = (
                timing.trains or not run.train.epochs, timing.is_here, timing.task == run.task.name,
                timing.dtype == run.train.dtype.value, timing.method == run.method.name, timing.is_whole,
            )  # fmt: skip
            likenesses.append((likeness, timing))
        nearest = [timing for likeness, timing in likenesses if likeness == max(likenesses)[0]]
        if nearest and sizes is None:
            known.append(statistics.median(timing.seconds for timing in nearest))
        elif nearest and sizes is not None:
            done = work(run.train.epochs, run.train.batch_size, run.train.max_steps, sizes)
            total = done.trained + SCORED * done.scored
            known.append(statistics.median(timing.rate * total + timing.beside for timing in nearest))
    return statistics.mean(known) * len(runs) if known else None


@pytest.mark.parametrize("seed", range(20))
def test_the_expected_time_is_that_of_comparing_every_run_with_every_timing(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random, run = Random(seed), job("q", 1, 0).resolved.run
    runs = [
        replace(
            run,
            model=replace(run.model, name=random.choice(("tiny_bert", "other"))),
            task=replace(run.task, name=random.choice(("generated", "unknown")), train_size=random.choice((None, 50))),
            train=replace(run.train, epochs=random.choice((0, 1, 3)), max_steps=random.choice((None, 2))),
        )
        for _ in range(12)
    ]
    sizes = {"train": 400, "eval": 100, "test": 100}
    monkeypatch.setattr(type(run.task), "sizes", lambda task: sizes if task.name == "generated" else None)
    timings = [
        Timing(
            (random.choice(("tiny_bert", "tiny_bert", "third")), run.model.digest),
            random.choice(("generated", "unknown")), random.choice(("lora", "full")), random.choice(("fp32", "bf16")),
            *(random.random() < 0.7 for _ in range(3)), *(random.random() for _ in range(3)),
        )
        for _ in range(random.choice((0, 1, 9)))
    ]  # fmt: skip
    assert expected(runs, timings) == brute_force(runs, timings)
