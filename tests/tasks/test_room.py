"""For what an input makes room: in training its own text, of dev and test what is written."""

import json
import logging
from pathlib import Path

import pytest
from helpers.fixture_types import Compose
from helpers.quick_compose import compose_quickly

from lora_repro.config.resolve import resolve
from lora_repro.errors import InputError
from lora_repro.tasks import encoding
from lora_repro.tasks.encoding import Encoded, encode
from lora_repro.tasks.own_data import read_here
from lora_repro.tasks.reverse import ReverseConfig
from lora_repro.tasks.targets import Example

LETTERS = "abcdefgh"
ROOM = "task.room_for=training"
POSITIONS = "task.max_new_tokens=505"


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((read_here, "_known"), (read_here, "_last"), (encoding, "_encoded")):
        monkeypatch.setattr(module, name, {})


def encoded(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch, *given: str, scored: list[Example] | None = None
) -> dict[str, Encoded]:
    """Inputs of 8 tokens in a prompt that adds two, with texts of 2, 11 and 12; or other ones of dev and test."""
    short, long = (Example(name, LETTERS, [text], name) for name, text in (("1", "a"), ("2", "abcdefghijk")))
    both = Example("3", LETTERS, ["a", "abcdefghij"], "3")
    splits = {"train": [short, long], "eval": [short, long], "test": [both]}
    if scored is not None:
        splits = {"train": [short], "eval": scored, "test": scored}
    monkeypatch.setattr(ReverseConfig, "load", lambda *_: splits)
    monkeypatch.setattr(encoding, "_encoded", {})
    sizes = [f"task.{split}_size=null" for split in ("train", "eval", "test")]
    base = ("model=tiny_llama", "task=reverse", "preset@train=tiny_llama", "task.prompt='{text},'", *sizes)
    resolved = resolve(tiny(*base, *given))
    return encode(resolved.run, resolved.settings)


def kept(split: Encoded) -> list[int]:
    """Returns how many tokens of each input are left beside the prompt's own."""
    return (split.lengths - 2).tolist()


def by_id(split: Encoded) -> dict[str, int]:
    return {example.id: left for example, left in zip(split.examples, kept(split), strict=True)}


def test_an_input_of_train_is_cut_only_so_far_that_its_own_text_fits(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        splits = encoded(tiny, monkeypatch, ROOM, "train.max_length=15")
    assert by_id(splits["train"]) == {"1": 8, "2": 1}
    assert kept(splits["eval"]) == [8, 8] and kept(splits["test"]) == [8]
    assert [message for message in caplog.messages if "lose their beginning" in message] == [
        "task reverse: inputs lose their beginning, as they do not fit into train.max_length=15, in training with "
        "their texts, or into the model's positions beside what is written: train 1 of 2 (50.0 %). To cut none: "
        "train.max_length=22, as far as the model has positions."
    ]
    train = splits["train"]
    tokenizer, cut = train.objective.tokenizer, int(train.lengths.argmin())  # pyright: ignore[reportAttributeAccessIssue]
    assert tokenizer.decode(train.inputs["input_ids"][cut, 1:3]).startswith("h")
    caplog.clear()
    assert kept(encoded(tiny, monkeypatch, ROOM, "train.max_length=22")["train"]) == [8, 8]
    assert "lose their beginning" not in caplog.text


@pytest.mark.parametrize(("given", "left"), [("train.max_length=16", 8), ("train.max_length=9", 7), (POSITIONS, 5)])
def test_other_references_change_nothing_of_what_is_read_of_dev_and_test(
    given: str, left: int, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 512 positions 505 leave 7, two of them the prompt's own."""
    read = []
    for texts in (["a"], ["abcdefghijk"], ["a", "b" * 40]):
        scored = [Example("1", LETTERS, texts, "1")]
        splits = encoded(tiny, monkeypatch, ROOM, given, "task.loss_over=all", scored=scored)
        assert kept(splits["eval"]) == kept(splits["test"]) == [left]
        read.append(splits["test"].inputs["input_ids"].tolist())
    assert read[0] == read[1] == read[2]


def test_runs_from_before_left_room_for_the_longest_text_of_all(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {name: kept(of) for name, of in encoded(tiny, monkeypatch, "train.max_length=15").items()} == {
        "train": [1, 1], "eval": [1, 1], "test": [1],
    }  # fmt: skip


def test_what_is_written_is_bound_by_the_models_positions_alone(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """tiny_llama has 512 of them, of which a prefix takes some. Train inputs are not written behind."""
    given = (ROOM, "train.max_length=30")
    assert kept(encoded(tiny, monkeypatch, *given, "task.max_new_tokens=500")["eval"]) == [8, 8]
    splits = encoded(tiny, monkeypatch, *given, "task.max_new_tokens=505")
    assert kept(splits["eval"]) == [5, 5] and kept(splits["train"]) == [8, 8]
    prefix = ("method=prefix_embed", "method.l_p=2", "method.l_i=1")
    assert kept(encoded(tiny, monkeypatch, *given, "task.max_new_tokens=505", *prefix)["eval"]) == [2, 2]
    with pytest.raises(InputError, match=r"task\.max_new_tokens: tiny_llama .* has 512 positions, which leaves none"):
        encoded(tiny, monkeypatch, *given, "task.max_new_tokens=512")


def test_a_text_of_dev_that_ends_beyond_the_models_positions_is_refused(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An input has 10 tokens, a text of n letters n + 1, of which the last is not read: 512 and 513 positions."""
    fits, beyond = ([Example("1", LETTERS, [" ".join("a" * letters)], "1")] for letters in (502, 503))
    assert kept(encoded(tiny, monkeypatch, ROOM, "train.max_length=30", scored=fits)["test"]) == [8]
    with pytest.raises(InputError, match=r"1 inputs of dev .* beyond the 512 positions .*\n.*max_new_tokens=504$"):
        encoded(tiny, monkeypatch, ROOM, "train.max_length=30", scored=beyond)


def test_a_text_that_leaves_nothing_of_its_input_is_refused(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"max_length: 14 tokens .* and the 12 behind it \(example 2\)\.\nRaise"):
        encoded(tiny, monkeypatch, ROOM, "train.max_length=14")


def test_the_words_of_alpaca_are_not_cut_and_the_input_before_the_instruction(tmp_path: Path) -> None:
    long = {"instruction": "add these", "input": "one two " * 40, "output": "ok"}
    alone = {"instruction": "say it " * 40, "output": "ok"}
    data = tmp_path / "train.json"
    data.write_text(json.dumps([long, alone | {"input": ""}]))
    (tmp_path / "dev.json").write_text(json.dumps([long]))
    given = ["model=tiny_llama", "task=instructions", f"paths.data={tmp_path}", "task.max_new_tokens=4"]
    found = resolve(compose_quickly([*given, "train.max_length=300"]))
    split = encode(found.run, found.settings)["train"]
    tokenizer = split.objective.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    texts = {}
    for i, example in enumerate(split.examples):
        whole = tokenizer(example.text, add_special_tokens=False)["input_ids"]
        tokens = split.inputs["input_ids"][i, 1 : int(split.lengths[i])].tolist()
        assert tokens[:40] == whole[:40] and len(tokens) < len(whole)
        texts["one two" in example.text] = tokenizer.decode(tokens).replace(" ", "")
    assert "addthese" in texts[True] and "[UNK]response[UNK]" in texts[True] and texts[True].count("one") < 40
    assert 1 <= texts[False].count("sayit") < 40 and "[UNK]response[UNK]" in texts[False]
