"""METEOR 1.5 (Denkowski and Lavie 2014) by its own program, in one Java process that ends with the block."""

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import IO

from lora_repro.errors import RunFailedError
from lora_repro.tasks.text_metrics import tools
from lora_repro.tasks.text_metrics.given import in_one_line

SEPARATOR = "|||"
AT_ONCE = 100
"""Examples that are sent before answers are read. Their answers must fit into a pipe (64 KiB), or both sides wait."""
CLOSE_S = 10
"""Seconds that the process has to end by itself."""


def meteor_of(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns METEOR of tokenised texts, from 0 to 1: of all together, not the mean over them.

    Args:
        predictions: Words between spaces.
        references: For each the texts of which the nearest counts, likewise.

    Raises:
        MissingInputError: If Java or pycocoevalcap is missing.
        RunFailedError: If the program fails.
    """
    if _block is None:
        with Meteor() as program:
            return program.score(predictions, references)
    if not _block:
        _block.append(Meteor())
    try:
        return _block[0].score(predictions, references)
    except BaseException:
        _block.pop().close()  # what it says next may belong to this question
        raise


_block: "list[Meteor] | None" = None
"""The program of a block of `one_program`, once it was asked; None outside of one."""


@contextmanager
def one_program() -> Iterator[None]:
    """Lets one process compute all scores of a block: each takes seconds to read its table of paraphrases."""
    global _block
    if _block is not None:
        yield
        return
    _block = []
    try:
        yield
    finally:
        for program in _block:
            program.close()
        _block = None


class Meteor:
    """The program, started with English, the paraphrase table and normalised punctuation (`-l en -norm`).

    It runs in a session of its own, so that Ctrl-C asks this process to end and does not end that one first. It ends
    when its input is closed, which happens too if this process is killed.
    """

    def __init__(self) -> None:
        jar = tools.jar(tools.METEOR)
        arguments = ["-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close(); a pipe could fill up
        self._process = subprocess.Popen(
            tools.command(arguments, "METEOR"), cwd=jar.parent, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip

    def __enter__(self) -> "Meteor":
        """Returns itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Ends the process."""
        self.close()

    def close(self) -> None:
        """Ends the process, by force if it does not end by itself."""
        process = self._process
        with suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        try:
            process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            if process.stdout is not None:
                process.stdout.close()
            self._errors.close()

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
        """Returns METEOR of all texts together.

        Raises:
            RunFailedError: If the program fails.
        """
        statistics: list[str] = []
        for first in range(0, len(predictions), AT_ONCE):
            chosen = slice(first, first + AT_ONCE)
            pairs = list(zip(predictions[chosen], references[chosen], strict=True))
            self._write([" ||| ".join(["SCORE", *map(_part, texts), _part(text)]) for text, texts in pairs])
            statistics += [self._read() for _ in pairs]
        self._write([" ||| ".join(["EVAL", *statistics])])
        *_, score = [self._number() for _ in range(len(statistics) + 1)]  # of each text, and then of all
        return score

    def _write(self, lines: Sequence[str]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("".join(f"{line}\n" for line in lines).encode(errors="replace"))
            self._process.stdin.flush()
        except OSError as error:
            raise self._failed("it takes no more input") from error

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode(errors="replace").strip()
        if not line or line.startswith("Error"):
            raise self._failed(line or "it ended")
        return line

    def _number(self) -> float:
        line = self._read()
        try:
            return float(line)
        except ValueError as error:
            raise self._failed(f"it says {line[:80]!r}, where a number is due") from error

    def _failed(self, what: str) -> RunFailedError:
        """Returns the error, with the program's last words."""
        code = self._process.poll()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()[-5:]
        ended = "" if code is None else f" (exit code {code})"
        return RunFailedError("\n".join([f"METEOR: its Java program failed: {what}{ended}.", *said]))


def _part(text: str) -> str:
    """Returns a text that neither ends the line nor the part of it."""
    return in_one_line(text).replace(SEPARATOR, "")
