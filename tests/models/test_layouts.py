"""Models are loaded from folders laid out like the hub's cache, in every form in which repositories hold weights."""

import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.architectures import ENCODERS, MODELS
from helpers.damaged_files import BOMB, Bomb, bomb
from helpers.fake_hub import COMMIT, LAYOUTS, TOKENS, in_cache, snapshot
from omegaconf import DictConfig

from lora_repro.config.resolve import resolve
from lora_repro.config.schema import Run
from lora_repro.errors import MissingInputError
from lora_repro.models import inputs, tokenizer
from lora_repro.models import load as models
from lora_repro.models.arch import ModelConfig
from lora_repro.models.weights import one_form

CPU = torch.device("cpu")


def pinned(name: str) -> ModelConfig:
    config: dict[str, Any] = {"model_type": MODELS[name][0], **TOKENS, **MODELS[name][1]}
    if "pos_att_type" in config:
        config["pos_att_type"] = config["pos_att_type"].split("|")  # as transformers writes it today
    return ModelConfig("tiny", COMMIT, dropout=0.0, config=config, hub="some/tiny", revision=COMMIT)


@pytest.fixture
def run(tiny: Callable[..., DictConfig]) -> Run:
    return resolve(tiny("train.max_length=16")).run


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub's cache, in which this process looks."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize("name", ["roberta", "deberta-v2", "gpt2", "cerebras-gpt", "opt", "opt-350m"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_the_hub_loads_as_it_was_written(
    tiny: Callable[..., DictConfig], run: Run, cache: Path, name: str, layout: str
) -> None:
    """As a classifier, and a decoder as a language model too."""
    written = snapshot(in_cache(cache), name, layout)
    runs = [run]
    if MODELS[name][0] not in ENCODERS:
        runs.append(resolve(tiny("model=tiny_llama", "task=movies", "task.form=text", "train.max_length=16")).run)
    for each in (replace(each, model=pinned(name)) for each in runs):
        for key, parameter in models.load_model(each, None, "", CPU).named_parameters():
            if not each.arch.is_head(key):
                expected = written[key].half().float() if layout == "backbone alone" else written[key]
                assert torch.equal(parameter, expected) and parameter.dtype is torch.float32, key


def test_only_the_pinned_commit_counts(run: Run, cache: Path, tmp_path: Path) -> None:
    other = in_cache(cache).parent / ("1" * 40)
    snapshot(other, "gpt2", "whole")
    config = pinned("gpt2")
    with pytest.raises(MissingInputError, match=r"no snapshot of some/tiny at commit d2b54d7.*\nFetch it: "):
        inputs.find_model(config, None, "")
    with pytest.raises(MissingInputError, match=r"(?s)paths\.model: .* is no snapshot of commit d2b54d7.*model=local"):
        inputs.find_model(config, str(other), "")
    copied = Path(shutil.copytree(other, tmp_path / "copied" / COMMIT))
    assert inputs.find_model(config, str(copied), "") == copied


@pytest.mark.parametrize(
    ("layout", "damage", "words"),
    [
        ("whole", "model.safetensors", r"model\.safetensors is missing \(as is pytorch_model\.bin"),
        ("shards", "model-00002-of-00010.safetensors", r"model-00002-of-00010\.safetensors is missing \(1 of 10\)"),
        ("pickled shards", "pytorch_model-00001-of-00002.bin", r"-00001-of-00002\.bin is missing \(1 of 2\)"),
        ("pickle", "config.json", r"config\.json is missing"),
        ("pickle", "merges.txt", r"holds no tokenizer \(tokenizer\.json, vocab\.txt, vocab\.json with merges\.txt"),
    ],
)
def test_a_snapshot_that_is_not_whole_is_refused(cache: Path, layout: str, damage: str, words: str) -> None:
    folder = in_cache(cache)
    snapshot(folder, "gpt2", layout)
    (folder / damage).unlink()
    assert re.search(words, str(inputs.problem_of(pinned("gpt2"), folder)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"weight_map": []}', "is damaged"),
        ("{", "is damaged"),
        ('{"weight_map": {}}', "names no file"),
        ('{"weight_map": {"a": "../../secret"}}', r"names a file outside its folder \('\.\./\.\./secret'\)"),
    ],
)
def test_an_index_that_leads_nowhere_is_refused(cache: Path, content: str, words: str) -> None:
    folder = in_cache(cache)
    snapshot(folder, "gpt2", "shards")
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(MissingInputError, match=rf"model\.safetensors\.index\.json {words}"):
        inputs.find_model(pinned("gpt2"), str(folder), "")


