"""Texts to be written: the loss held against transformers', decoding against texts written one by one."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fixture_types import Compose
from helpers.local_models import space_mark_tokenizer, write
from tokenizers import decoders

from lora_repro.config.resolve import resolve
from lora_repro.config.schema import Dtype, load_group
from lora_repro.errors import InputError
from lora_repro.tasks import encoding
from lora_repro.tasks.encoding import Encoded, encode
from lora_repro.tasks.objectives import language
from lora_repro.tasks.objectives.text import TextToWrite
from lora_repro.tasks.reverse import ReverseConfig
from lora_repro.tasks.targets import Example
from lora_repro.training import scoring
from lora_repro.training.train import build

CPU = torch.device("cpu")
REVERSE = ("model=tiny_llama", "task=reverse", "preset@train=tiny_llama", "train.dtype=fp32")
END = 3
"""[SEP] of the vocabulary of letters."""


def mixed(config: ReverseConfig, data: object, cache: object) -> dict[str, list[Example]]:
    """Prompts and texts of many lengths, so that a batch is padded."""
    words = ["a", "bcd efgh", "h", "abcdefgh ijk lmno", "pq", "rstu", "vw", "xyz xyz xyz"]
    examples = [Example(word, word, [" ".join(reversed(word)).replace("   ", " ")], word) for word in words]
    return {"train": examples, "eval": examples, "test": examples}


@pytest.fixture
def prepared(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> tuple[torch.nn.Module, Encoded]:
    """A model with strong random weights, so that what it writes differs from prompt to prompt."""
    monkeypatch.setattr(ReverseConfig, "load", mixed)
    monkeypatch.setattr(encoding, "_encoded", {})
    sizes = [f"task.{split}_size=null" for split in ("train", "eval", "test")]
    resolved = resolve(tiny(*REVERSE, *sizes, "task.max_new_tokens=20", "train.max_length=64", "method=full"))
    model = build(resolved, CPU).eval()
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.4)
    return model, encode(resolved.run, resolved.settings)["eval"]


def prompt_of(split: Encoded, index: int) -> list[int]:
    return split.inputs["input_ids"][index, : int(split.lengths[index])].tolist()


def target_of(split: Encoded, index: int) -> list[int]:
    return [token for token in split.targets[index].tolist() if token >= 0]


def test_the_loss_is_transformers_on_the_target_tokens_alone(prepared: tuple[torch.nn.Module, Encoded]) -> None:
    """Its end included, its padding and the prompt left out; a mean over all target tokens of the batch."""
    model, split = prepared
    indices = [3, 0, 7, 5]
    rows = [(prompt_of(split, i), target_of(split, i)) for i in indices]
    longest = max(len(prompt) + len(target) for prompt, target in rows)
    tokens = torch.zeros((4, longest), dtype=torch.long)
    labels = torch.full((4, longest), -100)
    for row, (prompt, target) in enumerate(rows):
        tokens[row, : len(prompt) + len(target)] = torch.tensor(prompt + target)
        labels[row, len(prompt) : len(prompt) + len(target)] = torch.tensor(target)
    mask = (torch.arange(longest) < torch.tensor([[len(p) + len(t)] for p, t in rows])).long()
    theirs = model(input_ids=tokens, attention_mask=mask, labels=labels).loss
    assert torch.allclose(split.loss(model, indices, Dtype.fp32, CPU), theirs, atol=1e-5)
    assert all(target[-1] == END for _, target in rows) and len({len(target) for _, target in rows}) > 2


def test_smoothing_gives_a_share_of_each_token_to_all_tokens_in_training_alone(
    prepared: tuple[torch.nn.Module, Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, split = prepared
    indices, share = [3, 0, 7, 5], 0.1
    assert isinstance(split.objective, TextToWrite) and split.objective.smoothing == 0
    plain, predictions = split.loss(model, indices, Dtype.fp32, CPU), split.outputs(model, indices, Dtype.fp32, CPU)
    log_p = []
    for i in indices:
        prompt, target = prompt_of(split, i), target_of(split, i)
        logits = model(input_ids=torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
        log_p.append(logits.log_softmax(-1))
    to_all = -torch.cat(log_p).mean()
    monkeypatch.setattr(split.objective, "smoothing", share)
    smoothed = split.loss(model, indices, Dtype.fp32, CPU)
    assert torch.allclose(smoothed, (1 - share) * plain + share * to_all, atol=1e-4) and abs(smoothed - plain) > 0.01
    assert torch.equal(split.outputs(model, indices, Dtype.fp32, CPU), predictions)


def test_the_loss_of_a_split_is_the_mean_over_its_target_tokens(prepared: tuple[torch.nn.Module, Encoded]) -> None:
    model, split = prepared
    everything = list(range(len(split.examples)))
    predictions = scoring.predict(model, split, Dtype.fp32, CPU)
    with torch.inference_mode():
        expected = split.loss(model, everything, Dtype.fp32, CPU).item()
    assert split.objective.mean_loss(predictions, split) == pytest.approx(expected, rel=1e-5)


def test_a_text_is_written_in_a_batch_as_it_is_alone_and_as_transformers_writes_it(
    prepared: tuple[torch.nn.Module, Encoded],
) -> None:
    model, split = prepared
    everything = list(range(len(split.examples)))
    with torch.inference_mode():
        together = split.predict(model, everything, Dtype.fp32, CPU)[:, 1:].long()
        alone = torch.cat([split.predict(model, [i], Dtype.fp32, CPU)[:, 1:].long() for i in everything])
    assert torch.equal(together, alone)
    for i in everything:
        prompt = torch.tensor([prompt_of(split, i)])
        theirs = model.generate(  # pyright: ignore
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=20, eos_token_id=END
        )
        written = [token for token in together[i].tolist() if token >= 0]
        assert written == theirs[0, prompt.shape[1] :].tolist()
    assert len({tuple(row) for row in together.tolist()}) > 4


def test_writing_stops_at_the_end_and_the_end_is_no_part_of_the_text(
    prepared: tuple[torch.nn.Module, Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, split = prepared
    with torch.inference_mode():
        whole = split.predict(model, [3, 0, 7], Dtype.fp32, CPU)[:, 1:].long().tolist()
        assert isinstance(split.objective, TextToWrite)
        end = next(token for token in whole[0][1:] if token != whole[0][0])
        monkeypatch.setattr(
            split.objective, "decoding", split.objective.decoding._replace(end=end)
        )  # ends the first text early, and the others if they have it
        predictions = split.predict(model, [3, 0, 7], Dtype.fp32, CPU)
    at = whole[0].index(end) + 1
    assert 2 <= at < 10 and predictions[0, 1:].long().tolist() == whole[0][:at] + [-1] * (20 - at)
    assert split.objective.answers(predictions)[0].scores == [predictions[0, 0].item()]


@pytest.mark.parametrize(("one_line", "text"), [(True, "SELECT a FROM t;"), (False, "SELECT a FROM t;\n\nOutput:\n3")])
def test_of_a_query_the_first_line_is_the_answer(
    one_line: bool, text: str, prepared: tuple[torch.nn.Module, Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that was not trained goes on after it."""
    objective: Any = prepared[1].objective
    monkeypatch.setattr(objective.tokenizer, "decode", lambda *_, **__: "\n SELECT a FROM t;\n\nOutput:\n3")
    monkeypatch.setattr(objective, "one_line", one_line)
    (answer,) = objective.answers(torch.tensor([[-1.0, 5.0]]))
    assert answer.prediction == text
    queries: dict[str, Any] = {name: load_group("task", name) for name in ("sql", "wikisql", "e2e", "samsum")}
    assert {name for name, task in queries.items() if task.one_line} == {"sql", "wikisql"}


