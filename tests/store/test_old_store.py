"""A store of an earlier version, tests/data/old_store, is read and printed as it was.

Numerics version 1 computed its runs. This code has another, so the same configurations have other ids: they are to be
run, and nothing of the old runs is resumed or joined to new ones. How files of then are skipped and resumed is tested
under their own version (`numerics_1`).
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.commands import call, run_here
from helpers.fixture_types import Captured, Compose
from helpers.handmade_runs import jobs, write_run
from safetensors.numpy import load_file

from analysis.runs import flat, load_runs
from lora_repro.config import identity
from lora_repro.config.identity import numerics_of, run_id
from lora_repro.config.resolve import resolve
from lora_repro.store.finished_runs import finished, run_of
from lora_repro.store.record import Record
from lora_repro.store.status import State
from lora_repro.training import checkpoint
from lora_repro.training.job import run_job

OLD = Path(__file__).parents[1] / "data" / "old_store"
TABLE6 = ("+sweeps=table6", "scale=smoke")
LORA = "tiny_bert-generated-lora-r2-qv-s0-f43bcd6b49"
INTERRUPTED = ("seed=3", "train.epochs=3", "log.snapshots=[0,1]")
"""The run that was killed, on top of the `tiny` fixture."""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A copy that may be written into."""
    shutil.copytree(OLD / "runs", tmp_path / "runs")
    return tmp_path


@pytest.fixture
def numerics_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives configurations and checkpoints the numerics version of the store; the numbers stay those of this code."""
    for module in (identity, checkpoint):
        monkeypatch.setattr(module, "NUMERICS_VERSION", 1)


def finished_runs() -> list[Path]:
    return sorted(path.parent for path in OLD.glob("runs/*/result.json"))


def every_byte(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same_metrics(new: dict[str, Any], old: dict[str, Any]) -> None:
    assert len(new["metrics_by_epoch"]) == len(old["metrics_by_epoch"])
    for one, other in zip(new["metrics_by_epoch"], old["metrics_by_epoch"], strict=True):
        assert list(one) == list(other)
        for key in one:
            assert one[key] == pytest.approx(other[key], abs=0.05), key


def test_every_run_keeps_its_id_and_its_typed_configuration() -> None:
    folders = finished_runs()
    assert len(folders) == 11
    for folder in folders:
        run = run_of(finished(folder))
        assert run_id(run, 1) == folder.name != run_id(run)
        assert numerics_of(run, folder.name) == 1
        assert Record(OLD, folder.name).state is State.finished
    assert {run_of(finished(folder)).method.name for folder in folders} == {"lora", "full", "head_only"}


def test_rows_of_other_numerics_are_told_apart(store: Path, capsys: Captured) -> None:
    """Those of then, whose records do not say it, by their ids."""
    one, *_ = jobs(*TABLE6)
    write_run(store, one, [(0.5, 0.5)])
    versions = load_runs(store).set_index("run_id")["provenance.numerics_version"].to_dict()
    assert versions.pop(one.run_id) == identity.NUMERICS_VERSION and set(versions.values()) == {1}
    code, out, _ = call(capsys, "runs", "--runs", store, "--format", "json")
    assert code == 0 and {each["run_id"]: each["provenance.numerics_version"] for each in json.loads(out)} == {
        one.run_id: identity.NUMERICS_VERSION,
        **dict.fromkeys((path.name for path in (OLD / "runs").iterdir()), 1),
    }
    code, out, _ = call(capsys, "runs", "--runs", OLD, "--format", "json")
    assert code == 0 and "numerics" not in out  # no column in which all rows are alike


def test_status_says_that_no_command_continues_a_run_of_other_numerics(
    tiny: Compose, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = call(capsys, "status", "--runs", OLD)
    now = run_id(resolve(tiny(*INTERRUPTED, "log.wandb=off")).run)
    assert code == 0 and "the sweep's command continues" not in out
    assert f"no command continues it: the sweep's command computes the run as {now}\n" in out
    monkeypatch.setattr(identity, "NUMERICS_VERSION", 1)
    code, out, _ = call(capsys, "status", "--runs", OLD)
    assert code == 0 and "; the sweep's command continues the run\n" in out


def test_load_runs_reads_it() -> None:
    frame = load_runs(OLD)
    assert frame.attrs["problems"] == [] and list(frame["run_id"]) == [folder.name for folder in finished_runs()]
    row = frame.set_index("run_id").loc[LORA]
    assert (row["method.r"], row["task.form"], row["seed"]) == (2, "label", 0)
    assert (
        row["eval/accuracy"]
        == json.loads((OLD / "runs" / LORA / "result.json").read_text())["metrics"]["eval/accuracy"]
    )
    assert set(frame["task.form"]) == {"label", "text"}


@pytest.mark.usefixtures("numerics_1")
def test_its_table_is_printed_with_the_same_numbers(capsys: Captured) -> None:
    code, out, _ = call(capsys, "table", "6", "--scale", "smoke", "--runs", OLD, "--format", "json")
    printed = (OLD / "table6.json").read_text().replace("paths.outputs=store", f"paths.outputs={OLD}")
    before, now = json.loads(printed), json.loads(out)
    for entry in now:
        (entry["settings"] or {}).pop("method.rslora", None)  # which tables did not say then
    assert code == 0 and [{key: entry[key] for key in before[0]} for entry in now] == before
    code, out, _ = call(capsys, "table", "6", "--scale", "smoke", "--runs", OLD)
    assert code == 0 and rows(out) == rows((OLD / "table6.md").read_text())


def rows(table: str) -> list[str]:
    """The rows of a table's body: what stands above and below may be said in other words."""
    found = [line for line in table.splitlines() if line.startswith("| ")]
    assert len(found) > 2
    return found[1:]


