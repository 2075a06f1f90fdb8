"""The control of Section 7: the same two runs, trained on permuted labels."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from analysis.section7.chance import TwoRuns, cropped
from analysis.section7.compared_runs import ComparedRuns, Permuted, Trained
from analysis.section7.nulls import Band, outside
from analysis.section7.sides import Directions, Side


class Control(NamedTuple):
    """Two runs on permuted labels, and directions at each matrix."""

    runs: list[Permuted]
    directions: list[tuple[Directions, Directions]]
    """Of the two."""
    other_labels: list[tuple[Directions, Directions]]
    """Of the first run on the true labels and the second on permuted ones: what inputs alone make two runs share."""

    @property
    def is_of_one_permutation(self) -> bool:
        """Whether the two were taught the same labels: these are permuted by the run's seed."""
        return len({each.trained.run.seed for each in self.runs}) == 1


def control(
    compared: ComparedRuns, trained: Sequence[Trained], numbers: tuple[int, int], side: Side
) -> tuple[Control | None, str]:
    """Returns the control of two runs, or None and the reason; the reason is empty where the sweep has no such runs.

    Args:
        compared: All runs of the item.
        trained: The two runs.
        numbers: How many directions of each are compared.
        side: Which directions.
    """
    runs, why_not = compared.permuted(trained)
    if runs is None:
        return None, why_not
    first, second = (each.updates(compared.sites) for each in runs)
    found = cropped(TwoRuns(compared.sites, first, second, side), numbers)
    mixed = cropped(TwoRuns(compared.sites, trained[0].updates(compared.sites), second, side), numbers)
    if found is None or mixed is None:
        names = " or ".join(each.trained.run_id for each in runs)
        return None, f"{side.of} of {names} has fewer directions than {numbers[0]} and {numbers[1]}."
    return Control(runs, found, mixed), ""


def snapshots_json(runs: Sequence[Permuted]) -> list[dict[str, Any]]:
    """Writes at which snapshot runs on permuted labels are taken, and how far they and the others have moved."""
    return [
        {
            "run_id": each.trained.run_id,
            "fraction": each.snapshot.fraction,
            "moved": each.snapshot.moved,
            "moved_beside": each.beside,
        }
        for each in runs
    ]


def cells_outside(values: np.ndarray | None, bands: Mapping[str, Band]) -> dict[str, dict[str, int]] | None:
    """Counts what lies above and below each null's band; None of what is not there."""
    return {name: outside(values, band)._asdict() for name, band in bands.items()} if values is not None else None


def listed(values: np.ndarray | None) -> Any:
    """Writes values as JSON does; None of what is not there."""
    return values.tolist() if values is not None else None
