import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.computed_runs import record_of
from helpers.fixture_types import Compose

from lora_repro.config.resolve import resolve
from lora_repro.config.settings import LogConfig
from lora_repro.errors import InputError, MissingInputError
from lora_repro.store.record import Record
from lora_repro.store.result import SCHEMA, read_result
from lora_repro.store.status import State
from lora_repro.sweep import campaign
from lora_repro.sweep.campaign import Launcher, plan
from lora_repro.sweep.grid import Job, Sweep
from lora_repro.training import train
from lora_repro.training.job import run_job


def test_a_finished_run_is_never_computed_twice(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = run_job(tiny())
    monkeypatch.setattr("lora_repro.training.train.train", lambda *_: pytest.fail("computed twice"))
    assert run_job(tiny("log.level=warning")) == metrics


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is damaged and does not count"),
        ('{"schema": 1, "run_id": "x"', "is damaged and does not count"),
        ("[]", "has schema None"),
        (json.dumps({"schema": 2, "run_id": "x"}), "has schema 2, this version reads 1"),
        (json.dumps({"schema": 1, "run_id": "x", "config": {}}), "has no metrics"),
    ],
)
def test_a_result_that_does_not_parse_or_belong_here_does_not_count(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "result.json").write_text(text)
    found = read_result(tmp_path / "x")
    assert found.result is None and found.problem is not None and problem in found.problem
    assert read_result(tmp_path / "y") == (None, None, False)


def test_a_damaged_result_is_kept_aside_and_computed_anew(tiny: Compose) -> None:
    metrics = run_job(tiny())
    record = record_of(tiny())
    path = record.folder / "result.json"
    path.write_text(path.read_text()[:300])
    assert record.state is State.todo
    assert run_job(tiny()) == metrics
    assert (record.folder / "result.json.damaged").exists() and record.state is State.finished


def test_a_directory_of_another_schema_is_left_as_it_is(tiny: Compose) -> None:
    run_job(tiny())
    path = record_of(tiny()).folder / "result.json"
    path.write_text(path.read_text().replace(f'"schema": {SCHEMA}', '"schema": 99', 1))
    before = {file: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}
    with pytest.raises(InputError, match=r"(?s)has schema 99.* it is left as it is"):
        run_job(tiny())
    assert {file: file.read_bytes() for file in before} == before


