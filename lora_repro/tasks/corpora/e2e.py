"""E2E (Novikova et al. 2017): what is known of a restaurant is put into words.

One example: "name[Blue Spice], eatType[coffee shop], area[city centre]" with the texts "A coffee shop in the city
centre area called Blue Spice." and "Blue Spice is a coffee shop in city centre."

There are two forms of the same rows in the same order. `e2e` reads the one that the authors of LoRA trained on and
scored against, `name : Blue Spice | Type : coffee shop | area : city centre||A coffee shop ... called Blue Spice . `,
in which the texts are divided into tokens by spaces. `e2e_csv` reads the release of the challenge, whose texts are as
people wrote them. A meaning is the same in both, and is written in the authors' way unless task.linearisation=official.
"""

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from lora_repro.errors import InputError, shown
from lora_repro.tasks.corpora.base import CorpusConfig, Entry, clean
from lora_repro.tasks.rows import Format, Rows, read_rows
from lora_repro.tasks.targets import Targets, Texts
from lora_repro.tasks.text_metrics import protocols

AUTHORS = {"eatType": "Type", "priceRange": "price", "familyFriendly": "family friendly"}
"""What the authors' files call attributes of the release; the others have the same name."""
OFFICIAL = {theirs: name for name, theirs in AUTHORS.items()}
ATTRIBUTE = re.compile(r"([^\[\],]+)\[([^\[\]]+)\](?:, |$)")
SPACED = re.compile(r"(?<=£) | (?=-)|(?<=-) ")
"""The spaces that the authors' files have in the values of price: "£ 20 - 25" for "£20-25"."""

Attributes = tuple[tuple[str, str], ...]
"""Names and values as the release has them."""


class Linearisation(str, Enum):
    """How a meaning is written for the model."""

    authors = "authors"
    """name : Blue Spice | Type : coffee shop: as the models of Table 3 read it."""
    official = "official"
    """name[Blue Spice], eatType[coffee shop]: as the release of the challenge has it."""


@dataclass
class E2eConfig(CorpusConfig):
    """The pairs of train, and the meanings of dev and test with all their texts."""

    linearisation: Linearisation = Linearisation.authors

    @property
    def targets(self) -> Targets:
        """Texts, scored as in the E2E challenge."""
        return Texts(*protocols.E2E.declared)

    def read(self, path: Path) -> list[Entry]:
        """Reads the official CSV, or the authors' text form where the file's name does not end in .csv."""
        if path.suffix == ".csv":
            rows = read_rows(path, str(path), Format.csv, only=["mr", "ref"], has_options=False)
            meanings, parse = rows["mr"], of_release
        else:
            columns = ["meaning", "ref"]
            rows = read_rows(
                path, str(path), Format.tsv, quotes=False, columns=columns, delimiter="||", has_options=False
            )
            meanings, parse = rows["meaning"], of_authors
        entries = []
        for row, (meaning, text) in enumerate(zip(meanings, rows["ref"], strict=True)):
            if not text.strip():
                raise InputError(f"{rows.place(row)}: there is no text.")
            entries.append(Entry("", _parsed(rows, row, meaning, parse(clean(meaning))), (clean(text),)))
        return entries

    def input_of(self, entry: Entry) -> str:
        """Writes the attributes."""
        if self.linearisation is Linearisation.official:
            return ", ".join(f"{name}[{value}]" for name, value in entry.facts)
        return " | ".join(f"{AUTHORS.get(name, name)} : {_spaced(name, value)}" for name, value in entry.facts)

    def about_version(self) -> str:
        """Names the other form of the corpus."""
        here, other = ("CSV files", "e2e_csv") if self.name == "e2e" else ("files of the authors of LoRA", "e2e")
        return f"The {here} are read by task={other}. "

    def from_hub(self, split: str, rows: Iterable[dict[str, Any]]) -> dict[str, str]:
        """Writes the official CSV."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["mr", "ref"])
        writer.writerows([row["meaning_representation"], row["human_reference"]] for row in rows)
        return {self.files[split][0]: file.getvalue()}


def of_release(meaning: str) -> Attributes | None:
    """Reads "name[Blue Spice], eatType[coffee shop]"; None of anything else."""
    found = ATTRIBUTE.findall(meaning)
    whole = ", ".join(f"{name}[{value}]" for name, value in found)
    return tuple(found) if found and whole == meaning else None


def of_authors(meaning: str) -> Attributes | None:
    """Reads "name : Blue Spice | Type : coffee shop"; None of anything else."""
    pairs = [tuple(part.split(" : ")) for part in meaning.split(" | ")]
    if any(len(pair) != 2 or not all(map(str.strip, pair)) for pair in pairs):
        return None
    named = [(OFFICIAL.get(name, name), value) for name, value in pairs]
    return tuple((name, SPACED.sub("", value) if name == "priceRange" else value) for name, value in named)


def _spaced(name: str, value: str) -> str:
    return clean(value.replace("£", "£ ").replace("-", " - ")) if name == "priceRange" else value


def _parsed(rows: Rows, row: int, meaning: str, found: Attributes | None) -> Attributes:
    if found is None:
        raise InputError(
            f"{rows.place(row)}: is no meaning of E2E (found: {shown(meaning)}).\n"
            "Expected: name[Blue Spice], eatType[coffee shop] in a CSV file, or name : Blue Spice | Type : coffee shop"
        )
    return found
