"""Sentiment from mean human ratings: sentences of film reviews, product reviews, editorials and tweets.

One example (movies): input "The Rock is destined to be the 21st Century's new ''Conan'' and that he's going to make a
splash even greater than Arnold Schwarzenegger, Jean Claud Van Damme or Steven Segal.", mean rating 2.27: label 1.

Source: C.J. Hutto and E. Gilbert, "VADER" (ICWSM 2014), `hutto_ICWSM_2014.tar.gz`; at least 20 raters for each text,
from -4 to 4. Texts whose mean rating is within `threshold` of 0 are left out. What remains is classified (label 1 is
positive, 0 negative), or with `target=rating` the mean rating itself is predicted: on the same examples in the same
splits and subsets, so that both can be compared. `threshold=0` drops none but ratings of 0; where split_sizes count
examples they then have to be given too.

Texts are as in the files, with their HTML entities (`&amp;`). Labels are as rated, each text on its own. Where the
document is the text, duplicates share a split even when their labels differ (tweets: "@anonymous :) :)" and
"@anonymous :'( :'(" are one document). Where it is the review (amazon), a few stock phrases such as "well worth the
money." stand in several reviews, and so may stand in several splits.
"""

import io
import re
import tarfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from omegaconf import MISSING

from lora_repro import draw
from lora_repro.errors import InputError, MissingInputError
from lora_repro.tasks.base import Splits
from lora_repro.tasks.classes import ClassConfig, Form
from lora_repro.tasks.sources import DataFile
from lora_repro.tasks.targets import Example

FOLDER = "hutto_ICWSM_2014"
"""The one folder in the archive."""
ARCHIVE = DataFile(
    name=f"{FOLDER}.tar.gz",
    digest="",
    spec="vaderSentiment==3.3.2",
    distribution="vaderSentiment-3.3.2.tar.gz",
    distribution_digest="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    member=f"vaderSentiment-3.3.2/additional_resources/{FOLDER}.tar.gz",
)
"""The file of all four domains; its digest is in conf/task."""
SPLITS = ("train", "eval", "test")


class Document(str, Enum):
    """What makes a document, which is never divided between splits."""

    source = "source"
    """The review or article: the id before `_`."""
    text = "text"
    """The text without regard to case, white space and punctuation."""


class RatingTarget(str, Enum):
    """What is predicted of a text."""

    label = "label"
    """Whether it is positive."""
    rating = "rating"
    """The mean rating, in [-4, 4]."""


class SplitUnit(str, Enum):
    """What `split_sizes` counts."""

    documents = "documents"
    """All documents of the file, even those without a usable example, so the threshold does not change the split."""
    examples = "examples"


@dataclass
class RatingsConfig(ClassConfig):
    """One of the four domains."""

    member: str = MISSING
    """The domain's file in the archive."""
    document: Document = MISSING
    threshold: float = MISSING
    """An example's mean rating is further from 0 than this."""
    split_sizes: dict[str, int] = MISSING
    """Sizes of train, eval and test, which add up to the whole file."""
    split_unit: SplitUnit = MISSING
    target: RatingTarget = RatingTarget.label
    prompt: str = "Review: {text}\nSentiment:"
    label_words: list[str] = field(default_factory=lambda: [" negative", " positive"])

    @property
    def is_score(self) -> bool:
        """Whether the rating itself is predicted."""
        return self.target is RatingTarget.rating

    @property
    def label_names(self) -> list[str]:
        """Negative is label 0, positive label 1; a rating has no classes."""
        return [] if self.is_score else ["negative", "positive"]

    @property
    def sources(self) -> list[DataFile]:
        """The archive of all four domains."""
        return [ARCHIVE._replace(digest=self.digest)]

    def load(self, data: str | None, cache: str) -> Splits:
        """Reads the domain's examples, each split in the order of the file.

        The split is drawn by the task's name alone. Documents are taken in drawn order, and each goes whole into the
        first of train, eval and test that has space for it.

        Raises:
            MissingInputError: If the data is missing or damaged.
            InputError: If split_sizes do not add up.
        """
        rows = read(self.find(self.sources[0], data, cache).content, self.member)
        documents = [document(row, self.document) for row in rows]
        examples = [
            Example(row.id, row.text, row.rating if self.is_score else int(row.rating > 0), of)
            for row, of in zip(rows, documents, strict=True)
            if abs(row.rating) > self.threshold
        ]
        counts = Counter(example.document for example in examples)
        sizes = {of: 1 if self.split_unit is SplitUnit.documents else counts[of] for of in documents}
        split_of = split_documents(self.name, sizes, self.split_sizes)
        splits: Splits = {split: [] for split in SPLITS}
        for example in examples:
            splits[split_of[example.document]].append(example)
        return splits

    def sizes(self) -> dict[str, int] | None:
        """Returns split_sizes where they count examples."""
        return dict(self.split_sizes) if self.split_unit is SplitUnit.examples else None

    def check(self) -> None:
        """Refuses impossible sizes, splits and thresholds without reading anything.

        Raises:
            InputError: If a value is out of range.
        """
        if not 0 <= self.threshold < 4:
            raise InputError(f"task.threshold: must be in [0, 4), as ratings are in [-4, 4] (given: {self.threshold}).")
        if set(self.split_sizes) != set(SPLITS) or min(self.split_sizes.values()) < 1:
            raise InputError(
                f"task.split_sizes: needs train, eval and test, each at least 1 (given: {dict(self.split_sizes)})."
            )
        if self.is_score and self.form is Form.text:
            raise InputError(
                "task.target: a rating is read from a head, not from label words (given: task.form=text).\n"
                "Choose task.form=label, or task.target=label."
            )
        super().check()  # which relies on split_sizes


