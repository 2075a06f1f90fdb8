"""Small generated tasks for tests and scale=smoke: which of two sets of words is in the majority? Not in the paper.

One example: input "sad up joy is ace ace ugh", label 1 (four words of the positive set, two of the negative). With
three labels there are texts with as many words of each, "joy the sad": label 2.
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lora_repro import draw
from lora_repro.errors import InputError
from lora_repro.tasks.base import Splits, TaskConfig
from lora_repro.tasks.classes import ClassConfig
from lora_repro.tasks.targets import Example

POSITIVE = ("joy", "fun", "win", "yes", "ace", "top", "hug", "up")
NEGATIVE = ("sad", "bad", "ill", "no", "woe", "mad", "cry", "ugh")
NEUTRAL = ("the", "an", "of", "it", "and", "to", "is", "was", "at", "day", "car", "box", "in", "we", "she", "out")
SIZES = {"train": 400, "eval": 100, "test": 100}
MIN_WORDS, MAX_WORDS = 4, 24
NEITHER = 2
"""The label of a text with as many words of one set as of the other, where there are three."""


@dataclass
class GeneratedConfig(ClassConfig):
    """The examples are the same on all machines; only subsets and form can be chosen."""

    prompt: str = "words: {text} so"
    label_words: list[str] = field(default_factory=lambda: [" bad", " good"])

    @property
    def label_names(self) -> list[str]:
        """Negative is label 0, positive label 1, and of three labels neither is 2."""
        return ["negative", "positive", "neither"][: self.num_labels]

    def sizes(self) -> dict[str, int] | None:
        """Returns the numbers of examples that are drawn."""
        return SIZES

    def load(self, data: str | None, cache: str) -> Splits:
        """Draws all examples; no text occurs twice.

        Args:
            data: Not used, as nothing is read.
            cache: Not used.

        Raises:
            InputError: If the examples are not those that `digest` declares.
        """
        seen: set[str] = set()
        splits = {split: _examples(self.name, split, size, seen, self.num_labels) for split, size in SIZES.items()}
        refuse_other_digest(self, splits)
        return splits


def refuse_other_digest(task: TaskConfig, content: Any) -> None:
    """Refuses what was generated here and is not what the task declares.

    Args:
        task: The task.
        content: Its splits, and what else its scores depend on.

    Raises:
        InputError: With the digest of what was found.
    """
    found = digest(content)
    if found != task.digest:
        raise InputError(
            f"task.digest: the generated examples have sha256 {found} (given: {task.digest}).\n"
            f"Set task.digest to the value in conf/task/{task.name}.yaml; if it is, numpy {np.__version__} draws "
            f"other numbers: install the version that pyproject.toml names."
        )


def digest(content: Any) -> str:
    """Returns the sha256 over all that was generated, as JSON with sorted splits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _examples(name: str, split: str, size: int, seen: set[str], num_labels: int) -> list[Example]:
    rng = draw.generator(name, split)

    def integer(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    examples = []
    while len(examples) < size:
        label = integer(0, num_labels - 1)
        num_words = integer(MIN_WORDS, MAX_WORDS)
        num_marked = integer(1, num_words)
        if label == NEITHER:
            num_marked = 2 * max(1, num_marked // 2)
            num_minor = num_marked // 2
        else:
            num_minor = integer(0, (num_marked - 1) // 2)  # less than half: never a tie
        major, minor = (POSITIVE, NEGATIVE) if label else (NEGATIVE, POSITIVE)
        sets = [major] * (num_marked - num_minor) + [minor] * num_minor + [NEUTRAL] * (num_words - num_marked)
        order = sorted(range(num_words), key=[integer(0, 2**31) for _ in sets].__getitem__)
        text = " ".join(sets[i][integer(0, len(sets[i]) - 1)] for i in order)
        if text not in seen:
            seen.add(text)
            identity = f"{split}-{len(examples)}"
            examples.append(Example(identity, text, label, identity))
    return examples