@pytest.mark.usefixtures("numerics_1")
def test_plan_and_sweep_leave_out_what_is_finished(store: Path, capsys: Captured) -> None:
    before = every_byte(store)
    code, out, _ = call(capsys, "plan", *TABLE6, "--runs", store)
    assert code == 0 and "Plan: 8 of 8 runs finished, 0 to run" in out
    done = run_here(["lora_repro", "-m", *TABLE6, f"paths.outputs={store}", "log.wandb=off"], capsys)
    assert done.returncode == 0, done.stderr
    assert "Plan: 8 of 8 runs finished, 0 to run" in done.stderr and every_byte(store) == before


def test_the_same_configurations_are_to_be_run_with_the_numerics_of_now(capsys: Captured) -> None:
    code, out, _ = call(capsys, "plan", *TABLE6, "--runs", OLD)
    assert code == 0 and "Plan: 0 of 8 runs finished, 8 to run" in out
    code, out, _ = call(capsys, "status", *TABLE6, "--runs", OLD)
    assert code == 0 and "8 to do" in out and "finished" not in out
    assert not {job.run_id for job in jobs(*TABLE6)} & {folder.name for folder in finished_runs()}


def test_a_table_joins_no_run_of_other_numerics(store: Path, capsys: Captured) -> None:
    """Two runs of today beside the eight of then: their cell is the mean of these two, and all others lack theirs."""
    new = [job for job in jobs(*TABLE6) if (job.point["method.r"], job.point["method.targets"]) == (1, ["q"])]
    for job, score in zip(new, (0.25, 0.75), strict=True):
        write_run(store, job, [(score, score)])
    code, out, _ = call(capsys, "table", "6", "--scale", "smoke", "--runs", store, "--format", "json")
    ours = [cell for cell in json.loads(out) if cell["n_expected"]]
    assert code == 0 and [(cell["mean"], cell["run_ids"]) for cell in ours if cell["n"]] == [
        (0.5, [job.run_id for job in new])
    ]
    assert [len(cell["missing"]) for cell in ours if not cell["n"]] == [2, 2, 2]


