"""Divides examples into batches: a pure function, so that all methods, ranks and dtypes see the same batches."""

from collections.abc import Sequence

import numpy as np

from lora_repro import draw

TOKENS_AT_ONCE = 2048
"""Tokens, with padding, in a batch that is not trained on, on a CPU: it is slower with half or twice as many."""
TOKENS_AT_ONCE_ON_GPU = 8192
"""The same on any other device: 64 texts of 128 tokens."""
WRITTEN_AT_ONCE = 64
"""Texts in such a batch of a language model, which holds a number for each token of its vocabulary behind each."""
LENGTH_STEP = 4
"""Batches are padded to a multiple of this many tokens, so that few shapes occur."""


def batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int, alike: bool = True) -> list[list[int]]:
    """Groups all examples into batches of like length and puts the batches in random order.

    Within a length (rounded up to LENGTH_STEP) the examples are shuffled again in each epoch. All batches but one are
    full; which lengths meet in the short one is drawn, so that no examples weigh more in every epoch.

    Args:
        lengths: Tokens of each example.
        batch_size: Examples in a batch.
        seed: The run's seed.
        epoch: Counts from 0.
        alike: Whether those of a batch are of like length; False draws them at random.

    Returns:
        Positions into `lengths`, each exactly once.
    """
    random = draw.generator("batches", seed, epoch)
    shuffled = random.permutation(len(lengths))
    if alike:
        padded = np.array([padded_length(length) for length in lengths])
        shuffled = shuffled[np.argsort(padded[shuffled], kind="stable")]
    full, rest = divmod(len(lengths), batch_size)
    sizes = [batch_size] * full
    if rest:
        sizes.insert(random.integers(full + 1), rest)
    groups = [group.tolist() for group in np.split(shuffled, np.cumsum(sizes)[:-1])]
    return [groups[position] for position in random.permutation(len(groups))]


def scoring_batches(lengths: Sequence[int], on_cpu: bool, reserved: int = 0, texts_at_once: int = 1) -> list[list[int]]:
    """Groups all examples into batches of like length, the shortest first: for passes that train nothing.

    Args:
        lengths: Tokens of each example.
        on_cpu: They are computed on a CPU.
        reserved: Tokens that a language model writes behind each.
        texts_at_once: How many texts it writes at once behind each, as beams.

    Returns:
        Positions into `lengths`, each exactly once; a batch has TOKENS_AT_ONCE at most, or is a single example.
    """
    tokens = TOKENS_AT_ONCE if on_cpu else TOKENS_AT_ONCE_ON_GPU
    groups: list[list[int]] = []
    for position in np.argsort(np.asarray(lengths), kind="stable").tolist():
        width = padded_length(lengths[position]) + reserved
        at_once = tokens // width if not reserved else min(tokens // width, WRITTEN_AT_ONCE // texts_at_once)
        if not groups or len(groups[-1]) >= at_once:
            groups.append([])
        groups[-1].append(position)
    return groups


def padded_length(length: int) -> int:
    """Rounds a length up to a multiple of LENGTH_STEP."""
    return -(-length // LENGTH_STEP) * LENGTH_STEP
