"""How tests wait for other processes: until what must come has come, however busy the machine is."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from lora_repro.store.lock import read_owner

PATIENCE_S = 600.0
"""After it a test fails that waits for what never comes; nothing that is right depends on it."""


def wait_for(what: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Waits until something holds."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def at_once(runs: Path, number: int, sign: str = "lock") -> list[int]:
    """Waits until this many runs are under way at one time, and returns their processes.

    On a busy machine the first may be over before the last has begun; so each is stopped once it shows the sign, and
    all go on when they are enough.

    Args:
        runs: The folder of the runs' directories.
        number: How many.
        sign: What each must have in its directory, as a pattern.
    """
    stopped: list[int] = []

    def enough() -> bool:
        for folder in {path.parent for path in runs.glob("*/lock")}:
            owner = read_owner(folder / "lock")
            if owner is not None and owner.pid not in stopped and any(folder.glob(sign)):
                os.kill(owner.pid, signal.SIGSTOP)
                if read_owner(folder / "lock") == owner:
                    stopped.append(owner.pid)
                else:  # its run has just ended
                    os.kill(owner.pid, signal.SIGCONT)
        return len(stopped) >= number

    try:
        wait_for(enough)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    return stopped


def touch(path: Path, moment: float) -> None:
    """Makes a file one that was last written at this time."""
    os.utime(path, (moment, moment))
