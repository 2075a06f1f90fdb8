"""Long loops say how far they are, and an interrupted analysis says that it starts over."""

import pytest
from helpers.fixture_types import Captured

from analysis import __main__ as program
from lora_repro import terminal


def test_without_a_terminal_a_line_now_and_then_says_how_far_a_loop_is(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    clock = iter([0.0, 1.0, 11.0, 11.0, 12.0, 22.5, 22.5])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    assert list(terminal.progress("abcd", "drawing", 4)) == list("abcd")
    assert capsys.readouterr().err.splitlines() == ["drawing: 1 of 4", "drawing: 3 of 4"]


def test_a_bar_on_a_terminal_loses_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal.sys.stderr, "isatty", lambda: True, raising=False)
    assert list(terminal.progress(range(3), "drawing", 3)) == [0, 1, 2]


def test_an_interrupted_analysis_does_not_promise_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def interrupted(_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("analysis.commands.figures._figure", interrupted)
    with pytest.raises(SystemExit) as ended:
        program.main(["figure", "3"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "\nInterrupted; the same command starts over.\n"
