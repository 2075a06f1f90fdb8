"""What produced a result: code, versions and hardware."""

import os
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from lora_repro import __version__
from lora_repro.config.catalogue import HOME
from lora_repro.config.identity import NUMERICS_VERSION
from lora_repro.config.schema import Dtype
from lora_repro.models.precision import has_fast_bf16

PACKAGES = ("torch", "transformers", "tokenizers", "numpy")
SETTINGS = (
    *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_CPU_ISA_HINTS", "DNNL_CPU_ISA_HINTS"),
    *("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
    *("MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR", "MKL_DYNAMIC", "OMP_DYNAMIC"),
    *("OPENBLAS_CORETYPE", "ATEN_CPU_CAPABILITY"),
    "NVIDIA_TF32_OVERRIDE",
)
"""Environment variables by which libraries choose their kernels, so that the same products round differently.

Variables that set a number of threads (OMP_NUM_THREADS, MKL_NUM_THREADS ...) are left out: launchers set them, and the
number itself is recorded.
"""


def machine(device: torch.device, dtype: Dtype, compiled: bool = False, packages: Sequence[str] = ()) -> dict[str, Any]:
    """Returns what decides the exact bits of a run's numbers besides its configuration.

    Args:
        device: Where the run is computed.
        dtype: Precision of the products.
        compiled: Whether the model's blocks are compiled.
        packages: Those that the run's method is made of, beside PACKAGES.
    """
    return {
        "device_class": _device_class(device),
        "bf16": None if dtype is not Dtype.bf16 else "native" if has_fast_bf16(device) else "rounded products in fp32",
        "threads": torch.get_num_threads(),
        "compiled": compiled,
        **_tf32(device),
        **{name: metadata.version(name) for name in (*PACKAGES, *packages)},
        "settings": settings() or None,
    }


def collect(device: torch.device, dtype: Dtype, budget: Any = None, compiled: bool = False) -> dict[str, Any]:
    """Returns commit, versions, device class and threads. Compare times only between runs of one device class.

    Args:
        device: Where the run was computed.
        dtype: Precision of the products.
        budget: The number of weights that the user asked for, from which the size of the method was solved.
        compiled: Whether the model's blocks were compiled.
    """
    here = machine(device, dtype, compiled)
    return {
        **code(),
        "numerics_version": NUMERICS_VERSION,
        **{key: here[key] for key in ("device_class", "bf16", "threads")},
        **({"compiled": True} if compiled else {}),
        **_tf32(device),
        "budget": budget,
        **({"settings": here["settings"]} if here["settings"] else {}),
    }


def _tf32(device: torch.device) -> dict[str, bool]:
    """Returns whether a GPU may round the factors of products in fp32 to 10 bits; other devices cannot."""
    flags = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    return {"tf32": any(flags)} if device.type == "cuda" else {}


def settings() -> dict[str, str]:
    """Returns the environment variables that are set and change how numbers are computed."""
    return {name: os.environ[name] for name in SETTINGS if os.environ.get(name)}


@cache
def code() -> dict[str, Any]:
    """Returns commit and versions of the code of this process, as they were at the first call.

    It is called before a process's first run is trained: whoever commits or installs meanwhile changes what lies on
    the disk, and not what is computed.
    """
    versions = {name: metadata.version(name) for name in PACKAGES}
    return {**_commit(), "versions": versions | {"lora_repro": __version__}}


@cache
def _device_class(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}"


def _commit() -> dict[str, Any]:
    """Returns the checkout's commit and whether it has uncommitted changes; None for both outside a checkout."""
    if not (HOME / ".git").exists():
        return {"commit": None, "dirty": None}
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit.strip(), "dirty": bool(_git("status", "--porcelain").strip())}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def _git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", str(HOME), *arguments], capture_output=True, text=True, check=True).stdout
