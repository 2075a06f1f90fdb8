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
from lora_repro.doctor.base import Finding, Subject, Verdict, device_of, rule, together
from lora_repro.errors import cannot_write
from lora_repro.machine import GIB, cores, free_memory
from lora_repro.store.files import write_atomically

if TYPE_CHECKING:
    import torch

BINARY = ("torch", "transformers", "pyarrow", "safetensors")
"""Packages that a run imports and that may fail to load although they are installed."""
LAUNCHERS = ("hydra-joblib-launcher", "hydra-submitit-launcher")
RECORD_BYTES = 2 * 2**20
"""A run's predictions, metrics, log and mirror, with room: 18,000 scored examples take 0.5 MB."""


@rule(
    "packages",
    protects="an import or an interface that fails in the middle of a sweep",
    remedy="make setup, or install what is named: pip install PACKAGE",
)
def packages(subject: Subject) -> Finding:
    """Compares the installed versions with those that pyproject.toml asks for."""
    wanted = [Requirement(line) for line in metadata.requires("lora_repro") or [] if "extra ==" not in line]
    wrong = []
    for each in wanted:
        try:
            version = metadata.version(each.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{each.name} is not installed")
            continue
        if not each.specifier.contains(version, prereleases=True):
            wrong.append(f"{each.name} is {version}, needed is {each.specifier}")
    if wrong:
        return Finding(Verdict.fail, "; ".join(wrong))
    for name in BINARY:
        importlib.import_module(name)
    there = [f"{name} {metadata.version(name)}" for name in LAUNCHERS if find_spec("hydra_plugins." + _module(name))]
    launchers = f"launchers: {', '.join(['basic', *there])}"
    return Finding(Verdict.ok, f"{len(wanted)} packages, torch {metadata.version('torch')}; {launchers}")


def _module(distribution: str) -> str:
    return distribution.replace("-", "_")


@rule(
    "device",
    protects="computing on another device, or with more threads, than you meant",
    remedy="give compute.device=cpu, cuda or cuda:N, and at most compute.threads=CORES",
)
def the_device(subject: Subject) -> Finding:
    """Names the device, its threads and its memory."""
    import torch

    from lora_repro.training import provenance

    device = device_of(subject)
    known = provenance.collect(device, Dtype.fp32)
    there = cores()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    text = f"{device}: {known['device_class']}, {known['threads']} threads of {there} cores, {memory / GIB:.1f} GiB"
    return Finding(Verdict.warn if known["threads"] > there else Verdict.ok, text)


@rule(
    "speeds",
    protects="bf16 that is slower than fp32, as on CPUs without bf16 instructions",
    remedy="nothing: bf16 is then rounded around fp32 products, a tenth slower (docs/records_and_resuming.md, "
    "What a run is); or train.dtype=fp32, which makes other runs",
)
def dtype_speeds(subject: Subject) -> Finding:
    """Measures products of 1024 rows with a square matrix in both dtypes."""
    import torch

    from lora_repro.models import precision

    device = device_of(subject)
    widths = dict.fromkeys([1024, *(job.resolved.run.arch.d_model for job in subject.jobs)])
    speeds = [(d, _gflops(d, torch.float32, device), _gflops(d, torch.bfloat16, device)) for d in widths]
    text = "; ".join(f"width {d}: fp32 {fp32:,.0f}, bf16 {bf16:,.0f}" for d, fp32, bf16 in speeds) + " GFLOP/s"
    if not any(job.resolved.run.train.dtype is Dtype.bf16 for job in subject.jobs):
        return Finding(Verdict.ok, text)
    if not precision.has_fast_bf16(device):
        return Finding(Verdict.warn, f"{text}; bf16 is not native here, and jobs have train.dtype=bf16")
    return Finding(Verdict.ok, f"{text}; bf16 is native")


def _gflops(width: int, dtype: "torch.dtype", device: "torch.device") -> float:
    import torch

    x, W = (torch.randn(rows, width, device=device).to(dtype) for rows in (1024, width))
    best, end = math.inf, time.perf_counter() + 0.1
    while best == math.inf or time.perf_counter() < end:
        began = time.perf_counter()
        torch.mm(x, W)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * 1024 * width**2 / best / 1e9


def _nearest_folder(outputs: str) -> Path:
    return next(path for path in (Path(outputs), *Path(outputs).absolute().parents) if path.exists())


@rule(
    "store",
    protects="records that cannot be written, are lost in a power cut, or are written by two processes at once",
    remedy="give a folder that can be written, on a disk of this machine or with file locks: paths.outputs=DIR",
)
def store(subject: Subject) -> Finding:
    """Writes, syncs, renames and locks a file where the records will lie."""
    folder = _nearest_folder(subject.settings.paths.outputs)
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder) as scratch:
            path = Path(scratch, "file")
            began = time.perf_counter()
            write_atomically(path, "written")
            text = f"{folder}: written, synced and renamed in {(time.perf_counter() - began) * 1000:.1f} ms"
            with path.open("r+") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    return Finding(Verdict.warn, f"{text}; flock is refused ({error.strerror})")
    except OSError as error:
        return Finding(Verdict.fail, cannot_write(folder, error))
    return Finding(Verdict.ok, f"{text}; flock works")


