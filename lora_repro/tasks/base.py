"""What all tasks share: configuration, examples, splits and their subsets. No torch."""

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from omegaconf import MISSING

from lora_repro import draw
from lora_repro.errors import InputError
from lora_repro.tasks import metrics


class Example(NamedTuple):
    """One labelled text. `document` groups examples that come from one source (the unit that splits respect)."""

    id: str
    text: str
    label: int
    document: str


class Form(str, Enum):
    """How a classification is put to the model."""

    label = "label"
    """A classification head on the model."""
    text = "text"
    """A prompt that a language model goes on with; the label is the likeliest of `label_words`."""


Splits = dict[str, list[Example]]
"""The keys are train, eval (the dev split) and test."""


@dataclass
class TaskConfig:
    """What a task is. Families add how it is read."""

    name: str = MISSING
    digest: str = MISSING
    """sha256 of the data this task is made from, checked when it is read."""
    num_labels: int = MISSING
    train_size: int | None = None
    """Number of training examples (null: all), drawn by subset_seed; smaller subsets lie inside larger ones."""
    eval_size: int | None = None
    test_size: int | None = None
    subset_seed: int = 0
    form: Form = Form.label
    prompt: str = "{text}"
    """What form=text asks; {text} stands for the example. Too long a text is cut, never the words around it."""
    label_words: list[str] = field(default_factory=list)
    """What form=text expects after the prompt, label by label, with the space in front."""
    permute_labels: bool = False
    """Train on labels permuted by the run's seed: what such runs share is not the task. Dev and test keep theirs."""

    @property
    def head_width(self) -> int | None:
        """Width of the classification head; None where a language model answers in words."""
        return None if self.form is Form.text else self.num_labels

    @property
    def label_names(self) -> list[str]:
        """What the labels are called, in order: a head that was trained before may count them otherwise."""
        return [word.strip() for word in self.label_words]

    def load(self, data: str | None, cache: str) -> Splits:
        """Reads all examples of the three splits.

        Args:
            data: A file or folder of the user's (paths.data), or None.
            cache: The folder that lora_repro.fetch fills (paths.cache).

        Raises:
            MissingInputError: If the data is missing or damaged.
        """
        raise NotImplementedError

    def check(self) -> None:
        """Refuses impossible values without reading anything.

        Raises:
            InputError: If a size or the subset seed is out of range.
        """
        for key in ("train_size", "eval_size", "test_size"):
            size = getattr(self, key)
            if size is not None and size < 1:
                raise InputError(f"task.{key}: must be at least 1, or null for all (given: {size}).")
        if self.subset_seed < 0:
            raise InputError(f"task.subset_seed: must be 0 or more (given: {self.subset_seed}).")
        for split, there in (self.sizes() or {}).items():
            self.refuse_size_above(split, there)
        if self.form is Form.text:
            if self.prompt.count("{text}") != 1:
                raise InputError(
                    f"task.prompt: must hold {{text}} once, where the example stands (given: {self.prompt!r})."
                )
            words = self.label_words
            if len(words) != self.num_labels or len(set(words)) != len(words) or not all(map(str.strip, words)):
                raise InputError(
                    f"task.label_words: {self.num_labels} different words are needed, one a label (given: {words}).\n"
                    'Example: \'task.label_words=[" negative"," positive"]\''
                )

    def refuse_size_above(self, split: str, there: int) -> None:
        """Refuses a subset of a split that is larger than the split.

        Raises:
            InputError: Naming what there is.
        """
        size = getattr(self, f"{split}_size")
        if size is not None and size > there:
            raise InputError(
                f"task.{split}_size: {self.name} has {there} {split} examples (given: {size}).\n"
                f"Give at most task.{split}_size={there}, or null for all."
            )

    def sizes(self) -> dict[str, int] | None:
        """Returns the number of examples of each split where it is known without reading the data."""
        return None

    def score(
        self, predictions: Int[np.ndarray, " examples"], references: Int[np.ndarray, " examples"]
    ) -> dict[str, float]:
        """Scores the predicted labels of one split: `accuracy`, and beside it the `majority` baseline."""
        return {
            "accuracy": metrics.accuracy(predictions, references),
            "majority": metrics.majority(references),
        }


def subset(splits: Splits, config: TaskConfig) -> Splits:
    """Draws train_size, eval_size and test_size examples of the three splits.

    Each split has one permutation, of which a size takes the first examples: a smaller subset is the beginning of a
    larger one, and null is the same as the size of the whole split.

    Raises:
        InputError: If a size is above what there is.
    """
    drawn = {}
    for split, examples in splits.items():
        config.refuse_size_above(split, len(examples))
        size = getattr(config, f"{split}_size")
        order = draw.generator("subset", config.subset_seed, split).permutation(len(examples))
        drawn[split] = [examples[i] for i in order[:size]]
    return drawn


def permuted(examples: list[Example], seed: int) -> list[Example]:
    """Permutes the labels among the examples, which stay where they are; each label stays as frequent as it was."""
    order = draw.generator("permute", seed).permutation(len(examples))
    return [example._replace(label=examples[i].label) for example, i in zip(examples, order, strict=True)]
