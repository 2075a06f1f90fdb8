"""Processes that die, or fail, at a chosen call of the system."""

import errno
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

CALLS = ("open", "write", "fsync", "replace", "unlink", "mkdir", "rmdir", "pwrite", "ftruncate")
"""The calls of `os` by which the record reaches the disk."""


def in_a_child(action: Callable[[], object], at: int | None = None, how: str = "kill", once: bool = True) -> int:
    """Runs something in a forked process and returns its exit code, negative for a signal.

    Args:
        action: What to run.
        at: The number of the call of CALLS, from 1, at which the process is hurt; None: never.
        how: "kill" ends it (a write is half done), "full" fails the call as a full disk does, half a write done,
            "denied" as one without permission.
        once: Only that call fails; otherwise all from then on.
    """
    pid = os.fork()
    if pid == 0:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        code = 1
        try:
            _hurt(at, how, once)
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def count_calls(action: Callable[[], object], told: Path) -> int:
    """Returns how many calls of CALLS something makes; `told` is a file to pass the number in."""

    def counted() -> None:
        calls = _hurt(None, "count", once=True)
        action()
        told.write_text(str(len(calls)))

    assert in_a_child(counted) == 0
    return int(told.read_text())


def _hurt(at: int | None, how: str, once: bool) -> list[str]:
    """Replaces the calls by ones that count, and hurt at the one that was chosen; returns the list of calls made."""
    calls: list[str] = []

    def replaced(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            if at is None or not (len(calls) == at or (len(calls) > at and not once)):
                return original(*args, **kwargs)
            if name == "write" and how != "denied":
                original(args[0], bytes(args[1])[: len(args[1]) // 2])
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            number = errno.ENOSPC if how == "full" else errno.EACCES
            if name in ("unlink", "rmdir", "fsync") and how == "full":
                return original(*args, **kwargs)  # a full disk lets files be removed
            raise OSError(number, os.strerror(number), str(args[0]))

        return call

    if at is not None or how == "count":
        for name in CALLS:
            setattr(os, name, replaced(name, getattr(os, name)))
    return calls
