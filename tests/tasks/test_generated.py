"""The generated task, subsets and scores."""

from collections import Counter

import numpy as np
import pytest

from lora_repro.config.schema import load_group
from lora_repro.errors import InputError
from lora_repro.tasks import metrics
from lora_repro.tasks.base import Splits, TaskConfig, subset
from lora_repro.tasks.generated import NEGATIVE, NEUTRAL, POSITIVE, SIZES, GeneratedConfig
from lora_repro.tasks.targets import Classes, Example


@pytest.fixture
def config() -> TaskConfig:
    return load_group("task", "generated")


@pytest.fixture
def splits(config: TaskConfig) -> Splits:
    return config.load(None, "")


def test_examples_have_the_declared_digest_and_sizes(splits: Splits) -> None:
    assert {split: len(of) for split, of in splits.items()} == SIZES == {"train": 400, "eval": 100, "test": 100}


def test_a_label_is_the_set_in_the_majority(splits: Splits) -> None:
    for example in splits["train"] + splits["eval"] + splits["test"]:
        count = Counter((word in POSITIVE) - (word in NEGATIVE) for word in example.text.split())
        assert count[1] != count[-1]
        assert example.target == int(count[1] > count[-1])


def test_of_three_labels_the_third_is_a_tie() -> None:
    three = load_group("task", "generated_three").load(None, "")
    seen = Counter[int]()
    for example in three["train"] + three["eval"] + three["test"]:
        count = Counter((word in POSITIVE) - (word in NEGATIVE) for word in example.text.split())
        assert example.target == (2 if count[1] == count[-1] else int(count[1] > count[-1]))
        assert count[1] + count[-1] > 0
        seen[example.target] += 1
    assert sorted(seen) == [0, 1, 2] and min(seen.values()) > 150


def test_texts_are_4_to_24_short_words_and_none_occurs_twice(splits: Splits) -> None:
    texts = [example.text for of in splits.values() for example in of]
    assert len(set(texts)) == len(texts) == 600
    lengths = {len(text.split()) for text in texts}
    assert (min(lengths), max(lengths)) == (4, 24)
    assert {word for text in texts for word in text.split()} == {*POSITIVE, *NEGATIVE, *NEUTRAL}
    assert all(word.islower() and len(word) in (2, 3) for word in (*POSITIVE, *NEGATIVE, *NEUTRAL))


def test_both_labels_are_frequent_in_each_split(splits: Splits) -> None:
    assert {split: sum(e.target for e in of) for split, of in splits.items()} == {"train": 214, "eval": 63, "test": 50}


def test_another_digest_is_refused_with_both() -> None:
    with pytest.raises(InputError, match=r"task\.digest: the generated examples have sha256 29c8d4.*\(given: 00\)"):
        GeneratedConfig("generated", "00", num_labels=2).load(None, "")


def test_smaller_subsets_begin_larger_ones(splits: Splits) -> None:
    small = subset(splits, GeneratedConfig("generated", train_size=10, subset_seed=1))
    large = subset(splits, GeneratedConfig("generated", train_size=200, eval_size=1, subset_seed=1))
    assert small["train"] == large["train"][:10]
    assert (len(large["train"]), len(large["eval"]), len(large["test"])) == (200, 1, 100)


def test_null_is_the_size_of_the_split(splits: Splits) -> None:
    everything = subset(splits, GeneratedConfig("generated"))
    assert everything == subset(splits, GeneratedConfig("generated", train_size=400, eval_size=100, test_size=100))
    assert sorted(everything["train"]) == sorted(splits["train"])


def test_the_subset_seed_changes_the_subset(splits: Splits) -> None:
    zero, one = (subset(splits, GeneratedConfig("generated", train_size=20, subset_seed=n))["train"] for n in (0, 1))
    assert zero != one


def test_training_can_be_drawn_anew_while_dev_and_test_stay(splits: Splits) -> None:
    def drawn(seed: int, scored: int | None, n: int = 20) -> Splits:
        task = GeneratedConfig("generated", train_size=n, eval_size=30, test_size=40, subset_seed=seed)
        task.scored_subset_seed = scored
        return subset(splits, task)

    zero, one = drawn(0, 5), drawn(1, 5)
    assert (zero["eval"], zero["test"]) == (one["eval"], one["test"]) and zero["train"] != one["train"]
    assert not set(zero["train"]) <= set(one["train"]) and zero["train"] == drawn(0, 5, n=60)["train"][:20]
    assert drawn(1, None) == drawn(1, 1)  # without it dev and test are drawn with training
    assert drawn(0, None)["eval"] != drawn(1, None)["eval"]
    assert drawn(0, 5)["train"] == drawn(0, None)["train"]


def test_a_size_above_what_there_is_is_refused(splits: Splits) -> None:
    with pytest.raises(InputError, match=r"task\.eval_size: generated has 100 eval examples \(given: 101\)"):
        subset(splits, GeneratedConfig("generated", eval_size=101))


def test_scores_are_accuracy_and_majority_computed_by_hand() -> None:
    predictions, references = np.array([1, 0, 1, 1, 0]), [1, 1, 1, 0, 0]
    examples = [Example("", "", reference, "") for reference in references]
    assert Classes().evaluate(examples, predictions.tolist()) == {"accuracy": 0.6, "majority": 0.6}
    assert metrics.accuracy(predictions, predictions) == 1.0
    assert metrics.majority(np.array([2, 2, 2, 0])) == 0.75


def test_scores_of_nothing_or_of_unequal_lengths_are_refused() -> None:
    none, two = np.array([], dtype=int), np.array([0, 1])
    with pytest.raises(ValueError, match="accuracy: needs one prediction for each"):
        metrics.accuracy(none, none)
    for predictions, references in ((none, two), (two, none), (two[:1], two)):
        with pytest.raises((ValueError, TypeError)):  # TypeError where the shapes in the signature are checked
            metrics.accuracy(predictions, references)
    with pytest.raises(ValueError, match="majority: needs at least one"):
        metrics.majority(none)
