"""The tracker shows what the record holds, and nothing that it does costs a run."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest
import yaml
from helpers.fake_trackers import FAKES, HANGS_S, RECORDER, tracker
from helpers.mirrored_records import LINES, write_record
from helpers.waiting import PATIENCE_S, wait_for

from lora_repro.config.resolve import resolve
from lora_repro.config.settings import Mirror, Tracker
from lora_repro.mirror import notify, process
from lora_repro.mirror.tracked_run import TrackedRun
from lora_repro.training.job import run_job

WANDB = Path(sys.executable).parent / "wandb"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(notify, "CLOSE_WAIT_S", PATIENCE_S)  # a tracker that works ends by itself, however late
    yield
    notify.close()


def read_back(store: Path) -> list[dict[str, Any]]:
    """Returns what `wandb leet inspect` reads in the one offline folder of a store."""
    (folder,) = (store / "wandb").glob("offline-run-*")
    command = [str(WANDB), "leet", "inspect", "--json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def tags_of(store: Path, group: str) -> list[str]:
    """Returns the tags of a run whose group was given and that is of no sweep."""
    folder, _ = write_record(store)
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["circumstances"]["sweep"], config["circumstances"]["log"]["group"] = None, group
    path.write_text(yaml.safe_dump(config))
    assert mirrored_again(str(folder)).returncode == 0
    (run,) = (record["run"] for record in read_back(store) if record["type"] == "run")
    return run["tags"]


def mirrored_again(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lora_repro.mirror", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_wandb_reads_back_the_numbers_of_the_record(tmp_path: Path) -> None:
    folder, settings = write_record(tmp_path)
    notify.begin(folder, settings)
    notify.end(folder, settings)
    notify.close()
    records = read_back(tmp_path)
    (run,) = (record["run"] for record in records if record["type"] == "run")
    assert run["run_id"] == run["display_name"] == folder.name
    assert (run["project"], run["run_group"], run["job_type"]) == ("lora_repro", "table6-smoke", "lora")
    assert run["tags"] == ["tiny_bert", "generated", "lora", "smoke"]
    assert "smoke" not in tags_of(tmp_path / "typed", group="tiny_bert generated lora")  # which have no scale
    config = run["config"]["update"]
    method = {"name": "lora", "targets": ["q"], "r": 1, "alpha": 8, "dropout": 0, "init": "kaiming"}
    assert method.items() <= config["method"].items()
    assert config["seed"] == 0
    history = {
        record["history"]["step"]["num"]: record["history"]["item"] for record in records if record["type"] == "history"
    }
    assert sorted(history) == [2, 4]
    for step in history:
        expected = LINES[step - 2] | LINES[step - 1]
        assert {key: history[step][key] for key in expected if key != "step"} == {
            key: value for key, value in expected.items() if key != "step"
        }
    summary: dict[str, Any] = {}
    for record in records:
        summary |= record.get("summary", {}).get("update", {})
    assert summary["eval/accuracy"] == 0.75 and summary["test/accuracy"] == 0.7 and summary["state"] == "finished"
    assert summary["params.method"] == 10 and summary["params.trainable"] == 30
    (artifact,) = (record["artifact"] for record in records if record["type"] == "artifact")
    assert (artifact["name"], artifact["type"]) == (folder.name, "adapter")
    assert [entry["path"] for entry in artifact["manifest"]["contents"]] == ["adapter_model.safetensors"]
    assert next(record["exit"]["exit_code"] for record in records if record["type"] == "exit") == 0


def test_a_run_mirrored_twice_has_one_folder(tmp_path: Path) -> None:
    folder, settings = write_record(tmp_path)
    for _ in range(2):
        notify.begin(folder, settings)
        notify.end(folder, settings)
        notify.close()
    done = mirrored_again(str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 1


def test_curves_over_time_have_the_records_seconds_whenever_they_are_mirrored(tmp_path: Path) -> None:
    """W&B's own clock says when a line was mirrored: all of them in one instant."""
    times = {2: 10.0, 4: 26.0}
    lines = [line | ({"wall_time_s": times[line["step"]]} if "loss" in line else {}) for line in LINES]
    folder, _ = write_record(tmp_path, lines=lines)
    status = {"state": "finished", "updated": 1_700_000_000.0}
    (folder / "status.json").write_text(json.dumps(status))
    mirrored_again(str(folder))
    records = read_back(tmp_path)
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert [(row["wall_time_s"], row["_timestamp"]) for row in rows] == [(10, 1_699_999_984), (26, 1_700_000_000)]
    summary = {key: value for record in records for key, value in record.get("summary", {}).get("update", {}).items()}
    assert summary["run_seconds"] == 2.0


