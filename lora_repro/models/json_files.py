"""The JSON files of a model's folder, and the message when one cannot be read. No torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lora_repro.errors import MissingInputError
from lora_repro.store.reading import parse_foreign_json


def read_keys(path: Path, parse: Callable[[bytes], Any] = parse_foreign_json) -> dict[str, Any]:
    """Reads a file of JSON that holds keys and values.

    Raises:
        MissingInputError: If it cannot be read, is no JSON, is nested too deeply, or holds something else.
    """
    try:
        found = parse(path.read_bytes())
    except OSError as error:
        raise MissingInputError(unreadable(path, error)) from None
    except ValueError as error:
        raise MissingInputError(f"{path} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise MissingInputError(f"{path} is not a JSON object (found: {str(found)[:80]})")
    return found


def unreadable(path: Path, error: OSError) -> str:
    """Says that a file or folder cannot be read, and why the system refuses."""
    return f"{error.filename or path} cannot be read: {error.strerror or error}"
