"""Ledgers: what they keep, that a store made of one is read as its own, and what is refused."""

import json
import shutil
import threading
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from helpers.claim_stores import write_margin
from helpers.commands import call
from helpers.fixture_types import Captured
from helpers.handmade_runs import fill, jobs, write_run, write_status
from pyarrow import parquet

from analysis.commands.ledger import _ledger
from analysis.runs import load_runs
from analysis.section7.statistics import Statistic, read_statistics, write_statistics
from analysis.store import answers_of, name_of, opened
from lora_repro.errors import InputError, MissingInputError
from lora_repro.store import ledger, statistics_files
from lora_repro.store.answers import Answers
from lora_repro.store.record import Record
from lora_repro.store.status import State

SWEEP = ("+sweeps=table6", "scale=smoke")


def kept(store: Path) -> list[ledger.Row]:
    return ledger.collect(store, [job.run_id for job in jobs()])


def answer(store: Path) -> None:
    """Lets the first run answer 1, 0, 1 to three examples of two documents after an epoch, and 0, 1, 0 after two."""
    examples = [
        {"split": split, "epoch": epoch, "id": row, "label": 0, "prediction": (row + epoch) % 2, "document": row // 2}
        for split in ("eval", "test")
        for epoch in (1, 2)
        for row in range(3)
    ]
    Record(store, jobs()[0].run_id).save_predictions([{**example, "scores": [0.0, 1.0]} for example in examples])


def test_of_test_the_answers_of_the_epoch_best_on_dev_are_kept(tmp_path: Path) -> None:
    write_run(tmp_path, jobs()[0], [(0.9, 0.5), (0.8, 0.6)])
    answer(tmp_path)
    (row,) = ledger.collect(tmp_path, [jobs()[0].run_id])
    assert row.eval == Answers(2, ["0", "0", "0"], ["0", "1", "0"], [0, 0, 1])
    assert row.test == Answers(1, ["0", "0", "0"], ["1", "0", "1"], [0, 0, 1])
    ledger.write(tmp_path / "study.parquet", [row], {"command": "a command"})
    assert ledger.read(tmp_path / "study.parquet").rows == [row]
    with opened(str(tmp_path / "study.parquet")) as store:
        assert answers_of(store, row.run_id, "test", 1) == row.test
        assert answers_of(store, row.run_id, "test", 2) is None  # a ledger has no other epoch
    assert answers_of(tmp_path, row.run_id, "test", 1) == row.test


def test_a_store_made_of_a_ledger_holds_the_same_results_to_the_byte(tmp_path: Path) -> None:
    fill(tmp_path / "a")
    answer(tmp_path / "a")
    path = tmp_path / "study.parquet"
    ledger.write(path, kept(tmp_path / "a"), {"command": "a command"})
    found = ledger.read(path)
    assert found.about == {"command": "a command"} and len(found.rows) == len(jobs())
    assert found.rows == kept(tmp_path / "a")
    first = next(row for row in found.rows if row.run_id == jobs()[0].run_id)
    assert first.eval == Answers(2, ["0", "0", "0"], ["0", "1", "0"], [0, 0, 1])  # the last epoch's
    assert first.test == first.eval  # of the epoch best on dev, here the last too
    assert len(ledger.restore(found.rows, tmp_path / "b")) == len(jobs())
    for job in jobs():
        record = Record(tmp_path / "b", job.run_id)
        assert record.state is State.finished and record.is_tidy
        assert (
            json.loads((record.folder / "result.json").read_text()) == Record(tmp_path / "a", job.run_id).read().result
        )
    without = [row._replace(eval=None, test=None) for row in found.rows]
    assert kept(tmp_path / "b") == without
    assert ledger.merge(without, found.rows) == found.rows  # written again, it keeps predictions that the store lacks
    other = [first._replace(result='{"metrics": {}}', eval=None, test=None)]
    assert ledger.merge(other, [first]) == other  # but not those of another result


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    fill(tmp_path)
    for name in ("one", "two"):
        ledger.write(tmp_path / f"{name}.parquet", reversed(kept(tmp_path)), {"command": "c"})
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_a_diverged_run_is_kept_and_one_that_is_missing_or_failed_is_not(tmp_path: Path) -> None:
    diverged, failed, finished, *_ = jobs()
    write_status(tmp_path, diverged, "diverged", "the loss is nan")
    write_status(tmp_path, failed, "failed", "no")
    write_run(tmp_path, finished, [(0.5, 0.5)])
    rows = kept(tmp_path)
    assert {(row.run_id, row.state) for row in rows} == {
        (diverged.run_id, "diverged"), (finished.run_id, "finished"),
    }  # fmt: skip
    ledger.restore(rows, tmp_path / "other")
    assert Record(tmp_path / "other", diverged.run_id).state is State.diverged
    assert Record(tmp_path / "other", diverged.run_id).status()["error"] == "the loss is nan"


def test_restoring_leaves_runs_alone_that_the_store_has(tmp_path: Path) -> None:
    first, second, third, *_ = jobs()
    for job in (first, second, third):
        write_run(tmp_path / "a", job, [(0.5, 0.5)])
    write_run(tmp_path / "b", first, [(0.7, 0.7)])
    write_status(tmp_path / "b", second, "failed", "no")
    assert set(ledger.restore(kept(tmp_path / "a"), tmp_path / "b")) == {second.run_id, third.run_id}
    result = Record(tmp_path / "b", first.run_id).read().result
    assert result is not None and result["metrics"]["eval/accuracy"] == 0.7


def test_a_ledger_grows_and_a_finished_run_replaces_one_that_diverged(tmp_path: Path) -> None:
    first, second, *_ = jobs()
    old = ledger.Row(first.run_id, "diverged", None, "no", None, None)
    write_run(tmp_path, first, [(0.5, 0.5)])
    write_run(tmp_path, second, [(0.5, 0.5)])
    merged = ledger.merge([old], kept(tmp_path))
    assert {row.run_id: row.state for row in merged} == {first.run_id: "finished", second.run_id: "finished"}


def test_a_folder_of_ledgers_is_the_store_of_all_their_runs(tmp_path: Path) -> None:
    """Two runs are in one ledger; the second and a third are in the other, where the second scored otherwise."""
    first, second, third, *_ = jobs()
    rho = Statistic("rho", "tiny_bert", "generated", "q", "A", (0,), 0.5, 0.1, "Gaussian", (first.run_id,))
    folder = tmp_path / "ledgers"
    folder.mkdir()
    for name, runs, score in (("a", (first, second), 0.5), ("b", (second, third), 0.75)):
        for job in runs:
            write_run(tmp_path / name, job, [(score, score)])
        path = write_statistics(tmp_path / name, "section7", "smoke", [rho._replace(value=score)], "a command")
        texts = {path.stem: path.read_text()}
        rows = ledger.collect(tmp_path / name, [job.run_id for job in runs])
        ledger.write(folder / f"{name}.parquet", rows, {"command": "a command"}, texts)
    found = load_runs(str(folder)).set_index("run_id")["test/accuracy"].to_dict()
    assert found == {first.run_id: 0.5, second.run_id: 0.5, third.run_id: 0.75}
    with opened(str(folder)) as store:
        assert [each.value for each in read_statistics(store, "section7", "smoke")] == [0.5]
        assert name_of(store) == str(folder)
    (folder / "runs").mkdir()  # then it is a store of its own
    assert ledger.ledgers_of(folder) == []


def test_commands_read_a_ledger_as_they_read_its_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def out(*arguments: str) -> str:
        code, text, words = call(capsys, *arguments)
        assert code == 0, words
        return text

    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "outputs")
    assert "8 runs that ended (8 new)" in out("ledger", "write", "study.parquet", *SWEEP)
    assert "8 runs that ended (0 new)" in out("ledger", "write", "study.parquet", *SWEEP)
    table = ("table", "6", "--scale", "smoke")
    own = out(*table)
    frame = load_runs("outputs")
    shutil.rmtree("outputs")
    assert out(*table, "--runs", "study.parquet") == own
    assert "Store: study.parquet" in out("plan", *SWEEP, "--runs", "study.parquet")
    assert load_runs("study.parquet").equals(frame)
    missing = out("table", "6", "--scale", "smoke", "seed=0,1,2", "--runs", "study.parquet")
    assert "seed=0,1,2`" in missing and "paths.outputs" not in missing
    assert "8 of 8 runs written into outputs" in out("ledger", "restore", "study.parquet")
    assert out("ledger", "restore", "study.parquet") == (
        "0 of 8 runs written into outputs; the others are there already.\n"
    )
    blocked = Path("outputs") / "runs" / jobs()[0].run_id / "result.json"
    whole = blocked.read_text()
    blocked.write_text('{"schema": 99}')
    told = out("ledger", "restore", "study.parquet")
    assert told.startswith("0 of 8 runs written into outputs; the others are there already; kept as they are: ")
    assert f"{jobs()[0].run_id} (" in told
    blocked.write_text(whole)
    assert out(*table) == own


