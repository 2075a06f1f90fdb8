"""The kind `scores`: a table of scores, rows by columns, a line for each task and model; ours beside the paper's."""

import sys
from dataclasses import dataclass, field

from analysis.items import Item, Request, names, register


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
    aggregate: str
    """How a cell's seeds become a number. `mean`: with a 95 % t interval."""
    settings: list[str]
    """Keys of the configuration that are printed beside the numbers."""
    fluctuation: dict[str, str] = field(default_factory=dict)
    """For a task, the key among the facts' metrics that holds the paper's fluctuation."""
    tasks: list[str] = field(default_factory=list)
    """The keys of the facts' rows that hold a task's score, where columns are no such keys."""
    notes: list[str] = field(default_factory=list)
    """Sentences below the table."""

    def text(self, request: Request) -> str:
        """Writes the table; says on stderr which runs of the sweep are not in it."""
        from analysis.cells import cells
        from analysis.protocol import Protocol
        from analysis.render import tables

        frame = cells(self, request.scale, request.store, request.overrides, Protocol(request.protocol))
        for missing in (missing for cell in frame["missing"] for missing in cell):
            if missing["state"] == "not counted":
                print(f"Not counted: {missing['reason']}", file=sys.stderr)
        if outside := frame.attrs["outside"]:
            print(f"{len(outside)} runs of the sweep have no cell in this table: {', '.join(outside)}", file=sys.stderr)
        return tables.to_json(frame) if request.format == "json" else tables.markdown(self, frame, names())
