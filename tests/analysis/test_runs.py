"""load_runs: finished runs are rows, what does not count is told."""

import json
import re
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from helpers.handmade_runs import job, write_run, write_status
from helpers.section7_runs import write_toy
from helpers.waiting import touch

from analysis import load_runs
from analysis.adapters import read
from analysis.diff import recorded
from analysis.runs import run_status
from lora_repro.errors import InputError
from lora_repro.mirror.tracked_run import state_of
from lora_repro.store.adapter_identity import identify_adapter
from lora_repro.store.finished_runs import finished
from lora_repro.store.lock import Lock


def test_a_finished_run_is_a_row_with_dotted_columns(tmp_path: Path) -> None:
    one = job("qv", 2, 1)
    write_run(tmp_path, one, [(0.5, 0.4), (0.7, 0.6)])
    (row,) = load_runs(str(tmp_path)).to_dict("records")
    assert row["run_id"] == one.run_id
    assert (row["method.r"], row["method.targets"], row["seed"]) == (2, ["q", "v"], 1)
    assert (row["task.name"], row["train.dtype"]) == ("generated", "fp32")
    assert (row["eval/accuracy"], row["test/accuracy"]) == (0.7, 0.6)
    assert (row["params.method"], row["params.by_module"]) == (10, {"layers.0.q": 10})
    assert row["flags.one_class"] is False
    assert (row["provenance.commit"], row["run_seconds"]) == ("0123456789abcdef", 2.0)
    assert [epoch["eval/accuracy"] for epoch in row["metrics_by_epoch"]] == [0.5, 0.7]


def test_what_does_not_count_is_no_row_but_told(tmp_path: Path) -> None:
    write_run(tmp_path, job("q", 1, 0), [(0.5, 0.5)])
    damaged = write_run(tmp_path, job("q", 1, 1), [(0.5, 0.5)])
    (damaged / "result.json").write_text('{"schema": 1, "run_id"')
    other = write_run(tmp_path, job("q", 2, 0), [(0.5, 0.5)], schema=99)
    foreign = write_run(tmp_path, job("q", 2, 1), [(0.5, 0.5)], run_id="another")
    write_status(tmp_path, job("qv", 1, 0), "failed", "RuntimeError: no")
    frame = load_runs(tmp_path)
    assert list(frame["run_id"]) == [job("q", 1, 0).run_id]
    problems = frame.attrs["problems"]
    assert len(problems) == 3
    for folder, words in ((damaged, "damaged"), (other, "schema 99"), (foreign, "another")):
        assert any(str(folder) in problem and words in problem for problem in problems)


def test_an_empty_store_has_no_rows_and_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    assert load_runs(tmp_path).empty
    with pytest.raises(InputError, match=r"(?s)no store of runs.*paths\.outputs"):
        load_runs(tmp_path / "elsewhere")


@pytest.mark.parametrize("state", ["failed", "diverged", "interrupted"])
def test_a_run_without_a_result_stands_as_its_status_says(tmp_path: Path, state: str) -> None:
    write_status(tmp_path, job("q", 1, 0), state, "why")
    assert run_status(tmp_path, job("q", 1, 0).run_id) == (state, "why", None)


def test_a_run_that_says_running_and_that_nobody_computes_is_stale(tmp_path: Path) -> None:
    write_status(tmp_path, job("q", 1, 0), "running")
    state, reason, _ = run_status(tmp_path, job("q", 1, 0).run_id)
    assert state == "stale" and reason is not None and "ended without a message" in reason


def test_a_run_without_a_directory_is_to_do(tmp_path: Path) -> None:
    assert run_status(tmp_path, job("q", 1, 0).run_id) == ("todo", None, None)


def test_a_damaged_result_is_not_counted_whatever_the_status_says(tmp_path: Path) -> None:
    one = job("q", 1, 0)
    write_status(tmp_path, one, "finished")
    (tmp_path / "runs" / one.run_id / "result.json").write_text(json.dumps([1, 2]))
    state, reason, result = run_status(tmp_path, one.run_id)
    assert (state, result) == ("not counted", None)
    assert reason is not None and "does not count" in reason


