"""form=text with tokenizers as they are found: the words' tokens are those that follow the prompt."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fixture_types import Compose
from helpers.local_models import WORDS, bytes_tokenizer, space_mark_tokenizer, words_tokenizer, write
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from lora_repro.config.resolve import resolve
from lora_repro.config.schema import Dtype
from lora_repro.errors import InputError
from lora_repro.tasks import Example
from lora_repro.tasks.encoding import Encoded, encode
from lora_repro.tasks.objectives.label_words import LabelWords
from lora_repro.tasks.objectives.prompts import Prompts
from lora_repro.training.train import build

CPU = torch.device("cpu")


def prepared(
    tiny: Compose, folder: Path, tokenizer: PreTrainedTokenizerFast, *overrides: str
) -> tuple[torch.nn.Module, Encoded]:
    if not folder.exists():
        write(folder, "llama", tokenizer, {"tie_word_embeddings": True}, vocab_size=200)
    cfg = tiny(
        "model=local", f"paths.model={folder}", "preset@train=tiny_llama", "train.dtype=fp32", "task.form=text",
        *overrides,
    )  # fmt: skip
    resolved = resolve(cfg)
    return build(resolved, CPU).eval(), encode(resolved.run, resolved.settings)["eval"]


def spoken(folder: Path, split: Encoded, prompt: str, words: list[str]) -> torch.Tensor:
    """What transformers says of each word after each prompt (log p), from the tokens of both together."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    theirs.lm_head.weight.data = theirs.get_input_embeddings().weight.data.clone()
    found = []
    for example in split.examples:
        text = prompt.replace("{text}", example.text)
        for word in words:
            tokens = torch.tensor(tokenizer(text + word)["input_ids"])
            tokens = tokens[tokens != 2]  # </s>, which some put behind
            count = len(tokens) - int((torch.tensor(tokenizer(text)["input_ids"]) != 2).sum())
            with torch.inference_mode():
                log_p = theirs(input_ids=tokens[None]).logits[0].log_softmax(-1)
            found.append(log_p[range(len(tokens) - 1 - count, len(tokens) - 1), tokens[-count:]].sum())
    return torch.stack(found).view(len(split.examples), len(words))


@pytest.mark.parametrize(("bos", "eos"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("words", [[" bad", " good"], [" bad", " fun"]], ids=" ".join)
def test_words_score_as_the_tokens_that_follow_the_prompt(
    words: list[str], bos: bool, eos: bool, tiny: Compose, tmp_path: Path
) -> None:
    tokenizer, prompt = space_mark_tokenizer(("words", "so", *WORDS), bos, eos), "words: {text} so"
    given = f"task.label_words={words}"
    folder = tmp_path / "m"
    model, split = prepared(tiny, folder, tokenizer, given)
    assert isinstance(split.objective, LabelWords)
    assert tokenizer.convert_ids_to_tokens(split.objective.words[0]) == ["▁bad"]
    with torch.inference_mode():
        ours = split.outputs(model, list(range(32)), Dtype.fp32, CPU)
    assert torch.allclose(ours, spoken(folder, split, prompt, words), atol=1e-4)


def test_what_a_tokenizer_puts_before_a_text_stands_there_once(tiny: Compose, tmp_path: Path) -> None:
    tokenizer = space_mark_tokenizer(("words", "so", *WORDS), bos=True)
    _, split = prepared(tiny, tmp_path / "m", tokenizer, "task.prompt='<s>words {text} so'")
    assert [int((row == 1).sum()) for row in split.inputs["input_ids"]] == [1] * 32


@pytest.mark.parametrize(
    ("prompt", "words"),
    [("words: {text} so ", "bad,good"), ("words: {text}", "s,t")],
)
def test_a_prompt_that_the_words_change_is_refused(prompt: str, words: str, tiny: Compose, tmp_path: Path) -> None:
    tokenizer = space_mark_tokenizer(("words", "so", *WORDS, *(f"{word}s" for word in WORDS)))
    with pytest.raises(InputError, match=r"makes other tokens of it when .* follows.*\nEnd the prompt in a letter"):
        prepared(tiny, tmp_path / "m", tokenizer, f"task.prompt='{prompt}'", f"task.label_words=[{words}]")


def test_words_that_join_the_text_of_one_example_alone_are_refused(tiny: Compose, tmp_path: Path) -> None:
    """The other texts end in words that no label lengthens."""
    tokenizer = space_mark_tokenizer((*WORDS, "ughs"))
    _, split = prepared(tiny, tmp_path / "m", tokenizer, "task.prompt='{text}'", "task.label_words=[t,z]")
    assert any(example.text.endswith("ugh") for example in split.examples)
    assert not split.examples[0].text.endswith("ugh")
    with pytest.raises(InputError, match=r"'s' follows, in the prompt that ends in '.*ugh': \[.*\] alone, \[.*▁ughs"):
        prepared(tiny, tmp_path / "m", tokenizer, "task.prompt='{text}'", "task.label_words=[s,t]")


@pytest.mark.parametrize("keeps_end", [False, True])
def test_a_long_text_is_cut_between_its_own_letters(keeps_end: bool) -> None:
    """Each letter of a joined emoji is three or four tokens of bytes; cut within one, it decodes to another."""
    tokenizer = bytes_tokenizer()
    text = "a \U0001f469\u200d\U0001f52c \u00e9 \U0001f469\u200d\U0001f52c"
    example = Example("one", text, 0, "one")
    cut = set()
    for room in range(8, 34):
        prompts = Prompts(tokenizer, "{text}: ", room, keeps_end=keeps_end)
        (row,) = prompts.opened(prompts.cut([example], reserved=1))
        kept = str(tokenizer.decode(row)).removesuffix(": ")
        assert (text.endswith(kept) if keeps_end else text.startswith(kept)) and len(row) <= room - 1
        cut.add(kept)
    assert text in cut and len(cut) > 8


def test_of_a_pair_that_is_too_long_the_longer_one_loses_its_beginning() -> None:
    tokenizer = words_tokenizer(("a", "b", "c", "d", "e", "f", "g"))
    example = Example("one", ("a b c d e", "f g"), 0, "one")
    prompts = Prompts(tokenizer, "{first} {second}", 6, keeps_end=True)
    (prompt,) = prompts.cut([example], reserved=2)
    assert prompt.text == "d e f g"
