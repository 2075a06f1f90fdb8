"""Records of the wrong shape: every command says so in words, none hangs, and no number is made of them."""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from helpers.handmade_runs import job, jobs
from helpers.quick_compose import compose_quickly as compose
from helpers.waiting import PATIENCE_S

from analysis import load_runs
from analysis.adapters import read
from analysis.cells import read_cells
from analysis.diff import differences, recorded
from analysis.items import load_item
from analysis.kinds.scores import ScoreTable
from analysis.render import differences as told
from analysis.render import updates
from analysis.render.printed import markdown
from analysis.render.tables import printed
from analysis.runs import run_status
from analysis.section7.inspection import inspect
from analysis.section7.truncation import truncate
from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.config.settings import Settings
from lora_repro.errors import InputError, RunFailedError
from lora_repro.mirror.tracked_run import state_of
from lora_repro.store.finished_runs import run_of
from lora_repro.store.layout import FILES, FOLDERS
from lora_repro.store.lock import holder, read_owner
from lora_repro.store.reading import MOST_BYTES
from lora_repro.store.record import Record
from lora_repro.store.result import read_result
from lora_repro.store.status import State
from lora_repro.sweep import campaign
from lora_repro.sweep.grid import Sweep
from lora_repro.training.job import run_job

SMALL = ("task.train_size=16", "task.eval_size=8", "task.test_size=8", "train.epochs=1", "compute.device=cpu")
WRONG = [None, "text", "", 7.5, -1, 10**400, True, [], [1], {}, {"a": None}, "\x1b[2J", [[["x"]]]]
"""What stands in the place of each value; some are right there, and then the record is whole."""


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    """Ends a test that waits for the other end of a pipe."""

    def late(*_: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(int(PATIENCE_S))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run of table6 at scale smoke, as a real one writes it; to be copied."""
    store = tmp_path_factory.mktemp("whole")
    one = job("qv", 1, 0)
    run_job(compose([*one.overrides, f"paths.outputs={store}", "compute.device=cpu", "log.wandb=off"]))
    assert Record(store, one.run_id).state is State.finished
    return store


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """The directory of a copy of that run, in a store `store`."""
    shutil.copytree(whole, tmp_path / "store")
    return tmp_path / "store" / "runs" / job("qv", 1, 0).run_id


def settings() -> Settings:
    return resolve(compose(["compute.device=cpu", "compute.threads=1"])).settings


def table(store: Path) -> str:
    item = load_item("table", "6")
    assert isinstance(item, ScoreTable)
    names: dict[str, dict[str, str]] = {"tasks": {}, "models": {}, "footnotes": {}}
    return markdown(printed(read_cells(item, "smoke", store), names))


def compared(folder: Path) -> str:
    first = recorded(str(folder), "")
    found = differences(first, first)
    return told.markdown(["a", "b"], found, told.verdict(first, first, found))


def inspected(folder: Path) -> str:
    adapter = read(str(folder))
    return updates.inspection_markdown(adapter, inspect(adapter, adapter.matrices, with_base=False))


LOOKS: dict[str, Callable[[Path], object]] = {
    "status": lambda folder: run_status(folder.parent.parent, folder.name),
    "plan": lambda folder: campaign.plan(Sweep(list(jobs()), []), str(folder.parent.parent)).describe(),
    "load_runs": lambda folder: load_runs(folder.parent.parent).to_string(),
    "table": lambda folder: table(folder.parent.parent),
    "diff": compared,
    "inspect": inspected,
    "truncate": lambda folder: truncate(folder, [1], settings()),
    "mirror": state_of,
}
"""What reads a record, by the command that does."""


def look(name: str, folder: Path) -> object:
    """Reads a record as a command does; one that it refuses in words gives those words."""
    signal.alarm(int(PATIENCE_S))
    try:
        return LOOKS[name](folder)
    except (InputError, RunFailedError) as error:
        assert str(error)
        return str(error)


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Returns the path of every value of a record, of a list's only the first."""
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value[:1]))
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def put(value: Any, path: tuple[str | int, ...], wrong: Any) -> Any:
    changed = deepcopy(value)
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = wrong
    return changed


