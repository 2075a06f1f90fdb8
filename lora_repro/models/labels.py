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

    `LABEL_0` and `0` are the task's first label, at whatever output.

    Args:
        found: What the checkpoint calls the outputs of its head.
        names: What the task calls its labels.
    """
    numbers = [re.fullmatch(r"(?:label|class)?(\d+)", _plain(name)) for name in found]
    theirs: list[Any] = [int(number[1]) for number in numbers if number is not None]
    ours: list[Any] = list(range(len(names)))
    if len(theirs) != len(found):
        theirs, ours = [_plain(name) for name in found], [_plain(name) for name in names]
    if len(set(theirs)) != len(theirs) or set(theirs) != set(ours):
        return None
    return [theirs.index(name) for name in ours]


def _plain(name: str) -> str:
    plain = re.sub(r"[\W_]+", "", name.casefold())
    return _NAME.get(plain, plain)
