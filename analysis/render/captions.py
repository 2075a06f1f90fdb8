"""Sentences of the captions of Section 7: what nulls are, how many cells exceed them, which layers are shown."""

from collections.abc import Mapping, Sequence

import numpy as np

from analysis.section7.chance import NULLS, keeps_B
from analysis.section7.compared_runs import Permuted
from analysis.section7.control import Control
from analysis.section7.grid import Grid
from analysis.section7.item import PAPER_DEPTH, UpdateItem, layer_at
from analysis.section7.nulls import Band, outside
from analysis.section7.sides import Side
from analysis.section7.statistics import GAUSSIAN, INPUTS, START
from analysis.verdicts import verdict_sentence
from lora_repro.config.schema import Run
from lora_repro.methods import LoRAConfig

MIDDLE = (
    "Middle: phi minus the mean of the strongest null in each cell (orange: above it, blue: below); black lines "
    "enclose the cells above the bands of all nulls."
)
"""What the second row of grids shows."""

PLAIN = {GAUSSIAN: "chance", START: "untrained A", INPUTS: "shared inputs"}
"""What each null stands for, in the sentence that says what follows."""

ONE_SEED = (
    "runs of one seed see the same batches in the same order and start with the same head, runs of two seeds do not"
)
"""What two ranks share beside the task, where they have one seed."""

PLUS = (
    "Plus signs: the first run on the true labels against the second on permuted ones, which share inputs and no "
    "labels. Outside the bands"
)
"""What is compared there, and the lead of the counts."""


def about(run: Run) -> str:
    """Names model and task."""
    return f"{run.model.name} on {run.task.name}"


def verdict(run: Run, scale: str) -> str:
    """Says whether the result is judged, and what a reader must know about model and task."""
    return verdict_sentence(scale, (run.model.name, run.task.name))


def describe_layers(item: UpdateItem, run: Run) -> str:
    """Names the layers, counted from 0 as in checkpoints, and the paper's, which it counts from 1."""
    depth = run.arch.num_layers
    ours = [layer_at(part, depth) for part in item.layers]
    paper = [layer_at(part, PAPER_DEPTH) + 1 for part in item.layers]
    many = len(set(ours)) > 1
    parts = ", ".join(part.removesuffix("/1") for part in item.layers)
    return (
        f"{'Layers' if many else 'Layer'} {joined(dict.fromkeys(ours))} of 0 to {depth - 1}, at {parts} of the depth "
        f"(paper: layer{'s' if len(paper) > 1 else ''} {joined(paper)} of {PAPER_DEPTH}, counted from 1)"
    )


def conclusion(grids: Sequence[Grid]) -> str:
    """Says in a sentence which nulls explain what is shared, over all cells of a figure."""
    cells = sum(grid.phi.size for grid in grids)
    found: dict[str, list[str]] = {}
    for name in grids[0].bands:
        more = sum(outside(grid.phi, grid.bands[name]).above for grid in grids)
        amount = "more than {} in every cell" if more == cells else "nowhere more than {}"
        if 0 < more < cells:
            amount = f"more than {{}} in {more:,} of {cells:,} cells"
        found.setdefault(amount, []).append(PLAIN[name])
    parts = [
        amount.format(f"{joined(names)} {'explain' if len(names) > 1 or PLAIN[INPUTS] in names else 'explains'}")
        for amount, names in found.items()
    ]
    return f"What is shared is {'; '.join(parts)}."


def describe_nulls(bands: Mapping[str, Band], side: Side, no_inputs: str, picture: str) -> str:
    """Says what the nulls are, and which are missing."""
    there = "; ".join(f"{name}, {NULLS[name]}" for name in bands)
    words = f"Nulls: {there}. In 99 of 100 draws of a null all cells of {picture} lie within its band."
    if keeps_B(side):
        words += " A is drawn for the nulls, B is the runs' own."
    if side.reads_inputs and START not in bands:
        words += " No null of A_0: the runs start from an adapter."
    if not side.reads_inputs:
        words += " Untrained A and the inputs predict nothing on this side, which lies in the space of outputs."
    if no_inputs:
        words += f" No null of inputs: {' '.join(no_inputs.split())}"
    return words


def beyond(grids: Sequence[Grid], names: Sequence[str]) -> list[str]:
    """Counts the cells outside the bands, grid by grid."""
    found = [f"{whose}: {describe_outside(grid.phi, grid.bands)}" for grid, whose in zip(grids, names, strict=True)]
    return [f"Cells outside the bands, of {grids[0].phi.size} in a grid: {'; '.join(found)}."]


def describe_outside(values: np.ndarray, bands: Mapping[str, Band]) -> str:
    """Counts the cells above and below each null's band."""
    return ", ".join(counted(name, *outside(values, band)) for name, band in bands.items())


def counted(name: str, above: int, below: int) -> str:
    """Writes one such count."""
    return f"{above} above {name}" + (f" ({below} below)" if below else "")


def describe_permuted(controls: Sequence[Control | None], why_not: Sequence[str]) -> list[str]:
    """Says at which point of their training runs on permuted labels are shown, or why they are not."""
    there = [each for each in controls if each is not None]
    paragraphs = [f"Runs on permuted labels are not shown: {why}" for why in why_not if why]
    if not there:
        return paragraphs
    where = "; ".join(
        f"r = {_rank(run)}, seed {run.trained.run.seed}: {run.snapshot.moved:.2f} {_when(run.snapshot.fraction)} "
        f"(true labels: {run.beside:.2f})"
        for each in there
        for run in each.runs
    )
    labels = "by two permutations, so labels teach the two nothing in common"
    if there[0].is_of_one_permutation:
        labels = "by one permutation, so the two share labels that mean nothing"
    return [
        f"Crosses: two runs on labels that were permuted among the examples, {labels}; each at the snapshot that has "
        f"moved about as far as the run on true labels, ||A - A_0|| / ||A_0||: {where}.",
        *paragraphs,
    ]


def _when(fraction: float) -> str:
    return "at the end of training" if fraction == 1 else f"after {fraction:g} of training"


def _rank(permuted: Permuted) -> int:
    method = permuted.trained.run.method
    assert isinstance(method, LoRAConfig)
    return method.r


def place_of(grid: Grid) -> str:
    """Names the matrix of a grid."""
    return f"W_{grid.site.role} of layer {grid.site.layer}"


def joined(values: Sequence[object] | Mapping[object, None]) -> str:
    """Lists values: a, b and c."""
    *some, last = map(str, values)
    return f"{', '.join(some)} and {last}" if some else last
