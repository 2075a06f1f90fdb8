"""Scores of a system's texts by a protocol, and which of the texts are worst and best."""

from collections.abc import Sequence
from typing import NamedTuple

from analysis.texts.pairs import Pairs
from lora_repro.errors import InputError, did_you_mean
from lora_repro.tasks.text_metrics.protocols import Protocol, TextMetric, refuse_missing_tools


class Score(NamedTuple):
    """One metric."""

    metric: TextMetric
    value: float
    """In the unit of the official script."""


class Sample(NamedTuple):
    """A text with what it is worth by one metric."""

    place: str
    value: float
    text: str
    references: list[str]


class Samples(NamedTuple):
    """The worst and the best texts."""

    metric: TextMetric
    worst: list[Sample]
    best: list[Sample]


class Scores(NamedTuple):
    """What a system's texts are worth."""

    protocol: Protocol
    texts: int
    references: int
    scores: list[Score]
    samples: Samples | None


def chosen(protocol: Protocol, keys: Sequence[str]) -> list[TextMetric]:
    """Returns the metrics of a protocol that are asked for; without keys all.

    Raises:
        InputError: If it has no such metric.
    """
    known = {each.key.lower(): each for each in protocol.metrics}
    for key in keys:
        if key.lower() not in known:
            names = [each.key for each in protocol.metrics]
            raise InputError(
                f"--metrics: {protocol.name} has no metric {key!r}.{did_you_mean(key, names)}\n"
                f"Metrics: {', '.join(names)}."
            )
    asked = {key.lower() for key in keys}
    return [each for key, each in known.items() if not asked or key in asked]


def ranking(protocol: Protocol, metrics: Sequence[TextMetric]) -> TextMetric:
    """Returns the first metric that is a mean over texts, by which single texts can be ranked.

    Raises:
        InputError: If none of the metrics is.
    """
    found = next((each for each in metrics if each.of_each is not None), None)
    if found is None:
        could = [each.key for each in protocol.metrics if each.of_each is not None]
        remedy = f"Add {could[0]} to --metrics." if could else "Leave it out."
        raise InputError(f"--samples: none of these metrics has a value for a single text.\n{remedy}")
    return found


def scored(protocol: Protocol, pairs: Pairs, keys: Sequence[str] = (), samples: int = 0) -> Scores:
    """Scores texts beside their references.

    Args:
        protocol: Whose metrics.
        pairs: The texts.
        keys: The metrics; none: all.
        samples: How many of the worst and of the best texts are returned.

    Raises:
        InputError: If there is no such metric, none that ranks single texts, or a reference that a metric cannot read.
        MissingInputError: If a package or Java is missing; before anything is computed.
        RunFailedError: If a Java program fails.
    """
    metrics = chosen(protocol, keys)
    ranked = ranking(protocol, metrics) if samples else None
    refuse_missing_tools(metrics)
    try:
        found = [Score(each, each.printed(each.measure(pairs.texts, pairs.references))) for each in metrics]
        shown = _samples(ranked, pairs, samples) if ranked else None
    except ValueError as error:
        raise InputError(str(error)) from None
    return Scores(protocol, len(pairs.texts), sum(map(len, pairs.references)), found, shown)


def _samples(metric: TextMetric, pairs: Pairs, count: int) -> Samples:
    assert metric.of_each is not None
    values = [metric.printed(value) for value in metric.of_each(pairs.texts, pairs.references)]
    rows = list(map(Sample, pairs.places, values, pairs.texts, pairs.references))
    worst, best = (sorted(rows, key=lambda sample: sample.value, reverse=falls) for falls in (False, True))
    if not metric.metric.higher_is_better:
        worst, best = best, worst
    return Samples(metric, worst[:count], best[:count])
