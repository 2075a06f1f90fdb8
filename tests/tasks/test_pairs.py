"""Inputs that are pairs of sentences."""

import pytest
import torch
from helpers.fixture_types import Compose

from lora_repro.config.resolve import resolve
from lora_repro.config.schema import Dtype
from lora_repro.errors import InputError
from lora_repro.models.load import load
from lora_repro.tasks import Example, encoding
from lora_repro.tasks.encoding import encode
from lora_repro.tasks.generated import GeneratedConfig

CPU = torch.device("cpu")
PAIRS = [Example(str(i), ("joy", "so sad"), i % 2, str(i)) for i in range(64)]


@pytest.fixture
def paired(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> Compose:
    monkeypatch.setattr(GeneratedConfig, "load", lambda *_: {"train": PAIRS, "eval": PAIRS, "test": PAIRS})
    monkeypatch.setattr(encoding, "_encoded", {})
    return tiny


def test_a_head_reads_both_sentences_and_which_is_which(paired: Compose) -> None:
    resolved = resolve(paired("train.dtype=fp32"))
    split = encode(resolved.run, resolved.settings)["eval"]
    assert split.inputs["token_type_ids"][0].tolist() == [0] * 5 + [1] * 6  # [CLS] j o y [SEP] s o s a d [SEP]
    assert split.inputs["input_ids"][0].tolist().count(3) == 2
    model = load(resolved.run, None, "", CPU).model
    assert split.loss(model, [0, 1], Dtype.fp32, CPU).isfinite()


def test_a_prompt_refuses_a_pair_in_words(paired: Compose) -> None:
    resolved = resolve(paired("model=tiny_llama", "preset@train=tiny_llama", "task.form=text"))
    with pytest.raises(InputError, match="its input is a pair of sentences, which fits into no prompt"):
        encode(resolved.run, resolved.settings)
