import json
import logging
import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.computed_runs import record_of
from helpers.fixture_types import Compose
from helpers.store_contents import contents
from omegaconf import DictConfig
from safetensors import safe_open
from safetensors.numpy import load_file, save
from safetensors.torch import load
from safetensors.torch import save as save_torch

from lora_repro import interrupt
from lora_repro.config.identity import NUMERICS_VERSION
from lora_repro.config.resolve import resolve
from lora_repro.errors import RunFailedError
from lora_repro.methods import METHODS
from lora_repro.mirror import notify
from lora_repro.store import tensors
from lora_repro.store.record import Record
from lora_repro.store.status import State
from lora_repro.training import checkpoint, train
from lora_repro.training.checkpoint import Checkpointer
from lora_repro.training.job import run_job


def stop_after(monkeypatch: pytest.MonkeyPatch, looks: int) -> None:
    """Has a signal arrive just before the look of this number, from 1: at the start, after steps and scored splits."""
    seen, after_step = [], Checkpointer.after_step

    def hear(checkpointer: Checkpointer, state: checkpoint.TrainState) -> None:
        seen.append(state.step)
        if len(seen) == looks:
            monkeypatch.setattr(interrupt, "_requested", signal.SIGTERM)
        after_step(checkpointer, state)

    monkeypatch.setattr(Checkpointer, "after_step", hear)


def interrupted(cfg: DictConfig, monkeypatch: pytest.MonkeyPatch, looks: int) -> Record:
    """Runs until the look of this number, and hears a signal there, as the program would."""
    with monkeypatch.context() as patch:
        patch.setattr(interrupt, "_is_program", True)
        stop_after(patch, looks)
        with pytest.raises(KeyboardInterrupt):
            run_job(cfg)
    record = record_of(cfg)
    assert record.state is State.interrupted and record.holder() is None
    assert len(list((record.folder / "checkpoint").iterdir())) == 1
    return record


def of_the_quick_tests(method: str, dtype: str) -> bool:
    """Tells whether a method differs from the others in what is kept: layers, whole tensors, a few of them, PEFT's."""
    if dtype == "fp32":
        return method == "full"
    return method in ("lora", "full", "ft_top2", "adapter_h", "llama_adapter", "lora_prefix_layer", "peft")