@pytest.mark.parametrize("form", ["pickle", "zip", "old", "cut", "cut old", "empty", "page", "list", "number"])
def test_a_pickle_that_holds_more_than_tensors_is_refused_and_nothing_is_run(
    run: Run, cache: Path, tmp_path: Path, form: str
) -> None:
    folder = in_cache(cache)
    snapshot(folder, "gpt2", "old pickle" if form == "cut old" else "pickle")
    path = folder / "pytorch_model.bin"
    trap: dict[str, Any] = {"transformer.wte.weight": torch.zeros(60, 24), "trap": Bomb(tmp_path / BOMB)}
    if form == "pickle":
        bomb(path, tmp_path)
    elif form in ("zip", "old"):
        torch.save(trap, path, _use_new_zipfile_serialization=form == "zip")
    elif form.startswith("cut"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif form in ("empty", "page"):
        path.write_bytes(b"" if form == "empty" else b"<html>Not found</html>")
    else:
        torch.save([torch.zeros(2)] if form == "list" else {"epoch": 3}, path)
    words = "is damaged|names code, which is never run here|holds no mapping of names to tensors alone"
    with pytest.raises(MissingInputError, match=rf"pytorch_model\.bin .*({words})(.|\n)*\nCopy or download it again"):
        models.load_model(replace(run, model=pinned("gpt2")), None, "", CPU)
    assert not (tmp_path / BOMB).exists()


def test_a_large_model_is_not_copied_and_training_it_leaves_its_file_as_it_is(
    run: Run, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tensors lie in the mapped file; what is written to them stays in memory."""
    monkeypatch.setattr(models, "SHARED_UP_TO", 0)
    monkeypatch.setattr(models, "Shared", lambda _: pytest.fail("copied"))
    folder = in_cache(cache)
    written = snapshot(folder, "gpt2", "whole")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    one = models.load_model(replace(run, model=pinned("gpt2")), None, "", CPU)
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.add_(1)
    other = models.load_model(replace(run, model=pinned("gpt2")), None, "", CPU)
    assert torch.equal(other.get_parameter("transformer.wte.weight"), written["transformer.wte.weight"])
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() == digest


def test_a_sentencepiece_tokenizer_names_the_package_that_reads_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = in_cache(cache)
    snapshot(folder, "deberta-v2", "whole")
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    (folder / "spm.model").write_bytes(b"\n\x0e")
    monkeypatch.setattr(tokenizer, "find_spec", lambda _: None)
    with pytest.raises(MissingInputError, match=r"spm\.model is read by .* sentencepiece\.\n.*lora_repro\[deberta\]"):
        tokenizer.load_tokenizer(pinned("deberta-v2"), None, "")


def test_the_weights_of_a_repository_are_taken_in_one_form() -> None:
    every = ["model.safetensors", "pytorch_model.bin", "tf_model.h5", "onnx/model.safetensors"]
    shards = [
        f"{stem}-0000{i}-of-00002.{end}"
        for stem, end in (("model", "safetensors"), ("pytorch_model", "bin"))
        for i in (1, 2)
    ]
    indices = ["model.safetensors.index.json", "pytorch_model.bin.index.json"]
    assert one_form(every) == ["model.safetensors"]
    assert one_form([*shards, *indices]) == [indices[0], *shards[:2]]
    assert one_form([*shards, indices[1], "model.fp16.safetensors"]) == [indices[1], *shards[2:]]
    assert one_form(["tf_model.h5"]) == []
