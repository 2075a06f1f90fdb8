"""MNLI and RTE as written answers: the words of GLUE's tasks as texts."""

from pathlib import Path

import numpy as np
import pytest
from helpers.quick_compose import compose_quickly

from lora_repro.config.resolve import resolve
from lora_repro.config.schema import load_group
from lora_repro.errors import InputError, MissingInputError
from lora_repro.tasks.base import WHOLE_GROUPS
from lora_repro.tasks.cross_fitting import cross_fitted
from lora_repro.tasks.glue import GlueConfig
from lora_repro.tasks.targets import Example
from lora_repro.tasks.written import WrittenConfig

NAMES = ("rte_written", "mnli_written", "mnli_10k_written")


@pytest.mark.parametrize("name", NAMES)
def test_data_question_and_words_are_those_of_the_task_with_label_words(name: str) -> None:
    written = load_group("task", name)
    assert isinstance(written, WrittenConfig)
    glue = load_group("task", written.glue)
    assert isinstance(glue, GlueConfig)
    written.check()
    assert (written.digest, written.prompt) == (glue.digest, glue.prompt)
    assert [f" {word}" for word in written.words] == glue.label_words
    assert written.is_pair and written.scored == glue.scored and written.sizes() == glue.sizes()
    assert written.has_groups and written.changes == glue.changes == [WHOLE_GROUPS]
    assert written.head_width is None and [metric.name for metric in written.targets.metrics][-1] == "exact_match"


def test_the_word_of_the_class_is_to_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "index\tsentence1\tsentence2\tlabel\n0\tOne  two. \tOne.\tentailment\n1\tA.\tB.\tnot_entailment\n"
    for name in ("train", "dev"):
        (tmp_path / "RTE").mkdir(exist_ok=True)
        (tmp_path / "RTE" / f"{name}.tsv").write_text(rows)
    task = load_group("task", "rte_written")
    task._glue.rows, task._glue.checked = {"train": 2, "eval": 2}, []
    with pytest.raises(MissingInputError) as error:
        task.load(str(tmp_path), "none")
    task._glue.digest = str(error.value).split("sha256 ")[1].split(",")[0]
    splits = task.load(str(tmp_path), "none")
    assert [(example.input, example.target) for example in splits["eval"]] == [
        (("One two.", "One."), ["True"]), (("A.", "B."), ["False"]),
    ]  # fmt: skip
    assert task.targets.evaluate(splits["eval"], [" True", "false"])["exact_match"] == 0.5
    with pytest.raises(MissingInputError, match="fetch rte"):
        task.load(str(tmp_path / "no"), "none")


def test_halves_of_dev_are_those_of_the_task_with_label_words() -> None:
    """Answers as words score as the same answers as classes do: premises stay whole, and halves have like targets."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 2, 60).tolist()
    answers = {epoch: [c if rng.random() < 0.6 else 1 - c for c in classes] for epoch in range(5)}
    examples = [Example(str(i), ("a", "b"), c, f"premise {i // 2}") for i, c in enumerate(classes)]
    written, glue = load_group("task", "rte_written"), load_group("task", "rte")
    written.name = "rte"  # by which the halves are drawn
    as_words = [each._replace(target=[written.words[each.target]]) for each in examples]
    found = cross_fitted(written, as_words, {e: [written.words[c] for c in given] for e, given in answers.items()})
    assert found["exact_match"] == cross_fitted(glue, examples, answers)["accuracy"]


@pytest.mark.parametrize("words", [["yes"], ["yes", "yes"], ["yes", " yes "], ["yes", " "]])
def test_as_many_different_words_as_classes_are_needed(words: list[str]) -> None:
    task = load_group("task", "rte_written")
    task.words = words
    with pytest.raises(InputError, match=r"task\.words: 2 different words are needed, .* entailment, not_entailment"):
        task.check()


def test_an_encoder_writes_nothing() -> None:
    with pytest.raises(InputError, match="writes no text"):
        resolve(compose_quickly(["model=tiny_bert", "task=rte_written"]))
