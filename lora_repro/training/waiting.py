"""Lets threads sleep while they wait for each other, as long as other processes want their cores. Imports no torch.

A step is thousands of small products that all threads compute together. A thread that has done its part spins: it asks
again and again whether the others are done, for some milliseconds. On free cores that is fast. If other processes want
the cores, it keeps the thread it waits for from running: with one busy neighbour on two cores a run falls to a tenth of
its speed, with threads that sleep to two thirds. Whether they sleep changes no number.
"""

import ctypes
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

LOOK_EVERY_S = 0.5
RESUME_AFTER_S, RESUME_AT_LATEST_S = 2.0, 64.0
"""How long threads sleep before they may spin again: first, and at most if others still want the cores each time."""
CROWDED, FREE = 0.15, 0.05
"""Shares of the time for which a thread waits for a core. Measured on 2 cores: free 0.02 to 0.05, with a neighbour 0.5,
with one of the lowest priority 0.2 to 0.5."""
MOST_EXTRA = 32
"""Threads that do nothing but exist; on a machine with more free cores than that the user is told what to set."""

CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Environment variables by which a user decides how threads wait. The runtime reads them when torch is imported."""

Batch = TypeVar("Batch")

log = logging.getLogger(__name__)


class Spent(NamedTuple):
    """What a thread did since it began."""

    ran_ns: int
    waited_ns: int
    """For a core, although it could have run."""


@runtime_checkable
class Runtime(Protocol):
    """The OpenMP runtime, which starts the threads of a product and lets them wait."""

    def sleep(self) -> None:
        """Lets waiting threads sleep."""
        ...

    def spin(self) -> None:
        """Lets them wait as before."""
        ...


class Gomp:
    """GCC's libgomp, with pip's torch. One more team of threads, which does nothing, makes the others sleep.

    Source: libgomp's manual, GOMP_SPINCOUNT: with more threads than cores it spins 100 times, otherwise 300,000.

    Args:
        library: Where its functions are.
        extra: Threads of that team, at least 2.
    """

    def __init__(self, library: ctypes.CDLL, extra: int) -> None:
        self._library, self._extra = library, extra
        self._end: threading.Event | None = None
        self._team: threading.Thread | None = None

    def sleep(self) -> None:
        """Starts the team, whose threads belong to the thread that asked for it."""
        self._end, ready = threading.Event(), threading.Event()
        self._team = threading.Thread(target=self._hold, args=(ready, self._end), name="idle OpenMP team", daemon=True)
        self._team.start()
        ready.wait()

    def spin(self) -> None:
        """Ends it."""
        if self._end is not None and self._team is not None:
            self._end.set()
            self._team.join()

    def _hold(self, ready: threading.Event, end: threading.Event) -> None:
        try:
            nothing = ctypes.cast(self._library.free, ctypes.c_void_p)  # free(NULL) is a function that does nothing
            self._library.GOMP_parallel(nothing, None, ctypes.c_uint(self._extra), ctypes.c_uint(0))
        finally:
            ready.set()
        end.wait()


class Llvm:
    """LLVM's or Intel's (libomp, libiomp5), with conda's torch or loaded before it: it can be asked.

    Args:
        library: Where its functions are.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library, self._before_ms = library, int(library.kmp_get_blocktime())

    def sleep(self) -> None:
        """Lets threads sleep at once."""
        self._library.kmp_set_blocktime(0)

    def spin(self) -> None:
        """Lets them spin as long as before, 200 ms if nobody chose."""
        self._library.kmp_set_blocktime(self._before_ms)


