"""Chooses and prepares the device of a run, and measures its memory."""

import ctypes
import fcntl
import itertools
import logging
import os
import platform
import tempfile
from contextlib import suppress
from pathlib import Path

import torch

from lora_repro.config.settings import ComputeConfig
from lora_repro.errors import InputError
from lora_repro.machine import GIB, cores

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h
MADV_HUGEPAGE = 14  # Linux's mman.h
HUGE_PAGE = 2 * 2**20

log = logging.getLogger(__name__)


_own_gpu: dict[int, int] = {}
"""The GPU that this process holds, and the descriptor of its lock."""
_threads_before: dict[int, int] = {}
"""The number of threads that the last run asked for, if it did, and torch's own number before."""
_measured = itertools.count()
"""How often this process has begun to measure memory."""


def prepare(compute: ComputeConfig) -> torch.device:
    """Returns the device after setting threads, the allocator and, on GPUs, deterministic kernels without TF32.

    Raises:
        InputError: If there is no such device.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may sum in another order each time
    name = compute.device
    if name in ("auto", "cuda") and torch.cuda.is_available():
        name = _own()  # torch's "cuda" would be the first one for every process
    elif name == "auto":
        name = "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"compute.device: no device {name!r} here ({first}).\nUse auto, cpu, cuda or cuda:N."
        ) from error
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # what torch says of bf16 is of the current one
    _set_threads(compute.threads)
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False  # torch allows it in convolutions
        setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010  (nothing reads it; typed nowhere)
    _keep_freed_memory()
    return device


def _set_threads(asked: int | None) -> None:
    """Has torch compute with so many threads; None: with its own number, whatever runs before asked for."""
    now = torch.get_num_threads()
    own = _threads_before.get(now, now)  # another number than the last run's was set by somebody since
    _threads_before.clear()
    if asked is not None:
        _threads_before[asked] = own
    wanted = asked if asked is not None else min(own, cores())  # torch does not know what it was granted of the cores
    if wanted != now:
        torch.set_num_threads(wanted)


def threads(device: torch.device) -> int:
    """Returns how many threads compute a product together; on a GPU it is one that starts them all."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def _own() -> str:
    """Returns a GPU that no other run on this machine uses, and locks it until this process ends."""
    count = torch.cuda.device_count()
    for index in [*_own_gpu] or range(count):
        if index in _own_gpu:
            return f"cuda:{index}"
        name = f"lora_repro-{torch.cuda.get_device_properties(index).uuid}.lock"
        descriptor = _open_lock(Path(tempfile.gettempdir()) / name)
        if descriptor is None:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            continue
        _own_gpu[index] = descriptor
        return f"cuda:{index}"
    all_of_them = "The only GPU is" if count == 1 else f"All {count} GPUs are"
    log.warning("%s taken by other runs; this one shares the first.", all_of_them)
    return "cuda:0"


def _open_lock(path: Path) -> int | None:
    """Opens a lock that any user of the machine may have created; None if that one lets nobody else open it."""
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):  # flock needs no write access
        with suppress(OSError):
            return os.open(path, flags, 0o666)
    return None


def _keep_freed_memory() -> None:
    """Lets malloc reuse large blocks, as each step allocates its activations again (1.1 times faster on CPUs)."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # the most that glibc takes
        libc.mallopt(M_TRIM_THRESHOLD, GIB)
        libc.mallopt(M_TOP_PAD, GIB)  # address space only; what a run allocates lies in one piece
        libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        libc.free(libc.malloc(16 * 2**20))  # so that the heap has grown
        use_huge_pages()


def use_huge_pages() -> None:
    """Asks Linux for pages of 2 MiB in the heap as it is now (1.1 to 1.7 times faster on CPUs, most on busy hosts).

    Activations are read and written once in each direction, and with pages of 4 KiB looking up their addresses takes as
    long as reading them. Where the system refuses, nothing changes.
    """
    try:
        maps = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return
    for line in maps:
        if line.endswith("[heap]"):
            begin, end = (int(address, 16) for address in line.split()[0].split("-"))
            begin += -begin % HUGE_PAGE
            if begin < end:
                ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), MADV_HUGEPAGE)


def reset_peak_memory(device: torch.device) -> bool:
    """Starts a new measurement of the peak, which otherwise would be that of the whole process.

    Returns:
        Whether the peak will be an upper bound. On a CPU it is that of the process, which never gives back all that
        earlier runs took.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return False
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        log.debug("This system cannot reset the peak of memory, so the peak of the whole process is recorded.")
    return next(_measured) > 0


def restart_peak_memory(device: torch.device) -> None:
    """Starts a new measurement within a run, after something else took memory, with a heap ready for more steps."""
    reset_peak_memory(device)
    if device.type == "cpu":
        _keep_freed_memory()


def peak_memory_gib(device: torch.device) -> float | None:
    """Returns the peak since the reset, in GiB; None if the system does not say."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / GIB, 3)
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return round(kib * 1024 / GIB, 3)
