"""LoRA on a model of one's own: what it computes, and that the page which shows it is true."""

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.foreign_adapters import base
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from lora_repro.config.catalogue import HOME
from lora_repro.errors import InputError, MissingInputError
from lora_repro.library import Adapted, attach_lora

TOKENS = torch.arange(24).reshape(2, 12) + 4
PAGE = HOME / "docs" / "library.md"


def trained(lora: Adapted) -> Adapted:
    """Puts numbers into all that is trained."""
    generator = torch.Generator().manual_seed(1)
    for parameter in lora.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    lora.model.eval()
    return lora


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(input_ids=TOKENS).logits


def plain(family: str) -> PreTrainedModel:
    """A model as `base` makes it, of the same weights each time."""
    return base(family).eval()


CASES: list[tuple[str, list[str], dict[str, Any]]] = [
    ("bert", ["q", "v"], {}),
    ("roberta", ["q", "k", "v", "o", "up", "down"], {"rslora": True}),
    ("gpt2", ["q", "v"], {"r_pattern": {"v": 2}}),
    ("gpt_neox", ["q", "k", "v", "o"], {"bias": "lora_only", "layers": (1,)}),
    ("llama", ["q", "gate", "embed"], {"init": "gaussian"}),
]


@pytest.mark.parametrize(("family", "targets", "more"), CASES)
@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings.*:UserWarning")
def test_peft_opens_what_is_saved_and_gives_equal_logits(
    family: str, targets: list[str], more: dict[str, Any], tmp_path: Path
) -> None:
    model = plain(family)
    before = logits(model)
    lora = attach_lora(model, targets, r=4, alpha=8, **more)
    assert logits(model).equal(before) or ("embed" in targets and torch.allclose(logits(model), before))
    assert sum(parameter.numel() for parameter in lora.parameters()) == lora.count.trainable
    trained(lora).save(tmp_path / "adapter")
    after = logits(model)
    assert not torch.allclose(after, before, atol=1e-2)
    theirs = PeftModel.from_pretrained(plain(family), str(tmp_path / "adapter"))
    assert torch.allclose(logits(theirs), after, atol=1e-5)
    again = plain(family)
    attach_lora(again, targets, r=4, alpha=8, **more).load(tmp_path / "adapter")
    assert logits(again).equal(after)
    merged = lora.merge()
    assert merged is model and type(merged) is type(plain(family))
    assert torch.allclose(logits(merged), after, atol=1e-5)


def test_what_peft_saves_is_loaded(tmp_path: Path) -> None:
    theirs = get_peft_model(plain("llama"), LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]))
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    theirs.save_pretrained(str(tmp_path))
    ours = attach_lora(plain("llama"), "qv", r=4, alpha=8)
    ours.load(tmp_path)
    assert torch.allclose(logits(ours.model), logits(theirs), atol=1e-5)


def test_only_lora_and_the_head_are_trained() -> None:
    lora = attach_lora(plain("bert"), "qv", r=4, alpha=8)
    names = [name for name, parameter in lora.model.named_parameters() if parameter.requires_grad]
    assert len(names) == 8 + 4 and all("lora_" in name or "classifier" in name or "pooler" in name for name in names)
    frozen = attach_lora(plain("llama"), "qv", r=4, alpha=8, freeze_A=True)
    assert len(frozen.parameters()) == 4 and frozen.count.head == 0


def test_the_start_follows_from_the_seed() -> None:
    first, same, other = (attach_lora(plain("bert"), "q", r=4, alpha=8, seed=seed).parameters() for seed in (0, 0, 1))
    assert all(a.equal(b) for a, b in zip(first, same, strict=True))
    assert not all(a.equal(b) for a, b in zip(first, other, strict=True))


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings.*:UserWarning")
@pytest.mark.parametrize("is_training", [False, True])
def test_an_update_is_in_the_mode_of_its_layer(is_training: bool) -> None:
    lora = attach_lora(plain("llama").train(is_training), ["q", "embed"], r=4, alpha=8, dropout=0.5)
    assert {module.training for module in lora.model.modules()} == {is_training}
    for parameter in lora.parameters():
        torch.nn.init.ones_(parameter)
    with torch.no_grad():
        first, second = (lora.model(input_ids=TOKENS).logits for _ in range(2))
    assert first.equal(second) is not is_training