def test_a_line_of_scores_has_the_time_of_the_step_before_it(tmp_path: Path) -> None:
    folder, _ = write_record(tmp_path)
    mirrored = object.__new__(TrackedRun)
    mirrored.folder = folder
    assert [line["wall_time_s"] for line in mirrored._lines()] == [0.1, 0.1, 0.2, 0.2]


def test_a_name_and_a_group_that_are_given_stand_beside_the_id(tmp_path: Path) -> None:
    folder, _ = write_record(tmp_path)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["circumstances"]["log"] |= {"name": "r=1 seed=0", "group": "tiny_bert generated lora: r seed"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    mirrored_again(str(folder))
    (run,) = (record["run"] for record in read_back(tmp_path) if record["type"] == "run")
    assert (run["run_id"], run["display_name"], run["run_group"]) == (
        folder.name, "r=1 seed=0", "tiny_bert generated lora: r seed",
    )  # fmt: skip


TRACKIO = """
import json, os
kept = os.environ["TOLD"]
def read():
    with open(kept) as file:
        return json.loads(file.read() or "[]")
def write(runs):
    with open(kept, "w") as file:
        json.dump(runs, file)
class Old:
    def __init__(self, name): self.name = name
    def delete(self): write([run for run in read() if run[0] != self.name])
class Api:
    def runs(self, project):
        if not read():
            raise ValueError(f"Project '{project}' does not exist")
        return (Old(name) for name in {name for name, *_ in read()})
class Run:
    def __init__(self, name): self.name = name
    def log(self, line, step): write(read() + [[self.name, step, sorted(line)]])
    def finish(self): pass
def init(project, name, config, group, resume):
    return Run(name)
"""


def test_a_run_mirrored_again_to_trackio_has_each_line_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [write_record(tmp_path, seed=seed)[0] for seed in (0, 1)]
    for folder in folders:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["circumstances"]["log"]["tracker"] = "trackio"
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "trackio.py").write_text(TRACKIO)
    with tracker("", tmp_path, monkeypatch) as told:
        for _ in range(2):
            done = mirrored_again(str(tmp_path))
            assert done.returncode == 0, done.stderr
        rows = json.loads(told.read_text())
    assert sorted(name for name, *_ in rows) == sorted(folder.name for folder in folders for _ in LINES)
    assert sorted(step for name, step, _ in rows if name == folders[0].name) == [2, 2, 4, 4]


@pytest.mark.skipif(find_spec("trackio") is not None, reason="trackio is installed here")
def test_a_tracker_that_is_not_installed_is_told_with_the_command_that_installs_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder, settings), (other, _) = (write_record(tmp_path, seed=seed) for seed in (0, 1))
    for each in (folder, other):
        config = yaml.safe_load((each / "config.yaml").read_text())
        config["circumstances"]["log"]["tracker"] = "trackio"
        (each / "config.yaml").write_text(yaml.safe_dump(config))
    settings = replace(settings, log=replace(settings.log, tracker=Tracker.trackio))
    for each in (folder, other):
        notify.begin(each, settings)
        notify.end(each, settings)
    notify.close()
    words = "trackio is not installed. Install it: pip install trackio"
    assert (
        f"2 runs are recorded completely, but not mirrored ({words}).\n"
        f"Mirror them: python -m lora_repro.mirror {tmp_path}" in caplog.text
    )
    done = mirrored_again(str(folder))
    assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr


