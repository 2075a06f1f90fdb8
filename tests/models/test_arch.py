import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.architectures import ENCODERS, MODELS, saved
from helpers.local_models import words_tokenizer
from transformers import (
    AutoConfig,
    AutoModel,
)

from lora_repro.config.compose import compose
from lora_repro.config.resolve import resolve
from lora_repro.errors import InputError
from lora_repro.methods import FullConfig, HeadOnlyConfig, LoRAConfig
from lora_repro.models.arch import arch_of
from lora_repro.models.arch.listing import matrices

ROBERTA_BASE = dict(
    model_type="roberta", vocab_size=50265, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
    intermediate_size=3072, max_position_embeddings=514, type_vocab_size=1, pad_token_id=1,
)  # fmt: skip
ROBERTA_LARGE = ROBERTA_BASE | dict(
    hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
)


FORMS = [
    (name, labels) for name, (family, _) in MODELS.items() for labels in (3, None) if labels or family not in ENCODERS
]


@pytest.mark.parametrize(("name", "num_labels"), FORMS)
def test_shapes_from_configuration_equal_the_loaded_models(name: str, num_labels: int | None, tmp_path: Path) -> None:
    model = saved(name, num_labels, tmp_path)
    arch = arch_of(json.loads((tmp_path / "config.json").read_text()), num_labels)
    assert {key: tuple(p.shape) for key, p in model.named_parameters()} == dict(arch.parameters)
    for site in arch.sites:
        assert tuple(model.get_parameter(f"{site.module}.weight").shape) == site.weight_shape
    assert arch.num_layers == 3 and (arch.head_size == 0) == (num_labels is None)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("deberta-v2", "deberta-v3", "gpt_neox")])
def test_the_longest_input_is_what_the_position_table_takes(name: str, tmp_path: Path) -> None:
    model = saved(name, 2, tmp_path)
    longest = arch_of(model.config.to_dict(), 2).max_length
    model(input_ids=torch.full((1, longest), 5))
    if MODELS[name][0] not in ("llama", "qwen2", "gemma3_text"):  # whose positions have no table
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
        (
            {"model_type": "t5"},
            r"architecture 't5' .* is not counted here.\nCounted: bert, .*\nmodel=local .* with Plan in .*FAMILIES",
        ),
        ({}, "architecture 'None' .* is not counted"),
        ({"model_type": "bert", "hidden_size": 8}, "has no key"),
        (ROBERTA_BASE | {"num_attention_heads": 7}, "no multiple of 7"),
    ],
)
def test_an_impossible_architecture_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        arch_of(config, num_labels=2)


def test_an_unknown_role_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"no matrix 'x' in roberta\.\nMatrices here: q, k, v, o, up, down, embed"):
        arch_of(ROBERTA_BASE, 2).select(["q", "x"])


T5 = dict(vocab_size=60, d_model=24, d_kv=6, num_heads=4, d_ff=40, num_layers=3)


@pytest.mark.parametrize("layout", ["whole", "shards", "pickle"])
def test_an_architecture_that_cannot_be_read_is_refused_with_its_matrices(layout: str, tmp_path: Path) -> None:
    model = AutoModel.from_config(AutoConfig.for_model("t5", **T5))
    model.save_pretrained(tmp_path, max_shard_size="10KB" if layout == "shards" else "1GB")
    words_tokenizer().save_pretrained(tmp_path)
    if layout == "pickle":
        (tmp_path / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError) as error:
        resolve(compose(["model=local", f"paths.model={tmp_path}", "task=generated", "train.learning_rate=1e-3"]))
    first, where, *listed, how = str(error.value).splitlines()
    assert first.startswith("model: t5 (model_type in config.json): an encoder with a decoder: which of the two")
    assert "families.py" in how and "FAMILIES" in how
    if layout == "pickle":
        assert where.endswith(
            "pytorch_model.bin is a pickle, whose matrices cannot be listed: save_pretrained writes safetensors."
        )
        return
    assert where.startswith(f"Matrices in {tmp_path}/model")
    listed = [line.strip() for line in listed]
    assert {
        "shared.weight (60, 24)",
        "encoder.block.{0..2}.layer.0.SelfAttention.q.weight (24, 24)",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight (32, 4)",
        "encoder.block.{0..2}.layer.1.DenseReluDense.wi.weight (40, 24)",
        "decoder.block.{0..2}.layer.1.EncDecAttention.v.weight (24, 24)",
    } <= set(listed) and len(listed) < 30
    named = {re.sub(r"\.\d+\.", ".N.", key) for key, p in model.named_parameters() if p.dim() == 2}
    assert {re.sub(r"\.(\d+|\{[\d.]+\})\.", ".N.", line.split()[0]) for line in listed} == named


def test_numbers_that_vary_together_or_leave_gaps_are_told_apart() -> None:
    shapes = {f"h.{i}.w": (2, 3) for i in (0, 1, 2, 11)} | {"h.0.b": (2,), "h.3.w": (3, 2)}
    shapes |= {f"e.{i}.x.{j}.w": (4, 4) for i in range(2) for j in range(3)} | {"pair.0.1": (1, 1), "pair.1.0": (1, 1)}
    assert matrices(shapes) == [
        "h.{0,1,2,11}.w (2, 3)", "h.3.w (3, 2)", "e.{0..1}.x.{0..2}.w (4, 4)", "pair.0.1 (1, 1)", "pair.1.0 (1, 1)",
    ]  # fmt: skip
