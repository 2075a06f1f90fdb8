"""The lock of a run's directory: one process computes a run, on one machine or on a cluster. No torch.

Two things guard a run. The kernel's lock on the file (flock) ends with its process, however that ends, so on one
machine a dead process never blocks a run. Network file systems carry it from machine to machine (NFS since Linux
2.6.12, Lustre mounted with `flock`, GPFS), but not all (Lustre with `localflock`). So the file also names its owner,
who touches it every BEAT_S seconds: an owner on another machine is taken for dead only after a process has seen the
file stand still for GRACE_S seconds of its own monotonic clock, in one watch or from look to look. No clocks are
compared, so none can deceive; and a process that looks once, as `status` does, takes nobody for dead.

What is left: an owner that stops for more than GRACE_S on another machine, where flock does not reach, and then wakes
up. It sees at its next checkpoint, and before its result, that the lock has passed on, and ends.
"""

import errno
import fcntl
import json
import logging
import os
import socket
import stat
import threading
import time
import uuid
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import NamedTuple

from lora_repro.errors import InputError, RunBusyError, not_ours
from lora_repro.store.files import remove
from lora_repro.store.reading import is_count, read_json

BEAT_S = 20.0
GRACE_S = 120.0
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

    def acquire(self, is_patient: bool = True) -> None:
        """Takes the lock, also that of a process that is gone.

        Args:
            is_patient: Watch the lock of another machine until it is told whether its owner lives, up to GRACE_S.

        Raises:
            RunBusyError: If another process computes the run, or may do so.
            InputError: If something is there that no run has made: a link, or no file.
            OSError: If the directory cannot be written.
        """
        for _ in range(LOOKS):
            descriptor = self._open()
            try:
                locked = _flock(descriptor, fcntl.LOCK_EX)
                if locked is not False and _is_still(descriptor, self.path):
                    self._refuse_living_owner(locked is True, is_patient)
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

    def _open(self) -> int:
        """Opens the file, which is truncated later: so nothing but a file of its own, and through no link."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise not_ours(self.path) from error
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise not_ours(self.path)
        return descriptor

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

    def _refuse_living_owner(self, has_flock: bool, is_patient: bool) -> None:
        """Watches for an owner that flock does not tell of: on another machine, or where there is no flock."""
        owner = read_owner(self.path)
        if owner is None or (not owner.is_elsewhere and (has_flock or not _is_alive(owner.pid))):
            return
        busy = RunBusyError(self.path.parent.name, str(owner))
        if not owner.is_elsewhere:
            raise busy
        try:
            seen = _look(self.path)
            if seen.age < GRACE_S and not is_patient:
                raise busy
            if (left := GRACE_S - seen.age) > 0:
                log.info("%s was begun by %s; watching %.0f s for a sign of life.", self.path.parent.name, owner, left)
            while _look(self.path).age < GRACE_S:
                time.sleep(min(1.0, GRACE_S / 10))
                if _look(self.path).mark != seen.mark:
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
    """Returns who computes the run of this lock, as far as looks can tell; None if nobody does.

    An owner on another machine counts until this process has seen its lock stand still for GRACE_S.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        owner = read_owner(path) or Owner(socket.gethostname(), _machine(), 0, "")
        locked = _flock(descriptor, fcntl.LOCK_SH)
        if locked is False:
            return owner
        if owner.is_elsewhere:
            return owner if _look(path).age < GRACE_S else None
        return owner if locked is None and _is_alive(owner.pid) else None
    except OSError:
        return None
    finally:
        os.close(descriptor)


def remove_dead(path: Path) -> None:
    """Removes the lock of another machine that `holder` no longer counts, so that no worker watches it once more."""
    owner = read_owner(path)
    if owner is None or not owner.is_elsewhere:
        return
    lock = Lock(path)
    try:
        lock.acquire(is_patient=False)
    except (RunBusyError, InputError, OSError):
        return
    lock.release()


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


class _Seen(NamedTuple):
    """A lock of another machine, as this process sees it."""

    mark: tuple[int, int]
    """What changes when its owner touches it."""
    since: float
    """Since when it stands still, by this process's monotonic clock."""

    @property
    def age(self) -> float:
        """How long it has been seen to stand still, in seconds."""
        return time.monotonic() - self.since


_seen: dict[Path, _Seen] = {}
"""The last look at each lock of another machine."""


def _look(path: Path) -> _Seen:
    """Looks at a lock of another machine."""
    path = path.absolute()
    there = os.stat(path)
    mark = (there.st_ino, there.st_mtime_ns)
    if path not in _seen or _seen[path].mark != mark:
        _seen[path] = _Seen(mark, time.monotonic())
    return _seen[path]


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
