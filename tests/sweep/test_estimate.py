"""How long runs will take: records and timings made by hand, answers computed by hand."""

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.handmade_runs import job, write_run, write_status

from lora_repro.config.schema import Run
from lora_repro.sweep.estimate import Timing, Timings, expected, work
from lora_repro.sweep.grid import Job

RUN = job("q", 1, 0).resolved.run
"""tiny_bert on generated (400 / 100 / 100 examples), batches of 16."""


def changed(epochs: int = 2, train_size: int | None = None, max_steps: int | None = None) -> Run:
    task = replace(RUN.task, train_size=train_size, eval_size=30, test_size=60)
    return replace(RUN, task=task, train=replace(RUN.train, epochs=epochs, max_steps=max_steps))


def timing(seconds: float, done: float = 860.0, **changes: object) -> Timing:
    """Returns a timing of a run of 860 examples, which is what changed() computes, if nothing else is said."""
    like = Timing(
        (RUN.model.name, RUN.model.digest), "generated", "lora", RUN.train.dtype.value,
        is_here=True, is_whole=True, trains=True, rate=seconds / done, beside=0.0, seconds=seconds,
    )  # fmt: skip
    return like._replace(**changes)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("run", "trained", "scored"),
    [
        (changed(), 2 * 400, 2 * 90),
        (changed(epochs=0), 0, 90),
        (changed(train_size=100), 2 * 100, 2 * 90),
        (changed(epochs=3, max_steps=50), 50 * 16, 2 * 90),
        (changed(epochs=1, max_steps=1), 16, 90),
    ],
)
def test_work_counts_examples_that_are_trained_and_scored(run: Run, trained: int, scored: int) -> None:
    sizes = {"train": run.task.train_size or 400, "eval": 30, "test": 60}
    assert work(run.train.epochs, run.train.batch_size, run.train.max_steps, sizes) == (trained, scored)
    told = timing(0.0, rate=0.1, beside=7.0)
    assert expected([run], [told]) == pytest.approx(0.1 * (trained + scored / 3) + 7)


@pytest.mark.parametrize(
    ("timings", "seconds"),
    [
        ([], None),
        ([timing(5.0, model=("other", ""))], None),
        ([timing(5.0, model=("tiny_bert", "another digest"))], None),
        ([timing(5.0, task="movies")], 5.0),
        ([timing(5.0, task="movies"), timing(9.0)], 9.0),
        ([timing(5.0, method="full"), timing(9.0)], 9.0),
        ([timing(5.0, dtype="bf16"), timing(9.0, method="full")], 9.0),
        ([timing(5.0, is_here=False), timing(9.0, task="movies")], 9.0),
        ([timing(5.0, is_whole=False), timing(9.0)], 9.0),
        ([timing(5.0, trains=False), timing(9.0, is_here=False)], 9.0),
        ([timing(5.0), timing(8.0, 2 * 860.0), timing(99.0)], 5.0),
    ],
)
def test_what_resembles_a_run_most_tells_its_time_and_one_outlier_nothing(
    timings: list[Timing], seconds: float | None
) -> None:
    assert expected([changed()], timings) == (None if seconds is None else pytest.approx(seconds))


def test_runs_take_the_sum_and_an_unknown_one_the_mean_of_the_others() -> None:
    unknown = replace(RUN, model=replace(RUN.model, name="other"))
    known = [timing(10.0)]
    assert expected([changed(), changed(epochs=4)], known) == pytest.approx(10 + 20)
    assert expected([changed(), changed(epochs=4), unknown], known) == pytest.approx(45)


def finished(store: Path, which: Job, **more: object) -> None:
    sizes = {split: {"n": n, "labels": {"0": n}} for split, n in (("train", 400), ("eval", 30), ("test", 60))}
    write_run(store, which, [(0.5, 0.5)], **({"data": sizes} | more))


@pytest.mark.parametrize(
    ("run_seconds", "train_seconds", "rate", "beside"),
    [
        (20.0, 8.0, 8 / 800, 20 - 8 - 60 * 8 / 800),  # 800 trained in 8 s, 180 scored for a third each, the rest loads
        (8.3, 8.0, 8.3 / 860, 0.0),  # scoring costs less than a third
        (3.0, 12.0, 12 / 860, 0.0),  # resumed: the last attempt took 3 s, all training 12 s
        (20.0, None, 20 / 860, 0.0),
        (20.0, 0.0, 20 / 860, 0.0),
    ],
)
def test_a_finished_run_tells_its_rate_and_what_loading_took(
    run_seconds: float, train_seconds: float | None, rate: float, beside: float, tmp_path: Path
) -> None:
    told = {} if train_seconds is None else {"train_seconds": train_seconds}  # an old record has none
    finished(tmp_path, job("qv", 2, 1), run_seconds=run_seconds, **told)
    (found,) = Timings(tmp_path).of([RUN], {})
    assert (found.rate, found.beside) == (pytest.approx(rate), pytest.approx(beside))
    alike = replace(job("qv", 2, 1).resolved.run, task=changed().task)
    assert expected([alike], [found]) == pytest.approx(max(run_seconds, train_seconds or 0)), "its like takes as long"


def test_the_first_steps_of_a_run_under_way_tell_its_rate(tmp_path: Path) -> None:
    going = job("q", 2, 0)
    write_status(tmp_path, going, "running")
    rows = [
        {"step": 1, "loss": 1.0, "examples": 16, "wall_time_s": 2.0},
        {"step": 3, "loss": 1.0, "examples": 50, "wall_time_s": 3.0},
        {"step": 3, "epoch": 1, "eval/accuracy": 0.5},
    ]
    folder = tmp_path / "runs" / going.run_id
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    known = Timings(tmp_path).of([RUN], {going.run_id: going.resolved.run})
    assert [timing.is_whole for timing in known] == [False]
    assert expected([changed()], known) == pytest.approx(3 / 50 * 860)


def test_a_run_of_this_machine_is_known_by_its_host(tmp_path: Path) -> None:
    finished(tmp_path, job("q", 1, 0))
    finished(tmp_path, job("q", 2, 0))
    status = tmp_path / "runs" / job("q", 2, 0).run_id / "status.json"
    status.write_text(json.dumps({"state": "finished", "host": socket.gethostname()}))
    assert [found.is_here for found in Timings(tmp_path).of([RUN], {})] == [False, True]


def test_records_that_say_no_time_are_left_out(tmp_path: Path) -> None:
    write_run(tmp_path, job("q", 1, 0), [(0.5, 0.5)], run_seconds=None)
    write_status(tmp_path, job("q", 2, 0), "interrupted")
    assert Timings(tmp_path).of([RUN], {job("q", 2, 0).run_id: RUN}) == []
