"""The kind `across`: a line for each method, a column for each task, number of training examples, or metric.

Tables 2 and 16 are of this kind, and those of generated text.

Beside the scores stand, column by column, the difference of each method to a baseline, and how much choosing the epoch
on the examples that are scored flatters: the selection bias of the paper's protocol.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from analysis.items import Item, Request, names, refuse_unknown_sweep, register
from lora_repro.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from analysis.cell import Cell
    from analysis.protocol import Protocol
    from analysis.render.printed import PrintedTable
    from analysis.stats import Paired, Summary
    from lora_repro.sweep.job import Job, Sweep
    from lora_repro.tasks import Metric

ALL = "all"
"""How a column names a value of null: all training examples."""

PAPER = "paper"
"""The scale at which all rows of the paper are shown."""


@dataclass
class Columns:
    """What makes columns: the task, and perhaps one key or metrics more."""

    facts: dict[str, str] = field(default_factory=dict)
    """For each column in its order, `rte`, with a key `mnli 100`, with metrics `e2e bleu`, the key of the facts' rows
    that holds its score as we print it, shares in percent. One that our runs lack is shown where the paper has it."""
    shares: list[str] = field(default_factory=list)
    """Keys of the facts' rows that hold shares from 0 to 1, and are printed in percent beside ours."""
    key: str | None = None
    """The configuration's key that makes columns beside the task."""
    label: str = ""
    """How the key is printed: n."""
    metrics: list[str] = field(default_factory=list)
    """The metrics that make a column each, as far as a task has them; of one that has none of them, its first does."""

    @property
    def second(self) -> str:
        """What makes columns beside the task, as it is printed; empty if nothing does."""
        return "metric" if self.metrics else self.label if self.key else ""

    def metric(self, column: str) -> "Metric | None":
        """Returns the metric that a column is named after; None where columns are not, and scores are in percent.

        A metric of a part, ter_unseen, is no metric of any kind: it is what its whole is, under its own name.
        """
        from lora_repro.tasks.targets import metric_of_any_kind

        if not self.metrics:
            return None
        name = column.partition(" ")[2]
        found = metric_of_any_kind(name) or metric_of_any_kind(name.rpartition("_")[0])
        return None if found is None else found._replace(name=name)

    def of_paper(self, column: str, value: float) -> float:
        """Returns a number of the paper's column in the unit of our records, where shares are from 0 to 1."""
        from lora_repro.tasks import Unit

        metric = self.metric(column)
        is_percent = self.facts[column] not in self.shares and (metric is None or metric.unit is Unit.percent)
        return round(value / 100, 6) if is_percent else value


@dataclass
class PaperRows:
    """Which rows of the facts stand beside our lines."""

    methods: dict[str, str]
    """How the rows call a method, and how we do."""
    beside: dict[str, str]
    """For a model of ours, the model of the rows that stand beside it."""
    trained: str | None = None
    """The key of a row that holds the number of trained weights."""
    average: str | None = None
    """The key of a row that holds its mean over all tasks, as printed."""
    settings: list[str] = field(default_factory=list)
    """Keys of a row that are printed among its settings: r=4."""
    fluctuation: float | None = None
    """The standard deviation that the paper prints for all its scores, in their unit; a row may print one of a score of
    its own, under the score's key with `_std` behind it."""
    marks: dict[str, str] = field(default_factory=dict)
    """Keys of a row that are true or false, and what is printed among its settings where it is true."""