@pytest.mark.usefixtures("numerics_1")
def test_a_run_that_was_killed_goes_on_and_ends_as_the_undisturbed_one(
    tiny: Compose, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lora_repro")
    cfg = tiny(*INTERRUPTED, f"paths.outputs={store}", "log.resume=any", "log.wandb=off")
    record = Record(store, run_id(resolve(cfg).run))
    assert record.state is State.stale
    run_job(cfg)
    assert f"{record.run_id} goes on from step" in caplog.text
    result = finished(record.folder)
    assert_same_metrics(result, json.loads((OLD / "undisturbed.json").read_text()))
    logged = [json.loads(line)["step"] for line in (record.folder / "metrics.jsonl").read_text().splitlines()]
    assert logged == sorted(logged) and logged[-1] == 12
    assert {path.name for path in (record.folder / "snapshots").iterdir()} == {"0.safetensors", "1.safetensors"}


def test_nothing_of_a_run_that_other_numerics_began_is_resumed(
    tiny: Compose, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even where its checkpoint lies in the new run's folder."""
    caplog.set_level("INFO", "lora_repro")
    cfg = tiny(*INTERRUPTED, f"paths.outputs={store}", "log.resume=any", "log.wandb=off")
    run = resolve(cfg).run
    before, record = store / "runs" / run_id(run, 1), Record(store, run_id(run))
    there = every_byte(before)
    assert record.state is State.todo and [name for name in there if name.startswith("checkpoint/")]
    shutil.copytree(before / "checkpoint", record.folder / "checkpoint")
    run_job(cfg)
    assert "is of another run and not used" in caplog.text and "numerics_version 1" in caplog.text
    assert "goes on from" not in caplog.text and record.state is State.finished
    assert every_byte(before) == there


SINCE = {
    "model.head_dropout": None,
    "task.scored_subset_seed": None,
    "train.init_head": "fitting",
    "train.label_smoothing": 0.0,
    "train.packing": False,
    "train.score_merged": False,
}
"""Keys of a configuration that came after the old store, each at the value that changes nothing."""
KEYS_SINCE = {"train_cpu_seconds", "peak_memory_is_bound", "flags_by_epoch"}
"""Keys of a result that came after it."""


def test_a_run_computed_now_writes_the_record_that_was_written_then(tiny: Compose, store: Path, tmp_path: Path) -> None:
    cfg = tiny("method=head_only", f"paths.outputs={tmp_path / 'new'}", "log.wandb=off")
    run_job(cfg)
    (new,) = (tmp_path / "new" / "runs").iterdir()
    old = store / "runs" / run_id(resolve(cfg).run, 1)
    ours, theirs = finished(new), finished(old)
    assert [key for key in ours if key not in KEYS_SINCE] == list(theirs) and ours["params"] == theirs["params"]
    assert flat(ours["config"]) == flat(theirs["config"]) | SINCE  # a group of settings that came later is empty
    assert_same_metrics(ours, theirs)
    assert [path.name for path in sorted(new.iterdir())] == [path.name for path in sorted(old.iterdir())]
    run, run_then = (yaml.safe_load((folder / "config.yaml").read_text())["run"] for folder in (new, old))
    assert flat(run) == flat(run_then) | SINCE
    assert ours["digests"].keys() == theirs["digests"].keys()


def test_a_run_starts_from_an_old_adapter_and_scores_as_it_did(tiny: Compose, store: Path) -> None:
    base = (f"paths.outputs={store}", "log.wandb=off", "method.r=2", "task.train_size=null")
    sizes = ("task.eval_size=null", "task.test_size=null")
    scores = run_job(tiny(*base, *sizes, f"train.init_from={LORA}", "train.epochs=0"))
    old = finished(store / "runs" / LORA)["metrics"]
    assert {key for key in scores if key in old} >= {"eval/accuracy", "test/accuracy"}
    for key in ("eval/accuracy", "test/accuracy"):
        assert scores[key] == pytest.approx(old[key], abs=0.02)


def test_diff_inspect_and_truncate_read_it(store: Path, capsys: Captured) -> None:
    other = "tiny_bert-generated-lora-r1-qv-s0-d497d3fd23"
    code, out, _ = call(capsys, "diff", LORA, other, "--runs", store, "--format", "json")
    assert code == 0 and "method.r" in out
    code, out, _ = call(capsys, "inspect", LORA, "--runs", store, "--format", "json")
    entries = json.loads(out)
    assert code == 0 and [(each["layer"], each["weight"], each["r"]) for each in entries] == [
        (layer, weight, 2) for layer in (0, 1) for weight in "qv"
    ]
    tensors = load_file(store / "runs" / LORA / "adapter" / "adapter_model.safetensors")
    for each in entries:
        A, B = (tensors[f"base_model.model.{each['module']}.lora_{name}.weight"].astype(float) for name in "AB")
        assert each["norm"] == pytest.approx(each["scaling"] * np.linalg.norm(B @ A), rel=1e-6)
    code, out, err = call(capsys, "truncate", LORA, "--runs", store, "--format", "json")
    assert code == 0, err
    cuts, recorded = json.loads(out), finished(store / "runs" / LORA)["metrics"]
    assert [cut["keep"] for cut in cuts] == [0, 1, 2] and recorded.keys() <= cuts[-1].keys()
    assert cuts[-1]["eval/accuracy"] == pytest.approx(recorded["eval/accuracy"], abs=0.02)
