"""What a task's targets are: classes, scores or texts. No torch.

From its kind follows how predictions are scored, written into a record and described in a table.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from lora_repro.errors import InputError
from lora_repro.store.reading import is_count, is_number
from lora_repro.tasks import metrics
from lora_repro.tasks.metrics import Metric, Unit


class Example(NamedTuple):
    """One input and what is expected of it."""

    id: str
    input: str | tuple[str, str]
    """A text, or a pair of sentences."""
    target: Any
    """A class (int), a score (float), or a list of reference texts of which each is right."""
    document: str
    """Groups examples that come from one source, which splits keep together."""

    @property
    def text(self) -> str:
        """The input, where it is a single text.

        Raises:
            InputError: If it is a pair of sentences.
        """
        if not isinstance(self.input, str):
            raise InputError(
                f"example {self.id}: its input is a pair of sentences, where a single text is needed.\n"
                "Choose a task whose inputs are single texts."
            )
        return self.input


class Targets:
    """One kind of target. The default implementations say what all kinds share."""

    metrics: ClassVar[tuple[Metric, ...]]
    """The first is the one that tables show; `loss` comes beside them and is not listed."""
    column: ClassVar[str]
    """What predictions.parquet calls the target."""
    description: ClassVar[str]
    """What result.json holds about a split, in words."""

    def metric(self, name: str) -> Metric | None:
        """Returns what is declared about a metric; None of an unknown one."""
        return next((metric for metric in (*self.metrics, metrics.LOSS) if metric.name == name), None)

    @property
    def shown(self) -> list[Metric]:
        """The metrics that say how good predictions are: all but the baselines."""
        baselines = {metric.baseline for metric in self.metrics}
        return [metric for metric in self.metrics if metric.name not in baselines]

    def evaluate(self, examples: Sequence[Example], predictions: Sequence[Any]) -> dict[str, float]:
        """Scores predictions, which are of the kind of the targets: every declared metric by its name."""
        raise NotImplementedError

    def describe(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Returns what result.json holds about a split under `data`: `n`, the number of examples, and more."""
        raise NotImplementedError

    def is_description(self, value: Any) -> bool:
        """Tells whether a record's value is one that `describe` could have returned."""
        return isinstance(value, dict) and is_count(value.get("n")) and value["n"] > 0

    def summary(self, data: Mapping[str, Mapping[str, Any]]) -> str:
        """Says for a table what the descriptions of train, eval and test hold."""
        sizes = " / ".join(f"{data[split]['n']:,}" for split in ("train", "eval", "test"))
        return f"{sizes} examples (train / dev / test)"

    def flags(self, predictions: Mapping[str, Sequence[Any]]) -> dict[str, bool]:
        """Returns what a reader must know about the predictions of dev and test after the last epoch."""
        raise NotImplementedError

    def row(self, example: Example, prediction: Any) -> dict[str, Any]:
        """Returns what predictions.parquet holds about an example."""
        return {"id": example.id, self.column: example.target, "prediction": prediction}