@pytest.mark.parametrize(
    ("method", "dtype"),
    [
        pytest.param(method, dtype, marks=[] if of_the_quick_tests(method, dtype) else pytest.mark.long)
        for method, kind in METHODS.items()
        if kind.is_trained
        for dtype in ("fp32", "bf16")
    ],
)
def test_a_resumed_run_equals_the_undisturbed_one_bit_for_bit(
    tiny: Compose, method: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropout = ["method.dropout=0.1"] if method == "lora" else []
    same = [f"method={method}", f"train.dtype={dtype}", "log.save_full=true", "log.every_steps=3", *dropout]
    monkeypatch.chdir(tmp_path)
    whole, cut = tiny(*same, "paths.outputs=whole"), tiny(*same, "paths.outputs=cut")
    run_job(whole)
    for looks in (1, 3, 6, 9):  # the looks: start, 4 steps, 2 splits, 4 steps, 2 splits; each resumes the one before
        interrupted(cut, monkeypatch, looks=min(looks, 4))
    run_job(cut)
    expected, found = contents(tmp_path / "whole"), contents(tmp_path / "cut")
    for files in (expected, found):
        files.pop(next(name for name in files if name.endswith("config.yaml")))  # paths.outputs stands in it
    assert found == expected


FEW_SHOT = ("model=tiny_llama", "preset@train=tiny_llama_few_shot", "task.form=text", "method=few_shot")


@pytest.mark.parametrize("looks", [pytest.param(1, marks=pytest.mark.long), 2, pytest.param(3, marks=pytest.mark.long)])
def test_what_trains_nothing_resumes_between_its_scored_splits(
    tiny: Compose, looks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole, cut = tiny(*FEW_SHOT, "paths.outputs=whole"), tiny(*FEW_SHOT, "paths.outputs=cut")
    run_job(whole)
    interrupted(cut, monkeypatch, looks)
    run_job(cut)
    found = [record_of(cfg).read().result for cfg in (whole, cut)]
    assert found[0] is not None and found[1] is not None
    assert found[0]["metrics_by_epoch"] == found[1]["metrics_by_epoch"]


QUICK_LOOKS = (1, 5, 6, 7, 13)
"""At the start, before and between the two scored splits of an epoch, behind them, and at the end."""


@pytest.mark.parametrize(
    "looks", [pytest.param(looks, marks=[] if looks in QUICK_LOOKS else pytest.mark.long) for looks in range(1, 14)]
)
def test_a_signal_at_any_look_costs_no_step(
    tiny: Compose, looks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny()
    record = interrupted(cfg, monkeypatch, looks)
    (path,) = (record.folder / "checkpoint").iterdir()
    with safe_open(path, "np") as file:
        state = json.loads(file.metadata()["about"])["state"]
    assert state["step"] == [0, 1, 2, 3, 4, 4, 4, 5, 6, 7, 8, 8, 8][looks - 1]
    run_job(cfg)
    steps = [row["step"] for row in map(json.loads, (record.folder / "metrics.jsonl").read_text().splitlines())]
    assert steps == [4, 4, 8, 8]
    assert not (record.folder / "checkpoint").exists()


def test_checkpoints_come_at_the_interval_and_the_previous_stays_until_the_next_is_whole(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[list[str]] = []
    write = checkpoint.files.write_atomically

    def watched(path: Path, content: str | bytes | Iterable[memoryview]) -> None:
        if path.parent.name == "checkpoint":
            there.append(sorted(os.listdir(path.parent)))
        write(path, content)

    monkeypatch.setattr(checkpoint.files, "write_atomically", watched)
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: float(next(clock)))
    run_job(tiny("log.checkpoint_every_s=25"))  # each look at the clock, one a step, is 10 s later
    assert 3 <= len(there) <= 6
    assert there[0] == [] and all(len(files) == 1 for files in there[1:])


def test_without_an_interval_only_a_signal_writes_a_checkpoint(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "write", lambda *_: pytest.fail("written"))
    run_job(tiny("log.checkpoint_every_s=null"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"machine": {"device_class": "another CPU"}}, "was written elsewhere (device_class: another CPU"),
        ({"machine": {"threads": 99}}, "threads: 99, here 1"),
        ({"machine": {"torch": "1.0"}}, "torch: 1.0"),
        ({"machine": {"transformers": "4.0", "numpy": "1.0"}}, "(transformers: 4.0, here "),
        ({"run_id": "x"}, "is of another run and not used (run_id x)"),
        ({"numerics_version": NUMERICS_VERSION - 1}, f"numerics_version {NUMERICS_VERSION - 1}"),
        ({"schema": 9}, "schema 9"),
    ],
)
def test_a_checkpoint_of_elsewhere_is_refused_by_the_rule(
    tiny: Compose,
    change: dict[str, object],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cfg = tiny()
    record = interrupted(cfg, monkeypatch, 4)
    _forge(record, change)
    caplog.set_level("INFO", "lora_repro")
    run_job(cfg)
    assert words in caplog.text and "goes on from" not in caplog.text
    assert record.state is State.finished
    result = record.read().result
    assert result is not None and "machines_before" not in result["provenance"]


def test_resume_any_goes_on_from_another_machine_and_the_record_says_so(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record = interrupted(tiny(), monkeypatch, 4)
    _forge(record, {"machine": {"device_class": "another CPU"}})
    caplog.set_level("INFO", "lora_repro")
    run_job(tiny("log.resume=any"))
    assert "goes on from step 3" in caplog.text
    result = record.read().result
    assert result is not None
    (before,) = result["provenance"]["machines_before"]
    assert before["until_step"] == 3 and before["device_class"] == "another CPU"


def test_a_checkpoint_that_names_no_version_but_torchs_is_resumed(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As earlier code wrote them."""
    record = interrupted(tiny(), monkeypatch, 4)
    _forge(record, {"machine": {}}, without=("transformers", "tokenizers", "numpy"))
    caplog.set_level("INFO", "lora_repro")
    run_job(tiny())
    assert "goes on from step 3" in caplog.text


def test_snapshots_of_steps_that_another_machine_computes_again_are_written_again(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny("log.snapshots=[0.125,0.5,1]", "log.resume=any")
    record = interrupted(cfg, monkeypatch, 4)
    _forge(record, {"machine": {"device_class": "another CPU"}})
    folder = record.folder / "snapshots"
    first = (folder / "0.125.safetensors").read_bytes()
    for name in ("0.5", "0.75", "notes"):
        (folder / f"{name}.safetensors").write_bytes(b"theirs")
    run_job(cfg)
    found = {path.stem: path.read_bytes() for path in folder.iterdir()}
    assert found.keys() == {"0.125", "0.5", "1", "notes"}
    assert found["0.125"] == first and found["0.5"] != b"theirs" == found["notes"]


def test_resume_never_starts_over(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted(tiny(), monkeypatch, 4)
    caplog.set_level("INFO", "lora_repro")
    run_job(tiny("log.resume=never"))
    assert "goes on from" not in caplog.text


@pytest.mark.parametrize("damage", ["half", "empty", "flipped", "bare"])
def test_a_damaged_checkpoint_is_told_and_not_used(
    tiny: Compose, damage: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record = interrupted(tiny(), monkeypatch, 4)
    (path,) = (record.folder / "checkpoint").iterdir()
    whole = path.read_bytes()
    flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
    damaged = {"half": whole[: len(whole) // 2], "empty": b"", "flipped": flipped}
    path.write_bytes({**damaged, "bare": save({"model/x": np.zeros(1)})}[damage])  # bare: no checkpoint of ours
    os.mkfifo(path.with_name("999999999-000.safetensors"))  # as if it were newer
    caplog.set_level("INFO", "lora_repro")
    run_job(tiny())
    assert "is damaged and not used" in caplog.text and "goes on from" not in caplog.text
    assert record.state is State.finished


def test_a_checkpoint_that_cannot_be_written_costs_no_run(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write", full)
    run_job(tiny("log.checkpoint_every_s=0"))
    assert "no checkpoint could be written (No space left on device); the run goes on" in caplog.text


def test_snapshots_hold_the_trained_tensors_along_the_way(tiny: Compose) -> None:
    cfg = tiny("log.snapshots=[0,0.125,0.5,1]")
    run_job(cfg)
    folder = record_of(cfg).folder
    steps = {}
    for path in (folder / "snapshots").iterdir():
        with safe_open(path, "np") as file:
            steps[path.name] = int(file.metadata()["step"])
    assert steps == {"0.safetensors": 0, "0.125.safetensors": 1, "0.5.safetensors": 4, "1.safetensors": 8}
    last, first = load_file(folder / "snapshots" / "1.safetensors"), load_file(folder / "snapshots" / "0.safetensors")
    adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert last.keys() == first.keys() == adapter.keys()
    assert all((last[name] == adapter[name]).all() for name in adapter)
    assert all(not first[name].any() for name in first if "lora_B" in name)


def test_a_checkpoint_that_lies_behind_a_snapshot_asked_for_is_not_used(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted(tiny(), monkeypatch, 4)
    caplog.set_level("INFO", "lora_repro")
    cfg = tiny("log.snapshots=[0.125,1]")
    run_job(cfg)
    assert "log.snapshots asks for step 1, which the checkpoint has passed" in caplog.text
    assert record_of(cfg).missing_outputs(resolve(cfg).settings.log, resolve(cfg).run.method) == []


def test_a_finished_run_is_rebuilt_for_what_it_lacks_and_must_reproduce_its_metrics(
    tiny: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lora_repro")
    metrics = run_job(tiny("method=full"))
    record = record_of(tiny("method=full"))
    before = {path: path.read_bytes() for path in record.folder.iterdir()}
    wants = ("method=full", "log.snapshots=[0,1]", "log.save_full=true")
    assert run_job(tiny(*wants)) == metrics
    assert "has no snapshots/0.safetensors, snapshots/1.safetensors, trained.safetensors" in caplog.text
    assert {path: path.read_bytes() for path in record.folder.iterdir()} == before
    assert run_job(tiny(*wants, "log.rebuild=true")) == metrics
    assert {path.name for path in record.folder.iterdir()} - {path.name for path in before} == {
        "snapshots",
        "trained.safetensors",
    }
    result = json.loads(before.pop(record.folder / "result.json"))
    rebuilt = json.loads((record.folder / "result.json").read_text())
    assert rebuilt.pop("digests").items() > result.pop("digests").items() and rebuilt == result
    assert all(path.read_bytes() == content for path, content in before.items())
    assert not (record.folder.parent.parent / "rebuild" / "runs" / record.run_id).exists()


def test_a_rebuild_with_other_metrics_changes_nothing(tiny: Compose) -> None:
    run_job(tiny())
    record = record_of(tiny())
    path = record.folder / "result.json"
    path.write_text(path.read_text().replace('"eval/loss": 0.', '"eval/loss": 1.'))
    before = {path: path.read_bytes() for path in record.folder.iterdir() if path.is_file()}
    with pytest.raises(RunFailedError, match=r"computed again with other metrics.*\nSee why: python -m analysis diff"):
        run_job(tiny("log.snapshots=[1]", "log.rebuild=true"))
    assert {path: path.read_bytes() for path in before} == before and not (record.folder / "snapshots").exists()


def test_a_rebuild_is_not_mirrored_as_its_folder_goes_away(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    run_job(tiny())
    monkeypatch.setattr(notify, "_MirroringProcess", lambda *_: pytest.fail("mirrored"))
    run_job(tiny("log.snapshots=[1]", "log.rebuild=true", "log.wandb=offline"))
    assert (record_of(tiny()).folder / "snapshots" / "1.safetensors").exists()


def test_kept_weights_of_full_fine_tuning_are_scored_again_alike(tiny: Compose) -> None:
    first = run_job(tiny("method=full", "log.save_full=true"))
    again = run_job(tiny("method=full", "train.epochs=0", f"train.init_from={record_of(tiny('method=full')).run_id}"))
    assert again == first


def test_costs_of_a_resumed_run_are_of_all_attempts_or_not_recorded(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny("log.resume=same")
    now = [0.0]
    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def waits(*arguments: Any) -> None:
        now[0] += 1000.0

    with monkeypatch.context() as patch:
        patch.setattr(train, "use_huge_pages", waits)  # once an epoch
        record = interrupted(cfg, patch, looks=3)
    result = run_job(cfg) and record.read().result
    assert result is not None
    assert 1000 < result["run_seconds"] < 1100 and result["peak_memory_gib"] > 0
    assert 0 < result["train_cpu_seconds"] < 100


EARLY = ("cpu_seconds", "run_seconds", "peak_memory_gib", "peak_memory_is_bound")
"""What early checkpoints do not hold."""


def test_an_early_checkpoint_does_not_say_what_the_cpu_computed_nor_the_peak_of_memory(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = interrupted(tiny(), monkeypatch, looks=3)
    (path,) = (record.folder / "checkpoint").iterdir()
    _, about = checkpoint._read(path)
    early = {key: value for key, value in about["state"].items() if key not in EARLY}
    _forge(record, {"state": early}, replaced=("state",))
    run_job(tiny())
    result = record.read().result
    assert result is not None and result["train_cpu_seconds"] is None and result["peak_memory_gib"] is None
    assert result["run_seconds"] > result["train_seconds"]


@pytest.mark.parametrize(
    ("given", "looks", "expected"),
    [((), None, 3.0), (("log.snapshots=[0.125]",), 9, 3.0), (FEW_SHOT, None, 9.0)],
)
def test_the_peak_of_memory_is_that_of_training_in_all_attempts_without_scoring_and_files(
    tiny: Compose, given: tuple[str, ...], looks: int | None, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first epoch takes 3 GiB and others 2, scoring 9, a checkpoint 7, a snapshot 8; a resumed run sees 2 alone."""
    peak, epochs = [0.0], iter([3.0, 2.0, 2.0])

    def taking(gib: Callable[[], float], original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            peak[0] = max(peak[0], gib())
            return original(*args, **kwargs)

        return call

    def restart(_: torch.device) -> bool:
        peak[0] = 1.0
        return False

    monkeypatch.setattr(train, "reset_peak_memory", restart)
    monkeypatch.setattr(checkpoint, "restart_peak_memory", restart)
    monkeypatch.setattr(checkpoint, "peak_memory_gib", lambda _: peak[0])
    for module, name, gib in (
        (train, "use_huge_pages", lambda: next(epochs)),
        (train.scoring, "predict", lambda: 9.0),
        (checkpoint, "write", lambda: 7.0),
        (checkpoint, "save_snapshot", lambda: 8.0),
    ):
        monkeypatch.setattr(module, name, taking(gib, getattr(module, name)))
    cfg = tiny(*given, "log.checkpoint_every_s=0")
    if looks is not None:
        interrupted(cfg, monkeypatch, looks)
    result = run_job(cfg) and record_of(cfg).read().result
    assert result is not None and result["peak_memory_gib"] == expected and not result["peak_memory_is_bound"]


def test_a_checkpoint_is_written_without_a_copy_of_its_large_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "BLOCK", 400)
    large = {"a": torch.arange(101.0), "z": torch.arange(500, dtype=torch.uint8)}
    small = {
        "b": torch.tensor(3), "c": torch.ones(3, dtype=torch.bfloat16), "d": torch.tensor([True]),
        "e": torch.empty(0, 2), "f": torch.arange(50, dtype=torch.float64), "g": torch.ones(7),
    }  # fmt: skip
    pieces = list(tensors.blocks(large | small, {"about": "é", "sha256": "0"}))
    found = load(b"".join(pieces))
    assert found.keys() == (large | small).keys()
    for name, tensor in (large | small).items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
    addresses = [np.frombuffer(piece, np.uint8).ctypes.data for piece in pieces]
    assert all(tensor.data_ptr() in addresses for tensor in large.values())


def _forge(
    record: Record, change: dict[str, object], without: tuple[str, ...] = (), replaced: tuple[str, ...] = ()
) -> None:
    """Writes the checkpoint anew, whole, with another story about where it was made."""
    (path,) = (record.folder / "checkpoint").iterdir()
    held, about = checkpoint._read(path)
    for key, value in change.items():
        about[key] = about[key] | value if isinstance(value, dict) and key not in replaced else value
    about["machine"] = {key: value for key, value in about["machine"].items() if key not in without}
    text = json.dumps(about)
    path.write_bytes(save_torch(held, {"about": text, "sha256": checkpoint._digest(held, text)}))
    logging.getLogger("lora_repro").debug("forged %s", path)
