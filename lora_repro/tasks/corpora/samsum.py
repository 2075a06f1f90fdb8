r"""SAMSum (Gliwa et al. 2019): chats are summed up.

One example: "Amanda: I baked  cookies. Do you want some?\nJerry: Sure!\nAmanda: I'll bring you tomorrow :-)" with the
summary "Amanda baked cookies and will bring Jerry some tomorrow."

A chat is given as it is, one turn a line, and followed by an empty line, as in the paper's Appendix C. One chat of
train, 13828807, is empty in the release and stays in.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_repro.errors import InputError, shown
from lora_repro.tasks.base import Splits
from lora_repro.tasks.corpora.base import CorpusConfig, Entry, clean
from lora_repro.tasks.corpora.objects import field, top
from lora_repro.tasks.rows import read_json
from lora_repro.tasks.targets import Targets, Texts
from lora_repro.tasks.text_metrics import protocols

EMPTY = frozenset({"13828807"})
"""Chats that are empty in the release."""


@dataclass
class SamsumConfig(CorpusConfig):
    """Chats with a summary each."""

    @property
    def targets(self) -> Targets:
        """Texts, scored by ROUGE."""
        return Texts(*protocols.SAMSUM.declared)

    def read(self, path: Path) -> list[Entry]:
        """Reads the JSON file."""
        found, known = [], set()
        for number, entry in enumerate(top(read_json(path, str(path)), str(path)), start=1):
            place = f"{path}, entry {number}"
            name, chat, summary = (field(entry, key, str, place) for key in ("id", "dialogue", "summary"))
            turns = "\n".join(line.rstrip() for line in chat.replace("\r\n", "\n").split("\n")).strip()
            if name in known:
                raise InputError(f"{place}: the id {shown(name)!r} names an earlier entry too.")
            if not summary.strip() or (not turns and name not in EMPTY):
                what = "summary" if turns else "dialogue"
                raise InputError(f"{place}: the {what} is empty (id {shown(name)!r}).")
            known.add(name)
            found.append(Entry(name, (turns,), (clean(summary),)))
        return found

    def input_of(self, entry: Entry) -> str:
        """Returns the chat, one turn a line."""
        return entry.facts[0]

    def key_of(self, entry: Entry) -> Any:
        """Returns the id: each chat is an example, even where another one is the same."""
        return entry.id

    def id_of(self, split: str, number: int, entry: Entry) -> str:
        """Returns the chat's own id."""
        return entry.id

    def notices(self, splits: Splits) -> list[str]:
        """Adds which chats are empty."""
        empty = [example.id for of in splits.values() for example in of if not example.input]
        more = [f"The chat {', '.join(empty)} is empty, as in the release, and stays in."] if empty else []
        return [*super().notices(splits), *more]

    def from_hub(self, split: str, rows: Iterable[dict[str, Any]]) -> dict[str, str]:
        """Writes the JSON form."""
        keys = ("id", "summary", "dialogue")
        found = [{key: row[key] for key in keys} for row in rows]
        return {self.files[split][0]: json.dumps(found, ensure_ascii=False)}
