"""Differences between two runs become text: pure functions."""

from collections.abc import Sequence
from typing import Any

from analysis.diff import Difference, Kind, Recorded
from analysis.render import lines

REASONS = {
    "numerics_version": "the code computes in another way",
    "threads": "products are summed in another order",
    "device_class": "other hardware sums and rounds in another order",
    "settings": "a variable of the environment chose other kernels, which round in another way",
    "bf16": "products are rounded in another way",
    "compiled": "compiled blocks round less often",
    "versions": "another version may sum, draw or tokenise in another way",
    "commit": "the code may differ",
    "machines_before": "one of them was begun on another machine",
    "dirty": "one of them ran code that no commit holds",
}
"""Why a difference in provenance changes numbers, the likeliest first."""

OTHERWISE = "which may change numbers"


def verdict(first: Recorded, second: Recorded, found: list[Difference]) -> str:
    """Says in a sentence whether two runs are equal, or what differs first and why, as far as the record says."""
    configuration = ", ".join(
        f"{d.key} {value_text(d.first)} | {value_text(d.second)}" for d in found if d.kind is Kind.configuration
    )
    changes = sorted((d for d in found if d.kind is Kind.provenance), key=_likelihood)
    changed = ", ".join(f"{d.key} ({value_text(d.first)}, {value_text(d.second)})" for d in changes)
    result = next((d.key for d in found if d.kind is Kind.result), None)
    if configuration:
        return f"Different configurations: {configuration}{f'; they differ in {changed} too' if changed else ''}."
    if result is None:
        return f"Bit-equal: {_equal(first, second)}{f', although they differ in {changed}' if changed else ''}."
    if changes:
        return f"They differ in {changed}: {REASONS.get(_cause(changes[0]), OTHERWISE)}; first seen in {result}."
    if first.result.get("provenance", {}).get("dirty"):
        return f"They differ first in {result}, and both ran code that no commit holds: the code may differ."
    return (
        f"They differ first in {result}, and nothing recorded says why: the same command, machine and threads should "
        "give the same bits. Compute one again in another store (paths.outputs=DIR) and compare."
    )


def markdown(names: Sequence[str], found: list[Difference], sentence: str) -> str:
    """Writes the differences as Markdown: one table, times and memory in another, the sentence last."""
    parts = [f"{names[0]} | {names[1]}"]
    for title, kinds in (("", set(Kind) - {Kind.other}), ("Times and memory:", {Kind.other})):
        rows = [[d.key, value_text(d.first, d.kind), _second(d)] for d in found if d.kind in kinds]
        if rows:
            parts += [*([title] if title else []), "\n".join(lines.aligned([["key", "first", "second"], *rows]))]
    return "\n\n".join([*parts, sentence])


def to_json(found: list[Difference]) -> str:
    """Writes the differences as a list of objects."""
    return lines.to_json({**d._asdict(), "kind": d.kind.value} for d in found)


def value_text(value: Any, kind: Kind | None = None) -> str:
    """Writes a value as the command line does; blank if a result has none."""
    if value is None:
        return "" if kind in (Kind.result, Kind.other) else "null"
    if isinstance(value, list):
        return f"[{', '.join(map(value_text, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _second(difference: Difference) -> str:
    """Writes the second value; a distance between the two runs in two digits."""
    if difference.first is None and isinstance(difference.second, float):
        return f"{difference.second:.2g}"
    return value_text(difference.second, difference.kind)


def _equal(first: Recorded, second: Recorded) -> str:
    """Names what was compared and found equal, and what could not be compared."""
    files = {
        "predictions": first.predictions is not None and second.predictions is not None,
        "weights": first.tensors is not None and second.tensors is not None,
    }
    *some, last = ["metrics", *(name for name, in_both in files.items() if in_both)]
    missing = " and ".join(name for name, in_both in files.items() if not in_both)
    equal = f"{', '.join(some)} and {last}" if some else last
    return f"{equal} ({missing} not saved by both)" if missing else equal


def _cause(difference: Difference) -> str:
    return difference.key.partition(".")[0]


def _likelihood(difference: Difference) -> int:
    causes = list(REASONS)
    return causes.index(_cause(difference)) if _cause(difference) in causes else len(causes)
