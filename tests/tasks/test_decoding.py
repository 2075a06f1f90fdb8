"""Texts written with the cache, held against a search that keeps lists and reads each text anew, alone and unpadded."""

import itertools
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from helpers.prefixes import LENGTHS, batch, examples, with_strong_weights
from torch import Tensor

from lora_repro.config.schema import Dtype
from lora_repro.methods import MethodConfig
from lora_repro.methods.adapters.config import AdapterHConfig
from lora_repro.methods.lora.config import LoRAConfig
from lora_repro.methods.peft.config import PeftConfig
from lora_repro.methods.prefixes.config import Form, LlamaAdapterConfig, PrefixEmbedConfig, PrefixLayerConfig
from lora_repro.models.input_lengths import input_lengths
from lora_repro.tasks.objectives.decoding import Decoding, ban_repeated, write
from lora_repro.tasks.objectives.language import NO_TOKEN

END = 2
METHODS: dict[str, Callable[[], MethodConfig]] = {
    "lora": lambda: LoRAConfig("lora", targets=["q", "v"], r=2, alpha=4.0, dropout=0.0),
    "prefix_embed": lambda: PrefixEmbedConfig("prefix_embed", l_p=3, l_i=2),
    "adapter_h": lambda: AdapterHConfig("adapter_h", bottleneck=3),
    "prefix_layer": lambda: PrefixLayerConfig("prefix_layer", l_p=3, l_i=2),
    "key_value": lambda: PrefixLayerConfig("prefix_layer", l_p=3, l_i=0, form=Form.key_value),
    "llama_adapter": lambda: LlamaAdapterConfig("llama_adapter", l_p=3),
    "prompt_tuning": lambda: PeftConfig("peft", peft_type="PROMPT_TUNING", config={"num_virtual_tokens": 3}),
}
FAMILIES = ("gpt2", "opt", "llama", "qwen2", "gemma3")


def prepared(family: str, method: str) -> Any:
    """A tiny model with strong random weights, and the method's among them."""
    return with_strong_weights(family, METHODS[method]())


def together(model: Any, how: Decoding, dtype: Dtype = Dtype.fp32) -> list[list[int]]:
    ids, _ = batch("right")
    with torch.inference_mode():
        rows = write(model, ids, torch.tensor(LENGTHS), how, dtype).tolist()
    return [[token for token in row if token != NO_TOKEN] for row in rows]


def log_p_of_next(model: Any, prompt: Tensor, text: list[int], banned: set[int]) -> Tensor:
    """Returns log p of every next token, read without a cache; what is banned has none, and the others sum to 1."""
    tokens = torch.cat([prompt, torch.tensor([text], dtype=torch.long)], 1)
    body = model.base_model
    states = body(
        input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False,
        **input_lengths(body, torch.tensor([prompt.shape[1]])),
    ).last_hidden_state  # fmt: skip
    logits = model.lm_head(states[0, -1])
    logits[list(banned)] = -torch.inf
    return logits.log_softmax(-1)


def banned_after(text: list[int], size: int) -> set[int]:
    """Tokens that would complete an n-gram of the text again, by the definition."""
    grams = {tuple(text[i : i + size]) for i in range(len(text) - size + 1)}
    return {token for token in range(60) if size and tuple([*text, token][-size:]) in grams}


def by_lists(model: Any, prompt: Tensor, how: Decoding) -> list[int]:
    """The rules of the paper's code for one example, to the last step: no cache, no padding, no early end."""
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    best: tuple[float, list[int]] = (-math.inf, [])
    for n in range(1, how.max_new_tokens + 1):
        found = []
        for total, text in beams:
            log_p = log_p_of_next(model, prompt, text, banned_after(text, how.no_repeat_ngram_size))
            found += [(total + log_p[token].item(), [*text, token]) for token in range(len(log_p))]
        found.sort(key=lambda pair: -pair[0])
        beams = []
        for total, text in found[: how.num_beams]:
            if text[-1] == how.end or n == how.max_new_tokens:
                best = max(best, (total / n**how.length_penalty, text), key=lambda pair: pair[0])
            if text[-1] != how.end:
                beams.append((total, text))
        if not beams:
            break
    return best[1]


