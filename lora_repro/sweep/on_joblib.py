"""How many runs joblib computes at a time: what cores (or GPUs), runs and memory allow. No torch at import."""

import logging
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from lora_repro import machine
from lora_repro.config.schema import Run
from lora_repro.sweep.grid import Job

log = logging.getLogger(__name__)


@runtime_checkable
class JoblibLauncher(Protocol):
    """The plugin's launcher, as Hydra has set it up."""

    joblib: dict[str, Any]
    """The arguments of joblib.Parallel."""


class Workers:
    """Chooses hydra.launcher.n_jobs for each launch. Several runs of one thread are faster than one of several.

    Args:
        launcher: The plugin's.
    """

    def __init__(self, launcher: JoblibLauncher) -> None:
        self._launcher = launcher

    def fit(self, jobs: Sequence[Job]) -> None:
        """Sets how many runs the next launch computes at a time, and says why."""
        compute = jobs[0].resolved.settings.compute
        threads, gpus = compute.threads, 0 if compute.device == "cpu" else machine.gpus()
        is_named = gpus > 0 and compute.device.startswith("cuda:")  # one for all runs, however many there are
        if is_named:
            gpus = 1
        cores = machine.cores()
        most = min(len(jobs), gpus or max(1, cores // (threads or 1)))
        at_once, limit = most, f"; compute.device={compute.device} names one GPU for all runs" if is_named else ""
        if most > 1 and not gpus and (free := machine.free_memory()) is not None:
            need = _most_memory([job.resolved.run for job in jobs])
            at_once = max(1, min(most, free // need))
            limit = f"; the largest may need {need / machine.GIB:.1f} of {free / machine.GIB:.1f} GiB that are free"
        self._launcher.joblib["n_jobs"] = at_once
        log.info(
            "%d %s at a time, each with %s%s. hydra.launcher.n_jobs=N sets another number.",
            at_once, "run" if at_once == 1 else "runs",
            "a GPU" if gpus else f"{threads or max(1, cores // at_once)} of {cores} cores", limit,
        )  # fmt: skip


def _most_memory(runs: Sequence[Run]) -> int:
    """Returns the bytes that the largest of some runs needs on a CPU, with batches of its longest inputs."""
    import torch

    from lora_repro.costs.memory import PROCESS, estimate_run, heaviest

    return max(estimate_run(run, torch.device("cpu")).on_cpu or PROCESS for run in heaviest(runs))
