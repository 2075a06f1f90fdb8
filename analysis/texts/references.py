"""References of examples, in the forms in which they are published or written for the official scripts."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from analysis.texts import wikisql
from analysis.texts.lines import TRAILING, lines_of
from analysis.texts.tables import REFERENCE, SOURCE, column_among, read_columns
from lora_repro.errors import InputError, shown
from lora_repro.tasks.corpora.base import CorpusConfig
from lora_repro.tasks.corpora.dart import DartConfig
from lora_repro.tasks.corpora.webnlg import WebnlgConfig
from lora_repro.tasks.rows import Format, Rows, read_json, read_rows

NUMBERED = re.compile(r"(.*reference)(\d+)(\.\w+)?")
"""One of the files in which GenerationEval and DART's script have the first references, the second and so on."""
AUTHORS_SEPARATOR = "||"
"""Between meaning and text in the authors' files of E2E."""
TEXTS = ("summary", "output")
"""Where objects of SAMSum and Alpaca have their one reference."""
FIELDS = ("summary", "references", "sql", "output", "text")
"""What objects are read for. In `text` WikiSQL has a query behind its question, and Alpaca what `output` has too."""
ID = "id"
"""The column of their names."""
FORMS = (
    "lines (examples divided by empty lines, or a reference a line), the authors' `meaning||text`, CSV or TSV with the "
    "columns mr and ref, a folder with reference0, reference1 ..., JSON of WebNLG, DART, SAMSum or Alpaca, or with a "
    "list of references an example, XML of WebNLG (or a folder of it), JSONL of WikiSQL"
)


class Example(NamedTuple):
    """What is right for one input."""

    references: list[str]
    """Empty where the corpus marks all of them as to be fixed; the example does not count."""
    place: str
    """Where in its file it stands."""
    input: str = ""
    """What is put into words, where the file says it; equal for examples that may be taken for one."""
    category: str = ""
    """Of WebNLG."""
    id: str = ""
    """What its file calls it, if it does."""


class References(NamedTuple):
    """All examples of a file."""

    name: str
    examples: list[Example]
    notes: list[str]
    """What a reader of the scores must know."""


def read_references(path: Path) -> References:
    """Reads references in whichever of FORMS they are.

    Raises:
        InputError: If there is no such file, it has none of these forms, or an example has no reference. The message
            names the place.
    """
    if numbered := _numbered_files(path):
        return _of_numbered_files(numbered)
    if path.is_dir() and any(path.rglob("*.xml")):
        return _checked(path, _of_corpus(WebnlgConfig(), path))
    if path.is_dir():
        raise InputError(f"{path}: is a folder without a file reference0.\nForms of references: {FORMS}.")
    suffix = path.suffix.lower()
    if suffix == ".xml":
        return _checked(path, _of_corpus(WebnlgConfig(), path))
    if suffix == ".json":
        return _checked(path, _of_json(path))
    if suffix in (".jsonl", ".ndjson"):
        return _checked(path, _of_rows(path, Format.jsonl))
    if suffix in (".csv", ".tsv"):
        return _checked(path, _of_table(read_columns(path)))
    return _checked(path, _of_lines(path))


def _checked(path: Path, examples: Iterable[Example]) -> References:
    found = list(examples)
    if not found:
        raise InputError(f"{path}: has no example.\nForms of references: {FORMS}.")
    marked = [example for example in found if not example.references]
    for example in marked:
        if not example.category or len(marked) == len(found):
            raise InputError(f"{path}, {example.place}: there is no reference.\nEach example needs one.")
    note = (
        f"{path}: {len(marked):,} of {len(found):,} entries do not count, as all of their texts are marked as to be "
        f"fixed ({shown(', '.join(example.place for example in marked))})."
    )
    return References(str(path), found, [note] if marked else [])


def _numbered_files(path: Path) -> list[Path]:
    """Returns reference0, reference1 ... of a folder, or of the beginning of their names (`DIR/reference`)."""
    folder = path if path.is_dir() else path.parent
    files: dict[tuple[str, str], dict[int, Path]] = {}
    for each in folder.iterdir() if folder.is_dir() else ():
        if each.is_file() and (read := NUMBERED.fullmatch(each.name)):
            files.setdefault((read[1], read[3] or ""), {})[int(read[2])] = each
    if path != folder:
        files = {key: found for key, found in files.items() if key[0] == path.name}
    if len(files) > 1:
        several = ", ".join(f"{first}0{last}" for first, last in sorted(files))
        raise InputError(
            f"{path}: there are several sets of references ({several}).\nGive one: {folder}/{min(files)[0]}"
        )
    found = next(iter(files.values()), {})
    if found and sorted(found) != list(range(len(found))):
        raise InputError(
            f"{path}: reference{min(set(range(len(found))) - set(found))} is missing among {len(found)} files."
        )
    return [found[i] for i in range(len(found))]


def _of_numbered_files(files: list[Path]) -> References:
    """Reads a line of each file for an example; an empty one says that it has no further reference."""
    columns = [lines_of(path) for path in files]
    for path, lines in zip(files, columns, strict=True):
        if len(lines) != len(columns[0]):
            raise InputError(
                f"{path}: has {len(lines):,} lines, and {files[0].name} has {len(columns[0]):,}.\nWhere an example has "
                "no further reference its line is empty, and a newline ends it, as it ends the others."
            )
    examples = []
    for number, texts in enumerate(zip(*columns, strict=True), 1):
        if not any(texts):
            more = TRAILING if number == len(columns[0]) else "Each example needs a reference."
            raise InputError(f"{files[0]}, line {number}: is empty in {_files(files)}.\n{more}")
        examples.append(Example([text for text in texts if text], f"line {number}"))
    fewer = sum(len(example.references) < len(files) for example in examples)
    note = (
        f"{files[0].parent}: {fewer:,} of {len(examples):,} examples have an empty line in some of {len(files)} files, "
        "which is no reference."
    )
    return References(str(files[0].parent), examples, [note] if fewer else [])


