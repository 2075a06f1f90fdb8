"""The programs as people start them, each command in a process of its own that need not import first.

A new interpreter imports for seconds before it looks at its arguments. Here one process imports everything once, and
forks for each command, which has its own arguments, environment, streams and exit code all the same.
"""

import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from helpers.waiting import PATIENCE_S

from lora_repro.config.catalogue import HOME

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "hydra.main",
        "lora_repro.training.job",
        "lora_repro.training.train",
        "analysis.cells",
        "analysis.commands.truncate",
        "analysis.section7.comparison",
    ]
)  # not what `python -m` runs: that is executed anew


class Done(NamedTuple):
    """How a command ended, and what it said."""

    returncode: int | None
    stdout: str
    stderr: str


def run(
    command: Sequence[str], variables: Mapping[str, str] | None = None, timeout_s: float = PATIENCE_S, cwd: Path = HOME
) -> Done:
    """Runs `python -m command` and returns how it ended.

    Args:
        command: A module and its arguments.
        variables: What its environment holds beside this process's.
        timeout_s: Seconds after which it is killed; its returncode is negative then.
        cwd: Where it runs.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = CONTEXT.Process(
            target=_main, args=(list(command), cwd, {**os.environ, **(variables or {})}, out, err)
        )
        process.start()
        process.join(timeout_s)
        process.kill()
        process.join()
        return Done(process.exitcode, *(path.read_text() if path.exists() else "" for path in (out, err)))


def _main(command: list[str], cwd: Path, environment: Mapping[str, str], out: Path, err: Path) -> None:
    """Becomes the command: with its folder, environment, streams and arguments."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, out, os.O_WRONLY), (2, err, os.O_WRONLY)):
        os.dup2(os.open(path, flags | os.O_CREAT), number)
    sys.argv = [command[0], *command[1:]]
    sys.path.insert(0, str(cwd))
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
