"""What all tasks share: configuration, splits and their subsets. No torch."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import MISSING

from lora_repro import draw
from lora_repro.errors import InputError, MissingInputError
from lora_repro.models.labels import order_by_name
from lora_repro.tasks.sources import Data, DataFile, find
from lora_repro.tasks.targets import Example, Targets

if TYPE_CHECKING:
    from lora_repro.tasks.objectives.base import Objective

Splits = dict[str, list[Example]]
"""The keys are train, eval (the dev split) and, where the task has them, test and others that are scored."""


_fetching: ContextVar[bool] = ContextVar("fetching", default=False)


@contextmanager
def fetching() -> Iterator[None]:
    """Lets tasks that are read while a configuration is composed read nothing, as it is yet to be fetched."""
    before = _fetching.set(True)
    try:
        yield
    finally:
        _fetching.reset(before)


def is_fetching() -> bool:
    """Tells whether `fetching` is in force."""
    return _fetching.get()


WHOLE_GROUPS = "halves of dev hold whole groups"
"""A change of the code, for `TaskConfig.changes`."""


@dataclass
class TaskConfig:
    """What a task is. A family adds what its targets are, what the model is asked, and how the examples are read."""

    fixed: ClassVar[tuple[str, ...]] = ("digest",)
    """Fields that belong to the choice of the task, and cannot be overridden."""

    name: str = MISSING
    digest: str = MISSING
    """sha256 of the data this task is made from, checked when it is read."""
    train_size: int | None = None
    """Number of training examples (null: all), drawn by subset_seed; smaller subsets lie inside larger ones."""
    eval_size: int | None = None
    test_size: int | None = None
    subset_seed: int = 0
    scored_subset_seed: int | None = None
    """Draws eval_size and test_size in place of subset_seed (null: as it does). Runs on several draws of the training
    examples that share it are scored on the same dev and test."""
    permute_labels: bool = False
    """Train on targets permuted by the run's seed, so that there is nothing to learn. Dev and test keep theirs."""

    @property
    def targets(self) -> Targets:
        """What the targets are, with the metrics by which predictions of them are scored."""
        raise NotImplementedError

    @property
    def objective(self) -> "type[Objective]":
        """What the model is asked. Imported when it is needed, as it needs torch."""
        raise NotImplementedError

    @property
    def head_width(self) -> int | None:
        """Width of the head that the objective needs; None where a language model answers in words."""
        raise NotImplementedError

    @property
    def idle(self) -> tuple[str, ...]:
        """Fields that change no number with the other values as they are, and so stay out of the run's id."""
        return ()

    @property
    def changes(self) -> list[str]:
        """Names the changes of the code that change the numbers of this task's runs alone, for `Run.changes`.

        Without test, dev is halved.
        """
        return [WHOLE_GROUPS] if self.has_groups and "test" not in self.scored else []

    @property
    def is_pair(self) -> bool:
        """Tells whether each input is a pair of sentences: prompts then have a place for each."""
        return False

    @property
    def scored(self) -> tuple[str, ...]:
        """The splits that are scored after each epoch: eval, which is dev, first."""
        return ("eval", "test")

    def has_answers_at(self, epoch: int, epochs: int) -> bool:
        """Tells whether the scored splits are answered after an epoch, and not the loss alone computed.

        Args:
            epoch: Counted from 1; 0 where nothing is trained.
            epochs: The last.
        """
        return True

    @property
    def has_groups(self) -> bool:
        """Tells whether examples with one `document` are never divided, also not where dev is halved."""
        return False

    def order_of(self, target: Any) -> float:
        """Returns the number by which halves of dev have like targets: the class or the score, and 0 of any text."""
        return float(target) if isinstance(target, int | float) else 0.0

    @property
    def has_overall(self) -> bool:
        """Tells whether the scored splits are parts of one set, whose metrics are recorded as `overall` too."""
        return False

    @property
    def unchecked(self) -> tuple[str, ...]:
        """The splits whose examples the digest does not cover: the record holds a sha256 of what was read of them."""
        return ()

    def sha256_of(self, splits: Splits, split: str) -> str:
        """Returns the digest of what was read of a split, by which records tell copies apart."""
        return digest(splits, [split])

    @property
    def all_splits(self) -> tuple[str, ...]:
        """All splits, as they are read, recorded and printed."""
        return ("train", *self.scored)

    @property
    def takes_demonstrations(self) -> bool:
        """Tells whether a language model can be asked after solved examples, and answers with one of a few words."""
        return False

    @property
    def writes_texts(self) -> bool:
        """Tells whether a language model is trained to write texts."""
        return False

    @property
    def label_names(self) -> list[str]:
        """What the outputs of a head with classes are called, in order; empty where nothing is known of them."""
        return []

    @property
    def sources(self) -> list[DataFile]:
        """The files that the task is read from; none where the examples are generated."""
        return []

    def find(self, source: DataFile, data: str | None, cache: str) -> Data:
        """Returns the verified content of one of the sources.

        Args:
            source: Which.
            data: A file or folder of the user's (paths.data), or None.
            cache: The folder that lora_repro.fetch fills (paths.cache).

        Raises:
            MissingInputError: If the file is missing or damaged.
        """
        return find(source, self.sources, self.name, data, cache)

    def fetch(self, cache: str) -> str:
        """Makes sure that what the task is read from is in the cache, and says where it is.

        Raises:
            MissingInputError: If it is missing or damaged and cannot be fetched.
        """
        from lora_repro.fetch.fetch import fetch_data

        if not self.sources:
            return "generated, nothing to fetch"
        try:
            found = [self.find(source, None, cache).path for source in self.sources]
            return f"present ({', '.join(map(str, found))})"
        except MissingInputError:
            return f"fetched ({', '.join(str(fetch_data(source, cache)) for source in self.sources)})"

    def load(self, data: str | None, cache: str) -> Splits:
        """Reads all examples of the splits.

        Args:
            data: A file or folder of the user's (paths.data), or None.
            cache: The folder that lora_repro.fetch fills (paths.cache).

        Raises:
            MissingInputError: If the data is missing or damaged.
        """
        raise NotImplementedError

    def identify(self, data: str | None, cache: str) -> None:
        """Reads what the data itself decides, as its digest, where conf/task cannot say it: nothing by default.

        Args:
            data: A file or folder of the user's (paths.data), or None.
            cache: The folder that lora_repro.fetch fills (paths.cache).

        Raises:
            MissingInputError: If the data is missing.
            InputError: If no task can be made of it.
        """

    def notices(self, splits: Splits) -> list[str]:
        """Returns what is said about a run's examples before training starts: nothing where the data is well known."""
        return []

    def check(self) -> None:
        """Refuses impossible values without reading anything.

        Raises:
            InputError: If a size or a subset seed is out of range.
        """
        for key in ("train_size", "eval_size", "test_size"):
            size = getattr(self, key)
            if size is not None and size < 1:
                raise InputError(f"task.{key}: must be at least 1, or null for all (given: {size}).")
        for key in ("subset_seed", "scored_subset_seed"):
            seed = getattr(self, key)
            if seed is not None and seed < 0:
                raise InputError(f"task.{key}: must be 0 or more (given: {seed}).")
        for split, size in (self.sizes() or {}).items():
            self.refuse_size_above(split, size)

    def refuse_size_above(self, split: str, available: int) -> None:
        """Refuses a subset of a split that is larger than the split.

        Raises:
            InputError: Naming how many examples there are.
        """
        size = self.size_of(split)
        if size is not None and size > available:
            key = f"task.{self.size_key(split)}"
            raise InputError(
                f"{key}: {self.name} has {available} {split} examples (given: {size}).\n"
                f"Give at most {key}={available}, or null for all."
            )

    def size_key(self, split: str) -> str:
        """Returns the field that says how many examples of a split are drawn: splits beside dev and test follow dev."""
        return f"{split if split in ('train', 'test') else 'eval'}_size"

    def size_of(self, split: str) -> int | None:
        """Returns how many examples of a split are drawn; None: all."""
        size: int | None = getattr(self, self.size_key(split))
        return size

    def sizes(self) -> dict[str, int] | None:
        """Returns the number of examples of each split where it is known without reading the data."""
        return None

    def known_sizes(self) -> dict[str, int]:
        """Returns how many examples of each split a run uses, as far as it is known without reading the data."""
        given = {split: self.size_of(split) for split in self.all_splits}
        return (self.sizes() or {}) | {split: size for split, size in given.items() if size is not None}


