"""The paper's numbers of an item that is not reproduced here become text."""

import json
import sys
from typing import Any

from analysis.items import Facts
from analysis.render.lines import aligned

SPREAD = "_std"
"""What the key of a plus/minus value ends with, behind that of its value."""


def told(facts: Facts, form: str | None) -> str:
    """Writes the facts as Markdown or JSON, and says on stderr that nothing of ours stands beside them."""
    print(f"{facts.name} is not reproduced here yet: these are the paper's numbers alone.", file=sys.stderr)
    return json.dumps(facts._asdict(), indent=1) if form == "json" else markdown(facts)


def markdown(facts: Facts) -> str:
    """Writes title, the numbers as a table, and what they are, a line each."""
    parts = [f"## {facts.name} (the paper's alone): {facts.title}"]
    if facts.rows:
        keys = [key for key in dict.fromkeys(key for row in facts.rows for key in row) if not key.endswith(SPREAD)]
        lines = [[_word(row.get(key), row.get(f"{key}{SPREAD}")) for key in keys] for row in facts.rows]
        parts.append("\n".join(aligned([keys, *lines])))
    parts.append("\n".join(f"- {key}: {words}" for key, words in facts.about.items()))
    return "\n\n".join(parts)


def _word(value: Any, spread: Any) -> str:
    if value is None or isinstance(value, bool):
        return "yes" if value else ""
    text = f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)
    return text if spread is None else f"{text} ± {spread}"
