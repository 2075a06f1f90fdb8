"""Classification or regression on data of one's own: what task=table and task=hub share. No torch.

The rows are read while the configuration is composed: the classes, the sizes and a digest of the examples follow from
them. The digest alone stands for the data in a run's id, so no path, file name or format does.
"""

import json
import math
import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from lora_repro.config.identity import NOT_IN_ID, RUN_ID
from lora_repro.errors import InputError, MissingInputError, shown
from lora_repro.tasks.base import Splits, is_fetching
from lora_repro.tasks.classes import ClassConfig, Form
from lora_repro.tasks.notices import of_examples
from lora_repro.tasks.own_data.reading import Reading, made
from lora_repro.tasks.own_data.sheets import Columns, Part


class _Known(NamedTuple):
    """What is known of data that was read by this process."""

    labels: list[str]
    digest: str
    sizes: dict[str, int]


_known: dict[str, _Known] = {}
"""By what was read and how. The runs of a sweep share it, so each file is read once."""
_last: dict[str, Reading] = {}
"""The last reading alone, as it may be large."""


@dataclass
class OwnConfig(ClassConfig):
    """A task made of columns."""

    fixed: ClassVar[tuple[str, ...]] = ("digest", "num_labels", "labels", "sizes_read")

    text: Any = field(default=None, metadata=NOT_IN_ID)
    """The column of the text, or two columns for a pair: [premise, hypothesis]."""
    label: str | None = field(default=None, metadata=NOT_IN_ID)
    """The column of the classes."""
    target: str | None = field(default=None, metadata=NOT_IN_ID)
    """The column of a number to be predicted, instead of `label`."""
    id: str | None = field(default=None, metadata=NOT_IN_ID)
    """The column of the examples' names, for predictions.parquet (null: they are counted)."""
    group: str | None = field(default=None, metadata=NOT_IN_ID)
    """A column whose values are never divided among splits, such as the user who wrote the texts."""
    shares: dict[str, float] = field(
        default_factory=lambda: {"train": 0.8, "eval": 0.1, "test": 0.1}, metadata=NOT_IN_ID
    )
    """How rows are divided that are in no split of their own."""
    split_seed: int = field(default=0, metadata=NOT_IN_ID)
    """Draws that division."""
    drop_empty: bool = field(default=False, metadata=NOT_IN_ID)
    """Leave out rows without text, which are refused otherwise."""
    max_labels: int = field(default=50, metadata=NOT_IN_ID)
    """More different labels are refused, as they are rather a number to be predicted, or another column."""
    labels: list[str] = field(default_factory=list, metadata=NOT_IN_ID)
    """The classes, in the order of the head's outputs: read from the training rows."""
    sizes_read: dict[str, int] = field(default_factory=dict, metadata=NOT_IN_ID)
    """The examples of each split: read."""

    @property
    def is_score(self) -> bool:
        """Whether a number is predicted."""
        return self.target is not None

    @property
    def idle(self) -> tuple[str, ...]:
        """A head reads no prompt: another wording makes no other run of it."""
        return self.unread

    @property
    def scored(self) -> tuple[str, ...]:
        """Dev, and test where there is one with labels."""
        return tuple(split for split in ("eval", "test") if not self.sizes_read or split in self.sizes_read)

    @property
    def label_names(self) -> list[str]:
        """The classes as the data calls them."""
        return [] if self.is_score else self.labels

    @property
    def is_pair(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether two columns make an input."""
        return len(self.texts) == 2

    @property
    def texts(self) -> list[str]:
        """The columns of the text."""
        return [self.text] if isinstance(self.text, str) else list(self.text)

    @property
    def columns(self) -> Columns:
        """The columns that are read."""
        named = [column for column in (self.id, self.group) if column is not None]
        return Columns([*self.texts, *named], [str(self.label if self.target is None else self.target)])

    def sizes(self) -> dict[str, int] | None:
        """Returns the examples of each split, once they are read."""
        return dict(self.sizes_read) or None

    @abstractmethod
    def read(self, data: str | None, cache: str) -> dict[str, Part]:
        """Reads the rows of each split; under "" those that are in no split.

        Raises:
            MissingInputError: If something is not there.
            InputError: If something cannot be read.
        """

    @abstractmethod
    def version(self, data: str | None, cache: str) -> str:
        """Returns what changes when the content of the data may have changed, without reading it.

        Raises:
            MissingInputError: If something is not there.
        """

    def identify(self, data: str | None, cache: str) -> None:
        """Reads the data, unless this process has done so, and fills in what follows from it.

        Raises:
            MissingInputError: If something is not there.
            InputError: If no task can be made of it.
        """
        if is_fetching():
            self.fetch(cache)
            return
        self.refuse_columns()
        if (recorded := _recorded(data)) is not None:
            known = self._as_recorded(recorded)
        else:
            self.pin()
            known = self._known(data, cache)
        self.digest, self.sizes_read = known.digest, dict(known.sizes)
        self.labels, self.num_labels = list(known.labels), len(known.labels) if self.target is None else 1

    def pin(self) -> None:
        """Notes which version of the data is meant, where it has versions."""

    def load(self, data: str | None, cache: str) -> Splits:
        """Returns the examples, from memory where this process has read them last.

        Raises:
            MissingInputError: If something is not there, or the data has changed since the run was composed.
            InputError: If no task can be made of it.
        """
        if _recorded(data) is not None:
            raise MissingInputError(
                f"paths.data: {data} is a run, which tells what its data was and does not hold it.\n"
                "Plans and tables need no more. To train give the data itself."
            )
        reading = self._reading(data, cache)
        if reading.digest != self.digest:
            raise MissingInputError(
                f"task={self.name}: the data has changed since this run was composed (digest {reading.digest[:10]}, "
                f"expected {self.digest[:10]}).\nGive the command again to train on the data as it is now."
            )
        return {split: list(examples) for split, examples in reading.splits.items()}

    def notices(self, splits: Splits) -> list[str]:
        """Says how the data was read, and what is in it."""
        of_reading = next((each.notices for each in _last.values() if each.digest == self.digest), [])
        return [*of_reading, *of_examples(splits, self.label_names)]

    def _as_recorded(self, recorded: Mapping[str, Any]) -> _Known:
        """Takes from a run's record what would be read from its data, which need not be here.

        Raises:
            InputError: If the run was on something else.
        """
        plain = json.loads(json.dumps({key: getattr(self, key) for key in ("name", *self.asked)}))
        for key, value in plain.items():
            if recorded.get(key) != value:
                raise InputError(
                    f"paths.data: the run there has task.{key}={shown(recorded.get(key))} (given: {shown(value)}).\n"
                    "Give a run on the same data, or the data itself."
                )
        return _Known(recorded["labels"], recorded["digest"], recorded["sizes_read"])

    def _known(self, data: str | None, cache: str) -> _Known:
        key = self._key(data, cache)
        if key not in _known:
            reading = self._reading(data, cache)
            sizes = {split: len(examples) for split, examples in reading.splits.items()}
            _known[key] = _Known(reading.labels, reading.digest, sizes)
        return _known[key]

    def _key(self, data: str | None, cache: str) -> str:
        declared = (type(self).__name__, self.version(data, cache))
        asked = {name: getattr(self, name) for name in self.asked}
        return json.dumps([declared, asked], sort_keys=True, default=str)

    @property
    def asked(self) -> list[str]:
        """The fields that decide what is read."""
        return ["text", "label", "target", "id", "group", "shares", "split_seed", "drop_empty", "max_labels"]

    def _reading(self, data: str | None, cache: str) -> Reading:
        key = self._key(data, cache)
        if key not in _last:
            began = time.perf_counter()
            reading = made(self, self.read(data, cache))
            total = sum(map(len, reading.splits.values()))
            if (seconds := time.perf_counter() - began) > 1:
                reading.notices.append(f"{total:,} examples were read into memory in {seconds:.0f} s.")
            _last.clear()
            _last[key] = reading
        return _last[key]

    def refuse_columns(self) -> None:
        """Refuses a choice of columns that is none.

        Raises:
            InputError: Naming the key.
        """
        texts = self.text if isinstance(self.text, list) else [self.text]
        if not 1 <= len(texts) <= 2 or not all(isinstance(column, str) and column for column in texts):
            raise InputError(
                f"task.text: must name the column of the text, or two columns for a pair (given: {shown(self.text)}).\n"
                f"Example: task={self.name} task.text=review task.label=stars, or 'task.text=[premise,hypothesis]'"
            )
        if (self.label is None) == (self.target is None):
            given = "none" if self.label is None else f"task.label={self.label} task.target={self.target}"
            raise InputError(
                f"task.label: must name the column of the classes, or task.target that of a number to be predicted "
                f"(given: {given}).\nGive one of them: task.label=stars"
            )
        answer = str(self.label if self.target is None else self.target)
        if answer in texts or len(set(texts)) < len(texts):
            raise InputError(
                f"task.text: one column is asked for twice (task.text={shown(self.text)}, the answer is {answer})."
            )
        shares = dict(self.shares)
        if not all(0 < shares[split] < 1 for split in ("train", "eval")) or not 0 <= shares["test"] < 1:
            raise InputError(
                f"task.shares: must be fractions above 0, and test may be 0 (given: {shares}).\n"
                "Example: 'task.shares={train: 0.8, eval: 0.1, test: 0.1}'"
            )
        if not math.isclose(sum(shares.values()), 1, abs_tol=1e-6):
            raise InputError(f"task.shares: must add up to 1 (given: {shares}, which is {sum(shares.values()):g}).")
        if self.max_labels < 2:
            raise InputError(f"task.max_labels: must be at least 2 (given: {self.max_labels}).")

    def check(self) -> None:
        """Refuses impossible values without reading anything.

        Raises:
            InputError: If a size, the subset seed, the prompt or the label words are impossible.
        """
        if is_fetching():  # what the values are held against is not known yet
            return
        if self.is_score and self.form is Form.text:
            raise InputError(
                "task.target: a number is read from a head, not from label words (given: task.form=text).\n"
                "Choose task.form=label, or give task.label instead."
            )
        if self.test_size is not None and "test" not in self.scored:
            raise InputError(f"task.test_size: there is no test split (given: {self.test_size}).\nLeave it out.")
        super().check()


def _recorded(data: str | None) -> Mapping[str, Any] | None:
    """Returns the task in a run's record, if paths.data is the folder of a finished run."""
    from lora_repro.store.result import read_result

    folder = Path(data or "").expanduser()
    if data is None or not RUN_ID.fullmatch(folder.name) or not (folder / "result.json").is_file():
        return None
    found = read_result(folder)
    if found.result is None:
        raise InputError(f"paths.data: {found.problem}\nGive a finished run, or the data itself.")
    return found.result["config"]["task"]
