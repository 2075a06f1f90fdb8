"""How many runs this machine can compute at a time, for conf/hydra/launcher, and its unit of memory. No torch."""

import os
import shutil
import subprocess
import warnings
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from omegaconf import OmegaConf

from lora_repro.sweep import slurm

GIB = 2**30
"""Bytes."""


def register() -> None:
    """Registers the numbers for conf/, whose launchers have the names of their plugins' schemas on purpose."""
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")
    OmegaConf.register_new_resolver("lora_repro_workers", workers, replace=True)
    OmegaConf.register_new_resolver("lora_repro_gpus_a_run", lambda: min(1, gpus()), replace=True)


def workers() -> int:
    """Returns the number of GPUs that this process may use, or without any of its cores."""
    return gpus() or cores()


def free_memory(
    own: Path = Path("/proc/self/cgroup"),
    root: Path = Path("/sys/fs/cgroup"),
    machine: Path = Path("/proc/meminfo"),
) -> int | None:
    """Returns the bytes that this machine and the control groups of this process leave; None where nothing says so.

    Args:
        own: Names its groups, as for `quota`.
        root: Where they are mounted.
        machine: What the machine has (man proc_meminfo).
    """
    try:
        lines = machine.read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None
    left = (_memory_left(folder) for folder in _groups("memory", own, root))
    return min([free, *(max(0, found) for found in left if found is not None)])


def _memory_left(group: Path) -> int | None:
    """Returns the bytes that one control group leaves; None where it sets no limit.

    The page cache that nobody has used of late (inactive_file) counts as left: Linux gives it up before it kills.
    """
    for limit, usage, inactive in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),  # version 1
    ):
        with suppress(OSError, ValueError):
            most, used = (int((group / name).read_text()) for name in (limit, usage))
            with suppress(OSError, ValueError, KeyError):
                used -= int(dict(line.split() for line in (group / "memory.stat").read_text().splitlines())[inactive])
            return most - used
    return None


def limit_joblib() -> None:
    """Lets joblib divide among its workers only the cores that Slurm granted, which it does not ask for itself."""
    os.environ.setdefault("LOKY_MAX_CPU_COUNT", str(cores()))


def cores() -> int:
    """Returns the number of cores that this process may use; where nothing limits it, those of the machine.

    Slurm's grant counts although its processes may be bound to no cores, and a container's share of processor time
    (docker run --cpus) although it sees all of the machine's: more threads than that would only wait for each other.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([bound, *(limit for limit in (slurm.granted_cpus(), quota()) if limit is not None)])


def quota(own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Returns the whole cores of processor time that the control groups of this process leave it; None if all.

    Args:
        own: Names its groups: a line each of number, controllers (none in version 2) and path (man cgroups).
        root: Where they are mounted.
    """
    return min((limit for limit in map(_share, _groups("cpu", own, root)) if limit is not None), default=None)


def _groups(controller: str, own: Path, root: Path) -> list[Path]:
    """Returns the folders of the control groups that hold this process and limit what a controller counts."""
    folders = []
    for line in own.read_text().splitlines() if own.exists() else []:
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        folder = root / (controller if controllers else "") / name.lstrip("/")
        while folder.is_relative_to(root):
            folders.append(folder)
            folder = folder.parent
    return folders


def _share(group: Path) -> int | None:
    """Returns the cores' worth of time of one control group, at least one; None where it sets no limit."""
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        with suppress(OSError, ValueError):
            time_us, period_us = " ".join((group / name).read_text() for name in names).split()
            return max(1, int(time_us) // int(period_us)) if int(time_us) > 0 else None
    return None


def gpus() -> int:
    """Returns the number of NVIDIA GPUs that this process may use, without starting CUDA.

    Source: CUDA C++ Programming Guide, CUDA Environment Variables: of CUDA_VISIBLE_DEVICES only what stands before the
    first invalid entry is visible.
    """
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not count:
        return count

    def is_valid(entry: str) -> bool:
        return entry.startswith(("GPU-", "MIG-")) or (entry.isdecimal() and int(entry) < count)

    return len(set(takewhile(is_valid, map(str.strip, visible.split(",")))))
