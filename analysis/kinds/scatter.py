"""The kind `scatter`: scores against numbers of trained weights, ours and the paper's (Figure 2)."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from analysis.arms import read_arms, settings_of
from analysis.cell import Cell, tuning_record
from analysis.items import Item, Picture, Request, facts_of, names, refuse_unknown_sweep, register
from analysis.protocol import Protocol
from analysis.render.plots import cut_words
from analysis.render.scatter import Point, draw_points
from analysis.render.tables import states_of
from analysis.stats import few_seeds
from analysis.store import elsewhere
from analysis.verdicts import verdict_sentence
from lora_repro.config.compose import compose
from lora_repro.errors import InputError
from lora_repro.sweep.grid import Sweep, load
from lora_repro.tasks import Metric, Unit

MOST_NAMED = 4
"""Missing cells that the caption names."""


@dataclass
class PaperPoints:
    """Which rows of a table the paper's figure plots, but for what the facts' points say of some."""

    rows_of: str
    """The item whose facts hold the rows."""
    x: str
    """The key of a row that holds the number of trained weights."""
    panels: dict[str, str]
    """For each task, as our sweep names it, the key of a row that holds its score in percent."""
    methods: dict[str, str]
    """How the rows call a method, and how we do. Rows of other methods are not plotted."""


@register("scatter")
@dataclass(kw_only=True)
class Scatter(Item):
    """Scores against trained weights: a panel a task, a marker a method, a point a cell of the sweep.

    Of its facts, `points` are where figure and table differ: each has task, method, trained, and `plotted`. One that is
    plotted is not in the table, so it has its score, `percent`, as read off the figure.
    """

    word = "figure"
    takes = ("protocol",)

    sweep: str
    """Which runs make the points."""
    metrics: list[str]
    """As metric keys spell them, without the split: accuracy. A task is shown by the first of them that it has."""
    settings: list[str]
    """Keys of the configuration by which the points of one method are named."""
    paper: PaperPoints | None = None
    """The paper's points, where it has such a figure."""

    def check(self) -> None:
        """Refuses a sweep that is not there."""
        refuse_unknown_sweep(self.name, self.sweep)

    def picture(self, request: Request) -> Picture:
        """Joins the sweep to the store; cells without a score are named, not drawn.

        Raises:
            InputError: If the sweep is impossible, or runs of one cell record different numbers of trained weights.
        """
        data = read_scatter(self, request)
        words = [_title(data), *_caption(data)]
        runs = [run.run_id for cell in data.drawn for run in cell.runs if run.run_id is not None]
        return Picture(partial(_draw, data, words), words, _json(data), runs)


class ScatterData(NamedTuple):
    """All points of the figure."""

    item: Scatter
    scale: str
    protocol: Protocol
    metrics: dict[str, Metric]
    """By task, the paper's tasks among them."""
    paper: list[Point]
    ours: list[Cell]
    sweep: Sweep
    command: str
    """Computes what is missing."""

    @property
    def drawn(self) -> list[Cell]:
        """Our cells that have a mean."""
        return [cell for cell in self.ours if cell.summary.mean is not None]


def read_scatter(item: Scatter, request: Request) -> ScatterData:
    """Reads the sweep's cells from the store."""
    arguments = [f"+sweeps={item.sweep}", f"scale={request.scale}", *request.overrides]
    sweep = load(compose, arguments, request.store)
    protocol = Protocol.of(request.protocol)
    ours = read_arms(sweep.reported, request.store, item.metrics, protocol, item.name)
    command = shlex.join(["python", "-m", "lora_repro", "-m", *arguments, *elsewhere(request.store)])
    paper = paper_points(item) if item.paper is not None else []
    metrics = {cell.task: cell.metric for cell in ours}
    if len({metric.higher_is_better for metric in metrics.values()}) > 1:
        raise InputError(f"task: {item.name} says which scores are better, and for these tasks that is not the same.")
    for point in paper:
        metrics.setdefault(point.task, Metric(item.metrics[-1], Unit.percent))
    return ScatterData(item, request.scale, protocol, metrics, paper, ours, sweep, command)


def paper_points(item: Scatter) -> list[Point]:
    """Returns the points of the paper's figure; where two rows of a method train equally many weights, the better."""
    paper = item.paper
    assert paper is not None
    rows, found = facts_of(paper.rows_of)["rows"], []
    for task, key in paper.panels.items():
        best: dict[tuple[str, int], float] = {}
        for row in rows:
            if row["method"] in paper.methods and key in row:
                at = (row["method"], row[paper.x])
                best[at] = max(row[key], best.get(at, row[key]))
        for point in item.facts.get("points", []):
            if point["task"] == task and point["plotted"]:
                best[point["method"], point["trained"]] = point["percent"]
            elif point["task"] == task:
                del best[point["method"], point["trained"]]
        found += [
            Point(task, rows[0]["model"], paper.methods[method], trained, round(percent / 100, 6))
            for (method, trained), percent in sorted(best.items())
        ]
    return found


def _json(data: ScatterData) -> list[dict[str, Any]]:
    """Returns an entry a point: the paper's, then ours; scores as records hold them, what is missing is null."""
    shared = {"figure": data.item.number}
    nothing = {"settings": {}, "low": None, "high": None, "scores": [], "seeds": [], "run_ids": [], "states": []}
    nothing |= {"tuning": None}
    named = {task: {"metric": metric.name} for task, metric in data.metrics.items()}
    paper = [{"source": "paper", **shared, **named[p.task], **nothing, **_of_point(p)} for p in data.paper]
    about = {"source": "ours", **shared, "scale": data.scale, "protocol": data.protocol.value}
    return [*paper, *({**about, **named[cell.task], **_of_cell(data.item, cell)} for cell in data.ours)]


