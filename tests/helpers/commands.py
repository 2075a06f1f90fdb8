"""Commands of `python -m analysis`, run in this process, with what they print."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers.fixture_types import Captured

from analysis.__main__ import main


def call(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    """Runs the command line; returns the exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, arguments)))
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


class Drawn(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def data(self) -> list[dict[str, Any]]:
        return json.loads(self.out)


def figure(capsys: Captured, store: Path, *arguments: str) -> Drawn:
    with pytest.raises(SystemExit) as ended:
        main(["figure", *arguments, "--runs", str(store)])
    assert isinstance(ended.value.code, int)
    out, err = capsys.readouterr()
    return Drawn(ended.value.code, out, err)


def smoke(capsys: Captured, store: Path, *arguments: str) -> Drawn:
    return figure(capsys, store, *arguments, "--scale", "smoke")
