"""The device of a run: chosen, prepared, and its memory measured."""

import ctypes
import logging
import platform
from pathlib import Path

import torch

from lora_repro.config import ComputeConfig
from lora_repro.errors import InputError

GIB = 2**30
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h

log = logging.getLogger(__name__)


def prepare(compute: ComputeConfig) -> torch.device:
    """Returns the device, with the CPU's threads and allocator set.

    Raises:
        InputError: If there is no such device.
    """
    name = compute.device if compute.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
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
    _keep_freed_memory()
    return where


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
