"""The programs' commands, run in this process, with what they print."""

import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers.fixture_types import Captured
from helpers.processes import Done
from hydra.core.global_hydra import GlobalHydra

from analysis.__main__ import main
from lora_repro.__main__ import main as main_of_runs
from lora_repro.config.catalogue import HOME
from lora_repro.fetch.fetch import main as main_of_fetch

PROGRAMS: dict[str, Callable[[], object]] = {
    "lora_repro": main_of_runs,
    "lora_repro.fetch": lambda: sys.exit(main_of_fetch()),
    "analysis": main,
}
"""What `python -m` runs."""


def run_here(
    command: Sequence[str],
    capsys: Captured,
    variables: Mapping[str, str] | None = None,
    cwd: Path = HOME,
) -> Done:
    """Runs `python -m command` as `processes.run` does, but in this process, which has imported everything.

    Hydra and logging are as in a new process: no earlier command has configured them.

    Args:
        command: A module and its arguments.
        capsys: The fixture.
        variables: What the environment holds beside this process's.
        cwd: Where it runs.
    """
    GlobalHydra.instance().clear()
    _forget_streams()
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        for name, value in (variables or {}).items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", list(command))
        with pytest.raises(SystemExit) as ended:
            PROGRAMS[command[0]]()
    _forget_streams()
    code = ended.value.code
    assert code is None or isinstance(code, int)
    out, err = capsys.readouterr()
    return Done(code or 0, out, err)


def _forget_streams() -> None:
    """Removes the handler by which `lora_repro.training.job` logs to the stderr of its time."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if getattr(handler, "ours", False)]:
        root.removeHandler(handler)


def call(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    """Runs `python -m analysis`; returns the exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, arguments)))
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


class Drawn(NamedTuple):
    """What `analysis figure` printed."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> list[dict[str, Any]]:
        """The entries of --format json."""
        return json.loads(self.out)


Figures = Callable[[str], Drawn]
"""`drawn`: draws a figure of the store that no test changes, each once."""


def figure(capsys: Captured, store: Path, *arguments: str) -> Drawn:
    """Runs `analysis figure` on a store."""
    with pytest.raises(SystemExit) as ended:
        main(["figure", *arguments, "--runs", str(store)])
    assert isinstance(ended.value.code, int)
    out, err = capsys.readouterr()
    return Drawn(ended.value.code, out, err)


def smoke(capsys: Captured, store: Path, *arguments: str) -> Drawn:
    """Runs `analysis figure` on a store at scale smoke."""
    return figure(capsys, store, *arguments, "--scale", "smoke")
