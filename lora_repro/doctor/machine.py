"""Checks of the machine: packages, device, speeds, disk, memory, tracker."""

import fcntl
import importlib
import math
import os
import shutil
import tempfile
import time
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from packaging.requirements import Requirement

from lora_repro.config.schema import Dtype, Run
from lora_repro.config.settings import Mirror, Tracker
from lora_repro.doctor.base import Found, Subject, Verdict, device_of, rule, together
from lora_repro.errors import cannot_write
from lora_repro.store.files import write_atomically
from lora_repro.sweep.workers import cores

if TYPE_CHECKING:
    import torch

GIB = 2**30
MODULES = {"hydra-core": "hydra", "pyyaml": "yaml"}
"""Packages that are imported by another name."""
BINARY = ("torch", "transformers", "pyarrow", "safetensors")
"""Packages that a run imports and that may be there and yet not load."""
LAUNCHERS = ("hydra-joblib-launcher", "hydra-submitit-launcher")
RECORD_BYTES = 2 * 2**20
"""A run's predictions, metrics, log and mirror, with room: 18,000 scored examples take 0.5 MB."""


@rule(
    "packages",
    protects="an import that fails, or an interface that is not there, in the middle of a sweep",
    remedy="make setup, or install what is named: pip install PACKAGE",
)
def packages(subject: Subject) -> Found:
    """Holds the installed versions against those that pyproject.toml asks for."""
    wanted = [Requirement(line) for line in metadata.requires("lora_repro") or [] if "extra ==" not in line]
    wrong = []
    for each in wanted:
        if find_spec(MODULES.get(each.name, each.name.replace("-", "_"))) is None:
            wrong.append(f"{each.name} is not installed")
        elif not each.specifier.contains(version := metadata.version(each.name), prereleases=True):
            wrong.append(f"{each.name} is {version}, needed is {each.specifier}")
    if wrong:
        return Found(Verdict.fail, "; ".join(wrong))
    for name in BINARY:
        importlib.import_module(name)
    there = [f"{name} {metadata.version(name)}" for name in LAUNCHERS if find_spec("hydra_plugins." + _module(name))]
    launchers = f"launchers: {', '.join(['basic', *there])}"
    return Found(Verdict.ok, f"{len(wanted)} packages, torch {metadata.version('torch')}; {launchers}")


def _module(distribution: str) -> str:
    return distribution.replace("-", "_")


@rule(
    "device",
    protects="computing on another device, or with more threads, than was meant",
    remedy="give compute.device=cpu, cuda or cuda:N, and at most compute.threads=CORES",
)
def the_device(subject: Subject) -> Found:
    """Names the device, its threads and its memory."""
    import torch

    from lora_repro.training import provenance

    where = device_of(subject)
    known = provenance.collect(where, Dtype.fp32)
    there = cores()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if where.type == "cuda":
        memory = torch.cuda.get_device_properties(where).total_memory
    words = f"{where}: {known['device_class']}, {known['threads']} threads of {there} cores, {memory / GIB:.1f} GiB"
    return Found(Verdict.warn if known["threads"] > there else Verdict.ok, words)


@rule(
    "speeds",
    protects="bf16 that is slower than fp32, as on CPUs that do not multiply in it",
    remedy="nothing: bf16 is then rounded around fp32 products, a tenth dearer (README, What a run is); or "
    "train.dtype=fp32, which makes other runs",
)
def dtype_speeds(subject: Subject) -> Found:
    """Measures products of 1024 rows with a square matrix, in both dtypes."""
    import torch

    from lora_repro.training import precision

    where = device_of(subject)
    widths = dict.fromkeys([1024, *(job.resolved.run.arch.d_model for job in subject.jobs)])
    speeds = [(d, _gflops(d, torch.float32, where), _gflops(d, torch.bfloat16, where)) for d in widths]
    words = "; ".join(f"width {d}: fp32 {fp32:,.0f}, bf16 {bf16:,.0f}" for d, fp32, bf16 in speeds) + " GFLOP/s"
    if not any(job.resolved.run.train.dtype is Dtype.bf16 for job in subject.jobs):
        return Found(Verdict.ok, words)
    if not precision.has_fast_bf16(where):
        return Found(Verdict.warn, f"{words}; bf16 is not native here, and jobs have train.dtype=bf16")
    return Found(Verdict.ok, f"{words}; bf16 is native")


def _gflops(width: int, dtype: "torch.dtype", where: "torch.device") -> float:
    import torch

    x, W = (torch.randn(rows, width, device=where).to(dtype) for rows in (1024, width))
    best, end = math.inf, time.perf_counter() + 0.1
    while best == math.inf or time.perf_counter() < end:
        began = time.perf_counter()
        torch.mm(x, W)
        if where.type == "cuda":
            torch.cuda.synchronize(where)
        best = min(best, time.perf_counter() - began)
    return 2 * 1024 * width**2 / best / 1e9


def _nearest_folder(outputs: str) -> Path:
    return next(path for path in (Path(outputs), *Path(outputs).absolute().parents) if path.exists())


