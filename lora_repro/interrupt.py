"""Writes a checkpoint before a signal ends a run: SIGTERM, Ctrl-C, SIGHUP (closed terminal), SIGUSR2 (Slurm). No torch.

A process is the program itself or a launcher's worker. A signal ends the program: at once if nothing can be lost, and
after a checkpoint while a run trains. A second Ctrl-C ends that too. The other signals arrive several times for one
request (`timeout` signals its process and then its group; both the kernel and the shell send SIGHUP), so a repeat
changes nothing. A signal ends a worker's run but never the worker, so that the launcher receives the outcome. If the
launcher handles a signal itself (submitit handles SIGUSR2, by which Slurm announces preemption), its handler is called
once the run is checkpointed.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

import psutil

from lora_repro.errors import RunInterruptedError
from lora_repro.sweep import slurm


class AskedToEndError(Exception):
    """The process was asked to end during a run, and the run has reached a point at which it can be checkpointed."""


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
REPEAT_S = 0.3
"""A second Ctrl-C that comes sooner belongs to the first one (`timeout -s INT` sends two)."""

_requested: int | None = None
_requested_at = 0.0
_is_program = False
_is_warned = False
"""The cluster has sent SIGUSR2: the time limit is near, or another job needs the node."""
_has_job = False
_is_deferred = False
_launchers: dict[int, Callable[[int, FrameType | None], Any]] = {}
"""The handlers that a launcher had set."""


def requested() -> bool:
    """Tells whether this process was asked to end."""
    return _requested is not None


def refuse_to_go_on() -> None:
    """Ends the run if the process was asked to end. Called between steps and between scored batches.

    Raises:
        AskedToEndError: If the process was asked to end.
    """
    if _requested is not None:
        raise AskedToEndError


def listen(program: bool = False) -> None:
    """Installs the signal handlers. A signal that is ignored, as after nohup, stays ignored.

    Args:
        program: This process is the program itself, which a signal may end.
    """
    global _is_program
    _is_program = _is_program or program
    if threading.current_thread() is not threading.main_thread():
        return  # Python handles signals in the main thread only
    for number in SIGNALS:
        handler = signal.getsignal(number)
        if handler is _hear or handler is signal.SIG_IGN or (number == signal.SIGUSR2 and not callable(handler)):
            continue
        if callable(handler) and handler is not signal.default_int_handler:
            _launchers[number] = handler
        signal.signal(number, _hear)


@contextmanager
def job() -> Iterator[None]:
    """Marks that a job is under way. In a worker a signal raises KeyboardInterrupt only during a job."""
    global _has_job
    listen()
    _has_job = True
    try:
        yield
    finally:
        _has_job = False


@contextmanager
def deferred() -> Iterator[None]:
    """Postpones signals until the code inside calls `refuse_to_go_on`."""
    global _is_deferred
    _is_deferred = True
    try:
        yield
    finally:
        _is_deferred = False


def pass_on() -> NoReturn:
    """Ends an interrupted job, which is checkpointed by now, in the way that the owner of the process expects.

    Raises:
        KeyboardInterrupt: In the program.
        RunInterruptedError: In a worker.
        SystemExit: Where the launcher listens to signals itself.
    """
    if _requested in _launchers and signal.SIGUSR2 in _launchers:
        if slurm.shall_requeue(_is_warned):
            _launchers[signal.SIGUSR2](signal.SIGUSR2, None)  # submitit: has Slurm requeue the job, and exits
        raise SystemExit(128 + signal.SIGTERM)  # no result for the launcher: Slurm requeues, or has cancelled the job
    if not _is_program:
        raise RunInterruptedError("Interrupted; the same command goes on from the last checkpoint.")
    raise KeyboardInterrupt


def send_to_descendants(pids: set[int]) -> None:
    """Sends SIGTERM to those of these processes that this one has started."""
    for pid in pids:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if os.getpid() in (parent.pid for parent in process.parents()):
                process.terminate()


def _hear(number: int, frame: FrameType | None) -> None:
    global _requested, _requested_at, _is_warned
    again, _requested = _requested is not None, number
    _is_warned = _is_warned or number == signal.SIGUSR2
    if again and not (_is_program and number == signal.SIGINT and time.monotonic() - _requested_at > REPEAT_S):
        return  # the process is already ending
    if not again:
        _requested_at = time.monotonic()
        if _is_deferred:
            return  # the run checks after its next step
    if _is_program or _has_job:
        raise KeyboardInterrupt
    if number in _launchers:
        _launchers[number](number, frame)
