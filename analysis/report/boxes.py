"""A cell of a table becomes a box: its numbers as printed, its runs, and some of their answers."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from analysis.cell import Cell, SeedRun, commit_of, computed_on, label
from analysis.claims.arms import SECTIONS, SHARE_OF_RIGHT, select
from analysis.differences import difference
from analysis.protocol import Protocol
from analysis.render import methods
from analysis.render.tables import DASH, states_of
from analysis.render.tuning import chosen
from analysis.report.data import Answered, Box, Difference, ExampleAnswer, SeedScore, cut
from analysis.runs import flat
from analysis.states import state_label
from analysis.stats import Paired
from analysis.store import answers_of
from lora_repro.errors import shown
from lora_repro.store.record import plain
from lora_repro.store.result import run_seconds_of
from lora_repro.sweep.tuning import Trial
from lora_repro.tasks import Metric

REFERENCES: tuple[dict[str, Any], ...] = (
    {"method": "lora", "targets": "q,v", "r": 8, "freeze_A": "false"},
    {"method": "lora", "targets": "q,v", "freeze_A": "false"},
    {"method": "full"},
)
"""What cells are compared with: the first of these that is exactly one of them."""
NOT_SETTINGS = ("seed", "model.config.")
"""Beginnings of keys that no box shows: a cell holds all seeds, and shapes follow from the model."""
SOME = 4
"""Examples of each kind that a box shows."""


class Boxes:
    """Makes boxes of cells, and numbers them."""

    def __init__(self, store: str) -> None:
        """Takes the folder that holds runs/."""
        self.store = store
        self.boxes: list[Box] = []
        self._settings: list[dict[str, Any]] = []

    def add(
        self,
        cell: Cell,
        protocol: Protocol,
        title: str,
        where: str,
        reference: tuple[str, Difference] | None = None,
    ) -> Box:
        """Makes a box.

        Args:
            cell: With runs of ours.
            protocol: By which its scores were taken.
            title: Names it.
            where: The item and regime, of which its id is made.
            reference: What it is compared with, and the difference.
        """
        summary, metric = cell.summary, cell.metric
        box = Box(
            id=f"{where}-{len(self.boxes)}",
            title=title,
            metric=metric.title,
            protocol=protocol.description,
            mean=summary.mean,
            low=summary.low,
            high=summary.high,
            n=cell.n,
            expected=len(cell.runs),
            text=_text(cell),
            interval=_interval(cell),
            seeds=f"n={cell.n}{chosen(cell)}" if cell.summary.mean is not None else "",
            paper=None if cell.paper is None else cell.paper.value,
            paper_text="" if cell.paper is None else metric.format(cell.paper.value),
            reference=None if reference is None else reference[0],
            difference=None if reference is None else reference[1],
            trained=cell.trained,
            settings={},
            tuning=_tuning(cell),
            command=cell.command,
            runs=tuple(_run(run, cell) for run in cell.runs),
            answered=answered(cell, self.store, protocol),
        )
        self.boxes.append(box)
        self._settings.append(_settings(cell))
        return box

    def finished(self) -> tuple[tuple[Box, ...], dict[str, Any]]:
        """Returns all boxes with the settings in which they differ, and those that all share."""
        keys = dict.fromkeys(key for each in self._settings for key in each)
        common = {}
        for key in keys:
            values = [each.get(key) for each in self._settings]
            if len(values) > 1 and all(value == values[0] for value in values):
                common[key] = values[0]
        found = [
            box._replace(settings={key: value for key, value in own.items() if key not in common})
            for box, own in zip(self.boxes, self._settings, strict=True)
        ]
        return tuple(found), common


def reference_of(cells: Iterable[Cell], of: Cell) -> Cell | None:
    """Returns the cell that another one is compared with, on the same task and model; None if there is none."""
    alike = [cell for cell in cells if (cell.task, cell.model) == (of.task, of.model)]
    for selector in REFERENCES:
        found = select(alike, selector)
        if len(found) == 1:
            return found[0]
    return None


def compared(cell: Cell, other: Cell) -> Difference | None:
    """Returns the difference of two cells in numbers and words; None of a cell and itself."""
    found = None if cell is other else difference(cell, other)
    return None if found is None else in_words(cell, found)


def in_words(cell: Cell, found: Paired) -> Difference:
    """Returns a difference to a cell's score with its text."""
    sign = 0
    if found.low is not None and found.high is not None and not found.are_equal:
        sign = (found.low > 0) - (found.high < 0)
    return Difference(found.mean, found.low, found.high, found.n, methods.in_words(cell, found), sign)


