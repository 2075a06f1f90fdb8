"""How long runs will take: records and timings made by hand, answers computed by hand."""

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from stores import job, write_run, write_status

from lora_repro.config import Run
from lora_repro.estimate import Timing, Timings, expected, work

RUN = job("q", 1, 0).resolved.run
"""tiny_bert on generated (400 / 100 / 100 examples), batches of 16."""


def changed(epochs: int = 2, train_size: int | None = None, max_steps: int | None = None) -> Run:
    task = replace(RUN.task, train_size=train_size, eval_size=30, test_size=60)
    return replace(RUN, task=task, train=replace(RUN.train, epochs=epochs, max_steps=max_steps))


def timing(seconds: float, done: float, **changes: object) -> Timing:
    like = Timing(
        (RUN.model.name, RUN.model.digest), "generated", "lora", RUN.train.dtype.value, True, True, done, seconds
    )
    return like._replace(**changes)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("run", "examples"),
    [
        (changed(), 2 * 400 + 2 * 90 / 3),
        (changed(epochs=0), 90 / 3),
        (changed(train_size=100), 2 * 100 + 2 * 90 / 3),
        (changed(epochs=3, max_steps=50), 50 * 16 + 2 * 90 / 3),
        (changed(epochs=1, max_steps=1), 16 + 90 / 3),
    ],
)
def test_work_counts_examples_that_are_trained_and_scored(run: Run, examples: float) -> None:
    sizes = {"train": run.task.train_size or 400, "eval": 30, "test": 60}
    assert work(run.train.epochs, run.train.batch_size, run.train.max_steps, sizes) == pytest.approx(examples)
    assert expected([run], [timing(7.0, 100.0)]) == pytest.approx(7 * examples / 100)


@pytest.mark.parametrize(
    ("timings", "seconds"),
    [
        ([], None),
        ([timing(5.0, 860.0, model=("other", ""))], None),
        ([timing(5.0, 860.0, model=("tiny_bert", "another digest"))], None),
        ([timing(5.0, 860.0, task="movies")], 5.0),
        ([timing(5.0, 860.0, task="movies"), timing(9.0, 860.0)], 9.0),
        ([timing(5.0, 860.0, method="full"), timing(9.0, 860.0)], 9.0),
        ([timing(5.0, 860.0, is_here=False), timing(9.0, 860.0, task="movies")], 9.0),
        ([timing(5.0, 860.0, is_whole=False), timing(9.0, 860.0)], 9.0),
        ([timing(5.0, 860.0), timing(8.0, 2 * 860.0), timing(99.0, 860.0)], 5.0),
    ],
)
def test_what_resembles_a_run_most_tells_its_time_and_one_outlier_nothing(
    timings: list[Timing], seconds: float | None
) -> None:
    assert expected([changed()], timings) == (None if seconds is None else pytest.approx(seconds))


def test_runs_take_the_sum_and_an_unknown_one_the_mean_of_the_others() -> None:
    unknown = replace(RUN, model=replace(RUN.model, name="other"))
    known = [timing(10.0, 860.0)]
    assert expected([changed(), changed(epochs=4)], known) == pytest.approx(10 + 20)
    assert expected([changed(), changed(epochs=4), unknown], known) == pytest.approx(45)


def test_a_store_tells_of_finished_runs_and_of_the_first_steps_of_those_under_way(tmp_path: Path) -> None:
    """A run of another sweep took 12 s; one under way 3 s for 50 examples: 860 of them would be 51.6 s."""
    done, going = job("qv", 2, 1), job("q", 2, 0)
    sizes = {split: {"n": n, "labels": {"0": n}} for split, n in (("train", 400), ("eval", 30), ("test", 60))}
    epochs = done.resolved.run.train.epochs
    write_run(tmp_path, done, [(0.5, 0.5)], data=sizes, run_seconds=5.0, train_seconds=12.0)  # resumed: 12 s in all
    write_status(tmp_path, going, "running")
    folder = tmp_path / "runs" / going.run_id
    rows = [
        {"step": 1, "loss": 1.0, "examples": 16, "wall_time_s": 2.0},
        {"step": 3, "loss": 1.0, "examples": 50, "wall_time_s": 3.0},
    ]
    (folder / "metrics.jsonl").write_text(
        "\n".join(map(json.dumps, [*rows, {"step": 3, "epoch": 1, "eval/accuracy": 0.5}]))
    )
    timings = Timings(tmp_path)
    assert [found.seconds for found in timings.of([RUN], {})] == [12.0]
    known = timings.of([RUN], {going.run_id: going.resolved.run})
    assert [found.seconds for found in known] == [12.0, 3.0]
    assert expected([changed(epochs=epochs)], known) == pytest.approx(12)
    steps = [found for found in known if not found.is_whole]
    assert expected([changed()], steps) == pytest.approx(3 * 860 / 50)
    (tmp_path / "runs" / done.run_id / "status.json").write_text(
        json.dumps({"state": "finished", "host": socket.gethostname()})
    )
    assert [found.is_here for found in Timings(tmp_path).of([RUN], {})] == [True]


def test_records_that_say_no_time_are_left_out(tmp_path: Path) -> None:
    write_run(tmp_path, job("q", 1, 0), [(0.5, 0.5)], run_seconds=None)
    write_status(tmp_path, job("q", 2, 0), "interrupted")
    assert Timings(tmp_path).of([RUN], {job("q", 2, 0).run_id: RUN}) == []
