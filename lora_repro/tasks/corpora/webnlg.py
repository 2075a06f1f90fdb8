"""WebNLG 2017 (Gardent et al.): triples of DBpedia are put into words.

One example: "Abilene_Regional_Airport | cityServed | Abilene,_Texas", category Airport, with the texts "Abilene, Texas
is served by the Abilene regional airport." and "Abilene Regional Airport serves the city of Abilene in Texas."

It is read from the JSON files that the authors of LoRA ship or from the XML files of the release, which hold the same
entries in the same order. Test has five categories that train does not have: each metric is also computed for the seen
and for the unseen ones. As in the authors' code the triples are written "subject : property : object | ...", and texts
that the release marks as to be fixed are left out.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from lora_repro.errors import InputError, shown
from lora_repro.tasks.corpora.base import CorpusConfig, Entry, clean, listed
from lora_repro.tasks.corpora.objects import field, top, triple
from lora_repro.tasks.corpora.triples import with_bars, with_tags
from lora_repro.tasks.parts import Parts
from lora_repro.tasks.rows import read_json
from lora_repro.tasks.targets import Example, Targets, Texts
from lora_repro.tasks.text_metrics import protocols

SEEN = frozenset(
    {
        *("Airport", "Astronaut", "Building", "City", "ComicsCharacter", "Food", "Monument", "SportsTeam"),
        *("University", "WrittenWork"),
    }
)
"""The categories of train. The paper speaks of nine seen ones, the authors' code lists these ten."""
KEYS = ("subject", "property", "object")
"""What the JSON form calls the parts of a triple."""
TEST_FILE = "testdata_with_lex.xml"
"""Of the three official test files the one that holds all entries with their texts."""
GOOD = "good"
"""The mark of a text that is not to be fixed."""


class Linearisation(str, Enum):
    """How triples are written for the model."""

    authors = "authors"
    """a : b : c | d : e : f: as the models of Table 14 read it (format_converting_webnlg.py)."""
    prefix_tuning = "prefix_tuning"
    """| a : b : c | d : e : f: as Li and Liang's baselines of Table 14 read all entries but the first."""
    tags = "tags"
    """<H> a <R> b <T> c <H> d <R> e <T> f: as the code that comes with DART writes triples, in readable words."""


@dataclass
class WebnlgConfig(CorpusConfig):
    """The pairs of train, and the entries of dev and test with all their texts."""

    linearisation: Linearisation = Linearisation.authors
    with_marked: bool = False
    """Whether texts are kept that the release marks as to be fixed: 77 of train and 10 of dev. The authors' code leaves
    them out, and with them five entries of train and one of dev that have no others."""

    @property
    def targets(self) -> Targets:
        """Texts, scored as a whole and for the seen and unseen categories."""
        return Parts(Texts(*protocols.WEBNLG.declared), ("seen", "unseen"), part_of)

    @property
    def has_default_options(self) -> bool:
        """Tells whether marked texts are left out."""
        return not self.with_marked

    def read(self, path: Path) -> list[Entry]:
        """Reads JSON, an XML file, or a folder of XML files in the order of their names.

        Of the official folder of test files the one with all entries and their texts is read.
        """
        if path.is_dir():
            files = sorted(path.glob("*/*.xml")) or sorted(path.glob("*.xml"))
            if not files:
                raise InputError(f"{path}: there is no XML file in it.")
            files = [file for file in files if file.name == TEST_FILE] or files
            by_file = {file: _of_xml(file) for file in files}
            _refuse_repeated(by_file)
            return [entry for entries in by_file.values() for entry in entries]
        return _of_xml(path) if path.suffix == ".xml" else _of_json(path)

    def input_of(self, entry: Entry) -> str:
        """Writes the triples."""
        triples = entry.facts[1]
        if self.linearisation is Linearisation.tags:
            return with_tags(triples)
        return f"| {with_bars(triples)}" if self.linearisation is Linearisation.prefix_tuning else with_bars(triples)

    def key_of(self, entry: Entry) -> Any:
        """Returns the triples: one dev input occurs twice."""
        return entry.facts[1]

    def kept(self, entry: Entry) -> tuple[str, ...]:
        """Leaves out texts that are to be fixed, unless with_marked."""
        marked = zip(entry.texts, entry.marks, strict=True)
        return tuple(text for text, mark in marked if self.with_marked or mark == GOOD)

    def id_of(self, split: str, number: int, entry: Entry) -> str:
        """Adds the category, by which examples are seen or unseen."""
        return f"{split}-{number}-{entry.facts[0]}"

    def about_version(self) -> str:
        """Tells the editions of other years apart."""
        return "The editions of 2020 and later, and the enriched one, are other corpora. "

    def from_hub(self, split: str, rows: Iterable[dict[str, Any]]) -> dict[str, str]:
        """Writes the JSON form. Test is three files in one there, each from Id1 on; the longest with texts is it."""
        runs: list[list[dict[str, Any]]] = [[]]
        for row in rows:
            if split == "test" and row["eid"] == "Id1":
                runs.append([])
            if listed(row["lex"]):
                runs[-1].append(row)
        entries = [{str(number): _of_hub(row)} for number, row in enumerate(max(runs, key=len), start=1)]
        return {self.files[split][0]: json.dumps({"entries": entries}, ensure_ascii=False)}


