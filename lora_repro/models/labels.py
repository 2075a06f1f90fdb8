"""The order of a checkpoint's labels: its head may count them in another way than the task. No torch."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

SPELLINGS = {
    "negative": ("neg", "bad"),
    "positive": ("pos", "good"),
    "entailment": ("entail", "entailed", "entails"),
    "contradiction": ("contradict", "contradictory", "contradicts"),
    "notentailment": ("nonentailment",),
}
"""Other spellings of a label's name, in small letters without marks."""
_NAME = {spelt: name for name, others in SPELLINGS.items() for spelt in others}


def names_in(id2label: object) -> list[str] | None:
    """Returns the names that config.json gives to the outputs of its head, from the first on; None if it gives none."""
    if not isinstance(id2label, Mapping):
        return None
    found = {str(key): str(name) for key, name in id2label.items()}
    if not found or found.keys() != {str(index) for index in range(len(found))}:
        return None
    return [found[str(index)] for index in range(len(found))]


def order(found: Sequence[str], names: Sequence[str]) -> list[int] | None:
    """Returns for each label of the task its output in the head; None if they cannot be matched by name.

    `LABEL_0` and `0` are the task's first label, at whatever output, unless the task's own labels are such numbers.

    Args:
        found: What the checkpoint calls the outputs of its head.
        names: What the task calls its labels.
    """
    matched = order_by_name(found, names)
    numbers = _numbers(found) if matched is None else None
    return matched if numbers is None else _order(numbers, range(len(names)))


def order_by_name(found: Sequence[str], names: Sequence[str]) -> list[int] | None:
    """Returns what `order` does for names alone: of a number only the same number is the same label."""
    exact = _order(found, names)
    return exact if exact is not None else _order([*map(_plain, found)], [*map(_plain, names)])


def are_named(found: Sequence[str] | None, names: Sequence[str]) -> bool:
    """Tells whether a checkpoint's labels are the task's by what they are called, and not by their numbers alone."""
    if found is None:
        return False
    numbers = _numbers(found)
    return order_by_name(found, names) is not None or (numbers is not None and numbers == _numbers(names))


def _order(theirs: Sequence[Any], ours: Sequence[Any]) -> list[int] | None:
    """Returns where each of ours stands among theirs; None if they are not the same, each once."""
    is_same = len(theirs) == len(ours) == len(set(theirs)) and set(theirs) == set(ours)
    return [theirs.index(each) for each in ours] if is_same else None


def _numbers(names: Sequence[str]) -> list[int] | None:
    """Returns the numbers that labels are called by, `LABEL_0` or `0`; None if one has a name."""
    found = [re.fullmatch(r"(?:label|class)?(\d+)", _plain(name)) for name in names]
    numbers = [int(number[1]) for number in found if number is not None]
    return numbers if len(numbers) == len(names) else None


def _plain(name: str) -> str:
    plain = re.sub(r"[\W_]+", "", name.casefold())
    return _NAME.get(plain, plain)
