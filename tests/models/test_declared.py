"""Of a model's folder transformers sees what is known by a digest, and nothing that lies beside."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.fixture_types import Compose
from helpers.local_models import words_tokenizer, write
from safetensors.torch import load_file, save_file

from lora_repro.config.resolve import resolve
from lora_repro.config.schema import Run, load_group
from lora_repro.errors import MissingInputError
from lora_repro.models.arch import ModelConfig
from lora_repro.models.load import load_model
from lora_repro.tasks import encoding
from lora_repro.training.scoring import predict

CPU = torch.device("cpu")
BESIDE = {
    "added_tokens.json": {"joy": 1, "sad": 1},
    "special_tokens_map.json": {"unk_token": "joy"},
    "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "joy", "add_bos_token": True},
    "generation_config.json": {"bos_token_id": "x"},
    "adapter_config.json": {"peft_type": "LORA", "r": 1},
    "vocab.txt": {"joy": 0},
    "tokenizer.4.0.0.json": {},
}
"""Files that transformers reads where it finds them."""


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny BERT with its tokenizer."""
    made = write(tmp_path / "named", "bert", words_tokenizer(pad_token="<unk>"), max_position_embeddings=80)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (made / name).unlink(missing_ok=True)
    return made


def named(folder: Path) -> ModelConfig:
    """The folder as conf/model would declare it."""
    found = json.loads((folder / "config.json").read_text())
    return ModelConfig(
        "minilm",
        hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        0.0,
        config={key: found[key] for key in load_group("model", "minilm").config},
        files={"tokenizer.json": hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()},
    )


def said(tiny: Compose, folder: Path, model: ModelConfig) -> torch.Tensor:
    run, settings = resolve(tiny("train.dtype=fp32"))[:2]
    run: Run = replace(run, model=model)
    settings.paths.model = str(folder)
    encoding._encoded.clear()
    split = encoding.encode(run, settings)["eval"]
    return predict(load_model(run, str(folder), "", CPU), split, run.train.dtype, CPU)


def test_a_named_model_is_what_its_digests_say_whatever_lies_beside(tiny: Compose, folder: Path) -> None:
    model = named(folder)
    plain = said(tiny, folder, model)
    assert plain.std() > 0.1
    edit(folder / "config.json", is_decoder=True, add_cross_attention=True, quantization_config={"bits": 4})
    for name, content in BESIDE.items():
        (folder / name).write_text(json.dumps(content))
    assert torch.equal(said(tiny, folder, model), plain)


@pytest.mark.parametrize("found", [{"quant_method": "bitsandbytes", "load_in_8bit": True}, {}, "gptq"])
def test_a_quantised_local_model_is_refused(found: object, tiny: Compose, folder: Path) -> None:
    edit(folder / "config.json", quantization_config=found)
    with pytest.raises(MissingInputError, match=r"weights are quantised \(quantization_config.*\nGive weights in fp32"):
        resolve(tiny("model=local", "preset@train=tiny_bert", f"paths.model={folder}"))


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.bool, torch.float8_e4m3fn])
@pytest.mark.parametrize("form", ["safetensors", "pickle"])
def test_weights_that_are_no_plain_numbers_are_refused(
    form: str, kind: torch.dtype, tiny: Compose, folder: Path
) -> None:
    path, name = folder / "model.safetensors", "bert.encoder.layer.1.attention.self.query.weight"
    tensors = load_file(path)
    tensors[name] = tensors[name].to(kind)
    tensors["bert.embeddings.position_ids"] = torch.arange(80)[None]  # a counter, as old checkpoints hold it
    if form == "pickle":
        path.unlink()
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file(tensors, path, metadata={"format": "pt"})
    run = resolve(tiny("model=local", "preset@train=tiny_bert", f"paths.model={folder}")).run
    with pytest.raises(MissingInputError, match=rf"{name} is stored as .*, which is no plain number.*quantised"):
        load_model(run, str(folder), "", CPU)


def test_an_adapter_beside_a_local_model_is_refused(tiny: Compose, folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(MissingInputError, match=r"holds an adapter beside the model.*\nMerge it"):
        resolve(tiny("model=local", "preset@train=tiny_bert", f"paths.model={folder}"))
