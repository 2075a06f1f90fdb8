"""`python -m lora_repro`: computes one run, or a sweep with -m."""

import os
import sys

from lora_repro.environment import refuse_outside

if __name__ == "__main__":
    refuse_outside()

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lora_repro.cli import guard, normalise, say
from lora_repro.config.catalogue import HOME
from lora_repro.errors import InputError, RunFailedError


@hydra.main(version_base="1.3", config_path=str(HOME / "conf"), config_name="config")
def _main(cfg: DictConfig) -> None:
    from lora_repro.training.job import run_job

    try:
        run_job(cfg)
    except (InputError, RunFailedError) as error:
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise  # the sweeper counts it and continues
        raise SystemExit(say(error)) from error


def main() -> None:
    """Runs the command line. Errors that a user can fix are printed in a few lines, Ctrl-C and SIGTERM in one."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that errors reach guard() unchanged
    sys.exit(guard(_run))


def _run() -> None:
    sys.argv[1:] = normalise(sys.argv[1:])
    _main()


if __name__ == "__main__":
    main()
