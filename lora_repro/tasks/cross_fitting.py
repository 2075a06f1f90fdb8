"""What a run scores on examples that chose no epoch, where dev is all that there is with labels. No torch."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from lora_repro import draw
from lora_repro.tasks.base import TaskConfig
from lora_repro.tasks.targets import Example

HALVINGS = 100
"""How often dev is divided; all runs of a task divide it alike, so that they can be compared in pairs."""


def cross_fitted(
    task: TaskConfig, examples: Sequence[Example], predictions: Mapping[int, Sequence[Any]]
) -> dict[str, float]:
    """Returns each metric of dev, with every example answered at the epoch that is best on other examples.

    Dev is divided into two halves of like targets, and no group that stays together is divided. Each half is scored at
    the epoch that is best on the other, by the task's first metric, and the two scores are averaged by the sizes of
    the halves; where both choose one epoch, all of dev is scored at once. The metrics are means over `HALVINGS` such
    divisions. The paper chooses and scores on the same examples, which makes the best epoch look better than it is.

    Answers of two epochs are never put together before they are scored: epochs may answer on different scales, and a
    correlation over both would be lower than that of either.

    Args:
        task: The task.
        examples: Dev.
        predictions: The answers to dev, by epoch.
    """
    epochs = list(predictions.values())
    targets, metric = task.targets, task.targets.metrics[0]
    numbers = np.array([task.order_of(each.target) for each in examples])

    def answered(rows: Sequence[int], epoch: int) -> tuple[list[Example], list[Any]]:
        return [examples[row] for row in rows], [epochs[epoch][row] for row in rows]

    def best_on(rows: Sequence[int]) -> int:
        return metric.best([targets.score(metric.name, *answered(rows, epoch)) for epoch in range(len(epochs))])

    whole = [targets.evaluate(examples, answers) for answers in epochs]
    groups = _numbered([each.document if task.has_groups else i for i, each in enumerate(examples)])
    if len(epochs) == 1 or len(set(groups)) < 2:
        return whole[-1]
    results = []
    for half, first, second in _divisions(task.name, numbers, groups, best_on):
        if first == second:
            results.append(whole[first])
            continue
        halves = [np.flatnonzero(each).tolist() for each in (half, ~half)]
        found = [targets.evaluate(*answered(*each)) for each in zip(halves, (first, second), strict=True)]
        sizes = [len(rows) for rows in halves]
        results.append({name: float(np.average([each[name] for each in found], weights=sizes)) for name in found[0]})
    means = {name: float(np.mean([result[name] for result in results])) for name in results[0]}
    baselines = [metric.baseline for metric in targets.metrics if metric.baseline is not None]
    return means | {name: whole[0][name] for name in baselines}  # of all of dev, whatever is answered


def shares_of_right(
    task: TaskConfig, targets: Sequence[int], answers: Sequence[Sequence[int]], documents: Sequence[int]
) -> Float[np.ndarray, " examples"]:
    """Returns in which share of the divisions each example of dev is answered right: their mean is the accuracy above.

    Args:
        task: A task of classes whose first metric is accuracy.
        targets: The class of each example.
        answers: The answers to dev, epoch by epoch.
        documents: The document of each example, counted from 0.
    """
    right = np.asarray(answers) == np.asarray(targets)
    groups = _numbered(documents if task.has_groups else range(len(targets)))
    if len(answers) == 1 or len(set(groups)) < 2:
        return right[-1].astype(float)

    def best_on(rows: Sequence[int]) -> int:
        return int(np.argmax(right[:, rows].sum(axis=1)))

    shares = np.zeros(len(targets))
    for half, first, second in _divisions(task.name, np.asarray(targets, float), groups, best_on):
        shares += np.where(half, right[first], right[second]) / HALVINGS
    return shares


def _numbered(values: Iterable[Any]) -> list[int]:
    """Numbers values from 0 in the order in which they appear."""
    codes: dict[Any, int] = {}
    return [codes.setdefault(value, len(codes)) for value in values]


def _divisions(
    task: str, targets: np.ndarray, groups: Sequence[int], best_on: Callable[[Sequence[int]], int]
) -> Iterator[tuple[Bool[np.ndarray, " examples"], int, int]]:
    """Yields each division: which examples are of its first half, and the epochs at which the two halves are scored.

    Args:
        task: The task's name.
        targets: Of the examples.
        groups: The group of each example.
        best_on: Returns the epoch that is best on some examples, given by their places.
    """
    for number in range(HALVINGS):
        half = _half(task, targets, groups, number)
        own, other = (np.flatnonzero(each).tolist() for each in (half, ~half))
        yield half, best_on(other), best_on(own)


def _half(task: str, targets: np.ndarray, groups: Sequence[int], number: int) -> Bool[np.ndarray, " examples"]:
    """Draws one half: of each two neighbours in the order of targets one, so that both halves have like targets.

    Args:
        task: The task's name.
        targets: Of the examples.
        groups: The group of each example, counted from 0: what is drawn, with the mean of its targets.
        number: Of the division.
    """
    means = np.bincount(groups, targets) / np.bincount(groups)
    generator = draw.generator("half", task, len(means), number)
    order = np.lexsort((generator.random(len(means)), means))  # equal targets in drawn order
    firsts, seconds = order[0::2], order[1::2]
    coins = generator.random(len(firsts)) < 0.5
    half = np.zeros(len(means), bool)
    half[firsts], half[seconds] = coins, ~coins[: len(seconds)]
    return half[np.asarray(groups)]