def _text(cell: Cell) -> str:
    """Writes the mean, or a dash; what is missing stands in the place of the interval."""
    return DASH if cell.summary.mean is None else cell.metric.format(cell.summary.mean)


def _interval(cell: Cell) -> str:
    _, low, high, _ = cell.summary
    if cell.missing:
        return states_of(cell)
    if low is None or high is None:
        return cell.planned or ""
    return f"[{cell.metric.format(low)}, {cell.metric.format(high)}]"


def _tuning(cell: Cell) -> str | None:
    tuning = cell.tuning
    if tuning is None:
        return None
    key = tuning.tune.key.rpartition(".")[2]
    tried = ", ".join(f"{trial.value:g}: {_dev(trial, tuning.metric)}" for trial in tuning.trials)
    if tuning.chosen is None:
        return f"{key} is not chosen yet: {tuning.why_not}"
    edge = ", at the edge of its grid" if tuning.at_edge else ""
    seeds = ", ".join(map(str, tuning.tune.seeds))
    return f"{key} {tuning.chosen:g} was chosen on dev with seeds {seeds}{edge} ({tried})."


def _dev(trial: Trial, metric: Metric) -> str:
    if trial.diverged:
        return "diverged"
    return DASH if trial.mean is None else metric.format(trial.mean)


def _settings(cell: Cell) -> dict[str, Any]:
    if cell.config is None:
        return {}
    values = {key: label(value) for key, value in flat(plain(cell.config)).items() if value is not None}
    if cell.tuning is not None and cell.tuning.chosen is None:
        values[cell.tuning.tune.key] = "tuned"
    shown = {key: value for key, value in values.items() if not key.startswith(NOT_SETTINGS) and value != ""}
    return {key: shown[key] for key in sorted(shown, key=_by_section)}


def _by_section(key: str) -> int:
    section = key.partition(".")[0]
    return SECTIONS.index(section) if section in SECTIONS else len(SECTIONS)


def _run(run: SeedRun, cell: Cell) -> SeedScore:
    result, metric = run.result, cell.metric
    reason = None if run.reason is None else cut(run.reason)
    text = state_label(run.state) if run.score is None else metric.format(run.score, 2)
    if result is None:
        return SeedScore(run.seed, run.run_id, run.state, reason, run.score, text, run.epoch)
    curve = _curve(result, f"eval/{metric.name}")
    return SeedScore(
        seed=run.seed,
        run_id=run.run_id,
        state=run.state,
        reason=reason,
        score=run.score,
        text=text,
        epoch=run.epoch,
        curve=curve,
        curve_text=tuple(metric.format(value, 2) for _, value in curve),
        flags=tuple(run.flags),
        commit=commit_of(result),
        computed_on=computed_on(result) if "provenance" in result else None,
        seconds=run_seconds_of(result),
    )


def _curve(result: Mapping[str, Any], key: str) -> tuple[tuple[int, float], ...]:
    rows = result["metrics_by_epoch"]
    return tuple((row.get("epoch", number), row[key]) for number, row in enumerate(rows, 1) if key in row)


def answered(cell: Cell, store: str, protocol: Protocol) -> Answered | None:
    """Returns how often the examples were answered right.

    None where the metric is no share of right answers, a run is missing, or no answers are kept.
    """
    if cell.metric.name != SHARE_OF_RIGHT or cell.missing or not cell.runs:
        return None
    found = []
    for run in cell.runs:
        if run.run_id is None or run.epoch is None:
            return None
        answers = answers_of(store, run.run_id, protocol.split, run.epoch)
        if answers is None or (found and answers.labels != found[0].labels):
            return None
        found.append(answers)
    labels, documents = found[0].labels, found[0].documents
    right = np.sum([np.asarray(each.predictions) == np.asarray(labels) for each in found], axis=0)
    never, always = np.flatnonzero(right == 0), np.flatnonzero(right == len(found))
    between = np.flatnonzero((right > 0) & (right < len(found)))
    some = {int(number) for kind in (never, between, always) for number in kind[:SOME]}
    picked = sorted(some, key=lambda number: (right[number], number))
    examples = tuple(
        ExampleAnswer(
            number=number,
            document=None if documents is None else documents[number],
            label=shown(labels[number]),
            answers=tuple(shown(each.predictions[number]) for each in found),
            right=int(right[number]),
        )
        for number in picked
    )
    return Answered(len(labels), len(found), len(never), len(always), examples)
