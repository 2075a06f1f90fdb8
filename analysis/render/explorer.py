"""The page of `compare --html`: one file that needs no network and shows all grids of two adapters."""

import json
from collections.abc import Sequence

import numpy as np

from analysis.adapters import Adapter
from analysis.adapters.names import holder
from analysis.render.pages import filled
from analysis.section7.comparison import Compared, Comparison
from analysis.section7.inspection import Inspected
from analysis.section7.subspace import near_equal
from lora_repro.errors import shown

SCALE = 10**6
"""Grids are embedded in millionths, as whole numbers: the page prints ten-thousandths."""


def page(first: Adapter, second: Adapter, comparison: Comparison, command: str) -> str:
    """Returns the page.

    What comes from files stands in one block of JSON without a `<`, which the page's script writes as text: no name
    can become markup, and a policy in the page forbids all that would load anything.

    Args:
        first: Its directions are the rows of the grids.
        second: Its directions are the columns.
        comparison: The grids, with figures.
        command: What made the page.
    """
    data = json.dumps(_data(first, second, comparison, command), separators=(",", ":"), allow_nan=False)
    return filled("explorer", "What two adapters share", command, data)


def _data(first: Adapter, second: Adapter, comparison: Comparison, command: str) -> dict[str, object]:
    rows = comparison.rows
    side = rows[0].side
    return {
        "command": command,
        "adapters": [{"name": shown(adapter.name), "format": adapter.format} for adapter in (first, second)],
        "side": {"name": side.value, "of": side.of, "description": side.description},
        "scale": SCALE,
        "nulls": {_shape(row): [[_digits(x) for x in line] for line in row.null.tolist()] for row in rows},
        "grids": [_grid(row, place) for row, place in zip(rows, _places(rows), strict=True)],
        "notes": comparison.notes,
    }


def _places(rows: Sequence[Compared]) -> list[str | None]:
    """Returns the place of each matrix for the page's list; None where the layer identifies it.

    The page finds a grid by its place and role as they are shown, so these must differ: long names are cut and may then
    be equal, so they are numbered.
    """
    if len({(row.layer, shown(row.weight)) for row in rows}) == len(rows):
        return [None] * len(rows)
    for names in ([holder(row.modules[0]) for row in rows], [row.modules[0] for row in rows]):
        places: list[str | None] = [shown(name) for name in names]
        if len({(place, shown(row.weight)) for place, row in zip(places, rows, strict=True)}) == len(rows):
            return places
    return [shown(f"{number}: {row.modules[0]}") for number, row in enumerate(rows, 1)]


def _grid(row: Compared, place: str | None) -> dict[str, object]:
    assert row.figures is not None, "compare was asked for figures"
    return {
        "layer": row.layer,
        "weight": shown(row.weight),
        "place": place,
        "modules": [shown(module) for module in row.modules],
        "d": row.d,
        "phi": np.rint(row.phi * SCALE).astype(int).tolist(),
        "null": _shape(row),
        "s": [_all_digits(s) for s in row.strengths],
        "angles": [_digits(row.angles[0]), _digits(row.angles[-1])],
        "near": [[[group[0] + 1, group[-1] + 1] for group in near_equal(s)] for s in row.strengths],
        "figures": [_figures(figures) for figures in row.figures],
    }


def _figures(figures: Inspected) -> dict[str, object]:
    return {
        "r": figures.r,
        "scaling": None if figures.scaling is None else _digits(figures.scaling),
        "norm": _digits(figures.norm),
        "rank": None if figures.effective_rank is None else _digits(figures.effective_rank),
        "energy": _digits(figures.energy_kept),
        "dW": _all_digits(figures.singular_values),
    }


def _shape(row: Compared) -> str:
    return f"{'x'.join(map(str, row.phi.shape))}/{row.d}"


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


def _all_digits(values: np.ndarray) -> list[float]:
    return [_digits(value) for value in values.tolist()]
