"""ROUGE-L of texts in any language: for responses to instructions, of which nothing says that they are in English.

Google's rouge-score compares runs of a to z and 0 to 9 alone: a text in Chinese has no word, and an accent parts one.
Here words are runs of letters, marks and digits of any script; where a script has no spaces between words, each letter
counts as one. A mark behind a sign, as the one that asks for an emoji in colours, is of no word. A text without any
word, such as "?" or an emoji, is compared by its characters. Texts in ASCII with a word get what rouge-score gives
them, with stemming.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import dropwhile
from typing import Any

from lora_repro.tasks.text_metrics.given import refuse_unfit
from lora_repro.tasks.text_metrics.samsum import with_nearest

UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
"""How the names of characters begin whose scripts have no spaces between words."""


class Words:
    """A tokenizer as rouge-score takes one."""

    def tokenize(self, text: str) -> list[str]:
        """Returns the words of a text in lower case, those in ASCII stemmed."""
        if text.isascii():
            found: list[str] = _ascii().tokenize(text)
        else:
            parts = "".join(map(_apart, unicodedata.normalize("NFC", text.lower()))).split()
            words = ["".join(dropwhile(_is_added, part)) for part in parts]
            found = [each for word in words if word for each in (_ascii().tokenize(word) if word.isascii() else [word])]
        return found or [each for each in "".join(text.split()) if not _is_added(each)]


def rouge_l(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns the F of the longest common subsequence of words, from 0 to 1: of each text with its nearest reference.

    Raises:
        ValueError: If there is no example, not one prediction for each, or an example without a reference.
    """
    found = rouge_l_of_each(predictions, references)
    return sum(found) / len(found)


def rouge_l_of_each(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Returns ROUGE-L of each text, of which `rouge_l` is the mean."""
    from rouge_score.rouge_scorer import RougeScorer

    refuse_unfit("ROUGE", predictions, references)
    types = ["rougeL"]
    return [score for (score,) in with_nearest(RougeScorer(types, tokenizer=Words()), types, predictions, references)]


@cache
def _ascii() -> Any:
    from rouge_score.tokenizers import DefaultTokenizer

    return DefaultTokenizer(use_stemmer=True)


@cache
def _apart(character: str) -> str:
    """Returns a character with spaces around it where it is a word of its own, and a space for one that is of none."""
    if unicodedata.category(character)[0] not in "LMN":
        return " "
    return f" {character} " if _is_unspaced(character) else character


@cache
def _is_added(character: str) -> bool:
    """Tells whether a character means nothing alone: a mark, or a joiner of emoji. Thai writes vowels as marks."""
    category = unicodedata.category(character)
    return (category[0] == "M" or category == "Cf") and not _is_unspaced(character)


def _is_unspaced(character: str) -> bool:
    return unicodedata.name(character, "").startswith(UNSPACED)