def _of_point(point: Point) -> dict[str, Any]:
    fields = point._asdict()
    return {key: fields[key] for key in ("task", "model", "method", "trained", "mean")}


def _of_cell(item: Scatter, cell: Cell) -> dict[str, Any]:
    return {
        "task": cell.task,
        "model": cell.model,
        "method": cell.place.row,
        "settings": settings_of(cell, item.settings),
        "trained": cell.trained,
        "scores": [run.score for run in cell.runs],
        "seeds": [run.seed for run in cell.runs],
        "run_ids": [run.run_id for run in cell.runs],
        "states": [run.state for run in cell.runs],
        "mean": cell.summary.mean,
        "low": cell.summary.low,
        "high": cell.summary.high,
        "tuning": tuning_record(cell.tuning),
    }


def _draw(data: ScatterData, words: list[str]) -> Figure:
    ours = [
        Point(cell.task, cell.model, cell.place.row, cell.trained, mean, low, high, is_ours=True)
        for cell in data.drawn
        for mean, low, high, _ in [cell.summary]
        if mean is not None and cell.trained is not None
    ]
    return draw_points([*data.paper, *ours], data.metrics, names(), words)


def _title(data: ScatterData) -> str:
    where = dict.fromkeys(f"{cell.model} on {cell.task}" for cell in data.ours)
    return "; ".join([f"Figure {data.item.number}: {data.item.title}", *where, f"scale={data.scale}"])


def _caption(data: ScatterData) -> list[str]:
    """Returns paragraphs: what is seen, how to read it, and what is missing."""
    whose = []
    if data.paper and data.item.paper is not None:
        tasks = " and ".join(map(_task, data.item.paper.panels))
        model = names()["models"].get(data.paper[0].model, data.paper[0].model)
        whose.append(
            f"Open markers are the paper's ({model} on {tasks}; where two settings train equally many weights, the "
            "better one)."
        )
    if data.drawn:
        seeds = sorted({run.seed for cell in data.drawn for run in cell.runs if run.seed is not None})
        whose.append(
            f"Filled markers are ours, means over seeds {', '.join(map(str, seeds))} {data.protocol.description}; bars "
            f"are two-sided 95 % t intervals{cut_words(data.drawn)}."
        )
    shown = dict.fromkeys(data.metrics[cell.task].name for cell in data.ours) or [data.item.metrics[-1]]
    side = "above" if all(metric.higher_is_better for metric in data.metrics.values()) else "below"
    return [
        " ".join(
            [
                f"Each point is one setting of a method: its {' or '.join(shown)} and how many weights it trains, the "
                "classification head not counted.",
                *whose,
            ]
        ),
        f"Read from left to right what more trained weights buy; a method is worth its weights where it stands {side} "
        f"those to its left. The axis is logarithmic.{_zero(data.drawn)} Compare points within a panel: models and "
        "tasks differ between panels.",
        *_read_off(data.item),
        *_missing(data),
        *_tuned(data),
        *few_seeds(len(cell.runs) for cell in data.drawn),
        *_verdict(data),
    ]


def _task(name: str) -> str:
    return names()["tasks"].get(name, name)


def _zero(drawn: Sequence[Cell]) -> str:
    methods = ", ".join(dict.fromkeys(cell.place.row for cell in drawn if cell.trained == 0))
    return f" It has no 0: {methods}, which trains the head alone, stands left of the dotted line." if methods else ""


def _read_off(item: Scatter) -> list[str]:
    points = [
        f"{point['method']} at {point['trained'] / 1e6:g}M on {_task(point['task'])}"
        for point in item.facts.get("points", [])
        if point["plotted"]
    ]
    if item.paper is None or not points:
        return []
    table = f"Table {item.paper.rows_of.removeprefix('table')}"
    return [f"Read off the paper's figure, approximate: {', '.join(points)}; its other points are {table}'s."]


def _tuned(data: ScatterData) -> list[str]:
    """Says by which keys settings were tuned, and how often; the table of the same runs has the values."""
    tunings = [cell.tuning for cell in data.ours if cell.tuning is not None]
    if not tunings:
        return []
    keys = ", ".join(dict.fromkeys(tuning.tune.key for tuning in tunings))
    distinct = {id(tuning): tuning for tuning in tunings}.values()
    runs = sum(tuning.runs for tuning in distinct)
    return [f"{keys}: chosen on dev by {runs} tuning runs with other seeds. --format json has what was tried."]


def _missing(data: ScatterData) -> list[str]:
    """Names the cells without a point, and the command that computes them."""
    paragraphs = []
    if missing := [cell for cell in data.ours if cell.summary.mean is None]:
        named = [f"{_label(data.item, cell)} ({states_of(cell)})" for cell in missing[:MOST_NAMED]]
        more = [f"and {len(missing) - MOST_NAMED} more"] if len(missing) > MOST_NAMED else []
        paragraphs.append(
            f"Not drawn, {len(missing)} of {len(data.ours)} cells: {'; '.join([*named, *more])}. "
            f"Compute them: {data.command}"
        )
    if planned := data.sweep.planned:
        whose = f"{len(planned)} more of our runs" if data.ours else "Ours"
        paragraphs.append(f"{whose} are planned and cannot run yet: {data.sweep.why_planned}.")
    return paragraphs


def _label(item: Scatter, cell: Cell) -> str:
    """Names a cell: lora r = 4 targets = q,v."""
    settings = settings_of(cell, item.settings).items()
    return " ".join([cell.place.row, *(f"{key.rpartition('.')[2]} = {value}" for key, value in settings)])


def _verdict(data: ScatterData) -> list[str]:
    if not data.ours:
        return []
    return [verdict_sentence(data.scale, (name for cell in data.ours for name in (cell.model, cell.task)))]
