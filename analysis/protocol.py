"""Which score is taken from a run: of which epoch, on which split. A table chooses it; it changes no run."""

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from lora_repro.store.result import answered_epochs
from lora_repro.tasks import Metric


class Protocol(Enum):
    """Which of a run's scores counts."""

    last_epoch = "last_epoch"
    """Dev, after the last epoch."""
    best_epoch_on_dev = "best_epoch_on_dev"
    """Dev, at the epoch that is best on dev: the paper's, optimistic by that choice."""
    held_out = "held_out"
    """Test, at the epoch that is best on dev. Of a task without a test split each half of dev at the epoch best on the
    other half, as the record holds it (lora_repro/tasks/cross_fitting.py)."""

    @classmethod
    def of(cls, name: str | None, default: str = "last_epoch") -> "Protocol":
        """Returns the protocol of this name; None: the default."""
        return cls(default if name is None else name)

    @property
    def split(self) -> str:
        """The split that is scored, as metric keys spell it: dev is `eval`."""
        return "test" if self is Protocol.held_out else "eval"

    @property
    def description(self) -> str:
        """How a table names it."""
        return {
            Protocol.last_epoch: "on dev after the last epoch",
            Protocol.best_epoch_on_dev: "on dev at the epoch best on dev (the paper's protocol)",
            Protocol.held_out: "on test at the epoch best on dev (without a test split: each half of dev at the epoch "
            "best on the other)",
        }[self]


class Score(NamedTuple):
    """What is taken from one run."""

    value: float
    epoch: int | None
    """The epoch of the score, as the record counts epochs; None where several have a part in it."""
    baseline: float | None
    """What the metric's baseline scores on the same split, if the task declares one."""


def pick(result: Mapping[str, Any], metric: Metric, protocol: Protocol, by: Metric | None = None) -> Score | None:
    """Returns a run's score under a protocol (of equally good epochs the first), or None if the record has none.

    Of epochs, those count after which the examples were answered: a task may write texts after the last alone.

    Args:
        result: The record's result.json.
        metric: What is scored, as the task declares it.
        protocol: Which epoch and which split.
        by: The metric that says which epoch is best, so that several metrics of a run are of one epoch; None: `metric`.
    """
    if protocol is Protocol.held_out and (cross_fitted := result.get("cross_fitted")):
        value = cross_fitted.get(metric.name)
        return Score(value, None, cross_fitted.get(metric.baseline)) if _is_number(value) else None
    return pick_on(result, metric, protocol, protocol.split, by)


def pick_on(
    result: Mapping[str, Any], metric: Metric, protocol: Protocol, split: str, by: Metric | None = None
) -> Score | None:
    """Returns a run's score on a split, as `mismatched`, at the epoch that a protocol chooses on dev."""
    chosen = metric if by is None else by
    dev, scored = f"eval/{chosen.name}", f"{split}/{metric.name}"
    answered = answered_epochs(result, dev)
    rows = answered[-1:] if protocol is Protocol.last_epoch else answered
    if not rows or not all(_is_number(row.get(key)) for row in rows for key in (dev, scored)):
        return None
    row = rows[chosen.best([epoch[dev] for epoch in rows])]
    return Score(row[scored], row.get("epoch"), row.get(f"{split}/{metric.baseline}"))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
