"""What a run scores on examples that chose no epoch, where dev is all that there is with labels. No torch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from lora_repro import draw
from lora_repro.tasks.base import TaskConfig
from lora_repro.tasks.targets import Example

HALVINGS = 100
"""How often dev is divided; all runs of a task divide it alike, so that they can be compared in pairs."""


def cross_fitted(
    task: TaskConfig, examples: Sequence[Example], predictions: Mapping[int, Sequence[Any]]
) -> dict[str, float]:
    """Returns each metric of dev, with every example answered at the epoch that is best on other examples.

    Dev is divided into two halves of like targets. Each half takes its answers from the epoch that is best on the other
    half, by the task's first metric; together they answer all of dev once. The metrics are means over `HALVINGS` such
    divisions. The paper chooses and scores on the same examples, which makes the best epoch look better than it is.

    Args:
        task: The task.
        examples: Dev.
        predictions: The answers to dev, by epoch.
    """
    epochs = list(predictions.values())
    targets, metric = task.targets, task.targets.metrics[0]
    numbers = np.array([each.target if isinstance(each.target, int | float) else 0.0 for each in examples], float)

    def best_on(half: Bool[np.ndarray, " examples"]) -> int:
        rows = np.flatnonzero(half).tolist()
        some = [examples[row] for row in rows]
        return metric.best([targets.score(metric.name, some, [answers[row] for row in rows]) for answers in epochs])

    if len(epochs) == 1 or len(examples) < 2:
        return targets.evaluate(examples, epochs[-1])
    results = []
    for number in range(HALVINGS):
        half = _half(task.name, numbers, number)
        of_half, of_others = epochs[best_on(~half)], epochs[best_on(half)]
        answers = [of_half[i] if inside else of_others[i] for i, inside in enumerate(half.tolist())]
        results.append(targets.evaluate(examples, answers))
    return {name: float(np.mean([result[name] for result in results])) for name in results[0]}


def _half(task: str, targets: np.ndarray, number: int) -> Bool[np.ndarray, " examples"]:
    """Draws one half: of each two neighbours in the order of targets one, so that both halves have like targets."""
    generator = draw.generator("half", task, len(targets), number)
    order = np.lexsort((generator.random(len(targets)), targets))  # equal targets in drawn order
    firsts, seconds = order[0::2], order[1::2]
    coins = generator.random(len(firsts)) < 0.5
    half = np.zeros(len(targets), bool)
    half[firsts], half[seconds] = coins, ~coins[: len(seconds)]
    return half
