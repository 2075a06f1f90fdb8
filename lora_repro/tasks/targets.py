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
from lora_repro.tasks.metrics import PERPLEXITY, Measure, Metric, Unit
from lora_repro.tasks.text_metrics import protocols
from lora_repro.tasks.text_metrics.protocols import PROTOCOLS, TextMetric


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
    def texts(self) -> tuple[str, ...]:
        """The text, or the two of a pair."""
        return (self.input,) if isinstance(self.input, str) else self.input

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

    metrics: tuple[Metric, ...]
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
        """Scores predictions, which are of the kind of the targets: every declared metric by its name.

        Those that follow from the loss are not among them.
        """
        raise NotImplementedError

    def score(self, name: str, examples: Sequence[Example], predictions: Sequence[Any]) -> float:
        """Returns one declared metric of predictions, without computing the others where that saves time."""
        return self.evaluate(examples, predictions)[name]

    def of_loss(self, loss: float) -> dict[str, float]:
        """Returns the loss, and declared metrics that follow from it without any prediction."""
        return {metrics.LOSS.name: loss}

    def refuse_missing_tools(self) -> None:
        """Refuses to start a run whose predictions could not be scored here; by default everything is here.

        Raises:
            MissingInputError: With the command that installs what is missing.
        """

    @property
    def signatures(self) -> dict[str, str]:
        """What decides the value of metrics that come from other programs: settings and versions, by name."""
        return {}

    def describe(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Returns what result.json holds about a split under `data`: `n`, the number of examples, and more."""
        raise NotImplementedError

    def is_description(self, value: Any) -> bool:
        """Tells whether a record's value is one that `describe` could have returned."""
        return isinstance(value, dict) and is_count(value.get("n")) and value["n"] > 0

    def summary(self, data: Mapping[str, Mapping[str, Any]], labels: Sequence[str] = ()) -> str:
        """Says for a table what the descriptions of train, eval and test hold; `labels` are what classes are called."""
        sizes = " / ".join(f"{described['n']:,}" for described in data.values())
        cut = [f"{split_name(split)} {each['cut']:,}" for split, each in data.items() if each.get("cut")]
        about = f", inputs cut to train.max_length: {', '.join(cut)}" if cut else ""
        return f"{sizes} examples ({' / '.join(split_name(split) for split in data)}{about})"

    def flags(self, predictions: Mapping[str, Sequence[Any]]) -> dict[str, bool]:
        """Returns what a reader must know about the predictions of dev and test after the last epoch."""
        raise NotImplementedError

    def row(self, example: Example, prediction: Any) -> dict[str, Any]:
        """Returns what predictions.parquet holds about an example."""
        return {"id": example.id, self.column: example.target, "prediction": prediction}


class Measured(Targets):
    """Targets that are numbers, with metrics that are functions of predictions and references."""

    measures: ClassVar[Mapping[Metric, Measure]]
    """How each metric is computed."""
    number: ClassVar[type]
    """Of what kind predictions and references are."""

    def evaluate(self, examples: Sequence[Example], predictions: Sequence[Any]) -> dict[str, float]:
        """Returns the declared metrics."""
        given = self._arrays(examples, predictions)
        return {metric.name: self.measures[metric](*given) for metric in self.metrics}

    def score(self, name: str, examples: Sequence[Example], predictions: Sequence[Any]) -> float:
        """Returns one metric."""
        metric = next(each for each in self.metrics if each.name == name)
        return self.measures[metric](*self._arrays(examples, predictions))

    def _arrays(self, examples: Sequence[Example], predictions: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        return np.array(predictions, self.number), np.array([example.target for example in examples], self.number)


ACCURACY = Metric("accuracy", Unit.percent, low=0.0, high=1.0, baseline="majority")
MAJORITY = Metric(
    "majority", Unit.percent, low=0.0, high=1.0, about="always naming the most frequent class of the same split"
)
F1 = Metric("f1", Unit.percent, low=0.0, high=1.0, about="the harmonic mean of precision and recall of class 1")
MACRO_F1 = Metric("macro_f1", Unit.percent, low=0.0, high=1.0, about="the mean of the F1 of all classes")
MATTHEWS = Metric(
    "matthews", Unit.percent, low=-1.0, high=1.0, about="Matthews' correlation; 0 where all predictions are equal"
)
OF_CLASSES: dict[Metric, Measure] = {
    ACCURACY: metrics.accuracy,
    MAJORITY: lambda _, references: metrics.majority(references),
    F1: metrics.f1,
    MACRO_F1: metrics.macro_f1,
    MATTHEWS: metrics.matthews,
}
"""The metrics of classes, and how each is computed of predictions and references."""


class Classes(Measured):
    """A target is one of a few classes, counted from 0.

    Args:
        shown: The metrics that are reported, the one that tables show first.
    """

    def __init__(self, *shown: Metric) -> None:
        shown = shown or (ACCURACY,)
        self.metrics = (*shown, MAJORITY) if ACCURACY in shown else shown

    measures = OF_CLASSES
    number = int
    column = "label"
    description = "an object with n and labels"

    def describe(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Counts the examples of each class."""
        counts = Counter(example.target for example in examples)
        return {"n": len(examples), "labels": {str(label): counts[label] for label in sorted(counts)}}

    def is_description(self, value: Any) -> bool:
        """Tells whether there is a count of each class."""
        labels = value.get("labels") if isinstance(value, dict) else None
        return super().is_description(value) and isinstance(labels, dict) and all(map(is_count, labels.values()))

    def summary(self, data: Mapping[str, Mapping[str, Any]], labels: Sequence[str] = ()) -> str:
        """Adds how the classes of dev and test are balanced."""
        classes = sorted({label for split in data.values() for label in split["labels"]}, key=int)
        balance = []
        for split in _scored(data):
            counts, n = data[split]["labels"], data[split]["n"]
            shares = " / ".join(f"{100 * counts.get(label, 0) / n:.1f}" for label in classes)
            balance.append(f"{split_name(split)} {shares} %")
        names = [labels[int(label)] if int(label) < len(labels) else label for label in classes]
        return f"{super().summary(data, labels)}, classes {' / '.join(names)}: {', '.join(balance)}"

    def flags(self, predictions: Mapping[str, Sequence[int]]) -> dict[str, bool]:
        """Raises `one_class` if the predictions of dev or test name a single class."""
        return {"one_class": _any_constant(predictions.values())}


MSE = Metric("mse", higher_is_better=False, low=0.0, baseline="variance", about="the mean squared error")
PEARSON = Metric(
    "pearson", Unit.percent, low=-1.0, high=1.0, about="the correlation; 0 where all predictions are equal"
)
SPEARMAN = Metric(
    "spearman", Unit.percent, low=-1.0, high=1.0, about="the correlation of ranks; 0 where all predictions are equal"
)
VARIANCE = Metric("variance", higher_is_better=False, low=0.0, about="the mse of always answering the mean")
OF_SCORES: dict[Metric, Measure] = {
    MSE: metrics.mean_squared_error,
    PEARSON: metrics.pearson,
    SPEARMAN: metrics.spearman,
    VARIANCE: lambda _, references: float(references.var()),
}
"""The metrics of scores, and how each is computed of predictions and references."""


class Scores(Measured):
    """A target is a number.

    Args:
        shown: The metrics that are reported, the one that tables show first.
    """

    def __init__(self, *shown: Metric) -> None:
        shown = shown or (MSE, PEARSON, SPEARMAN)
        self.metrics = (*shown, VARIANCE) if MSE in shown else shown

    measures = OF_SCORES
    number = float
    column = "target"
    description = "an object with n, mean and sd"

    def describe(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Returns the mean and the standard deviation of the targets."""
        scores = np.array([example.target for example in examples], float)
        return {"n": len(examples), "mean": float(scores.mean()), "sd": float(scores.std())}

    def is_description(self, value: Any) -> bool:
        """Tells whether there are a mean and a standard deviation."""
        return super().is_description(value) and is_number(value.get("mean")) and is_number(value.get("sd"))

    def summary(self, data: Mapping[str, Mapping[str, Any]], labels: Sequence[str] = ()) -> str:
        """Adds how the scores of dev and test are distributed."""
        spread = [f"{split_name(split)} {data[split]['mean']:.2f} ± {data[split]['sd']:.2f}" for split in _scored(data)]
        return f"{super().summary(data, labels)}, scores (mean ± standard deviation): {', '.join(spread)}"

    def flags(self, predictions: Mapping[str, Sequence[float]]) -> dict[str, bool]:
        """Raises `constant` if the predictions of dev or test are all the same, so that nothing correlates."""
        return {"constant": any(metrics.is_constant(np.array(scores, float)) for scores in predictions.values())}


OF_TEXTS: dict[Metric, TextMetric] = {each.metric: each for protocol in PROTOCOLS.values() for each in protocol.metrics}
"""The metrics of texts: each protocol has its own, though they share names."""
EXACT_MATCH = protocols.EXACT_MATCH.metric


class Texts(Targets):
    """A target is a list of texts, of which each would be right.

    Args:
        shown: The metrics that are reported, the one that tables show first; those of a protocol are its `declared`.
    """

    metrics = (EXACT_MATCH,)
    column = "references"
    description = "an object with n and characters"

    def __init__(self, *shown: Metric) -> None:
        if shown:
            self.metrics = shown

    def evaluate(self, examples: Sequence[Example], predictions: Sequence[str]) -> dict[str, float]:
        """Returns the declared metrics that are known here; a subclass adds those of its own."""
        known = [OF_TEXTS[metric] for metric in self.metrics if metric in OF_TEXTS]
        references = [example.target for example in examples]
        return {each.metric.name: each.measure(predictions, references) for each in known}

    def score(self, name: str, examples: Sequence[Example], predictions: Sequence[str]) -> float:
        """Returns one metric."""
        metric = next(each for each in self.metrics if each.name == name)
        if metric not in OF_TEXTS:
            return self.evaluate(examples, predictions)[name]
        return OF_TEXTS[metric].measure(predictions, [example.target for example in examples])

    def refuse_missing_tools(self) -> None:
        """Refuses to start a run where a metric needs a package or Java that is not here.

        Raises:
            MissingInputError: With the command that installs it.
        """
        protocols.refuse_missing_tools(OF_TEXTS[metric] for metric in self.metrics if metric in OF_TEXTS)

    def of_loss(self, loss: float) -> dict[str, float]:
        """Adds the perplexity where it is declared."""
        added = {PERPLEXITY.name: metrics.perplexity(loss)} if PERPLEXITY in self.metrics else {}
        return super().of_loss(loss) | added

    def row(self, example: Example, prediction: str) -> dict[str, Any]:
        """Adds the input, without which a text says little."""
        asked = example.input if isinstance(example.input, str) else [*example.input]
        return super().row(example, prediction) | {"input": asked}

    @property
    def signatures(self) -> dict[str, str]:
        """Those of the metrics of a protocol."""
        known = [OF_TEXTS[metric] for metric in self.metrics if metric in OF_TEXTS]
        return {each.metric.name: each.signature for each in known if each is not protocols.EXACT_MATCH}

    def describe(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Returns the mean length of the first reference in characters."""
        return {"n": len(examples), "characters": sum(len(example.target[0]) for example in examples) / len(examples)}

    def is_description(self, value: Any) -> bool:
        """Tells whether there is a length."""
        return super().is_description(value) and is_number(value.get("characters"))

    def summary(self, data: Mapping[str, Mapping[str, Any]], labels: Sequence[str] = ()) -> str:
        """Adds how long the references of dev and test are."""
        lengths = ", ".join(f"{split_name(split)} {data[split]['characters']:.1f}" for split in _scored(data))
        return f"{super().summary(data, labels)}, characters to be written: {lengths}"

    def flags(self, predictions: Mapping[str, Sequence[str]]) -> dict[str, bool]:
        """Raises `one_text` if the same text is written for all examples of dev or of test."""
        return {"one_text": _any_constant(predictions.values())}


def metric_of_any_kind(name: str) -> Metric | None:
    """Returns what is declared about a metric by this name, of whatever task: one that is not known here, too."""
    kinds = (Classes(ACCURACY, F1, MACRO_F1, MATTHEWS), Scores(), Texts(*OF_TEXTS, PERPLEXITY))
    return next((metric for kind in kinds if (metric := kind.metric(name)) is not None), None)


def split_name(split: str) -> str:
    """Returns how tables print a split: records spell dev `eval`."""
    return {"eval": "dev"}.get(split, split)


def _scored(data: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [split for split in data if split != "train"]


def _any_constant(predictions: Iterable[Sequence[Any]]) -> bool:
    return any(len(set(split)) == 1 for split in predictions)
