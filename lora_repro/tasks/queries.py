"""Targets that are queries: scored by what they return. No torch."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from lora_repro.tasks.execution import TablesOf, blind, execution
from lora_repro.tasks.metrics import Metric, Unit
from lora_repro.tasks.targets import Example, Texts

EXECUTION = Metric(
    "execution",
    Unit.percent,
    low=0.0,
    high=1.0,
    baseline="blind",
    about="the share of queries that return what the reference returns",
)
BLIND = Metric(
    "blind",
    Unit.percent,
    low=0.0,
    high=1.0,
    about="the execution of the best of a few queries that ignore the question",
)


SQLITE = f"sqlite:{sqlite3.sqlite_version}"
"""The signature of `execution`."""

_known_blind: dict[Any, float] = {}
"""The baselines of the last few splits."""
SPLITS_AT_ONCE = 4


class Queries(Texts):
    """A target is a list of queries, of which each would be right.

    Args:
        tables: Returns the table that a reference names.
    """

    def __init__(self, tables: TablesOf) -> None:
        self._tables, self._texts = tables, Texts()
        self.metrics = (EXECUTION, *self._texts.metrics, BLIND)

    def evaluate(self, examples: Sequence[Example], predictions: Sequence[str]) -> dict[str, float]:
        """Returns the share of right queries beside the metrics of all texts."""
        references = [example.target for example in examples]
        return {
            EXECUTION.name: execution(predictions, references, self._tables),
            **self._texts.evaluate(examples, predictions),
            BLIND.name: self._blind(references),
        }

    @property
    def signatures(self) -> dict[str, str]:
        """Versions of SQLite differ in functions and in what they take double quotes for."""
        return self._texts.signatures | {EXECUTION.name: SQLITE}

    def _blind(self, references: Sequence[Sequence[str]]) -> float:
        """Returns the baseline, which is computed once for the same references: it is asked for at each epoch."""
        key = (self._tables, tuple(map(tuple, references)))
        if key not in _known_blind:
            if len(_known_blind) >= SPLITS_AT_ONCE:
                _known_blind.clear()
            _known_blind[key] = blind(references, self._tables)
        return _known_blind[key]
