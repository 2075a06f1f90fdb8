from itertools import pairwise

import numpy as np
import pytest

from lora_repro.tasks.batches import (
    LENGTH_STEP,
    TOKENS_AT_ONCE,
    WRITTEN_AT_ONCE,
    batches,
    padded_length,
    scoring_batches,
)

LENGTHS = np.random.default_rng(0).integers(5, 90, size=203).tolist()


def test_every_example_comes_once() -> None:
    assert sorted(i for batch in batches(LENGTHS, 16, seed=0, epoch=0) for i in batch) == list(range(len(LENGTHS)))


def test_the_order_is_pure_and_differs_by_seed_and_epoch() -> None:
    first = batches(LENGTHS, 16, seed=0, epoch=0)
    assert first == batches(LENGTHS, 16, seed=0, epoch=0)
    assert first != batches(LENGTHS, 16, seed=1, epoch=0)
    assert first != batches(LENGTHS, 16, seed=0, epoch=1)


def test_one_batch_at_most_is_not_full_and_it_holds_other_lengths_each_epoch() -> None:
    short = []
    for epoch in range(20):
        grouped = batches(LENGTHS, 16, 0, epoch)
        assert sorted(map(len, grouped))[:2] == [203 % 16, 16]
        short.append(max(LENGTHS[i] for i in min(grouped, key=len)))
    assert min(short) < 30 and max(short) > 60
    assert sorted(map(len, batches(LENGTHS[:32], 16, 0, 0))) == [16, 16]
    assert batches([5], 16, 0, 0) == [[0]]


def test_batches_are_of_like_length_in_random_order() -> None:
    grouped = batches(LENGTHS, 16, 0, 0)
    longest = [padded_length(max(LENGTHS[i] for i in batch)) for batch in grouped]
    padding = sum(top * len(batch) for top, batch in zip(longest, grouped, strict=True)) / sum(LENGTHS)
    assert padding < 1.15  # in random batches it is 1.8
    assert longest != sorted(longest)


def test_examples_of_one_length_meet_anew_in_each_epoch() -> None:
    partners = [
        {frozenset(pair) for batch in batches([7] * 64, 8, 0, epoch) for pair in pairwise(batch)} for epoch in (0, 1)
    ]
    assert len(partners[0] & partners[1]) < 10


@pytest.mark.parametrize(("length", "padded"), [(1, LENGTH_STEP), (LENGTH_STEP, LENGTH_STEP), (9, 12)])
def test_lengths_are_rounded_up(length: int, padded: int) -> None:
    assert padded_length(length) == padded


@pytest.mark.parametrize("reserved", [0, 3])
def test_every_example_is_scored_once_in_batches_of_like_length_that_hold_few_tokens(reserved: int) -> None:
    lengths = [*LENGTHS, *LENGTHS, 3000]
    grouped = scoring_batches(lengths, True, reserved)
    assert sorted(position for batch in grouped for position in batch) == list(range(len(lengths)))
    assert [lengths[position] for batch in grouped for position in batch] == sorted(lengths)
    assert grouped[-1] == [len(lengths) - 1]  # longer than a batch may be, so alone
    sizes = [(padded_length(max(lengths[i] for i in batch)) + reserved) * len(batch) for batch in grouped[:-1]]
    assert max(sizes) <= TOKENS_AT_ONCE and sum(sizes) / len(sizes) > 0.8 * TOKENS_AT_ONCE


def test_short_texts_are_scored_in_larger_batches_but_where_the_vocabulary_is_multiplied_out() -> None:
    assert len(scoring_batches([8] * 256, on_cpu=True)) == 1
    assert [len(batch) for batch in scoring_batches([8] * 256, on_cpu=True, reserved=1)] == [WRITTEN_AT_ONCE] * 4
    assert len(scoring_batches([8] * 1000, on_cpu=False)) == 1
