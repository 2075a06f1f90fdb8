"""NIST (Doddington 2002) over the union of all references, as pymteval.py of the E2E metrics computes it."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from lora_repro.tasks.text_metrics.given import refuse_unfit

ORDER = 5
"""The longest n-grams that count."""
BETA = -math.log(0.5) / math.log(1.5) ** 2
"""Halves the score of a text that is two thirds as long as its references (mteval-v13a)."""

_MARKUP = [("<skipped>", ""), ("-\n", ""), ("\n", " "), ("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")]
_BREAKS = [
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),  # ASCII punctuation, without ' , - .
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),  # a period or comma that no digit precedes
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),  # or that none follows
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),  # a dash that a digit precedes
]


def words(text: str) -> list[str]:
    """Splits a text as mteval-v13a does, and writes it in lower case; of an empty text a single empty word is left."""
    for mark, meaning in _MARKUP:
        text = text.replace(mark, meaning)
    text = f" {text} "
    for pattern, replacement in _BREAKS:
        text = pattern.sub(replacement, text)
    return re.sub(r"\s+", " ", text).strip().lower().split(" ")


def nist(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns NIST of order 5: 0 or more, about 8 to 9 on E2E.

    A match of an n-gram counts what it tells: log2 of how often its first n - 1 words occur in all references, over
    how often the n-gram does. Like pymteval.py, which the authors' README runs, a text of fewer than n - 1 words takes
    away from the number of n-grams; on texts of five words and more this is the textbook's count. The challenge's own
    mteval-v13a-sig.pl counts references of different numbers otherwise (7.82 for 7.79 on its example).

    Raises:
        ValueError: If there is no example, not one prediction for each, or an example without a reference.
    """
    refuse_unfit("NIST", predictions, references)
    seen: Counter[tuple[str, ...]] = Counter()
    hits: list[list[dict[tuple[str, ...], int]]] = [[] for _ in range(ORDER)]
    lengths, reference_length = [0] * ORDER, 0.0
    for prediction, texts in zip(predictions, references, strict=True):
        written, right = words(prediction), [words(text) for text in texts]
        for n in range(1, ORDER + 1):
            lengths[n - 1] += len(written) - n + 1
            counts = [Counter(_ngrams(text, n)) for text in right]
            for count in counts:
                seen.update(count)
            found = Counter(_ngrams(written, n))
            hits[n - 1].append({ngram: min(found[ngram], max(count[ngram] for count in counts)) for ngram in found})
        total = sum(map(len, right))
        seen[()] += total
        reference_length += total / float(len(right))
    # Summed example by example, as there: so the two agree to the last digit.
    bits = [
        sum(sum(_bits(seen, ngram) * times for ngram, times in matched.items() if times) for matched in of_order)
        for of_order in hits
    ]
    score = sum(told / length for told, length in zip(bits, lengths, strict=True) if length)
    return _brevity(lengths[0] / reference_length) * score


def _bits(seen: Counter[tuple[str, ...]], ngram: tuple[str, ...]) -> float:
    return math.log(seen[ngram[:-1]] / float(seen[ngram]), 2)


def _ngrams(text: list[str], n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(text[i:] for i in range(n)), strict=False)


def _brevity(ratio: float) -> float:
    """Returns the factor for texts that are `ratio` times as long as their references are on average."""
    return 1.0 if ratio >= 1 else math.exp(-BETA * math.log(ratio) ** 2) if ratio > 0 else 0.0
