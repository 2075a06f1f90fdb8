"""Classification or regression on data of one's own: what task=table and task=hub share. No torch.

The rows are read while the configuration is composed: the classes, the sizes and a digest of the examples follow from
them. The digest alone stands for the data in a run's id, so no path, file name or format does.
"""

import hashlib
import json
import math
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from lora_repro.config.identity import NOT_IN_ID, RUN_ID
from lora_repro.errors import InputError, MissingInputError, shown
from lora_repro.tasks import labelling
from lora_repro.tasks.base import Splits, is_fetching
from lora_repro.tasks.classes import ClassConfig, Form
from lora_repro.tasks.labelling import places
from lora_repro.tasks.notices import of_examples
from lora_repro.tasks.shares import SPLITS, divide
from lora_repro.tasks.sheets import Columns, Part, Sheet
from lora_repro.tasks.targets import Scores, Targets

if TYPE_CHECKING:
    from lora_repro.tasks.objectives.base import Objective

CHUNK = 10_000
"""Rows that are hashed at once."""


class Reading(NamedTuple):
    """What was read."""

    splits: Splits
    labels: list[str]
    digest: str
    notices: list[str]
    """What is said about the reading before training starts."""


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
    def targets(self) -> Targets:
        """Classes, or scores."""
        return Scores() if self.target is not None else super().targets

    @property
    def objective(self) -> "type[Objective]":
        """A head with one score, or what classes are asked with."""
        from lora_repro.tasks.objectives.heads import HeadWithScore

        return HeadWithScore if self.target is not None else super().objective

    @property
    def head_width(self) -> int | None:
        """A score is one output."""
        return 1 if self.target is not None else super().head_width

    @property
    def scored(self) -> tuple[str, ...]:
        """Dev, and test where there is one with labels."""
        return tuple(split for split in ("eval", "test") if not self.sizes_read or split in self.sizes_read)

    @property
    def label_names(self) -> list[str]:
        """The classes as the data calls them."""
        return [] if self.target is not None else self.labels

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
            reading = self._made(self.read(data, cache))
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
        if self.target is not None and self.form is Form.text:
            raise InputError(
                "task.target: a number is read from a head, not from label words (given: task.form=text).\n"
                "Choose task.form=label, or give task.label instead."
            )
        if self.test_size is not None and "test" not in self.scored:
            raise InputError(f"task.test_size: there is no test split (given: {self.test_size}).\nLeave it out.")
        super().check()

    def _made(self, parts: dict[str, Part]) -> Reading:
        notices: list[str] = []
        sheets = {split: self._sheet(split, part, notices) for split, part in parts.items()}
        if "test" in sheets and self._is_unlabelled(sheets):
            notices.append(f"test has no labels (all {len(sheets['test'].ids):,} are missing or -1): it is left out.")
            del sheets["test"]
        first = "" if "" in sheets else "train"
        answers: dict[str, list[Any]]
        if self.target is not None:
            labels: list[str] = []
            answers = {split: labelling.scores(sheet.answers(split), self.target) for split, sheet in sheets.items()}
            labelling.refuse_constant(answers[first], self.target)
        else:
            name = str(self.label)
            texts = {s: labelling.label_texts(sheet.answers(s), name) for s, sheet in sheets.items()}
            order = parts[first].names
            column = sheets[first].answers("train")
            labels = labelling.classes_of(texts[first], column, name, self.max_labels, order)
            answers = {s: labelling.indices(texts[s], labels, sheet.answers(s), name) for s, sheet in sheets.items()}
            notices += _about_labels(name, labels, bool(order))
        divided = self._divided(sheets, answers, notices)
        splits = {split: sheets[source].examples(rows, answers[source]) for split, (source, rows) in divided.items()}
        self._refuse_impossible(splits, labels)
        return Reading(splits, labels, self._digest(splits, labels), notices)

    def _sheet(self, split: str, part: Part, notices: list[str]) -> Sheet:
        sheet = Sheet(split, part, self.texts, self.columns.optional[0], self.id, self.group)
        if empty := sheet.empty():
            if not self.drop_empty:
                raise InputError(
                    f"task.text: {len(empty):,} of {len(sheet.inputs):,} rows{f' of {split}' if split else ''} have no "
                    f"text ({places(empty, sheet.place)}).\nGive them one, or leave them out: task.drop_empty=true"
                )
            notices.append(f"{split or 'the file'}: {len(empty):,} rows without text are left out (task.drop_empty).")
            sheet.drop(empty)
        if self.id is not None:
            sheet.refuse_repeated_ids(self.id)
        return sheet

    def _is_unlabelled(self, sheets: dict[str, Sheet]) -> bool:
        name, test = str(self.label if self.target is None else self.target), sheets["test"]
        if test.raw is None:
            return True
        texts = labelling.label_texts(test.answers("test"), name)
        train = sheets["train"].raw
        if not labelling.is_unlabelled(texts) or train is None:
            return False
        known = {labelling.label_text(value) for value in train} if self.target is None else set()
        return all(text is None for text in texts) or not known & {*labelling.UNLABELLED}

    def _divided(
        self, sheets: dict[str, Sheet], answers: dict[str, list[Any]], notices: list[str]
    ) -> dict[str, tuple[str, Sequence[int]]]:
        """Returns for each split the source and its rows."""
        found: dict[str, tuple[str, Sequence[int]]] = {}
        for split in SPLITS:
            if split in sheets:
                found[split] = (split, range(len(sheets[split].inputs)))
        source = "" if "" in sheets else "train"
        lacking = [split for split in SPLITS if self.shares[split] and not (split == "test" and "test" in sheets)]
        if "eval" in sheets:
            lacking = []
        if lacking:
            total = sum(self.shares[split] for split in lacking)
            shares = {split: self.shares[split] / total for split in lacking}
            classes = None if self.target is not None else answers[source]
            rows = divide(classes, sheets[source].documents(), shares, self.split_seed)
            found |= {split: (source, rows[split]) for split in lacking}
            what = "The rows" if not source else f"The rows of {source}"
            by = f"whole groups by {self.group!r}" if self.group is not None else "rows with the same text together"
            notices.append(
                f"{what} are divided here into {', '.join(lacking)} in shares "
                f"{' / '.join(f'{share:.2g}' for share in shares.values())} (task.split_seed={self.split_seed}; {by}"
                f"{'; each class alike' if classes is not None else ''})."
            )
        if "test" not in found:
            notices.append(
                "There is no test split: dev is scored, and scores on held-out examples are cross-fitted on it."
            )
        return {split: found[split] for split in SPLITS if split in found}

    def _refuse_impossible(self, splits: Splits, labels: list[str]) -> None:
        if self.group is not None:
            seen: dict[str, str] = {}
            for split, examples in splits.items():
                for example in examples:
                    if seen.setdefault(example.document, split) != split:
                        raise InputError(
                            f"task.group: the rows with {self.group} {shown(example.document)!r} are in "
                            f"{seen[example.document]} and in {split}, so {split} would not be new to the model.\n"
                            "Let them be divided here (give one file), or leave task.group out."
                        )
        if empty := [split for split, examples in splits.items() if not examples]:
            remedy = (
                "Each group stays whole: choose another column for task.group, or other task.shares."
                if self.group is not None
                else "Give more rows, or other shares: task.shares."
            )
            raise InputError(
                f"task.shares: {empty[0]} gets no row ({' / '.join(f'{len(splits[s]):,}' for s in splits)}).\n{remedy}"
            )
        if self.target is None:
            trained = {example.target for example in splits["train"]}
            for split in splits:
                if absent := {example.target for example in splits[split]} - trained:
                    names = ", ".join(repr(shown(labels[i])) for i in sorted(absent))
                    raise InputError(
                        f"task.shares: all rows with the label {names} are in {split}, and none is in train.\n"
                        "Choose another division: task.split_seed=1, other task.shares, or other groups."
                    )

    def _digest(self, splits: Splits, labels: list[str]) -> str:
        """Returns the sha256 over the examples in their order; names and groups count where a column gives them."""
        parts = {"input": True, "target": True, "id": self.id is not None, "document": self.group is not None}
        names = [name for name, counts in parts.items() if counts]
        found = hashlib.sha256(json.dumps([self.target is None, labels, names]).encode())
        for split, examples in splits.items():
            found.update(f"{split} {len(examples)}".encode())
            for start in range(0, len(examples), CHUNK):
                chunk = examples[start : start + CHUNK]
                for name in names:
                    found.update(json.dumps([getattr(example, name) for example in chunk]).encode())
        return found.hexdigest()


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


def _about_labels(name: str, labels: list[str], is_declared: bool) -> list[str]:
    found = []
    if all(labelling.NUMBER.fullmatch(label) for label in labels):
        found.append(
            f"The numbers of {name!r} ({', '.join(labels)}) are taken as {len(labels)} classes. To predict them as "
            f"numbers give task.target={name} instead of task.label."
        )
    order = "in the data set's order" if is_declared else "sorted"
    found.append(f"Labels, {order}: {', '.join(f'{i} = {label}' for i, label in enumerate(labels))}.")
    for one, other in labelling.misspelt(labels):
        found.append(f"The labels {one!r} and {other!r} differ in upper and lower case alone. Are they the same?")
    return found
