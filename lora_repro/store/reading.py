"""Reads the small files of a record. Whatever has their names, reading never hangs or fills the memory. No torch."""

import json
import math
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

MOST_BYTES = 32 * 2**20
"""Of a file of JSON or YAML; result.json of GPT-3's 192 matrices has 30 kB."""
MOST_LINES_BYTES = 2**30
"""Of metrics.jsonl: five million lines."""
CHUNK = 2**20
"""Bytes that are read at once of a file that is longer than it says."""
DEEPEST = 32
"""Levels of JSON; a result has five."""

KINDS: list[tuple[Callable[[int], bool], str]] = [
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
]


class NoFileError(ValueError):
    """What has a file's name is not a file."""


class Lines(NamedTuple):
    """What metrics.jsonl holds."""

    rows: list[dict[str, Any]]
    broken: list[int]
    """Numbers, from 1, of lines that hold no row."""


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Reads a file of at most `most` bytes.

    Raises:
        OSError: If it is not there, or cannot be read.
        ValueError: If it is not a file (NoFileError), or is larger.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe does not wait for its other end
    except OSError:
        if path.is_socket():
            raise NoFileError("it is a socket, no file") from None
        raise
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            what = next((name for is_kind, name in KINDS if is_kind(about.st_mode)), "a device")
            raise NoFileError(f"it is {what}, no file")
        content = os.read(descriptor, min(about.st_size, most) + 1)
        while len(content) <= most and (more := os.read(descriptor, CHUNK)):  # it grows, or its size is not told
            content += more
    finally:
        os.close(descriptor)
    if len(content) > most:
        raise ValueError(f"it is larger than {most // 2**20} MiB")
    return content


def read_json(path: Path) -> Any:
    """Reads a file of JSON: with finite numbers, no key of two values in an object, and no deeper than DEEPEST.

    Raises:
        OSError: If it is not there, or cannot be read.
        ValueError: If it holds something else.
    """
    return parse_json(read_bytes(path))


def parse_json(content: bytes) -> Any:
    """Reads JSON as `read_json` does.

    Raises:
        ValueError: If it is something else.
    """
    try:
        text = content.decode()
        value = _STRICT.decode(text)
        if not _HALVES.search(text) and not _is_deeper(value, DEEPEST):
            return value
    except (ValueError, RecursionError):
        pass  # what is wrong is said below, if it is wrong
    value = parse_foreign_json(content, _refuse_constant)
    _refuse_strange(value, DEEPEST)
    return value


def parse_foreign_json(content: bytes, constant: Callable[[str], Any] | None = None) -> Any:
    """Reads JSON that others wrote, which may hold numbers of any size: no key has two values in an object.

    Args:
        content: The JSON.
        constant: What NaN, Infinity and -Infinity become, or what refuses them; None: numbers.

    Raises:
        ValueError: If it is something else, or nested too deeply.
    """
    try:
        return json.loads(content.decode(), parse_constant=constant, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels") from None


def read_lines(path: Path) -> Lines:
    """Reads metrics.jsonl, whose rows are objects with a step.

    Raises:
        OSError: If it is not there, or cannot be read.
        ValueError: If it is no file, or too large.
    """
    rows, broken = [], []
    for number, line in enumerate(read_bytes(path, MOST_LINES_BYTES).splitlines(), 1):
        try:
            row = parse_json(line)
        except ValueError:
            row = None
        if isinstance(row, dict) and is_count(row.get("step")) and is_number(row.get("loss", 0.0)):
            rows.append(row)
        else:
            broken.append(number)
    return Lines(rows, broken)


def is_count(value: object) -> bool:
    """Tells whether a value is a whole number, 0 or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_number(value: object) -> bool:
    """Tells whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    whole = dict(pairs)
    if len(whole) == len(pairs):
        return whole
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found and found[key] != value:
            raise ValueError(f"it holds {key[:80]!r} twice")
        found[key] = value
    return found


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"it holds {constant}, a number that is not finite")


def _refuse_strange(value: Any, levels: int) -> None:
    """Refuses what JSON allows and what breaks a reader later: depth, large numbers, lone halves of characters."""
    if isinstance(value, dict | list):
        if not levels:
            raise ValueError(f"it is nested deeper than {DEEPEST} levels")
        for item in [*value, *value.values()] if isinstance(value, dict) else value:
            _refuse_strange(item, levels - 1)
    elif isinstance(value, str):
        value.encode()  # "\ud800" alone is no text, and cannot be printed
    elif isinstance(value, int) and value.bit_length() > 63:
        raise ValueError("it holds a whole number of more than 64 bits")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("it holds a number that is not finite")


def _is_deeper(value: Any, levels: int) -> bool:
    """Tells whether a value is nested deeper than so many levels."""
    inner = [value] if isinstance(value, dict | list) else []
    for _ in range(levels + 1):
        if not inner:
            return False
        inner = [
            item
            for each in inner
            for item in (each.values() if type(each) is dict else each)
            if type(item) is dict or type(item) is list
        ]
    return True


def _whole_number(digits: str) -> int:
    if len(digits) > 18:
        raise ValueError("it may have more than 64 bits")
    return int(digits)


def _finite_number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("it is not finite")
    return value


_STRICT = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_whole_number, parse_float=_finite_number, parse_constant=_refuse_constant
)
"""Reads in a fraction of the time that it takes to look at every value, and to say what is wrong with it. It refuses
some values that are right, but lets none pass that is wrong, apart from lone halves of characters and from depth."""

_HALVES = re.compile(r"\\u[dD]")
"""How JSON writes halves of characters."""