def part_of(example: Example) -> str:
    """Tells whether train has the category of an example: seen or unseen; empty where it has no category."""
    _, dash, category = example.id.rpartition("-")
    return "seen" if category in SEEN else "unseen" if dash else ""


def _of_json(path: Path) -> list[Entry]:
    entries = top(field(read_json(path, str(path)), "entries", list, str(path)), str(path))
    found = []
    for number, numbered in enumerate(entries, start=1):
        place = f"{path}, entry {number}"
        about = field(numbered, str(number), dict, place)
        sets = field(about, "modifiedtripleset", list, place)
        triples = [
            [each.get(key) for key in ("subject", "property", "object")] for each in sets if isinstance(each, dict)
        ]
        said = field(about, "lexicalisations", list, place)
        texts = [(field(each, "comment", str, place), field(each, "lex", str, place)) for each in said]
        name = field(about, "xml_id", str, place)
        found.append(_entry(place, name, field(about, "category", str, place), triples, len(sets), texts))
    return found


def _refuse_repeated(by_file: Mapping[Path, Sequence[Entry]]) -> None:
    """Refuses files of one folder of which one holds entries of another: they would count twice."""
    seen: dict[tuple[Any, ...], Path] = {}
    for file, entries in by_file.items():
        for number, entry in enumerate(entries, start=1):
            other = seen.setdefault((entry.facts, entry.texts), file)
            if other != file:
                raise InputError(
                    f"{file}, entry {number}: is in {other} too, with the same texts, and would count twice.\n"
                    "Give one of the files, not the folder."
                )


def _of_xml(path: Path) -> list[Entry]:
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: is no XML ({error}).") from None
    found = []
    for number, element in enumerate(root.iter("entry"), start=1):
        place = f"{path}, entry {number}"
        modified = element.find("modifiedtripleset")
        triples = [[*map(str.strip, (each.text or "").split(" | "))] for each in ([] if modified is None else modified)]
        texts = [(each.get("comment", ""), each.text or "") for each in element.findall("lex")]
        found.append(_entry(place, element.get("eid", ""), element.get("category", ""), triples, len(triples), texts))
    return found


def _entry(
    place: str, name: str, category: str, triples: list[list[Any]], expected: int, texts: list[tuple[str, str]]
) -> Entry:
    """Makes an entry of what either form says.

    Raises:
        InputError: If something is missing.
    """
    if not name or not category:
        raise InputError(f"{place}: there is no name or no category.")
    if not triples or len(triples) != expected:
        raise InputError(f"{place}: there is no triple, or one is no object (found: {shown(triples)}).")
    if not texts or not all(text.strip() for _, text in texts):
        raise InputError(f"{place}: has no text, or an empty one. The file must be one with texts (with_lex).")
    marks, words = zip(*texts, strict=True)
    facts = (category, tuple(triple(each, place) for each in triples))
    return Entry(name, facts, tuple(map(clean, words)), tuple(marks))


def _of_hub(row: dict[str, Any]) -> dict[str, Any]:
    """Returns an entry of the JSON form."""
    triples = [each.split(" | ") for each in listed(row["modified_triple_sets"])[0]["mtriple_set"]]
    texts = [(each["comment"], each["text"], each["lid"]) for each in listed(row["lex"])]
    return {
        "category": row["category"],
        "xml_id": row["eid"],
        "modifiedtripleset": [dict(zip(KEYS, map(str.strip, each), strict=True)) for each in triples],
        "lexicalisations": [{"comment": mark, "lex": text, "xml_id": name} for mark, text, name in texts],
    }
