"""Runs a sweep's jobs on Ray, in a new instance or on a running cluster. No torch.

hydra-ray-launcher passes `object_store_memory` to every Ray, which a running cluster refuses. It waits in one call, so
that a request to end does not reach runs on other machines, and it gives up all jobs when one worker dies. Here each
job is a task of Ray's: it is cancelled on the host where it runs, and a dead worker loses only its own run.
"""

import importlib
import logging
import signal
from collections.abc import Sequence
from typing import Any, Protocol, cast, runtime_checkable

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from lora_repro import interrupt
from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.errors import RunInterruptedError
from lora_repro.sweep.watch import failed

POLL_S = 0.5
STORE_BYTES = 75 * 2**20
"""Size of the object store of a new Ray, as in the plugin: jobs exchange a configuration and a few numbers."""

log = logging.getLogger(__name__)


@runtime_checkable
class RayLauncher(Protocol):
    """The plugin's launcher, as Hydra has set it up."""

    ray_cfg: DictConfig
    config: DictConfig
    hydra_context: HydraContext
    task_function: TaskFunction


class OnRay:
    """Launches jobs with the plugin's settings, in place of its `launch`.

    Args:
        launcher: The plugin's.
    """

    def __init__(self, launcher: RayLauncher) -> None:
        self._launcher = launcher

    def __call__(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Runs the jobs and returns how each ended.

        Raises:
            ray.exceptions.RayError: If workers died; the store shows whose.
        """
        self._start()
        ray = importlib.import_module("ray")
        configs = [self._compose(overrides, initial_job_idx + i) for i, overrides in enumerate(job_overrides)]
        tasks = [self._submit(config) for config in configs]
        ended: dict[int, JobReturn] = {}
        crash: Exception | None = None
        is_ending = False
        while waiting := [task for i, task in enumerate(tasks) if i not in ended]:
            for task in ray.wait(waiting, timeout=POLL_S)[0]:
                i = tasks.index(task)
                try:
                    ended[i] = ray.get(task)
                except ray.exceptions.TaskCancelledError:
                    ended[i] = failed(RunInterruptedError("Interrupted before it had begun."))
                except ray.exceptions.RayError as error:
                    ended[i], crash = failed(error), error
                    log.warning("The worker of %s died: %s", _run_id(configs[i]), str(error).splitlines()[0])
            if interrupt.requested() and not is_ending:
                is_ending = True
                for task in waiting:
                    ray.cancel(task, force=False)  # a waiting task never begins, a running one receives Ctrl-C
        if crash is not None:
            raise crash
        return [ended[i] for i in range(len(tasks))]

    def _start(self) -> None:
        """Starts a Ray, or joins the one that `address` names, and keeps our own handlers of signals."""
        ray = importlib.import_module("ray")
        if ray.is_initialized():
            return
        settings = cast(dict[str, Any], OmegaConf.to_container(self._launcher.ray_cfg.init, resolve=True))
        if settings.get("address") is None:
            settings |= {"address": "local"}  # without, Ray would join a cluster that happens to run here
        if settings["address"] == "local":
            settings.setdefault("object_store_memory", STORE_BYTES)
        heard = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a closed terminal must not end Ray before the runs
        try:
            ray.init(**settings)
        finally:
            signal.signal(signal.SIGHUP, heard)
        interrupt.listen()

    def _compose(self, overrides: Sequence[str], number: int) -> DictConfig:
        setup_globals()
        config = self._launcher.hydra_context.config_loader.load_sweep_config(self._launcher.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = f"job_id_for_{number}", number
        return config

    def _submit(self, config: DictConfig) -> Any:
        util = importlib.import_module("hydra_plugins.hydra_ray_launcher._launcher_util")
        return util.launch_job_on_ray(
            self._launcher.hydra_context,
            self._launcher.ray_cfg.remote,
            config,
            self._launcher.task_function,
            Singleton.get_state(),
        )


def _run_id(config: DictConfig) -> str:
    job = config.copy()
    with open_dict(job):
        del job["hydra"]
    return run_id(resolve(job).run)
