"""`report --wandb`: the page is written first, and claims, tables and figures go to the groups of their runs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import call
from helpers.fake_trackers import TELLS, tracker
from helpers.fixture_types import Captured
from helpers.handmade_runs import fill

FAKE = (
    TELLS
    + """
class Table:
    def __init__(self, columns, data): self.said = ["table", columns, len(data)]
class Html:
    def __init__(self, text, inject): self.said = ["html", text[:20]]
class Run:
    def log(self, line, step): say("log", {key: value.said for key, value in line.items()})
    def finish(self, exit_code=0): say("finish", exit_code)
def init(**settings):
    say("init", settings["project"], settings["group"], settings["id"], settings["mode"])
    return Run()
"""
)


def reported(store: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    """Makes a report in a process of its own, whose wandb may be a fake."""
    words = ["report", "--out", str(store / "report.html"), "--runs", str(store), "--scale", "smoke", *more]
    command = [sys.executable, "-m", "analysis", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_each_item_is_logged_in_the_group_of_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store"
    fill(store)
    with tracker(FAKE, tmp_path, monkeypatch) as told:
        done = reported(store, "--wandb", "--project", "mine")
    assert done.returncode == 0, done.stderr
    assert f"Logged to W&B, project mine, offline in {store / 'wandb'}: claims-smoke, " in done.stderr
    lines: list[Any] = [json.loads(line) for line in told.read_text().splitlines()]
    begun = [line[1:] for line in lines if line[0] == "init"]
    assert begun[0] == ["mine", "claims-smoke", "claims-smoke-report", "offline"]
    assert ["mine", "table6-smoke-one_rate", "table6-smoke-one_rate-report", "offline"] in begun
    logged: list[dict[str, Any]] = [line[1] for line in lines if line[0] == "log"]
    assert logged[0]["claims"][0] == "table" and logged[0]["report"] == ["html", "<!doctype html><!-- G"[:20]]
    table = next(each for each in logged if "table6" in each)
    assert table["table6"][1][0] == "targets" and table["table6_figure"][0] == "html"
    assert len(begun) == len(logged) == lines.count(["finish", 0])


def test_a_tracker_that_fails_costs_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store"
    fill(store)
    with tracker("raise RuntimeError('no tracker today')\n", tmp_path, monkeypatch):
        done = reported(store, "--wandb")
    assert done.returncode != 0 and "no tracker today" in done.stderr and "Traceback" not in done.stderr
    assert (store / "report.html").read_text().startswith("<!doctype html>")


def test_a_project_without_a_tracker_is_refused(tmp_path: Path, capsys: Captured) -> None:
    code, _, err = call(capsys, "report", "--out", tmp_path / "x.html", "--project", "mine", "--runs", tmp_path)
    assert code != 0 and "--project" in err and not (tmp_path / "x.html").exists()


@pytest.mark.long
def test_wandb_itself_takes_it_offline(tmp_path: Path) -> None:
    fill(tmp_path)
    assert reported(tmp_path, "--wandb").returncode == 0
    assert reported(tmp_path, "--wandb").returncode == 0  # again: no duplicates
    ids = [path.name.split("-", 3)[-1] for path in (tmp_path / "wandb").glob("offline-run-*")]
    assert {"claims-smoke-report", "table6-smoke-one_rate-report"} <= set(ids) and len(ids) == len(set(ids))
