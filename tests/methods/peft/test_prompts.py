"""PEFT's prompt tuning: what a run computes is what PEFT computes, and padding changes nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.computed_runs import computed
from helpers.fixture_types import Compose
from helpers.local_models import words_tokenizer, write
from helpers.peft_tuners import plain, same_logits, stops_and_goes_on
from peft import PeftModel, PeftModelForSequenceClassification
from transformers import AutoModelForSequenceClassification

from lora_repro.config.resolve import resolve
from lora_repro.errors import InputError
from lora_repro.methods import PeftConfig
from lora_repro.methods.peft.prompts import MODULE, prompt_config
from lora_repro.tasks.encoding import encode
from lora_repro.training.train import build

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::peft.utils.warning.PeftWarning"),
]

CPU = torch.device("cpu")
P_TUNING = ("method=peft", "method.peft_type=P_TUNING", "method.config={num_virtual_tokens:3,encoder_hidden_size:8}")
LSTM = tuple(given.replace("size:8", "size:8,encoder_reparameterization_type:LSTM") for given in P_TUNING)
PROMPT = ("method=peft", "method.peft_type=PROMPT_TUNING", "method.config={num_virtual_tokens:3}")


KINDS = [(PROMPT, "bert"), (PROMPT, "roberta"), (PROMPT, "llama"), (PROMPT, "gpt2"), (PROMPT, "opt")]


@pytest.mark.parametrize(("given", "family"), [*KINDS, (P_TUNING, "bert"), (P_TUNING, "llama"), (LSTM, "roberta")])
def test_peft_opens_a_prompt_and_gives_equal_logits(
    given: tuple[str, ...], family: str, tiny: Compose, tmp_path: Path
) -> None:
    words = words_tokenizer(pad_token="<unk>")
    base = write(tmp_path / "base", family, words, max_position_embeddings=80, initializer_range=0.1)
    preset = "tiny_llama" if family in ("llama", "gpt2", "opt") else "tiny_bert"
    local = ["model=local", f"paths.model={base}", f"preset@train={preset}", *given]
    record, result = computed(tiny(*local, "train.learning_rate=0.05"))
    assert not result["flags"]["unmoved"]
    resolved = resolve(again := tiny(*local, "train.epochs=0", f"train.init_from={record.run_id}"))
    if given is PROMPT:
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


@pytest.mark.parametrize("given", [P_TUNING, LSTM])
def test_an_encoder_computes_what_it_does_in_pefts_model(given: tuple[str, ...], tiny: Compose) -> None:
    resolved = resolve(cfg := tiny("model=tiny_bert", *given))
    method = resolved.run.method
    assert isinstance(method, PeftConfig)
    ours = build(resolved, CPU).eval()
    theirs = PeftModelForSequenceClassification(plain(cfg), prompt_config(method, resolved.run.arch)).eval()  # pyright: ignore
    names = [name for name, _ in ours.named_parameters() if name.startswith(MODULE)]
    with torch.no_grad():
        for name in names:
            theirs.get_parameter(name).copy_(ours.get_parameter(name))
    assert {name for name, _ in theirs.named_parameters() if name.startswith(MODULE)} == {*names}
    same_logits(ours, theirs, resolved)
    for name in names:
        mine, other = ours.get_parameter(name).grad, theirs.get_parameter(name).grad
        assert mine is not None and other is not None and torch.allclose(mine, other, atol=1e-6), name


def test_an_encoder_that_peft_does_not_have_is_refused(tiny: Compose) -> None:
    run = resolve(tiny("model=tiny_bert", *P_TUNING[:2], LSTM[2].replace("LSTM", "GRU"))).run
    with pytest.raises(InputError, match="P_TUNING: PEFT refuses it: Prompt encoder type not recognized"):
        run.method.count(run.arch)


def test_a_run_with_an_encoder_that_was_stopped_goes_on_to_the_same_bits(
    tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops_and_goes_on(["model=tiny_bert", *P_TUNING], 3, tiny, tmp_path, monkeypatch)