class Threads:
    """Looks now and then whether the threads of this process get their cores, and chooses how they wait.

    Args:
        runtime: What lets them sleep; None leaves them as they are.
        advice: What to tell the user the first time, after what was seen; empty to say nothing.
        read: Returns what each thread of the process did, by its number.
        clock: In seconds.
    """

    def __init__(
        self,
        runtime: Runtime | None,
        advice: str,
        read: Callable[[], dict[int, Spent]],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._runtime, self._advice, self._read, self._clock = runtime, advice, read, clock
        self._asleep = False
        self._patience_s, self._changed_s = RESUME_AFTER_S, -math.inf
        self.begin()

    def begin(self) -> None:
        """Leaves out what was done until now."""
        self._since_s, self._before = self._clock(), self._read()

    def look(self) -> None:
        """Runs after every batch. Lets threads sleep or spin if the time since the last look says so."""
        now = self._clock()
        if now - self._since_s < (self._patience_s if self._asleep else LOOK_EVERY_S):
            return
        before = self._before
        self.begin()
        share = longest_wait(before, self._before)
        if not self._asleep and share > CROWDED:
            self._say(share)
            if self._runtime is not None:
                at_once = now - self._changed_s < 2 * self._patience_s  # the others were there while the threads slept
                self._patience_s = min(2 * self._patience_s, RESUME_AT_LATEST_S) if at_once else RESUME_AFTER_S
                self._runtime.sleep()
                self._asleep, self._changed_s = True, now
        elif self._asleep and share < FREE and self._runtime is not None:
            self._runtime.spin()
            self._asleep, self._changed_s = False, now

    def _say(self, share: float) -> None:
        if self._advice:
            log.warning(
                "One of this run's threads waited for a core %.0f %% of the time, and the others for it: other "
                "processes use these cores, or it has more threads than cores. %s",
                100 * share, self._advice,
            )  # fmt: skip
            self._advice = ""


def longest_wait(before: dict[int, Spent], after: dict[int, Spent]) -> float:
    """Returns for what share of the time the thread that waited most for a core did so.

    The time is that in which the calling thread ran or waited, so that a stopped process counts as nothing.
    """
    nothing = Spent(0, 0)
    spent = {
        number: Spent(now.ran_ns - old.ran_ns, now.waited_ns - old.waited_ns)
        for number, now in after.items()
        for old in [before.get(number, nothing)]
    }
    whole = sum(spent.get(threading.get_native_id(), nothing))
    return max(own.waited_ns for own in spent.values()) / whole if whole else 0.0


def read(tasks: Path = Path("/proc/self/task")) -> dict[int, Spent]:
    """Returns what Linux says about the threads of this process, by their numbers; nothing on other systems.

    It does not see when a virtual machine's host takes a core away.
    """
    found = {}
    for path in tasks.glob("*/schedstat"):
        try:
            ran_ns, waited_ns, _ = path.read_text().split()
            found[int(path.parent.name)] = Spent(int(ran_ns), int(waited_ns))
        except (OSError, ValueError):  # the thread has ended
            continue
    return found


def watched(batches: Iterable[Batch], threads: int) -> Iterator[Batch]:
    """Yields the batches, and looks after each whether other processes want the cores that it was computed on.

    Args:
        batches: What the caller computes, one after the other.
        threads: How many compute them on the CPU; a single one waits for nobody.
    """
    if threads == 1:
        yield from batches
        return
    own = _of_process(threads)
    own.begin()
    for batch in batches:
        yield batch
        own.look()


@cache
def _of_process(threads: int) -> Threads:
    runtime = None if chosen() else _runtime(threads)
    return Threads(runtime, _advice(runtime, threads), read)


def chosen() -> str | None:
    """Returns the environment variable by which the user decided how threads wait, with its value."""
    return next((f"{name}={os.environ[name]}" for name in CHOICES if os.environ.get(name)), None)


def _advice(runtime: Runtime | None, threads: int) -> str:
    if runtime is not None:
        return (
            "From now on waiting threads sleep until the cores are free, which changes no number. "
            f"compute.threads={threads - 1} leaves a core to the others and may be faster, but rounds differently."
        )
    if (choice := chosen()) is None:
        return "Start it with OMP_WAIT_POLICY=PASSIVE: then waiting threads sleep, which changes no number."
    if choice.lower().endswith(("=passive", "=0")):
        return ""
    return f"They wait as {choice} says; without it they would sleep while others want the cores."


def _runtime(threads: int) -> Runtime | None:
    """Returns the runtime of this process that torch uses; None if threads cannot be let sleep."""
    library = ctypes.CDLL(None)
    if hasattr(library, "kmp_set_blocktime"):
        return Llvm(library)
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    extra = max(2, there - threads + 2)  # one of them is the thread that starts the team, which does not count
    return Gomp(library, extra) if hasattr(library, "GOMP_parallel") and extra <= MOST_EXTRA else None
