"""How many runs this machine can compute at a time, for conf/hydra/launcher, and its unit of memory. No torch."""

import os
import shutil
import subprocess
import warnings
from contextlib import suppress
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


def free_memory() -> int | None:
    """Returns the bytes that this machine and this process's control group leave; None where nothing says so."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        limit, used = (Path("/sys/fs/cgroup", name) for name in ("memory.max", "memory.current"))
        if limit.is_file() and (most := limit.read_text().strip()).isdigit():
            free = min(free, int(most) - int(used.read_text()))
        return free
    except (OSError, StopIteration, ValueError):
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
    limits = []
    for line in own.read_text().splitlines() if own.exists() else []:
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        folder = root / ("cpu" if controllers else "") / name.lstrip("/")
        while folder.is_relative_to(root):
            limits.append(_share(folder))
            folder = folder.parent
    return min((limit for limit in limits if limit is not None), default=None)


def _share(group: Path) -> int | None:
    """Returns the cores' worth of time of one control group, at least one; None where it sets no limit."""
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        with suppress(OSError, ValueError):
            time_us, period_us = " ".join((group / name).read_text() for name in names).split()
            return max(1, int(time_us) // int(period_us)) if int(time_us) > 0 else None
    return None


def gpus() -> int:
    """Returns the number of NVIDIA GPUs that this process may use, without starting CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([entry for entry in visible.split(",") if entry.strip() and entry.strip() != "-1"])
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
