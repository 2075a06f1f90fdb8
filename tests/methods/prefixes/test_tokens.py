"""Tokens around the input, against the untouched model of transformers that is given the whole row, one by one.

People were hurt by padding between prefix and input (huggingface/peft issues 54 and 1093), by positions in generation
(peft pull request 222), by texts that differ with the cache (peft issue 869), by a head that read the first prefix
token (THUDM/P-tuning-v2 issues 15 and 18), and by masks and heads of keys without the prefix (zai-org/ChatGLM3 issue
359).
"""

from typing import Any

import pytest
import torch
from helpers.architectures import ENCODERS, MODELS
from helpers.prefixes import LENGTHS, batch, blocks_of, embedded, examples, head_of, pair
from torch import Tensor, nn

from lora_repro.methods import LoRAPrefixLayerConfig, PrefixConfig, PrefixEmbedConfig, PrefixLayerConfig
from lora_repro.methods.lora.layers import LoRALinear
from lora_repro.methods.prefixes.config import Start
from lora_repro.methods.prefixes.layout import lay_out
from lora_repro.methods.prefixes.tokens import words

SIDES = ("right", "left")
TOKENS = ((5, 0), (0, 3), (4, 2))
KINDS: dict[str, type[PrefixConfig]] = {"prefix_embed": PrefixEmbedConfig, "prefix_layer": PrefixLayerConfig}
DECODERS = [name for name, (family, _) in MODELS.items() if family not in ENCODERS]


def method(name: str, l_p: int, l_i: int, init: Start = Start.normal) -> PrefixConfig:
    return KINDS[name](name, l_p=l_p, l_i=l_i, init=init, init_std=0.5)


def expected(name: str, ours: Any, theirs: Any, ids: Tensor, l_p: int, l_i: int) -> Tensor:
    """What the untouched model says of [prefix][input][infix] of one example, computed from its parts."""
    body, prefix = theirs.base_model, ours.prefix
    n, is_encoder = ids.shape[1], body.config.model_type in ENCODERS
    at = l_p if is_encoder else l_p + n + l_i - 1
    if name == "prefix_embed":
        table = body.get_input_embeddings()(ids)
        whole = torch.cat([prefix.embed[None, :l_p], table, prefix.embed[None, l_p:]], 1)
        states = body(inputs_embeds=whole, attention_mask=torch.ones(1, whole.shape[1])).last_hidden_state
    else:
        places = torch.tensor([*range(l_p), *range(l_p + n, l_p + n + l_i)])
        filled = torch.cat([ids.new_zeros(1, l_p), ids, ids.new_zeros(1, l_i)], 1)
        states = blocks_of(body, embedded(body, filled), [*prefix.layers], places)
    return head_of(theirs, states, at)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("model", MODELS)
def test_outputs_and_gradients_are_those_of_the_whole_row_alone(name: str, model: str) -> None:
    for side in SIDES:
        for l_p, l_i in TOKENS:
            ours, theirs, _ = pair(model, method(name, l_p, l_i))
            ids, mask = batch(side)
            found = ours(input_ids=ids, attention_mask=mask).logits
            rows = torch.cat([expected(name, ours, theirs, row, l_p, l_i) for row in examples(ids, mask)])
            assert found.shape == rows.shape
            assert (found - rows).abs().max() < 2e-5 * max(1, rows.abs().max().item()), (side, l_p, l_i)
            weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(3))
            parameters = [*ours.prefix.parameters()]
            gradients = [torch.autograd.grad((out * weights).sum(), parameters) for out in (found, rows)]
            unread = 0 if l_p or model not in DECODERS else len(parameters) - 1
            for index, (mine, other) in enumerate(zip(*gradients, strict=True)):
                assert mine.any() == (index >= unread)  # behind a decoder's input only the last block's are read
                assert torch.allclose(mine, other, rtol=1e-3, atol=1e-4 * other.abs().max().item())


@pytest.mark.parametrize("model", ["bert", "deberta-positions"])
def test_the_second_sentence_stays_the_second(model: str) -> None:
    ours, theirs, _ = pair(model, method("prefix_embed", 4, 2))
    for side in SIDES:
        ids, mask = batch(side)
        types = torch.randint(0, 2, ids.shape, generator=torch.Generator().manual_seed(2))
        found, rows = ours(input_ids=ids, attention_mask=mask, token_type_ids=types).logits, []
        for row, kinds in zip(examples(ids, mask), examples(types, mask), strict=True):
            front, behind = ours.prefix.embed[None, :4], ours.prefix.embed[None, 4:]
            whole = torch.cat([front, theirs.get_input_embeddings()(row), behind], 1)
            given = {"token_type_ids": nn.functional.pad(kinds, (4, 2)), "attention_mask": torch.ones(whole.shape[:2])}
            rows.append(head_of(theirs, theirs.base_model(inputs_embeds=whole, **given).last_hidden_state, 4))
        assert torch.allclose(found, torch.cat(rows), atol=1e-4)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("model", ["bert", "gpt2", "llama", "gemma3"])
def test_the_fused_kernel_of_attention_gives_the_same(name: str, model: str) -> None:
    ids, mask = batch()
    found = [
        pair(model, method(name, 4, 2), attention)[0](input_ids=ids, attention_mask=mask).logits
        for attention in ("eager", "sdpa")
    ]
    assert torch.allclose(*found, atol=1e-4)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("model", MODELS)
