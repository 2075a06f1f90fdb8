"""A head that was trained before names its labels; they are put into the task's order."""

from pathlib import Path

import pytest
import torch
from helpers.fixture_types import Compose
from helpers.local_models import words_tokenizer, write

from lora_repro.config.resolve import resolve
from lora_repro.config.schema import load_group
from lora_repro.models import labels
from lora_repro.models.load import load_model
from lora_repro.tasks.encoding import encode
from lora_repro.training.job import run_job
from lora_repro.training.scoring import predict

CPU = torch.device("cpu")
NLI = ["entailment", "neutral", "contradiction"]


@pytest.mark.parametrize(
    ("found", "names", "expected"),
    [
        (["POSITIVE", "NEGATIVE"], ["negative", "positive"], [1, 0]),
        (["Neg", "pos"], ["negative", "positive"], [0, 1]),
        (["good", "bad"], ["negative", "positive"], [1, 0]),
        (["LABEL_0", "LABEL_1"], ["negative", "positive"], [0, 1]),
        (["LABEL_1", "LABEL_0"], ["negative", "positive"], [1, 0]),
        (["1", "0"], ["negative", "positive"], [1, 0]),
        (["CONTRADICTION", "NEUTRAL", "ENTAILMENT"], NLI, [2, 1, 0]),
        (["contradiction", "entailment", "neutral"], NLI, [1, 2, 0]),
        (["entailment", "neutral", "contradiction"], NLI, [0, 1, 2]),
        (["not_entailment", "entailment"], ["entailment", "not entailment"], [1, 0]),
        (["sad", "happy"], ["negative", "positive"], None),
        (["negative", "NEG"], ["negative", "positive"], None),
        (["LABEL_1", "LABEL_2"], ["negative", "positive"], None),
        (["negative", "LABEL_1"], ["negative", "positive"], None),
        (["positive", "negative"], [], None),
        (["0", "1"], ["1", "0"], [1, 0]),
        (["LABEL_0", "LABEL_1"], ["1", "0"], [0, 1]),
    ],
)
def test_labels_are_found_by_their_names(found: list[str], names: list[str], expected: list[int] | None) -> None:
    assert labels.order(found, names) == expected


@pytest.mark.parametrize(
    ("found", "names", "expected"),
    [
        (None, ["0", "1"], False),
        (["LABEL_0", "LABEL_1"], ["negative", "positive"], False),
        (["LABEL_0", "LABEL_1"], ["0", "1"], True),
        (["LABEL_0", "LABEL_1"], ["1", "0"], False),
        (["Pos", "neg"], ["negative", "positive"], True),
        (["sad", "happy"], ["negative", "positive"], False),
    ],
)
def test_labels_that_are_numbers_alone_name_none_of_the_tasks(
    found: list[str] | None, names: list[str], expected: bool
) -> None:
    assert labels.are_named(found, names) is expected


@pytest.mark.parametrize("given", [None, "text", ["a", "b"], {}, {"1": "a", "2": "b"}, {"x": "a"}])
def test_a_configuration_without_names_gives_none(given: object) -> None:
    assert labels.names_in(given) is None


def test_every_task_here_names_its_labels_as_it_counts_them() -> None:
    for name in ("movies", "amazon", "nyt", "tweets", "generated"):
        task = load_group("task", name)
        assert labels.order(task.label_names, ["negative", "positive"]) == [0, 1]
        assert labels.order([word.strip() for word in task.label_words], task.label_names) == [0, 1]


def logits(tiny: Compose, folder: Path) -> torch.Tensor:
    cfg = tiny("model=local", f"paths.model={folder}", "preset@train=tiny_llama", "train.dtype=fp32")
    run, settings = resolve(cfg)[:2]
    model = load_model(run, str(folder), "", CPU)
    return predict(model, encode(run, settings)["eval"], run.train.dtype, CPU)


@pytest.mark.parametrize("family", ["bert", "roberta", "llama"])
def test_a_trained_head_says_of_a_label_what_its_checkpoint_says(
    family: str, tiny: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sizes = {} if family == "llama" else {"max_position_embeddings": 80}
    named = {
        order: write(tmp_path / order, family, words_tokenizer(), {"id2label": dict(enumerate(order.split()))}, **sizes)
        for order in ("negative positive", "POSITIVE NEGATIVE", "LABEL_0 LABEL_1", "glad sorry")
    }
    plain = logits(tiny, named["LABEL_0 LABEL_1"])
    assert (plain[:, 0] - plain[:, 1]).std() > 0.1
    told = "They cannot be matched by name, so output 0 is taken as negative, output 1 is taken as positive."
    assert f"names the labels LABEL_0, LABEL_1 and the task negative, positive. {told}" in caplog.text
    caplog.clear()
    assert torch.equal(logits(tiny, named["negative positive"]), plain)
    assert torch.equal(logits(tiny, named["POSITIVE NEGATIVE"]), plain.flip(1))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert torch.equal(logits(tiny, named["glad sorry"]), plain)
    assert "names the labels glad, sorry and the task negative, positive. They cannot be matched by name" in caplog.text


def test_a_head_of_other_width_starts_anew_and_it_is_said(
    tiny: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(tmp_path / "m", "llama", words_tokenizer(), num_labels=3)
    run_job(tiny("model=local", f"paths.model={folder}", "preset@train=tiny_llama", "train.epochs=0"))
    assert "is not as wide as task generated needs (2 outputs), so a new one is drawn" in caplog.text
