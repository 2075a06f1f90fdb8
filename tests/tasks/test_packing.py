"""Several texts in one row: states and gradients held against the same texts read alone."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fixture_types import Compose
from helpers.prefixes import with_strong_weights

from lora_repro.config.resolve import resolve
from lora_repro.config.schema import Dtype, TrainConfig
from lora_repro.errors import InputError
from lora_repro.methods import MethodConfig
from lora_repro.methods.adapters.config import AdapterHConfig
from lora_repro.methods.lora.config import LoRAConfig
from lora_repro.methods.prefixes.config import LlamaAdapterConfig
from lora_repro.tasks import encoding
from lora_repro.tasks.batches import batches
from lora_repro.tasks.encoding import Encoded, encode
from lora_repro.tasks.objectives.decoding import Decoding
from lora_repro.tasks.objectives.language import rows_of
from lora_repro.tasks.objectives.packing import best_width, pack, places
from lora_repro.tasks.objectives.text import TextToWrite, refuse_leaks
from lora_repro.training import train as training

CPU = torch.device("cpu")
PROMPTS = [[5, 9, 12, 7, 30, 31, 8, 41, 22, 17], [6, 7], [40, 3, 19, 8], [11]]
TARGETS = [[21, 50, 2], [33, 2], [2], [44, 45, 46, 47, 2]]
"""Tokens read: 12, 3, 4 and 5."""
REVERSE = ("model=tiny_llama", "task=reverse", "preset@train=tiny_llama", "train.dtype=fp32")


def split_of(packing: bool) -> Encoded:
    longest = max(map(len, PROMPTS))
    tokens = torch.tensor([[*row, *[0] * (longest - len(row))] for row in PROMPTS])
    lengths = torch.tensor([*map(len, PROMPTS)])
    inputs = {"input_ids": tokens, "attention_mask": (torch.arange(longest) < lengths[:, None]).long()}
    objective = TextToWrite(None, Decoding(5, 2), packing=packing)
    return Encoded([], inputs, lengths, rows_of(TARGETS, CPU), objective)


def lora() -> MethodConfig:
    return LoRAConfig("lora", targets=["q", "v"], r=2, alpha=4.0, dropout=0.0)


def test_each_text_has_its_own_places_in_as_few_rows_as_the_longest_first_needs() -> None:
    assert places([12, 3, 4, 5], 12) == [(0, 0), (1, 9), (1, 5), (1, 0)]
    assert places([6, 6, 6], 8) == [(0, 0), (1, 0), (2, 0)]
    assert best_width([12, 3, 4, 5]) == 12
    assert best_width([6, 6, 6, 6]) == 12 and best_width([9, 9, 5, 5]) == 16
    rows = pack(torch.tensor([[7, 8, 9], [5, 0, 0], [6, 4, 0]]), torch.tensor([3, 1, 2]))
    assert rows.tokens.tolist() == [[7, 8, 9, 5], [6, 4, 0, 0]]
    assert rows.positions.tolist() == [[0, 1, 2, 0], [0, 1, 0, 0]]
    assert rows.starts.tolist() == [0, 3, 4]
    assert rows.sees[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]]
    assert rows.sees[1, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("family", "method"),
    [
        *itertools.product(("gpt2", "opt", "llama", "qwen2", "gemma3"), (lora(),)),
        ("llama", AdapterHConfig("adapter_h", bottleneck=3)),
        ("llama", LlamaAdapterConfig("llama_adapter", l_p=3)),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_loss_and_gradients_are_those_of_the_texts_one_by_one(
    family: str, method: MethodConfig, attention: str
) -> None:
    model = with_strong_weights(family, method)
    if attention == "sdpa" and method.name != "llama_adapter":
        model.config._attn_implementation = "sdpa"
    packed, apart = split_of(True), split_of(False)
    assert len(pack(packed.inputs["input_ids"], packed.lengths).tokens) < len(PROMPTS)
    loss = packed.loss(model, [0, 1, 2, 3], Dtype.fp32, CPU)
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    sums = [apart.loss(model, [i], Dtype.fp32, CPU) * len(TARGETS[i]) for i in range(4)]
    mean = torch.stack(sums).sum() / sum(map(len, TARGETS))
    mean.backward()
    assert torch.allclose(loss, mean, atol=1e-5)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0
            assert torch.allclose(found[name], parameter.grad, atol=1e-5, rtol=1e-4), name
    refuse_leaks(model, packed, Dtype.fp32, CPU)


def test_in_bf16_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_strong_weights("llama", lora())
    loss = {packing: split_of(packing).loss(model, [0, 1, 2, 3], Dtype.bf16, CPU).item() for packing in (True, False)}
    assert loss[True] == pytest.approx(loss[False], rel=0.02)
    refuse_leaks(model, split_of(True), Dtype.bf16, CPU)


def test_texts_that_see_each_other_are_refused() -> None:
    """As where a layer makes its own mask."""
    model = with_strong_weights("llama", lora())
    layer = model.model.layers[0].self_attn
    plain = layer.forward

    def blind(*args: Any, attention_mask: torch.Tensor, **kwargs: Any) -> Any:
        causal = torch.full(attention_mask.shape[-2:], torch.finfo(torch.float32).min).triu(1)
        return plain(*args, attention_mask=causal[None, None], **kwargs)

    layer.forward = blind
    with pytest.raises(InputError, match=r"train\.packing: with this method texts that share a row change"):
        refuse_leaks(model, split_of(True), Dtype.fp32, CPU)


def test_packed_batches_are_drawn_from_all_lengths_and_leave_no_text_out() -> None:
    lengths = [*range(3, 83)]
    alike, any_length = batches(lengths, 8, 0, 0), batches(lengths, 8, 0, 0, alike=False)
    assert sorted(i for batch in any_length for i in batch) == [*range(80)]
    assert [*map(len, any_length)] == [8] * 10
    spread = [max(batch) - min(batch) for batch in any_length]
    assert min(spread) > 30 and max(max(batch) - min(batch) for batch in alike) <= 12


def test_rows_are_nearly_full() -> None:
    lengths = [(37 * i) % 90 + 6 for i in range(16)]
    width = best_width(lengths)
    assert max(lengths) <= width < 2 * max(lengths) + 4
    taken = {
        (row, start + i)
        for (row, start), length in zip(places(lengths, width), lengths, strict=True)
        for i in range(length)
    }
    assert len(taken) == sum(lengths) and max(column for _, column in taken) < width
    assert len(taken) / ((1 + max(row for row, _ in taken)) * width) > 0.95


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("train.packing=true",), r"train\.packing: puts several texts to be written into one row, and task="),
        *(
            ((*REVERSE, *method, "train.packing=true"), rf"train\.packing: {method[0]} puts a prefix in front of each")
            for method in (
                ("method=prefix_embed", "method.l_p=2", "method.l_i=1"),
                ("method=lora_prefix_embed", "method.l_p=2", "method.l_i=1"),
                ("method=prefix_layer", "method.l_p=2", "method.l_i=0", "method.form=key_value"),
                ("method=peft", "method.peft_type=PROMPT_TUNING", "method.config={num_virtual_tokens: 3}"),
            )
        ),
    ],
)
def test_what_cannot_be_packed_is_refused(tiny: Compose, overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        resolve(tiny(*overrides))


def test_a_packed_run_is_another_run_with_as_many_steps(tiny: Compose, tmp_path: Path) -> None:
    runs = [resolve(tiny(*REVERSE, "method=lora", "seed=0", f"train.packing={value}")).run for value in (False, True)]
    assert replace(runs[1].train, packing=False) == runs[0].train
    assert runs[0].train.steps(10) == runs[1].train.steps(10)


def test_a_process_that_trains_several_runs_encodes_for_the_settings_of_each(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an objective reads of a run's training is part of what encoded splits are kept by."""
    read: set[str] = set()

    class Recorder(TrainConfig):
        def __getattribute__(self, key: str) -> Any:
            if key in TrainConfig.__dataclass_fields__:
                read.add(key)
            return super().__getattribute__(key)

    monkeypatch.setattr(encoding, "_encoded", {})
    for task in (REVERSE, (*REVERSE, "task=generated", "task.form=text"), ("task=generated", "model=tiny_bert")):
        resolved = resolve(tiny(*task, "method=lora"))
        resolved.run.train.__class__ = Recorder
        encode(resolved.run, resolved.settings)
    assert read == set(encoding.READ_BY_OBJECTIVES)
    losses = set()
    for smoothing in (0.0, 0.2):
        resolved = resolve(tiny(*REVERSE, "method=lora", f"train.label_smoothing={smoothing}"))
        split = encode(resolved.run, resolved.settings)["train"]
        losses.add(split.loss(training.build(resolved, CPU), [0, 1], Dtype.fp32, CPU).item())
    assert len(losses) == 2