def test_padding_that_is_the_end_of_a_text_too_is_told_from_it(tiny: Compose, tmp_path: Path) -> None:
    """Llama 2's tokenizer has no padding token, and gets </s>: an end that is masked as padding is never learned."""
    tokenizer = space_mark_tokenizer(("so",), bos=True, eos=True)
    tokenizer.backend_tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    folder = write(tmp_path / "m", "llama", tokenizer, vocab_size=200)
    cfg = tiny("model=local", f"paths.model={folder}", "task=reverse", "preset@train=tiny_llama", "train.dtype=fp32")
    split = encode(resolve(cfg).run, resolve(cfg).settings)["eval"]
    assert isinstance(split.objective, TextToWrite) and split.objective.decoding.end == 2
    for i in range(4):
        assert target_of(split, i)[-1] == 2 and prompt_of(split, i)[0] == 1 and 2 not in prompt_of(split, i)
        assert (
            split.objective.answers(torch.tensor([[0.0, *target_of(split, i), -1.0]]))[0].prediction
            == (split.examples[i].target[0])
        )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.max_new_tokens=0"], r"task\.max_new_tokens: must be at least 1"),
        (["task.prompt=so"], r"task\.prompt: must hold {text} once"),
        (["task.letters=9"], r"task\.letters: belongs to task=reverse"),
        (
            ["train.max_length=5"],
            r"train\.max_length: 5 tokens hold no more than the prompt itself and the 8 behind it",
        ),
        (["model=tiny_bert"], r"bert is an encoder and writes no text"),
    ],
)
def test_what_cannot_be_written_is_refused(overrides: list[str], message: str, tiny: Compose) -> None:
    with pytest.raises(InputError, match=message):
        resolved = resolve(tiny(*REVERSE, *overrides))
        encode(resolved.run, resolved.settings)


