"""What predictions are worth: plain functions on arrays, and what a task declares about the numbers they return."""

import math
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lora_repro.tasks.text_metrics.given import refuse_unfit


class Unit(str, Enum):
    """How a metric is printed."""

    percent = "percent"
    """A share or a correlation, which is printed times 100."""
    plain = "plain"
    """Printed as it is."""


class Metric(NamedTuple):
    """What a task says about one of its metrics; records, tables and the choice of the best epoch follow it."""

    name: str
    unit: Unit = Unit.plain
    higher_is_better: bool = True
    low: float = -math.inf
    high: float = math.inf
    """A value outside [low, high] in a record is damage."""
    baseline: str | None = None
    """The metric of the same task that says what an answer gets which ignores the input."""
    about: str = ""
    """What the number is, for a table's note."""

    @property
    def title(self) -> str:
        """The name with its unit: `accuracy in percent`."""
        return f"{self.name} in percent" if self.unit is Unit.percent else self.name

    def format(self, value: float, digits: int = 1) -> str:
        """Writes a value as tables print it, without its unit.

        Args:
            value: As the record holds it.
            digits: Behind the point, of a percentage; a plain number has two more.
        """
        return f"{100 * value:.{digits}f}" if self.unit is Unit.percent else f"{value:.{digits + 2}f}"

    def best(self, values: Sequence[float]) -> int:
        """Returns the position of the best value, of equal ones the first."""
        return values.index(max(values) if self.higher_is_better else min(values))


LOSS = Metric("loss", higher_is_better=False, low=0.0)
"""What training minimises, on dev and test, but that label words are read among each other alone there, where training
reads them among all of the vocabulary; every task has it beside its own metrics."""
PERPLEXITY = Metric("perplexity", higher_is_better=False, low=1.0, about="exp of the loss, which is a mean over tokens")
"""Of texts; a task declares it to have it beside the loss, after each epoch."""


def perplexity(loss: float) -> float:
    """Returns exp of a mean loss per token; of one that is beyond all numbers, the largest below."""
    return math.exp(min(loss, 700.0))


Array = np.ndarray
Measure = Callable[[Array, Array], float]
"""Computes a metric of predictions and references."""

ZERO: Any = 0.0
"""What scikit-learn returns where F1 would divide by nothing; it takes numbers, though its types say texts alone."""


def accuracy(predictions: Int[Array, " examples"], references: Int[Array, " examples"]) -> float:
    """Returns the share of predictions that equal their reference.

    Raises:
        ValueError: If there are no examples, or not one prediction for each.
    """
    from sklearn.metrics import accuracy_score

    _refuse_other_shapes("accuracy", predictions, references)
    return float(accuracy_score(references, predictions))


def majority(references: Int[Array, " examples"]) -> float:
    """Returns the accuracy of always naming the most frequent reference: the baseline beside each accuracy.

    Raises:
        ValueError: If there are no examples.
    """
    if len(references) == 0:
        raise ValueError("majority: needs at least one reference (given: none).")
    return float(np.unique_counts(references).counts.max() / len(references))


def f1(predictions: Int[Array, " examples"], references: Int[Array, " examples"]) -> float:
    """Returns the harmonic mean of precision and recall of class 1, of two classes; 0 where class 1 is never met.

    Raises:
        ValueError: If there are no examples, not one prediction for each, or other classes than 0 and 1.
    """
    from sklearn.metrics import f1_score

    _refuse_other_shapes("f1", predictions, references)
    if others := sorted({*map(int, predictions), *map(int, references)} - {0, 1}):
        raise ValueError(f"f1: is of class 1 among 0 and 1 (given: {others[0]}). Of more classes take macro_f1.")
    return float(f1_score(references, predictions, pos_label=1, zero_division=ZERO))


def macro_f1(predictions: Int[Array, " examples"], references: Int[Array, " examples"]) -> float:
    """Returns the mean over the references' classes of F1 of each; 0 for a class that is never predicted rightly.

    Raises:
        ValueError: If there are no examples, or not one prediction for each.
    """
    from sklearn.metrics import f1_score

    _refuse_other_shapes("macro_f1", predictions, references)
    classes = np.unique(references)
    return float(f1_score(references, predictions, labels=classes, average="macro", zero_division=ZERO))


def matthews(predictions: Int[Array, " examples"], references: Int[Array, " examples"]) -> float:
    """Returns Matthews' correlation of two or more classes; 0 where all predictions or all references are equal.

    Raises:
        ValueError: If there are no examples, or not one prediction for each.
    """
    from sklearn.metrics import matthews_corrcoef

    _refuse_other_shapes("matthews", predictions, references)
    return float(np.clip(matthews_corrcoef(references, predictions), -1, 1))


def mean_squared_error(predictions: Float[Array, " examples"], references: Float[Array, " examples"]) -> float:
    """Returns the mean of the squared differences.

    Raises:
        ValueError: If there are no examples, or not one prediction for each.
    """
    _refuse_other_shapes("mean squared error", predictions, references)
    return float(np.mean((predictions - references) ** 2))


def pearson(predictions: Float[Array, " examples"], references: Float[Array, " examples"]) -> float:
    """Returns the correlation coefficient; 0 where all predictions or all references are equal, and it has no value.

    Raises:
        ValueError: If there are no examples, or not one prediction for each.
    """
    from scipy import stats

    _refuse_other_shapes("pearson", predictions, references)
    if is_constant(predictions) or is_constant(references):
        return 0.0
    found: Any = stats.pearsonr(predictions, references)
    return float(np.clip(found.statistic, -1, 1))


def spearman(predictions: Float[Array, " examples"], references: Float[Array, " examples"]) -> float:
    """Returns Pearson's coefficient of the ranks, where equal values share the mean of theirs; 0 where it has no value.

    Raises:
        ValueError: If there are no examples, or not one prediction for each.
    """
    from scipy import stats

    _refuse_other_shapes("spearman", predictions, references)
    if is_constant(predictions) or is_constant(references):
        return 0.0
    found: Any = stats.spearmanr(predictions, references)
    return float(np.clip(found.statistic, -1, 1))


def is_constant(values: Float[np.ndarray, " examples"]) -> bool:
    """Tells whether all values are equal, up to some roundings of fp32, of which a correlation would mean nothing."""
    return bool(np.ptp(values) <= 8 * np.finfo(np.float32).eps * np.abs(values).max())


def exact_match(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns the share of texts that equal one of their references, but for white space at the ends and its amount.

    Raises:
        ValueError: If there is no example, not one prediction for each, or an example without a reference.
    """
    refuse_unfit("exact match", predictions, references)
    hits = [_spaced(text) in map(_spaced, texts) for text, texts in zip(predictions, references, strict=True)]
    return sum(hits) / len(hits)


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _refuse_other_shapes(name: str, predictions: np.ndarray, references: np.ndarray) -> None:
    if len(references) == 0 or predictions.shape != references.shape:
        raise ValueError(
            f"{name}: needs one prediction for each of at least one reference "
            f"(given: {predictions.shape} and {references.shape})."
        )
    if not np.isfinite(predictions).all():
        raise ValueError(
            f"{name}: a prediction is no finite number (given: {predictions[~np.isfinite(predictions)][0]})."
        )
