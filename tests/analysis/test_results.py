"""Tables and figures in analysis/results are what their commands print from the ledgers beside them."""

import re
import shlex
from pathlib import Path

import pytest
from helpers.commands import call
from helpers.fixture_types import Captured

from lora_repro.config.catalogue import HOME

RESULTS = HOME / "analysis" / "results"
COMMAND = re.compile(r"<!-- python -m analysis (.+) \(at [0-9a-f]{7,}\) -->\n")
"""In the first line: the command, and the commit at which it was given."""
DRAWN = sorted(path.name for path in RESULTS.iterdir() if path.suffix not in (".parquet", ".html"))


@pytest.mark.parametrize("name", DRAWN)
def test_it_is_what_its_command_prints(
    name: str, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (RESULTS / name).read_text()
    found = COMMAND.search(text)
    assert found is not None and "\n" not in text[: found.start()]
    monkeypatch.chdir(HOME)
    command = shlex.split(found[1])
    if name.endswith(".svg"):
        drawn = tmp_path / name
        code, _, err = call(capsys, *command, "--out" if command[0] == "figure" else "--plot", drawn)
        printed = drawn.read_text() if code == 0 else ""
    else:
        code, printed, err = call(capsys, *command)
    assert code == 0, err
    assert _rounded(COMMAND.sub("\n" if found.start() else "", text, count=1)) == _rounded(printed)


def test_the_report_is_what_its_command_writes(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(HOME)
    page = "analysis/results/report.html"
    code, _, err = call(capsys, "report", "--runs", "analysis/results", "--out", tmp_path / "report.html")
    assert code == 0, err
    drawn = (tmp_path / "report.html").read_text().replace(str(tmp_path / "report.html"), page)
    assert _rounded(drawn) == _rounded((HOME / page).read_text())
    assert len(drawn) < 5_000_000


def _rounded(text: str) -> str:
    """Rounds coordinates, whose last digits are the processor's; tables have no more digits."""
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", text)


def test_every_ledger_is_drawn() -> None:
    commands = [found[1] for name in DRAWN if (found := COMMAND.search((RESULTS / name).read_text())) is not None]
    assert any(command.endswith("--runs analysis/results") for command in commands)  # all of them together
    for ledger in RESULTS.glob("*.parquet"):
        assert any(f"analysis/results/{ledger.name}" in command for command in commands), ledger.name
