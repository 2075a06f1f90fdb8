"""The kind `scatter`: scores against numbers of trained weights, ours and the paper's (Figure 2)."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from analysis.items import Item, Picture, Request, facts_of, names, register
from analysis.protocol import Protocol
from analysis.render.scatter import Point, draw_points
from analysis.stats import half_width_in_standard_errors, summarise
from analysis.verdicts import verdict_sentence
from lora_repro.config.identity import id_fields
from lora_repro.errors import InputError
from lora_repro.sweep.grid import Job

FEW_SEEDS = 4
"""Below it the caption says how wide a t interval is."""

NAMED = 4
"""Missing cells that the caption names."""


@dataclass
class PaperPoint:
    """A point of the paper's figure."""

    task: str
    method: str
    """As the facts call it."""
    trained: int
    """How many weights are trained."""
    percent: float | None = None
    """Its score, where the table lacks it."""


@dataclass
class PaperPoints:
    """Which rows of a table the paper's figure plots."""

    rows_of: str
    """The item whose facts hold the rows."""
    x: str
    """The key of a row that holds the number of trained weights."""
    panels: dict[str, str]
    """For each task, as our sweep names it, the key of a row that holds its score in percent."""
    methods: dict[str, str]
    """How the rows call a method, and how we do. Rows of other methods are not plotted."""
    not_plotted: list[PaperPoint] = field(default_factory=list)
    """Points of the table that the figure lacks."""
    read_off: list[PaperPoint] = field(default_factory=list)
    """Points of the figure that the table lacks: approximate."""


@register("scatter")
@dataclass(kw_only=True)
class Scatter(Item):
    """Scores against trained weights: a panel a task, a marker a method, a point a cell of the sweep."""

    word = "figure"
    takes = ("protocol",)

    sweep: str
    """Which runs make the points."""
    metric: str
    """As metric keys spell it, without the split: accuracy."""
    settings: list[str]
    """Keys of the configuration by which the points of one method are told apart."""
    paper: PaperPoints | None = None
    """The paper's points, where it has such a figure."""

    def picture(self, request: Request) -> Picture:
        """Joins the sweep to the store; cells without a score are named, not drawn.

        Raises:
            InputError: If the sweep is impossible, or runs of one cell record different numbers of trained weights.
        """
        data = read_scatter(self, request)
        words = [_title(data), *_caption(data)]
        runs = [run_id for cell in data.ours if cell.mean is not None for run_id in cell.run_ids]
        return Picture(partial(_draw, data, words), words, _json(data), runs)


class Cell(NamedTuple):
    """The runs of one setting, which differ in their seed alone."""

    task: str
    model: str
    method: str
    settings: dict[str, Any]
    trained: int | None
    """Weights that the method trains, the head not counted, as the runs recorded it; None before the first is done."""
    scores: list[float | None]
    """Of each seed."""
    seeds: list[int]
    run_ids: list[str]
    states: list[str]
    mean: float | None
    """None while a run is missing: never over a part of the seeds."""
    low: float | None
    high: float | None

    @property
    def label(self) -> str:
        """Names the cell: lora r = 4 targets q,v."""
        return " ".join([self.method, *(f"{key.rpartition('.')[2]} = {value}" for key, value in self.settings.items())])


class ScatterData(NamedTuple):
    """All points of the figure."""

    item: Scatter
    scale: str
    protocol: Protocol
    paper: list[Point]
    ours: list[Cell]
    planned: str | None
    """Why the sweep cannot run at this scale."""
    command: str
    """Computes what is missing."""