def test_an_interrupted_run_is_not_mirrored_before_it_has_ended(tmp_path: Path) -> None:
    folder, settings = write_record(tmp_path)
    (folder / "result.json").unlink()
    (folder / "status.json").write_text('{"state": "interrupted"}')
    notify.begin(folder, settings)
    notify.end(folder, settings)
    notify.close()
    assert not list((tmp_path / "wandb").glob("offline-run-*"))
    done = mirrored_again(str(folder))
    assert done.returncode == 1 and "it is interrupted" in done.stderr


@pytest.mark.parametrize("fake", FAKES)
def test_a_tracker_that_fails_or_hangs_blocks_nothing_and_is_told(
    fake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notify, "CLOSE_WAIT_S", 2.0)
    folder, settings = write_record(tmp_path)
    with tracker(FAKES[fake], tmp_path, monkeypatch):
        began = time.monotonic()
        for _ in range(300):
            notify.begin(folder, settings)
            notify.end(folder, settings)
        notify.close()
        assert time.monotonic() - began < HANGS_S / 4
    assert "1 run is recorded completely, but not mirrored" in caplog.text
    assert f"python -m lora_repro.mirror {folder}" in caplog.text


def test_the_other_runs_are_mirrored_when_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bad, settings = write_record(tmp_path)
    good, _ = write_record(tmp_path, seed=1)
    (bad / "config.yaml").write_text("run: [")
    with tracker(RECORDER, tmp_path, monkeypatch) as told:
        for folder in (bad, good):
            notify.begin(folder, settings)
            notify.end(folder, settings)
        notify.close()
    assert f'"init", "{good.name}"' in told.read_text()
    assert str(bad) in caplog.text and str(good) not in caplog.text


def test_online_without_network_ends_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notify, "CLOSE_WAIT_S", 3.0)
    folder, settings = write_record(tmp_path, "online")
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections, and never answers
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
        began = time.monotonic()
        notify.begin(folder, settings)
        notify.end(folder, settings)
        notify.close()
        assert time.monotonic() - began < HANGS_S / 4
    assert "1 run is recorded completely, but not mirrored" in caplog.text


def test_online_a_run_is_followed_and_no_step_is_logged_twice_when_it_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, settings = write_record(tmp_path, "online", LINES[:3])
    result = (folder / "result.json").read_text()
    (folder / "result.json").unlink()
    lines = [json.dumps(line) + "\n" for line in LINES]
    with tracker(RECORDER, tmp_path, monkeypatch) as told:
        notify.begin(folder, settings)
        wait_for(lambda: told.read_text().count('"log"') >= 3)
        (folder / "metrics.jsonl").write_text("".join(lines[:1]))  # as a checkpoint left it
        time.sleep(2.5)
        (folder / "metrics.jsonl").write_text("".join(lines) + '{"step": 5, "half')
        (folder / "result.json").write_text(result)
        notify.end(folder, settings)
        notify.close()
    words = [json.loads(line) for line in told.read_text().splitlines()]
    assert words[0] == ["init", folder.name, "online", "allow"]
    assert [(word[1], "loss" in word[2]) for word in words if word[0] == "log"] == [
        (2, True), (2, False), (4, True), (4, False),
    ]  # fmt: skip
    assert words[-2:] == [["artifact"], ["finish", 0]]


