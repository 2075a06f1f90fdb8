"""What the corpora share: where their files are found, what they must hold, and examples for pairs and for meanings.

A file is found in paths.data, in one of the folders that a task names there, and otherwise where `lora_repro.fetch`
puts what it has from the hub. Wherever it was found, and in whichever of its forms (JSON or XML), it must hold what the
task declares: so many entries and texts, and for the splits in `checked` the very same ones, by a sha256 over what was
read. The amount of white space does not count in it.

A train example is a pair: an input and one text. A dev or test example is a meaning: an input with all texts that the
corpus has for it, of which each is right.
"""

import hashlib
import json
import os
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from omegaconf import MISSING

from lora_repro.config.identity import NOT_IN_ID
from lora_repro.errors import InputError, MissingInputError, describe_os_error
from lora_repro.models.inputs import fetch_command
from lora_repro.tasks import notices
from lora_repro.tasks.base import Splits
from lora_repro.tasks.targets import Example, split_name
from lora_repro.tasks.texts import TextConfig

TRAIN = "train"


class Entry(NamedTuple):
    """What a file says about one meaning, or a part of it."""

    id: str
    """Its name, where the corpus gives it one; otherwise empty."""
    facts: tuple[Any, ...]
    """What is to be put into words, as the corpus writes it: texts, or tuples of texts."""
    texts: tuple[str, ...]
    """The words."""
    marks: tuple[str, ...] = ()
    """What the corpus says about each text, if it does."""


class Found(NamedTuple):
    """Where a split is read from."""

    path: Path
    """A file, or a folder of files."""
    root: Path
    """The folder that the corpus lies in."""