def test_statistics_of_weights_go_with_their_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "outputs")
    own = {"run_ids": [jobs()[0].run_id, "a run that is not there"], "statistics": [{"value": 1 / 3}]}
    statistics_files.write("outputs", "table6-smoke", own)
    statistics_files.write("outputs", "other", {"run_ids": ["a run of another sweep"]})
    (tmp_path / "outputs" / "statistics" / "damaged.json").write_text("{")
    code, text, _ = call(capsys, "ledger", "write", "study.parquet", *SWEEP)
    assert code == 0 and "statistics of weights (table6-smoke)" in text
    with opened("study.parquet") as store:
        assert statistics_files.read(store, "table6-smoke") == own
        assert statistics_files.read(store, "other") == {}
    shutil.rmtree("outputs")
    code, text, _ = call(capsys, "ledger", "restore", "study.parquet")
    assert code == 0 and "and statistics of weights: table6-smoke" in text
    newer = own | {"statistics": []}
    statistics_files.write("outputs", "table6-smoke", newer)
    call(capsys, "ledger", "restore", "study.parquet")
    assert statistics_files.read("outputs", "table6-smoke") == newer  # what a store has is left as it is
    shutil.rmtree(tmp_path / "outputs" / "statistics")
    call(capsys, "ledger", "write", "study.parquet", *SWEEP)
    assert json.loads(ledger.read("study.parquet").statistics["table6-smoke"]) == own  # nor does a ledger lose them


