"""The kind `presets`: hyperparameters as the paper prints them, as the authors' scripts have them, and as presets here.

Ours is what a preset composes to, whole as a run would have it; nothing of it stands in an item's file.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from analysis import discrepancies
from analysis.items import Item, Request, names, register
from analysis.printed_counts import printed_size, prints_as
from analysis.render.printed import PrintedTable
from lora_repro.config.catalogue import preset_names
from lora_repro.config.compose import compose
from lora_repro.config.resolve import resolve
from lora_repro.config.schema import Run
from lora_repro.errors import InputError, did_you_mean

MARK = "*"
WEIGHTS = "params.method"
"""The key of a column that counts what the method trains. It is no key of the configuration, but one of result.json."""
SOURCES = ("paper", "script", "ours")


@dataclass
class Column:
    """One hyperparameter. A source that has no key for it says nothing of it."""

    label: str
    paper: str | list[str] = field(default_factory=list)
    """The key of the paper's rows; of several, the first that a row has."""
    script: str | list[str] = field(default_factory=list)
    """The same of the scripts' rows."""
    ours: str | list[str] = field(default_factory=list)
    """Keys of the configuration, the first with a value; or params.method, the number of trained weights."""

    def keys(self, source: str) -> list[str]:
        """Returns the keys of a source: paper, script or ours."""
        given = getattr(self, source)
        return [given] if isinstance(given, str) else given

    def text(self, value: Any, source: str) -> str:
        """Writes a value; a number of weights that is printed, as the paper's tables do."""
        if value is not None and self.ours == WEIGHTS and source == "paper":
            return printed_size(value)
        return _text(value)


@dataclass
class Chosen:
    """Which preset holds some of the paper's rows."""

    preset: str
    rows: dict[str, Any] = field(default_factory=dict)
    """What those rows have."""


class Row(NamedTuple):
    """A row of the paper's table beside the other two sources: values by column label, None where nothing is said."""

    facts: Mapping[str, Any]
    preset: str
    line: list[str]
    """The overrides that give ours."""
    run: Run
    """The run that they make."""
    values: dict[str, dict[str, Any]]
    """By source, then by label; no `script` where the authors have none."""

    def differs(self, source: str, column: Column) -> bool:
        """Tells whether a source has another value than the paper; or, where that says nothing, than the script."""
        found, other = self.values[source][column.label], self.compared_with(source, column)
        if found is None or other is None or found == other:
            return False
        return column.ours != WEIGHTS or not prints_as(found, other, self.run.arch)

    def compared_with(self, source: str, column: Column) -> Any:
        """Returns what the value of a source is compared with; None: with nothing."""
        before = SOURCES[: SOURCES.index(source)]
        said = (self.values[each][column.label] for each in before if each in self.values)
        return next((value for value in said if value is not None), None)


