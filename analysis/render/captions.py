"""What stands below the figures of Section 7: what is shown, how to read it, and what is beyond chance."""

from collections.abc import Mapping, Sequence

import numpy as np

from analysis.cells import NOT_JUDGED_YET, VERDICTS
from analysis.items import names
from analysis.section7.chance import GAUSSIAN, INPUTS, NULLS, START, keeps_B
from analysis.section7.compared_runs import Permuted
from analysis.section7.control import Control
from analysis.section7.grid import Grid
from analysis.section7.item import PAPER_DEPTH, UpdateItem, layer_at
from analysis.section7.nulls import Band, outside
from analysis.section7.sides import Side
from lora_repro.config.schema import Run
from lora_repro.methods import LoRAConfig

MIDDLE = (
    "Middle: phi less the mean of the strongest null in that cell (orange: more than it, blue: less); black lines "
    "enclose the cells that lie above the bands of all nulls."
)
"""What the second row of grids shows."""

PLAIN = {GAUSSIAN: "chance", START: "untrained A", INPUTS: "shared inputs"}
"""What each null stands for, in the sentence that says what follows."""

ONE_SEED = (
    "runs of one seed see the same batches in the same order, and their heads start alike, which those of two do not"
)
"""What two ranks share beside the task, where they have one seed."""

PLUS = (
    "Plus signs: the first of the two runs on the true labels and the second on permuted ones, which share inputs and "
    "no labels. Theirs"
)
"""What stands before the counts of these."""


def about(run: Run) -> str:
    """Names model and task."""
    return f"{run.model.name} on {run.task.name}"


def verdict(run: Run, scale: str) -> str:
    """Says how much is to be made of it, and what one must know of model and task."""
    footnotes = names()["footnotes"]
    known = [footnotes[name] for name in (run.model.name, run.task.name) if name in footnotes]
    return " ".join([f"Verdict: {VERDICTS.get(scale, NOT_JUDGED_YET)}.", *known])


def describe_layers(item: UpdateItem, run: Run) -> str:
    """Says which layers are meant, counted from 0 as in checkpoints, and what the paper, from 1, calls its own."""
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
    """Says in a sentence which nulls explain what two runs share, over all cells of a figure."""
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
    return f"So what is shared is {'; '.join(parts)}."


def describe_nulls(bands: Mapping[str, Band], side: Side, no_inputs: str, picture: str) -> str:
    """Says what the nulls are, and which are not there."""
    there = "; ".join(f"{name}, {NULLS[name]}" for name in bands)
    words = f"Chance: {there}. Each band holds in 99 of 100 draws for all cells of {picture} together."
    if keeps_B(side):
        words += " Where A is drawn, B is the runs' own."
    if side.reads_inputs and START not in bands:
        words += " No null of A_0: the runs start from an adapter."
    if not side.reads_inputs:
        words += " Untrained A and inputs say nothing about this side, which lies in the space of outputs."
    if no_inputs:
        words += f" No null of inputs: {' '.join(no_inputs.split())}"
    return words


def beyond(grids: Sequence[Grid], names: Sequence[str]) -> list[str]:
    """Counts the cells outside of the bands, grid by grid."""
    found = [f"{whose}: {describe_outside(grid.phi, grid.bands)}" for grid, whose in zip(grids, names, strict=True)]
    return [f"Cells outside, of {grids[0].phi.size} a grid: {'; '.join(found)}."]


def describe_outside(values: np.ndarray, bands: Mapping[str, Band]) -> str:
    """Counts the cells above and below each null's band."""
    return ", ".join(counted(name, *outside(values, band)) for name, band in bands.items())


def counted(name: str, above: int, below: int) -> str:
    """Writes one such count."""
    return f"{above} above {name}" + (f" ({below} below)" if below else "")


def describe_permuted(controls: Sequence[Control | None], why_not: Sequence[str]) -> list[str]:
    """Says at which point runs on permuted labels are shown, or why they are not."""
    there = [each for each in controls if each is not None]
    paragraphs = [f"Permuted labels: {why}" for why in why_not if why]
    if not there:
        return paragraphs
    where = "; ".join(
        f"r = {_rank(run)}, seed {run.trained.run.seed}: {run.snapshot.moved:.2f} {_when(run.snapshot.fraction)} "
        f"({run.beside:.2f} beside)"
        for each in there
        for run in each.runs
    )
    labels = "two permutations, which share nothing that labels teach"
    if there[0].is_of_one_permutation:
        labels = "one permutation, so that the two share labels that mean nothing"
    return [
        f"Crosses: the same of two runs on labels permuted among the examples, by {labels}; at the snapshot whose "
        f"||A - A_0|| / ||A_0|| is nearest to that of the run beside: {where}.",
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
