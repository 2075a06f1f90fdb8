"""Figures of the store that no test changes, each drawn once."""

from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

import pytest
from helpers.commands import Drawn, Figures

from analysis.__main__ import main


@pytest.fixture(scope="session")
def drawn(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Figures:
    """Draws a figure at scale smoke to its number.svg, and gives what it prints as JSON."""
    folder = tmp_path_factory.mktemp("figures")

    @cache
    def draw(number: str) -> Drawn:
        out, err, file = StringIO(), StringIO(), folder / f"{number}.svg"
        arguments = ("--format", "json", "--out", str(file), "--runs", str(store), "--scale", "smoke")
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main(["figure", number, *arguments])
        assert ended.value.code == 0 and f"Written: {file}" in err.getvalue(), err.getvalue()
        return Drawn(0, out.getvalue(), err.getvalue())

    return draw