@rule(
    "disk",
    protects="a disk that is full before the sweep is finished",
    remedy="make room, ask for fewer log.snapshots, or give another store: paths.outputs=DIR",
    each=together,
)
def disk(subject: Subject) -> Finding:
    """Compares the free disk with the records of all jobs and two checkpoints."""
    counts = []
    needed = 2 * 3 * 4 * max(job.resolved.run.method.count(job.resolved.run.arch).trainable for job in subject.jobs)
    for run, log in ((job.resolved.run, job.resolved.settings.log) for job in subject.jobs):
        copies = len(log.snapshots) + (log.save_full or not run.method.is_saved_on_request)
        counts.append(RECORD_BYTES + 4 * copies * run.method.count(run.arch).trainable)
    needed += sum(counts)
    free = shutil.disk_usage(_nearest_folder(subject.settings.paths.outputs)).free
    verdict = Verdict.fail if free < needed else Verdict.warn if free < 2 * needed else Verdict.ok
    return Finding(
        verdict, f"{free / GIB:.1f} GiB free, about {needed / GIB:.2f} GiB for the records of {len(counts)} jobs"
    )


@rule(
    "memory",
    protects="a job that the system kills, or that swaps, because memory runs out",
    remedy="end other programs, run fewer jobs at a time, or take a smaller model or train.batch_size",
    each=together,
)
def memory(subject: Subject) -> Finding:
    """Compares the free memory with the needs of the largest job: the least, and with batches of its longest inputs."""
    from lora_repro.costs.memory import batch_size, heaviest

    device = device_of(subject)
    needs = [(*_needed(run, device), run) for run in heaviest(job.resolved.run for job in subject.jobs)]
    least, most, run = max(needs, key=lambda need: need[:2])
    free = _free_memory(device)
    text = (
        f"{least / GIB:.2f} GiB for {run.model.name} {run.method.label}, {most / GIB:.2f} GiB where all "
        f"{batch_size(run, device, run.train.max_length)} inputs of a batch have {run.train.max_length} tokens"
    )
    if free is None:
        return Finding(Verdict.ok, f"{text}; this system does not say what is free")
    verdict = Verdict.fail if free < least else Verdict.warn if free < most else Verdict.ok
    return Finding(verdict, f"{free / GIB:.1f} GiB free, {text}")


def _needed(run: Run, device: "torch.device") -> tuple[int, int]:
    """Returns bytes that a run holds at its peak: without activations, and with those of its longest batches."""
    from lora_repro.costs.memory import estimate_run

    found = estimate_run(run, device)
    return found._replace(step=found.gradients).on(device) or 0, found.on(device) or 0


def _free_memory(device: "torch.device") -> int | None:
    """Returns bytes: of the GPU, or what this machine and this process's control group leave."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory()


@rule(
    "tracker",
    protects="records that are not mirrored as you asked",
    remedy="wandb login (or WANDB_API_KEY), or log.wandb=offline or off",
)
def tracker(subject: Subject) -> Finding:
    """Says where the records are mirrored, and whether that works."""
    settings = subject.settings.log
    name = settings.tracker.value
    if settings.wandb is Mirror.off:
        return Finding(Verdict.ok, "off: the records stay in the store alone")
    if find_spec(name) is None:
        return Finding(Verdict.fail, f"{name} is not installed", f"pip install {name}, or log.wandb=off")
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    login = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    if settings.wandb is Mirror.online and settings.tracker is Tracker.wandb:
        has_key = "WANDB_API_KEY" in os.environ or (login.is_file() and host in login.read_text())
        return Finding(Verdict.ok if has_key else Verdict.fail, f"online, {'a' if has_key else 'no'} key for {host}")
    return Finding(Verdict.ok, f"{name}, {settings.wandb.value}")
