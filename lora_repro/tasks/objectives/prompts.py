"""Prompts around texts, and the tokens of what follows them."""

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from lora_repro.errors import InputError
from lora_repro.tasks.base import PLACES
from lora_repro.tasks.targets import Example


class Prompt(NamedTuple):
    """The prompt around one example."""

    text: str
    tokens: list[int]
    """Without what the tokenizer puts before a text."""


class Prompts:
    """A task's prompts in the tokens of one tokenizer.

    The tokens of what follows are those that it has when both are tokenised together. A tokenizer may write a space
    mark before a word that stands alone (Llama 2's: "▁", "▁good"), which never follows a prompt.

    Args:
        tokenizer: The model's.
        prompt: The words around an example, with {text} in its place, or {first} and {second} in those of a pair.
        max_length: Tokens of prompt and what follows.
        before: What stands before each prompt, from `solved`. With it, nothing is cut.
        keeps_end: A text that is too long loses its beginning, and not its end.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt: str,
        max_length: int,
        before: str = "",
        keeps_end: bool = False,
    ) -> None:
        self._tokenizer, self._prompt, self._max_length, self._before = tokenizer, prompt, max_length, before
        self._keeps_end = keeps_end
        self._places: tuple[str, ...] = ("text",) if "{text}" in prompt else ("first", "second")
        self._beginning = _beginning(tokenizer)

    def tokens_after(self, example: Example, word: str) -> list[int]:
        """Returns the tokens of a word behind the prompt of one example, which is not cut.

        Raises:
            InputError: If the prompt's own tokens are others when the word follows.
        """
        text = self._around(self._texts(example))
        return self.continuations([Prompt(text, self._tokens([text])[0])], [word])[0]

    def solved(self, examples: Sequence[Example], words: Sequence[str]) -> str:
        """Returns what stands before a question: each example in its prompt with its answer, and a blank line.

        Args:
            examples: The examples, whole.
            words: The answer of each.
        """
        around = [self._around(self._texts(example)) for example in examples]
        return "".join(f"{prompt}{word}\n\n" for prompt, word in zip(around, words, strict=True))

    def cut(self, examples: Sequence[Example], reserved: int) -> list[Prompt]:
        """Returns the prompts of examples, their texts cut so that `reserved` tokens fit behind.

        A text loses its end, or its beginning where `keeps_end` says so. Of a pair the longer text is cut, token by
        token until both are equally long and then in turn, as transformers' `longest_first` does; of equally long ones
        the second.

        What a tokenizer puts at the end of a text (EOS, [SEP]) is left out, as something follows.

        Raises:
            InputError: If the prompt alone is too long, or fits other inputs; or, with something before it, if an
                example would be cut.
        """
        longest = self._max_length - reserved - len(self._beginning)
        if not self._before and len(self._tokens([self._around([""] * len(self._places))])[0]) > longest - 1:
            behind = f" and the {reserved} behind it" if reserved else ""
            raise InputError(
                f"train.max_length: {self._max_length} tokens hold no more than the prompt itself{behind}.\n"
                "Raise it, or shorten task.prompt."
            )
        inputs = [self._texts(example) for example in examples]
        wholes = [self._around(texts) for texts in inputs]
        prompts = [Prompt(whole, tokens) for whole, tokens in zip(wholes, self._tokens(wholes), strict=True)]
        if self._before:
            self._refuse_longer(prompts, longest)
        return [
            prompt if len(prompt.tokens) <= longest else self._shortened(texts, len(prompt.tokens), longest)
            for texts, prompt in zip(inputs, prompts, strict=True)
        ]

    def whole_lengths(self, examples: Sequence[Example]) -> list[int]:
        """Returns how many tokens each prompt has before it is cut."""
        rows = self._tokens([self._around(self._texts(example)) for example in examples])
        return [len(row) for row in self.opened([Prompt("", row) for row in rows])]

    def continuations(
        self, prompts: Sequence[Prompt], words: Sequence[str], expected: list[int] | None = None
    ) -> list[list[int]]:
        """Returns the tokens of what follows each prompt.

        Args:
            prompts: The prompts.
            words: What follows each of them.
            expected: The tokens that must follow, if they are known.

        Raises:
            InputError: If a prompt's own tokens are others when the words follow, or the words' are not as expected.
        """
        together = self._tokens([prompt.text + word for prompt, word in zip(prompts, words, strict=True)])
        found = []
        for prompt, word, whole in zip(prompts, words, together, strict=True):
            tokens = whole[len(prompt.tokens) :]
            if whole[: len(prompt.tokens)] != prompt.tokens or not tokens or expected not in (None, tokens):
                raise self._other_tokens(prompt, whole, word)
            found.append(tokens)
        return found

    def opened(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Returns the tokens of prompts with what the tokenizer puts before a text."""
        opening = self._beginning
        rows = [prompt.tokens for prompt in prompts]
        return [row if opening and row[: len(opening)] == opening else opening + row for row in rows]

    def _texts(self, example: Example) -> list[str]:
        """Returns the text of an example, or the two of a pair, in the order of the places."""
        if len(self._places) == 1:
            return [example.text]
        if isinstance(example.input, str):
            raise InputError(
                f"example {example.id}: its input is a single text, and task.prompt has places for a pair "
                f"(given: {self._prompt!r}).\nWrite {{text}} where the example goes."
            )
        return [*example.input]

    def _around(self, texts: Sequence[str]) -> str:
        """Returns the prompt around texts, which are put in all at once: one may itself hold "{second}"."""
        at: dict[str, str] = dict(zip(self._places, texts, strict=True))
        return self._before + PLACES.sub(lambda place: at[place[1]], self._prompt)

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]

    def _shortened(self, texts: Sequence[str], length: int, longest: int) -> Prompt:
        """Returns the prompt around as much of its texts, in their own letters, as fits.

        Args:
            texts: The text, or the two of a pair.
            length: How many tokens the prompt around all of them has.
            longest: How many it may have.
        """
        encodings = [self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True) for text in texts]
        spans = [[*encoding["offset_mapping"]] for encoding in encodings]
        shortened = Prompt("", [0] * length)
        while (over := len(shortened.tokens) - longest) > 0:
            for _ in range(over):
                del max(reversed(spans), key=len)[slice(1) if self._keeps_end else slice(-1, None)]
            whole = self._around([self._left(text, at) for text, at in zip(texts, spans, strict=True)])
            shortened = Prompt(whole, self._tokens([whole])[0])
        return shortened

    def _left(self, text: str, spans: Sequence[tuple[int, int]]) -> str:
        """Returns a text without the tokens that were cut off one of its ends; spans are those of the others."""
        if not spans:
            return ""
        return text[spans[0][0] :] if self._keeps_end else text[: spans[-1][1]]

    def _refuse_longer(self, prompts: Sequence[Prompt], longest: int) -> None:
        """Refuses prompts that do not fit whole: with a demonstration less, or a part of one, the answer is another."""
        lengths = [len(prompt.tokens) for prompt in prompts]
        if over := sum(length > longest for length in lengths):
            needed = max(lengths) - longest + self._max_length
            raise InputError(
                f"train.max_length: the demonstrations and the longest example need {needed} tokens with the answer "
                f"(given: {self._max_length}); {over:,} of {len(lengths):,} prompts are longer, and nothing is cut.\n"
                f"Raise it: train.max_length={needed}, or give fewer demonstrations: method.shots"
            )

    def _other_tokens(self, prompt: Prompt, together: list[int], word: str) -> InputError:
        pairs = enumerate(zip(prompt.tokens, together, strict=False))
        same = next((i for i, (a, b) in pairs if a != b), len(prompt.tokens))
        rows = (prompt.tokens, together)
        alone, joined = (self._tokenizer.convert_ids_to_tokens(row[max(same - 2, 0) :]) for row in rows)
        return InputError(
            f"task.prompt: this tokenizer makes other tokens of it when {word!r} follows, in the prompt that ends in "
            f"{prompt.text[-20:]!r}: {alone} alone, {joined} together.\n"
            "End the prompt in a letter or a mark after {text}, without a space, and begin the words with one: "
            "task.prompt='{text} It was' 'task.label_words=[\" bad\",\" good\"]'"
        )


def _beginning(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Returns what a tokenizer puts before a text: BOS, [CLS] or nothing."""
    whole, bare = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    starts = range(len(whole) - len(bare) + 1)
    return whole[: next((i for i in starts if whole[i : i + len(bare)] == bare), 0)]
