"""What a foreign file says reaches the terminal as text: both programs, both streams, words of Hydra's log too."""

import io
import json
import logging
import sys
from pathlib import Path

import tqdm
from helpers.commands import call
from helpers.fixture_types import Captured
from helpers.handmade_adapters import factors, write_peft
from helpers.handmade_runs import job, write_status

from lora_repro.cli import guard
from lora_repro.errors import InputError
from lora_repro.terminal import CleanStream, cleaned

HARM = "\x1b[2J\x1b]0;title\x07\r\u202e\x9b31m\u200b\x00"


def harmless(text: str) -> bool:
    return not any(c in text for c in HARM if not c.isalnum() and c not in "[];")


def test_cleaned_text_shows_what_it_was_and_keeps_lines_and_letters() -> None:
    assert cleaned("a\x1b[2J\n\tb\u202e\r") == "a\\x1b[2J\n\tb\\u202e\\r"
    kept = "plain, \u00e4\u4f60\u00a0\U0001f600 \u2014 \u00b1\n"
    assert cleaned(kept) == kept and cleaned("\ud800") == "\\ud800"


def test_whatever_a_command_writes_is_cleaned(capsys: Captured) -> None:
    def command() -> None:
        print(HARM)
        print(HARM, file=sys.stderr)
        handler = logging.StreamHandler(sys.stdout)
        handler.emit(logging.LogRecord("x", logging.INFO, "x", 1, HARM, None, None))
        raise InputError(HARM)

    before = sys.stdout, sys.stderr
    assert guard(command) == 1 and (sys.stdout, sys.stderr) == before
    out, err = capsys.readouterr()
    assert harmless(out) and harmless(err) and out.count("\\x1b[2J") == 2 and err.count("\\x1b[2J") == 2


def test_progress_bars_still_move() -> None:
    plain, through = io.StringIO(), io.StringIO()
    for stream in (plain, CleanStream(through)):
        for position in (0, 1):
            for _ in tqdm.tqdm(range(2), position=position, file=stream, bar_format="{n_fmt} {desc}", mininterval=0):
                pass
    assert "\r" in plain.getvalue() and "\x1b[A" in plain.getvalue()
    assert through.getvalue() == plain.getvalue()


def test_records_folders_and_adapters_that_mean_harm_are_told_as_text(tmp_path: Path, capsys: Captured) -> None:
    store = tmp_path / f"store{HARM[:-1].replace('/', '')}"
    write_status(store, job("q", 1, 0), "failed", f"RuntimeError: {HARM}")
    adapter = write_peft(tmp_path / f"a{HARM[:-1]}", factors(r=2, seed=0))
    other = write_peft(tmp_path / "b", factors(r=2, seed=0))
    config = other / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"peft_type": HARM}))
    for arguments in (
        ("status", "+sweeps=table6", "scale=smoke", "--runs", store),
        ("plan", "+sweeps=table6", "scale=smoke", "--runs", store),
        ("table", "6", "--scale", "smoke", "--runs", store),
        ("inspect", adapter),
        ("compare", adapter, adapter),
        ("inspect", other),
        ("inspect", tmp_path / HARM[:-1]),
        ("inspect", adapter, "--layers", HARM),
        ("inspect", adapter, f"--{HARM}"),
        ("diff", HARM, HARM, "--runs", store),
    ):
        _, out, err = call(capsys, *arguments)
        assert out + err and harmless(out) and harmless(err), arguments
