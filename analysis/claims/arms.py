"""Finds a claim's arms among the runs of an item's sweep, with the score of every seed and example."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from analysis.arms import read_arms
from analysis.cell import Cell, label, value_of
from analysis.claims.declared import Selector
from analysis.claims.estimates import Arm, Scored
from analysis.items import Item, read_item
from analysis.join import Commands
from analysis.protocol import Protocol
from analysis.store import answers_of
from lora_repro.config.compose import compose
from lora_repro.errors import InputError
from lora_repro.sweep.grid import load
from lora_repro.tasks.metrics import Unit

SECTIONS = ("method", "train", "task", "model")
"""Where a selector's key is looked up, in this order."""


class Group(NamedTuple):
    """The arms of one sweep at one scale in one regime."""

    cells: list[Cell]
    protocol: Protocol
    command: str
    """What a person types to compute all of them."""
    planned: list[str]
    """Why some cannot be run yet."""


class Arms:
    """Reads each sweep once."""

    def __init__(self, store: str, scale: str) -> None:
        """Takes the folder that holds runs/, and the scale."""
        self.store, self.scale = store, scale
        self._groups: dict[tuple[str, str | None], Group] = {}

    def group(self, item: str, regime: str | None) -> Group:
        """Returns the arms of an item's sweep in a regime."""
        if (item, regime) not in self._groups:
            self._groups[item, regime] = self._read(read_item(item), regime)
        return self._groups[item, regime]

    def _read(self, item: Item, regime: str | None) -> Group:
        sweep_name: str = getattr(item, "sweep")  # noqa: B009  (of the kinds that have runs)
        given = [f"+sweeps={sweep_name}", f"scale={self.scale}", *([f"regime={regime}"] if regime else [])]
        sweep = load(compose, given, self.store)
        protocol = Protocol.of(getattr(item, "protocol", None))
        commands = Commands(given, [], self.store, sweep.reported)
        metric: str = getattr(item, "metric")  # noqa: B009
        cells = read_arms(sweep.reported, self.store, metric, protocol, item.name, commands)
        return Group(cells, protocol, commands.whole(), list(dict.fromkeys(why for _, why in sweep.planned)))

    def scored(self, cell: Cell, protocol: Protocol) -> Arm:
        """Returns the scores of an arm by seed, with those of the examples where accuracy is their mean."""
        return {run.seed: self._scored(run, cell, protocol) for run in cell.runs if run.score is not None}  # pyright: ignore[reportReturnType]

    def _scored(self, run: Any, cell: Cell, protocol: Protocol) -> Scored:
        if cell.metric.name != "accuracy" or cell.metric.unit is not Unit.percent:
            return Scored(run.score)
        found = answers_of(self.store, run.run_id, protocol.split, run.epoch)
        if found is None:
            return Scored(run.score)
        right = (np.asarray(found.predictions) == np.asarray(found.labels)).astype(float)
        documents = np.arange(len(right)) if found.documents is None else np.asarray(found.documents)
        return Scored(run.score, right, documents)


def select(cells: Iterable[Cell], selector: Mapping[str, Any]) -> list[Cell]:
    """Returns the arms that have these settings."""
    return [cell for cell in cells if cell.config is not None and _has(cell, selector)]


def _has(cell: Cell, selector: Mapping[str, Any]) -> bool:
    return all(str(setting(cell, key)) == str(value) for key, value in selector.items())


def setting(cell: Cell, key: str) -> Any:
    """Returns a setting of an arm by its key without section: `r` is method.r; `method` is the method's name."""
    assert cell.config is not None
    if key in SECTIONS:
        return getattr(cell.config, key).name
    for section in SECTIONS:
        if (value := value_of(cell.config, f"{section}.{key}")) is not None:
            return label(value)
    return None


def describe(selector: Selector) -> str:
    """Writes a selector: q,v r = 1."""
    bare = ("targets", "method", "peft_type", "form")
    return " ".join(str(value) if key in bare else f"{key} = {value}" for key, value in selector.items())


def only(cells: list[Cell], selector: Selector, what: str) -> Cell | None:
    """Returns the single arm that a selector means, or None if the sweep has none.

    Raises:
        InputError: If it means several.
    """
    found = select(cells, selector)
    if len(found) > 1:
        names = [run.run_id for cell in found[:3] for run in cell.runs[:1]]
        raise InputError(
            f"claims.yaml: {what}: {describe(selector)} is {len(found)} arms ({', '.join(map(str, names))}).\n"
            "Say more settings."
        )
    return found[0] if found else None
