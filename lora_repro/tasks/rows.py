"""Reads CSV, TSV, JSON and Parquet files into named columns, with the values as they stand in the file. No torch.

Nothing is guessed: "NA", "None" and "null" of a CSV file are texts, "007" keeps its zeros, and no row is left out but
lines without a single character. What does not fit is refused with its line.
"""

import codecs
import csv
import io
import json
import re
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from lora_repro.errors import InputError, MissingInputError, describe_os_error, did_you_mean, shown


class Format(str, Enum):
    """How rows are written in a file."""

    csv = "csv"
    tsv = "tsv"
    json = "json"
    """One list of objects, or as jsonl."""
    jsonl = "jsonl"
    """An object a line."""
    parquet = "parquet"


SUFFIXES = {
    ".csv": Format.csv,
    ".tsv": Format.tsv,
    ".tab": Format.tsv,
    ".json": Format.json,
    ".jsonl": Format.jsonl,
    ".ndjson": Format.jsonl,
    ".parquet": Format.parquet,
}
"""Formats by the end of a file's name."""


@dataclass
class Rows:
    """The rows of a file, column by column."""

    name: str
    """What messages call the file."""
    columns: dict[str, list[Any]]
    """Values in the order of the rows: texts from CSV and TSV, what JSON and Parquet hold otherwise."""
    lines: Sequence[int]
    """The line of the file on which each row begins, from 1; in Parquet and in a JSON list the row's number."""
    unit: str = "line"
    """What `lines` counts: lines or rows."""
    classes: dict[str, list[str]] = field(default_factory=dict)
    """The names behind the numbers of a column, in a Parquet file that datasets has written (ClassLabel)."""
    long: dict[int, int] = field(default_factory=dict)
    """How many lines rows take that have line breaks in a text in quotes, by the line on which they begin."""

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self.lines)

    def __getitem__(self, column: str) -> list[Any]:
        """Returns the values of a column.

        Raises:
            InputError: If there is none of this name; it lists those that are there.
        """
        if column not in self.columns:
            raise no_column(self.name, column, list(self.columns))
        return self.columns[column]

    def place(self, row: int) -> str:
        """Says where a row stands: `mine.csv, line 17`."""
        return f"{self.name}, {self.unit} {self.lines[row]}"


def no_column(name: str, column: str, columns: Sequence[str]) -> InputError:
    """Says that a file has no such column, and which it has."""
    here = ", ".join(map(repr, map(shown, columns)))
    hint = did_you_mean(column, columns)
    if len(columns) == 1 and (found := re.search(r"[;\t|,]", columns[0])):
        hint = f' If columns are separated by {found[0]!r} in this file, give "task.delimiter={found[0]!r}".'
    return InputError(f"{name}: there is no column {column!r}.{hint}\nColumns here: {here}.")


def format_of(name: str) -> Format:
    """Returns the format that the end of a file's name stands for.

    Raises:
        InputError: If it stands for none.
    """
    found = SUFFIXES.get(Path(name).suffix.lower())
    if found is None:
        raise InputError(
            f"{name}: its name does not say how rows are written in it (known: {', '.join(SUFFIXES)}).\n"
            "Say it, such as task.format=tsv, or save it as one of these."
        )
    return found


def read_rows(
    source: str | Path | bytes,
    name: str,
    format: Format,
    *,
    quotes: bool | None = None,
    columns: Sequence[str] | None = None,
    only: Sequence[str] | None = None,
    optional: Sequence[str] = (),
    encoding: str = "utf-8",
    delimiter: str | None = None,
    has_options: bool = True,
) -> Rows:
    r"""Reads a file into columns.

    Args:
        source: The file, or its content.
        name: What messages call it.
        format: How rows are written in it.
        quotes: CSV and TSV: whether "..." encloses a field, which may then hold delimiters, line breaks and "" for ".
            False: a quote is a character as any other, and each line is a row (csv.QUOTE_NONE, for GLUE's files).
            None: true for CSV; a TSV file in which it matters is refused.
        columns: CSV and TSV: names of the columns of a file without a header; None: the first row has them.
        only: The columns that are kept, and must be there; None: all.
        optional: Columns that are kept beside `only` where they are there.
        encoding: Of CSV, TSV and JSON. A byte order mark is no part of the text.
        delimiter: CSV and TSV: between fields; None: a comma or a tab.
        has_options: Whether the task lets its user say how the file is to be read (task.quotes, task.encoding ...), so
            that messages may advise it.

    Raises:
        MissingInputError: If the file cannot be read.
        InputError: If its content is no such table. The message names the line.
    """
    if not isinstance(source, bytes):
        try:
            source = Path(source).read_bytes()
        except OSError as error:
            raise MissingInputError(describe_os_error(error)) from None
    try:
        return _read(source, name, format, quotes, columns, _Wanted(only, optional), encoding, delimiter)
    except _UnreadableError as error:
        raise InputError(f"{error}\n{error.advice if has_options else 'The file is damaged or another.'}") from None


