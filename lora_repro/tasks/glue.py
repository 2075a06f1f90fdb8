"""The tasks of GLUE (Wang et al. 2019), eight sets of English sentences and pairs, read from the official TSV files.

GLUE's ninth set, WNLI, is not among them: the paper has no result on it.

One example (rte): "No Weapons of Mass Destruction Found in Iraq Yet." and "Weapons of Mass Destruction Found in Iraq.":
not_entailment, label 1. Classes are counted as on the Hugging Face hub.

The labels of the test files are secret, so there is no split `test`: dev is all that is scored. What a run scores at an
epoch that was chosen on other examples says lora_repro/tasks/cross_fitting.py.

A file is found as FOLDER/NAME in paths.data, in a folder `glue` there, or in paths.data itself, and otherwise where
`lora_repro.fetch` puts what it has from the hub. Wherever it was found, its examples must be those that the task
declares: the sha256 in conf/task is over the texts, as they stand, and the targets of the splits in `checked`. For the
training files of mnli, qnli and qqp, and all of qqp, only the number of rows is known; the record holds their sha256.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from lora_repro import draw
from lora_repro.config.catalogue import group_names
from lora_repro.config.identity import NOT_IN_ID
from lora_repro.errors import InputError, MissingInputError, describe_os_error
from lora_repro.models.inputs import fetch_command
from lora_repro.tasks.base import Splits, digest
from lora_repro.tasks.classes import ClassConfig, Form
from lora_repro.tasks.rows import Format, Rows, read_rows
from lora_repro.tasks.targets import ACCURACY, F1, MATTHEWS, PEARSON, SPEARMAN, Classes, Example, Scores, Targets

METRICS = {metric.name: metric for metric in (ACCURACY, F1, MATTHEWS, PEARSON, SPEARMAN)}
TRAIN, DEV = "train", "eval"

log = logging.getLogger(__name__)


@dataclass
class GlueConfig(ClassConfig):
    """One set. All that says how its files are read belongs to the task, whose digest stands for it in ids."""

    fixed = (
        *("digest", "num_labels", "folder", "files", "header", "texts", "target", "classes", "names", "low", "high"),
        *("rows", "checked", "dev_rows", "leaves_out_damaged", "may_lack_second", "metrics", "hub"),
    )

    folder: str = field(default=MISSING, metadata=NOT_IN_ID)
    """The set's folder, as the official archive calls it."""
    files: dict[str, str] = field(default=MISSING, metadata=NOT_IN_ID)
    """The file of each split: train, eval (dev) and, for mnli, mismatched."""
    header: list[str] = field(default_factory=list, metadata=NOT_IN_ID)
    """Names of the columns where the files have no header; empty: the first row has them."""
    texts: list[str] = field(default=MISSING, metadata=NOT_IN_ID)
    """The column of the text, or those of the pair."""
    target: str = field(default=MISSING, metadata=NOT_IN_ID)
    """The column of the target."""
    classes: list[str] = field(default_factory=list, metadata=NOT_IN_ID)
    """How the files write the classes, from class 0 on; empty: the targets are scores."""
    names: list[str] = field(default_factory=list, metadata=NOT_IN_ID)
    """What the classes are called, where the files have numbers."""
    low: float = field(default=0.0, metadata=NOT_IN_ID)
    """The lowest score."""
    high: float = field(default=0.0, metadata=NOT_IN_ID)
    """The highest score."""
    rows: dict[str, int] = field(default=MISSING, metadata=NOT_IN_ID)
    """The number of examples of each file."""
    checked: list[str] = field(default=MISSING, metadata=NOT_IN_ID)
    """The splits over which the digest is."""
    dev_rows: int = field(default=0, metadata=NOT_IN_ID)
    """How many rows of the training file are drawn as dev, by the task's name, where there is no file of dev."""
    leaves_out_damaged: bool = field(default=False, metadata=NOT_IN_ID)
    """Whether rows with too few or too many columns are left out, as the hub does: qqp has some."""
    may_lack_second: bool = field(default=False, metadata=NOT_IN_ID)
    """Whether the second sentence of a pair may be empty, which stays in as on the hub: two rows of qqp have none."""
    metrics: list[str] = field(default=MISSING, metadata=NOT_IN_ID)
    """The metrics, the one of the paper's Table 2 first."""
    hub: str | None = field(default=None, metadata=NOT_IN_ID)
    """The configuration of nyu-mll/glue on the hub; None for a part of a set."""

    @property
    def idle(self) -> tuple[str, ...]:
        """A head reads no prompt: another wording makes no other run of it."""
        return self.unread

    @property
    def is_pair(self) -> bool:
        """Tells whether each input is a pair of sentences."""
        return len(self.texts) == 2

    @property
    def has_groups(self) -> bool:
        """Whether several examples have one premise or question: on average three of mnli, two of qnli."""
        return self.is_pair

    @property
    def scored(self) -> tuple[str, ...]:
        """Dev, and for mnli its second part, of other genres than training."""
        return (DEV, *(split for split in self.files if split not in (TRAIN, DEV)))

    @property
    def has_overall(self) -> bool:
        """Whether dev has two parts: the paper's metric of mnli is over both."""
        return len(self.scored) > 1

    @property
    def unchecked(self) -> tuple[str, ...]:
        """The splits of which the number of rows alone is known."""
        return tuple(split for split in self.all_splits if split not in self.checked)

    @property
    def is_score(self) -> bool:
        """Whether the targets are scores."""
        return not self.classes

    @property
    def targets(self) -> Targets:
        """Classes or scores, with the metrics of the task."""
        shown = [METRICS[name] for name in self.metrics]
        return Scores(*shown) if self.is_score else Classes(*shown)

    @property
    def label_names(self) -> list[str]:
        """What the classes are called; a score has none."""
        return [*(self.names or self.classes)]

    def sizes(self) -> dict[str, int] | None:
        """Returns the number of examples of each split."""
        found = dict(self.rows)
        return found if not self.dev_rows else found | {TRAIN: found[TRAIN] - self.dev_rows, DEV: self.dev_rows}

    def check(self) -> None:
        """Refuses impossible values without reading anything.

        Raises:
            InputError: As `ClassConfig.check` does, or if a score is asked for in words.
        """
        if self.is_score and self.form is Form.text:
            raise InputError(
                f"task.form: the targets of {self.name} are scores, which no label words can name (given: text).\n"
                "Choose task.form=label."
            )
        super().check()

    def load(self, data: str | None, cache: str) -> Splits:
        """Reads the files.

        Args:
            data: A folder (paths.data) that holds the set's folder, a folder `glue` with it, or the files; or None.
            cache: The folder that lora_repro.fetch fills (paths.cache).

        Raises:
            MissingInputError: If a file is missing, damaged, or of another version of the set.
        """
        splits = {split: self._read(split, name, data, cache) for split, name in self.files.items()}
        if self.dev_rows:
            order = draw.generator("dev", self.name).permutation(len(splits[TRAIN]))
            rows = splits[TRAIN]
            splits[DEV], splits[TRAIN] = (
                [rows[i] for i in sorted(part.tolist())] for part in (order[: self.dev_rows], order[self.dev_rows :])
            )
        found = digest(splits, self.checked)
        if found != self.digest:
            raise MissingInputError(
                f"task {self.name}: the examples of {' and '.join(self.checked)} are others than GLUE's (sha256 "
                f"{found}, expected {self.digest}), although as many. It is another version, or was changed; white "
                f"space counts.\n"
                f"{self._remedy(cache)}"
            )
        if self.form is Form.text:
            splits = {split: [*map(_with_single_spaces, examples)] for split, examples in splits.items()}
        return {split: splits[split] for split in self.all_splits}

    def fetch(self, cache: str) -> str:
        """Makes sure that the set's files are in the cache or in LORA_REPRO_DATA, and says where.

        Raises:
            MissingInputError: If they are not and cannot be fetched: a part of a set is on no hub.
        """
        from lora_repro.fetch.glue import download

        data = os.environ.get("LORA_REPRO_DATA")
        try:
            self.load(data, cache)
            return f"present ({', '.join(str(self.place(name, data, cache)) for name in self.files.values())})"
        except MissingInputError:
            if self.hub is None:
                raise
        return f"fetched ({download(self, cache)})"

    def cached(self, cache: str) -> Path:
        """Returns the folder in which `lora_repro.fetch` puts the set's files."""
        return Path(cache).expanduser() / "data" / "glue" / self.folder

    def place(self, name: str, data: str | None, cache: str) -> Path:
        """Returns where a file of the set lies.

        Raises:
            MissingInputError: If it is in none of the places.
        """
        given = [] if data is None else [Path(data).expanduser()]
        folders = [folder for root in given for folder in (root / self.folder, root / "glue" / self.folder, root)]
        places = [folder / name for folder in (*folders, self.cached(cache))]
        found = next((path for path in places if path.is_file()), None)
        if found is None:
            absent = [f"paths.data: there is no folder {root}.\n" for root in given if not root.is_dir()]
            raise MissingInputError(
                f"{''.join(absent)}task {self.name}: no file {self.folder}/{name} of GLUE: looked for "
                f"{', '.join(map(str, places))}.\n{self._parts_there(folders)}{self._remedy(cache)}"
            )
        return found

    def _parts_there(self, folders: Sequence[Path]) -> str:
        """Names the tasks that are read from another training file of this set, where that file is there."""
        from lora_repro.config.schema import load_group

        parts = {
            part: config.files[TRAIN]
            for part in group_names("task")
            if part.startswith(f"{self.name}_") and isinstance(config := load_group("task", part), GlueConfig)
        }
        there = [
            f"task={part} reads {file}" for part, file in parts.items() if any((f / file).is_file() for f in folders)
        ]
        return f"A part of the set is there: {', '.join(there)}.\n" if there else ""

    def _remedy(self, cache: str) -> str:
        folder = "Give the folder of the official TSV files: paths.data=DIR, or the variable LORA_REPRO_DATA"
        return folder if self.hub is None else f"{folder}.\nOr fetch it from the hub: {fetch_command(self.name, cache)}"

    def _read(self, split: str, name: str, data: str | None, cache: str) -> list[Example]:
        path = self.place(name, data, cache)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise MissingInputError(describe_os_error(error)) from None
        try:
            if self.leaves_out_damaged:
                content = _whole_rows(content, str(path))
            table = read_rows(
                content, str(path), Format.tsv, quotes=False, columns=self.header or None,
                only=[*self.texts, self.target], has_options=False,
            )  # fmt: skip
            if len(table) != self.rows[split]:
                raise InputError(f"{path}: it has {len(table):,} rows, and GLUE's file has {self.rows[split]:,}.")
            return self._examples(split, table)
        except InputError as error:
            raise MissingInputError(f"task {self.name}: {error}\n{self._remedy(cache)}") from None

    def _examples(self, split: str, table: Rows) -> list[Example]:
        columns = [table[column] for column in self.texts]
        number_of = {written: number for number, written in enumerate(self.classes)}
        examples = []
        for row, (written, *texts) in enumerate(zip(table[self.target], *columns, strict=True)):
            needed = self.texts[:1] if self.may_lack_second else self.texts
            if empty := [column for column, text in zip(needed, texts, strict=False) if not text.strip()]:
                raise InputError(f"{table.place(row)}: {empty[0]} is empty.")
            target = number_of.get(written) if self.classes else _score(written, self.low, self.high)
            if target is None:
                wanted = f"one of {', '.join(self.classes)}" if self.classes else f"from {self.low:g} to {self.high:g}"
                raise InputError(f"{table.place(row)}: {self.target} is {written[:40]!r}, and must be {wanted}.")
            text = texts[0] if len(texts) == 1 else (texts[0], texts[1])
            examples.append(Example(f"{split}-{row}", text, target, texts[0]))
        return examples


def _with_single_spaces(example: Example) -> Example:
    """Returns an example for a prompt: all texts of sst2 end in a space, which would be a token before what follows."""
    first, *second = (" ".join(text.split()) for text in example.texts)
    return example._replace(input=(first, second[0]) if second else first, document=first)


def _score(written: str, low: float, high: float) -> float | None:
    try:
        value = float(written)
    except ValueError:
        return None
    return value if low <= value <= high else None  # which nan is not


def _whole_rows(content: bytes, name: str) -> bytes:
    """Leaves out rows that have not as many columns as the header."""
    header, *lines = content.split(b"\n")
    whole = [line for line in lines if line.count(b"\t") == header.count(b"\t")]
    damaged = sum(bool(line.strip()) for line in lines) - len(whole)
    if damaged:
        log.info("%s: %d damaged rows are left out.", name, damaged)
    return b"\n".join([header, *whole])
