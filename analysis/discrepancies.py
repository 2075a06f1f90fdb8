"""Where the paper, the authors' code and users' reports differ, and what is done here: the entries of one file."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.items.entry import build, read_yaml
from lora_repro.errors import InputError, did_you_mean

FILE = Path(__file__).resolve().parent / "discrepancies.yaml"

SEVERITIES = ("high", "medium", "low")
"""How much a difference is expected to change a reproduction, the most first."""

ALL_MODELS = "all"
"""Among an entry's models: it is about no model in particular."""


@dataclass
class Effect:
    """What was measured here."""

    text: str
    page: str
    """Where the figures are: analysis/LOG.md, docs/speed.md."""
    heading: str
    """The heading of the page under which they stand."""


@dataclass(kw_only=True)
class Discrepancy:
    """One difference."""

    id: str
    area: str
    """nlu (RoBERTa and DeBERTa on GLUE), nlg (GPT-2), loralib, paper (the paper against itself) and so on."""
    models: list[str]
    tasks: str
    parameter: str
    paper: str
    """What the paper prints."""
    script: str
    """What the authors' code, their README, another table or the arithmetic gives."""
    observed: str
    """What others saw, or what follows."""
    source: str
    """Files and issues of the authors' repository unless it says otherwise; tables and sections of the paper."""
    severity: str
    evidence: str
    """What it rests on; `inference` is confirmed by nobody."""
    ours: str
    """What this project does."""
    keys: list[str] = field(default_factory=list)
    """Settings that choose another reading than `ours`, or this one where it is no default."""
    effect: Effect | None = None
    """What the difference changes, as far as it was measured here."""

    def check(self) -> None:
        """Refuses a severity that is not there.

        Raises:
            InputError: With those that are.
        """
        if self.severity not in SEVERITIES:
            raise InputError(
                f"{FILE.name}: {self.id}: severity: no severity {self.severity!r}."
                f"{did_you_mean(self.severity, SEVERITIES)}\nSeverities: {', '.join(SEVERITIES)}."
            )

    @property
    def areas(self) -> list[str]:
        """The areas one by one: of `nlu and nlg` two."""
        return self.area.split(" and ")

    @property
    def words(self) -> dict[str, Sequence[str]]:
        """The words that select it, by what they are."""
        return {"id": [self.id], "area": self.areas, "model": self.models, "severity": [self.severity]}


def read(path: Path = FILE) -> list[Discrepancy]:
    """Returns all differences: those that matter most first, then by severity.

    Raises:
        InputError: If a field of an entry is unknown, missing or of another type, or an id stands there twice.
    """
    content = read_yaml(path)
    found: dict[str, Discrepancy] = {}
    for number, entry in enumerate(content["entries"], 1):
        where = f"{path.name}: {entry.get('id', f'entry {number}')}"
        each = build(Discrepancy, entry, where)
        each.check()
        if each.id in found:
            raise InputError(f"{where}: the id stands there twice. Give one of the two another.")
        found[each.id] = each
    first: list[str] = content["most_important"]
    for name in first:
        if name not in found:
            raise InputError(f"{path.name}: most_important: no entry {name!r}.{did_you_mean(name, found)}")
    order = [*first, *(each for each in found if each not in first)]
    return sorted((found[name] for name in order), key=lambda each: SEVERITIES.index(each.severity))


def select(entries: Sequence[Discrepancy], words: Sequence[str]) -> list[Discrepancy]:
    """Returns the entries that have one of the words of each kind that is given; without words all.

    Args:
        entries: All differences.
        words: Ids, areas, models and severities. A model selects what is about all models, too.

    Raises:
        InputError: If no entry has a word, or none has all of them.
    """
    choices: dict[str, list[str]] = {}
    for entry in entries:
        for kind, names in entry.words.items():
            choices.setdefault(kind, []).extend(name for name in names if name != ALL_MODELS)
    asked: dict[str, set[str]] = {}
    for word in words:
        kinds = [kind for kind, names in choices.items() if word in names]
        if not kinds:
            known = [name for names in choices.values() for name in names]
            listed = "\n".join(f"{kind}: {_listed(choices[kind])}" for kind in ("area", "model", "severity"))
            raise InputError(
                f"discrepancies: none has {word!r} as its id, area, model or severity.{did_you_mean(word, known)}\n"
                f"{listed}\nWithout a word all {len(entries)} are printed, with their ids."
            )
        asked.setdefault(kinds[0], set()).add(word)
    found = [entry for entry in entries if all(_has(entry, kind, names) for kind, names in asked.items())]
    if not found:
        raise InputError(f"discrepancies: none has all of {', '.join(words)}. Give fewer words.")
    return found


def _has(entry: Discrepancy, kind: str, names: set[str]) -> bool:
    return not names.isdisjoint(entry.words[kind]) or (kind == "model" and ALL_MODELS in entry.models)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def by_area(entries: Sequence[Discrepancy]) -> dict[str, list[Discrepancy]]:
    """Groups entries by area; the area with the most important entry comes first."""
    groups: dict[str, list[Discrepancy]] = {}
    for entry in entries:
        groups.setdefault(entry.area, []).append(entry)
    return groups


def record(entry: Discrepancy) -> dict[str, Any]:
    """Returns an entry as JSON writes it."""
    return {**vars(entry), "effect": None if entry.effect is None else vars(entry.effect)}
