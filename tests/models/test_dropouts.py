"""model.head_dropout acts in front of the head's layers and nowhere else, or is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    DebertaV2Config,
    GPT2Config,
    PretrainedConfig,
    RobertaConfig,
)

from lora_repro.config.resolve import resolve
from lora_repro.errors import InputError
from lora_repro.models.dropouts import set_dropout, set_head_dropout
from lora_repro.models.load import load_model

TinyConfig = Callable[..., DictConfig]
CPU = torch.device("cpu")

SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}
FAMILIES: list[tuple[PretrainedConfig, set[str]]] = [
    (RobertaConfig(**SMALL), {"classifier.dropout"}),
    (DebertaV2Config(**SMALL, pooler_dropout=0.0), {"dropout"}),
]


def dropouts(model: nn.Module) -> dict[str, float]:
    return {name: module.p for name, module in model.named_modules() if isinstance(module, nn.Dropout)}


@pytest.mark.parametrize(("config", "changed"), FAMILIES, ids=["roberta", "deberta-v2"])
def test_the_head_alone_is_set(config: PretrainedConfig, changed: set[str]) -> None:
    """DeBERTa's `cls_dropout` of Table 10 is not that of its pooler, which the authors' scripts leave at 0."""
    model = AutoModelForSequenceClassification.from_config(config)
    before = dropouts(model)
    set_head_dropout(model, 0.35)
    after = dropouts(model)
    assert {name for name in after if after[name] != before[name]} == changed
    assert all(after[name] == 0.35 for name in changed) and len(after) > 3


def test_none_is_left_on_in_deberta_and_its_pooler_gets_none() -> None:
    """Published models have pooler_dropout=0, as the authors' scripts; cls_dropout=null means the backbone's."""
    config = DebertaV2Config(**SMALL, pooler_dropout=0.3)
    config.cls_dropout = 0.4
    set_dropout(config, 0.0, is_counted=True)
    found = dropouts(AutoModelForSequenceClassification.from_config(config))
    assert "pooler.dropout" in found and "dropout" in found and {*found.values()} == {0.0}
    config = DebertaV2Config(**SMALL, pooler_dropout=0.0)
    set_dropout(config, 0.1, is_counted=True)
    found = dropouts(AutoModelForSequenceClassification.from_config(config))
    assert found.pop("pooler.dropout") == 0.0 and {*found.values()} == {0.1}


def test_it_is_what_transformers_does_with_cls_dropout() -> None:
    config = DebertaV2Config(**SMALL)
    config.cls_dropout = 0.35
    theirs, ours = (AutoModelForSequenceClassification.from_config(each) for each in (config, DebertaV2Config(**SMALL)))
    set_head_dropout(ours, 0.35)
    assert dropouts(ours) == dropouts(theirs)


def test_training_drops_in_front_of_the_head_and_not_in_the_backbone(tiny: TinyConfig) -> None:
    run = resolve(tiny("model.head_dropout=0.5")).run
    model = load_model(run, None, "", CPU).train()
    words = torch.arange(5, 11)[None]
    logits = [model(words).logits for _ in range(2)]
    hidden = [model.base_model(words).last_hidden_state for _ in range(2)]  # pyright: ignore[reportCallIssue]
    assert not torch.equal(*logits) and torch.equal(*hidden)
    plain = load_model(resolve(tiny()).run, None, "", CPU).train()
    assert torch.equal(plain(words).logits, plain(words).logits), "a model that stays in memory keeps its own"


@pytest.mark.parametrize("value", [-0.1, 1.0, 2.0])
def test_a_value_that_is_no_probability_is_refused(tiny: TinyConfig, value: float) -> None:
    with pytest.raises(InputError, match=rf"model.head_dropout: must be in \[0, 1\) \(given: {value}\)"):
        resolve(tiny(f"model.head_dropout={value}"))


@pytest.mark.parametrize("form", ["label", "text"])
def test_a_model_without_a_place_for_it_refuses_it(tiny: TinyConfig, form: str) -> None:
    with pytest.raises(InputError, match="tiny_llama has no dropout in front of a head"):
        resolve(tiny("model=tiny_llama", f"task.form={form}", "task=movies", "model.head_dropout=0.1"))
    model = AutoModelForSequenceClassification.from_config(GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=2))
    with pytest.raises(InputError, match="gpt2 has no dropout in front of its head"):
        set_head_dropout(model, 0.1)
