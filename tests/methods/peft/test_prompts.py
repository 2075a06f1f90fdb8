"""PEFT's prompt tuning: what a run computes is what PEFT computes, and padding changes nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fixture_types import Compose
from helpers.local_models import words_tokenizer, write
from helpers.peft_tuners import computed
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from lora_repro.config.resolve import resolve
from lora_repro.errors import InputError
from lora_repro.tasks.encoding import encode
from lora_repro.training.train import build

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::peft.utils.warning.PeftWarning"),
]

CPU = torch.device("cpu")
PROMPT = ("method=peft", "method.peft_type=PROMPT_TUNING", "method.config={num_virtual_tokens:3}")


@pytest.mark.parametrize("family", ["bert", "roberta", "llama", "gpt2", "opt"])
def test_peft_opens_a_prompt_and_gives_equal_logits(family: str, tiny: Compose, tmp_path: Path) -> None:
    words = words_tokenizer(pad_token="<unk>")
    base = write(tmp_path / "base", family, words, max_position_embeddings=80, initializer_range=0.1)
    preset = "tiny_llama" if family in ("llama", "gpt2", "opt") else "tiny_bert"
    local = ["model=local", f"paths.model={base}", f"preset@train={preset}", *PROMPT]
    record, result = computed(tiny(*local, "train.learning_rate=0.05"))
    assert not result["flags"]["unmoved"]
    resolved = resolve(again := tiny(*local, "train.epochs=0", f"train.init_from={record.run_id}"))
    assert result["params"]["method"] == 3 * resolved.run.arch.d_model
    model: Any = AutoModelForSequenceClassification.from_pretrained(base)
    theirs = PeftModel.from_pretrained(model, str(record.folder / "adapter")).eval()
    ours, split = build(resolved, CPU).eval(), encode(*resolved[:2])["test"]
    with torch.inference_mode():
        for index in range(4):
            inputs = {key: value[[index], : int(split.lengths[index])] for key, value in split.inputs.items()}
            assert torch.allclose(theirs(**inputs).logits, ours(**inputs).logits, atol=1e-5)
    assert computed(again)[1]["metrics"] == result["metrics"]


@pytest.mark.parametrize("given", [["model=tiny_bert"], ["model=tiny_llama"], ["model=tiny_llama", "task.form=text"]])
def test_padding_beside_an_example_changes_nothing(given: list[str], tiny: Compose) -> None:
    record, result = computed(tiny(*given, *PROMPT, "train.batch_size=8"))
    _, alone = computed(
        tiny(*given, *PROMPT, "train.batch_size=1", "train.epochs=0", f"train.init_from={record.run_id}")
    )
    for key in ("eval/loss", "test/loss"):
        assert alone["metrics"][key] == pytest.approx(result["metrics"][key], abs=1e-5)


def test_virtual_tokens_leave_less_room_for_the_input(tiny: Compose) -> None:
    longest = resolve(tiny("model=tiny_llama", "method=head_only")).run.arch.max_length
    resolve(tiny("model=tiny_llama", *PROMPT, f"train.max_length={longest - 3}"))
    with pytest.raises(InputError, match=rf"max_length: must be from 3 to {longest - 3} tokens"):
        resolve(tiny("model=tiny_llama", *PROMPT, f"train.max_length={longest - 2}"))


def test_the_number_of_tokens_is_solved_from_a_budget(tiny: Compose) -> None:
    method = resolve(tiny("method=peft", "method.peft_type=PROMPT_TUNING", "method.budget=160")).run.method
    assert method.added_tokens == 5