@pytest.mark.parametrize(("ago", "told"), [(10_000, r"\(2 h 47 min ago\)"), (-10_000, r"\(2 h 47 min ahead of this")])
def test_of_another_machine_it_is_said_when_its_lock_was_last_touched(tmp_path: Path, ago: int, told: str) -> None:
    one = job("q", 1, 0)
    write_status(tmp_path, one, "running")
    lock = tmp_path / "runs" / one.run_id / "lock"
    owner = replace(Lock(lock).owner, host="node17", machine="another boot", pid=4242)
    lock.write_text(json.dumps(asdict(owner)))
    touch(lock, time.time() - ago)
    state, reason, _ = run_status(tmp_path, one.run_id)
    assert state == "running" and reason is not None
    assert re.match(rf"by process 4242 on node17; its lock was last touched 20\d\d-\d\d-\d\d .* {told}", reason)
    assert "takes the run over once the lock has not been touched for 120 s" in reason


def test_of_a_run_whose_process_is_gone_it_is_said_since_when_nothing_was_heard(tmp_path: Path) -> None:
    one = job("q", 1, 0)
    write_status(tmp_path, one, "running")
    folder = tmp_path / "runs" / one.run_id
    (folder / "metrics.jsonl").touch()
    moment = time.time() - 600
    touch(folder / "status.json", moment - 3600)
    touch(folder / "metrics.jsonl", moment)
    state, reason, _ = run_status(tmp_path, one.run_id)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
    assert state == "stale" and reason is not None and f"it last wrote something {when} (10 min ago)" in reason


def test_of_a_process_here_that_is_silent_it_is_said_since_when(tmp_path: Path) -> None:
    one = job("q", 1, 0)
    write_status(tmp_path, one, "running")
    lock = Lock(tmp_path / "runs" / one.run_id / "lock")
    lock.acquire()
    assert run_status(tmp_path, one.run_id).reason == f"by {lock.owner}"
    touch(lock.path, time.time() - 600)  # as of a process that was stopped
    assert "; it last touched its lock 20" in str(run_status(tmp_path, one.run_id).reason)
    lock.release()


@pytest.mark.parametrize("target", ["elsewhere/best", "elsewhere/{id}"])
def test_a_run_directory_that_is_a_link_is_one_run_to_every_command(tmp_path: Path, target: str) -> None:
    """A link by another name stands for the run it leads to; one that is called as a run stands for that run."""
    one, other = job("q", 1, 0), job("q", 1, 1)
    folder = write_toy(tmp_path, one)
    away = tmp_path / target.format(id=one.run_id)
    away.parent.mkdir()
    folder.rename(away)
    folder.symlink_to(away)
    best = tmp_path / "best"
    best.symlink_to(folder)
    (tmp_path / "runs" / other.run_id).symlink_to(folder)
    (tmp_path / "runs" / "latest").symlink_to(folder)
    assert run_status(tmp_path, one.run_id).state == "finished"
    assert list(load_runs(tmp_path)["run_id"]) == [one.run_id]
    names = [str(folder)] + ([str(best)] if away.name == one.run_id else [])
    for name in names:
        assert recorded(name, "").result["run_id"] == one.run_id
        assert read(name).name == one.run_id
        assert finished(Path(name))["run_id"] == one.run_id
        (Path(name) / "config.yaml").touch()
        assert identify_adapter(name) == one.run_id
        assert state_of(Path(name)) == "finished"
    foreign = tmp_path / "runs" / other.run_id
    assert run_status(tmp_path, other.run_id).state == "not counted"
    for command in (lambda: recorded(str(foreign), ""), lambda: read(str(foreign)), lambda: finished(foreign)):
        with pytest.raises(InputError, match=f"it is the result of {one.run_id}"):
            command()
    assert state_of(foreign) == "todo"
