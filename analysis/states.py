"""The states of a run: how each is printed, and how a table says of a run in it why it has no number. One place."""

from collections.abc import Iterable
from typing import NamedTuple

from lora_repro.store.status import State

NOT_COUNTED = "not counted"
"""The state of a run whose result.json is damaged, of another schema, or another run's."""

PLANNED = "planned"
"""The state of a run whose model or task is not there yet."""


class Words(NamedTuple):
    """How a state is printed."""

    label: str
    missing: str
    """What a table says: `3 runs ...`."""


STATES = {
    State.finished.value: Words("finished", "finished"),
    State.running.value: Words("running", "running"),
    State.interrupted.value: Words("interrupted", "interrupted"),
    State.stale.value: Words("stale", "stale (the process ended without a message)"),
    State.failed.value: Words("failed", "failed"),
    State.diverged.value: Words("diverged", "diverged (a diverged run is not repeated)"),
    State.blocked.value: Words("blocked", "blocked"),
    NOT_COUNTED: Words(NOT_COUNTED, NOT_COUNTED),
    State.todo.value: Words("to do", "not run yet"),
    PLANNED: Words(PLANNED, PLANNED),
}
"""In the order in which they are listed."""


def label(state: str) -> str:
    """Returns how a state is printed."""
    return STATES[state].label


def counts(states: Iterable[str]) -> dict[str, int]:
    """Returns how many runs are in each state that occurs, in the order of STATES."""
    given = list(states)
    return {state: given.count(state) for state in STATES if state in given}
