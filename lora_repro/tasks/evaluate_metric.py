"""A task's metrics as an `evaluate.Metric`, for other people's code: computed by the functions that score our runs."""

import shutil
import tempfile
import weakref
from collections.abc import Iterable
from typing import Any

import evaluate
from datasets import Features, Value
from datasets import Sequence as ListOf

from lora_repro.config.catalogue import group_names
from lora_repro.config.schema import load_group
from lora_repro.tasks.base import TaskConfig
from lora_repro.tasks.targets import Classes, Example, Scores, Targets, Texts
from lora_repro.tasks.text_metrics.protocols import PROTOCOLS


class TaskMetric(evaluate.Metric):
    """All metrics of a task's targets.

    `compute(predictions=..., references=...)` returns them by name, as result.json holds them: shares and correlations
    are not multiplied by 100. References of texts are lists of texts, of which each is right. Nothing is downloaded.
    Batches that are added lie in a temporary folder until this object is gone, unless `cache_dir` names another;
    evaluate would keep them in the user's home.

    Args:
        name: What it is called.
        targets: What is scored.
        options: As `evaluate.Metric` takes them.

    Raises:
        MissingInputError: If a package or Java is missing that one of the metrics needs.
    """

    def __init__(self, name: str, targets: Targets, **options: Any) -> None:
        targets.refuse_missing_tools()
        self.targets = targets
        if options.get("cache_dir") is None:
            options["cache_dir"] = tempfile.mkdtemp(prefix="lora-repro-metric-")
            weakref.finalize(self, shutil.rmtree, options["cache_dir"], ignore_errors=True)
        super().__init__(config_name=name, **options)

    def _info(self) -> evaluate.MetricInfo:
        # classes too: as whole numbers evaluate would cut 1.9 to 1
        kind = "float64" if isinstance(self.targets, Classes | Scores) else None
        one: Any = Value(kind or "string")
        features = Features({"predictions": one, "references": one if kind else ListOf(one)})
        about = "; ".join(f"{each.name}: {each.about}" if each.about else each.name for each in self.targets.metrics)
        return evaluate.MetricInfo(description=about, citation="", inputs_description="", features=features)

    def _compute(self, *, predictions: Any = None, references: Any = None, **_: Any) -> dict[str, float]:
        if isinstance(self.targets, Classes):
            predictions, references = _whole("predictions", predictions), _whole("references", references)
        examples = [Example(str(i), "", target, "") for i, target in enumerate(references)]
        return self.targets.evaluate(examples, list(predictions))


def _whole(name: str, given: Iterable[float]) -> list[int]:
    """Returns classes as whole numbers.

    Raises:
        ValueError: If one is none.
    """
    classes = list(given)
    if wrong := [each for each in classes if not each.is_integer()]:
        raise ValueError(
            f"{name}: a class is a whole number (given: {wrong[0]}).\nOf probabilities give the most probable class."
        )
    return [int(each) for each in classes]


def load(task: str, **options: Any) -> TaskMetric:
    """Returns the metrics of a task of conf/task as an `evaluate.Metric`: `load("cola")` has matthews and accuracy.

    A protocol of generated texts is named likewise, whether it has a task or not: `load("e2e")`,
    `load("dart_leaderboard")`.

    Raises:
        InputError: If there is no such task.
        MissingInputError: If a package or Java is missing that one of the metrics needs.
    """
    if task in PROTOCOLS and task not in group_names("task"):
        return TaskMetric(task, Texts(*PROTOCOLS[task].declared), **options)
    config = load_group("task", task)
    assert isinstance(config, TaskConfig)
    return TaskMetric(task, config.targets, **options)
