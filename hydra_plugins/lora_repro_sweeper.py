"""Hydra's sweeper for grids: plans, skips finished runs, launches the others and prints a summary.

No `from __future__ import annotations` here: with it, Hydra 1.3 cannot read the dataclass below.
"""

from dataclasses import dataclass
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict


@dataclass
class GridSweeperConfig:
    """Hydra's entry for the sweeper; it has no settings."""

    _target_: str = "hydra_plugins.lora_repro_sweeper.GridSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="lora_repro_grid", node=GridSweeperConfig)


class GridSweeper(Sweeper):
    """Turns `+sweeps=NAME` and axes of the command line into runs, for whichever launcher Hydra has."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Makes the launcher, and stores what the sweep needs.

        Raises:
            InputError: If the launcher's plugin is not installed, or its settings contradict each other.
        """
        from hydra._internal.core_plugins.basic_launcher import BasicLauncher
        from hydra.core.plugins import Plugins

        from lora_repro import machine as workers
        from lora_repro.errors import InputError
        from lora_repro.sweep import campaign
        from lora_repro.sweep.on_joblib import JoblibLauncher, Workers
        from lora_repro.sweep.on_ray import OnRay, RayLauncher
        from lora_repro.sweep.slurm_queue import JobFunction, Queue

        self.settings = config
        self.loader = hydra_context.config_loader
        try:
            launcher = Plugins.instance().instantiate_launcher(
                hydra_context=hydra_context, task_function=task_function, config=config
            )
        except (RuntimeError, ImportError) as error:  # Hydra raises these if a plugin is missing
            name = config.hydra.runtime.choices["hydra/launcher"]
            package = f"hydra-{name.partition('_')[0]}-launcher"
            raise InputError(
                f"hydra/launcher={name}: it is not installed ({error}).\nInstall it: pip install {package}"
            ) from error
        fit = None
        if "joblib" in type(launcher).__module__:
            workers.limit_joblib()
            given = OmegaConf.to_container(config.hydra.overrides.hydra)
            if not any(str(line).lstrip("+").startswith("hydra.launcher.n_jobs=") for line in cast(list[Any], given)):
                fit = Workers(cast(JoblibLauncher, launcher)).fit
        on_cluster = "submitit" in type(launcher).__module__
        queue = Queue(cast(JobFunction, launcher)) if type(launcher).__name__ == "SlurmLauncher" else None
        launch = OnRay(cast(RayLauncher, launcher)) if type(launcher).__name__ == "RayLauncher" else launcher.launch
        compute = self._compute if isinstance(launcher, BasicLauncher) else None
        self.engine = campaign.Launcher(launch, compute, on_cluster, fit, queue)

    def sweep(self, arguments: list[str]) -> Any:
        """Runs the sweep that the arguments ask for.

        Raises:
            InputError: If a job of it is impossible; none has been started then.
            SystemExit: With code 1, if a run did not finish.
        """
        from lora_repro.config.settings import LogConfig
        from lora_repro.sweep import campaign
        from lora_repro.sweep import grid as sweep

        log, outputs = OmegaConf.to_object(self.settings.log), self.settings.paths.outputs
        assert isinstance(log, LogConfig)
        campaign.run(lambda: sweep.load(self._compose, arguments, outputs), outputs, log, self.engine)

    def _compute(self, job: Any) -> None:
        """Computes a job in this process, as it was resolved when the sweep was planned.

        Weights of a user's may have changed since, so those are looked at again.
        """
        from lora_repro.config.resolve import resolve
        from lora_repro.training.job import compute

        is_local = job.resolved.run.model.name == "local"
        compute(resolve(self._compose(job.overrides)) if is_local else job.resolved)

    def _compose(self, overrides: list[str]) -> DictConfig:
        cfg = self.loader.load_configuration(self.settings.hydra.job.config_name, overrides, RunMode.RUN)
        with open_dict(cfg):
            del cfg["hydra"]
        return cfg
