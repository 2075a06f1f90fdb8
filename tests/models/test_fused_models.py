"""Whole models that compute with the fused functions: against fp32, transformers' own, and copies of themselves."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from helpers.fixture_types import Compose
from helpers.local_models import words_tokenizer, write
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from lora_repro.config.resolve import resolve
from lora_repro.config.schema import Dtype
from lora_repro.methods.lora.layers import merge
from lora_repro.tasks.encoding import Encoded, encode
from lora_repro.training.train import build

CPU = torch.device("cpu")
ROWS = list(range(16))
SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
FAMILIES: dict[str, dict[str, int]] = {
    "bert": {},
    "roberta": dict(max_position_embeddings=130),
    "mpnet": SIZES | dict(max_position_embeddings=130, relative_attention_num_buckets=32),
    "gpt2": {},
    "opt": {},
    "gpt_neox": {},
    "llama": dict(num_key_value_heads=2),
    "qwen2": {},
    "gemma3_text": dict(query_pre_attn_scalar=12),
}


class Prepared(NamedTuple):
    model: nn.Module
    split: Encoded
    dtype: Dtype

    def logits(self, rows: list[int] = ROWS) -> Tensor:
        return self.split.outputs(self.model, rows, self.dtype, CPU).float()

    def gradients(self) -> dict[str, Tensor]:
        self.model.zero_grad()
        self.split.loss(self.model, ROWS, self.dtype, CPU).backward()
        return {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}


Prepare = Callable[..., Prepared]


@pytest.fixture(params=FAMILIES)
def prepare(request: pytest.FixtureRequest, tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """Builds a tiny random model of an architecture with a method; A and B hold numbers as after training."""
    monkeypatch.setattr("lora_repro.models.precision.has_fast_bf16", lambda device: True)
    family: str = request.param
    folder = tmp_path / "base"
    write(
        folder,
        family,
        words_tokenizer(pad_token="[PAD]"),
        {"pad_token_id": 0},
        initializer_range=0.1,
        **FAMILIES[family],
    )

    def made(dtype: Dtype, *overrides: str) -> Prepared:
        local = ("model=local", f"paths.model={folder}", "preset@train=tiny_llama", f"train.dtype={dtype.value}")
        resolved = resolve(tiny(*local, *overrides))
        model = build(resolved, CPU).eval()
        generator = torch.Generator().manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
        return Prepared(model, encode(resolved.run, resolved.settings)["eval"], dtype)

    return made


def error(ours: Tensor, true: Tensor) -> float:
    return ((ours - true).norm() / true.norm()).item()


def test_in_fp32_a_model_computes_what_transformers_computes(prepare: Prepare, tmp_path: Path) -> None:
    """Logits and the gradient of every weight, with padding."""
    ours = prepare(Dtype.fp32, "method=full")
    assert len(set(ours.split.lengths[ROWS].tolist())) > 3
    for attention in ("eager", "sdpa"):
        try:
            theirs = AutoModelForSequenceClassification.from_pretrained(
                tmp_path / "base", attn_implementation=attention
            )
        except ValueError:  # MPNet has eager attention alone
            assert attention == "sdpa"
            continue
        inputs, targets = ours.split.batch(ROWS, CPU)
        theirs.config.pad_token_id = int(inputs["input_ids"][inputs["attention_mask"] == 0][0])  # what they stop at
        logits = theirs.eval()(**inputs).logits
        assert torch.allclose(ours.logits(), logits, atol=1e-5)
        nn.functional.cross_entropy(logits, targets).backward()
        found = ours.gradients()
        for name, parameter in theirs.named_parameters():
            if parameter.grad is not None:
                assert torch.allclose(found[name], parameter.grad, atol=1e-5), name


def test_in_bf16_logits_and_gradients_of_A_and_B_are_near_those_of_fp32(prepare: Prepare) -> None:
    """Two layers of roundings by 2^-9: 2 % of the logits' norm and 5 % of all gradients', with their direction."""
    exact, ours = (prepare(dtype, "method=lora", "method.targets=[q,v]") for dtype in (Dtype.fp32, Dtype.bf16))
    assert error(ours.logits(), exact.logits()) < 0.02
    found, true = ours.gradients(), exact.gradients()
    names = [name for name in true if "lora_" in name]
    assert names and found.keys() == true.keys() and {found[name].dtype for name in names} == {torch.float32}
    for role in ("lora_A", "lora_B"):
        flat = [torch.cat([side[name].flatten() for name in names if role in name]) for side in (found, true)]
        assert error(*flat) < 0.05 and torch.cosine_similarity(*flat, dim=0) > 0.998


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("dtype", Dtype)
def test_an_example_scores_in_a_padded_batch_as_alone(prepare: Prepare, dtype: Dtype, method: str) -> None:
    ours = prepare(dtype, f"method={method}")
    with torch.inference_mode():
        batch, alone = ours.logits(), torch.cat([ours.logits([row]) for row in ROWS])
    assert batch.std() > 0.01
    assert torch.allclose(batch, alone, atol=1e-5 if dtype is Dtype.fp32 else 0.02 * batch.abs().max().item())


@pytest.mark.parametrize("prepare", ["bert", "llama", "mpnet"], indirect=True)
def test_in_eval_mode_no_attention_is_dropped(prepare: Prepare) -> None:
    without, ours = (prepare(Dtype.bf16, "method=lora", f"model.dropout={p}") for p in (0.0, 0.5))
    with torch.inference_mode():
        assert torch.equal(ours.logits(), without.logits())
        ours.model.train()
        assert error(ours.logits(), without.logits()) > 0.1


def changed(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.ones_like(parameter).cumsum(-1).remainder(3))


@pytest.mark.parametrize("dtype", Dtype)
def test_a_copy_computes_with_its_own_weights(prepare: Prepare, dtype: Dtype) -> None:
    """The copy computes with its own weights, and the original with its own."""
    ours = prepare(dtype, "method=lora")
    copy = ours._replace(model=deepcopy(ours.model))
    with torch.inference_mode():
        before = ours.logits()
        assert torch.equal(copy.logits(), before)
        for module, other in zip(ours.model.modules(), copy.model.modules(), strict=True):
            bound = other.__dict__.get("forward")
            assert bound is None or (other in bound.args and module not in bound.args)
    changed(copy.model)
    with torch.inference_mode():
        after = copy.logits()
        assert torch.equal(ours.logits(), before) and error(after, before) > 0.1
    changed(ours.model)
    with torch.inference_mode():
        assert torch.equal(copy.logits(), after) and torch.equal(ours.logits(), after)


def test_merged_and_in_fp32_a_copy_computes_what_the_adapted_model_does(prepare: Prepare) -> None:
    ours = prepare(Dtype.bf16, "method=lora")
    merged = deepcopy(ours.model).float()
    merge(merged)
    with torch.inference_mode():
        before = ours.logits()
        exact = Prepared(deepcopy(ours.model).float(), ours.split, Dtype.fp32).logits()
        assert error(Prepared(merged, ours.split, Dtype.fp32).logits(), exact) < 1e-5
        assert error(before, exact) < 0.02 and torch.equal(ours.logits(), before)


def test_the_configuration_that_is_saved_names_no_attention_of_ours(prepare: Prepare, tmp_path: Path) -> None:
    model = prepare(Dtype.bf16, "method=full").model
    model.config.save_pretrained(tmp_path / "saved")  # pyright: ignore
    assert "lora_repro" not in (tmp_path / "saved" / "config.json").read_text()
