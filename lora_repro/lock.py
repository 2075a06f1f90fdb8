"""The lock of a run's directory: one process computes a run, on one machine or on a cluster. No torch.

Two things guard a run. The kernel's lock on the file (flock) ends with its process, however that ends, so on one
machine a dead process never blocks a run. Network file systems carry it from machine to machine (NFS since Linux
2.6.12, Lustre mounted with `flock`, GPFS), but not all (Lustre with `localflock`). So the file also names its owner,
who touches it every BEAT_S seconds: an owner on another machine is taken for dead only after the file has stood still
for GRACE_S seconds of the watcher's own monotonic clock. No clocks are compared, so none can deceive.

What is left: an owner that stops for more than GRACE_S on another machine, where flock does not reach, and then wakes
up. It sees at its next checkpoint, and before its result, that the lock has passed on, and ends.
"""

import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

from lora_repro.errors import RunBusyError
from lora_repro.files import remove
from lora_repro.reading import is_count, read_json

BEAT_S = 20.0
GRACE_S = 120.0
CLOCK_GRACE_S = 600.0
"""What a mere look, which cannot watch, takes for dead by the clock: for the words of `status` only."""
MOST_PID = 2**22
"""Linux gives no process a higher number."""
LOOKS = 8
"""Tries to get the lock: another process's look at it holds it for an instant."""

log = logging.getLogger(__name__)


@dataclass
class Owner:
    """Who computes a run."""

    host: str
    machine: str
    """The machine's boot, so that a reboot or another machine of the same name is told apart."""
    pid: int
    token: str

    def __str__(self) -> str:
        """Names the process for people."""
        return f"process {self.pid} on {self.host}"

    @property
    def is_elsewhere(self) -> bool:
        """Tells whether the owner is on another machine; of a machine that was booted again, no process lives."""
        return self.machine != _machine() and self.host != socket.gethostname()


class Lock:
    """The lock of one run's directory.

    Args:
        path: The lock's file, in the run's directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.owner = Owner(socket.gethostname(), _machine(), os.getpid(), uuid.uuid4().hex)
        self._descriptor: int | None = None
        self._ended = threading.Event()

    def acquire(self) -> None:
        """Takes the lock, also that of a process that is gone.

        Raises:
            RunBusyError: If another process computes the run.
            OSError: If the directory cannot be written.
        """
        for _ in range(LOOKS):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                locked = _flock(descriptor, fcntl.LOCK_EX)
                if locked is not False and _is_still(descriptor, self.path):
                    self._refuse_living_owner(has_flock=locked is True)
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, json.dumps(asdict(self.owner)).encode(), 0)
                    self._descriptor, descriptor = descriptor, -1
                    threading.Thread(target=self._beat, daemon=True).start()
                    return
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
            time.sleep(0.05)
        raise RunBusyError(self.path.parent.name, str(read_owner(self.path) or "another process"))

    def release(self) -> None:
        """Gives the lock back; one that has passed on to another process is left alone."""
        self._ended.set()
        if self._descriptor is not None:
            if self.is_ours():
                remove(self.path)
            os.close(self._descriptor)
            self._descriptor = None

    def is_ours(self) -> bool:
        """Tells whether the lock still names this process."""
        found = read_owner(self.path)
        return found is not None and found.token == self.owner.token

    def _refuse_living_owner(self, has_flock: bool) -> None:
        """Watches for an owner that flock does not tell of: on another machine, or where there is no flock."""
        owner = read_owner(self.path)
        if owner is None or (not owner.is_elsewhere and (has_flock or not _is_alive(owner.pid))):
            return
        busy = RunBusyError(self.path.parent.name, str(owner))
        if not owner.is_elsewhere:
            raise busy
        log.info("%s was begun by %s; watching %.0f s for a sign of life.", self.path.parent.name, owner, GRACE_S)
        seen, began = os.stat(self.path).st_mtime_ns, time.monotonic()
        while time.monotonic() - began < GRACE_S:
            time.sleep(min(1.0, GRACE_S / 10))
            try:
                if os.stat(self.path).st_mtime_ns != seen:
                    raise busy
            except FileNotFoundError:
                raise busy from None  # it has just ended; the next look finds its result

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            try:
                if self.is_ours():
                    os.utime(self.path)
            except OSError:
                continue


def holder(path: Path) -> Owner | None:
    """Returns who computes the run of this lock, as far as a look can tell; None if nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        owner = read_owner(path) or Owner(socket.gethostname(), _machine(), 0, "")
        locked = _flock(descriptor, fcntl.LOCK_SH)
        if locked is False:
            return owner
        if owner.is_elsewhere:
            return owner if time.time() - os.fstat(descriptor).st_mtime < CLOCK_GRACE_S else None
        return owner if locked is None and _is_alive(owner.pid) else None
    except OSError:
        return None
    finally:
        os.close(descriptor)


def read_owner(path: Path) -> Owner | None:
    """Returns the owner that a lock's file names; None where it names none."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or found.keys() != {field.name for field in fields(Owner)}:
        return None
    texts, pid = [found[name] for name in ("host", "machine", "token")], found["pid"]
    if not all(isinstance(text, str) for text in texts) or not is_count(pid) or pid > MOST_PID:
        return None
    return Owner(**found)


def _flock(descriptor: int, kind: int) -> bool | None:
    """Tries the kernel's lock: True if it is had, False if another process has it, None if there is none here."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_still(descriptor: int, path: Path) -> bool:
    """Tells whether the open file is the one of this name: its owner may just have removed it."""
    try:
        there, ours = os.stat(path), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@cache
def _machine() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()