def digest(splits: Splits, names: Sequence[str]) -> str:
    """Returns the sha256 over inputs and targets of some splits, in their order and as they stand."""
    found = hashlib.sha256()
    for split in names:
        for example in splits[split]:
            found.update(json.dumps([split, *example.texts, example.target]).encode() + b"\n")
    return found.hexdigest()


PLACES = re.compile(r"\{(text|first|second)\}")
"""Where a prompt holds a single text, or the two of a pair."""


def refuse_prompt(task: TaskConfig, prompt: str) -> None:
    """Refuses a prompt that does not say where the example goes.

    Raises:
        InputError: If it does not hold {text} once, or {first} and {second} once each where inputs are pairs.
    """
    found = sorted(PLACES.findall(prompt))
    if task.is_pair and found != ["first", "second"]:
        raise InputError(
            f"task.prompt: must hold {{first}} and {{second}} once each and no {{text}}, as the inputs of {task.name} "
            f"are pairs of sentences (given: {prompt!r}).\n"
            "Example: 'task.prompt=\"{first}\\nQuestion: {second} True or False?\\nAnswer:\"'"
        )
    if not task.is_pair and found != ["text"]:
        of_pairs = " and no {first} or {second}" if {*found} & {"first", "second"} else ""
        raise InputError(f"task.prompt: must hold {{text}} once{of_pairs}, where the example goes (given: {prompt!r}).")


