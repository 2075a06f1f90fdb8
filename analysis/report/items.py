"""Items become sections of a report: a table of boxes for each regime that has runs, else what is missing."""

import io
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.figure import Figure

from analysis.budgets import percent
from analysis.cell import Cell, Table
from analysis.cells import read_cells
from analysis.claims.arms import JUDGED, PROTOCOL, Arms
from analysis.claims.declared import Claims
from analysis.items import Item, Picture, Request, names, read_item
from analysis.kinds.methods import Line, Methods, MethodTable, PaperLines, read_methods
from analysis.kinds.scores import ScoreTable
from analysis.render import methods as render_methods
from analysis.render import plots, style, tables
from analysis.render.printed import PrintedTable
from analysis.render.tables import our_cell
from analysis.report.boxes import Boxes, compared, in_words, reference_of
from analysis.report.data import Difference, Entry, Panel, Point, Row, Section, Shown, cut
from analysis.section7.item import UpdateItem
from lora_repro.errors import InputError
from lora_repro.tasks import Metric

ITEMS = (
    "table5",
    "table6",
    "rank_rates",
    "figure3",
    "figure4",
    "table7",
    "table15",
    "freeze_a",
    "full_rank",
    "leaderboard",
)
"""In their order on the page."""
REGIMES = {
    "tuned": "each arm has the learning rate that is best for it on dev",
    "one_rate": "one learning rate for all sizes of a method, that of its preset: the paper's way",
    "rslora": "tuned, with rsLoRA's scaling",
    "tuned_alpha": "the learning rate of its preset for each method; each arm has the alpha that is best for it on dev",
    "by_method": "each method has one learning rate, tuned for it, at all its sizes",
}
"""What a reader must know of each regime."""
VERDICT = "Verdict: "
"""How a table's own line on verdicts begins; this page has the claims."""
LARGEST_FIGURE = 800_000
"""Bytes of an SVG; a larger one is left out."""


