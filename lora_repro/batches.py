"""Which examples make a batch, in which order: a pure function, the same for every method, rank and dtype."""

from collections.abc import Sequence

import numpy as np

from lora_repro import draw

LENGTH_STEP = 4
"""Batches are padded to a multiple of this many tokens, so that few shapes occur."""


def batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Groups all examples into batches of like length and puts the batches in random order.

    Within a length (rounded up to LENGTH_STEP) the examples are shuffled anew in each epoch; all batches but one of the
    longest are full.

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
    groups = [by_length[start : start + batch_size].tolist() for start in range(0, len(lengths), batch_size)]
    return [groups[position] for position in random.permutation(len(groups))]


def padded_length(length: int) -> int:
    """Rounds a length up to a multiple of LENGTH_STEP."""
    return -(-length // LENGTH_STEP) * LENGTH_STEP