def test_a_reference_longer_than_what_is_written_is_learned_whole_and_told(
    tiny: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    """The paper's authors stop at 64 tokens on E2E, which has longer references."""
    resolved = resolve(tiny(*REVERSE, "task.max_new_tokens=2"))
    with caplog.at_level(logging.WARNING):
        splits = encode(resolved.run, resolved.settings)
    split = splits["eval"]
    assert split.targets.shape[1] == 3 and split.objective.reserved == 3 and split.targets[0, -1] == END
    n = len(split.examples)
    assert [record.getMessage().startswith(f"task reverse: {n} of {n} texts of dev have more than the 2 tokens") for
            record in caplog.records] == [True, False]  # fmt: skip
    assert "of test have more" in caplog.text and "of train" not in caplog.text and "max_new_tokens=3" in caplog.text
    model = build(resolved, CPU).eval()
    with torch.inference_mode():
        assert split.predict(model, [0, 1], Dtype.fp32, CPU).shape == (2, 1 + 2)


def test_a_batch_is_as_long_as_its_own_texts(prepared: tuple[torch.nn.Module, Encoded]) -> None:
    model, split = prepared
    shortest = min(range(len(split.examples)), key=lambda i: len(prompt_of(split, i)) + len(target_of(split, i)))
    read = len(prompt_of(split, shortest)) + len(target_of(split, shortest)) - 1
    assert split.objective.lengths_read(split)[shortest] == read < split.targets.shape[1]
    seen = []
    body: Any = model.base_model
    hook = body.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    split.loss(model, [shortest], Dtype.fp32, CPU)
    split.outputs(model, [shortest], Dtype.fp32, CPU)
    hook.remove()
    assert all(read <= length < read + 4 for length in seen) and len(seen) == 2


def test_texts_that_a_tokenizer_reads_back_as_others_are_told(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Lower-case letters alone are in the vocabulary: no model could ever match B."""
    text = [Example("1", "a b", ["B a"], ""), Example("2", "a", ["a"], "")]
    monkeypatch.setattr(ReverseConfig, "load", lambda *_: {"train": text, "eval": text, "test": text})
    monkeypatch.setattr(encoding, "_encoded", {})
    sizes = [f"task.{split}_size=null" for split in ("train", "eval", "test")]
    resolved = resolve(tiny(*REVERSE, *sizes))
    with caplog.at_level(logging.WARNING, "lora_repro"):
        encode(resolved.run, resolved.settings)
    assert "1 of 2 target texts change when they are encoded and decoded ('B a' becomes " in caplog.text


@pytest.mark.parametrize("rows", [1, 3])
def test_the_likelihood_holds_few_logits_at_once(
    prepared: tuple[torch.nn.Module, Encoded], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, split = prepared
    everything = list(range(len(split.examples)))
    with torch.inference_mode():
        whole = split.outputs(model, everything, Dtype.fp32, CPU)
        vocabulary = language.OutputLayer(model).vocabulary
        most, seen, logits = rows * split.targets.shape[1] * vocabulary, [], language.OutputLayer.logits
        monkeypatch.setattr(language, "LOGITS_AT_ONCE", most)
        monkeypatch.setattr(
            language.OutputLayer, "logits", lambda *given: (seen.append(logits(*given).numel()), logits(*given))[1]
        )
        parts = split.outputs(model, everything, Dtype.fp32, CPU)
    assert torch.allclose(parts, whole, rtol=1e-6, atol=0) and whole.abs().min() > 1
    assert max(seen) <= most and len(seen) == -(-len(everything) // rows) > 1