class Items:
    """Reads items from a store."""

    def __init__(self, arms: Arms, claims: Claims, boxes: Boxes, has_weights: bool) -> None:
        """Takes the sweeps that claims have read, what they declare, where boxes go, and whether runs have weights."""
        self.arms, self.boxes, self.has_weights = arms, boxes, has_weights
        self.panels: list[Panel] = []
        self._regimes = regimes_of(claims)

    def read(self, name: str) -> Shown:
        """Returns an item with all its regimes."""
        item = read_item(name)
        regimes = self._regimes.get(name, [None])
        return Shown(name, _title(item, self.arms.scale), tuple(self._section(item, regime) for regime in regimes))

    def _section(self, item: Item, regime: str | None) -> Section:
        if isinstance(item, ScoreTable | MethodTable):
            sweep = self.arms.load(item.sweep, regime)
            request = Request(self.arms.scale, self.arms.store, _overrides(regime), protocol=PROTOCOL.value)
            if isinstance(item, ScoreTable):
                table = read_cells(item, request.scale, request.store, request.overrides, PROTOCOL, sweep)
                return self._scores(item, regime, table)
            return self._methods(item, regime, read_methods(item, request, sweep))
        return self._words(item, regime)

    # Tables of scores.

    def _scores(self, item: ScoreTable, regime: str | None, table: Table) -> Section:
        if not any(cell.n for cell in table.ours):
            return _absent(item, regime, _nothing(sum(len(cell.runs) for cell in table.ours), table.command))
        entries = {}
        for cell in table.cells:
            entries[cell.place] = self._entry(item, regime, cell, table) if cell.runs else Entry(_paper(cell))
        columns = table.column_values
        rows = []
        for row in dict.fromkeys(cell.place.row for cell in table.cells):
            block = [cell for cell in table.cells if cell.place.row == row]
            for line in dict.fromkeys((cell.place.task, cell.place.model) for cell in block):
                at = {cell.place.column: cell for cell in block if (cell.place.task, cell.place.model) == line}
                is_paper = not any(cell.runs for cell in at.values())
                whose = tables.line_name(next(iter(at.values())).place, names())
                heads = (row, f"{'paper' if is_paper else 'ours'}, {whose}")
                rows.append(Row(heads, tuple(entries[at[c].place] if c in at else Entry() for c in columns), is_paper))
        printed = tables.printed(table, names())
        figure, caption = _drawn(table)
        header = (table.rows, *(f"{table.columns} = {column}" for column in columns))
        return _section(item, regime, printed, header, rows)._replace(figure=figure, caption=caption)

    def _entry(self, item: ScoreTable, regime: str | None, cell: Cell, table: Table) -> Entry:
        place = cell.place
        title = f"{_title(item)}: {table.rows} {place.row}, {table.columns} = {place.column}"
        box = self.boxes.add(
            cell, table.protocol, _named(title, cell, regime), _id(item, regime), _reference(cell, table.ours)
        )
        return Entry(box=box.id, paper=_paper(cell))

    # Tables of methods.

    def _methods(self, item: MethodTable, regime: str | None, table: Methods) -> Section:
        lines = table.lines if item.paper is not None else render_methods.by_budget(table.lines)
        arms = [line.arm for line in lines]
        if not any(arm.n for arm in arms):
            return _absent(item, regime, _nothing(sum(len(arm.runs) for arm in arms), table.command))
        paper = item.paper
        tasks = [] if paper is None else list(paper.scores)
        whose = list(dict.fromkeys(tables.line_name(arm.place, names()) for arm in arms))
        boxes = {id(line): self._line(item, regime, line, table, arms) for line in lines}
        rows = [_method_row(line, boxes[id(line)], item, len(whose) > 1) for line in lines]
        if paper is not None:
            theirs = [(_method(paper, row), _paper_row(item, paper, row)) for row in table.paper]
            ours = [(line.arm.place.row, row) for line, row in zip(lines, rows, strict=True)]
            order = dict.fromkeys([*(name for name, _ in theirs), *(name for name, _ in ours)])
            rows = [row for name in order for whose in (theirs, ours) for at, row in whose if at == name]
        self._panel(item, regime, table, boxes)
        printed = render_methods.printed(table, names())
        papers = [f"paper, {tables.task_name(task, names())}" for task in tasks]
        costs = ("time", "GiB") if item.baseline else ()
        header = ("method", f"ours, {'; '.join(whose)}", *costs, *papers)
        return _section(item, regime, printed, header, rows)

    def _line(self, item: MethodTable, regime: str | None, line: Line, table: Methods, arms: Sequence[Cell]) -> str:
        settings = " ".join(f"{key}={value}" for key, value in line.settings.items())
        title = f"{_title(item)}: {line.arm.place.row} {settings}".rstrip()
        if line.budget is not None:
            title += f" at a budget of {line.budget} weights"
        reference = _of_line(item, line, table) if item.baseline else _reference(line.arm, arms)
        return self.boxes.add(
            line.arm, table.protocol, _named(title, line.arm, regime), _id(item, regime), reference
        ).id

    def _panel(self, item: MethodTable, regime: str | None, table: Methods, boxes: dict[int, str]) -> None:
        groups: dict[tuple[str, str, Metric], list[Point]] = {}
        for line in table.lines:
            arm, (mean, low, high, _) = line.arm, line.arm.summary
            if mean is not None and arm.trained is not None:
                point = Point(boxes[id(line)], _method_of(line), arm.trained, mean, low, high, our_cell(arm))
                groups.setdefault((arm.task, arm.model, arm.metric), []).append(point)
        for (task, model, metric), points in groups.items():
            title = f"{_title(item)}: {model} on {task}" + (f", {regime}" if regime else "")
            where = f"{metric.title} {table.protocol.description}"
            self.panels.append(Panel(title, where, style.factor(metric), tuple(points)))

    # All others.

    def _words(self, item: Item, regime: str | None) -> Section:
        if not self.has_weights:  # asked first, because all else takes seconds
            command = f"python -m lora_repro -m +sweeps={getattr(item, 'sweep', '')} scale={self.arms.scale}"
            return _absent(
                item, regime, f"It needs trained weights, and no run here has any. Compute them: `{command}`"
            )
        request = Request(self.arms.scale, self.arms.store, _overrides(regime), "md")
        try:
            if (picture := item.picture(request)) is not None:
                return _of_picture(item, regime, picture)
            printed = item.printed(request)
        except (InputError, FileNotFoundError) as error:
            return _absent(item, regime, " ".join(str(error).split()))
        rows = [Row(tuple(line[:1]), tuple(map(Entry, line[1:]))) for line in printed.grid[1:]]
        return _section(item, regime, printed, printed.grid[0], rows)


def regimes_of(claims: Claims) -> dict[str, list[str | None]]:
    """Returns the regimes in which claims read each item."""
    found: dict[str, dict[str | None, None]] = {}
    for claim in claims.claims:
        for part in claim.parts:
            for study in claim.studies:
                if part.item is not None:
                    found.setdefault(part.item, {}).update(dict.fromkeys(study.regimes))
    return {name: list(regimes) for name, regimes in found.items()}


def _overrides(regime: str | None) -> list[str]:
    return [] if regime is None else [f"regime={regime}"]


def _id(item: Item, regime: str | None) -> str:
    return item.name if regime is None else f"{item.name}-{regime}"


def _title(item: Item, scale: str = JUDGED) -> str:
    if isinstance(item, UpdateItem) and item.is_drawn:
        return f"Figure {item.number}: {item.title.format(*item.ranks_for(scale))}"
    title = item.title.format("q") if "{0}" in item.title else item.title
    return f"Table {item.number}: {title}" if item.name.startswith("table") else title


def _named(title: str, cell: Cell, regime: str | None) -> str:
    return ", ".join([title, tables.line_name(cell.place, names()), *([regime] if regime else [])])


