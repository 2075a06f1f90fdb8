"""DART 1.1.1 (Nan et al. 2021): triples of tables, of WebNLG and of E2E are put into words.

One example: ["Mars Hill College", "JOINED", "1973"], ["Mars Hill College", "LOCATION", "Mars Hill, North Carolina"]
with the text "A school from Mars Hill, North Carolina, joined in 1973."

There are two versions of it. `dart` is the one in DART's own repository since April 2021. The authors of LoRA, and of
prefix tuning, have the one before, with other train and test files: `dart_2020`, of which nothing is known here but the
names that git gives to the files. Dev is the same in both.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from lora_repro.errors import InputError
from lora_repro.tasks.base import Splits
from lora_repro.tasks.corpora.base import CorpusConfig, Entry, clean, listed
from lora_repro.tasks.corpora.objects import field, top, triple
from lora_repro.tasks.corpora.triples import with_bars, with_tags
from lora_repro.tasks.rows import read_json
from lora_repro.tasks.targets import Targets, Texts, split_name
from lora_repro.tasks.text_metrics import protocols


class Linearisation(str, Enum):
    """How triples are written for the model."""

    authors = "authors"
    """Mars Hill College : joined : 1973 | ...: as the models of Table 13 read it (format_converting_dart.py)."""
    tags = "tags"
    """<H> Mars Hill College <R> joined <T> 1973 ...: as the code that comes with DART writes triples."""


class Grouping(str, Enum):
    """Which entries of dev and test are one example."""

    input = "input"
    """Those with the same input, whose texts are put together: as the authors' code scores Table 13."""
    entry = "entry"
    """Each for itself, as DART's own scripts score it: some inputs occur several times."""


@dataclass
class DartConfig(CorpusConfig):
    """The pairs of train, and the inputs of dev and test with all their texts."""

    linearisation: Linearisation = Linearisation.authors
    grouping: Grouping = Grouping.input

    @property
    def targets(self) -> Targets:
        """Texts, scored as the authors do, or as DART's own scripts where each entry is an example."""
        by_input = self.grouping is Grouping.input
        return Texts(*(protocols.DART if by_input else protocols.DART_LEADERBOARD).declared)

    def sizes(self) -> dict[str, int] | None:
        """Returns the number of examples of each split, where it is known."""
        if self.grouping is Grouping.input or not self.examples:
            return super().sizes()
        return dict(self.examples) | {split: self.entries[split] for split in self.scored}

    def read(self, path: Path) -> list[Entry]:
        """Reads the JSON file."""
        found = []
        for number, entry in enumerate(top(read_json(path, str(path)), str(path)), start=1):
            place = f"{path}, entry {number}"
            triples = [triple(each, place) for each in field(entry, "tripleset", list, place)]
            said = field(entry, "annotations", list, place)
            texts = [(field(each, "source", str, place), field(each, "text", str, place)) for each in said]
            if not triples or not texts:
                raise InputError(f"{place}: has no triple or no text.")
            sources, words = zip(*texts, strict=True)
            found.append(Entry(str(number), tuple(triples), tuple(map(clean, words)), tuple(sources)))
        return found

    def input_of(self, entry: Entry) -> str:
        """Writes the triples, the relations in lower case."""
        return with_tags(entry.facts) if self.linearisation is Linearisation.tags else _in_lower_case(entry)

    def key_of(self, entry: Entry) -> Any:
        """Returns the input as the authors write it, or the number of the entry where each is an example."""
        return entry.id if self.grouping is Grouping.entry else _in_lower_case(entry)

    def notices(self, splits: Splits) -> list[str]:
        """Adds how many texts are empty, which stay as they are: one of test."""
        found = super().notices(splits)
        empty = {split: sum(not text for example in of for text in example.target) for split, of in splits.items()}
        told = (f"{split_name(split)}: {n} texts are empty, as in the release." for split, n in empty.items() if n)
        return [*found, *told]

    def about_version(self) -> str:
        """Names the other version."""
        if self.name == "dart":
            return "The files that the authors of LoRA and of prefix tuning have are read by task=dart_2020. "
        return "The files in DART's own repository since April 2021 are read by task=dart. "

    def from_hub(self, split: str, rows: Iterable[dict[str, Any]]) -> dict[str, str]:
        """Writes the JSON form."""
        found = []
        for row in rows:
            annotations = [{key: each[key] for key in ("source", "text")} for each in listed(row["annotations"])]
            found.append({"tripleset": row["tripleset"], "annotations": annotations})
        return {self.files[split][0]: json.dumps(found, ensure_ascii=False)}


def _in_lower_case(entry: Entry) -> str:
    return with_bars([(first, relation.lower(), second) for first, relation, second in entry.facts])
