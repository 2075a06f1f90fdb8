"""The kind `scores`: a table of scores, rows by columns, a line for each task and model; ours beside the paper's."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from analysis.items import Item, Request, names, refuse_unknown_sweep, register
from analysis.states import NOT_COUNTED
from lora_repro.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from analysis.cell import Table
    from analysis.render.printed import PrintedTable


@dataclass
class Axis:
    """The rows or the columns of a table."""

    key: str
    """The configuration's key that makes them."""
    label: str
    """How the key is printed."""
    values: dict[str | int, str | int]
    """Our values in their order, and how the paper's facts write each."""
    facts: str | None = None
    """The key of the facts' rows that holds it; None where the values are themselves such keys (columns of scores)."""


@dataclass
class Beneath:
    """A number that stands under each column: the paper's and ours."""

    facts: str
    """The key of the facts' rows that holds it: r."""
    key: str
    """The configuration's key: method.r."""


@register("scores")
@dataclass(kw_only=True)
class ScoreTable(Item):
    """A table of scores."""

    takes = ("protocol",)

    sweep: str
    """Which runs make its cells."""
    rows: Axis
    columns: Axis
    metrics: list[str]
    """As metric keys spell them, without the split: accuracy. A task is shown by the first of them that it has."""
    settings: list[str] = field(default_factory=list)
    """Keys of the configuration that are printed beside the numbers."""
    fluctuation: dict[str, str] = field(default_factory=dict)
    """For a task, the key among the facts' metrics that holds the paper's fluctuation."""
    tasks: list[str] = field(default_factory=list)
    """The keys of the facts' rows that hold a task's score, where columns are no such keys."""
    notes: list[str] = field(default_factory=list)
    """Sentences below the table."""
    beneath: Beneath | None = None
    """What stands under each column."""

    def check(self) -> None:
        """Refuses a sweep that is not there, and fields that do not fit the facts.

        Raises:
            InputError: Naming the field.
        """
        refuse_unknown_sweep(self.name, self.sweep)
        rows: list[dict[str, Any]] = self.facts.get("rows", [])
        for name, axis in (("rows", self.rows), ("columns", self.columns)):
            if not rows and axis.facts is not None:
                raise InputError(f"{self.name}.yaml: {name}: facts: the item has no facts. Leave it out.")
            if rows and axis.facts is not None:
                self._refuse_unknown(f"{name}: facts", [axis.facts], _keys(rows))
                self._refuse_unknown(f"{name}: values", axis.values.values(), [row.get(axis.facts) for row in rows])
        if not rows:
            return
        if self.rows.facts is None:
            raise InputError(f"{self.name}.yaml: rows: facts: it is missing. Keys: {', '.join(_keys(rows))}.")
        if self.columns.facts is None:
            self._refuse_unknown("columns: values", self.columns.values.values(), _keys(rows))
            self._refuse_unknown("columns: facts is missing, so facts: rows", ["task"], _keys(rows))
        else:
            self._refuse_unknown("tasks", self.tasks, _keys(rows))
        self._refuse_unknown("fluctuation", self.fluctuation.values(), self.facts.get("metrics", {}))
        if self.beneath is not None:
            self._refuse_unknown("beneath: facts", [self.beneath.facts], _keys(rows))

    def _refuse_unknown(self, where: str, given: Iterable[Any], known: Iterable[Any]) -> None:
        there = [str(each) for each in dict.fromkeys(known)]
        for each in given:
            if str(each) not in there:
                raise InputError(
                    f"{self.name}.yaml: {where}: the facts have no {each!r}.{did_you_mean(str(each), there)}\n"
                    f"They have: {', '.join(there)}."
                )

    def read(self, request: Request) -> "Table":
        """Returns its cells; says on stderr which runs of the sweep are not in it."""
        from analysis.cells import read_cells
        from analysis.protocol import Protocol

        table = read_cells(self, request.scale, request.store, request.overrides, Protocol.of(request.protocol))
        report(table)
        return table

    def printed(self, request: Request) -> "PrintedTable":
        """Returns the table in words."""
        from analysis.render import tables

        return tables.printed(self.read(request), names())


def _keys(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns the keys that occur in rows."""
    return list(dict.fromkeys(key for row in rows for key in row))


def report(table: "Table") -> None:
    """Says on stderr which runs do not count, and which have no cell."""
    for reason in dict.fromkeys(run.reason for run in table.missing if run.state == NOT_COUNTED):
        print(f"Not counted: {reason}", file=sys.stderr)
    if table.outside:
        print(
            f"{len(table.outside)} runs of the sweep have no cell in this table: {', '.join(table.outside)}",
            file=sys.stderr,
        )
