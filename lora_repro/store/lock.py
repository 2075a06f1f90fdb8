"""The lock of a run's directory: only one process computes a run, on one machine or on a cluster. No torch.

Two things guard a run. The kernel's lock on the file (flock) ends with its process, so a dead process never blocks a
run on its own machine. Network file systems pass it on to other machines (NFS since Linux 2.6.12, Lustre mounted with
`flock`, GPFS), but not all of them do (Lustre with `localflock`). So the file also names its owner, who touches it
every BEAT_S seconds. An owner on another machine counts as dead only after this process has seen the file unchanged for
GRACE_S seconds, by its own monotonic clock: clocks of different machines are never compared. A process that looks only
once, as `status` does, declares nobody dead.

Where flock does not reach another machine, two gaps are left: an owner there that stops for more than GRACE_S and then
continues, and two machines that take a free lock at the same moment. Both compute until the one that the file does not
name notices it, before its next checkpoint and before its result, and ends. Till then it adds its lines to
metrics.jsonl, which the other one writes anew before its result.
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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
TRIES = 8
"""How often the lock is tried: another process that only checks it holds it for an instant."""

log = logging.getLogger(__name__)


@dataclass
class Owner:
    """Who computes a run."""

    host: str
    machine: str
    """The id of the machine's boot: it differs after a reboot, and on another machine of the same name."""
    pid: int
    token: str

    def __str__(self) -> str:
        """Names the process for people."""
        return f"process {self.pid} on {self.host}"

    @property
    def is_elsewhere(self) -> bool:
        """Tells whether the owner is on another machine, or may be: an earlier boot of this one is not told apart.

        Names do not tell machines apart, as containers may share one, or `localhost`.
        """
        return self.machine != _machine()


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
        """Takes the lock, also from a process that is gone.

        Args:
            is_patient: Watch a lock of another machine for up to GRACE_S, to find out whether its owner lives.

        Raises:
            RunBusyError: If another process computes the run, or may do so.
            InputError: If a link, or something that is not a file, has the lock's name.
            OSError: If the directory cannot be written.
        """
        for _ in range(TRIES):
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
        """Opens the file, through no link and only if it is a file: it is truncated later."""
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
        """Gives the lock back, unless another process has taken it over."""
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
        """Refuses an owner whom flock does not reveal: one on another machine, or anyone where there is no flock."""
        owner = read_owner(self.path)
        if owner is None or (not owner.is_elsewhere and (has_flock or not _is_alive(owner.pid))):
            return
        busy = RunBusyError(self.path.parent.name, str(owner))
        if not owner.is_elsewhere:
            raise busy
        try:
            seen = _observe(self.path)
            if seen.age < GRACE_S and not is_patient:
                raise busy
            if (left := GRACE_S - seen.age) > 0:
                log.info("%s was begun by %s; waiting %.0f s for a sign of life.", self.path.parent.name, owner, left)
            while _observe(self.path).age < GRACE_S:
                time.sleep(min(1.0, GRACE_S / 10))
                if _observe(self.path).mark != seen.mark:
                    raise busy
        except FileNotFoundError:
            raise busy from None  # it has just ended; the next attempt finds its result

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            try:
                if self.is_ours():
                    os.utime(self.path)
            except OSError:
                continue


def holder(path: Path) -> Owner | None:
    """Returns the process that computes the run of this lock, or None.

    An owner on another machine counts until this process has seen its lock unchanged for GRACE_S.
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
            return owner if _observe(path).age < GRACE_S else None
        return owner if locked is None and _is_alive(owner.pid) else None
    except OSError:
        return None
    finally:
        os.close(descriptor)


def remove_dead(path: Path) -> None:
    """Removes a lock of another machine that `holder` no longer counts, so that no worker waits for it again."""
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
    """Returns the owner that a lock's file names, or None."""
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


class _Observation(NamedTuple):
    """When this process saw a lock of another machine change."""

    mark: tuple[int, int]
    """What changes when its owner touches it."""
    since: float
    """When that change was seen, by this process's monotonic clock."""

    @property
    def age(self) -> float:
        """For how many seconds it has been seen unchanged."""
        return time.monotonic() - self.since


_observed: dict[Path, _Observation] = {}
"""The last observed change of each lock of another machine."""


def _observe(path: Path) -> _Observation:
    """Looks at a lock of another machine, and returns its last observed change."""
    path = path.absolute()
    there = os.stat(path)
    mark = (there.st_ino, there.st_mtime_ns)
    if path not in _observed or _observed[path].mark != mark:
        _observed[path] = _Observation(mark, time.monotonic())
    return _observed[path]


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Lets one process at a time change a file that is read and written anew: the others wait.

    What is locked is a file beside it, which is removed in the end: each write puts a new file in the place of `path`.
    Where the file system has no locks, nobody waits.

    Raises:
        OSError: If the folder cannot be written.
    """
    beside = path.with_name(f".{path.name}.lock")
    while True:
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not _is_still(descriptor, beside):  # the one that had it has removed it
                continue
            try:
                yield
            finally:
                remove(beside)
            return
        finally:
            os.close(descriptor)


def _flock(descriptor: int, kind: int) -> bool | None:
    """Tries the kernel's lock: True if this process got it, False if another has it, None if there is no flock here."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_still(descriptor: int, path: Path) -> bool:
    """Tells whether the open file still has this name: its owner may just have removed it."""
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