def read_json(path: Path, name: str) -> Any:
    """Returns what a JSON file in UTF-8 holds, whatever it is; no object in it has a key twice.

    Args:
        path: The file.
        name: What messages call it.

    Raises:
        MissingInputError: If the file cannot be read.
        InputError: If it is no JSON. The message names the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MissingInputError(describe_os_error(error)) from None
    if not content:
        raise InputError(f"{name}: the file is empty.")
    return _parsed(_decoded(content, name, "utf-8"), name, 0)


class _UnreadableError(InputError):
    """A file that could perhaps be read otherwise."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(problem)
        self.advice = advice


def _read(
    source: bytes,
    name: str,
    format: Format,
    quotes: bool | None,
    columns: Sequence[str] | None,
    wanted: "_Wanted",
    encoding: str,
    delimiter: str | None,
) -> Rows:
    if not source:
        raise InputError(f"{name}: the file is empty.")
    if format is Format.parquet:
        return _parquet(source, name, wanted)
    text = _decoded(source, name, encoding)
    if format in (Format.json, Format.jsonl):
        return _json(text, name, format, wanted)
    delimiter = delimiter if delimiter is not None else "," if format is Format.csv else "\t"
    if quotes is None:
        quotes = format is Format.csv
        if not quotes and (found := re.search(rf'(?:^|{re.escape(delimiter)})"', text, re.MULTILINE)):
            raise _UnreadableError(
                f"{name}, {_line(text, found.start())}: a field begins with a quote. Does it belong to the text, or "
                "does it enclose the field?",
                "Say it: task.quotes=false (text, as in the files of GLUE), or "
                "task.quotes=true (as pandas and Excel write files).",
            )
    lines = _with_quotes(text, name, delimiter) if quotes else _without_quotes(text, delimiter)
    return _table(lines, name, columns, wanted, quotes)


def _decoded(content: bytes, name: str, encoding: str) -> str:
    try:
        text = content.decode(encoding)
    except LookupError:
        raise InputError(
            f"task.encoding: Python knows no {encoding!r}. Examples: utf-8, cp1252 (Windows), latin-1, utf-16."
        ) from None
    except UnicodeError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            guess = "utf-16"
        else:
            guess = "cp1252" if codecs.lookup(encoding).name in ("utf-8", "utf-8-sig") else "utf-8"
        line = content.count(b"\n", 0, start) + 1
        raise _UnreadableError(
            f"{name}, line {line}: is not in {encoding} (found: {content[max(0, start - 20) : start + 10]!r}).",
            f"Give the file's encoding, such as task.encoding={guess}, or save the file as UTF-8.",
        ) from None
    text = text.removeprefix("\ufeff")
    if (at := text.find("\0")) >= 0:
        raise _UnreadableError(
            f"{name}, {_line(text, at)}: holds a NUL character, which no text has.",
            "The file is damaged, or in another encoding (task.encoding=utf-16?).",
        )
    if not text.strip():
        raise InputError(f"{name}: the file is empty but for white space.")
    return text


def _line(text: str, at: int) -> str:
    return f"line {text.count(chr(10), 0, at) + 1}"


Line = tuple[int, list[str], int]
"""Where a row begins, its fields, and how many lines it takes."""


def _without_quotes(text: str, delimiter: str) -> Iterator[Line]:
    """Divides at line feeds alone: a text may hold other characters that Python's splitlines takes for line breaks."""
    for number, line in enumerate(text.split("\n"), start=1):
        if row := line.removesuffix("\r"):
            yield number, row.split(delimiter), 1


def _with_quotes(text: str, name: str, delimiter: str) -> Iterator[Line]:
    limit = csv.field_size_limit(sys.maxsize)  # else a text of 131,072 characters is refused
    start = 1
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        for fields in reader:
            if fields:
                yield start, fields, reader.line_num - start + 1
            start = reader.line_num + 1
    except csv.Error as error:
        raise _UnreadableError(
            f"{name}, line {start}: the quotes of the row that begins here are not balanced ({error}).",
            'A quote inside a quoted text is written "". If quotes enclose no fields in this file, give '
            "task.quotes=false.",
        ) from None
    finally:
        csv.field_size_limit(limit)


def _table(lines: Iterator[Line], name: str, columns: Sequence[str] | None, wanted: "_Wanted", quotes: bool) -> Rows:
    names = list(columns) if columns is not None else next(lines)[1]
    _refuse_duplicates(name, names)
    try:
        kept = wanted.among(name, names)
    except InputError as error:
        if columns is not None:
            raise
        raise _UnreadableError(
            str(error), "If its first row is no header, name the columns: 'task.header=[a,b]'"
        ) from None
    # Columns without a name cannot be asked for: pandas writes its index as one, spreadsheets add empty ones.
    picked = [(names.index(column), []) for column in kept if column]
    width, numbers, long = len(names), array("q"), dict[int, int]()
    for number, fields, height in lines:
        if columns is not None and fields == names and not numbers:
            raise _UnreadableError(
                f"{name}, line {number}: the first row has the names of the columns, which are given too.",
                "Leave task.header out.",
            )
        if len(fields) != width:
            remedy = (
                "A delimiter or a line break inside a text needs quotes around the text."
                if quotes
                else "If quotes enclose fields in this file, give task.quotes=true."
            )
            raise _UnreadableError(
                f"{name}, line {number}: {len(fields)} fields, and there are {width} columns "
                f"({shown(', '.join(names))}).\nFound: {shown(fields)}",
                remedy,
            )
        for index, values in picked:
            values.append(fields[index])
        numbers.append(number)
        if height > 1:
            long[number] = height
    if not numbers:
        raise InputError(f"{name}: there is a header ({shown(', '.join(names))}) and no row.")
    return Rows(name, {names[index]: values for index, values in picked}, numbers, long=long)


