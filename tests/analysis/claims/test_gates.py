"""What keeps runs from saying anything, on arms made by hand."""

from types import SimpleNamespace
from typing import Any

import pytest

from analysis.claims.gates import learned_nothing, unfinished
from lora_repro.tasks.metrics import LOSS, Metric
from lora_repro.tasks.targets import ACCURACY


def arm(metric: Metric, *dev: float, baseline: float | None = None) -> Any:
    """An arm of one run, by its dev scores after each epoch."""
    own = {} if baseline is None else {f"eval/{metric.baseline}": baseline}
    rows = [{f"eval/{metric.name}": score, **own} for score in dev]
    return SimpleNamespace(metric=metric, results=[{"metrics_by_epoch": rows}])


@pytest.mark.parametrize(
    ("metric", "dev", "reason"),
    [
        (
            ACCURACY,
            (0.80, 0.83),
            "Training had not ended: dev got better by more than the margin in the last epoch (a).",
        ),
        (ACCURACY, (0.83, 0.80), None),
        (LOSS, (2.0, 1.0), "Training had not ended: dev got better by more than the margin in the last epoch (a)."),
        (LOSS, (1.0, 2.0), None),
        (ACCURACY, (0.80,), "Whether training had ended is not known, as dev was scored once (a)."),
    ],
)
def test_training_has_ended_if_dev_gets_no_better(metric: Metric, dev: tuple[float, ...], reason: str | None) -> None:
    assert unfinished({"a": arm(metric, *dev)}, 0.01) == reason


def test_one_arm_that_learned_is_enough() -> None:
    constant, learned = arm(ACCURACY, 0.5, 0.51, baseline=0.5), arm(ACCURACY, 0.8, 0.5, baseline=0.5)
    assert learned_nothing({"a": constant, "b": learned}, 0.02) is None
    assert learned_nothing({"a": constant}, 0.02) == (
        "No arm learned more than the margin over naming the most frequent class (a)."
    )
    assert learned_nothing({"a": arm(LOSS, 1.0, 2.0)}, 0.02) is None  # a loss has no baseline
