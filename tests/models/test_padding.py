"""What a model says of a text does not depend on how its neighbours in the batch are padded."""

import json
from pathlib import Path

import pytest
import torch
from helpers.fixture_types import Compose
from helpers.local_models import DECODERS, ROWS, WORDS, words_tokenizer, write
from transformers import AutoModelForSequenceClassification

from lora_repro.config.resolve import resolve
from lora_repro.config.schema import Dtype
from lora_repro.errors import InputError, MissingInputError
from lora_repro.tasks.encoding import Encoded, encode
from lora_repro.training.train import build

CPU = torch.device("cpu")


def prepared(tiny: Compose, folder: Path, *overrides: str) -> tuple[torch.nn.Module, Encoded]:
    cfg = tiny("model=local", f"paths.model={folder}", "preset@train=tiny_llama", "train.dtype=fp32", *overrides)
    resolved = resolve(cfg)
    return build(resolved, CPU).eval(), encode(resolved.run, resolved.settings)["eval"]


def alone(folder: Path, split: Encoded) -> torch.Tensor:
    """What transformers says of each example alone, without padding, of which no token is then known."""
    edit(folder, pad_token_id=None)
    theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = zip(split.inputs["input_ids"], split.lengths.tolist(), strict=True)
    with torch.inference_mode():
        return torch.cat([theirs(input_ids=row[None, :length]).logits for row, length in rows])


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


PADS: dict[str, tuple[dict[str, object], dict[str, str]]] = {
    "none is known": ({"pad_token_id": None}, {"pad_token": "[PAD]"}),
    "neither side knows one": ({"pad_token_id": None}, {"eos_token": "</s>"}),
    "none and no end": ({"pad_token_id": None, "eos_token_id": None}, {}),
    "a list of ends": ({"pad_token_id": None, "eos_token_id": [2, 3]}, {"pad_token": "[PAD]"}),
    "another than the tokenizer's": ({"pad_token_id": 1}, {"pad_token": "[PAD]"}),
    "a token of the text": ({"pad_token_id": 5}, {"pad_token": "fun"}),
    "the tokenizer's pad is beyond the embedding": ({"pad_token_id": 0}, {"pad_token": "[PAD]"}),
    "beyond the embedding": ({"pad_token_id": 1000}, {"pad_token": "</s>"}),
    "minus one": ({"pad_token_id": -1}, {"pad_token": "</s>"}),
}
"""What config.json says, and what the tokenizer pads with."""


@pytest.mark.parametrize("pad", PADS)
@pytest.mark.parametrize("family", DECODERS)
def test_a_text_scores_alike_alone_and_in_a_batch(family: str, pad: str, tiny: Compose, tmp_path: Path) -> None:
    changes, special = PADS[pad]
    rows = 35 if "tokenizer's pad is beyond" in pad else ROWS
    folder = write(tmp_path / "m", family, words_tokenizer(**special), changes, vocab_size=rows)
    model, split = prepared(tiny, folder)
    with torch.inference_mode():
        ours = split.outputs(model, list(range(32)), Dtype.fp32, CPU)
    expected = alone(folder, split)
    assert len(set(split.lengths.tolist())) > 5 and expected.std() > 0.1
    assert torch.allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize(
    "says",
    [
        {"padding_side": "left"},
        {"truncation_side": "left", "padding_side": "left"},
        {"model_input_names": ["input_ids"]},
        {"model_max_length": 5},
    ],
    ids=lambda says: ",".join(says),
)
def test_what_a_tokenizer_says_of_padding_changes_nothing(
    says: dict[str, object], tiny: Compose, tmp_path: Path
) -> None:
    folder = write(tmp_path / "m", "gpt2", words_tokenizer(pad_token="[PAD]"), {"pad_token_id": None})
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | says))
    model, split = prepared(tiny, folder)
    with torch.inference_mode():
        ours = split.outputs(model, list(range(32)), Dtype.fp32, CPU)
    assert int(split.lengths.max()) > 20 and torch.allclose(ours, alone(folder, split), atol=1e-5)


def test_a_text_without_tokens_is_refused(tiny: Compose, tmp_path: Path) -> None:
    folder = write(tmp_path / "m", "gpt2", words_tokenizer())
    path = folder / "tokenizer.json"
    made = json.loads(path.read_text())
    made["normalizer"] = {"type": "Replace", "pattern": {"Regex": "[a-z ]+"}, "content": ""}
    path.write_text(json.dumps(made))
    with pytest.raises(InputError, match=r"makes no token of example train-\d+"):
        prepared(tiny, folder)


def test_a_tokenizer_larger_than_the_embedding_is_refused_before_training(tiny: Compose, tmp_path: Path) -> None:
    folder = write(tmp_path / "m", "llama", words_tokenizer(), vocab_size=30)
    with pytest.raises(
        MissingInputError, match=r"knows 35 tokens, the model's embedding has 30 rows.*\n.*saved with these weights"
    ):
        prepared(tiny, folder)


def test_a_token_that_was_added_and_that_no_text_has_may_lie_beyond_the_embedding(
    tiny: Compose, tmp_path: Path
) -> None:
    tokenizer = words_tokenizer(words=[word for word in WORDS if word != "joy"])
    tokenizer.add_tokens(["nowhere"])
    _, split = prepared(tiny, write(tmp_path / "one", "llama", tokenizer, vocab_size=34))
    assert int(split.inputs["input_ids"].max()) < 34
    tokenizer.add_tokens(["joy"])
    with pytest.raises(MissingInputError, match=r"knows 36 tokens.*34 rows: none for 'joy', token 35"):
        prepared(tiny, write(tmp_path / "other", "llama", tokenizer, vocab_size=34))