@register("across")
@dataclass(kw_only=True)
class AcrossTable(Item):
    """Methods across tasks."""

    takes = ("protocol",)

    sweep: str
    """Which runs make the cells."""
    columns: Columns
    settings: list[str]
    """Keys of the configuration, or of the sweep's grids, by whose values lines of one method differ. They are printed
    where a method has them and they are not at their default."""
    about: list[str] = field(default_factory=list)
    """Keys of the configuration that are printed above the table for each model and task."""
    protocol: str = "held_out"
    """Which number is taken from a run if the command line does not say."""
    baseline: dict[str, Any] = field(default_factory=dict)
    """Values of keys by which a model's line is found whose scores are taken off all others. Empty: no differences."""
    models: list[str] = field(default_factory=list)
    """The order of the models; others follow by name."""
    draws: str | None = None
    """A key that draws the training examples anew, as task.subset_seed. A cell then is over draws and seeds."""
    mean: bool = False
    """Whether the last column is the mean over the columns of a model."""
    paper: PaperRows | None = None
    notes: list[str] = field(default_factory=list)
    """Sentences below the table."""

    def check(self) -> None:
        """Refuses a sweep that is not there, keys that the facts lack, and columns of the paper in an unknown unit.

        Raises:
            InputError: Naming the field.
        """
        refuse_unknown_sweep(self.name, self.sweep)
        if self.columns.key is not None and self.columns.metrics:
            raise InputError(
                f"{self.name}.yaml: columns: give key or metrics, as a column has one name beside its task."
            )
        if self.paper is None:
            return
        rows: list[dict[str, Any]] = self.facts.get("rows", [])
        keys = list(dict.fromkeys(key for row in rows for key in row))
        single = [key for key in (self.paper.trained, self.paper.average) if key is not None]
        asked: list[tuple[str, Iterable[str], Sequence[Any]]] = [
            ("columns: facts", self.columns.facts.values(), keys),
            ("columns: shares", self.columns.shares, [*self.columns.facts.values()]),
            ("paper", [*single, *self.paper.settings, *self.paper.marks], keys),
            ("paper: methods", self.paper.methods, [row["method"] for row in rows]),
            ("paper: beside", self.paper.beside.values(), [row["model"] for row in rows]),
        ]
        for where, given, known in asked:
            for each in given:
                if each not in known:
                    raise InputError(
                        f"{self.name}.yaml: {where}: the facts have no {each!r}.{did_you_mean(each, known)}\n"
                        f"They have: {', '.join(dict.fromkeys(known))}."
                    )
        for column in self.columns.facts if self.columns.metrics else ():
            if self.columns.metric(column) is None:
                raise InputError(
                    f"{self.name}.yaml: columns: facts: the unit of the paper's numbers is unknown, as there is no "
                    f"metric {column.partition(' ')[2]!r} (given: {column!r}).\n"
                    "Give the task and a metric, or a metric and its part. Examples: webnlg ter, webnlg ter_unseen"
                )

    def printed(self, request: Request) -> "PrintedTable":
        """Returns the table in words."""
        from analysis.render import across

        return across.printed(read_across(self, request), names())


class Bias(NamedTuple):
    """How much better dev looks at the epoch that is best on it than at an epoch chosen on other examples."""

    summary: "Summary"
    """Mean and 95 % t interval over runs, of whichever method and seed."""
    run_ids: tuple[str, ...]


class Line(NamedTuple):
    """A method of one size on one model."""

    model: str
    method: str
    settings: dict[str, str]
    trained: int
    """How many weights the method trains, the head not counted."""
    cells: dict[str, "Cell"]
    """By column."""
    mean: "Summary | None" = None
    """Of the means over all columns of the model, seed by seed; None where a column or a run is missing."""
    is_baseline: bool = False
    differences: "Mapping[str, Paired]" = MappingProxyType({})
    """Its score minus the baseline's by column, paired."""
    mean_difference: "Paired | None" = None
    """The same of the means over all columns."""

    @property
    def name(self) -> str:
        """Writes `lora r=8`."""
        return " ".join([self.method, *(f"{key}={value}" for key, value in self.settings.items())])


class Block(NamedTuple):
    """The lines of one model, with the rows of the paper that stand beside them."""

    model: str
    columns: list[str]
    """Those in which it has runs."""
    lines: list[Line]
    biases: dict[str, Bias]
    paper: list[Mapping[str, Any]]


class Across(NamedTuple):
    """The whole table."""

    item: AcrossTable
    scale: str
    protocol: "Protocol"
    columns: list[str]
    blocks: list[Block]
    planned: list[str]
    """Why runs of the sweep cannot run yet."""
    command: str

    @property
    def lines(self) -> list[Line]:
        """All lines of ours."""
        return [line for block in self.blocks for line in block.lines]


def read_across(item: AcrossTable, request: Request, sweep: "Sweep | None" = None) -> Across:
    """Joins the sweep to the store.

    Args:
        item: The table.
        request: Scale, store, overrides and protocol.
        sweep: The sweep of these, if it is loaded already.

    Raises:
        InputError: If the sweep is impossible, runs of a cell differ in more than seed and draw, or two lines of a
            model are its baseline.
    """
    from analysis.join import Commands
    from analysis.protocol import Protocol
    from lora_repro.config.compose import compose
    from lora_repro.sweep.grid import load

    base = [f"+sweeps={item.sweep}", f"scale={request.scale}"]
    sweep = load(compose, [*base, *request.overrides], request.store) if sweep is None else sweep
    protocol = Protocol.of(request.protocol, item.protocol)
    commands = Commands(base, request.overrides, request.store, sweep.reported)
    lines = _lines(item, [*sweep.reported, *sweep.twins], request, protocol, commands)
    models = _in_order({line.model for line in lines}, item.models)
    blocks = [_block(item, model, [line for line in lines if line.model == model]) for model in models]
    blocks = _with_paper(item, blocks, is_whole=request.scale == PAPER)
    return Across(
        item=item,
        scale=request.scale,
        protocol=protocol,
        columns=_columns(item, blocks),
        blocks=blocks,
        planned=list(dict.fromkeys(reason for _, reason in sweep.planned)),
        command=commands.whole(),
    )


