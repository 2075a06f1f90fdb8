"""Trained keys and values against PEFT and AdapterHub's library, in full tensors, forward and gradients."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.architectures import ENCODERS, MODELS
from helpers.prefixes import batch, examples, pair
from peft import PrefixTuningConfig, get_peft_model
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModel

from lora_repro.errors import InputError
from lora_repro.methods import PrefixLayerConfig
from lora_repro.methods.prefixes.config import ASKED_ATTENTION, Form, Start
from lora_repro.methods.prefixes.tokens import words
from lora_repro.models.arch import arch_of
from lora_repro.models.fused import fuse

LIBRARY = Path(__file__).parents[2] / "data" / "adapters_library"
SUPPORTED = [name for name, (family, _) in MODELS.items() if family in ASKED_ATTENTION]
L_P = 4


def method(init: Start = Start.normal, **given: Any) -> PrefixLayerConfig:
    return PrefixLayerConfig("prefix_layer", l_p=L_P, l_i=0, init=init, init_std=0.5, form=Form.key_value, **given)


def with_peft(theirs: Any, kind: str, layers: list[Tensor]) -> tuple[Any, Tensor]:
    """PEFT's model with the same keys and values, and its parameter of shape (tokens, layers 2 heads d)."""
    wrapped: Any = get_peft_model(theirs, PrefixTuningConfig(task_type=kind, num_virtual_tokens=L_P)).eval()
    flat = wrapped.prompt_encoder.default.embedding.weight
    flat.data = in_peft(layers)
    return wrapped, flat


def in_peft(layers: list[Tensor]) -> Tensor:
    return torch.stack([layer.detach() for layer in layers]).flatten(0, 1).permute(2, 0, 1, 3).flatten(1)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("model", ["bert", "roberta", "gpt2", "opt", "gpt_neox", "llama", "qwen2"])
def test_outputs_and_gradients_are_those_of_peft(model: str, attention: str) -> None:
    ours, theirs, arch = pair(
        model, method(), attention, labels=None if MODELS[model][0] not in ("bert", "roberta") else 3
    )
    layers = [*ours.prefix.layers]
    wrapped, flat = with_peft(theirs, "CAUSAL_LM" if arch.is_decoder else "SEQ_CLS", layers)
    ids, mask = batch()
    if model == "roberta":
        ids = ids * mask + theirs.config.pad_token_id * (1 - mask)  # by which it knows where padding is
    both = [each(input_ids=ids, attention_mask=mask).logits for each in (ours, wrapped)]
    found, expected = (out[mask.bool()] if arch.is_decoder else out for out in both)
    scale = expected.abs().max().item()
    assert (found - expected).abs().max() < 2e-5 * scale
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(3))
    mine = torch.autograd.grad((found * weights).sum(), layers)
    (other,) = torch.autograd.grad((expected * weights).sum(), flat)
    assert all(gradient.any() for gradient in mine)
    assert (in_peft([*mine]) - other).abs().max() < 1e-4 * other.abs().max()


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_outputs_and_gradients_are_those_of_the_adapters_library(family: str) -> None:
    with safe_open(LIBRARY / f"{family}-prefix.safetensors", "pt") as file:
        about = json.loads(file.metadata()["about"])
        held = {name: file.get_tensor(name) for name in [*file.keys()]}
    config = AutoConfig.for_model(**about["config"], attn_implementation="eager")
    for key in [key for key in config.to_dict() if "drop" in key or key.endswith("_pdrop")]:
        if isinstance(getattr(config, key, None), float):
            setattr(config, key, 0.0)
    body = AutoModel.from_config(config, attn_implementation="eager").eval()
    body.load_state_dict({k.removeprefix("base."): v for k, v in held.items() if k.startswith("base.")})
    body.requires_grad_(False)
    model = torch.nn.Module()
    model.base_model = model.model = body
    model.config = body.config
    arch = arch_of(config.to_dict(), None if family != "bert" else 2)
    prefix = {"bert": "bert", "gpt2": "transformer", "llama": "model"}[family]
    setattr(model, prefix, body)
    fuse(model)
    length = held["weights.layers.0.key"].shape[1]
    own = PrefixLayerConfig("p", l_p=length, l_i=0, form=Form.key_value, shift_positions=False)
    own.attach(model, arch._replace(model_type=family), 0)
    for index, layer in enumerate(model.prefix.layers):  # pyright: ignore
        layer.data = torch.stack([held[f"weights.layers.{index}.{kind}"] for kind in ("key", "value")])
    out = body(input_ids=held["input_ids"], attention_mask=held["attention_mask"]).last_hidden_state
    shown = held["attention_mask"].bool()
    assert (out - held["output"])[shown].abs().max() < 1e-5 * held["output"].abs().max()
    (out * held["cotangent"]).sum().backward()
    for index, layer in enumerate(model.prefix.layers):  # pyright: ignore
        for mine, kind in zip(layer.grad, ("key", "value"), strict=True):
            expected = held[f"gradients.layers.{index}.{kind}"]
            assert (mine - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("model", SUPPORTED)
def test_padding_on_either_side_changes_nothing(model: str, shift: bool) -> None:
    ours, _, _ = pair(model, method(shift_positions=shift))
    for side in ("right", "left"):
        ids, mask = batch(side)
        found = ours(input_ids=ids, attention_mask=mask).logits
        alone = torch.cat(
            [ours(input_ids=row, attention_mask=torch.ones_like(row)).logits for row in examples(ids, mask)]
        )
        assert torch.allclose(found, alone, atol=2e-5 * alone.abs().max().item())


@pytest.mark.parametrize("model", [name for name in SUPPORTED if MODELS[name][0] not in ENCODERS])
def test_keys_and_values_of_words_are_the_words_and_generation_reads_them(model: str) -> None:
    ours, theirs, _ = pair(model, method(Start.words), labels=None)
    before = words(0, L_P, 60)
    ids, mask = batch("left")
    new = dict(do_sample=False, max_new_tokens=6, eos_token_id=None, pad_token_id=0)
    for beams in (1, 3):
        with torch.inference_mode():
            written = ours.generate(input_ids=ids, attention_mask=mask, num_beams=beams, **new)[:, ids.shape[1] :]
            uncached = ours.generate(input_ids=ids, attention_mask=mask, num_beams=beams, use_cache=False, **new)
            assert written.tolist() == uncached[:, ids.shape[1] :].tolist()
            for row, text in zip(examples(ids, mask), written.tolist(), strict=True):
                whole = torch.cat([before[None], row], 1)
                expected = theirs.generate(
                    input_ids=whole, attention_mask=torch.ones_like(whole), num_beams=beams, **new
                )
                assert expected[0, whole.shape[1] :].tolist() == text


def test_grouped_keys_are_counted_as_they_are() -> None:
    ours, _, arch = pair("llama", method())
    assert method().count(arch).method == sum(p.numel() for p in ours.prefix.parameters()) == 3 * 2 * 12 * L_P


def test_what_has_no_meaning_is_refused() -> None:
    _, _, arch = pair("mpnet", PrefixLayerConfig("prefix_layer", l_p=1, l_i=0))
    with pytest.raises(InputError, match=r"form: key_value needs .* and mpnet has none here"):
        method().check(arch)
    _, _, arch = pair("bert", PrefixLayerConfig("prefix_layer", l_p=1, l_i=0))
    with pytest.raises(InputError, match=r"method\.l_i: form=key_value has tokens before the input alone \(given: 3\)"):
        PrefixLayerConfig("prefix_layer", l_p=1, l_i=3, form=Form.key_value).check(arch)
