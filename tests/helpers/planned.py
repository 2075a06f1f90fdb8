"""A sweep of Table 6 none of whose runs can be composed yet, in place of the one that an item would load."""

import pytest

from lora_repro.sweep.grid import Sweep

WHY = "its model is not there"


def plan(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Lets a module load that sweep."""
    points = [
        {"seed": 0, "model": "big", "task": task, "method": "lora", "method.targets": targets, "method.r": r}
        for task in ("wikisql", "mnli")
        for targets in (["q"], ["q", "v"], ["q", "k", "v", "o"])
        for r in (1, 2, 4, 8, 64)
    ]
    monkeypatch.setattr(f"{module}.load", lambda *_: Sweep([], [(point, WHY) for point in points]))