def test_statistics_of_weights_are_merged_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """Two rows that name other runs by the same numbers: what is written or restored last lacks one of them."""
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "outputs")
    first, second = (job.run_id for job in jobs()[:2])
    q = Statistic("rho", "tiny_bert", "generated", "q", "A", (0,), 0.5, 0.1, "random", (second,))
    v = q._replace(where="v", value=0.25, chance=None, run_ids=(first, "a run that is not there"))

    def keep(*found: Statistic) -> None:
        write_statistics("outputs", "section7", "smoke", found, "a command")

    keep(q, v)
    call(capsys, "ledger", "write", "study.parquet")
    again = q._replace(value=0.75, run_ids=(first,))
    keep(again)
    call(capsys, "ledger", "write", "study.parquet")
    call(capsys, "ledger", "write", "ranks.parquet", *SWEEP)
    with opened("ranks.parquet") as store:  # its runs are Section 7's too, which may be computed anew without it
        assert read_statistics(store, "section7", "smoke") == []
    with opened("study.parquet") as store:
        assert read_statistics(store, "section7", "smoke") == [again, v]
    keep(newest := q._replace(value=1.0))
    code, text, _ = call(capsys, "ledger", "restore", "study.parquet")
    assert code == 0 and "and statistics of weights: section7-smoke" in text
    assert read_statistics("outputs", "section7", "smoke") == [newest, v]


