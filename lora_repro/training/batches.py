"""Divides examples into batches: a pure function, so that all methods, ranks and dtypes see the same batches."""

from collections.abc import Sequence

import numpy as np

from lora_repro import draw

SCORED_AT_ONCE = 64
"""Examples in a batch that is not trained on."""
LENGTH_STEP = 4
"""Batches are padded to a multiple of this many tokens, so that few shapes occur."""


def batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Groups all examples into batches of like length and puts the batches in random order.

    Within a length (rounded up to LENGTH_STEP) the examples are shuffled again in each epoch. All batches but one are
    full; which lengths meet in the short one is drawn, so that no examples weigh more in every epoch.

    Args:
        lengths: Tokens of each example.
        batch_size: Examples in a batch.
        seed: The run's seed.
        epoch: Counts from 0.

    Returns:
        Positions into `lengths`, each exactly once.
    """
    random = draw.generator("batches", seed, epoch)
    shuffled = random.permutation(len(lengths))
    padded = np.array([padded_length(length) for length in lengths])
    by_length = shuffled[np.argsort(padded[shuffled], kind="stable")]
    full, rest = divmod(len(lengths), batch_size)
    sizes = [batch_size] * full
    if rest:
        sizes.insert(random.integers(full + 1), rest)
    groups = [group.tolist() for group in np.split(by_length, np.cumsum(sizes)[:-1])]
    return [groups[position] for position in random.permutation(len(groups))]


def scoring_batches(lengths: Sequence[int]) -> list[list[int]]:
    """Groups all examples into batches of like length, the shortest first: for passes that train nothing.

    Returns:
        Positions into `lengths`, each exactly once, SCORED_AT_ONCE in a batch.
    """
    order = np.argsort(np.asarray(lengths), kind="stable").tolist()
    return [order[start : start + SCORED_AT_ONCE] for start in range(0, len(order), SCORED_AT_ONCE)]


def padded_length(length: int) -> int:
    """Rounds a length up to a multiple of LENGTH_STEP."""
    return -(-length // LENGTH_STEP) * LENGTH_STEP
