"""Finds a claim's arms among the runs of a sweep, with the score of every seed and example."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from analysis.arms import read_arms
from analysis.cell import Cell, SeedRun, label, value_of
from analysis.claims.declared import Part, Selector, Study
from analysis.claims.estimates import Arm, Scored, mean_scored
from analysis.items import Item, read_item
from analysis.join import Commands
from analysis.protocol import Protocol
from analysis.section7.statistics import SWEEP as SECTION7
from analysis.section7.statistics import Statistic, read_statistics
from analysis.store import answers_of, folder_arguments, shares_of, store_arguments
from lora_repro.config.compose import compose
from lora_repro.errors import InputError
from lora_repro.sweep.grid import Sweep, load

SECTIONS = ("method", "train", "task", "model")
"""Where a selector's key is looked up, in this order."""
BARE = ("targets", "method", "peft_type", "form", "regime")
"""Keys whose values name themselves."""
JUDGED = "proxy"
"""The scale whose models and tasks the studies name."""
PROTOCOL = Protocol.held_out
"""Which score of a run counts."""
ROUNDING = 1e-6
"""How far the mean of a run's examples may lie from its score."""
SHARE_OF_RIGHT = "accuracy"
"""The metric that is the mean of its examples, each right or wrong."""
METRICS = ("logical_form", SHARE_OF_RIGHT)
"""By which arms are compared where no item says it: the first that their task has."""


class Group(NamedTuple):
    """The arms of one sweep at one scale in one regime."""

    cells: list[Cell]
    command: str
    """What a person types to compute all of them."""
    planned: list[str]
    """Why some cannot be run yet."""


