"""Our metrics through `evaluate`: the numbers are those of the tasks, also batch by batch."""

from pathlib import Path

import pytest

from lora_repro.errors import InputError
from lora_repro.tasks import evaluate_metric


def test_classes_scores_and_texts_give_their_tasks_numbers(tmp_path: Path) -> None:
    options = {"cache_dir": str(tmp_path)}
    cola = evaluate_metric.load("cola", **options)
    found = cola.compute(predictions=[1, 1, 0, 0], references=[1, 0, 0, 0])
    assert found == pytest.approx(
        {"matthews": (1 * 2 - 1 * 0) / (2 * 1 * 3 * 2) ** 0.5, "accuracy": 0.75, "majority": 0.75}
    )
    mrpc = evaluate_metric.load("mrpc", **options)
    for prediction, reference in ((1, 1), (0, 1), (1, 1), (0, 0)):
        mrpc.add(prediction=prediction, reference=reference)
    assert mrpc.compute() == pytest.approx({"accuracy": 0.75, "majority": 0.75, "f1": 0.8})
    stsb = evaluate_metric.load("stsb", **options).compute(predictions=[1.0, 2.0, 4.0], references=[0.0, 2.5, 5.0])
    assert stsb == pytest.approx({"pearson": 0.9820, "spearman": 1.0}, abs=1e-4)
    reverse = evaluate_metric.load("reverse", **options)
    assert reverse.compute(predictions=["a b", "c"], references=[["a  b"], ["d", "e"]]) == {"exact_match": 0.5}


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(InputError, match="cola"):
        evaluate_metric.load("colla")