def test_vectors_of_words_start_as_the_words_themselves(name: str, model: str) -> None:
    if name == "prefix_layer" and model not in DECODERS:
        return  # the words of an encoder would see the input, and their trained states do not
    ours, theirs, _ = pair(model, method(name, 4, 0, Start.words))
    ids, mask = batch()
    rows = []
    for row in examples(ids, mask):
        whole = torch.cat([words(0, 4, 60)[None], row], 1)
        states = theirs.base_model(whole, attention_mask=torch.ones_like(whole)).last_hidden_state
        rows.append(head_of(theirs, states, whole.shape[1] - 1 if model in DECODERS else 4))
    assert torch.allclose(ours(input_ids=ids, attention_mask=mask).logits, torch.cat(rows), atol=1e-4)


def test_a_layout_by_hand() -> None:
    mask = torch.tensor([[1, 1, 1, 0], [0, 0, 1, 1], [0, 1, 1, 0]])
    found = lay_out(mask, 2, 1, is_decoder=True)
    assert found.mask.tolist() == [[1] * 6 + [0], [0, 0, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 0]]
    assert found.added.tolist() == [[0, 1, 5], [2, 3, 6], [1, 2, 5]]
    assert found.kept.tolist() == [[2, 3, 5, 6], [0, 1, 4, 6], [0, 3, 5, 6]]
    assert found.positions.tolist() == [[*range(7)], [0, 0, 0, 1, 2, 3, 4], [0, 0, 1, 2, 3, 4, 5]]
    assert lay_out(mask, 2, 1, is_decoder=False).kept.tolist() == [[2, 3, 4, 6], [4, 1, 4, 5], [3, 3, 4, 6]]
    behind = lay_out(torch.ones(1, 4).long(), 1, 1, True, torch.tensor([2]))
    assert behind.added.tolist() == [[0, 3]] and behind.kept.tolist() == [[1, 3, 4, 5]]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("model", DECODERS)
def test_generating_with_the_cache_is_reading_everything_again(name: str, model: str) -> None:
    ours, theirs, _ = pair(model, method(name, 4, 2), labels=None)
    ids, mask = batch("left")
    new = dict(do_sample=False, max_new_tokens=6, eos_token_id=None, pad_token_id=0)
    with torch.inference_mode():
        written = ours.generate(input_ids=ids, attention_mask=mask, **new)
        for (row,), text in zip(examples(ids, mask), written[:, ids.shape[1] :].tolist(), strict=True):
            tokens, length = row.tolist(), torch.tensor([len(row)])
            for token in text:
                logits = ours(input_ids=torch.tensor([tokens]), input_lengths=length, use_cache=False).logits
                assert token == int(logits[0, -1].argmax())
                tokens.append(token)
        beams = new | dict(num_beams=3, length_penalty=0.9)
        found = ours.generate(input_ids=ids, attention_mask=mask, **beams)[:, ids.shape[1] :].tolist()
        for (row,), text in zip(examples(ids, mask), found, strict=True):
            assert ours.generate(input_ids=row[None], **beams)[0, len(row) :].tolist() == text
            if name == "prefix_embed":
                table = theirs.get_input_embeddings()(row)
                whole = torch.cat([ours.prefix.embed[:4], table, ours.prefix.embed[4:]])[None]
                assert theirs.generate(inputs_embeds=whole, **beams)[0].tolist() == text
        with pytest.raises(ValueError, match="must know where the input ends"):
            ours(input_ids=ids, attention_mask=mask, use_cache=False)


@pytest.mark.parametrize("name", KINDS)
def test_beam_search_is_the_same_without_the_cache(name: str) -> None:
    ours, _, _ = pair("opt", method(name, 4, 0), labels=None)
    ids, mask = batch("left")
    beams = dict(do_sample=False, max_new_tokens=6, eos_token_id=None, pad_token_id=0, num_beams=3)
    with torch.inference_mode():
        both = [ours.generate(input_ids=ids, attention_mask=mask, use_cache=c, **beams).tolist() for c in (True, False)]
    assert both[0] == both[1]


def test_what_would_be_read_wrongly_is_refused() -> None:
    ours, _, _ = pair("llama", method("prefix_embed", 2, 0), labels=None)
    with pytest.raises(ValueError, match="takes input_ids"):
        ours.base_model(input_ids=torch.tensor([[5]]), inputs_embeds=torch.zeros(1, 1, 24))
    with pytest.raises(ValueError, match=r"mask of shape \(batch, tokens\)"):
        ours(input_ids=torch.tensor([[5]]), attention_mask=torch.ones(1, 1, 1, 1))


@pytest.mark.parametrize("model", ["bert", "roberta"])
def test_blocks_compute_keys_and_values_alone_of_tokens_whose_states_are_replaced(model: str) -> None:
    ours, theirs, _ = pair(
        model, LoRAPrefixLayerConfig("both", targets=["k", "v"], r=2, alpha=2.0, dropout=0.0, l_p=4, l_i=2)
    )
    assert sum(isinstance(module, LoRALinear) for module in ours.modules()) == 2 * ours.config.num_hidden_layers
    torch.manual_seed(4)
    for name, module in ours.named_modules():
        if isinstance(module, LoRALinear):
            (update,) = module.updates.values()
            nn.init.normal_(update.lora_B, std=0.3)
            theirs.get_submodule(name).weight.data += update.delta_W()
    seen: list[tuple[int, ...]] = []
    for block in ours.base_model.encoder.layer:
        block.intermediate.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[:2])))
    ids, mask = batch()
    found = ours(input_ids=ids, attention_mask=mask).logits
    rows = torch.cat([expected("prefix_layer", ours, theirs, row, 4, 2) for row in examples(ids, mask)])
    assert torch.allclose(found, rows, atol=2e-5 * rows.abs().max().item())
    assert set(seen) <= {(len(LENGTHS), max(LENGTHS)), (len(LENGTHS), 1)}