def test_an_update_lies_where_its_weight_does() -> None:
    """The meta device stands for a second GPU."""
    model = plain("bert")
    first, second = (model.get_submodule(f"bert.encoder.layer.{index}") for index in (0, 1))
    second.to("meta")
    lora = attach_lora(model, ["q", "v"], r=4, alpha=8)
    assert {parameter.device.type for parameter in first.parameters()} == {"cpu"}
    assert {parameter.device.type for parameter in second.parameters()} == {"meta"}
    assert lora.count.method == sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)


def test_a_base_is_named_as_on_the_hub_and_never_by_a_path(tmp_path: Path) -> None:
    for name, expected in (("roberta-base", "roberta-base"), (str(tmp_path), None), ("/gone/model", None)):
        model = plain("bert")
        model.config.name_or_path = name
        attach_lora(model, "q", r=1, alpha=1).save(tmp_path / "adapter")
        written = (tmp_path / "adapter" / "adapter_config.json").read_text()
        assert f'"base_model_name_or_path": {"null" if expected is None else chr(34) + expected + chr(34)}' in written


def _other(**changes: Any) -> PreTrainedModel:
    sizes = dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(changes.pop("family", "bert"), **sizes))


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        (lambda: AutoModel.from_config(_other().config), {}, "BertModel: neither a classifier of texts nor"),
        (lambda: base("bloom"), {}, "BloomForCausalLM: its config.json does not say how long"),
        (lambda: _other().half(), {}, "stored as torch.float16, and LoRA's in fp32.\nLoad it with dtype=torch.float32"),
        (lambda: attach_lora(_other(), "q", r=1, alpha=1).model, {}, "has LoRA already"),
        (_other, {"targets": ["gate"]}, "no matrix 'gate' in bert"),
        (_other, {"r": 99}, "must be from 1 to 32"),
        (_other, {"alpha": float("nan")}, "finite number above 0"),
        (_other, {"init": "pissa"}, "init: must be one of kaiming, gaussian"),
        (_other, {"bias": "some"}, "bias: must be one of none, lora_only, all"),
    ],
)
def test_what_cannot_be_adapted_is_refused(model: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        attach_lora(model(), **{"targets": ["q"], "r": 1, "alpha": 1, **given})


def test_a_model_with_more_than_its_architecture_is_refused() -> None:
    model = _other()
    model.classifier = torch.nn.Sequential(model.get_submodule("classifier"))
    with pytest.raises(InputError, match=r"classifier\.0\.bias is \(2,\), expected absent in a model of type bert"):
        attach_lora(model, "q", r=1, alpha=1)


def test_what_is_merged_or_missing_is_refused(tmp_path: Path) -> None:
    lora = attach_lora(_other(), "q", r=1, alpha=1)
    with pytest.raises(MissingInputError, match="no such folder"):
        lora.load(tmp_path / "nowhere")
    with pytest.raises(MissingInputError, match=r"adapter_config\.json is missing"):
        lora.load(tmp_path)
    lora.merge()
    for call in (lora.merge, lambda: lora.save(tmp_path), lambda: lora.load(tmp_path)):
        with pytest.raises(InputError, match="it was merged"):
            call()


@pytest.mark.filterwarnings("ignore:Could not find a config file:UserWarning")
def test_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) > 12 and {language for language, _ in blocks} == {"python", "text"}
    names: dict[str, Any] = {}
    printed = ""
    torch.manual_seed(0)
    for language, text in blocks:
        if language == "text":
            assert printed == text
            printed = ""
            continue
        assert not printed, "the page leaves out what a block prints"
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(text, names)
        printed = out.getvalue()
    assert not printed


def test_the_library_needs_neither_peft_nor_a_tracker() -> None:
    code = "import sys, lora_repro.library; print(*(name for name in ('peft', 'wandb') if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
