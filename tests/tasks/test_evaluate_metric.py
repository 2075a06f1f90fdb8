"""Our metrics through `evaluate`: the numbers are those of the tasks, also batch by batch."""

import json
import os
import subprocess
import sys
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


def test_metrics_of_texts_are_computed_without_network_and_leave_nothing_in_the_home(tmp_path: Path) -> None:
    """The hub is not declared offline, so a module that asked it would fail or wait."""
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    code = """
import json, socket
def refuse(*_, **__):
    raise AssertionError("no network")
socket.socket.connect = socket.getaddrinfo = refuse
from lora_repro.tasks import evaluate_metric
from lora_repro.tasks.targets import Texts
from lora_repro.tasks.text_metrics.protocols import WEBNLG
written, right = ["Aromi is cheap.", "Zizzi"], [["Aromi is dear.", "Aromi is cheap."], ["Zizzi is a pub.", "Zizzi"]]
samsum = evaluate_metric.load("samsum").compute(predictions=written, references=right)
without_java = [each for each in WEBNLG.declared if each.name != "meteor"]
webnlg = evaluate_metric.TaskMetric("webnlg", Texts(*without_java))
for text, texts in zip(written, right):
    webnlg.add(prediction=text, reference=texts)
print(json.dumps({"samsum": samsum, "webnlg": webnlg.compute()}))
"""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))}
    environment = kept | {"HOME": str(home), "TMPDIR": str(temporary), "MPLCONFIGDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "samsum": {"rouge_1": 1.0, "rouge_2": 0.5, "rouge_l": 1.0},
        "webnlg": {"bleu": 1.0, "ter": 0.0},
    }
    assert list(home.rglob("*")) == [] and list(temporary.iterdir()) == []


def test_a_class_that_is_no_whole_number_is_refused_and_never_cut_to_one() -> None:
    mrpc = evaluate_metric.load("mrpc")
    computed = mrpc.compute(predictions=[1.0, 0.0], references=[1, 0])
    assert computed and computed["accuracy"] == 1.0
    with pytest.raises(ValueError, match=r"predictions: a class is a whole number \(given: 0.7\)"):
        mrpc.compute(predictions=[1, 0.7], references=[1, 0])
    mrpc = evaluate_metric.load("mrpc")
    mrpc.add(prediction=1.9, reference=1)
    with pytest.raises(ValueError, match="predictions: a class is a whole number"):
        mrpc.compute()


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(InputError, match="cola"):
        evaluate_metric.load("colla")
