"""load_runs: finished runs are rows, what does not count is told."""

import json
from pathlib import Path

import pytest
from stores import job, write_run, write_status

from analysis import load_runs
from analysis.runs import standing
from lora_repro.errors import InputError


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
    assert standing(tmp_path, job("q", 1, 0).run_id) == (state, "why", None)


def test_a_run_that_says_running_and_that_nobody_computes_is_stale(tmp_path: Path) -> None:
    write_status(tmp_path, job("q", 1, 0), "running")
    state, reason, _ = standing(tmp_path, job("q", 1, 0).run_id)
    assert state == "stale" and reason is not None and "gone without a word" in reason


def test_a_run_without_a_directory_is_to_do(tmp_path: Path) -> None:
    assert standing(tmp_path, job("q", 1, 0).run_id) == ("todo", None, None)


def test_a_damaged_result_is_not_counted_whatever_the_status_says(tmp_path: Path) -> None:
    one = job("q", 1, 0)
    write_status(tmp_path, one, "finished")
    (tmp_path / "runs" / one.run_id / "result.json").write_text(json.dumps([1, 2]))
    state, reason, result = standing(tmp_path, one.run_id)
    assert (state, result) == ("not counted", None)
    assert reason is not None and "does not count" in reason
