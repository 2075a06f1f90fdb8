"""The states of a run: how each is printed, and how a table says why a run in that state has no number."""

from collections.abc import Iterable
from typing import NamedTuple

from lora_repro.store.status import State

NOT_COUNTED = "not counted"
"""The state of a run whose result.json is damaged, of another schema, or another run's."""

TUNING = "tuning"
"""The state of a run whose tuned value is not chosen yet."""

STARTING = "starting"
"""The state of a run that starts from another one of its sweep, which is not finished yet."""

PLANNED = "planned"
"""The state of a run whose model or task is not built yet."""


class Printed(NamedTuple):
    """How a state is printed."""

    label: str
    missing: str
    """Behind a number in a table: `3 runs ...`."""


STATES = {
    State.finished.value: Printed("finished", "finished"),
    State.running.value: Printed("running", "running"),
    State.interrupted.value: Printed("interrupted", "interrupted"),
    State.stale.value: Printed("stale", "stale (the process ended without a message)"),
    State.failed.value: Printed("failed", "failed"),
    State.diverged.value: Printed("diverged", "diverged (a diverged run is not repeated)"),
    State.blocked.value: Printed("blocked", "blocked"),
    NOT_COUNTED: Printed(NOT_COUNTED, NOT_COUNTED),
    State.todo.value: Printed("to do", "not run yet"),
    STARTING: Printed("start first", "waiting for the run that they start from"),
    TUNING: Printed("tuning first", "waiting for their tuning"),
    PLANNED: Printed(PLANNED, PLANNED),
}
"""In the order in which they are listed."""


def state_label(state: str) -> str:
    """Returns how a state is printed."""
    return STATES[state].label


def counts(states: Iterable[str]) -> dict[str, int]:
    """Returns how many runs are in each state that occurs, in the order of STATES."""
    given = list(states)
    return {state: given.count(state) for state in STATES if state in given}
