"""Inputs that are pairs of sentences."""

import pytest
import torch
from helpers.fixture_types import Compose
from helpers.local_models import bytes_tokenizer, words_tokenizer

from lora_repro.config.resolve import resolve
from lora_repro.config.schema import Dtype
from lora_repro.errors import InputError
from lora_repro.models.load import load
from lora_repro.models.tokenizer import load_tokenizer
from lora_repro.tasks import Example, encoding
from lora_repro.tasks.encoding import encode
from lora_repro.tasks.generated import GeneratedConfig
from lora_repro.tasks.objectives.prompts import Prompts

CPU = torch.device("cpu")
PAIRS = [Example(str(i), ("joy", "so sad"), i % 2, str(i)) for i in range(64)]


@pytest.fixture
def paired(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> Compose:
    monkeypatch.setattr(GeneratedConfig, "load", lambda *_: {"train": PAIRS, "eval": PAIRS, "test": PAIRS})
    monkeypatch.setattr(encoding, "_encoded", {})
    return tiny


def test_a_head_reads_both_sentences_and_which_is_which(paired: Compose) -> None:
    resolved = resolve(paired("train.dtype=fp32"))
    split = encode(resolved.run, resolved.settings)["eval"]
    assert split.inputs["token_type_ids"][0].tolist() == [0] * 5 + [1] * 6  # [CLS] j o y [SEP] s o s a d [SEP]
    assert split.inputs["input_ids"][0].tolist().count(3) == 2
    model = load(resolved.run, None, "", CPU).model
    assert split.loss(model, [0, 1], Dtype.fp32, CPU).isfinite()


AS_TEXT = ("model=tiny_llama", "preset@train=tiny_llama", "task.form=text")


def test_a_decoder_reads_both_sentences_where_the_prompt_has_them(
    paired: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GeneratedConfig, "is_pair", True)
    resolved = resolve(paired(*AS_TEXT, "task.prompt='say {second} of {first} now'"))
    split = encode(resolved.run, resolved.settings)["eval"]
    tokenizer = load_tokenizer(resolved.run.model, None, "")
    row = split.inputs["input_ids"][0].tolist()
    assert tokenizer.decode(row[: int(split.lengths[0])]) == "[CLS] say so sad of joy now"


@pytest.mark.parametrize(
    ("is_pair", "prompt", "message"),
    [
        (
            True,
            "{text} so",
            r"must hold \{first\} and \{second\} once each and no \{text\}, as the inputs of generated",
        ),
        (True, "{first} so", r"must hold \{first\} and \{second\} once each"),
        (True, "{first} {second} {first}", r"must hold \{first\} and \{second\} once each"),
        (True, "{first} {text} {second}", r"must hold \{first\} and \{second\} once each"),
        (False, "{first} and {second}", r"must hold \{text\} once and no \{first\} or \{second\}, where"),
        (False, "{text} {second}", r"must hold \{text\} once and no \{first\} or \{second\}, where"),
        (False, "so", r"must hold \{text\} once, where"),
    ],
)
def test_a_prompt_for_other_inputs_is_refused_before_anything_is_read(
    is_pair: bool, prompt: str, message: str, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GeneratedConfig, "is_pair", is_pair)
    with pytest.raises(InputError, match=f"task.prompt: {message}"):
        resolve(tiny(*AS_TEXT, f"task.prompt='{prompt}'"))


@pytest.mark.parametrize(
    ("prompt", "given", "message"),
    [
        ("{text} so", ("joy", "sad"), "its input is a pair of sentences, where a single text is needed"),
        ("{first} so {second}", "joy", "its input is a single text, and task.prompt has places for a pair"),
    ],
)
def test_an_example_of_the_other_kind_is_refused(prompt: str, given: str | tuple[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Prompts(words_tokenizer(), prompt, 64).cut([Example("one", given, 0, "one")], reserved=1)


@pytest.mark.parametrize(
    ("sizes", "room", "kept"),
    [
        ((6, 3), 9, (6, 3)),
        ((6, 3), 8, (5, 3)),
        ((6, 3), 6, (3, 3)),
        ((6, 3), 5, (3, 2)),  # of equally long ones the second
        ((6, 3), 4, (2, 2)),
        ((3, 6), 8, (3, 5)),
        ((3, 6), 5, (3, 2)),
        ((3, 6), 1, (1, 0)),
        ((6, 0), 4, (4, 0)),
        ((0, 6), 4, (0, 4)),
    ],
)
def test_of_a_pair_that_is_too_long_the_longer_text_is_cut_first(
    sizes: tuple[int, int], room: int, kept: tuple[int, int]
) -> None:
    """A word is a token; of the prompt itself there are three, and one is reserved."""
    example = Example("one", (" ".join(["joy"] * sizes[0]), " ".join(["sad"] * sizes[1])), 0, "one")
    tokenizer = words_tokenizer()
    prompts = Prompts(tokenizer, "the {first} of {second} is", room + 3 + 1)
    (row,) = prompts.opened(prompts.cut([example], reserved=1))
    expected = ["the", *["joy"] * kept[0], "of", *["sad"] * kept[1], "is"]
    assert tokenizer.convert_ids_to_tokens(row) == expected


@pytest.mark.parametrize(
    ("room", "expected"),
    [(64, "\\1 {first} | {second} {text} {first}:"), (30, "\\1 {first} | {second} {text} :")],
)
def test_places_that_a_text_itself_names_are_left_alone(room: int, expected: str) -> None:
    """Each letter is a token. Of 37 the longer text, of 23, loses its last 7."""
    tokenizer = bytes_tokenizer()
    prompts = Prompts(tokenizer, "{second} | {first}:", room + 1)
    example = Example("one", ("{second} {text} {first}", "\\1 {first}"), 0, "one")
    (row,) = prompts.opened(prompts.cut([example], reserved=1))
    assert tokenizer.decode(row) == expected
