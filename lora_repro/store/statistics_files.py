"""Statistics of the weights of a store's runs: one small JSON file a sweep, `statistics/NAME.json`. No torch.

They outlive the weights: a ledger keeps the files of its runs, so the numbers are read where no weights are. A file is
one object; its `run_ids` are the runs that its numbers are made of.
"""

import base64
import json
import re
import zlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from lora_repro.errors import InputError
from lora_repro.store import files
from lora_repro.store.reading import parse_json, read_json

FOLDER = "statistics"
SUFFIX = ".json"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")
MOST_BYTES = 2**26
"""Of all files of a ledger; those of Section 7 on two models have 2 MB."""


def path_of(store: str | Path, name: str) -> Path:
    """Returns where a store keeps the statistics of this name.

    Raises:
        InputError: If no file has such a name.
    """
    if NAME.fullmatch(name) is None:
        raise InputError(f"{name[:80]!r} is no name of statistics: it has small letters, digits, - and _.")
    return Path(store) / FOLDER / f"{name}{SUFFIX}"


def write(store: str | Path, name: str, found: Mapping[str, Any]) -> Path:
    """Writes statistics, atomically, and returns the file.

    Args:
        store: The folder that holds runs/.
        name: Of the file.
        found: What JSON can hold; `run_ids` are its runs.

    Raises:
        OSError: If it cannot be written.
    """
    path = path_of(store, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path, as_text(found))
    return path


def as_text(found: Mapping[str, Any]) -> str:
    """Returns the text of a file."""
    return json.dumps(found, indent=1, allow_nan=False) + "\n"


def read(store: str | Path, name: str) -> dict[str, Any]:
    """Returns statistics of a store; an empty object where there is no such file, or it is damaged."""
    return _parsed(path_of(store, name))


def collect(store: str | Path, run_ids: Collection[str]) -> dict[str, str]:
    """Returns the text of each file that is made of one of these runs, by its name."""
    found = {}
    for path in sorted((Path(store) / FOLDER).glob(f"*{SUFFIX}")):
        if NAME.fullmatch(path.stem) and not set(run_ids).isdisjoint(_parsed(path).get("run_ids", [])):
            found[path.stem] = path.read_text()
    return found


def texts_of(store: str | Path, names: Iterable[str]) -> dict[str, str]:
    """Returns the text of those of some files that a store has, by name.

    Raises:
        InputError: If a name is none.
    """
    return {name: path.read_text() for name in names if (path := path_of(store, name)).is_file()}


def restore(texts: Mapping[str, str], store: str | Path) -> list[str]:
    """Writes files that a store does not have or has with another text, and returns their names.

    Raises:
        InputError: If a name is none.
        OSError: If they cannot be written.
    """
    held = texts_of(store, texts)
    changed = {name: text for name, text in texts.items() if held.get(name) != text}
    for name, text in changed.items():
        path = path_of(store, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, text)
    return list(changed)


def pack(texts: Mapping[str, str]) -> bytes:
    """Returns files as a line of text that a ledger's metadata can hold."""
    return base64.b85encode(zlib.compress(json.dumps(dict(sorted(texts.items()))).encode(), 9))


def unpack(packed: bytes) -> dict[str, str]:
    """Returns the files of `pack`.

    Raises:
        ValueError: If it holds something else.
    """
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(base64.b85decode(packed), MOST_BYTES)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    found = parse_json(text) if not inflate.unconsumed_tail else None
    if not isinstance(found, dict) or not found or not all(isinstance(each, str) for each in found.values()):
        raise ValueError("it holds no files, or too long ones")
    return found


def _parsed(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
