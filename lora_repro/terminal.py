"""What goes to a terminal: text that cannot control it, and the progress of long loops. No torch.

Names of folders and tensors, other processes' output and settings of foreign files are printed in many places. Control
characters in them could move the cursor, change colours or hide text. So the streams are wrapped once, and every
command writes through them.
"""

import re
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, runtime_checkable

from tqdm import tqdm

EVERY_S = 10.0
"""Seconds between two lines of progress, where stderr is no terminal."""

Step = TypeVar("Step")

_HARMFUL = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories that are escaped: control characters, text direction marks, lone surrogates, line separators."""

_BETWEEN_BARS = re.compile(r"\n*(?:\x1b\[A)+")
"""How tqdm moves between several bars: newlines, then cursor up."""


def cleaned(text: str) -> str:
    """Escapes control characters and invisible characters; newlines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _HARMFUL and c not in "\n\t" else c
        for c in text
    )


@runtime_checkable
class _Writes(Protocol):
    def write(self, text: str, /) -> int: ...


class CleanStream:
    """Wraps a text stream and cleans what is written; everything else is passed on to the stream."""

    def __init__(self, stream: _Writes) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes a text, cleaned; a progress bar may return to the beginning of its line."""
        if _BETWEEN_BARS.fullmatch(text):
            return self._stream.write(text)
        begins = "\r" if text.startswith("\r") else ""
        self._stream.write(begins + cleaned(text.removeprefix("\r")))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Writes several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        """Passes everything else on to the stream."""
        return getattr(self._stream, name)


@contextmanager
def clean_streams() -> Iterator[None]:
    """Cleans what is written to stdout and stderr in the block."""
    before = sys.stdout, sys.stderr
    sys.stdout = CleanStream(sys.stdout)  # pyright: ignore[reportAttributeAccessIssue]
    sys.stderr = CleanStream(sys.stderr)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def progress(steps: Iterable[Step], what: str, total: int) -> Iterator[Step]:
    """Yields the steps of a loop and shows progress on stderr: a bar on a terminal, elsewhere a line every 10 s.

    Args:
        steps: What is looped over.
        what: What the loop does, as in "drawing untrained A".
        total: How many steps there are.
    """
    if sys.stderr.isatty():
        yield from tqdm(steps, desc=what, total=total, leave=False)
        return
    printed = time.monotonic()
    for done, step in enumerate(steps):
        if time.monotonic() - printed > EVERY_S:
            printed = time.monotonic()
            print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)
        yield step
