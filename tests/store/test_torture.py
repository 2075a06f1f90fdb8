"""Nothing is lost: runs and sweeps that are killed, starved of disk or raced end with the store of undisturbed ones."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from helpers.failing_processes import count_calls, in_a_child
from helpers.fixture_types import Compose
from helpers.launched_sweeps import undisturbed
from helpers.store_contents import contents, differences
from helpers.waiting import PATIENCE_S, at_once

from lora_repro.config.catalogue import HOME
from lora_repro.errors import InputError, RunFailedError
from lora_repro.store.record import Record
from lora_repro.store.result import read_result
from lora_repro.tasks import Example, Splits, encoding
from lora_repro.tasks.ratings import RatingsConfig
from lora_repro.training.job import run_job

SHORT = ("task.train_size=32", "log.checkpoint_every_s=0", "paths.outputs=store", "log.snapshots=[0,0.5,1]")
"""Four steps, each with a checkpoint, and four scored splits."""


def rated(config: RatingsConfig, data: object, cache: object) -> Splits:
    """Texts rated by how often they say joy."""
    made = [Example(str(i), "joy " * (i % 5) + "sad", float(i % 5 - 2), str(i)) for i in range(128)]
    return {"train": made[:64], "eval": made[64:96], "test": made[96:]}


@pytest.fixture
def short(tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    """A run into `store` below the present folder; weights and data are in memory already."""
    cfg = tiny(*SHORT, "method=full", "log.save_full=true")
    (tmp_path / "warm").mkdir()
    monkeypatch.chdir(tmp_path / "warm")
    run_job(cfg)
    return partial(run_job, cfg)


def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder / "store"


OTHER_TARGETS = {
    "rating": ("task=movies", "task.target=rating"),
    "text": ("model=tiny_llama", "preset@train=tiny_llama", "task=reverse"),
}


@pytest.mark.parametrize("task", OTHER_TARGETS)
def test_a_killed_run_of_scores_or_texts_ends_as_the_undisturbed_one(
    tiny: Compose, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RatingsConfig, "load", rated)
    monkeypatch.setattr(encoding, "_encoded", {})
    run = partial(run_job, tiny(*SHORT, *OTHER_TARGETS[task], "train.dtype=fp32"))
    whole = in_folder(tmp_path / "whole", monkeypatch)
    run()
    in_folder(tmp_path / "count", monkeypatch)
    total = count_calls(run, tmp_path / "calls")
    killed = in_folder(tmp_path / "killed", monkeypatch)
    assert in_a_child(run, total // 2) == -signal.SIGKILL
    assert list(killed.glob("runs/*/checkpoint")) and not list(killed.glob("runs/*/result.json"))
    assert in_a_child(run) == 0
    assert contents(killed) == contents(whole)


STRIDES = [pytest.param(7), pytest.param(1, marks=pytest.mark.long)]


@pytest.mark.parametrize("stride", [pytest.param(13), pytest.param(1, marks=pytest.mark.long)])
def test_a_kill_at_any_call_leaves_a_store_that_ends_as_the_undisturbed_one(
    short: Callable[[], object], stride: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = in_folder(tmp_path / "whole", monkeypatch)
    total = count_calls(short, tmp_path / "count")
    reference = contents(whole)
    (result,) = (value for name, value in reference.items() if name.endswith("result.json"))
    assert total > 100
    for at in range(1, total + 1, stride):
        store = in_folder(tmp_path / f"killed-{at}", monkeypatch)
        assert in_a_child(short, at) == -signal.SIGKILL, at
        over = [folder for folder in (store / "runs").glob("*") if read_result(folder).result is not None]
        for folder in over:  # finished: then already for good
            assert contents(folder)["result.json"] == result
        assert in_a_child(short) == 0, at
        for folder in over:  # killed after the result: what is left over, the next sweep clears
            Record(store, folder.name).tidy()
        assert contents(store) == reference, at


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize(("how", "once"), [("full", True), ("full", False), ("denied", True)])
def test_a_full_disk_or_lost_permission_at_any_call_costs_nothing_that_is_finished(
    short: Callable[[], object], stride: int, how: str, once: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = in_folder(tmp_path / "whole", monkeypatch)
    total = count_calls(short, tmp_path / "count")
    reference = contents(whole)

    def hurt() -> None:
        try:
            short()
        except (RunFailedError, InputError):
            os._exit(3)  # told in words

    ends = set()
    for at in range(1, total + 1, 3 * stride):
        store = in_folder(tmp_path / f"{how}-{at}", monkeypatch)
        code = in_a_child(hurt, at, how, once)
        assert code in (0, 3), at
        ends.add(code)
        assert in_a_child(short) == 0, at
        Record(store, next((store / "runs").iterdir()).name).tidy()
        assert contents(store) == reference, at
    assert 3 in ends


def sweep(*arguments: str) -> list[str]:
    smoke = ["-m", "+sweeps=table6", "scale=smoke", "paths.outputs=store", "log.checkpoint_every_s=0"]
    return [sys.executable, "-m", "lora_repro", *smoke, *arguments]


def start(command: list[str], folder: Path) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # tests in the background inherit that it is ignored
    environment = os.environ | {"PYTHONPATH": str(HOME)}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder, preexec_fn=heard, env=environment)


@pytest.mark.parametrize(
    ("kills", "more"),
    [
        pytest.param(3, [], marks=pytest.mark.long),
        pytest.param(24, ["seed=0,1,2,3,4,5", "train.epochs=8"], marks=pytest.mark.long),
    ],
)
def test_a_sweep_killed_at_random_ends_with_the_store_of_an_undisturbed_one(
    kills: int, more: list[str], tmp_path: Path
) -> None:
    dice = random.Random(20211)
    command = sweep(*more, "train.dtype=bf16")
    undisturbed(tmp_path / "whole", command)
    done: list[int] = []
    while len(done) < kills:
        number = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[len(done) % 3]
        process = start(command, tmp_path / "killed")
        before = len(list((tmp_path / "killed").glob("store/runs/*")))
        deadline = time.monotonic() + dice.uniform(0.5, 60)
        while len(list((tmp_path / "killed").glob("store/runs/*"))) == before and time.monotonic() < deadline:
            time.sleep(0.01)  # mostly while it computes, now and then while it starts
        time.sleep(dice.uniform(0, 0.6))
        process.send_signal(number)
        _, words = process.communicate(timeout=PATIENCE_S)
        assert process.returncode in (-number, 130), words
        assert "Traceback" not in words
        done.append(process.returncode)
    undisturbed(tmp_path / "killed", command)
    assert differences(tmp_path / "killed" / "store", tmp_path / "whole" / "store") == []
    assert len(contents(tmp_path / "whole" / "store")) > 50
    assert {-signal.SIGKILL, 130} <= set(done)  # Ctrl-C before Python listens ends it as -SIGINT
    attempts = [json.loads(path.read_text())["attempts"] for path in tmp_path.glob("killed/store/runs/*/status.json")]
    assert sum(attempts) > len(attempts)


def test_two_processes_share_a_sweep_and_never_a_run(tmp_path: Path) -> None:
    both = [start(sweep("train.epochs=4"), tmp_path) for _ in range(2)]
    assert set(at_once(tmp_path / "store" / "runs", 2)) == {process.pid for process in both}
    words = [process.communicate(timeout=PATIENCE_S)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], words
    finished = [
        {line.split()[0] for line in text.splitlines() if " finished in " in line and not line.startswith("Sum")}
        for text in words
    ]
    assert len(finished[0] | finished[1]) == 8 and not finished[0] & finished[1]
    assert finished[0] and finished[1]
    statuses = [json.loads(path.read_text()) for path in tmp_path.glob("store/runs/*/status.json")]
    assert [status["attempts"] for status in statuses] == [1] * 8
