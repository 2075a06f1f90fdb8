"""`python -m lora_repro`: computes one run, or with -m a sweep."""

import os
import sys

import hydra
from omegaconf import DictConfig

from lora_repro.cli import guard, normalise
from lora_repro.config import HOME


@hydra.main(version_base="1.3", config_path=str(HOME / "conf"), config_name="config")
def _main(cfg: DictConfig) -> None:
    from lora_repro.job import run_job

    run_job(cfg)


def main() -> None:
    """Runs the command line; errors a person can mend end in a few lines, Ctrl-C and SIGTERM in one."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach guard() as they are
    sys.exit(guard(_run))


def _run() -> None:
    sys.argv[1:] = normalise(sys.argv[1:])
    _main()


if __name__ == "__main__":
    main()