@rule(
    "store",
    protects="records that cannot be written, are lost in a power cut, or are written by two processes at once",
    remedy="give a folder that can be written, on a disk of this machine or with file locks: paths.outputs=DIR",
)
def store(subject: Subject) -> Found:
    """Writes, syncs, renames and locks a file where the records will lie."""
    folder = _nearest_folder(subject.settings.paths.outputs)
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder) as scratch:
            path = Path(scratch, "file")
            began = time.perf_counter()
            write_atomically(path, "written")
            words = f"{folder}: written, synced and renamed in {(time.perf_counter() - began) * 1000:.1f} ms"
            with path.open("r+") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    return Found(Verdict.warn, f"{words}; flock is refused ({error.strerror})")
    except OSError as error:
        return Found(Verdict.fail, cannot_write(folder, error))
    return Found(Verdict.ok, f"{words}; flock works")


@rule(
    "disk",
    protects="a disk that is full before the sweep is finished",
    remedy="make room, ask for fewer log.snapshots, or give another store: paths.outputs=DIR",
    each=together,
)
def disk(subject: Subject) -> Found:
    """Holds the free disk against the records of all jobs, and two checkpoints."""
    settings, counts = subject.settings.log, []
    needed = 2 * 3 * 4 * max(job.resolved.run.method.count(job.resolved.run.arch).trainable for job in subject.jobs)
    for run in (job.resolved.run for job in subject.jobs):
        copies = len(settings.snapshots) + (settings.save_full or not run.method.is_saved_on_request)
        counts.append(RECORD_BYTES + 4 * copies * run.method.count(run.arch).trainable)
    needed += sum(counts)
    free = shutil.disk_usage(_nearest_folder(subject.settings.paths.outputs)).free
    verdict = Verdict.fail if free < needed else Verdict.warn if free < 2 * needed else Verdict.ok
    return Found(
        verdict, f"{free / GIB:.1f} GiB free, about {needed / GIB:.2f} GiB for the records of {len(counts)} jobs"
    )


@rule(
    "memory",
    protects="a job that the system kills, or that swaps, for want of memory",
    remedy="end other programs, run fewer jobs at a time, or take a smaller model or train.batch_size",
    each=together,
)
def memory(subject: Subject) -> Found:
    """Holds the free memory against the largest job: what it takes at least, and with batches of its longest inputs."""
    where = device_of(subject)
    needs = [(*_needed(job.resolved.run, where), job.resolved.run) for job in subject.jobs]
    least, most, run = max(needs, key=lambda need: need[:2])
    free = _free_memory(where)
    words = (
        f"{least / GIB:.2f} GiB for {run.model.name} {run.method.label}, {most / GIB:.2f} GiB where all "
        f"{run.train.batch_size} inputs of a batch have {run.train.max_length} tokens"
    )
    if free is None:
        return Found(Verdict.ok, f"{words}; this system does not tell what is free")
    verdict = Verdict.fail if free < least else Verdict.warn if free < most else Verdict.ok
    return Found(verdict, f"{free / GIB:.1f} GiB free, {words}")


def _needed(run: Run, where: "torch.device") -> tuple[int, int]:
    """Returns bytes that a run holds at its peak: without activations, and with those of its longest batches."""
    from lora_repro.costs.memory import estimate
    from lora_repro.costs.saved_tensors import Batch
    from lora_repro.models import load as models
    from lora_repro.training import precision

    products, is_fused = precision.products_of(run.train.dtype, where), not models.is_eager(run, where)
    batch = Batch(run.train.batch_size, run.train.max_length, products, is_fused)
    most = estimate(run.method, run.arch, run.model.config, batch)
    least = most._replace(activations=0)
    return (least.training, most.training) if where.type == "cuda" else (least.on_cpu, most.on_cpu)


def _free_memory(where: "torch.device") -> int | None:
    """Returns bytes: of the GPU, or what this machine and this process's control group leave."""
    import torch

    if where.type == "cuda":
        return torch.cuda.mem_get_info(where)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        limit, used = (Path("/sys/fs/cgroup", name) for name in ("memory.max", "memory.current"))
        if limit.is_file() and (most := limit.read_text().strip()).isdigit():
            free = min(free, int(most) - int(used.read_text()))
        return free
    except (OSError, StopIteration, ValueError):
        return None


@rule(
    "tracker",
    protects="records that are not mirrored as was asked",
    remedy="wandb login (or WANDB_API_KEY), or log.wandb=offline or off",
)
def tracker(subject: Subject) -> Found:
    """Tells where the records are mirrored, and whether that can be."""
    settings = subject.settings.log
    name = settings.tracker.value
    if settings.wandb is Mirror.off:
        return Found(Verdict.ok, "off: the records stay in the store alone")
    if find_spec(name) is None:
        return Found(Verdict.fail, f"{name} is not installed", f"pip install {name}, or log.wandb=off")
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    login = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    if settings.wandb is Mirror.online and settings.tracker is Tracker.wandb:
        has_key = "WANDB_API_KEY" in os.environ or (login.is_file() and host in login.read_text())
        return Found(Verdict.ok if has_key else Verdict.fail, f"online, {'a' if has_key else 'no'} key for {host}")
    return Found(Verdict.ok, f"{name}, {settings.wandb.value}")