def read_scatter(item: Scatter, request: Request) -> ScatterData:
    """Reads the sweep's cells from the store."""
    from analysis.store import elsewhere
    from lora_repro.config.compose import compose
    from lora_repro.sweep.grid import load

    arguments = [f"+sweeps={item.sweep}", f"scale={request.scale}", *request.overrides]
    sweep = load(compose, arguments)
    groups: dict[str, list[Job]] = {}
    for job in sweep.jobs:
        settings = {key: value for key, value in id_fields(job.resolved.run).items() if key != "seed"}
        groups.setdefault(json.dumps(settings, sort_keys=True, default=str), []).append(job)
    protocol = Protocol(request.protocol)
    ours = [_cell(item, jobs, request.store, protocol) for jobs in groups.values()]
    command = shlex.join(["python", "-m", "lora_repro", "-m", *arguments, *elsewhere(request.store)])
    planned = sweep.planned[0][1] if sweep.planned else None
    paper = paper_points(item.paper) if item.paper is not None else []
    return ScatterData(item, request.scale, protocol, paper, ours, planned, command)


def _cell(item: Scatter, jobs: Sequence[Job], store: str, protocol: Protocol) -> Cell:
    from analysis.cell import label, value_of
    from analysis.join import seed_runs

    run = jobs[0].resolved.run
    metric = run.task.targets.metric(item.metric)
    if metric is None:
        raise InputError(f"task: {item.name} shows {item.metric}, which {run.task.name} has not.\nLeave task out.")
    runs = seed_runs(jobs, store, metric, protocol)
    scores, states = [run.score for run in runs], [run.state for run in runs]
    trained = {run.result["params"]["method"] for run in runs if run.result is not None}
    if len(trained) > 1:
        raise InputError(
            f"{jobs[0].run_id}: runs that differ in their seed alone record {' and '.join(map(str, sorted(trained)))} "
            "trained weights.\nCompute them again with one version."
        )
    done = [score for score in scores if score is not None]
    summary = summarise(done if len(done) == len(scores) else [])
    settings = {key: label(value) for key in item.settings if (value := value_of(run, key)) is not None}
    where = (run.task.name, run.model.name, run.method.name, settings, next(iter(trained), None))
    seeds, run_ids = [job.resolved.run.seed for job in jobs], [job.run_id for job in jobs]
    return Cell(*where, scores, seeds, run_ids, states, summary.mean, summary.low, summary.high)


def paper_points(paper: PaperPoints) -> list[Point]:
    """Returns the points of the paper's figure: of rows with one method and count the better, as it plots them."""
    rows = facts_of(paper.rows_of)["rows"]
    points = []
    for task, key in paper.panels.items():
        best: dict[tuple[str, int], float] = {}
        for row in rows:
            if row["method"] in paper.methods and key in row:
                at = (row["method"], row[paper.x])
                best[at] = max(row[key], best.get(at, row[key]))
        for absent in paper.not_plotted:
            if absent.task == task:
                del best[absent.method, absent.trained]
        for more in paper.read_off:
            if more.task == task and more.percent is not None:
                best[more.method, more.trained] = more.percent
        model = rows[0]["model"]
        points += [
            Point(task, model, paper.methods[method], trained, round(percent / 100, 6))
            for (method, trained), percent in sorted(best.items())
        ]
    return points


def _json(data: ScatterData) -> list[dict[str, Any]]:
    """Returns an entry a point: the paper's, then ours; scores in [0, 1], what is missing is null."""
    shared = {"figure": data.item.number, "metric": data.item.metric}
    nothing = {"settings": {}, "low": None, "high": None, "scores": [], "seeds": [], "run_ids": [], "states": []}
    paper = [{"source": "paper", **shared, **nothing, **_of_point(point)} for point in data.paper]
    ours = [
        {"source": "ours", **shared, "scale": data.scale, "protocol": data.protocol.value, **cell._asdict()}
        for cell in data.ours
    ]
    return [*paper, *ours]


def _of_point(point: Point) -> dict[str, Any]:
    fields = point._asdict()
    return {key: fields[key] for key in ("task", "model", "method", "trained", "mean")}


def _draw(data: ScatterData, words: list[str]) -> Figure:
    printed = names()
    ours = [
        Point(cell.task, cell.model, cell.method, cell.trained, cell.mean, cell.low, cell.high, is_ours=True)
        for cell in data.ours
        if cell.mean is not None and cell.trained is not None
    ]
    return draw_points([*data.paper, *ours], data.item.metric, printed, words)


