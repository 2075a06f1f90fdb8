"""What the metrics of texts refuse, and the words they compare."""

import re
from collections.abc import Callable, Sequence

TextMeasure = Callable[[Sequence[str], Sequence[Sequence[str]]], float]
"""Computes a metric of a text for each example and the references of each."""

EachMeasure = Callable[[Sequence[str], Sequence[Sequence[str]]], list[float]]
"""Computes it of each example, where the metric is their mean."""

_LINE_ENDS = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")


def refuse_unfit(name: str, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Refuses what no metric can score.

    Raises:
        ValueError: If there is no example, not one prediction for each, or an example without a reference.
    """
    if not references or len(predictions) != len(references):
        raise ValueError(
            f"{name}: needs one prediction for each of at least one example "
            f"(given: {len(predictions)} predictions, and references of {len(references)} examples)."
        )
    for number, texts in enumerate(references, 1):
        if isinstance(texts, str) or not texts:
            given = f"the text {texts[:40]!r}" if isinstance(texts, str) else "none"
            raise ValueError(f"{name}: example {number} needs a list of at least one reference (given: {given}).")


def in_one_line(text: str) -> str:
    """Writes line ends of any kind as spaces: the Java programs read a text a line, and would shift all that follow."""
    return _LINE_ENDS.sub(" ", text)


def padded(references: Sequence[Sequence[str]], number: int) -> list[list[str]]:
    """Returns the first `number` references of each example; where it has fewer, its first one repeated."""
    return [[*texts[:number], *[texts[0]] * (number - len(texts))] for texts in references]
