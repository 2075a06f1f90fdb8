"""What is said about examples before training starts: sizes, classes, repeated texts, and lengths. No torch."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lora_repro.tasks.base import Splits
from lora_repro.tasks.targets import Example, split_name

MOST_CLASSES = 20
"""So many classes are counted one by one."""


def of_examples(splits: Splits, labels: Sequence[str]) -> list[str]:
    """Says how large the splits are, how their targets are spread, and which texts occur several times.

    Args:
        splits: The examples that a run uses.
        labels: The names of the classes; empty where targets are scores.
    """
    sizes = ", ".join(f"{split_name(split)} {len(examples):,}" for split, examples in splits.items())
    found = [f"Examples: {sizes}."]
    for split, examples in splits.items():
        found.append(f"{split_name(split)}: {_spread(examples, labels)}.")
    return [*found, *_rare(splits, labels), *_repeated(splits)]


def of_texts(splits: Splits) -> list[str]:
    """Says how large the splits are, how many references their examples have, and how many inputs repeat.

    Args:
        splits: The examples that a run uses, whose targets are lists of texts.
    """
    sizes = ", ".join(f"{split_name(split)} {len(examples):,}" for split, examples in splits.items())
    found = [f"Examples: {sizes}."]
    for split, examples in splits.items():
        counts = [len(example.target) for example in examples]
        if max(counts) > 1:
            found.append(f"{split_name(split)}: {sum(counts):,} references, {min(counts)} to {max(counts)} an example.")
    inputs = {split: [example.input for example in examples] for split, examples in splits.items()}
    for split, texts in inputs.items():
        if (different := len(set(texts))) < len(texts):
            pairs = {(example.input, *example.target) for example in splits[split]}
            same = f"; {again:,} occur again word for word" if (again := len(texts) - len(pairs)) else ""
            found.append(f"{split_name(split)}: {different:,} different inputs for {len(texts):,} examples{same}.")
    names = list(inputs)
    for number, split in enumerate(names):
        for other in names[:number]:
            theirs = set(inputs[other])
            if shared := sum(text in theirs for text in set(inputs[split])):
                found.append(
                    f"{split_name(split)}: {shared:,} of the inputs are in {split_name(other)} too, so not new."
                )
    return found


def _rare(splits: Splits, labels: Sequence[str]) -> list[str]:
    """Names classes of which a split has no example, or training a single one: a stray value may have become one."""
    counts = {split: Counter(example.target for example in examples) for split, examples in splits.items()}
    found = []
    for split, of_split in counts.items():
        fewest = 1 if split == "train" else 0
        rare = [name for number, name in enumerate(labels) if of_split[number] <= fewest]
        if rare:
            what = "no or one example" if fewest else "no example"
            more = f" and {len(rare) - MOST_CLASSES} more" if len(rare) > MOST_CLASSES else ""
            found.append(
                f"{split_name(split)} has {what} of {', '.join(rare[:MOST_CLASSES])}{more}. Are these labels meant?"
            )
    return found


def _spread(examples: Sequence[Example], labels: Sequence[str]) -> str:
    if not labels:
        scores = sorted(example.target for example in examples)
        mean = sum(scores) / len(scores)
        return f"scores from {scores[0]:g} to {scores[-1]:g}, mean {mean:.3g}, median {statistics.median(scores):g}"
    counts = Counter(example.target for example in examples)
    listed = [f"{labels[i]}: {count:,} ({100 * count / len(examples):.1f} %)" for i, count in sorted(counts.items())]
    if len(listed) <= MOST_CLASSES:
        return ", ".join(listed)
    return f"{len(counts)} classes, from {min(counts.values()):,} to {max(counts.values()):,} examples each"


def _repeated(splits: Splits) -> list[str]:
    """Says how many texts occur again, within a split and in another one, and how many of them with another target."""
    found: list[str] = []
    seen: dict[str, dict[Any, Any]] = {}
    for split, examples in splits.items():
        targets: dict[Any, Any] = {}
        again = noisy = 0
        for example in examples:
            if example.input in targets:
                again += 1
                noisy += targets[example.input] != example.target
            else:
                targets[example.input] = example.target
        name = split_name(split)
        if again:
            found.append(
                f"{name}: {again:,} examples repeat the text of an earlier one, {noisy:,} with another target."
            )
        for other, theirs in seen.items():
            both = [(text, target) for text, target in targets.items() if text in theirs]
            if both:
                differ = sum(theirs[text] != target for text, target in both)
                texts = "1 text" if len(both) == 1 else f"{len(both):,} texts"
                found.append(
                    f"{name} and {split_name(other)} share {texts}, {differ:,} with another "
                    f"target: not all texts of {name} are new."
                )
        seen[split] = targets
    return found


def of_lengths(lengths: Mapping[str, Sequence[int]], cut: Mapping[str, int], longest: int, max_length: int) -> str:
    """Says how long the inputs are in tokens.

    Args:
        lengths: Tokens of each input of each split, as the model sees it.
        cut: How many of a split were cut.
        longest: Tokens of the longest input before it was cut.
        max_length: train.max_length.
    """
    every = sorted(length for of in lengths.values() for length in of)
    many = sum(cut.values())
    where = ", ".join(f"{split_name(split)} {n:,}" for split, n in cut.items() if n)
    cuts = (
        f"{many:,} {'is' if many == 1 else 'are'} cut to train.max_length={max_length} ({where})"
        if many
        else "none is cut"
    )
    return f"Lengths in tokens: median {statistics.median(every):,g}, longest {longest:,}; {cuts}."
