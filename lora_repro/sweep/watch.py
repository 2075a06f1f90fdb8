"""Watches the workers of a launcher: how many runs are finished, and which worker died. No torch."""

import logging
import os
import select
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress

import psutil
from hydra.core.utils import JobReturn, JobStatus

from lora_repro import interrupt
from lora_repro.store.lock import read_owner
from lora_repro.store.record import Record

WATCH_S = 0.5
LOG_EVERY_S = 30.0

log = logging.getLogger(__name__)


def failed(error: Exception) -> JobReturn:
    """Returns what Hydra's launchers return for a failed job."""
    returned = JobReturn()
    returned.status = JobStatus.FAILED
    returned.return_value = error
    return returned


class Watch:
    """Watches the workers of a batch in a thread, and asks them to end their runs when the program is asked to end.

    Args:
        run_ids: The batch.
        outputs: The store.
    """

    def __init__(self, run_ids: Sequence[str], outputs: str) -> None:
        self.died: set[str] = set()
        """The runs whose process ended first. joblib then kills the other workers, so their deaths say nothing."""
        self._records = [Record(outputs, run_id) for run_id in run_ids]
        self._before = {record.run_id for record in self._records if record.read().result is not None}
        """Finished runs that are computed again: their results do not say when."""
        self._over = threading.Event()

    @contextmanager
    def watching(self, on_cluster: bool) -> Iterator[None]:
        """Watches while a launcher runs the batch; a cluster's jobs go on when the program is asked to end."""
        threading.Thread(target=self._watch, args=(on_cluster,), daemon=True).start()
        try:
            with nullcontext() if on_cluster else interrupt.deferred():
                yield
        finally:
            self._over.set()

    def _watch(self, on_cluster: bool) -> None:
        began = logged = time.monotonic()
        is_ending = False
        children = _Children()
        try:
            while not self._over.is_set():
                ended = children.wait(WATCH_S)
                if ended and not self.died and not interrupt.requested():
                    self._log_deaths(ended)
                if self._over.is_set():
                    return
                if interrupt.requested() and not on_cluster:
                    if not is_ending:
                        log.info(
                            "Asked to end: the runs under way write a checkpoint first; a second Ctrl-C ends at once."
                        )
                    is_ending = True
                    owners = [record.holder() for record in self._records]
                    interrupt.send_to_descendants({owner.pid for owner in owners if owner is not None})
                elif time.monotonic() - logged > LOG_EVERY_S:
                    logged = time.monotonic()
                    self._log_progress(logged - began)
        finally:
            children.close()

    def _log_deaths(self, pids: set[int]) -> None:
        """Logs the runs of workers that died before their runs had ended."""
        for record in self._records:
            owner = read_owner(record.folder / "lock")
            if owner is not None and owner.pid in pids and not owner.is_elsewhere:
                self.died.add(record.run_id)
                log.warning("The worker of %s died (process %d): killed, or out of memory?", record.run_id, owner.pid)

    def _log_progress(self, passed: float) -> None:
        counted = [record for record in self._records if record.run_id not in self._before]
        total, done = len(counted), sum(record.read().result is not None for record in counted)
        left = f"about {duration(passed / done * (total - done))} to go" if done else "none finished yet"
        if counted:
            log.info("%d of %d runs finished, %s", done, total, left)


class _Children:
    """The processes that this one has started, and which of them end; Linux reports an end at once."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._pids: dict[int, int] = {}
        """Process ids by descriptor."""
        self._seen: set[int] = set()

    def wait(self, seconds: float) -> set[int]:
        """Waits until children end, and returns which did so first; an empty set if none has ended in time."""
        self._add_new()
        ended = {descriptor for descriptor, _ in self._poll.poll(1000 * seconds)}
        pids = {self._pids.pop(descriptor) for descriptor in ended}
        for descriptor in ended:
            self._poll.unregister(descriptor)
            os.close(descriptor)
        return pids

    def close(self) -> None:
        """Closes the descriptors."""
        for descriptor in self._pids:
            os.close(descriptor)
        self._pids.clear()

    def _add_new(self) -> None:
        with suppress(psutil.Error, OSError):  # one has ended meanwhile, or the system has no such descriptors
            for child in psutil.Process().children(recursive=True):
                if child.pid not in self._seen and hasattr(os, "pidfd_open"):
                    self._seen.add(child.pid)
                    descriptor = os.pidfd_open(child.pid)
                    self._pids[descriptor] = child.pid
                    self._poll.register(descriptor, select.POLLIN)


def duration(seconds: float) -> str:
    """Writes a duration as a person says it: 40 s, 12 min, 3 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
