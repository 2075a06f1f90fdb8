"""The device of a run: chosen, prepared, and its memory measured."""

import ctypes
import fcntl
import logging
import os
import platform
import tempfile
from pathlib import Path

import torch

from lora_repro.config.settings import ComputeConfig
from lora_repro.errors import InputError
from lora_repro.sweep.workers import cores

GIB = 2**30
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h

log = logging.getLogger(__name__)


_own_gpu: dict[int, int] = {}
"""The GPU that this process holds, and the descriptor of its lock."""


def prepare(compute: ComputeConfig) -> torch.device:
    """Returns the device, with threads, allocator and, on GPUs, deterministic kernels set.

    Raises:
        InputError: If there is no such device.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may sum in another order each time
    name = compute.device if compute.device != "auto" else _own() if torch.cuda.is_available() else "cpu"
    try:
        where = torch.device(name)
        torch.empty(1, device=where)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"compute.device: no device {name!r} here ({first}).\nUse auto, cpu, cuda or cuda:N."
        ) from error
    if compute.threads is not None:
        torch.set_num_threads(compute.threads)
    elif torch.get_num_threads() > cores():  # torch knows the cores it is bound to, not what it was granted of them
        torch.set_num_threads(cores())
    if where.type == "cuda":
        torch.use_deterministic_algorithms(True)
        setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010  (nothing reads it; typed nowhere)
    _keep_freed_memory()
    return where


def _own() -> str:
    """Returns a GPU that no other process of ours on this machine has taken, and keeps it while this one lives."""
    count = torch.cuda.device_count()
    if count == 1:
        return "cuda:0"
    for index in [*_own_gpu] or range(count):
        if index in _own_gpu:
            return f"cuda:{index}"
        name = f"lora_repro-{torch.cuda.get_device_properties(index).uuid}.lock"
        descriptor = os.open(Path(tempfile.gettempdir()) / name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            continue
        _own_gpu[index] = descriptor
        return f"cuda:{index}"
    log.warning("All %d GPUs are taken by other runs; this one shares the first.", count)
    return "cuda:0"


def _keep_freed_memory() -> None:
    """Lets malloc keep large freed blocks: activations are allocated anew at each step (1.1 times faster on CPUs)."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # the most that glibc takes
        libc.mallopt(M_TRIM_THRESHOLD, GIB)


def reset_peak_memory(where: torch.device) -> None:
    """Begins a new measurement of the peak, so that it is this run's and not the process's."""
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats(where)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        log.debug("The high-water mark of memory cannot be reset here; it is the whole process's.")


def peak_memory_gib(where: torch.device) -> float | None:
    """Returns the peak since the reset, in GiB; None where the system does not tell."""
    if where.type == "cuda":
        return round(torch.cuda.max_memory_allocated(where) / GIB, 3)
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return round(kib * 1024 / GIB, 3)
