"""The kind `scores`: a table of scores, rows by columns, a line for each task and model; ours beside the paper's."""

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from analysis.items import Item, Request, names, register
from analysis.states import NOT_COUNTED

if TYPE_CHECKING:
    from analysis.cell import Table


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


@register("scores")
@dataclass(kw_only=True)
class ScoreTable(Item):
    """A table of scores."""

    takes = ("protocol",)

    sweep: str
    """Which runs make its cells."""
    rows: Axis
    columns: Axis
    metric: str
    """As metric keys spell it, without the split: accuracy."""
    settings: list[str] = field(default_factory=list)
    """Keys of the configuration that are printed beside the numbers."""
    fluctuation: dict[str, str] = field(default_factory=dict)
    """For a task, the key among the facts' metrics that holds the paper's fluctuation."""
    tasks: list[str] = field(default_factory=list)
    """The keys of the facts' rows that hold a task's score, where columns are no such keys."""
    notes: list[str] = field(default_factory=list)
    """Sentences below the table."""
    beneath: list[str] = field(default_factory=list)
    """What stands under each column: a key of the facts' rows and the configuration's, such as r and method.r."""

    def read(self, request: Request) -> "Table":
        """Returns its cells; says on stderr which runs of the sweep are not in it."""
        from analysis.cells import read_cells
        from analysis.protocol import Protocol

        table = read_cells(self, request.scale, request.store, request.overrides, Protocol(request.protocol))
        report(table)
        return table

    def text(self, request: Request) -> str:
        """Writes the table."""
        from analysis.render import tables

        return tables.write(self.read(request), request.format, names())


def report(table: "Table") -> None:
    """Says on stderr which runs do not count, and which have no cell."""
    for reason in dict.fromkeys(run.reason for run in table.missing if run.state == NOT_COUNTED):
        print(f"Not counted: {reason}", file=sys.stderr)
    if table.outside:
        print(
            f"{len(table.outside)} runs of the sweep have no cell in this table: {', '.join(table.outside)}",
            file=sys.stderr,
        )
