"""Rows that are divided by a seed."""

import random
from collections import Counter

import pytest

from lora_repro.tasks.own_data.shares import divide

SHARES = {"train": 0.8, "eval": 0.1, "test": 0.1}


def counts(classes: list[int], documents: list[str] | None = None, shares: dict[str, float] = SHARES, seed: int = 0):
    rows = divide(classes, documents or [str(i) for i in range(len(classes))], shares, seed)
    assert sorted(i for of in rows.values() for i in of) == list(range(len(classes)))
    return {split: dict(Counter(classes[i] for i in of)) for split, of in rows.items()}


def test_each_class_is_divided_alike() -> None:
    assert counts([0] * 100 + [1] * 50) == {
        "train": {0: 80, 1: 40},
        "eval": {0: 10, 1: 5},
        "test": {0: 10, 1: 5},
    }


def test_many_small_classes_do_not_all_round_the_same_way() -> None:
    found = counts([i % 100 for i in range(500)])
    assert {split: sum(of.values()) for split, of in found.items()} == {"train": 400, "eval": 50, "test": 50}
    assert len(found["train"]) == 100


def test_a_class_of_one_row_is_trained_on_in_any_shares() -> None:
    for shares in (SHARES, {"train": 0.1, "eval": 0.45, "test": 0.45}):
        found = counts([0] * 20 + [1], shares=shares)
        assert found["train"][1] == 1


def test_groups_stay_whole_and_classes_balanced() -> None:
    random.seed(0)
    users = [str(random.randrange(50)) for _ in range(1000)]
    classes = [int(random.random() < 0.3) for _ in users]
    rows = divide(classes, users, SHARES, 1)
    groups = [{users[i] for i in of} for of in rows.values()]
    assert sum(map(len, groups)) == len(set(users))
    shares = [sum(classes[i] for i in of) / len(of) for of in rows.values()]
    assert max(shares) - min(shares) < 0.02
    assert [len(rows[split]) for split in SHARES] == pytest.approx([800, 100, 100], abs=10)


def test_one_group_larger_than_the_others_together_stays_whole() -> None:
    rows = divide([0, 1] * 10, ["big"] * 16 + ["a", "a", "b", "b"], SHARES, 0)
    assert rows == {"train": list(range(16)), "eval": rows["eval"], "test": rows["test"]}
    assert {len(rows["eval"]), len(rows["test"])} == {2}


def test_scores_are_divided_without_classes() -> None:
    rows = divide(None, [str(i) for i in range(10)], SHARES, 0)
    assert {split: len(of) for split, of in rows.items()} == {"train": 8, "eval": 1, "test": 1}


def test_another_seed_divides_otherwise_and_the_same_seed_does_not() -> None:
    classes, documents = [0, 1] * 50, [str(i) for i in range(100)]
    first, again, other = (divide(classes, documents, SHARES, seed) for seed in (0, 0, 1))
    assert first == again != other


def test_the_division_is_the_same_on_every_machine() -> None:
    rows = divide([0, 1] * 10, [f"d{i}" for i in range(20)], SHARES, 0)
    assert (rows["eval"], rows["test"]) == ([9, 14], [0, 3])