@dataclass
class CorpusConfig(TextConfig):
    """One corpus. All that says how its files are read belongs to the task, whose digest stands for it in ids."""

    fixed: ClassVar[tuple[str, ...]] = (
        *("digest", "folders", "files", "entries", "references", "examples", "checked", "blobs", "hub", "hub_subset"),
    )

    folders: list[str] = field(default=MISSING, metadata=NOT_IN_ID)
    """Where its files lie in a folder of data; the likeliest first."""
    files: dict[str, list[str]] = field(default=MISSING, metadata=NOT_IN_ID)
    """What the file of each split may be called; the first that is there is read."""
    entries: dict[str, int] = field(default_factory=dict, metadata=NOT_IN_ID)
    """The number of entries of each split's file."""
    references: dict[str, int] = field(default_factory=dict, metadata=NOT_IN_ID)
    """The number of texts in them."""
    examples: dict[str, int] = field(default_factory=dict, metadata=NOT_IN_ID)
    """The number of examples that they become, where all options have their defaults."""
    checked: list[str] = field(default_factory=list, metadata=NOT_IN_ID)
    """The splits over which the digest is."""
    blobs: dict[str, str] = field(default_factory=dict, metadata=NOT_IN_ID)
    """The names that git gives to the files of splits, in a repository that has them: known without having them."""
    hub: str | None = field(default=None, metadata=NOT_IN_ID)
    """The data set on the hub; None where it has none."""
    hub_subset: str | None = field(default=None, metadata=NOT_IN_ID)
    """Its configuration."""

    @property
    def scored(self) -> tuple[str, ...]:
        """Dev, and test where the corpus has it."""
        return tuple(split for split in self.files if split != TRAIN)

    @abstractmethod
    def read(self, path: Path) -> list[Entry]:
        """Reads a file, or a folder of files.

        Raises:
            InputError: If it is no such file. The message names the line or entry.
        """

    @abstractmethod
    def input_of(self, entry: Entry) -> str:
        """Returns what the model reads of an entry."""

    def key_of(self, entry: Entry) -> Any:
        """Returns what entries of dev and test have in common that are one example: their input."""
        return self.input_of(entry)

    def kept(self, entry: Entry) -> tuple[str, ...]:
        """Returns the texts of an entry that are trained on or scored against: all of them."""
        return entry.texts

    def id_of(self, split: str, number: int, entry: Entry) -> str:
        """Returns the name of an example: its split and number."""
        return f"{split}-{number}"

    def document_of(self, entry: Entry, text_in: str) -> str:
        """Returns what groups examples of one source: their input."""
        return text_in

    @property
    def has_default_options(self) -> bool:
        """Tells whether the options are those for which `examples` counts."""
        return True

    def sizes(self) -> dict[str, int] | None:
        """Returns the number of examples of each split, where it is known."""
        return dict(self.examples) if self.examples and self.has_default_options else None

    @property
    def unchecked(self) -> tuple[str, ...]:
        """The splits of which the numbers alone are known."""
        return tuple(split for split in self.all_splits if split not in self.checked)

    def load(self, data: str | None, cache: str) -> Splits:
        """Reads the files.

        Args:
            data: A folder (paths.data) that holds the corpus's folder or its files; or None.
            cache: The folder that lora_repro.fetch fills (paths.cache).

        Raises:
            MissingInputError: If a file is missing, damaged, or of another version of the corpus.
        """
        entries = {split: self._entries(split, data, cache) for split in self.all_splits}
        if self.checked and (found := digest(entries, self.checked)) != self.digest:
            raise MissingInputError(
                f"task {self.name}: {', '.join(map(split_name, self.checked))} hold other texts than declared (sha256 "
                f"{found}, expected {self.digest}), although as many. It is another version, or was changed.\n"
                f"{self._remedy(cache)}"
            )
        return {split: self._examples(split, of) for split, of in entries.items()}

    def notices(self, splits: Splits) -> list[str]:
        """Says how many examples and references there are, and which inputs occur in several splits."""
        return notices.of_texts(splits)

    def fetch(self, cache: str) -> str:
        """Makes sure that the files are in the cache or in LORA_REPRO_DATA, and says where.

        Raises:
            MissingInputError: If they are not, and cannot be fetched.
        """
        from lora_repro.fetch.corpora import download

        data = os.environ.get("LORA_REPRO_DATA")
        try:
            self.load(data, cache)
            return f"present ({', '.join(str(self.place(split, data, cache).path) for split in self.all_splits)})"
        except MissingInputError:
            if self.hub is None:
                raise
        return f"fetched ({download(self, cache)})"

    def from_hub(self, split: str, rows: Iterable[dict[str, Any]]) -> dict[str, str]:
        """Returns the official files of a split, as far as they can be made of the hub's rows.

        Args:
            split: train, eval or test.
            rows: Its rows, as the library datasets reads them.

        Returns:
            The content of each file by its name.
        """
        raise NotImplementedError

    def cached(self, cache: str) -> Path:
        """Returns the folder in which `lora_repro.fetch` puts the files."""
        return Path(cache).expanduser() / "data" / self.name

    def place(self, split: str, data: str | None, cache: str) -> Found:
        """Returns where the file of a split lies.

        Raises:
            MissingInputError: If it is in none of the places.
        """
        given = [] if data is None else [Path(data).expanduser()]
        roots = [*(root / folder for root in given for folder in (*self.folders, ".")), self.cached(cache)]
        for root in roots:
            for name in self.files[split]:
                if (path := root / name).exists():
                    return Found(path, root)
        absent = [f"paths.data: there is no folder {root}.\n" for root in given if not root.is_dir()]
        looked = ", ".join(str(root / self.files[split][0]) for root in roots)
        other = f" (or {', '.join(self.files[split][1:])})" if self.files[split][1:] else ""
        raise MissingInputError(
            f"{''.join(absent)}task {self.name}: no file {self.files[split][0]}{other}: looked for {looked}."
            f"\n{self._remedy(cache)}"
        )

    def about_version(self) -> str:
        """Says which versions of the corpus there are, for whoever has another one; empty where there is one alone."""
        return ""

    def _remedy(self, cache: str) -> str:
        folder = (
            f"{self.about_version()}Give the folder that holds {self.folders[0]}/{self.files[TRAIN][0]} and the other "
            "files: paths.data=DIR, or the variable LORA_REPRO_DATA"
        )
        return folder if self.hub is None else f"{folder}.\nOr fetch it from the hub: {fetch_command(self.name, cache)}"

    def _entries(self, split: str, data: str | None, cache: str) -> list[Entry]:
        path = self.place(split, data, cache).path
        try:
            self._refuse_other_blob(split, path)
            found = self.read(path)
            counted = {"entries": len(found), "texts": sum(len(entry.texts) for entry in found)}
            for what, declared in (("entries", self.entries), ("texts", self.references)):
                if split in declared and counted[what] != declared[split]:
                    raise InputError(
                        f"{path}: it has {counted[what]:,} {what}, and {self.name} has {declared[split]:,} there."
                    )
        except OSError as error:
            raise MissingInputError(describe_os_error(error)) from None
        except InputError as error:
            raise MissingInputError(f"task {self.name}: {error}\n{self._remedy(cache)}") from None
        return found

    def _refuse_other_blob(self, split: str, path: Path) -> None:
        """Refuses a file of which nothing is known but its name in git, if it is another one.

        Raises:
            InputError: With both names.
        """
        if split not in self.blobs or split in self.entries:
            return
        names = blob_names(path.read_bytes())
        if self.blobs[split] not in names:
            raise InputError(
                f"{path}: is another file than the one of this version (git calls it {names[0]}, expected "
                f"{self.blobs[split]})."
            )

    def _examples(self, split: str, entries: Sequence[Entry]) -> list[Example]:
        found: list[Example] = []
        of_key: dict[Any, Example] = {}
        for entry in entries:
            texts, text_in = self.kept(entry), self.input_of(entry)
            document = self.document_of(entry, text_in)
            if split == TRAIN:
                for text in texts:
                    found.append(Example(self.id_of(split, len(found), entry), text_in, [text], document))
            elif texts:
                key = self.key_of(entry)
                if key not in of_key:
                    of_key[key] = Example(self.id_of(split, len(found), entry), text_in, [], document)
                    found.append(of_key[key])
                of_key[key].target.extend(texts)
        return found


def listed(value: Any) -> list[dict[str, Any]]:
    """Returns a list of objects, which some versions of datasets give as an object of lists."""
    if not isinstance(value, dict):
        return list(value)
    return [dict(zip(value, each, strict=True)) for each in zip(*value.values(), strict=True)]


def clean(text: str) -> str:
    """Returns a text with single spaces, and none at its ends."""
    return " ".join(text.split())


def digest(entries: dict[str, list[Entry]], checked: Sequence[str]) -> str:
    """Returns the sha256 over what the files of some splits say; the amount of white space does not count."""
    found = hashlib.sha256()
    for split in checked:
        for entry in entries[split]:
            found.update(json.dumps([split, *_cleaned(list(entry))]).encode() + b"\n")
    return found.hexdigest()


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    return [_cleaned(each) for each in value] if isinstance(value, list | tuple) else value


def blob_names(content: bytes) -> list[str]:
    """Returns how git names a file: as it is, and with the line ends of Unix and of Windows."""
    unix = content.replace(b"\r\n", b"\n")
    forms = (content, unix, unix.replace(b"\n", b"\r\n"))
    return [hashlib.sha1(b"blob %d\0" % len(form) + form, usedforsecurity=False).hexdigest() for form in forms]