def test_every_command_reads_the_record_that_is_not_wrong(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.cells.load", lambda *_: Sweep(list(jobs()), []))
    found = {name: look(name, folder) for name in LOOKS}
    assert "Bit-equal: metrics, predictions and weights." in str(found["diff"])
    assert "1/2 seeds" in str(found["table"]) and "1 of 8 runs finished" in str(found["plan"])
    assert isinstance(found["truncate"], tuple) and found["mirror"] == "finished"


@pytest.mark.parametrize("stride", [pytest.param(37), pytest.param(1, marks=pytest.mark.long)])
def test_a_wrong_value_at_any_key_breaks_no_command(folder: Path, stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.cells.load", lambda *_: Sweep(list(jobs()), []))
    result = json.loads((folder / "result.json").read_text())
    cases = [(path, wrong) for path in places(result) for wrong in WRONG]
    whole = []
    for path, wrong in cases:
        text = json.dumps(put(result, path, wrong))
        (folder / "result.json").write_text(text)
        found = read_result(folder)
        assert (found.result is None) == (found.problem is not None), path
        if found.result is not None:
            whole.append((path, text))
    assert len(cases) > 1000 and len(whole) > 300
    for path, text in whole[::stride]:
        (folder / "result.json").write_text(text)
        for name in LOOKS:
            if name != "truncate":
                look(name, folder)
        found = read_result(folder).result
        assert found is not None
        try:
            run_of(found)
        except InputError as error:
            assert found["run_id"] in str(error), path


@pytest.mark.parametrize(
    ("path", "wrong", "words"),
    [
        (("metrics",), None, "metrics must be an object"),
        (("metrics",), {}, "its metrics are not those of its last epoch"),
        (("metrics", "eval/accuracy"), 0.123, "its metrics are not those of its last epoch"),
        (("metrics_by_epoch",), [], "metrics_by_epoch must be a list of objects"),
        (("metrics_by_epoch", 0), "text", "each of metrics_by_epoch must be an object"),
        (("metrics_by_epoch", 0), {"epoch": 1}, "there are none"),
        (("metrics_by_epoch", 0, "eval/accuracy"), 7.5, "must be a number, 0 to 1 (it is 7.5)"),
        (("metrics_by_epoch", 0, "eval/accuracy"), "good", "must be a number, 0 to 1 (it is good)"),
        (("metrics_by_epoch", 0, "test/loss"), -0.1, "must be a number, 0 or more (it is -0.1)"),
        (("metrics_by_epoch", 0, "eval/majority"), True, "must be a number, 0 to 1 (it is True)"),
        (("config",), [], "config must be an object"),
        (("config", "method"), None, "config.method must be an object"),
        (("config", "seed"), "0", "config.seed must be a whole number"),
        (("provenance",), "here", "provenance must be an object"),
        (("provenance", "threads"), 0, "provenance.threads must be a whole number, 1 or more"),
        (("provenance", "numerics_version"), "2", "provenance.numerics_version must be a whole number, 1 or more"),
        (("flags",), ["one_class"], "flags must be an object of true and false"),
        (("data",), {}, "it has no data.train"),
        (("data",), {split: {"n": 2, "labels": {"0": 1, "1": 1}} for split in ("train", "eval")}, "has no data.test"),
        (("cross_fitted",), {}, "cross_fitted: there are none"),
        (("cross_fitted",), {"accuracy": 7.5}, "cross_fitted: accuracy must be a number, 0 to 1 (it is 7.5)"),
        (("data", "eval", "n"), 0, "data.eval must be an object with n, 1 or more"),
        (("data", "eval", "labels"), ["0"], "data.eval must be an object with n and labels"),
        (("config", "task", "form"), "lable", "config.task is no configuration of task=generated"),
        (("config", "task", "unknown"), 1, "config.task is no configuration of task=generated"),
        (("run_seconds",), None, "run_seconds must be a number, 0 or more"),
        (("run_seconds",), "fast", "run_seconds must be a number, 0 or more"),
        (("params", "method"), 8.5, "params.method must be a whole number"),
        (("seconds",), 10**400, "more than 64 bits"),
        (("seconds",), "\ud800", "surrogates not allowed"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, path: tuple[str | int, ...], wrong: Any, words: str) -> None:
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(put(result, path, wrong)))
    found = read_result(folder)
    assert found.is_damaged and found.problem is not None and words in found.problem
    for name in ("diff", "truncate", "inspect", "load_runs"):
        assert "equal" not in str(look(name, folder)) and "exactly" not in str(look(name, folder))


@pytest.mark.parametrize("key", ["eval/accuracy", "test/majority", "eval/loss"])
def test_the_range_of_a_known_metric_is_held_whatever_the_task_is_called(folder: Path, key: str) -> None:
    result = put(json.loads((folder / "result.json").read_text()), ("config", "task", "name"), "elsewhere")
    (folder / "result.json").write_text(json.dumps(result))
    assert read_result(folder).result is not None
    (folder / "result.json").write_text(json.dumps(put(result, ("metrics_by_epoch", 0, key), -7.0)))
    found = read_result(folder)
    assert found.is_damaged and found.problem is not None and f"{key} must be a number, 0 " in found.problem


def nested(path: Path) -> None:
    path.write_text("[" * 100_000 + "]" * 100_000)


def large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)


def to_nowhere(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


THINGS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": os.mkdir,
    "nested": nested,
    "large": large,
    "empty": Path.touch,
    "null": lambda path: path.write_text("null"),
    "text": lambda path: path.write_text('"text"'),
    "list": lambda path: path.write_text("[]"),
    "twice": lambda path: path.write_text('{"state": "failed", "state": "diverged"}'),
    "no text": lambda path: path.write_bytes(b'{"state": "\xff\xfe"}'),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "itself": lambda path: path.symlink_to(path.name),
    "nowhere": to_nowhere,
}
"""What has the name of a file of the record, and is none."""


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("name", ["result.json", "status.json", "lock"])
def test_whatever_has_the_name_of_a_file_is_told_by_every_command(
    folder: Path, name: str, thing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.cells.load", lambda *_: Sweep(list(jobs()), []))
    if name == "lock":
        (folder / "result.json").unlink()
    (folder / name).unlink(missing_ok=True)
    THINGS[thing](folder / name)
    for command in LOOKS:
        if command != "truncate" or name == "result.json":
            look(command, folder)
    blocks = name == "result.json" and thing in ("pipe", "folder", "device", "itself", "nowhere")
    state = Record(folder.parent.parent, folder.name).state
    expected = State.finished if name == "status.json" else State.blocked if blocks else State.todo
    assert state is expected
    assert holder(folder / "lock") is None and read_owner(folder / "lock") is None


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("name", ["result.json", "status.json", "lock"])
def test_a_run_goes_on_beside_what_is_no_file_of_its_own_or_is_refused_in_words(
    name: str, thing: str, tmp_path: Path
) -> None:
    one = job("q", 1, 0)
    cfg = compose([*one.overrides, *SMALL, f"paths.outputs={tmp_path}", "log.wandb=off"])
    folder = tmp_path / "runs" / run_id(resolve(cfg).run)
    folder.mkdir(parents=True)
    THINGS[thing](folder / name)
    before = os.lstat(folder / name)
    try:
        run_job(cfg)
    except (InputError, RunFailedError) as error:
        assert name in str(error) and "left as it is" in str(error), error
        after = os.lstat(folder / name)
        assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
        assert not (folder / "config.yaml").exists()
    else:
        assert Record(tmp_path, folder.name).state is State.finished
        if name == "result.json":
            assert os.lstat(folder / "result.json.damaged").st_ino == before.st_ino


@pytest.mark.parametrize("name", [*FILES, *FOLDERS, "lock", "result.json"])
def test_nothing_is_written_through_a_link(name: str, tmp_path: Path) -> None:
    one = job("q", 1, 0)
    cfg = compose([*one.overrides, *SMALL, f"paths.outputs={tmp_path / 'store'}", "log.wandb=off"])
    folder = tmp_path / "store" / "runs" / run_id(resolve(cfg).run)
    folder.mkdir(parents=True)
    target = tmp_path / "target"
    if name in FOLDERS:
        target.mkdir()
    precious = target / "000000001-000.safetensors" if name in FOLDERS else target
    precious.write_text("precious")
    (folder / name).symlink_to(target)
    with pytest.raises(InputError, match=rf"(?s){re.escape(str(folder / name))} .*left as it is"):
        run_job(cfg)
    assert (folder / name).readlink() == target and precious.read_text() == "precious"
    assert sorted(path.name for path in folder.iterdir()) == [name]


def test_a_result_that_is_a_link_to_a_whole_one_is_a_result(folder: Path, tmp_path: Path) -> None:
    """Stores that keep their files elsewhere, as git-annex does, are read."""
    (folder / "result.json").rename(tmp_path / "away")
    (folder / "result.json").symlink_to(tmp_path / "away")
    assert Record(folder.parent.parent, folder.name).state is State.finished


@pytest.mark.parametrize(("key", "wrong"), [("model_type", []), ("hidden_size", "32"), ("num_hidden_layers", None)])
def test_shapes_that_are_wrong_in_a_record_are_refused_with_its_run(folder: Path, key: str, wrong: Any) -> None:
    """A run's id does not see them: the model's digest stands for them."""
    result = json.loads((folder / "result.json").read_text())
    with pytest.raises(InputError, match=folder.name):
        run_of(put(result, ("config", "model", "config", key), wrong))
