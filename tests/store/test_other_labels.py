"""A head that is taken over from a run on labels in another order, or on other labels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from helpers.computed_runs import record_of
from helpers.local_models import WORDS, words_tokenizer, write
from helpers.quick_compose import compose_quickly
from omegaconf import DictConfig

from lora_repro.config.resolve import resolve
from lora_repro.errors import InputError
from lora_repro.sweep.starts import draws_head
from lora_repro.training.job import run_job
from lora_repro.training.train import build

ROWS = [(f"{WORDS[i % 20]} {WORDS[(7 * i) % 20]}", i % 3 == 0) for i in range(48)]
PARTS = {"train": ROWS[:24], "validation": ROWS[24:]}
Composed = Callable[..., DictConfig]


@pytest.fixture(params=[None, "good bad", "LABEL_0 LABEL_1"])
def on(request: pytest.FixtureRequest, tmp_path: Path) -> Composed:
    """Composes a run on a folder of data, on a base whose head names its labels so."""
    base = ["model=tiny_bert"]
    if request.param is not None:
        named = {"id2label": dict(enumerate(request.param.split()))}
        folder = write(tmp_path / "base", "bert", words_tokenizer(), named, max_position_embeddings=80)
        base = ["model=local", f"paths.model={folder}", "preset@train=tiny_bert"]
    fixed = (*base, "task=table", "task.text=text", "task.label=y", "compute.device=cpu", f"paths.outputs={tmp_path}")
    return lambda data, *more: compose_quickly([*fixed, "train.epochs=0", f"paths.data={tmp_path / data}", *more])


@pytest.fixture
def start(on: Composed, tmp_path: Path) -> str:
    """A trained run whose data set counts good as class 0 and bad as class 1; beside it the same rows as CSV."""
    features = Features({"text": Value("string"), "y": ClassLabel(names=["good", "bad"])})
    saved: Any = {
        split: Dataset.from_dict({"text": [text for text, _ in rows], "y": [int(bad) for _, bad in rows]}, features)
        for split, rows in PARTS.items()
    }
    DatasetDict(saved).save_to_disk(tmp_path / "declared")
    for folder, names in {"sorted": ("good", "bad"), "other": ("fast", "slow")}.items():
        (tmp_path / folder).mkdir()
        for split, rows in PARTS.items():
            lines = "".join(f"{text},{names[bad]}\n" for text, bad in rows)
            (tmp_path / folder / f"{split}.csv").write_text(f"text,y\n{lines}")
    cfg = on("declared", "train.epochs=2", "train.learning_rate=3e-2")
    assert resolve(cfg).run.task.label_names == ["good", "bad"]
    run_job(cfg)
    return str(record_of(cfg).folder)


def test_a_head_for_labels_in_another_order_answers_as_it_did(on: Composed, start: str) -> None:
    """A CSV file counts its labels by their letters: bad is class 0 there."""
    again = on("declared", f"train.init_from={start}")
    here = on("sorted", f"train.init_from={start}")
    assert resolve(here).run.task.label_names == ["bad", "good"]
    theirs, ours = run_job(again), run_job(here)
    assert {key: ours[key] for key in theirs} == pytest.approx(theirs, abs=1e-6)
    scored = [build(resolve(cfg), torch.device("cpu")).state_dict()["classifier.weight"] for cfg in (again, here)]
    assert torch.equal(scored[0].flip(0), scored[1]) and not torch.equal(*scored)
    result = record_of(here).read().result
    assert result is not None
    assert result["provenance"]["init_from"]["head"] == "the adapter's, its labels put into the order bad, good"


def test_a_head_for_other_labels_is_drawn_anew_and_not_scored(
    on: Composed, start: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InputError, match=r"no trained head for this task .* is of the labels good, bad .*fast, slow"):
        run_job(on("other", f"train.init_from={start}"))
    cfg = on("other", f"train.init_from={start}", "train.epochs=1", "train.max_steps=1")
    metrics = run_job(cfg)
    assert "so classifier.weight, classifier.bias start anew" in caplog.text or "are the base's" in caplog.text
    result = record_of(cfg).read().result
    assert result is not None and metrics
    assert "is of the labels good, bad (task=table), the task's are fast, slow" in str(
        result["provenance"]["init_from"]
    )


@pytest.mark.parametrize(
    ("theirs", "ours", "draws"),
    [
        ("mnli", "rte", True), ("sst2", "mrpc", True), ("rte", "qnli", False), ("sst2", "movies", False),
        ("mrpc", "stsb", True), ("stsb", "stsb", False), ("stsb", "movies task.target=rating", True),
    ],
)  # fmt: skip
def test_a_sweep_knows_which_heads_are_drawn_anew(theirs: str, ours: str, draws: bool) -> None:
    runs = [
        resolve(compose_quickly(["model=tiny_bert", *f"task={task}".split(), "train.learning_rate=1e-3"])).run
        for task in (theirs, ours)
    ]
    assert draws_head(*runs) is draws
    names = [run.task.label_names for run in runs]
    assert names[0] != names[1] or names == [[], []] or not draws