def _lines(
    item: AcrossTable, jobs: Sequence["Job"], request: Request, protocol: "Protocol", commands: Any
) -> list[Line]:
    """Sorts runs into lines and columns, and joins each cell to the store."""
    from analysis.cell import Cell, Place
    from analysis.join import refuse_mixed, seed_runs
    from analysis.verdicts import verdict_of

    found: dict[tuple[Any, ...], Line] = {}
    members: dict[tuple[Any, ...], dict[tuple[str, Metric], list[Job]]] = {}
    for job in jobs:
        settings, run = _settings(item, job), job.shown
        line = Line(run.model.name, run.method.name, settings, run.trained_by_method, {})
        key = (line.model, line.method, *settings.items(), line.trained)
        found.setdefault(key, line)
        for column in _columns_of(item, job):
            alike = members.setdefault(key, {}).setdefault(column, [])
            if all(job.run_id != each.run_id for each in alike):
                alike.append(job)
    draws = [] if item.draws is None else [item.draws]
    for key, line in found.items():
        for (column, metric), alike in members[key].items():
            alike.sort(key=lambda job: job.resolved.run.seed)
            refuse_mixed(f"{line.name} of {line.model} on {column}", alike, besides=draws)
            run, first = alike[0].shown, alike[0]
            by = run.task.targets.metrics[0]
            runs = seed_runs(alike, request.store, metric, protocol, by, item.draws)
            shown = (run.task.name, metric.name) if item.columns.metrics else (column, None)
            place = Place("", run.model.name, f"{line.name} ({line.model})", *shown)
            line.cells[column] = Cell(
                place, metric, None, runs, run, commands.of(alike), verdict_of(request.scale), first.tuning
            )
    return [*found.values()]


def _settings(item: AcrossTable, job: "Job") -> dict[str, str]:
    """Returns the settings by which a line is told from others of its method, as they are printed."""
    from analysis.cell import Cell, Place, value_of
    from analysis.kinds.methods import shown_settings

    run = job.shown
    of_method = Cell(Place("", None, "", ""), run.task.targets.metrics[0], config=run)
    of_grid = {key: str(job.point[key]) for key in item.settings if key in job.point and value_of(run, key) is None}
    return shown_settings(item.settings, of_method) | of_grid


def _columns_of(item: AcrossTable, job: "Job") -> "list[tuple[str, Metric]]":
    """Names the columns of a run as the item's file does, `rte`, `mnli 100` or `e2e bleu`, each with its metric."""
    from analysis.cell import label, value_of

    run = job.shown
    task, targets = run.task.name, run.task.targets
    if item.columns.metrics:
        named = [metric for name in item.columns.metrics if (metric := targets.metric(name)) is not None]
        return [(f"{task} {metric.name}", metric) for metric in named or targets.metrics[:1]]
    if item.columns.key is None:
        return [(task, targets.metrics[0])]
    value = label(value_of(run, item.columns.key))
    return [(f"{task} {ALL if value is None else value}", targets.metrics[0])]


def _columns(item: AcrossTable, blocks: Sequence[Block]) -> list[str]:
    """Returns the columns in the item's order: ours, and those that the paper's rows have alone."""
    ours = dict.fromkeys(column for block in blocks for column in block.columns)
    facts = item.columns.facts
    taken = {facts[column] for column in ours if column in facts}
    found = []
    for column, key in facts.items():
        in_paper = key not in taken and any(row.get(key) is not None for block in blocks for row in block.paper)
        if column in ours or in_paper:
            found.append(column)
            taken.add(key)
    return [*found, *sorted((column for column in ours if column not in facts), key=_by_size)]


def _in_order(there: Collection[str], order: Iterable[str]) -> list[str]:
    """Returns names in an order that does not change with what is finished: as in a list, then the others by name."""
    first = [each for each in dict.fromkeys(order) if each in there]
    return [*first, *sorted({*there} - {*first})]


def _by_size(column: str) -> tuple[str, float]:
    task, _, value = column.partition(" ")
    return task, float("inf") if value == ALL else float(value) if value.isdigit() else 0.0


def _block(item: AcrossTable, model: str, lines: list[Line]) -> Block:
    """Adds to the lines of a model what is taken over columns and what is compared."""
    columns = list(dict.fromkeys(column for line in lines for column in line.cells))
    methods = _in_order({line.method for line in lines}, [] if item.paper is None else item.paper.methods.values())
    lines = sorted(lines, key=lambda line: methods.index(line.method))
    baseline = _baseline(item, model, lines)
    means = [_mean(line.cells, columns) if item.mean else None for line in lines]
    compared = [
        line._replace(
            mean=mean,
            is_baseline=line is baseline,
            **({} if baseline is None or line is baseline else _differences(item, line, baseline, columns)),
        )
        for line, mean in zip(lines, means, strict=True)
    ]
    return Block(model, columns, compared, {column: _bias(lines, column) for column in columns}, [])