def _refuse_duplicates(name: str, names: Sequence[str]) -> None:
    twice = sorted({column for column in names if column and names.count(column) > 1})
    if twice:
        raise InputError(
            f"{name}: two columns are called {twice[0]!r} (columns: {shown(', '.join(names))}).\nRename one of them."
        )


class _Wanted(NamedTuple):
    """The columns that are asked for."""

    only: Sequence[str] | None
    optional: Sequence[str]

    def among(self, name: str, names: Sequence[str]) -> list[str]:
        """Returns the columns to keep of those that a file has; refuses the file if one is missing."""
        if self.only is None:
            return list(names)
        for column in self.only:
            if column not in names:
                raise no_column(name, column, names)
        return list(dict.fromkeys([*self.only, *(column for column in self.optional if column in names)]))


def _json(text: str, name: str, format: Format, wanted: _Wanted) -> Rows:
    if format is Format.json and text.lstrip()[0] == "[":
        entries = _parsed(text, name, 0)
        return _objects(((i, entry) for i, entry in enumerate(entries, start=1)), name, "row", wanted)
    lines = enumerate(text.split("\n"), start=1)
    return _objects(((i, _parsed(line, name, i)) for i, line in lines if line.strip()), name, "line", wanted)


def _parsed(text: str, name: str, line: int) -> Any:
    """Parses a line of a file, or the whole where `line` is 0."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{name}, line {line or error.lineno}: is not JSON ({error.msg} at character {error.colno}).\n"
            f"Found: {shown(text.splitlines()[error.lineno - 1] if text.strip() else text)}"
        ) from None
    except ValueError as error:
        place = f", line {line}" if line else ""
        raise InputError(f"{name}{place}: {error}.") from None
    except RecursionError:
        raise InputError(f"{name}, line {line or 1}: is nested too deeply.") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"an object has the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return found


def _objects(entries: Iterator[tuple[int, Any]], name: str, unit: str, wanted: _Wanted) -> Rows:
    """Turns objects into columns: those of the first object, which the others must have too.

    Optional columns are those that any object has; where one lacks them it has None.
    """
    numbers = array("q")
    optional: dict[str, list[Any]] = {column: [] for column in wanted.optional if column not in (wanted.only or ())}
    seen: set[str] = set()
    columns: dict[str, list[Any]] | None = None
    whole = set()
    for number, entry in entries:
        if not isinstance(entry, dict):
            raise InputError(
                f"{name}, {unit} {number}: must be an object with named values (found: {shown(json.dumps(entry))}).\n"
                'Example: {"text": "a text", "label": 1}'
            )
        if columns is None:
            columns = {column: [] for column in wanted.among(name, list(entry)) if column not in optional}
            whole = set(entry)
        try:
            for column, values in columns.items():
                values.append(entry[column])
        except KeyError as error:
            raise InputError(
                f"{name}, {unit} {number}: there is no {error.args[0]!r}, which the first row has "
                f"(found: {shown(', '.join(entry))})."
            ) from None
        for column, values in optional.items():
            values.append(entry.get(column))
        seen.update(entry)
        if wanted.only is None and len(entry) != len(whole):
            more = next(key for key in entry if key not in whole)
            raise InputError(f"{name}, {unit} {number}: there is a {more!r}, which the first row does not have.")
        numbers.append(number)
    if columns is None:
        raise InputError(f"{name}: the list is empty.")
    return Rows(name, columns | {column: of for column, of in optional.items() if column in seen}, numbers, unit)


def _parquet(content: bytes, name: str, wanted: _Wanted) -> Rows:
    from pyarrow import ArrowException, BufferReader, parquet

    try:
        file = parquet.ParquetFile(BufferReader(content))
        names = file.schema_arrow.names
        _refuse_duplicates(name, names)
        kept = wanted.among(name, names)
        table = file.read(columns=kept)
        columns = {column: table.column(column).to_pylist() for column in kept}
    except (ArrowException, OSError) as error:
        raise InputError(
            f"{name}: is no Parquet file that can be read ({shown(error)}).\nThe file is damaged, or its name is wrong."
        ) from None
    if not table.num_rows:
        raise InputError(f"{name}: there are columns ({shown(', '.join(names))}) and no row.")
    return Rows(name, columns, range(1, table.num_rows + 1), "row", _classes(file.schema_arrow.metadata))


def _classes(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Returns the class names that datasets keeps in a file's metadata, by column."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {
            str(column): [*map(str, kind["names"])]
            for column, kind in features.items()
            if isinstance(kind, dict) and kind.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
