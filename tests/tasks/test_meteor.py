"""METEOR's Java program: its numbers beside the official commands', and that it is never left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.generated_texts import PREDICTIONS, REFERENCES, needs_java

from lora_repro.errors import RunFailedError
from lora_repro.tasks.text_metrics import e2e, generation_eval, meteor, tools
from lora_repro.tasks.text_metrics.meteor import Meteor

STAND_IN = """
import sys
print("a warning", file=sys.stderr)
for line in sys.stdin:
    words = line.strip().split(" ||| ")
    if "DIE" in words:
        sys.exit("out of memory")
    if "WAIT" in words:
        import time
        time.sleep(600)
    if words[0] == "EVAL":
        print("\\n".join(["0.5"] * len(words)), flush=True)
    else:
        print("Error: specify hypothesis" if "WRONG" in words else "1.0 " + str(len(words) - 2), flush=True)
"""
"""Answers as the program does, with the number of references in place of statistics."""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Runs a program in Python in place of Java."""
    monkeypatch.setattr(tools, "jar", lambda program: tmp_path / program.name)
    monkeypatch.setattr(tools, "command", lambda arguments, what: [sys.executable, "-c", STAND_IN])


@pytest.fixture(scope="module")
def program() -> Iterator[Meteor]:
    """The program, started once for the tests of this file, in a locale that writes a comma for the point."""
    before = {name: os.environ.get(name) for name in ("LANG", "LC_ALL", "JAVA_TOOL_OPTIONS")}
    os.environ.update(LANG="C", LC_ALL="C", JAVA_TOOL_OPTIONS="-Duser.language=de -Duser.country=DE")
    try:
        started = Meteor()
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})
    with started:
        yield started


@needs_java
def test_meteor_is_that_of_the_official_scripts(program: Meteor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the German locale pycocoevalcap's own wrapper fails (salaniz/pycocoevalcap, issue 15)."""
    monkeypatch.setattr(e2e, "meteor_of", program.score)
    monkeypatch.setattr(generation_eval, "meteor_of", program.score)
    assert e2e.meteor(PREDICTIONS, REFERENCES) == 0.41222534282511775
    assert generation_eval.meteor(PREDICTIONS, REFERENCES) == 0.37851430518255297
    assert e2e.meteor(["", "one"], [["a", "b"], ["two"]]) == generation_eval.meteor([""], [["a"]]) == 0
    assert e2e.meteor(["A red one."], [["", "a RED one"]]) == 1


@needs_java
def test_lines_and_separators_inside_a_text_do_not_shift_the_others(program: Meteor) -> None:
    """A pair counts as often as it stands there; a text that was taken for two would shift the answers after it."""
    plain = program.score(["a b c", "d e"], [["a b", "c"], ["e"]])
    assert program.score(["a b\nc", "d\u2028e ||| "], [["a\r\nb", "c ||| "], ["e"]]) == plain
    assert 0 < plain < 1


@pytest.mark.usefixtures("stand_in")
def test_many_examples_with_long_references_pass_through_the_pipes() -> None:
    texts = [["word " * 400] * 20] * 250
    assert meteor.meteor_of(["word"] * 250, texts) == 0.5


def test_the_scores_of_a_block_are_of_one_process_which_ends_with_it(
    stand_in: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Meteor] = []

    class Counted(Meteor):
        def __init__(self) -> None:
            super().__init__()
            started.append(self)

    monkeypatch.setattr(meteor, "Meteor", Counted)
    with meteor.one_program(), meteor.one_program():
        assert not started
        assert [meteor.meteor_of([text], [["b"]]) for text in ("a", "c")] == [0.5, 0.5]
        assert len(started) == 1 and started[0]._process.poll() is None
        with pytest.raises(RunFailedError):
            meteor.meteor_of(["DIE"], [["b"]])
        assert meteor.meteor_of(["a"], [["b"]]) == 0.5 and len(started) == 2
    assert all(program._process.poll() is not None for program in started)
    assert meteor.meteor_of(["a"], [["b"]]) == 0.5 and len(started) == 3


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("written", "said"), [("DIE", "it ended.*\n.*out of memory"), ("WRONG", "Error: specify hypothesis")]
)
def test_a_failure_is_told_with_the_programs_last_words(written: str, said: str) -> None:
    with pytest.raises(RunFailedError, match=rf"(?s)METEOR: its Java program failed: {said}"):
        meteor.meteor_of(["a", written], [["b"], ["c"]])


@pytest.mark.usefixtures("stand_in")
def test_the_process_ends_with_the_block_however_it_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meteor, "CLOSE_S", 0.1)
    with pytest.raises(KeyboardInterrupt), Meteor() as waiting:
        waiting._write(["SCORE ||| WAIT"])
        raise KeyboardInterrupt
    assert waiting._process.poll() is not None


def test_the_process_outlives_neither_ctrl_c_nor_a_kill(tmp_path: Path) -> None:
    """It is in a session of its own, so that Ctrl-C reaches this program alone; it ends as its input is closed."""
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib, sys, time\nfrom lora_repro.tasks.text_metrics import tools\n"
        "from lora_repro.tasks.text_metrics.meteor import Meteor\n"
        "tools.jar = lambda program: pathlib.Path(sys.argv[1]) / program.name\n"
        f"tools.command = lambda arguments, what: [sys.executable, '-c', {STAND_IN!r}]\n"
        "program = Meteor()\nprint(program._process.pid, flush=True)\ntime.sleep(600)\n"
    )
    started = subprocess.Popen([sys.executable, script, tmp_path], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    with started.stdout:
        child = int(started.stdout.readline())
        assert os.getsid(child) == child != os.getsid(0)
        started.send_signal(signal.SIGKILL)
        started.wait()
    end = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and time.monotonic() < end:
        state = Path(f"/proc/{child}/stat").read_text().rpartition(") ")[2][:1]
        if state == "Z":  # ended; its new parent has not asked for it yet
            break
        time.sleep(0.02)
    else:
        assert not Path(f"/proc/{child}").exists()