class Row(NamedTuple):
    """A line of a file: one rated text."""

    id: str
    rating: float
    """Mean over the raters, in [-4, 4]."""
    text: str


def read(archive: bytes, member: str) -> list[Row]:
    """Reads one file of the archive, in memory.

    The lines are UTF-8, end in CR LF and hold an id, a mean rating and a text, separated by tabs.

    Raises:
        InputError: If there is no such file.
        MissingInputError: If a line is damaged.
    """
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        files = {entry.name: entry for entry in tar if entry.isfile()}
        entry = files.get(f"{FOLDER}/{member}")
        stream = tar.extractfile(entry) if entry is not None else None
        if stream is None:
            here = ", ".join(name.removeprefix(f"{FOLDER}/") for name in files)
            raise InputError(f"task.member: no file {member!r} in the archive.\nFiles here: {here}.")
        lines = stream.read().split(b"\n")  # not splitlines, which also divides at characters inside a text
    if lines[-1] == b"":
        lines.pop()
    return [_row(line.removesuffix(b"\r"), f"{member}, line {number}") for number, line in enumerate(lines, start=1)]


def _row(line: bytes, place: str) -> Row:
    try:
        identity, rating, text = line.decode("utf-8").split("\t")
        row = Row(identity, float(rating), text)
    except ValueError:  # UnicodeDecodeError too
        row = None
    if row is None or not row.id or not row.text.strip() or not -4 <= row.rating <= 4:
        raise MissingInputError(
            f"{place}: needs an id, a mean rating in [-4, 4] and a text in UTF-8, separated by tabs "
            f"(found: {line[:80]!r}).\nThe archive is damaged or another version."
        )
    return row


def document(row: Row, kind: Document) -> str:
    """Returns the name of the document that a text belongs to; a text of punctuation alone is its own name."""
    if kind is Document.source:
        return row.id.partition("_")[0]
    return re.sub(r"[\W_]+", " ", row.text.casefold()).strip() or row.text


def split_documents(name: str, sizes: Mapping[str, int], capacities: Mapping[str, int]) -> dict[str, str]:
    """Gives each document whole to one split, so that the splits are filled exactly.

    Args:
        name: The task: the only key of the draw.
        sizes: How much each document counts.
        capacities: How much train, eval and test hold.

    Returns:
        The split of each document.

    Raises:
        InputError: If capacities do not add up to all documents, or cannot be filled without dividing one.
    """
    total = sum(sizes.values())
    if sum(capacities.values()) != total:
        raise InputError(
            f"task.split_sizes: {name} has {total} examples (documents), and the sizes add up to "
            f"{sum(capacities.values())} (given: {dict(capacities)}).\n"
            f"Give train, eval and test sizes that add up to {total}."
        )
    left = {split: capacities[split] for split in SPLITS}
    split_of = {}
    documents = list(sizes)
    for i in draw.generator("split", name).permutation(len(documents)):
        split = next((split for split in SPLITS if left[split] >= sizes[documents[i]]), None)
        if split is None:
            raise InputError(
                f"task.split_sizes: no split has space for a whole document of {sizes[documents[i]]} examples "
                f"(given: {dict(capacities)}).\nMove one or two examples from one split to another."
            )
        left[split] -= sizes[documents[i]]
        split_of[documents[i]] = split
    return split_of