@register("presets")
@dataclass(kw_only=True)
class PresetTable(Item):
    """A table of hyperparameters."""

    heads: dict[str, str]
    """Keys of the paper's rows that say which run it is, and how they are printed; those that differ by the last alone
    are told together."""
    same: list[str]
    """Keys in which a script's row and one of the paper must agree, as far as both have them."""
    presets: list[Chosen]
    """The first whose rows fit a row of the paper is its preset."""
    columns: list[Column]
    notes: list[str] = field(default_factory=list)
    """What a reader must know of the differences."""
    discrepancies: list[str] = field(default_factory=list)
    """Their entries in analysis/discrepancies.yaml."""

    def check(self) -> None:
        """Refuses presets, keys and discrepancies that are not there.

        Raises:
            InputError: Naming the field.
        """
        paper, scripts = ([key for row in rows for key in row] for rows in (self._paper, self._scripts))
        self._refuse_unknown("presets", [each.preset for each in self.presets], preset_names())
        self._refuse_unknown("heads", self.heads, paper)
        for source, there in (("paper", paper), ("script", scripts)):
            given = [key for column in self.columns for key in column.keys(source)]
            self._refuse_unknown(f"columns: {source}", given, there)
        there = [each.id for each in discrepancies.read()]
        self._refuse_unknown("discrepancies", self.discrepancies, there)

    def printed(self, request: Request) -> PrintedTable:
        """Returns the table, a line for each source of a row.

        Raises:
            InputError: If overrides are given.
        """
        if request.overrides:
            raise InputError(
                f"{self.name}: shows presets as they are, and takes no {request.overrides[0]}.\n"
                "See what a run would have: python -m lora_repro preset=paper model=... method=... task=... --cfg job"
            )
        rows = self.read()
        differences = [line for source in SOURCES[1:] for line in self._differences(rows, source)]
        described = ", ".join(f"`preset={name}`" for name in dict.fromkeys(row.preset for row in rows))
        return PrintedTable(
            title=f"Table {self.number}: {self.title}",
            above=[
                "paper: as printed. script: the authors' scripts, where there is one. ours: what a preset gives "
                f"({described}).",
                f"{MARK} another value than the paper's; where the paper prints none, than the script's. Empty cell: "
                "nothing is said.",
            ],
            grid=[
                [*self.heads.values(), "", *(column.label for column in self.columns)],
                *(line for row in rows for line in self._lines(row)),
            ],
            records=[record for row in rows for record in self._records(row)],
            below=[
                ["Differences:", *differences] if differences else ["There are no differences."],
                [f"- {note}" for note in self.notes],
                [f"More of them: `python -m analysis discrepancies {' '.join(self.discrepancies)}`"]
                if self.discrepancies
                else [],
            ],
            json={"name": self.name, "title": self.title, "notes": self.notes, "rows": [*map(self._json, rows)]},
        )

    def read(self) -> list[Row]:
        """Returns the paper's rows, each beside the script's and ours."""
        return [self._row(facts) for facts in self._paper]

    @property
    def _paper(self) -> list[dict[str, Any]]:
        shared = self.facts.get("shared", {})
        return [shared | row for row in self.facts["rows"]]

    @property
    def _scripts(self) -> list[dict[str, Any]]:
        return self.facts.get("scripts", [])

    def _refuse_unknown(self, where: str, given: Iterable[str], known: Iterable[str]) -> None:
        there = list(dict.fromkeys(known))
        for each in given:
            if each not in there:
                raise InputError(
                    f"{self.name}.yaml: {where}: there is no {each!r}.{did_you_mean(each, there)}\n"
                    f"There are: {', '.join(there)}."
                )

    def _row(self, facts: dict[str, Any]) -> Row:
        preset = next((each.preset for each in self.presets if _fits(each.rows, facts)), None)
        if preset is None:
            raise InputError(f"{self.name}.yaml: presets: none for the row {facts}. Give one without rows at the end.")
        method = names()["methods"].get(facts["method"], facts["method"])
        line = [f"preset={preset}", f"model={facts['model']}", f"method={method}", f"task={facts['task']}"]
        run = resolve(compose(line)).run
        script = next((each for each in self._scripts if self._is_of(each, facts)), None)
        said = {"paper": facts, "script": script, "ours": _flat(run)}
        values = {
            source: {column.label: _said(row, column.keys(source)) for column in self.columns}
            for source, row in said.items()
            if row is not None
        }
        return Row(facts, preset, line, run, values)

    def _is_of(self, script: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
        return all(script[key] == facts[key] for key in self.same if key in script and key in facts)

    def _lines(self, row: Row) -> Iterable[list[str]]:
        heads = [_text(row.facts.get(key)) for key in self.heads]
        for source in row.values:
            cells = [
                column.text(row.values[source][column.label], source) + MARK * row.differs(source, column)
                for column in self.columns
            ]
            yield [*(heads if source == "paper" else [""] * len(heads)), source, *cells]

    def _records(self, row: Row) -> Iterable[dict[str, Any]]:
        for source, values in row.values.items():
            differing = [column.label for column in self.columns if row.differs(source, column)]
            heads = {key: row.facts.get(key) for key in self.heads}
            yield {**heads, "source": source, **values, "differs": differing}

    def _json(self, row: Row) -> dict[str, Any]:
        return {
            **{key: row.facts.get(key) for key in self.heads},
            "preset": row.preset,
            "command": " ".join(row.line),
            **{source: row.values.get(source) for source in SOURCES},
            "differs": {
                source: [column.label for column in self.columns if row.differs(source, column)]
                for source in SOURCES[1:]
                if source in row.values
            },
        }

    def _differences(self, rows: list[Row], source: str) -> list[str]:
        """Says which values of a source differ, a line for each column and for all heads but the last."""
        found: dict[tuple[str, str], dict[tuple[str, str], list[str]]] = {}
        every, last = Counter(map(self._of, rows)), [*self.heads][-1]
        for column in self.columns:
            for row in rows:
                if source not in row.values or not row.differs(source, column):
                    continue
                old, new = row.compared_with(source, column), row.values[source][column.label]
                pair = column.text(old, SOURCES[0]), column.text(new, source)
                found.setdefault((column.label, self._of(row)), {}).setdefault(pair, []).append(_text(row.facts[last]))
        return [
            f"- {label}, {source}, {of}: "
            + "; ".join(
                f"{new} for {old}" + ("" if len(where) == every[of] else f" ({', '.join(where)})")
                for (old, new), where in pairs.items()
            )
            for (label, of), pairs in found.items()
        ]

    def _of(self, row: Row) -> str:
        """Says which rows of the table this is one of: by all heads but the last."""
        said = ((head, row.facts.get(key)) for key, head in [*self.heads.items()][:-1])
        return " ".join(head if value is True else _text(value) for head, value in said if _text(value))


def _fits(wanted: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return all(row.get(key) == value for key, value in wanted.items())


def _said(row: Mapping[str, Any], keys: Iterable[str]) -> Any:
    """Returns the first value that a row has; None if it says nothing. A warm-up in steps or tokens is told as such."""
    key, value = next(((key, row[key]) for key in keys if row.get(key) is not None), ("", None))
    unit = key.removeprefix("train.").removeprefix("warmup_")
    return f"{value:,} {unit}" if unit in ("steps", "tokens") else value


def _flat(run: Run) -> dict[str, Any]:
    """Returns what a run has by dotted key, and the number of weights that its method trains."""
    found: dict[str, Any] = {WEIGHTS: run.trained_by_method}
    for section, values in asdict(run).items():
        for key, value in values.items() if isinstance(values, dict) else ():
            plain = value.value if isinstance(value, Enum) else value
            found[f"{section}.{key}"] = "".join(plain) if key == "targets" and plain is not None else plain
    return found


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)
