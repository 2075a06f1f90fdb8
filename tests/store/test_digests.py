"""The files of a finished run are what it wrote, or whoever reads them says that they are not."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.computed_runs import record_of
from helpers.fixture_types import Compose
from safetensors.numpy import load_file, save_file
from safetensors.numpy import save as serialize

from analysis.adapters import read
from analysis.diff import recorded
from analysis.runs import load_runs
from analysis.section7.compared_runs import read_updates
from analysis.section7.starts import final, snapshots
from lora_repro.config.resolve import resolve
from lora_repro.errors import InputError
from lora_repro.models.inputs import sha256_of_bytes
from lora_repro.store.digests import as_written, sha256_of
from lora_repro.store.finished_runs import finished, run_of
from lora_repro.training.job import run_job
from lora_repro.training.rescore import Rescorer
from lora_repro.training.train import build

SHORT = ("train.epochs=1", "log.snapshots=[0,1]")


@pytest.fixture
def run(tiny: Compose) -> Path:
    """A finished run with snapshots."""
    cfg = tiny(*SHORT)
    run_job(cfg)
    return record_of(cfg).folder


def triple(path: Path) -> None:
    """Makes every B three times as large."""
    save_file({key: value * np.float32(3 if "lora_B" in key else 1) for key, value in load_file(path).items()}, path)


def reread(path: Path) -> dict[str, str]:
    return json.loads((path / "result.json").read_text())["digests"]


def test_a_result_names_every_file_that_gives_numbers(run: Path) -> None:
    expected = ["adapter/adapter_config.json", "adapter/adapter_model.safetensors", "predictions.parquet"]
    assert sorted(reread(run)) == [*expected, "snapshots/0.safetensors", "snapshots/1.safetensors"]
    assert all(sha256_of(run / name) == digest for name, digest in reread(run).items())
    assert not any("digests" in column for column in load_runs(run.parent.parent).columns)


def _start(run: Path, tiny: Compose) -> None:
    build(resolve(tiny("train.epochs=0", f"train.init_from={run.name}")), torch.device("cpu"))


def _start_of_folder(run: Path, tiny: Compose) -> None:
    build(resolve(tiny("train.epochs=0", f"train.init_from={run / 'adapter'}")), torch.device("cpu"))


def _rescore(run: Path, tiny: Compose) -> None:
    Rescorer(run, run_of(finished(run)), resolve(tiny()).settings)


def _updates(run: Path, _: Compose) -> None:
    ours = run_of(finished(run))
    read_updates(run / "adapter" / "adapter_model.safetensors", ours, ours.arch.select(["q"]))


READERS: dict[str, tuple[str, Callable[[Path, Compose], object]]] = {
    "start": ("adapter/adapter_model.safetensors", _start),
    "start of a folder": ("adapter/adapter_model.safetensors", _start_of_folder),
    "settings": ("adapter/adapter_config.json", _start),
    "rescore": ("adapter/adapter_model.safetensors", _rescore),
    "inspect": ("adapter/adapter_model.safetensors", lambda run, _: read(str(run))),
    "inspect a file": (
        "adapter/adapter_model.safetensors",
        lambda run, _: read(str(run / "adapter" / "adapter_model.safetensors")),
    ),
    "inspect a snapshot": (
        "snapshots/1.safetensors",
        lambda run, _: read(str(run / "snapshots" / "1.safetensors")),
    ),
    "figures": ("adapter/adapter_model.safetensors", _updates),
    "moved": ("adapter/adapter_model.safetensors", lambda run, _: final(run)),
    "moved at a snapshot": ("snapshots/0.safetensors", lambda run, _: snapshots(run)),
    "diff": ("adapter/adapter_model.safetensors", lambda run, _: recorded(str(run), "")),
    "diff of predictions": ("predictions.parquet", lambda run, _: recorded(str(run), "")),
}


def test_a_file_that_was_changed_is_refused_by_whoever_reads_it(run: Path, tiny: Compose) -> None:
    for name, (file, reader) in READERS.items():
        kept = (run / file).read_bytes()
        reader(run, tiny)  # as it was written, it is read
        if file.endswith(".safetensors"):
            triple(run / file)
        else:
            (run / file).write_bytes(kept + b"\n")
        with pytest.raises(InputError, match=rf"{file}: was changed after the run wrote it"):
            reader(run, tiny)
            pytest.fail(f"{name} read it")
        (run / file).write_bytes(kept)


def test_changes_within_one_tick_of_the_clock_are_seen(tmp_path: Path) -> None:
    file = tmp_path / "file.safetensors"
    first, second = (serialize({"weight": np.array([number])}) for number in range(2))
    for _ in range(30):
        file.write_bytes(first)
        assert sha256_of(file) == sha256_of_bytes(first)
        save_file({"weight": np.array([1])}, file)  # puts a new file in place of the old, at times of the same tick
        assert sha256_of(file) == sha256_of_bytes(second)


def test_a_file_that_the_run_did_not_write_is_refused(run: Path) -> None:
    (run / "snapshots" / "0.5.safetensors").write_bytes((run / "snapshots" / "1.safetensors").read_bytes())
    with pytest.raises(InputError, match="is none of the files that the run wrote"):
        snapshots(run)


def test_files_of_others_and_of_old_results_are_read(run: Path, tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = run / "mine.safetensors"
    mine.write_bytes(b"")
    assert as_written(mine) == mine
    monkeypatch.chdir(run / "snapshots")
    triple(run / "snapshots" / "1.safetensors")
    with pytest.raises(InputError, match="was changed"):
        as_written(Path("1.safetensors"))
    result = json.loads((run / "result.json").read_text())
    del result["digests"]
    (run / "result.json").write_text(json.dumps(result))
    for _, reader in READERS.values():
        reader(run, tiny)


def test_a_run_that_is_reached_by_a_link_is_checked_too(run: Path, tmp_path: Path) -> None:
    moved = run.rename(tmp_path / "elsewhere")
    run.symlink_to(moved)
    triple(moved / "adapter" / "adapter_model.safetensors")
    with pytest.raises(InputError, match="was changed"):
        as_written(run / "adapter" / "adapter_model.safetensors")
    moved.rename(run.with_name("kept"))
    run.unlink()
    run.with_name("kept").rename(run)
    (tmp_path / "another").symlink_to(run / "adapter")
    with pytest.raises(InputError, match="was changed"):
        as_written(tmp_path / "another" / "adapter_model.safetensors")


def test_what_a_rebuild_adds_has_its_digest(tiny: Compose) -> None:
    cfg = tiny("train.epochs=1")
    run_job(cfg)
    folder = record_of(cfg).folder
    before = reread(folder)
    run_job(tiny(*SHORT, "log.rebuild=true"))
    added = {"snapshots/0.safetensors", "snapshots/1.safetensors"}
    assert before.items() < reread(folder).items() and reread(folder).keys() - before.keys() == added
    assert len(snapshots(folder)) == 2
    triple(folder / "snapshots" / "1.safetensors")
    with pytest.raises(InputError, match="was changed"):
        snapshots(folder)


def test_what_a_rebuild_adds_to_an_old_result_is_read(tiny: Compose) -> None:
    cfg = tiny("train.epochs=1")
    run_job(cfg)
    path = record_of(cfg).folder / "result.json"
    result = json.loads(path.read_text())
    del result["digests"]
    path.write_text(json.dumps(result))
    run_job(tiny(*SHORT, "log.rebuild=true"))
    assert "digests" not in json.loads(path.read_text())
    assert len(snapshots(path.parent)) == 2