def _title(data: ScatterData) -> str:
    where = dict.fromkeys(f"{cell.model} on {cell.task}" for cell in data.ours)
    return "; ".join([f"Figure {data.item.number}: {data.item.title}", *where, f"scale={data.scale}"])


def _caption(data: ScatterData) -> list[str]:
    """Returns paragraphs: what is seen, how to read it, and what is missing."""
    drawn = [cell for cell in data.ours if cell.mean is not None]
    whose = []
    if data.paper and data.item.paper is not None:
        printed = names()
        tasks = " and ".join(printed["tasks"].get(task, task) for task in data.item.paper.panels)
        model = printed["models"].get(data.paper[0].model, data.paper[0].model)
        whose.append(f"open markers are the paper's ({model} on {tasks}, of settings with one count the better)")
    if drawn:
        seeds = sorted({seed for cell in drawn for seed in cell.seeds})
        whose.append(
            f"filled markers are ours, means over seeds {', '.join(map(str, seeds))} {data.protocol.description}, "
            "bars their two-sided 95 % t intervals"
        )
    return [
        f"Each point is one setting of a method: its {data.item.metric} and how many weights it trains, the "
        f"classification head not counted; {'; '.join(whose)}.",
        "Read from left to right what more trained weights buy; a method is worth its weights where it stands above "
        f"those to its left. The axis is logarithmic.{_zero(drawn)} Compare points within a panel: models and tasks "
        "differ between panels.",
        *_read_off(data.item),
        *_missing(data),
        *(
            f"An interval over {n} seeds reaches {half_width_in_standard_errors(n):.1f} standard errors of the mean to "
            "each side: it says little."
            for n in sorted({len(cell.seeds) for cell in drawn})
            if 2 <= n < FEW_SEEDS
        ),
        *_verdict(data),
    ]


def _zero(drawn: Sequence[Cell]) -> str:
    methods = ", ".join(dict.fromkeys(cell.method for cell in drawn if cell.trained == 0))
    return f" It has no 0: {methods}, which trains the head alone, stands left of the dotted line." if methods else ""


def _read_off(item: Scatter) -> list[str]:
    if item.paper is None or not item.paper.read_off:
        return []
    points = [f"{point.method} at {point.trained / 1e6:g}M on {point.task}" for point in item.paper.read_off]
    return [
        f"Read off the paper's figure, approximate: {', '.join(points)}; its other points are {_table(item.paper)}'s."
    ]


def _table(paper: PaperPoints) -> str:
    return f"Table {paper.rows_of.removeprefix('table')}"


def _missing(data: ScatterData) -> list[str]:
    """Names the cells without a point, and the command that computes them."""
    if not data.ours and data.planned is not None:
        return [f"Ours are planned and cannot run yet: {data.planned}."]
    lacking = [cell for cell in data.ours if cell.mean is None]
    if not lacking:
        return []
    named = [f"{cell.label} ({_states(cell)})" for cell in lacking[:NAMED]]
    more = [f"and {len(lacking) - NAMED} more"] if len(lacking) > NAMED else []
    names = "; ".join([*named, *more])
    return [f"Not drawn, {len(lacking)} of {len(data.ours)} cells: {names}. Compute them: {data.command}"]


def _states(cell: Cell) -> str:
    done = sum(score is not None for score in cell.scores)
    others = [state for state, score in zip(cell.states, cell.scores, strict=True) if score is None and state != "todo"]
    counts: Mapping[str, int] = {state: others.count(state) for state in others}
    return ", ".join([f"{done}/{len(cell.seeds)} seeds", *(f"{n} {state}" for state, n in counts.items())])


def _verdict(data: ScatterData) -> list[str]:
    if not data.ours:
        return []
    return [verdict_sentence(data.scale, (name for cell in data.ours for name in (cell.model, cell.task)))]