class Classes(Targets):
    """A target is one of a few classes, counted from 0."""

    metrics = (
        Metric("accuracy", Unit.percent, low=0.0, high=1.0, baseline="majority"),
        Metric(
            "majority", Unit.percent, low=0.0, high=1.0,
            about="always naming the most frequent class of the same split",
        ),
    )  # fmt: skip
    column = "label"
    description = "an object with n and labels"

    def evaluate(self, examples: Sequence[Example], predictions: Sequence[int]) -> dict[str, float]:
        """Returns the accuracy, and beside it what always naming the most frequent class would get."""
        references = np.array([example.target for example in examples])
        return {
            "accuracy": metrics.accuracy(np.array(predictions), references),
            "majority": metrics.majority(references),
        }

    def describe(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Counts the examples of each class."""
        counts = Counter(example.target for example in examples)
        return {"n": len(examples), "labels": {str(label): counts[label] for label in sorted(counts)}}

    def is_description(self, value: Any) -> bool:
        """Tells whether there is a count of each class."""
        labels = value.get("labels") if isinstance(value, dict) else None
        return super().is_description(value) and isinstance(labels, dict) and all(map(is_count, labels.values()))

    def summary(self, data: Mapping[str, Mapping[str, Any]]) -> str:
        """Adds how the classes of dev and test are balanced."""
        balance = []
        for split, name in NAMED:
            labels, n = data[split]["labels"], data[split]["n"]
            balance.append(f"{name} {' / '.join(f'{100 * labels[label] / n:.1f}' for label in sorted(labels))} %")
        return f"{super().summary(data)}, classes {' / '.join(sorted(data['eval']['labels']))}: {', '.join(balance)}"

    def flags(self, predictions: Mapping[str, Sequence[int]]) -> dict[str, bool]:
        """Raises `one_class` if the predictions of dev or test name a single class."""
        return {"one_class": _any_constant(predictions.values())}


class Scores(Targets):
    """A target is a number."""

    metrics = (
        Metric("mse", higher_is_better=False, low=0.0, baseline="variance", about="the mean squared error"),
        Metric("pearson", low=-1.0, high=1.0, about="the correlation; 0 where all predictions are equal"),
        Metric("spearman", low=-1.0, high=1.0, about="the correlation of ranks; 0 where all predictions are equal"),
        Metric("variance", higher_is_better=False, low=0.0, about="the mse of always answering the mean"),
    )
    column = "target"
    description = "an object with n, mean and sd"

    def evaluate(self, examples: Sequence[Example], predictions: Sequence[float]) -> dict[str, float]:
        """Returns the mean squared error beside the variance of the targets, and both correlations."""
        found, references = np.array(predictions, float), np.array([example.target for example in examples], float)
        return {
            "mse": metrics.mean_squared_error(found, references),
            "pearson": metrics.pearson(found, references),
            "spearman": metrics.spearman(found, references),
            "variance": float(references.var()),
        }

    def describe(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Returns the mean and the standard deviation of the targets."""
        scores = np.array([example.target for example in examples], float)
        return {"n": len(examples), "mean": float(scores.mean()), "sd": float(scores.std())}

    def is_description(self, value: Any) -> bool:
        """Tells whether there are a mean and a standard deviation."""
        return super().is_description(value) and is_number(value.get("mean")) and is_number(value.get("sd"))

    def summary(self, data: Mapping[str, Mapping[str, Any]]) -> str:
        """Adds how the scores of dev and test are distributed."""
        spread = [f"{name} {data[split]['mean']:.2f} ± {data[split]['sd']:.2f}" for split, name in NAMED]
        return f"{super().summary(data)}, scores (mean ± standard deviation): {', '.join(spread)}"

    def flags(self, predictions: Mapping[str, Sequence[float]]) -> dict[str, bool]:
        """Raises `constant` if the predictions of dev or test are all the same, so that nothing correlates."""
        return {"constant": any(metrics.is_constant(np.array(scores, float)) for scores in predictions.values())}


class Texts(Targets):
    """A target is a list of texts, of which each would be right."""

    metrics = (Metric("exact_match", Unit.percent, low=0.0, high=1.0),)
    column = "references"
    description = "an object with n and characters"

    def evaluate(self, examples: Sequence[Example], predictions: Sequence[str]) -> dict[str, float]:
        """Returns the share of texts that equal one of their references."""
        return {"exact_match": metrics.exact_match(predictions, [example.target for example in examples])}

    def describe(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Returns the mean length of the first reference in characters."""
        return {"n": len(examples), "characters": sum(len(example.target[0]) for example in examples) / len(examples)}

    def is_description(self, value: Any) -> bool:
        """Tells whether there is a length."""
        return super().is_description(value) and is_number(value.get("characters"))

    def summary(self, data: Mapping[str, Mapping[str, Any]]) -> str:
        """Adds how long the references of dev and test are."""
        lengths = ", ".join(f"{name} {data[split]['characters']:.1f}" for split, name in NAMED)
        return f"{super().summary(data)}, characters to be written: {lengths}"

    def flags(self, predictions: Mapping[str, Sequence[str]]) -> dict[str, bool]:
        """Raises `one_text` if the same text is written for all examples of dev or of test."""
        return {"one_text": _any_constant(predictions.values())}


def metric_of_any_kind(name: str) -> Metric | None:
    """Returns what is declared about a metric by this name, of whatever task: one that is not known here, too."""
    kinds = (Classes(), Scores(), Texts())
    return next((metric for kind in kinds if (metric := kind.metric(name)) is not None), None)


NAMED = (("eval", "dev"), ("test", "test"))
"""The scored splits: how records spell them, and how tables print them."""


def _any_constant(predictions: Iterable[Sequence[Any]]) -> bool:
    return any(len(set(split)) == 1 for split in predictions)