def order_of_outputs(theirs: TaskConfig, saved: Sequence[str], ours: TaskConfig) -> list[int] | None:
    """Returns which output of a head each label of a task is; None where the head is of other labels.

    A score has no name: it is the same one only in a task of the same name, of one's own data from the same column.

    Args:
        theirs: The task that the head was trained for.
        saved: The labels of its outputs.
        ours: The task.
    """
    if not saved and not ours.label_names:
        same = (theirs.name, getattr(theirs, "target", None)) == (ours.name, getattr(ours, "target", None))
        return [] if same else None
    return order_by_name(saved, ours.label_names)


def subset(splits: Splits, config: TaskConfig) -> Splits:
    """Draws train_size, eval_size and test_size examples of the splits.

    Each split has one permutation, of which a size takes the first examples: a smaller subset is the beginning of a
    larger one, and null is the same as the size of the whole split.

    Raises:
        InputError: If a size is larger than the split.
    """
    drawn = {}
    for split, examples in splits.items():
        config.refuse_size_above(split, len(examples))
        size = config.size_of(split)
        scored = config.subset_seed if config.scored_subset_seed is None else config.scored_subset_seed
        seed = config.subset_seed if split == "train" else scored
        order = draw.generator("subset", seed, split).permutation(len(examples))
        drawn[split] = [examples[i] for i in order[:size]]
    return drawn


def permuted(examples: list[Example], seed: int) -> list[Example]:
    """Permutes the targets among the examples, which stay where they are; each target stays as frequent as it was."""
    order = draw.generator("permute", seed).permutation(len(examples))
    return [example._replace(target=examples[i].target) for example, i in zip(examples, order, strict=True)]