def test_an_interrupted_run_says_so_and_is_attempted_again(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lora_repro.training.train.train_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_job(tiny())
    record = record_of(tiny())
    assert record.state is State.interrupted
    run_job(tiny())
    assert json.loads((record.folder / "status.json").read_text())["attempts"] == 2


def test_the_result_is_written_last(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (written.append(Path(b).name), replace(a, b))[1])
    run_job(tiny())
    others = {path.name for path in record_of(tiny()).folder.iterdir()} - {"result.json", "status.json"}
    assert written[-2:] == ["result.json", "status.json"] and "predictions.parquet" in others


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_store_is_refused(tiny: Compose, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir(mode=0o500)
    with pytest.raises(InputError, match="cannot be written"):
        run_job(tiny())


def test_a_store_that_is_a_file_is_refused(tiny: Compose, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        run_job(tiny())


def test_a_full_disk_interrupts_the_run_and_loses_nothing(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    from lora_repro.errors import RunFailedError

    other = run_job(tiny("seed=1"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def full_from_now_on(*_: object) -> None:
        patch.setattr("lora_repro.store.files.write_atomically", full)
        full()

    with monkeypatch.context() as patch:
        patch.setattr(Record, "save_predictions", full)
        with pytest.raises(RunFailedError, match="No space left on device"):
            run_job(tiny())
        assert record_of(tiny()).state is State.interrupted
        patch.setattr(Record, "save_predictions", full_from_now_on)
        with pytest.raises(RunFailedError, match="No space left on device"):
            run_job(tiny())
        with pytest.raises(InputError, match="cannot be written"):
            run_job(tiny("seed=2"))
    assert record_of(tiny("seed=1")).read().result["metrics"] == other  # pyright: ignore
    run_job(tiny())
    assert record_of(tiny()).state is State.finished


def unreadable(path: Path, how: str, patch: pytest.MonkeyPatch) -> None:
    """Makes a whole result one that cannot be read here."""
    if how == "link":
        path.rename(path.with_name("away"))
        path.symlink_to(path.with_name("nowhere"))
        return
    opened = os.open

    def refuse(name: Any, *more: Any, **named: Any) -> int:  # as root reads all, chmod alone shows nothing there
        if Path(name) == path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(name))
        return opened(name, *more, **named)

    patch.setattr(os, "open", refuse)


@pytest.mark.parametrize("how", ["denied", "link"])
def test_a_whole_result_that_cannot_be_read_is_left_and_told(
    how: str, tiny: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = run_job(tiny())
    record = record_of(tiny())
    path = record.folder / "result.json"
    with monkeypatch.context() as patch:
        unreadable(path, how, patch)
        before = sorted(record.folder.iterdir())
        assert record.state is State.blocked
        patch.setattr("lora_repro.training.train.train", lambda *_: pytest.fail("computed again"))
        with pytest.raises(
            InputError, match=r"(?s)result\.json .*(Permission denied|nowhere, which is not there).*left as it is"
        ):
            run_job(tiny())
        sweep = Sweep([Job([], record.run_id, resolve(tiny()), {})], [])
        begun = plan(sweep, tiny().paths.outputs)
        assert begun.to_run == [] and "1 blocked by a result.json that does not count" in begun.describe()
        with pytest.raises(SystemExit):
            launcher = Launcher(lambda *_, **__: pytest.fail("launched"), lambda _: pytest.fail("computed"))
            campaign.run(lambda: sweep, tiny().paths.outputs, LogConfig(), launcher)
        assert "Not finished" in caplog.text
        assert sorted(record.folder.iterdir()) == before
    if how == "link":
        path.unlink()
        path.with_name("away").rename(path)
    assert run_job(tiny()) == metrics


@pytest.mark.parametrize(("other", "words"), [(0.0, "are the same"), (0.25, "differ: eval/accuracy after epoch 1 is")])
def test_a_result_that_another_process_wrote_meanwhile_stays(
    other: float, words: str, tiny: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run_job(tiny("log.wandb=off"))
    folder = record_of(tiny()).folder
    result = json.loads((folder / "result.json").read_text())
    if other:
        for row in (*result["metrics_by_epoch"], result["metrics"]):
            row["eval/accuracy"] = other
    theirs = {"result.json": json.dumps(result).encode(), "predictions.parquet": b"theirs"}
    shutil.rmtree(folder)
    trained = train.score_epoch

    def slower(*arguments: Any) -> None:
        trained(*arguments)
        for name, content in theirs.items():
            (folder / name).write_bytes(content)
        (folder / "adapter").mkdir(exist_ok=True)
        (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"theirs")

    monkeypatch.setattr(train, "score_epoch", slower)
    assert run_job(tiny()) == result["metrics"]
    assert {name: (folder / name).read_bytes() for name in theirs} == theirs
    assert (folder / "adapter" / "adapter_model.safetensors").read_bytes() == b"theirs"
    assert record_of(tiny()).is_tidy
    assert "finished by another process meanwhile" in caplog.text and f"its metrics {words}" in caplog.text


def test_a_refused_run_does_not_take_a_result_away_that_came_meanwhile(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = record_of(tiny()).folder

    def refused(*_: object) -> None:
        (folder / "result.json").write_text("another process's")
        raise MissingInputError("weights: none")

    monkeypatch.setattr("lora_repro.training.train.train", refused)
    with pytest.raises(MissingInputError):
        run_job(tiny())
    assert (folder / "result.json").read_text() == "another process's"


def test_a_first_attempt_that_is_refused_after_it_began_keeps_its_checkpoint(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a file of the data is found to have changed when it is read again."""

    def refused(*_: object) -> None:
        raise MissingInputError("data: gone")

    with monkeypatch.context() as patch:
        patch.setattr(train.checks, "flags", refused)
        with pytest.raises(MissingInputError):
            run_job(tiny("log.checkpoint_every_s=0"))
    record = record_of(tiny())
    assert record.state is State.interrupted and "data: gone" in record.status()["error"]
    caplog.set_level("INFO", "lora_repro")
    run_job(tiny())
    assert "goes on from step 8" in caplog.text


def test_the_metrics_of_a_finished_run_are_its_own_lines(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine that took the lock at the same moment adds its lines until it notices."""
    scored, path = train.score_epoch, record_of(tiny()).folder / "metrics.jsonl"

    def with_others(*arguments: Any) -> None:
        scored(*arguments)
        path.write_text(path.read_text() + json.dumps({"step": 1, "epoch": 1, "loss": 9.0}) + "\n")

    monkeypatch.setattr(train, "score_epoch", with_others)
    run_job(tiny())
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 4, 8, 8] and all(line.get("loss") != 9.0 for line in lines)