class Arms:
    """Reads each sweep once."""

    def __init__(self, store: str, scale: str, loaded: Mapping[tuple[str, str | None], Sweep] | None = None) -> None:
        """Takes the folder that holds runs/, the scale, and sweeps that are loaded already, by name and regime."""
        self.store, self.scale = store, scale
        self._items: dict[str, Item] = {}
        self._sweeps = dict(loaded or {})
        self._groups: dict[tuple[str, str | None, tuple[str, ...], str | None], Group] = {}
        self._scored: dict[str, Scored] = {}
        self._statistics: dict[str, list[Statistic]] = {}

    def command(self, *words: str, writes: bool = False) -> str:
        """Returns what a person types to give a command of analysis this scale and store, into which it may write."""
        scale = [] if self.scale == JUDGED else ["--scale", self.scale]
        store = folder_arguments(self.store) if writes else store_arguments(self.store)
        return shlex.join(["python", "-m", "analysis", *words, *scale, *store])

    def statistics(self, sweep: str) -> list[Statistic]:
        """Returns the statistics of trained weights that the store keeps of a sweep; they are read once."""
        if sweep not in self._statistics:
            self._statistics[sweep] = read_statistics(self.store, sweep, self.scale)
        return self._statistics[sweep]

    def read_item(self, name: str) -> Item:
        """Returns an item; its file is read once."""
        if name not in self._items:
            self._items[name] = read_item(name)
        return self._items[name]

    def load(self, name: str, regime: str | None) -> Sweep:
        """Returns a sweep in a regime, loaded once."""
        if (name, regime) not in self._sweeps:
            self._sweeps[name, regime] = load(compose, self._given(name, regime), self.store)
        return self._sweeps[name, regime]

    def _given(self, name: str, regime: str | None) -> list[str]:
        return [f"+sweeps={name}", f"scale={self.scale}", *([f"regime={regime}"] if regime else [])]

    def item(self, name: str, regime: str | None, metric: str | None = None) -> Group:
        """Returns the arms of an item's sweep in a regime, by a metric or by those that the item shows."""
        item = self.read_item(name)
        sweep, metrics, draws = (getattr(item, key, None) for key in ("sweep", "metrics", "draws"))
        if sweep is None:
            raise InputError(f"claims.yaml: {name} has no runs whose scores a claim could read.")
        return self.sweep(sweep, regime, tuple([metric] if metric else metrics or METRICS), draws)

    def sweep(
        self, name: str, regime: str | None = None, metrics: tuple[str, ...] = METRICS, draws: str | None = None
    ) -> Group:
        """Returns the arms of a sweep in a regime, scored on test at the epoch best on dev: dev chose the rates.

        Args:
            name: Of the sweep.
            regime: Of the sweep; None: as its file has it.
            metrics: The first of them that a task has.
            draws: A key that draws the training examples anew. An arm then is over draws and seeds.
        """
        if (name, regime, metrics, draws) not in self._groups:
            sweep = self.load(name, regime)
            commands = Commands(self._given(name, regime), [], self.store, sweep.reported)
            cells = read_arms(sweep.reported, self.store, metrics, PROTOCOL, name, commands, draws)
            planned = list(dict.fromkeys(why for _, why in sweep.planned))
            self._groups[name, regime, metrics, draws] = Group(cells, commands.whole(), planned)
        return self._groups[name, regime, metrics, draws]

    def one(self, group: Group, selector: Selector, study: Study, where: str) -> Cell | None:
        """Returns the single arm that a selector means on a study's model and task; None if the sweep has none.

        Claims are declared for the grids of the proxy. At a scale with other grids several arms are as good as none.

        Raises:
            InputError: If it means several of the proxy.
        """
        found = meant(group, selector, study)
        if len(found) > 1 and self.scale != JUDGED:
            return None
        if len(found) > 1:
            names = [str(cell.runs[0].run_id) for cell in found[:3]]
            raise InputError(
                f"claims.yaml: {where}: {describe(selector)} is {len(found)} arms ({', '.join(names)}).\n"
                "Say more settings."
            )
        return found[0] if found else None

    def studies(self, part: Part, study: Study) -> list[Study]:
        """Returns the study, or at other scales than the proxy's one for each model and task of the part's sweep.

        Args:
            part: Whose sweep says what is there.
            study: As it is declared, for the proxy.
        """
        if self.scale == JUDGED:
            return [study]
        group = self.sweep(SECTION7) if part.item is None else self.item(part.item, None, part.metric)
        found = dict.fromkeys((setting(cell, "model"), setting(cell, "task")) for cell in group.cells if cell.config)
        return [replace(study, model=model, task=task) for model, task in found] or [study]

    def scores(self, cell: Cell) -> Arm:
        """Returns the scores of an arm, with those of the examples where accuracy is their mean.

        They are by seed, or, of an arm over several draws, by draw: the mean over its seeds, once all are there.
        """
        found = {}
        for replicate, runs in cell.by_replicate.items():
            scored = [self.score(run, cell) for run in runs]
            there = [each for each in scored if each is not None]
            if len(there) == len(scored) and replicate is not None:
                found[replicate] = mean_scored(there)
        return found

    def score(self, run: SeedRun, cell: Cell) -> Scored | None:
        """Returns the score of one run of an arm; None while it has none."""
        if run.score is None or cell.metric.name != SHARE_OF_RIGHT or run.run_id is None:
            return None if run.score is None else Scored(run.score)
        if run.run_id not in self._scored:
            self._scored[run.run_id] = self._with_examples(run, run.score, run.run_id)
        return self._scored[run.run_id]

    def _with_examples(self, run: SeedRun, score: float, run_id: str) -> Scored:
        """Returns a score with its examples, if they are of known documents and give that score."""
        if run.epoch is not None:
            answers = answers_of(self.store, run_id, PROTOCOL.split, run.epoch)
            right = None if answers is None else np.asarray(answers.predictions) == np.asarray(answers.labels)
        else:  # a task without test: each half of dev is scored at the epoch best on the other
            assert run.result is not None, run_id
            answers = answers_of(self.store, run_id, "eval", run.result["metrics_by_epoch"][-1]["epoch"])
            right = shares_of(self.store, run_id)
        if answers is None or right is None or answers.documents is None:
            return Scored(score)
        examples = np.asarray(right, float)
        if abs(examples.mean() - score) > ROUNDING:
            return Scored(score)
        return Scored(score, examples, np.asarray(answers.documents), "\n".join(answers.labels))


def meant(group: Group, selector: Selector, study: Study) -> list[Cell]:
    """Returns the arms that have a selector's settings, on a study's model and task."""
    return select(group.cells, {"model": study.model, "task": study.task, **selector})


def select(cells: Iterable[Cell], selector: Mapping[str, Any]) -> list[Cell]:
    """Returns the arms that have these settings."""
    return [
        cell
        for cell in cells
        if cell.config is not None and all(str(setting(cell, key)) == str(value) for key, value in selector.items())
    ]


def setting(cell: Cell, key: str) -> Any:
    """Returns a setting of an arm by its key without section: `r` is method.r, `method` the method's name."""
    assert cell.config is not None
    if key in SECTIONS:
        return getattr(cell.config, key).name if key != "train" else None
    values = (value_of(cell.config, f"{section}.{key}") for section in SECTIONS)
    return next((label(value) for value in values if value is not None), None)


def describe(selector: Selector) -> str:
    """Writes a selector: q,v r = 1. No number of training examples is all of them."""
    shown = {key: "all" if value is None else value for key, value in selector.items()}
    shown = {key: " or ".join(map(str, value)) if isinstance(value, list) else value for key, value in shown.items()}
    return " ".join(str(value) if key in BARE else f"{key} = {value}" for key, value in shown.items())
