"""Differences between two runs become text: pure functions."""

import json
from collections.abc import Sequence
from typing import Any

from analysis.diff import Difference, Kind, Recorded
from analysis.render.lines import aligned

REASONS = {
    "threads": "products are summed in another order",
    "device_class": "other hardware sums and rounds in another order",
    "settings": "a variable of the environment chose other kernels, which round in another way",
    "bf16": "products are rounded in another way",
    "versions": "another version may sum, draw or tokenise in another way",
    "commit": "the code may be another",
    "machines_before": "one of them was begun on another machine",
    "dirty": "one of them ran code that no commit holds",
}
"""What a difference in provenance does to numbers, the likeliest first."""

OTHERWISE = "which may change numbers"


def verdict(first: Recorded, second: Recorded, found: list[Difference]) -> str:
    """Says in a sentence whether two runs are equal, or what differs first and why, as far as the record tells."""
    science = ", ".join(f"{d.key} {word(d.first)} | {word(d.second)}" for d in found if d.kind is Kind.science)
    changes = sorted((d for d in found if d.kind is Kind.provenance), key=_likelihood)
    changed = ", ".join(f"{d.key} ({word(d.first)}, {word(d.second)})" for d in changes)
    result = next((d.key for d in found if d.kind is Kind.result), None)
    if science:
        return f"Other runs: {science}{f'; they differ in {changed} too' if changed else ''}."
    if result is None:
        return f"Bit-equal: {_equal(first, second)}{f', although they differ in {changed}' if changed else ''}."
    if changes:
        return f"They differ in {changed}: {REASONS.get(_cause(changes[0]), OTHERWISE)}; first seen in {result}."
    if first.result.get("provenance", {}).get("dirty"):
        return f"They differ first in {result}, and both ran code that no commit holds: it may not be the same code."
    return (
        f"They differ first in {result}, and nothing recorded says why: the same command, machine and threads should "
        "give the same bits. Compute one again in another store (paths.outputs=DIR) and compare."
    )


def markdown(names: Sequence[str], found: list[Difference], sentence: str) -> str:
    """Writes the differences as Markdown: one table, the circumstances apart, the sentence last."""
    parts = [f"{names[0]} | {names[1]}"]
    for title, kinds in (("", set(Kind) - {Kind.circumstance}), ("Not of results:", {Kind.circumstance})):
        lines = [[d.key, word(d.first, d.kind), _second(d)] for d in found if d.kind in kinds]
        if lines:
            parts += [*([title] if title else []), "\n".join(aligned([["key", "first", "second"], *lines]))]
    return "\n\n".join([*parts, sentence])


def to_json(found: list[Difference]) -> str:
    """Writes the differences as a list of objects."""
    return json.dumps([{**d._asdict(), "kind": d.kind.value} for d in found], indent=1)


def word(value: Any, kind: Kind | None = None) -> str:
    """Writes a value as the command line does; what a result lacks is blank."""
    if value is None:
        return "" if kind in (Kind.result, Kind.circumstance) else "null"
    if isinstance(value, list):
        return f"[{', '.join(map(word, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _second(difference: Difference) -> str:
    """Writes the second value; a distance between the two runs in two digits."""
    if difference.first is None and isinstance(difference.second, float):
        return f"{difference.second:.2g}"
    return word(difference.second, difference.kind)


def _equal(first: Recorded, second: Recorded) -> str:
    """Names what was compared and found equal, and what could not be compared."""
    files = {
        "predictions": first.predictions is not None and second.predictions is not None,
        "weights": first.tensors is not None and second.tensors is not None,
    }
    *some, last = ["metrics", *(name for name, kept in files.items() if kept)]
    missing = " and ".join(name for name, kept in files.items() if not kept)
    equal = f"{', '.join(some)} and {last}" if some else last
    return f"{equal} ({missing} not kept by both)" if missing else equal


def _cause(difference: Difference) -> str:
    return difference.key.partition(".")[0]


def _likelihood(difference: Difference) -> int:
    causes = list(REASONS)
    return causes.index(_cause(difference)) if _cause(difference) in causes else len(causes)