def _section(
    item: Item, regime: str | None, printed: PrintedTable, header: Sequence[str], rows: Sequence[Row]
) -> Section:
    """Lays out a table, without a figure; its words are those of the printed one."""
    return Section(
        id=_id(item, regime),
        item=item.name,
        regime=regime,
        about=REGIMES.get(regime or "", ""),
        above=tuple(printed.above),
        header=tuple(header),
        rows=tuple(rows),
        below=tuple(tuple(map(cut, part)) for part in printed.below if part and not part[0].startswith(VERDICT)),
        figure=None,
        caption="",
        missing=None,
    )


def _absent(item: Item, regime: str | None, why: str) -> Section:
    about = REGIMES.get(regime or "", "")
    return Section(_id(item, regime), item.name, regime, about, (), (), (), (), None, "", why)


def _nothing(runs: int, command: str) -> str:
    if not runs:
        return "It has no runs at this scale."
    return f"None of its {runs} runs is in the store. Compute them: `{command}`"


def _paper(cell: Cell) -> str:
    return "" if cell.paper is None else cell.metric.format(cell.paper.value)


def _reference(cell: Cell, cells: Sequence[Cell]) -> tuple[str, Difference] | None:
    """Returns what a cell is compared with, and the difference."""
    other = reference_of(cells, cell)
    found = None if other is None else compared(cell, other)
    return None if other is None or found is None else (_describe(other), found)


def _describe(cell: Cell) -> str:
    assert cell.config is not None
    method: Any = cell.config.method
    if not hasattr(method, "targets"):
        return method.name
    return f"{method.name} {','.join(method.targets)} r = {method.r}"


def _of_line(item: MethodTable, line: Line, table: Methods) -> tuple[str, Difference] | None:
    """Returns the difference to the baseline of a line's budget."""
    if line.difference is None:
        return None
    at = (
        " at the largest budget, for methods of their own size" if line.budget is None else f" at {line.budget} weights"
    )
    at = at if render_methods.has_budgets(table) else ""
    return f"{item.baseline_arm}{at}", in_words(line.arm, line.difference)


def _method(paper: PaperLines, row: Any) -> str:
    return str(paper.methods.get(row["method"], row["method"]))


def _paper_row(item: MethodTable, paper: PaperLines, row: Any) -> Row:
    settings = " ".join(f"{name}={value}" for name, value in render_methods.paper_settings(paper, row).items())
    entries = [Entry(str(row.get(key, ""))) for key in paper.scores.values()]
    heads = (_method(paper, row), settings, f"{row[paper.trained]:,} weights", "paper")
    return Row(heads, (Entry(), *([Entry(), Entry()] if item.baseline else []), *entries), True)


def _method_of(line: Line) -> str:
    """Returns the method of a line; of PEFT's methods which one."""
    kind = line.settings.get("peft_type")
    return line.arm.place.row if kind is None else str(kind)


def _method_row(line: Line, box: str, item: MethodTable, has_places: bool) -> Row:
    arm, tasks = line.arm, [] if item.paper is None else list(item.paper.scores)
    settings = " ".join(f"{key}={value}" for key, value in line.settings.items())
    heads = [arm.place.row, settings, "" if arm.trained is None else f"{arm.trained:,} weights"]
    if item.paper is None:
        used = render_methods.used_of(arm)
        part = "" if used is None else f", {percent(used)} of it"
        heads.append(f"budget {line.budget}{part}" if line.budget is not None else render_methods.ONE_SIZE)
    heads += [tables.line_name(arm.place, names())] if has_places else []
    costs = (Entry("" if line.time is None else f"{line.time:.2f}"), Entry(render_methods.memory_of(line)))
    return Row(tuple(heads), (Entry(box=box), *(costs if item.baseline else ()), *(Entry() for _ in tasks)))


def _drawn(table: Table) -> tuple[str | None, str]:
    """Returns a figure of a table as SVG, and its caption; nothing of a table without a full cell."""
    if not any(cell.summary.mean is not None for cell in table.ours):
        return None, ""
    return _svg(lambda: plots.draw(table, names())), " ".join(plots.caption(table, names()))


def _of_picture(item: Item, regime: str | None, picture: Picture) -> Section:
    """Returns a figure without a table; its caption stands below it as notes."""
    if (drawn := _svg(picture.draw)) is None:
        return _absent(item, regime, f"It is too large for this page: `python -m analysis figure {item.number}`")
    below = tuple((cut(paragraph),) for paragraph in picture.caption)
    return _absent(item, regime, "")._replace(missing=None, figure=drawn, caption=picture.caption[0], below=below)


def _svg(draw: Callable[[], Figure]) -> str | None:
    """Returns a figure as SVG; None of one that is too large for the page."""
    with style.styled():
        drawn = io.BytesIO()
        draw().savefig(drawn, format="svg", metadata={"Date": None})
    text = drawn.getvalue().decode()
    return None if len(text) > LARGEST_FIGURE else text
