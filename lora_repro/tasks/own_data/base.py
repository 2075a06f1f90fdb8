"""Classification or regression on data of one's own: what task=table and task=hub share. No torch.

The rows are read while the configuration is composed: the classes, the sizes and a digest of the examples follow from
them. The digest alone stands for the data in a run's id, so no path, file name or format does.
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lora_repro.config.identity import NOT_IN_ID
from lora_repro.errors import InputError, shown
from lora_repro.tasks.base import Splits, is_fetching
from lora_repro.tasks.classes import ClassConfig, Form
from lora_repro.tasks.notices import of_examples
from lora_repro.tasks.own_data.read_here import Known, ReadHereConfig, Reading
from lora_repro.tasks.own_data.reading import made
from lora_repro.tasks.own_data.shares import refuse_shares
from lora_repro.tasks.own_data.sheets import Columns, Part


@dataclass
class OwnConfig(ReadHereConfig, ClassConfig):
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

    @property
    def has_groups(self) -> bool:
        """A column says what is never divided; without one rows with the same text are not."""
        return True

    @property
    def is_score(self) -> bool:
        """Whether a number is predicted."""
        return self.target is not None

    @property
    def idle(self) -> tuple[str, ...]:
        """A head reads no prompt: another wording makes no other run of it."""
        return self.unread

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

    @abstractmethod
    def read(self, data: str | None, cache: str, told: list[str]) -> dict[str, Part]:
        """Reads the rows of each split; under "" those that are in no split. `told` takes what is said about them.

        Raises:
            MissingInputError: If something is not there.
            InputError: If something cannot be read.
        """

    def make(self, data: str | None, cache: str) -> Reading:
        """Reads the rows and makes the examples."""
        told: list[str] = []
        return made(self, self.read(data, cache, told), told)

    def take(self, known: Known) -> None:
        """Fills in what follows from the data."""
        super().take(known)
        self.labels, self.num_labels = list(known.labels), len(known.labels) if self.target is None else 1

    def notices(self, splits: Splits) -> list[str]:
        """Says how the data was read, and what is in it."""
        said = [*super().notices(splits), *of_examples(splits, self.label_names)]
        if self.form is Form.text and len(self.label_words) == len(self.label_names):
            words = (f"{name} = {word!r}" for name, word in zip(self.label_names, self.label_words, strict=True))
            said.append(f"Labels and their words: {', '.join(words)}.")
        return said

    @property
    def asked(self) -> list[str]:
        """The fields that decide what is read."""
        return ["text", "label", "target", "id", "group", "shares", "split_seed", "drop_empty", "max_labels"]

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
        refuse_shares(self.shares)
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
