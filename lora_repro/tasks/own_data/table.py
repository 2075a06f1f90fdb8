"""Data of one's own in files: task=table paths.data=mine.csv task.text=review task.label=stars. No torch.

One example, from a CSV file with the columns review and stars: input "The lid broke on the first day.", label "1".
docs/own_data.md shows what can be given.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lora_repro.config.identity import NOT_IN_ID
from lora_repro.errors import InputError, shown
from lora_repro.tasks.own_data import arrow_rows
from lora_repro.tasks.own_data.base import OwnConfig
from lora_repro.tasks.own_data.files import Found, find_files, refuse_split_names, split_names, versions
from lora_repro.tasks.own_data.shares import SPLITS
from lora_repro.tasks.own_data.sheets import Part
from lora_repro.tasks.rows import Format, Rows, format_of, read_rows


@dataclass
class TableConfig(OwnConfig):
    """Files with rows."""

    splits: dict[str, str | None] = field(default_factory=lambda: dict.fromkeys(SPLITS), metadata=NOT_IN_ID)
    """Files of train, eval and test in the folder paths.data (null: by their names, or one file is divided); of a
    folder that datasets has saved, its splits."""
    format: Format | None = field(default=None, metadata=NOT_IN_ID)
    """How the rows are written (null: as the end of the file's name says)."""
    quotes: bool | None = field(default=None, metadata=NOT_IN_ID)
    """Whether "..." encloses a field (null: yes in CSV; a TSV file in which it matters is refused)."""
    delimiter: str | None = field(default=None, metadata=NOT_IN_ID)
    """Between the fields (null: a comma in CSV, a tab in TSV)."""
    header: list[str] = field(default_factory=list, metadata=NOT_IN_ID)
    """Names of the columns of CSV and TSV files without a header."""
    encoding: str = field(default="utf-8", metadata=NOT_IN_ID)

    @property
    def asked(self) -> list[str]:
        """The fields that decide what is read."""
        return [*super().asked, "splits", "format", "quotes", "delimiter", "header", "encoding"]

    @property
    def given_splits(self) -> dict[str, str]:
        """The splits whose files are named."""
        return {split: name for split, name in self.splits.items() if name is not None}

    def refuse_columns(self) -> None:
        """Refuses a choice of columns or files that is none.

        Raises:
            InputError: Naming the key.
        """
        super().refuse_columns()
        refuse_split_names(self.given_splits)
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise InputError(
                f"task.delimiter: must be one character (given: {self.delimiter!r}).\nA tab is task.format=tsv."
            )

    def fetch(self, cache: str) -> str:
        """Says that there is nothing to fetch."""
        return "your own files (paths.data), nothing to fetch"

    def version(self, data: str | None, cache: str) -> str:
        """Returns the names, sizes and times of the files."""
        return versions(self._found(data).files)

    def read(self, data: str | None, cache: str, told: list[str]) -> dict[str, Part]:
        """Reads the rows of each split."""
        found = self._found(data)
        if found.is_saved:
            return self._saved(Path(data or "").expanduser(), told)
        read = {split: self._rows(found, split, paths) for split, paths in found.files.items()}
        for rows in (rows for of in read.values() for rows in of):
            told += self._doubts(rows)
        return {split: self._part(rows) for split, rows in read.items()}

    def _doubts(self, rows: Rows) -> list[str]:
        """Says what may be other rows than it seems: texts over several lines, and a header among the rows."""
        found, labels = [], rows.columns.get(self.columns.optional[0], [])
        if rows.long:
            longest = max(rows.long, key=lambda line: rows.long[line])
            found.append(
                f"{rows.name}: {len(rows.long):,} rows take several lines, as a quote begins a text; the longest "
                f"{rows.long[longest]:,}, from line {longest}. If that quote is a part of the text: task.quotes=false."
            )
        if self.header and self.target is None and len(labels) > 1 and labels[0] not in labels[1:]:
            found.append(
                f"{rows.name}: the label of the first row ({shown(labels[0])}) is in no other row. If it is the name "
                "of the column, leave task.header out."
            )
        return found

    def _part(self, rows: list[Rows]) -> Part:
        """Calls classes by their names, where Parquet files say them."""
        label = self.columns.optional[0]
        labelled = [each for each in rows if label in each.columns]
        declared = [each.classes.get(label, []) for each in labelled]
        for each, names in zip(labelled, declared, strict=True):
            if names != declared[0]:
                ours, theirs = (shown(", ".join(of)) or "of no names" for of in (names, declared[0]))
                raise InputError(
                    f"{each.name}: its {label!r} has the classes {ours}, and that of {labelled[0].name} {theirs}, so "
                    "one number may mean two things.\nWrite both files by the same tool, or the labels as texts."
                )
            if names:
                each.columns[label] = arrow_rows.named(each.columns[label], names)
        return Part(rows, declared[0] if declared else [])

    def _found(self, data: str | None) -> Found:
        return find_files(data, self.given_splits, any_name=self.format is not None)

    def _rows(self, found: Found, split: str, paths: Sequence[Path]) -> list[Rows]:
        only, optional = self.columns
        only, optional = (only, optional) if split == "test" else ([*only, *optional], [])
        each = []
        for path in paths:
            name = path.relative_to(found.root).as_posix()
            each.append(
                read_rows(
                    path, name, self.format if self.format is not None else format_of(name), quotes=self.quotes,
                    columns=self.header or None, only=only, optional=optional, encoding=self.encoding,
                    delimiter=self.delimiter,
                )
            )  # fmt: skip
        return each

    def _saved(self, folder: Path, told: list[str]) -> dict[str, Part]:
        found = arrow_rows.saved(folder, *self.columns, self.columns.optional[0])
        if "" in found and self.given_splits:
            raise InputError(f"task.splits: {folder} has no splits (given: {self.given_splits}).\nLeave it out.")
        names = {"": ""} if "" in found else split_names(str(folder), [*found], self.splits, told)
        return {split: Part([found[name].rows], found[name].names) for split, name in names.items()}
