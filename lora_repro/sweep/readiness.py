"""Whether the run is finished from which another one starts. No torch."""

from collections.abc import Callable
from typing import NamedTuple

from lora_repro.config.settings import LogConfig
from lora_repro.store.record import Record
from lora_repro.store.status import State
from lora_repro.sweep.job import Job


class Held(NamedTuple):
    """Why a run cannot be computed now."""

    reason: str
    is_final: bool
    """The sweep will not compute the run: its start failed or diverged. Otherwise it follows once that is finished."""


def held(job: Job, outputs: str, state_of: Callable[[str], State]) -> Held | None:
    """Tells why a run must wait for the one that it starts from; None where it can be computed.

    Args:
        job: The run, whose id is known.
        outputs: The store.
        state_of: Returns the state of a run by its id.
    """
    if job.start is None:
        return None
    start, name = job.start.job, job.start.name
    state, settings = state_of(start.run_id), start.resolved.settings
    if state is State.finished:
        method = start.resolved.run.method
        if not Record(outputs, start.run_id).missing_outputs(LogConfig(save_full=True), method):
            return None
        return Held(
            f"the run that it starts from ({name}, {start.run_id}) has no weights here; log.rebuild=true computes it "
            "again",
            is_final=not settings.log.rebuild,
        )
    before = held(start, outputs, state_of)
    if before is not None and before.is_final:
        return Held(f"the run that it starts from ({name}, {start.run_id}) is not run: {before.reason}", is_final=True)
    is_final = state in (State.diverged, State.blocked) or (state is State.failed and not settings.compute.retry_failed)
    how = {State.failed: "failed", State.diverged: "diverged", State.blocked: "is blocked"}
    ended = how.get(state, "is not finished") if is_final else "is not finished"
    again = "; compute.retry_failed=true repeats it" if state is State.failed and is_final else ""
    return Held(f"the run that it starts from ({name}, {start.run_id}) {ended}{again}", is_final)
