"""task.form=text: a prompt around each text, and the tokens of the label words as they follow it."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from lora_repro.errors import InputError
from lora_repro.tasks import Example
from lora_repro.tasks.classes import ClassConfig


class Prompts:
    """A task's prompts in the tokens of one tokenizer.

    The words' tokens are those that follow the prompt when both are tokenised together. A tokenizer may write a space
    mark before a word that stands alone (Llama 2's: "▁", "▁good"), which never follows a prompt.

    Attributes:
        words: The tokens of each label's words.
    """

    words: list[list[int]]

    def __init__(self, tokenizer: PreTrainedTokenizerBase, task: ClassConfig, max_length: int, first: Example) -> None:
        """Finds the words' tokens behind the prompt of one example; `rows` holds every other example against them.

        Raises:
            InputError: If the prompt alone is too long, two labels begin with the same tokens, or the prompt's own
                tokens are others when the words follow.
        """
        self._tokenizer, self._prompt, self._label_words = tokenizer, task.prompt, task.label_words
        self._beginning = _beginning(tokenizer)
        text = self._around(first.text)
        self.words = [
            self._word_after(text, self._tokens(text), self._tokens(text + word), word) for word in task.label_words
        ]
        if any(a[: len(b)] == b for i, a in enumerate(self.words) for j, b in enumerate(self.words) if i != j):
            raise InputError(
                f"task.label_words: one is the beginning of another to this tokenizer (given: {task.label_words}).\n"
                "Choose words that differ from the first token on."
            )
        self._room = max_length - max(map(len, self.words)) - len(self._beginning)
        if len(self._tokens(self._around(""))) > self._room - 1:
            raise InputError(
                f"train.max_length: {max_length} tokens hold no more than the prompt itself.\n"
                "Raise it, or shorten task.prompt."
            )

    def rows(self, examples: Sequence[Example]) -> list[list[int]]:
        """Returns the tokens of each example's prompt, its text cut so that prompt and label words fit.

        What a tokenizer puts at the end of a text (EOS, [SEP]) is left out, as the words follow.

        Raises:
            InputError: If the words have other tokens after one of the prompts.
        """
        texts = [self._around(example.text) for example in examples]
        rows = self._all_tokens(texts)
        for position, (example, row) in enumerate(zip(examples, rows, strict=True)):
            if (over := len(row) - self._room) > 0:
                texts[position] = self._cut(example.text, over)
                rows[position] = self._tokens(texts[position])
        for word, expected in zip(self._label_words, self.words, strict=True):
            together = self._all_tokens([text + word for text in texts])
            for text, row, whole in zip(texts, rows, together, strict=True):
                if self._word_after(text, row, whole, word) != expected:
                    raise self._other_tokens(text, row, whole, word)
        opening = self._beginning
        return [row if opening and row[: len(opening)] == opening else opening + row for row in rows]

    def _around(self, text: str) -> str:
        return self._prompt.replace("{text}", text)

    def _tokens(self, text: str) -> list[int]:
        return self._all_tokens([text])[0]

    def _all_tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]

    def _cut(self, text: str, over: int) -> str:
        """Returns the prompt around as much of a text, in its own letters, as there is room for.

        Args:
            text: The text.
            over: How many tokens the prompt around all of it has too many.
        """
        whole = ""
        ends = [
            end
            for _, end in self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        ]
        while over > 0:
            ends = ends[:-over]
            whole = self._around(text[: ends[-1]] if ends else "")
            over = len(self._tokens(whole)) - self._room
        return whole

    def _word_after(self, text: str, prompt: list[int], together: list[int], word: str) -> list[int]:
        if together[: len(prompt)] != prompt or len(together) == len(prompt):
            raise self._other_tokens(text, prompt, together, word)
        return together[len(prompt) :]

    def _other_tokens(self, text: str, prompt: list[int], together: list[int], word: str) -> InputError:
        same = next((i for i, (a, b) in enumerate(zip(prompt, together, strict=False)) if a != b), len(prompt))
        alone, joined = (self._tokenizer.convert_ids_to_tokens(row[max(same - 2, 0) :]) for row in (prompt, together))
        return InputError(
            f"task.prompt: this tokenizer makes other tokens of it when {word!r} follows, in the prompt that ends in "
            f"{text[-20:]!r}: {alone} alone, {joined} together.\n"
            "End the prompt in a letter or a mark after {text}, without a space, and begin the words with one: "
            "task.prompt='{text} It was' 'task.label_words=[\" bad\",\" good\"]'"
        )


def _beginning(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Returns what a tokenizer puts before a text: BOS, [CLS] or nothing."""
    whole, bare = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    starts = range(len(whole) - len(bare) + 1)
    return whole[: next((i for i in starts if whole[i : i + len(bare)] == bare), 0)]