def _with_paper(item: AcrossTable, blocks: list[Block], is_whole: bool) -> list[Block]:
    """Puts the paper's rows beside our lines: those of methods that we have, or at the paper's own scale all."""
    if item.paper is None:
        return blocks
    found = []
    for block in blocks:
        ours = {line.method for line in block.lines}
        rows = [row for row in item.facts["rows"] if row["model"] == item.paper.beside.get(block.model)]
        found.append(
            block._replace(paper=[row for row in rows if is_whole or item.paper.methods.get(row["method"]) in ours])
        )
    if is_whole:
        there = {item.paper.beside.get(block.model) for block in blocks}
        rows = [row for row in item.facts["rows"] if row["model"] not in there]
        for model in dict.fromkeys(row["model"] for row in rows):
            found.append(Block(model, [], [], {}, [row for row in rows if row["model"] == model]))
    return found


def _baseline(item: AcrossTable, model: str, lines: Sequence[Line]) -> Line | None:
    """Returns the line that others are compared with; None where the model has none.

    Raises:
        InputError: If several are.
    """
    from analysis.kinds.methods import has_values

    found = [line for line in lines if item.baseline and has_values(next(iter(line.cells.values())), item.baseline)]
    if len(found) > 1:
        raise InputError(
            f"{item.name}: {' and '.join(line.name for line in found)} of {model} are its baseline {item.baseline}. "
            "Give one value for each key."
        )
    return found[0] if found else None


def can_be_averaged(cells: Iterable["Cell"]) -> bool:
    """Tells whether scores are shares or correlations of which more is better: of others a mean would say nothing."""
    from lora_repro.tasks import Unit

    return all(cell.metric.unit is Unit.percent and cell.metric.higher_is_better for cell in cells)


def _mean(cells: Mapping[str, "Cell"], columns: Sequence[str]) -> "Summary | None":
    """Returns the mean over all columns, seed by seed; None where one is missing or has other seeds."""
    from analysis.stats import summarise

    if len(columns) < 2 or not can_be_averaged(cells.values()):
        return None
    averaged = _averaged([cells[column].replicates if column in cells else {} for column in columns])
    return None if averaged is None else summarise([*averaged.values()])


def _averaged(by_column: Sequence[Mapping[int | None, float]]) -> dict[int | None, float] | None:
    """Averages over columns what each has by seed; None unless all have the same seeds."""
    if not by_column or not by_column[0] or any(each.keys() != by_column[0].keys() for each in by_column):
        return None
    return {seed: fmean(each[seed] for each in by_column) for seed in by_column[0]}


def _differences(item: AcrossTable, line: Line, baseline: Line, columns: Sequence[str]) -> dict[str, Any]:
    from analysis.differences import differences
    from analysis.stats import paired

    both = [column for column in columns if column in line.cells and column in baseline.cells]
    found = {column: differences(line.cells[column], baseline.cells[column]) for column in both}
    there = {column: each for column, each in found.items() if each is not None}
    of_mean = None
    if item.mean and len(columns) > 1 and len(there) == len(columns) and can_be_averaged(line.cells.values()):
        averaged = _averaged([*there.values()])
        of_mean = None if averaged is None else paired([*averaged.values()])
    return {
        "differences": {column: paired([*each.values()]) for column, each in there.items()},
        "mean_difference": of_mean,
    }


def _bias(lines: Sequence[Line], column: str) -> Bias:
    """Compares two protocols on the same examples and runs: the epoch best on them, and the one best on others.

    Only runs count whose task has no test split: of others the two numbers are of different examples, and their
    difference is not that of the choice alone. Nor do runs of one epoch, in which nothing is chosen.
    """
    from analysis.protocol import Protocol, pick
    from analysis.stats import summarise

    found: dict[str, float] = {}
    for cell in (line.cells[column] for line in lines if column in line.cells):
        for run in cell.runs:
            result = run.result
            if result is None or run.run_id is None or not result.get("cross_fitted"):
                continue
            first = cell.targets.metrics[0] if cell.targets is not None else None
            protocols = (Protocol.best_epoch_on_dev, Protocol.held_out)
            best, fair = (pick(result, cell.metric, each, first) for each in protocols)
            if best is not None and fair is not None and len(result["metrics_by_epoch"]) > 1:
                better = best.value - fair.value
                found[run.run_id] = better if cell.metric.higher_is_better else -better
    return Bias(summarise([*found.values()]), tuple(found))
