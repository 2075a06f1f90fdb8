"""Gated prompts in upper layers, against PEFT's on Llama and a computation that is written out elsewhere."""

from typing import Any

import pytest
import torch
from helpers.architectures import ENCODERS, MODELS
from helpers.prefixes import batch, examples, pair
from peft import AdaptionPromptConfig, get_peft_model
from torch import Tensor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lora_repro.errors import InputError
from lora_repro.methods import LlamaAdapterConfig
from lora_repro.methods.prefixes.config import ASKED_ATTENTION

SUPPORTED = [name for name, (family, _) in MODELS.items() if family in ASKED_ATTENTION]


def attached(model: str, labels: int | None = 3, top: int | None = 2, attention: str = "eager") -> tuple[Any, Any]:
    ours, theirs, _ = pair(model, LlamaAdapterConfig("llama_adapter", l_p=5, top_layers=top), attention, labels)
    for index, layer in enumerate(ours.llama_adapter.values()):
        assert not layer.gate.any()
        layer.gate.data += 0.5 + index
    return ours, theirs


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("model", ["llama", "smollm2"])
def test_outputs_and_gradients_are_those_of_peft(model: str, attention: str) -> None:
    ours, theirs = attached(model, None, attention=attention)
    wrapped: Any = get_peft_model(
        theirs, AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=5, adapter_layers=2)
    ).eval()
    both = []
    for layer, own in ours.llama_adapter.items():
        other = wrapped.base_model.model.model.layers[int(layer)].self_attn
        other.adaption_prompt.data, other.adaption_gate.data = own.prompt.detach()[None], own.gate.detach().clone()
        both += [(own.prompt, other.adaption_prompt), (own.gate, other.adaption_gate)]
    ids, mask = batch()
    found, expected = (each(input_ids=ids, attention_mask=mask).logits[mask.bool()] for each in (ours, wrapped))
    assert (found - expected).abs().max() < 2e-5 * expected.abs().max()
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(3))
    mine = torch.autograd.grad((found * weights).sum(), [own for own, _ in both])
    theirs_too = torch.autograd.grad((expected * weights).sum(), [other for _, other in both])
    for a, b in zip(mine, theirs_too, strict=True):
        assert a.any() and (a - b.view_as(a)).abs().max() < 1e-4 * b.abs().max()


def projected(module: Any, prompt: Tensor, family: str) -> tuple[Tensor, Tensor]:
    """Keys and values of a prompt, (heads, tokens, width), by the untouched layers of each family."""
    if family in ("bert", "roberta"):
        key, value, width = module.key(prompt), module.value(prompt), module.attention_head_size
    elif family == "gpt2":
        (_, key, value), width = module.c_attn(prompt).chunk(3, -1), module.head_dim
    elif family == "gpt_neox":
        width = module.head_size
        _, key, value = module.query_key_value(prompt).view(len(prompt), -1, 3, width).unbind(2)
    else:
        key, value, width = module.k_proj(prompt), module.v_proj(prompt), module.head_dim
    return tuple(x.reshape(len(prompt), -1, width).transpose(0, 1) for x in (key, value))  # pyright: ignore


@pytest.mark.parametrize("model", SUPPORTED)
def test_attention_has_the_gated_prompt_beside_it(model: str) -> None:
    ours, theirs = attached(model)

    def reference(
        module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, scaling: float | None = None, **_: Any
    ) -> Any:
        own = dict(ours.llama_adapter.items()).get(str(module.layer_idx))
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        scale = q.shape[-1] ** -0.5 if scaling is None else scaling
        out = (q @ k.transpose(2, 3) * scale + (0 if mask is None else mask)).softmax(-1) @ v
        if own is not None:
            key, value = projected(module, own.prompt, MODELS[model][0])
            key, value = (x.repeat_interleave(q.shape[1] // len(x), 0) for x in (key, value))
            out = out + own.gate * ((q @ key.transpose(1, 2) * scale).softmax(-1) @ value)
        return out.transpose(1, 2), None

    ALL_ATTENTION_FUNCTIONS.register("written_out", reference)
    ALL_MASK_ATTENTION_FUNCTIONS.register("written_out", ALL_MASK_ATTENTION_FUNCTIONS["eager"])
    theirs.config._attn_implementation = "written_out"
    ids, mask = batch()
    found, expected = (each(input_ids=ids, attention_mask=mask).logits for each in (ours, theirs))
    if model not in ENCODERS:  # transformers does not know where padding of arbitrary tokens is
        states = [theirs.base_model(row).last_hidden_state[:, -1] for row in examples(ids, mask)]
        expected = theirs.score(torch.cat(states))
    elif model == "roberta":
        expected = torch.cat([theirs(input_ids=row).logits for row in examples(ids, mask)])
    assert torch.allclose(found, expected, atol=2e-5 * expected.abs().max().item())
    parameters = [*ours.llama_adapter.parameters()]
    for a, b in zip(*(torch.autograd.grad(out.sum(), parameters) for out in (found, expected)), strict=True):
        assert a.any() and torch.allclose(a, b, atol=1e-4 * b.abs().max().item())


@pytest.mark.parametrize("model", SUPPORTED)
def test_closed_gates_change_nothing(model: str) -> None:
    ours, theirs, _ = pair(model, LlamaAdapterConfig("llama_adapter", l_p=5))
    ids = batch()[0][:1]
    assert torch.allclose(ours(input_ids=ids).logits, theirs(input_ids=ids).logits, atol=1e-4)


@pytest.mark.parametrize("model", SUPPORTED)
def test_a_padded_batch_is_each_example_alone(model: str) -> None:
    ours, _ = attached(model)
    ids, mask = batch()
    found = ours(input_ids=ids, attention_mask=mask).logits
    alone = torch.cat([ours(input_ids=row).logits for row in examples(ids, mask)])
    assert torch.allclose(found, alone, atol=2e-5 * alone.abs().max().item())


@pytest.mark.parametrize("model", [name for name in SUPPORTED if MODELS[name][0] not in ENCODERS])
def test_generating_with_the_cache_is_generating_without(model: str) -> None:
    ours, _ = attached(model, None)
    ids, mask = batch("left")
    new = dict(do_sample=False, max_new_tokens=6, eos_token_id=None, pad_token_id=0)
    for beams in (1, 3):
        with torch.inference_mode():
            texts = [
                ours.generate(input_ids=ids, attention_mask=mask, num_beams=beams, use_cache=cached, **new).tolist()
                for cached in (True, False)
            ]
        assert texts[0] == texts[1]


def test_what_does_not_exist_is_refused() -> None:
    _, _, bert = pair("bert", LlamaAdapterConfig("llama_adapter", l_p=1))
    for config, words in (
        (LlamaAdapterConfig("llama_adapter", l_p=0), "l_p: must be from 1 to 40"),
        (LlamaAdapterConfig("llama_adapter", l_p=1, top_layers=4), "top_layers: must be from 1 to 3"),
        (LlamaAdapterConfig("llama_adapter", l_p=1, init_std=-1.0), "init_std"),
    ):
        with pytest.raises(InputError, match=words):
            config.check(bert)
    with pytest.raises(InputError, match="needs attention in which keys may have no position, and mpnet has none"):
        LlamaAdapterConfig("llama_adapter", l_p=1).check(bert._replace(model_type="mpnet"))
