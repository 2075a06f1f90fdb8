"""Reads the fields of JSON objects, and says where one is missing or of another kind. No torch."""

from typing import Any

from lora_repro.errors import InputError, shown

KINDS: dict[type, str] = {str: "a text", list: "a list", dict: "an object"}


def field(owner: Any, key: str, kind: type, place: str) -> Any:
    """Returns a field of an object.

    Args:
        owner: The object.
        key: The field.
        kind: str, list or dict.
        place: Where the object stands, for messages.

    Raises:
        InputError: If the owner is no object, has no such field, or one of another kind.
    """
    if not isinstance(owner, dict):
        raise InputError(f"{place}: must be an object with {key!r} (found: {shown(owner)}).")
    if key not in owner:
        raise InputError(f"{place}: there is no {key!r} (found: {shown(', '.join(map(str, owner)) or 'nothing')}).")
    value = owner[key]
    if not isinstance(value, kind):
        raise InputError(f"{place}: {key!r} must be {KINDS[kind]} (found: {shown(value)}).")
    return value


def top(value: Any, name: str) -> list[Any]:
    """Returns the list that a file holds.

    Raises:
        InputError: If it holds something else, or the list is empty.
    """
    if not isinstance(value, list) or not value:
        raise InputError(f"{name}: must hold a list of entries (found: {shown(value)}).")
    return value


def triple(value: Any, place: str) -> tuple[str, str, str]:
    """Returns three texts.

    Raises:
        InputError: If there are not three, or one is empty or no text.
    """
    parts = value if isinstance(value, list | tuple) else []
    if len(parts) != 3 or not all(isinstance(part, str) and part.strip() for part in parts):
        raise InputError(f"{place}: must be a subject, a property and an object (found: {shown(value)}).")
    return parts[0], parts[1], parts[2]