def _files(files: list[Path]) -> str:
    return files[0].name if len(files) == 1 else f"all of {files[0].name} to {files[-1].name}"


def _of_corpus(corpus: CorpusConfig, path: Path) -> Iterator[Example]:
    """Reads the file of a corpus as the task does; a text that WebNLG marks as one to be fixed does not count."""
    for number, entry in enumerate(corpus.read(path), 1):
        category = entry.facts[0] if isinstance(corpus, WebnlgConfig) else ""
        yield Example(list(corpus.kept(entry)), f"entry {number}", str(corpus.key_of(entry)), category)


def _of_json(path: Path) -> Iterable[Example]:
    content = read_json(path, str(path))
    if isinstance(content, dict) and "entries" in content:
        return _of_corpus(WebnlgConfig(), path)
    if isinstance(content, list) and content and isinstance(content[0], dict) and "tripleset" in content[0]:
        return _of_corpus(DartConfig(), path)
    if isinstance(content, list) and content and isinstance(content[0], str | list):
        return _of_lists(path, content)
    return _of_rows(path, Format.json)


def _of_lists(path: Path, content: Sequence[Any]) -> Iterator[Example]:
    """Reads a list with the references of each example: a text, or a list of texts."""
    for number, given in enumerate(content, 1):
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
            raise InputError(
                f"{path}, entry {number}: must be a text, or a list of texts (found: {shown(given)}).\n"
                'Example: [["a reference", "another one"], ["the only one"]]'
            )
        yield Example([text.strip() for text in texts], f"entry {number}")


def _of_rows(path: Path, format: Format) -> Iterator[Example]:
    """Reads objects of SAMSum, Alpaca or WikiSQL; what else is in them need not be in all of them."""
    rows = read_rows(path, str(path), format, only=[], optional=(*FIELDS, ID), has_options=False)
    names = rows.columns.get(ID, [None] * len(rows))
    key = next((name for name in FIELDS if name in rows.columns), None)
    if key is None or (key == "text" and not any(map(wikisql.has_query, rows[key]))):
        raise InputError(
            f"{rows.name}: has no references that are known here (looked for: {', '.join(FIELDS)}).\n"
            f"Forms of references: {FORMS}."
        )
    for row, given in enumerate(rows[key]):
        place = rows.place(row).rpartition(", ")[2]
        if given is None:
            raise InputError(f"{rows.place(row)}: there is no {key!r}, which other rows have.")
        name = "" if names[row] is None else str(names[row])
        if key in TEXTS:
            if not isinstance(given, str) or not given.strip():
                raise InputError(f"{rows.place(row)}: {key} must be a text (given: {shown(given)}).")
            yield Example([given.strip()], place, id=name)
        elif key == "references":
            texts = [given] if isinstance(given, str) else given
            if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
                raise InputError(f"{rows.place(row)}: references must be a list of texts (given: {shown(given)}).")
            yield Example(texts, place, id=name)
        else:
            yield Example([wikisql.reference(rows, row)], place, id=name)


def _of_table(rows: Rows) -> Iterator[Example]:
    """Reads a row a reference. Rows with the same meaning that follow each other are one example, as in e2e-metrics."""
    sources, texts = (rows[column_among(rows, names)] for names in (SOURCE, REFERENCE))
    return _grouped(
        (source, text, rows.place(row)) for row, (source, text) in enumerate(zip(sources, texts, strict=True))
    )


def _grouped(rows: Iterable[tuple[str, str, str]]) -> Iterator[Example]:
    example = None
    for source, text, place in rows:
        if not text.strip():
            raise InputError(f"{place}: the reference is empty. A text of no words would count as one of length 0.")
        if example is not None and source == example.input:
            example.references.append(text.strip())
            continue
        if example is not None:
            yield example
        example = Example([text.strip()], place.rpartition(", ")[2], source)
    if example is not None:
        yield example


def _of_lines(path: Path) -> Iterable[Example]:
    lines = lines_of(path)
    while lines and not lines[-1]:
        del lines[-1]
    pairs = [line.partition(AUTHORS_SEPARATOR) for line in lines]
    first = next((number for number, (_, separator, _) in enumerate(pairs, 1) if separator), None)
    other = next((number for number, (text, separator, _) in enumerate(pairs, 1) if text and not separator), None)
    if first is not None and other is not None:
        raise InputError(
            f"{path}, line {other}: has no {AUTHORS_SEPARATOR} as line {first} has, so what is input and what is "
            "reference is not said.\nGive one form in all lines."
        )
    if pairs and all(separator for _, separator, _ in pairs):
        # gpt2_decode.py collects the references of a meaning wherever they stand
        of_meaning: dict[str, Example] = {}
        for number, (meaning, _, text) in enumerate(pairs, 1):
            if not text.strip():
                raise InputError(f"{path}, line {number}: there is no reference after {AUTHORS_SEPARATOR}.")
            of_meaning.setdefault(meaning, Example([], f"line {number}", meaning)).references.append(text.strip())
        return list(of_meaning.values())
    if "" not in (written := "\n".join(lines).strip("\n").split("\n")):
        return [Example([line], f"line {number}") for number, line in enumerate(lines, 1) if line]
    examples = [Example([], "line 1")]
    for number, line in enumerate(written, lines.index(written[0]) + 1):
        if line:
            examples[-1].references.append(line)
        elif examples[-1].references:
            examples.append(Example([], f"line {number + 1}"))
        else:
            raise InputError(f"{path}, line {number}: a second empty line, so an example without a reference.")
    return examples
