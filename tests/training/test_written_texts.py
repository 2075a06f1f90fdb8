"""When texts are written in a run, and how an interrupted decoding goes on."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers.computed_runs import interrupted, record_of
from helpers.fixture_types import Compose
from helpers.store_contents import contents

from analysis.protocol import Protocol, pick
from lora_repro.config.resolve import resolve
from lora_repro.errors import InputError
from lora_repro.store.answers import read_answers
from lora_repro.tasks import batches
from lora_repro.tasks.encoding import Encoded
from lora_repro.tasks.targets import Texts
from lora_repro.training import scoring
from lora_repro.training.job import run_job
from lora_repro.training.train import build

WRITES = (
    *("model=tiny_llama", "preset@train=tiny_llama", "task=reverse", "train.dtype=fp32", "train.epochs=2"),
    *("task.train_size=32", "task.eval_size=24", "task.test_size=16", "task.num_beams=2", "log.every_steps=3"),
)


@pytest.mark.parametrize("at", ["last", "every"])
def test_texts_are_written_after_the_epochs_that_are_asked_for_and_the_loss_is_always_there(
    tiny: Compose, at: str
) -> None:
    cfg = tiny(*WRITES, f"task.decode_at={at}")
    run_job(cfg)
    record = record_of(cfg)
    result = record.read().result
    assert result is not None
    first, last = result["metrics_by_epoch"]
    assert ("eval/exact_match" in first, "eval/exact_match" in last) == (at == "every", True)
    assert {"eval/loss", "test/loss"} <= first.keys() & last.keys()
    rows = pd.read_parquet(record.folder / "predictions.parquet")
    assert rows.groupby("epoch").size().to_dict() == ({1: 40, 2: 40} if at == "every" else {2: 40})
    (metric,) = Texts().metrics
    held_out = pick(result, metric, Protocol.held_out)
    best = 2 if at == "last" or last["eval/exact_match"] > first["eval/exact_match"] else 1
    assert held_out is not None and held_out.epoch == best
    assert held_out.value == result["metrics_by_epoch"][best - 1]["test/exact_match"]


def test_instructions_have_their_perplexity_after_each_epoch_and_samples_with_what_was_asked(
    tiny: Compose, tmp_path: Path
) -> None:
    told = [{"instruction": f"Say {letter}.", "output": letter} for letter in "abcdefghij"]
    (tmp_path / "mine.json").write_text(json.dumps(told))
    given = ("model=tiny_llama", "task=instructions", f"paths.data={tmp_path}/mine.json", "task.template=bare")
    sizes = [f"task.{split}_size=null" for split in ("train", "eval", "test")]
    cfg = tiny(*given, *sizes, "preset@train=tiny_llama", "train.epochs=2", "task.max_new_tokens=4")
    run_job(cfg)
    record = record_of(cfg)
    result = record.read().result
    assert result is not None
    for row in result["metrics_by_epoch"]:
        for split in ("eval", "test"):
            assert row[f"{split}/perplexity"] == pytest.approx(math.exp(row[f"{split}/loss"]))
    rows = pd.read_parquet(record.folder / "predictions.parquet")
    asked = {each["output"]: each["instruction"] for each in told}
    assert [*rows["input"]] == [asked[references[0]] for references in rows["references"]]
    answers = read_answers(record.folder / "predictions.parquet", "test", 2)
    assert answers is not None and answers.labels == [str([*of]) for of in rows[rows["split"] == "test"]["references"]]


@pytest.mark.parametrize("merged", [False, True])
def test_an_interrupted_decoding_goes_on_at_the_batch_where_it_stopped(
    tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merged: bool
) -> None:
    monkeypatch.setattr(batches, "WRITTEN_AT_ONCE", 8)  # four examples of two beams each
    monkeypatch.chdir(tmp_path)
    settings = ("method=lora", f"train.score_merged={merged}")
    whole, cut = (tiny(*WRITES, *settings, f"paths.outputs={store}") for store in ("whole", "cut"))
    written: list[int] = []
    predict = Encoded.predict

    def counted(self: Encoded, model: object, indices: list[int], *given: object) -> torch.Tensor:
        written.extend(indices)
        return predict(self, model, indices, *given)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Encoded, "predict", counted)
    run_job(whole)
    assert len(written) == 40
    written.clear()
    steps, losses = 2 * 2, 2  # and dev's and test's losses are one batch each after the first epoch
    interrupted(cut, monkeypatch, 1 + steps + 2 * losses + 3)
    assert len(written) == 12 and list(tmp_path.glob("cut/runs/*/checkpoint/*"))
    run_job(cut)
    assert sorted(written) == sorted([*range(24), *range(16)])
    expected, found = contents(tmp_path / "whole"), contents(tmp_path / "cut")
    for files in (expected, found):
        files.pop(next(name for name in files if name.endswith("config.yaml")))  # paths.outputs stands in it
    assert found == expected


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("num_beams=0", "task.num_beams: must be at least 1"),
        ("no_repeat_ngram_size=-1", "task.no_repeat_ngram_size: must be at least 0"),
        ("length_penalty=nan", "task.length_penalty: must be a finite number"),
        ("max_new_tokens=0", "task.max_new_tokens: must be at least 1"),
    ],
)
def test_impossible_settings_of_decoding_are_refused(tiny: Compose, setting: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        resolve(tiny(*WRITES, f"task.{setting}"))


def test_a_setting_that_one_beam_does_not_read_makes_no_other_run(tiny: Compose) -> None:
    def fingerprint(*settings: str) -> str:
        return record_of(tiny(*WRITES, *(f"task.{setting}" for setting in settings))).run_id

    assert fingerprint("num_beams=1", "length_penalty=0.8") == fingerprint("num_beams=1")
    assert fingerprint("length_penalty=0.8") != fingerprint()


def test_smoothing_a_loss_that_writes_nothing_is_refused(tiny: Compose) -> None:
    with pytest.raises(InputError, match=r"train\.label_smoothing: smooths the loss of texts to be written, and task="):
        resolve(tiny("train.label_smoothing=0.1"))
    with pytest.raises(InputError, match=r"train\.label_smoothing: must be in \[0, 1\)"):
        resolve(tiny(*WRITES, "train.label_smoothing=1"))


@pytest.mark.parametrize("task", [(), ("model=tiny_bert", "task=generated", "preset@train=tiny_bert")])
def test_scored_with_merged_weights_a_run_trains_alike_and_scores_alike_in_fp32(
    tiny: Compose, task: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, scored, merged_copy = [], [], scoring.merged
    monkeypatch.setattr(scoring, "merged", lambda *given: scored.append(merged_copy(*given)) or scored[-1])
    for merged in (False, True):
        cfg = tiny(*(task or WRITES), "method=lora", "train.dtype=fp32", f"train.score_merged={merged}")
        run_job(cfg)
        record = record_of(cfg)
        result = record.read().result
        assert result is not None and result["merge_max_abs_error"] is not None
        texts = pd.read_parquet(record.folder / "predictions.parquet")["prediction"].tolist()
        (adapter,) = record.folder.rglob("adapter_model.safetensors")
        found.append((record.run_id, adapter.read_bytes(), result["metrics"], texts))
    (plain_id, plain_adapter, plain, plain_texts), (merged_id, merged_adapter, merged_scores, merged_texts) = found
    assert plain_id != merged_id and plain_adapter == merged_adapter
    assert merged_scores == pytest.approx(plain, abs=1e-4) and merged_texts == plain_texts
    assert len(scored) == 2, "a copy an epoch, of the second run alone"


def test_a_merged_copy_shares_what_is_frozen_and_leaves_the_model_as_it_is(tiny: Compose) -> None:
    run = resolve(tiny(*WRITES, "method=lora", "method.targets=[q,v]"))
    model = build(run, torch.device("cpu"))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                before[name] = parameter.fill_(0.5).clone()
    copy = scoring.merged(model, run.run.method)
    names = {name for name, _ in copy.named_parameters()}
    assert not any("lora" in name for name in names)
    theirs = {parameter.data_ptr() for parameter in model.parameters()}
    own = {name for name, parameter in copy.named_parameters() if parameter.data_ptr() not in theirs}
    assert own and all(name.endswith(("q_proj.weight", "v_proj.weight")) for name in own)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_merging_what_cannot_be_merged_is_refused(tiny: Compose) -> None:
    with pytest.raises(InputError, match=r"train\.score_merged: method=adapter_h cannot be merged here, as a nonlin"):
        resolve(tiny(*WRITES, "method=adapter_h", "method.bottleneck=2", "train.score_merged=true"))
