"""Reading JSON quickly finds what reading it slowly finds, and says the same of what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_repro.store import reading
from lora_repro.store.reading import DEEPEST, parse_foreign_json, parse_json, read_bytes

RESULT = json.dumps(
    {"schema": 1, "config": {"lr": 1e-3, "words": [" no", " yes"], "n": 9223372036854775807}, "metrics": {"a/b": 0.5}}
)


def nested(levels: int, start: str = "[", end: str = "]") -> str:
    return start * levels + end * levels


TEXTS = [
    RESULT,
    *(RESULT[:cut] for cut in range(0, len(RESULT), 7)),
    RESULT + "}",
    "\ufeff" + RESULT,
    *(RESULT.replace("0.5", number) for number in ("NaN", "-Infinity", "1e999", "-1E+0400", "1e308", "5e-324", "01")),
    *(RESULT.replace("0.5", number) for number in ("1" + 400 * "0" + ".0", "0." + 400 * "9", "1e-999", "-0.0", "-0")),
    *(
        RESULT.replace('"schema": 1', f'"schema": {n}')
        for n in (2**63 - 1, -(2**63) + 1, 2**63, -(2**63), 10**18, 10**30)
    ),
    *(RESULT.replace('"schema": 1', f'"schema": {n}') for n in ("1" * 5000, "1.0", "true", "null", "1, 2")),
    '{"a": 1, "a": 1}',
    '{"a": 1, "a": 2}',
    '{"a": 1, "a": true}',
    '{"a": 1, "b": 1, "b": 2, "a": 3}',
    '{"x": {"a": [], "a": {}}, "y": NaN}',
    '{"a": 1, "a": 2, "b": 1e999, "c":',
    '["\\ud83d\\ude00", "\\u00e9", "é", "\\\\ud800"]',
    '["\\ud800"]',
    '{"\\uDC00": 1}',
    *(nested(levels) for levels in (1, DEEPEST - 1, DEEPEST, DEEPEST + 1, 100_000)),
    *(nested(levels, '{"a":', "}").replace(":}", ":[]}") for levels in (DEEPEST - 1, DEEPEST)),
    "0",
    '"text"',
    "",
]


def outcome(parse: Any, content: bytes) -> str:
    try:
        return repr(parse(content))
    except (ValueError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"


def slowly(content: bytes) -> Any:
    value = parse_foreign_json(content, reading._refuse_constant)
    reading._refuse_strange(value, DEEPEST)
    return value


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_quick_reading_finds_and_refuses_what_slow_reading_does(text: str) -> None:
    assert outcome(parse_json, text.encode()) == outcome(slowly, text.encode())


def test_bytes_that_are_no_text_are_refused_alike() -> None:
    assert outcome(parse_json, b'{"a": "\xff"}') == outcome(slowly, b'{"a": "\xff"}')


def test_a_result_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(value: Any, levels: int) -> None:
        raise AssertionError("looked at each value")

    monkeypatch.setattr(reading, "_refuse_strange", refused)
    assert parse_json(RESULT.replace("9223372036854775807", "7").encode())["schema"] == 1


@pytest.mark.parametrize("size", [0, 1, 10, 2**20, 2**20 + 1])
def test_a_file_is_read_to_its_end_also_where_its_size_is_not_told(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, content = tmp_path / "file", bytes(index % 251 for index in range(size))
    path.write_bytes(content)
    assert read_bytes(path) == content
    monkeypatch.setattr(reading.os, "read", _in_small_parts(reading.os.read))
    assert read_bytes(path, 2**21) == content
    if size:
        with pytest.raises(ValueError, match="larger than"):
            read_bytes(path, size - 1)
    assert read_bytes(Path("/proc/self/stat")).startswith(b"%d " % reading.os.getpid())  # which says that it is empty


def _in_small_parts(read: Any) -> Any:
    return lambda descriptor, most: read(descriptor, min(most, 65_536))