@pytest.mark.parametrize(
    ("family", "method"),
    [
        *itertools.product(FAMILIES, ("lora", "prefix_embed")),
        *(("llama", method) for method in [*METHODS][2:]),
        ("gemma3", "prefix_layer"),
        ("qwen2", "key_value"),
    ],
)
def test_a_batch_writes_what_a_search_by_lists_writes_for_each_alone(family: str, method: str) -> None:
    model = prepared(family, method)
    ids, mask = batch("right")
    for how in (Decoding(6, END), Decoding(6, END, 3, 0.9, 2)):
        with torch.inference_mode():
            alone = [by_lists(model, prompt, how) for prompt in examples(ids, mask)]
        assert together(model, how) == alone
    assert len(set(map(tuple, alone))) > 1


def test_texts_end_at_different_places_in_that_test() -> None:
    """Else nothing would leave a batch, and no finished text compete with longer ones."""
    texts = [
        text
        for family in FAMILIES
        for method in ("lora", "prefix_embed")
        for penalty in (0.0, 0.9, 3.0)
        for text in together(prepared(family, method), Decoding(8, END, 6, penalty))
    ]
    lengths = {len(text) for text in texts if text[-1] == END}
    assert len(lengths) >= 3 and any(text[-1] != END for text in texts)


@pytest.mark.parametrize("penalty", [-1.0, 0.8])
def test_with_a_beam_for_every_text_the_best_of_all_is_found(penalty: float) -> None:
    """Five tokens and three steps: all texts can be listed, and ending early may not lose the best."""
    model = prepared("llama", "lora")
    model.lm_head.weight.data = model.lm_head.weight.data[:5].clone()
    how = Decoding(3, END, 5**3, penalty)
    ids, mask = batch("right")
    with torch.inference_mode():
        for prompt, found in zip(examples(ids, mask), together(model, how), strict=True):
            scores = {}
            after = cache(lambda *text, prompt=prompt: log_p_of_next(model, prompt, [*text], set()))
            unfinished = [head for n in range(3) for head in itertools.product((0, 1, 3, 4), repeat=n)]
            cut = [*itertools.product((0, 1, 3, 4), repeat=3)]
            for text in [*((*head, END) for head in unfinished), *cut]:
                steps = [after(*text[:i])[text[i]].item() for i in range(len(text))]
                scores[text] = sum(steps) / len(text) ** penalty
            assert tuple(found) == max(scores, key=lambda text: scores[text])


@pytest.mark.parametrize("family", FAMILIES)
def test_one_beam_writes_what_transformers_writes(family: str) -> None:
    model = prepared(family, "lora")
    ids, mask = batch("right")
    for prompt, found in zip(examples(ids, mask), together(model, Decoding(8, END)), strict=True):
        theirs = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=8, eos_token_id=END
        )
        assert found == theirs[0, prompt.shape[1] :].tolist()


@pytest.mark.parametrize("dtype", Dtype)
def test_the_model_reads_a_prompt_once_and_finished_texts_no_more(dtype: Dtype) -> None:
    model = prepared("llama", "lora")
    texts = together(model, Decoding(8, END, 6, 3.0), dtype)
    seen: list[tuple[int, int]] = []
    hook = model.base_model.register_forward_pre_hook(
        lambda _, __, given: seen.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    end = next(token for token in texts[0][2:] if token not in texts[0][:2])
    together(model, Decoding(8, end, 1), dtype)
    hook.remove()
    assert seen[0] == (3, max(LENGTHS)) and {columns for _, columns in seen[1:]} == {1}
    rows = [count for count, _ in seen]
    assert rows == sorted(rows, reverse=True)


def test_repeated_pairs_are_banned_by_hand() -> None:
    written = torch.tensor([[4, 1, 4, 3, 4], [1, 1, 1, 1, 1], [0, 1, 2, 3, 4]])
    for size, expected in (
        (0, [[], [], []]),
        (1, [[1, 3, 4], [1], [0, 1, 2, 3, 4]]),
        (2, [[1, 3], [1], []]),
        (3, [[], [1], []]),
        (6, [[], [], []]),
    ):
        logits = torch.zeros(3, 6)
        ban_repeated(logits, written, size)
        assert [row.nonzero().flatten().tolist() for row in logits.isinf()] == expected


def test_a_text_of_which_every_continuation_is_banned_stays_as_it_is() -> None:
    model = prepared("llama", "lora")
    model.lm_head.weight.data = model.lm_head.weight.data[:3].clone()
    (first, *_) = together(model, Decoding(6, 5, 1, 1.0, 1))
    assert first == []  # three tokens, each once, and no end: a text that cannot go on counts nothing
    assert all(len(set(text)) == len(text) <= 3 for text in together(model, Decoding(3, 5, 2, 1.0, 1)))
