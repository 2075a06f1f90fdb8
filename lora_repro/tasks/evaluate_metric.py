"""A task's metrics as an `evaluate.Metric`, for other people's code: computed by the functions that score our runs."""

from typing import Any

import evaluate
from datasets import Features, Value
from datasets import Sequence as ListOf

from lora_repro.config.schema import load_group
from lora_repro.tasks.base import TaskConfig
from lora_repro.tasks.targets import Classes, Example, Scores, Targets


class TaskMetric(evaluate.Metric):
    """All metrics of a task's targets.

    `compute(predictions=..., references=...)` returns them by name, as result.json holds them: shares and correlations
    are not multiplied by 100. References of texts are lists of texts, of which each is right.

    Args:
        name: What it is called.
        targets: What is scored.
        options: As `evaluate.Metric` takes them.
    """

    def __init__(self, name: str, targets: Targets, **options: Any) -> None:
        self.targets = targets
        super().__init__(config_name=name, **options)

    def _info(self) -> evaluate.MetricInfo:
        kind = "int64" if isinstance(self.targets, Classes) else "float64" if isinstance(self.targets, Scores) else None
        one: Any = Value(kind or "string")
        features = Features({"predictions": one, "references": one if kind else ListOf(one)})
        about = "; ".join(f"{each.name}: {each.about}" if each.about else each.name for each in self.targets.metrics)
        return evaluate.MetricInfo(description=about, citation="", inputs_description="", features=features)

    def _compute(self, *, predictions: Any = None, references: Any = None, **_: Any) -> dict[str, float]:
        examples = [Example(str(i), "", target, "") for i, target in enumerate(references)]
        return self.targets.evaluate(examples, list(predictions))


def load(task: str, **options: Any) -> TaskMetric:
    """Returns the metrics of a task of conf/task as an `evaluate.Metric`: `load("cola")` has matthews and accuracy.

    Raises:
        InputError: If there is no such task.
    """
    config = load_group("task", task)
    assert isinstance(config, TaskConfig)
    return TaskMetric(task, config.targets, **options)
