"""The kind `facts`: a table or figure of which the paper's numbers alone are printed."""

import sys
from dataclasses import dataclass
from typing import Any

from analysis.items import Item, Request, register
from analysis.render.printed import PrintedTable

SPREAD = "_std"
"""What the key of a plus/minus value ends with, behind that of its value."""

NOT_ABOUT = ("title", "paper", "data", "digitisation")
"""Texts among the facts that do not say what the numbers are."""


@register("facts")
@dataclass(kw_only=True)
class FactsAlone(Item):
    """An item that is not reproduced here. Its facts hold `rows`, or `points` that were read off a figure."""

    def printed(self, request: Request) -> PrintedTable:
        """Returns title, numbers, and what they are; says on stderr that nothing of ours stands beside them."""
        print(f"{self._name} is not reproduced here: these are the paper's numbers alone.", file=sys.stderr)
        about = self._about()
        return PrintedTable(
            title=f"{self._name} (the paper's alone): {self.title}",
            grid=self._grid(),
            records=self._rows,
            below=[[f"- {key}: {meaning}" for key, meaning in about.items()]],
            json={"name": self._name, "title": self.title, "about": about, "rows": self._rows},
        )

    @property
    def _name(self) -> str:
        """Table 2, Figure 5."""
        return f"{'Figure' if self.name.startswith('figure') else 'Table'} {self.number}"

    @property
    def _rows(self) -> list[dict[str, Any]]:
        return self.facts.get("rows", self.facts.get("points", []))

    def _about(self) -> dict[str, str]:
        """Returns what the numbers are, and what they show."""
        texts = self.facts | self.facts.get("metrics", {})
        return {
            key: value for key, value in texts.items() if isinstance(value, str) and key not in (SPREAD, *NOT_ABOUT)
        }

    def _grid(self) -> list[list[str]]:
        keys = [key for key in dict.fromkeys(key for row in self._rows for key in row) if not key.endswith(SPREAD)]
        lines = [[_cell(row.get(key), row.get(f"{key}{SPREAD}")) for key in keys] for row in self._rows]
        return [keys, *lines] if lines else []


def _cell(value: Any, spread: Any) -> str:
    if value is None or isinstance(value, bool):
        return "yes" if value else ""
    text = f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)
    return text if spread is None else f"{text} ± {spread}"
