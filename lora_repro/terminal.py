"""What goes to a terminal: no text from a file moves the cursor, changes colours, hides or turns what is written.

Names of folders and tensors, words of other processes and settings of foreign files are printed in many places, so it
is the streams that are watched: whatever a command writes passes here once. No torch.
"""

import re
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

_HARMFUL = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of Unicode: controls, marks of direction and such, halves of characters, separators of lines."""

_BETWEEN_BARS = re.compile(r"\n*(?:\x1b\[A)+")
"""What tqdm writes to go from one of several bars to another: lines down, and up."""


def cleaned(text: str) -> str:
    """Writes what a terminal would obey, and what nobody would see, as a program would spell it."""
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
    """A stream of text whose writes are cleaned; all else is the stream's own."""

    def __init__(self, stream: _Writes) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes a text, cleaned; a progress bar may go back to the beginning of its line."""
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
        """Asks the stream."""
        return getattr(self._stream, name)


@contextmanager
def clean_streams() -> Iterator[None]:
    """Cleans what is written to stdout and stderr inside."""
    before = sys.stdout, sys.stderr
    sys.stdout = CleanStream(sys.stdout)  # pyright: ignore[reportAttributeAccessIssue]
    sys.stderr = CleanStream(sys.stderr)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
