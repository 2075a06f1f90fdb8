"""SIGTERM, Ctrl-C, a closed terminal (SIGHUP), a cluster's warning (SIGUSR2): a run is checkpointed first. No torch.

A process is the program itself, or a worker of a launcher's. In the program a signal ends whatever it does, at once
while nothing is to be lost, after a checkpoint while a run trains; a second Ctrl-C ends that too. Other signals come
several times for one request (`timeout` signals its process and then its group; the kernel sends SIGHUP, and the shell
sends it once more), so a repeat of them changes nothing. A worker always ends its run, never itself, so that the
launcher hears of it; and where the launcher listens to a signal itself (submitit to SIGUSR2, with which Slurm announces
preemption), its handler is called once the run is safe.
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
    """The process was asked to end while a run was under way, and the run is at a point where it can be kept."""


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
REPEAT_S = 0.3
"""A second Ctrl-C that comes sooner is the first one's echo (`timeout -s INT`)."""

_requested: int | None = None
_requested_at = 0.0
_is_program = False
_is_warned = False
"""A cluster has sent SIGUSR2: the time limit is near, or another job needs the place."""
_has_job = False
_is_deferred = False
_launchers: dict[int, Callable[[int, FrameType | None], Any]] = {}
"""The handlers that a launcher had set."""


def requested() -> bool:
    """Tells whether this process was asked to end."""
    return _requested is not None


def refuse_to_go_on() -> None:
    """Is called where a run can be kept: between two steps, and between two batches that are scored.

    Raises:
        AskedToEndError: If the process was asked to end.
    """
    if _requested is not None:
        raise AskedToEndError


def listen(program: bool = False) -> None:
    """Hears the signals from now on; one that is ignored (as after nohup) stays ignored.

    Args:
        program: This process is the program itself, which a signal may end.
    """
    global _is_program
    _is_program = _is_program or program
    if threading.current_thread() is not threading.main_thread():
        return  # Python hears signals in the main thread only
    for number in SIGNALS:
        handler = signal.getsignal(number)
        if handler is _hear or handler is signal.SIG_IGN or (number == signal.SIGUSR2 and not callable(handler)):
            continue
        if callable(handler) and handler is not signal.default_int_handler:
            _launchers[number] = handler
        signal.signal(number, _hear)


@contextmanager
def job() -> Iterator[None]:
    """Marks that a run is loaded, computed or written: in a worker, only then a signal may raise."""
    global _has_job
    listen()
    _has_job = True
    try:
        yield
    finally:
        _has_job = False


@contextmanager
def deferred() -> Iterator[None]:
    """Lets a signal wait until who is inside calls `refuse_to_go_on`."""
    global _is_deferred
    _is_deferred = True
    try:
        yield
    finally:
        _is_deferred = False


def pass_on() -> NoReturn:
    """Ends an interrupted job, now that it is safe, in the way that its process's owner expects.

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
    """Asks those of these processes to end that this one has started."""
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
        return  # it is ending already
    if not again:
        _requested_at = time.monotonic()
        if _is_deferred:
            return  # the run asks at its next step
    if _is_program or _has_job:
        raise KeyboardInterrupt
    if number in _launchers:
        _launchers[number](number, frame)