@pytest.mark.parametrize("broken", ['{"step": 3, "half', "null", '{"epoch": 1}', '{"step": "3"}', "[" * 100_000])
def test_a_line_that_cannot_be_read_is_told_and_the_others_are_mirrored(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, settings = write_record(tmp_path)
    lines = [json.dumps(line) for line in LINES]
    (folder / "metrics.jsonl").write_text("\n".join([*lines[:2], broken, *lines[2:]]) + "\n")
    with tracker(RECORDER, tmp_path, monkeypatch) as told:
        done = mirrored_again(str(folder))
        words = [json.loads(line) for line in told.read_text().splitlines()]
        notify.begin(folder, settings)
        notify.end(folder, settings)
        notify.close()
    assert done.returncode == 1
    assert f"{folder.name}: mirrored except for line 3 of {folder}/metrics.jsonl, which cannot be read" in done.stderr
    assert [word[1] for word in words if word[0] == "log"] == [2, 2, 4, 4]
    assert "1 run is recorded completely, but not mirrored" in caplog.text
    assert "mirrored except for line 3 of" in (tmp_path / "wandb" / "mirror.log").read_text()


def test_a_real_run_is_mirrored_and_off_starts_nothing(tiny: Any, tmp_path: Path) -> None:
    run_job(tiny("log.wandb=off"))
    assert not (tmp_path / "wandb").exists()
    cfg = tiny("log.wandb=offline", "seed=1")
    metrics = run_job(cfg)
    notify.close()
    summary: dict[str, Any] = {}
    for record in read_back(tmp_path):
        summary |= record.get("summary", {}).get("update", {})
    assert {key: summary[key] for key in metrics} == metrics
    assert resolve(cfg).settings.log.wandb is Mirror.offline


def test_a_killed_training_process_leaves_no_helper(tmp_path: Path) -> None:
    code = f"""
import sys, time
sys.path[:0] = {[str(Path(__file__).parents[1])]!r}
from pathlib import Path
from helpers.mirrored_records import write_record
from lora_repro.mirror import notify
notify.CLOSE_WAIT_S = 1.0
folder, settings = write_record(Path({str(tmp_path)!r}))
notify.begin(folder, settings)
print(notify._process.process.pid, flush=True)
time.sleep(600)
"""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "wandb.py").write_text(FAKES["hangs"])
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "fake")}
    training = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert training.stdout is not None
    helper = psutil.Process(int(training.stdout.readline()))
    training.send_signal(signal.SIGKILL)
    training.communicate()
    helper.wait(timeout=HANGS_S / 4)


def test_records_are_mirrored_from_the_command_line(tmp_path: Path) -> None:
    folder, _ = write_record(tmp_path)
    done = mirrored_again(str(folder), "--project", "other")
    assert done.returncode == 0 and f"{folder.name}: mirrored" in done.stderr, done.stderr
    (run,) = (record["run"] for record in read_back(tmp_path) if record["type"] == "run")
    assert run["project"] == "other"
    shutil.rmtree(folder)
    done = mirrored_again(str(folder))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"mirror: no run {folder}: neither a directory nor an id in outputs/runs" in done.stderr


def test_runs_are_named_by_a_store_its_folder_or_their_ids_and_what_cannot_be_mirrored_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    restored, _ = write_record(tmp_path / "outputs")
    whole, _ = write_record(tmp_path / "outputs", seed=1)
    for name in ("config.yaml", "metrics.jsonl"):
        (restored / name).unlink()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(process, "environment", lambda _: {})
    monkeypatch.setattr(process, "TrackedRun", Mock(**{"return_value.unreadable_lines.return_value": ""}))

    def told(*given: str) -> tuple[int, list[str]]:
        return process.main(given), capsys.readouterr().err.splitlines()

    not_here = f"{restored.name}: not mirrored, it has no config.yaml and no curves here (restored from a ledger)."
    for given in ("outputs", "outputs/runs", str(whole.parent)):
        assert told(given) == (0, [not_here, f"{whole.name}: mirrored"])
    for given in (whole.name, str(whole), str(whole / "adapter")):
        assert told(given) == (0, [f"{whole.name}: mirrored"])
    assert told(restored.name, whole.name) == (1, [not_here, f"{whole.name}: mirrored"])
    code, lines = told(whole.name, "--runs", "empty")
    assert code == 1 and f"no run {whole.name}: neither a directory nor an id in empty/runs" in lines[0]
    code, lines = told("empty", "nowhere", whole.name)
    assert code == 1 and lines[0] == "Error: mirror: empty is no run and holds none."
    assert lines[2].startswith("Error: mirror: no run nowhere") and lines[-1] == f"{whole.name}: mirrored"
