"""Prompts around texts, and the tokens of what follows them."""

from collections.abc import Callable, Sequence
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
    cut: int = 0
    """How many tokens it had more before it was cut."""


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
        framed: Returns for an example the words around it, as `prompt` has them, and its text or two; None: `prompt`
            and the example's input.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt: str,
        max_length: int,
        before: str = "",
        keeps_end: bool = False,
        framed: Callable[[Example], tuple[str, Sequence[str]]] | None = None,
    ) -> None:
        self._tokenizer, self._prompt, self._max_length, self._before = tokenizer, prompt, max_length, before
        self._keeps_end, self._framed = keeps_end, framed or self._as_given
        self._beginning = _beginning(tokenizer)

    def tokens_after(self, example: Example, word: str) -> list[int]:
        """Returns the tokens of a word behind the prompt of one example, which is not cut.

        Raises:
            InputError: If the prompt's own tokens are others when the word follows.
        """
        text = self._around(*self._framed(example))
        return self.continuations([Prompt(text, self._tokens([text])[0])], [word])[0]

    def solved(self, examples: Sequence[Example], words: Sequence[str]) -> str:
        """Returns what stands before a question: each example in its prompt with its answer, and a blank line.

        Args:
            examples: The examples, whole.
            words: The answer of each.
        """
        around = [self._around(*self._framed(example)) for example in examples]
        return "".join(f"{prompt}{word}\n\n" for prompt, word in zip(around, words, strict=True))

    def cut(self, examples: Sequence[Example], reserved: int | Sequence[int]) -> list[Prompt]:
        """Returns the prompts of examples, their texts cut so that `reserved` tokens, of each or of all, fit behind.

        A text loses its end, or its beginning where `keeps_end` says so. Of a pair the longer text is cut, token by
        token until both are equally long and then in turn, as transformers' `longest_first` does; of equally long ones
        the second.

        What a tokenizer puts at the end of a text (EOS, [SEP]) is left out, as something follows.

        Raises:
            InputError: If nothing of a text would be left, or the prompt fits other inputs; or, with something before
                it, if an example would be cut.
        """
        behind = [reserved] * len(examples) if isinstance(reserved, int) else reserved
        room = [self._max_length - tokens - len(self._beginning) for tokens in behind]
        framed = [self._framed(example) for example in examples]
        wholes = [self._around(*each) for each in framed]
        prompts = [Prompt(whole, tokens) for whole, tokens in zip(wholes, self._tokens(wholes), strict=True)]
        if self._before:
            self._refuse_longer(prompts, room)
        for i, (prompt, longest) in enumerate(zip(prompts, room, strict=True)):
            if len(prompt.tokens) > longest:
                found = self._shortened(*framed[i], len(prompt.tokens), longest)
                if found is None:
                    follows = f" and the {behind[i]} behind it" if behind[i] else ""
                    raise InputError(
                        f"train.max_length: {self._max_length} tokens hold no more than the prompt itself{follows} "
                        f"(example {examples[i].id}).\nRaise it, or shorten task.prompt."
                    )
                prompts[i] = found
        return prompts

    def whole_lengths(self, examples: Sequence[Example]) -> list[int]:
        """Returns how many tokens each prompt has before it is cut."""
        rows = self._tokens([self._around(*self._framed(example)) for example in examples])
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

    def _as_given(self, example: Example) -> tuple[str, Sequence[str]]:
        """Returns the prompt, and the text of an example or the two of a pair, in the order of the places."""
        if "{text}" in self._prompt:
            return self._prompt, [example.text]
        if isinstance(example.input, str):
            raise InputError(
                f"example {example.id}: its input is a single text, and task.prompt has places for a pair "
                f"(given: {self._prompt!r}).\nWrite {{text}} where the example goes."
            )
        return self._prompt, [*example.input]

    def _around(self, prompt: str, texts: Sequence[str]) -> str:
        """Returns a prompt around texts, which are put in all at once: one may itself hold "{second}"."""
        places = ("text",) if "{text}" in prompt else ("first", "second")
        at: dict[str, str] = dict(zip(places, texts, strict=True))
        return self._before + PLACES.sub(lambda place: at[place[1]], prompt)

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]

    def _shortened(self, prompt: str, texts: Sequence[str], length: int, longest: int) -> Prompt | None:
        """Returns a prompt around as much of its texts, in their own letters, as fits; None where nothing does.

        Args:
            prompt: The words around the texts.
            texts: The text, or the two of a pair.
            length: How many tokens the prompt around all of them has.
            longest: How many it may have.
        """
        encodings = [self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True) for text in texts]
        spans = [[*encoding["offset_mapping"]] for encoding in encodings]
        whole, tokens = "", [0] * length
        while (over := len(tokens) - longest) > 0:
            for _ in range(over):
                del max(reversed(spans), key=len)[slice(1) if self._keeps_end else slice(-1, None)]
            if not any(spans):
                return None
            whole = self._around(prompt, [self._left(text, at) for text, at in zip(texts, spans, strict=True)])
            tokens = self._tokens([whole])[0]
        return Prompt(whole, tokens, length - len(tokens))

    def _left(self, text: str, spans: Sequence[tuple[int, int]]) -> str:
        """Returns a text without the tokens that were cut off one of its ends; spans are those of the others."""
        if not spans:
            return ""
        return text[spans[0][0] :] if self._keeps_end else text[: spans[-1][1]]

    def _refuse_longer(self, prompts: Sequence[Prompt], room: Sequence[int]) -> None:
        """Refuses prompts that do not fit whole: with a demonstration less, or a part of one, the answer is another."""
        lacking = [len(prompt.tokens) - longest for prompt, longest in zip(prompts, room, strict=True)]
        if over := sum(tokens > 0 for tokens in lacking):
            needed = max(lacking) + self._max_length
            raise InputError(
                f"train.max_length: the demonstrations and the longest example need {needed} tokens with the answer "
                f"(given: {self._max_length}); {over:,} of {len(lacking):,} prompts are longer, and nothing is cut.\n"
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
