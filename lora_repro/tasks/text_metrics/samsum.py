"""ROUGE of summaries by Google's rouge-score, the mean F of each text with the nearest of its references.

The paper does not say which implementation it ran. Here words are stemmed (Porter), as in ROUGE-1.5.5 with `-m` and in
most published scores; words are runs of a to z and 0 to 9, so letters with accents part a word.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from lora_repro.tasks.text_metrics.given import refuse_unfit

TYPES = ("rouge1", "rouge2", "rougeL")


def rouge_1(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns the F of single words, from 0 to 1.

    Raises:
        ValueError: If there is no example, not one prediction for each, or an example without a reference.
    """
    return _mean(predictions, references, 0)


def rouge_2(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns the F of pairs of words, from 0 to 1.

    Raises:
        ValueError: If there is no example, not one prediction for each, or an example without a reference.
    """
    return _mean(predictions, references, 1)


def rouge_l(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns the F of the longest common subsequence of the whole texts, from 0 to 1.

    Raises:
        ValueError: If there is no example, not one prediction for each, or an example without a reference.
    """
    return _mean(predictions, references, 2)


def rouge_l_of_each(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Returns ROUGE-L of each text, of which `rouge_l` is the mean."""
    return [scores[2] for scores in _of_each(predictions, references)]


def _mean(predictions: Sequence[str], references: Sequence[Sequence[str]], place: int) -> float:
    found = _of_each(predictions, references)
    return sum(scores[place] for scores in found) / len(found)


def _of_each(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Sequence[tuple[float, ...]]:
    refuse_unfit("ROUGE", predictions, references)
    for number, texts in enumerate(references, 1):
        if any(map(str.strip, texts)) and not any(re.search("[a-z0-9]", text.lower()) for text in texts):
            raise ValueError(
                f"ROUGE: the references of example {number} have no word of a to z and 0 to 9, which is all that "
                f"rouge-score compares, so it would say 0 whatever is written (given: {texts[0][:40]!r}).\n"
                "The protocol any_language compares words of any script."
            )
    return _scored(tuple(predictions), tuple(map(tuple, references)))


@lru_cache(maxsize=1)
def _scored(predictions: tuple[str, ...], references: tuple[tuple[str, ...], ...]) -> tuple[tuple[float, ...], ...]:
    """Returns the three of each text, which are computed together."""
    from rouge_score.rouge_scorer import RougeScorer

    return tuple(with_nearest(RougeScorer(TYPES, use_stemmer=True), TYPES, predictions, references))


def with_nearest(
    scorer: Any, types: Sequence[str], predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> list[tuple[float, ...]]:
    """Returns the F of each text with the nearest of its references, for each type of a scorer of rouge-score."""
    rows = []
    for text, texts in zip(predictions, references, strict=True):
        found = [scorer.score(reference, text) for reference in texts]
        rows.append(tuple(max(float(scores[kind].fmeasure) for scores in found) for kind in types))
    return rows
