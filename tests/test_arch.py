from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from lora_repro.arch import arch_of
from lora_repro.compose import compose
from lora_repro.config import resolve
from lora_repro.errors import InputError
from lora_repro.methods import FullConfig, HeadOnlyConfig, LoRAConfig

TINY: dict[str, dict[str, Any]] = {
    "bert": dict(vocab_size=50, max_position_embeddings=40, type_vocab_size=2, pad_token_id=0),
    "roberta": dict(vocab_size=60, max_position_embeddings=42, type_vocab_size=1, pad_token_id=1),
}
SHAPE = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=40)

ROBERTA_BASE = dict(
    model_type="roberta", vocab_size=50265, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
    intermediate_size=3072, max_position_embeddings=514, type_vocab_size=1, pad_token_id=1,
)  # fmt: skip
ROBERTA_LARGE = ROBERTA_BASE | dict(
    hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
)


@pytest.mark.parametrize("family", TINY)
def test_shapes_from_configuration_equal_the_loaded_models(family: str, tmp_path: Path) -> None:
    config = AutoConfig.for_model(family, num_labels=3, **TINY[family], **SHAPE)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    arch = arch_of(model.config.to_dict(), num_labels=3)
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == dict(arch.parameters)
    for site in arch.sites:
        assert tuple(model.get_submodule(site.module).weight.shape) == (site.d_out, site.d_in)  # pyright: ignore


@pytest.mark.parametrize("family", TINY)
def test_the_longest_input_is_what_the_position_table_takes(family: str) -> None:
    config = AutoConfig.for_model(family, **TINY[family], **SHAPE)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    longest = arch_of(config.to_dict(), 2).max_length
    model(input_ids=torch.full((1, longest), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, longest + 1), 5))


@pytest.mark.parametrize(
    ("config", "method", "total"), [(ROBERTA_BASE, 294_912, 124.6e6), (ROBERTA_LARGE, 786_432, 355.4e6)]
)
def test_roberta_counts_are_the_papers(config: dict[str, Any], method: int, total: float) -> None:
    """Table 2: 0.3M and 0.8M for r = 8 on W_q and W_v; the classification head is not counted."""
    arch = arch_of(config, num_labels=2)
    count = LoRAConfig("lora", ["q", "v"], 8, 8.0, 0.0).count(arch)
    assert count.method == method
    assert arch.size() == pytest.approx(total, rel=0.01)
    assert FullConfig("full").count(arch).method + count.head == arch.size()
    assert HeadOnlyConfig("head_only").count(arch).method == 0


def test_minilm_counts() -> None:
    run = resolve(compose(["method.r=8"])).run
    count = run.method.count(run.arch)
    assert count.method == 2 * 12 * 384 * 8 == sum(count.by_module.values())
    assert count.head == 384 * 384 + 384 + 384 * 2 + 2
    assert count.total == 22_713_216 + 384 * 2 + 2 + count.method  # the checkpoint's weights, pooler included


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "t5"}, "unknown architecture 't5'"),
        ({}, "unknown architecture"),
        ({"model_type": "bert", "hidden_size": 8}, "lacks the key"),
        (ROBERTA_BASE | {"num_attention_heads": 7}, "no multiple of 7"),
    ],
)
def test_an_impossible_architecture_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        arch_of(config, num_labels=2)


def test_an_unknown_letter_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"no matrix 'x'.*\nMatrices here: q, k, v, o"):
        arch_of(ROBERTA_BASE, 2).select(["q", "x"])