def test_two_that_write_one_ledger_at_once_lose_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, each in zip("ab", jobs(), strict=False):
        write_run(tmp_path / name, each, [(0.5, 0.5)])
    path, both, write = tmp_path / "study.parquet", threading.Barrier(2, timeout=1), ledger.write

    def when_both_have_read(*given: Any) -> None:
        with suppress(threading.BrokenBarrierError):  # where one waits for the other
            both.wait()
        write(*given)

    monkeypatch.setattr(ledger, "write", when_both_have_read)
    options = {"action": "write", "file": str(path), "overrides": [], "scale": None, "line": "a command"}
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: _ledger(Namespace(runs=str(tmp_path / name), **options)), "ab"))
    assert {row.run_id for row in ledger.read(path).rows} == {job.run_id for job in jobs()[:2]}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "b", "study.parquet"]


@pytest.mark.parametrize("packed", [b"no base 85\xff", b"abcdefghij", statistics_files.pack({})])
def test_damaged_statistics_are_refused(packed: bytes, tmp_path: Path) -> None:
    path = tmp_path / "study.parquet"
    ledger.write(path, [], {}, {"a": "{}"})
    table = parquet.read_table(path)
    metadata = {**table.schema.metadata, ledger.STATISTICS: packed}
    parquet.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(InputError, match="its statistics are damaged"):
        ledger.read(path)


def test_no_file_outside_of_its_folder_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no name of statistics"):
        statistics_files.restore({"../../etc": "{}"}, tmp_path)


def test_a_ledger_is_no_store_to_write_runs_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one.parquet", "two.parquet"):
        ledger.write(Path(name), [], {})
    code, _, words = call(capsys, "ledger", "restore", "one.parquet", "--runs", "two.parquet")
    assert code != 0 and "--runs is the store, a folder that holds runs/ (given: two.parquet)" in words


def test_a_part_of_a_ledger_has_its_answers_too(tmp_path: Path, capsys: Captured) -> None:
    fill(tmp_path / "a")
    answer(tmp_path / "a")
    whole, part = tmp_path / "whole.parquet", tmp_path / "part.parquet"
    ledger.write(whole, kept(tmp_path / "a"), {})
    code, out, _ = call(capsys, "ledger", "write", part, *SWEEP, "seed=0", "--runs", whole)
    own = {job.run_id for job in jobs() if job.resolved.run.seed == 0}
    assert code == 0 and f"{len(own)} runs that ended" in out
    assert ledger.read(part).rows == [row for row in ledger.read(whole).rows if row.run_id in own]
    assert any(row.test is not None for row in ledger.read(part).rows)


def test_the_ledger_of_a_sweep_that_claims_judge_holds_the_runs_of_their_margin(
    tmp_path: Path, capsys: Captured
) -> None:
    """By hand: three rates, two tuning seeds, LoRA and the head alone."""
    store = tmp_path / "store"
    write_margin(store)
    for sweep, kept_runs in (("table6", 12), ("section7", 12), ("rank_rates", 0)):
        path = tmp_path / f"{sweep}.parquet"
        code, _, words = call(capsys, "ledger", "write", path, f"+sweeps={sweep}", "scale=proxy", "--runs", store)
        assert code == 0, words
        assert len(ledger.read(path).rows) == kept_runs


def test_a_ledger_that_is_not_there_is_not_read_as_an_empty_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, words = call(capsys, "table", "6", "--scale", "smoke", "--runs", "none.parquet")
    assert code != 0 and "none.parquet: there is no such ledger" in words


def test_what_is_no_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.parquet"
    with pytest.raises(MissingInputError, match="no such ledger"):
        ledger.read(path)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="no Parquet file"):
        ledger.read(path)
    parquet.write_table(pyarrow.table({"run_id": ["a"]}), path)
    with pytest.raises(InputError, match="no ledger of version 2"):
        ledger.read(path)
    ledger.write(path, [ledger.Row("../../etc", "finished", "{}", None, None, None)], {})
    with pytest.raises(InputError, match="no run that ended"):
        ledger.read(path)
