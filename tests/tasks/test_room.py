"""For what an input makes room: its own texts, and not the longest of any example."""

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
OWN = "task.room_for=own"


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((read_here, "_known"), (read_here, "_last"), (encoding, "_encoded")):
        monkeypatch.setattr(module, name, {})


def encoded(tiny: Compose, monkeypatch: pytest.MonkeyPatch, *given: str) -> dict[str, Encoded]:
    """Inputs of 8 tokens in a prompt that adds two, with texts of 2, 11 and 12; the longest stands in dev alone."""
    short, long = (Example(name, LETTERS, [text], name) for name, text in (("1", "a"), ("2", "abcdefghijk")))
    both = Example("3", LETTERS, ["a", "abcdefghij"], "3")
    splits = {"train": [short], "eval": [short, long], "test": [both]}
    monkeypatch.setattr(ReverseConfig, "load", lambda *_: splits)
    sizes = [f"task.{split}_size=null" for split in ("train", "eval", "test")]
    base = ("model=tiny_llama", "task=reverse", "preset@train=tiny_llama", "task.prompt='{text},'", *sizes)
    resolved = resolve(tiny(*base, *given))
    return encode(resolved.run, resolved.settings)


def kept(split: Encoded) -> list[int]:
    """Returns how many tokens of each input are left beside the prompt's own."""
    return (split.lengths - 2).tolist()


def test_an_input_is_cut_only_so_far_that_its_own_text_fits(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        splits = encoded(tiny, monkeypatch, OWN, "train.max_length=15")
    assert kept(splits["train"]) == [8]  # the long text of dev cuts no input of train, nor does what may be written
    assert {e.id: left for e, left in zip(splits["eval"].examples, kept(splits["eval"]), strict=True)} == {
        "1": 8,
        "2": 1,
    }
    assert kept(splits["test"]) == [8]
    assert [message for message in caplog.messages if "lose their beginning" in message] == [
        "task reverse: inputs lose their beginning, as they do not fit into train.max_length=15 beside what follows "
        "them, or into the model's positions: dev 1 of 2 (50.0 %). To cut none: train.max_length=22, as far as the "
        "model has positions."
    ]
    tokenizer, cut = splits["eval"].objective.tokenizer, int(splits["eval"].lengths.argmin())  # pyright: ignore[reportAttributeAccessIssue]
    assert tokenizer.decode(splits["eval"].inputs["input_ids"][cut, 1:3]).startswith("h")
    caplog.clear()
    assert kept(encoded(tiny, monkeypatch, OWN, "train.max_length=22")["eval"]) == [8, 8]
    assert "lose their beginning" not in caplog.text


def test_runs_from_before_left_room_for_the_longest_text_of_all(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {name: kept(of) for name, of in encoded(tiny, monkeypatch, "train.max_length=15").items()} == {
        "train": [1], "eval": [1, 1], "test": [1],
    }  # fmt: skip


def test_the_longest_of_an_examples_own_texts_decides(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    given = (OWN, "train.max_length=15")
    assert kept(encoded(tiny, monkeypatch, *given, "task.loss_over=all")["test"]) == [2]
    assert kept(encoded(tiny, monkeypatch, *given)["test"]) == [8]  # the second is not read


def test_what_is_written_is_bound_by_the_models_positions_alone(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """tiny_llama has 512 of them, of which a prefix takes some. Train inputs are not written behind."""
    given = (OWN, "train.max_length=30")
    assert kept(encoded(tiny, monkeypatch, *given, "task.max_new_tokens=500")["eval"]) == [8, 8]
    splits = encoded(tiny, monkeypatch, *given, "task.max_new_tokens=505")
    assert kept(splits["eval"]) == [5, 5] and kept(splits["train"]) == [8]
    prefix = ("method=prefix_embed", "method.l_p=2", "method.l_i=1")
    assert kept(encoded(tiny, monkeypatch, *given, "task.max_new_tokens=505", *prefix)["eval"]) == [2, 2]
    with pytest.raises(InputError, match=r"task\.max_new_tokens: tiny_llama .* has 512 positions, which leaves none"):
        encoded(tiny, monkeypatch, *given, "task.max_new_tokens=512")


def test_a_text_that_leaves_nothing_of_its_input_is_refused(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"max_length: 14 tokens .* and the 12 behind it \(example 2\)\.\nRaise"):
        encoded(tiny, monkeypatch, OWN, "train.max_length=14")


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
