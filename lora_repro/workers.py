"""How many runs this machine can compute at a time, for conf/hydra/launcher. No torch."""

import os
import shutil
import subprocess
import warnings

from omegaconf import OmegaConf


def register() -> None:
    """Makes the numbers known to conf/, whose launchers bear the names of their plugins' schemas, and mean to."""
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")
    OmegaConf.register_new_resolver("lora_repro_workers", workers, replace=True)
    OmegaConf.register_new_resolver("lora_repro_gpus_a_run", lambda: min(1, gpus()), replace=True)


def workers() -> int:
    """Returns the number of GPUs that this process may use, or without any of its cores."""
    return gpus() or cores()


def cores() -> int:
    """Returns the number of cores that this process may use; where the system does not say, those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> int:
    """Returns the number of NVIDIA GPUs that this process may use, without starting CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([entry for entry in visible.split(",") if entry.strip() and entry.strip() != "-1"])
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
