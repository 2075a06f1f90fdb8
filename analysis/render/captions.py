"""What stands below the figures of Section 7: what is shown, how to read it, and what is beyond chance."""

from collections.abc import Mapping, Sequence

import numpy as np

from analysis.cells import NOT_JUDGED_YET, VERDICTS
from analysis.items import PAPER_DEPTH, UpdateItem, layer_at, names
from analysis.section7.chance import GAUSSIAN, INPUTS, NULLS, START, keeps_B
from analysis.section7.compared_runs import Permuted
from analysis.section7.control import Control
from analysis.section7.nulls import Band, outside
from analysis.section7.phi_figure import Grid, PhiPicture
from analysis.section7.shared_directions import RhoPicture
from analysis.section7.sides import Side
from analysis.section7.weight_figure import WeightPicture
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


def phi_title(picture: PhiPicture) -> str:
    """Returns a figure's number and title, and what was trained."""
    title = picture.item.title.format(*picture.ranks)
    return f"Figure {picture.item.number}: {title}; {about(picture.runs[0].run)}, scale={picture.scale}"


def about(run: Run) -> str:
    """Names model and task."""
    return f"{run.model.name} on {run.task.name}"


def standing(run: Run, scale: str) -> str:
    """Says how much is to be made of it, and what one must know of model and task."""
    footnotes = names()["footnotes"]
    known = [footnotes[name] for name in (run.model.name, run.task.name) if name in footnotes]
    return " ".join([f"Verdict: {VERDICTS.get(scale, NOT_JUDGED_YET)}.", *known])


def phi_caption(picture: PhiPicture) -> list[str]:
    """Returns the caption's paragraphs."""
    return [
        _shown(picture),
        _how_to_read(picture),
        conclusion(picture.grids),
        chance_words(picture.grids[0].bands, picture.side, picture.no_inputs, "the figure"),
        *_beyond(picture.grids, [_place(grid) for grid in picture.grids]),
        *_of_other_seed(picture),
        *permuted_words([picture.permuted], [picture.no_permuted]),
        *_theirs("Theirs", picture.grids, [grid.permuted for grid in picture.grids]),
        *_theirs(PLUS, picture.grids, [grid.other_labels for grid in picture.grids]),
        *_order(picture.grids),
        standing(picture.runs[0].run, picture.scale),
    ]


def rho_title(picture: RhoPicture) -> str:
    """Returns the title of the figure of single directions."""
    title = picture.item.title.format(*picture.ranks)
    return f"{title}; {about(picture.pairs[0][0].run)}, scale={picture.scale}"


def rho_caption(picture: RhoPicture) -> list[str]:
    """Returns its caption's paragraphs."""
    (one, other), (i, j) = picture.ranks, picture.numbers
    seeds = [pair[0].run.seed for pair in picture.pairs]
    shares = picture.shares
    by_chance = _and(dict.fromkeys(f"{j} / {each.d} = {j / each.d:.3f}" for each in shares))
    in_inputs = drawn = ""
    if shares[0].in_inputs is not None:
        in_inputs = f" Blue dashes: how much of u_i lies in the first {j} principal directions of the layer's inputs."
    if keeps_B(picture.side) and len(seeds) > 1:
        drawn = f" Drawn are those of seed {seeds[0]}; each seed is counted against its own."
    apart = [each.other_seed if each.other_seed is not None else [None] * len(seeds) for each in shares]
    diamonds = f"Diamonds: the same with r = {other} of the next seed; {ONE_SEED}. Theirs"
    return [
        f"rho_i = ||V^T u_i||^2: how much of the i-th direction of r = {one} lies in {j} directions of r = {other}, "
        f"trained from the same seed ({_and(seeds)}); by chance {by_chance}. Directions: "
        f"{picture.side.words}. Every layer of {picture.pairs[0][0].run.arch.num_layers}, counted from 0. "
        f"The paper has no such figure.{in_inputs}",
        chance_words(shares[0].bands[0], picture.side, picture.no_inputs, "one seed's figure") + drawn,
        *_seed_by_seed("Directions", picture, [each.rho for each in shares], f", of {i * len(shares)} a seed"),
        *_seed_by_seed(diamonds, picture, apart),
        *permuted_words(picture.permuted, picture.no_permuted),
        *_seed_by_seed("Theirs", picture, [each.permuted for each in shares]),
        *_seed_by_seed(PLUS, picture, [each.other_labels for each in shares]),
        standing(picture.pairs[0][0].run, picture.scale),
    ]


def _seed_by_seed(
    words: str, picture: RhoPicture, found: Sequence[Sequence[np.ndarray | None] | np.ndarray], of: str = ""
) -> list[str]:
    """Counts over all matrices what of each seed lies outside of its bands; `found` has values by matrix and seed."""
    told = []
    for at, (run, _) in enumerate(picture.pairs):
        beside = [(values[at], each.bands[at]) for values, each in zip(found, picture.shares, strict=True)]
        there = [(values, bands) for values, bands in beside if values is not None]
        if not there:
            continue
        counts = []
        for name in there[0][1]:
            each = [outside(values, bands[name]) for values, bands in there]
            counts.append(_counted(name, sum(c.above for c in each), sum(c.below for c in each)))
        told.append(f"seed {run.run.seed}: {', '.join(counts)}")
    return [f"{words} outside{of}: {'; '.join(told)}."] if told else []


def weight_title(picture: WeightPicture) -> str:
    """Returns the title of Figure 8."""
    return f"Figure {picture.item.number}: {picture.item.title}; {about(picture.runs[0].run)}, scale={picture.scale}"


def weight_caption(picture: WeightPicture) -> list[str]:
    """Returns its caption's paragraphs."""
    low, high = picture.item.colours
    top, columns = picture.random.phi.shape
    circles = ""
    if any(picture.paper_points(r) for r in picture.ranks):
        circles = (
            f"; circles: read off the paper's figure, approximate, for the shape (GPT-3, d = {picture.item.width}, at "
            "the same part of d)"
        )
    return [
        f"phi(i, j) between the first i directions of W_q (its first {top}, {picture.item.top} of all) and the first j "
        f"of its update ({columns}), seed {picture.runs[0].run.seed}; {picture.side.words}, the same side of W_q. "
        f"{layers_words(picture.item, picture.runs[0].run)}; d = {picture.random.d}.",
        f"Above: phi, colours from {low:g} to {high:g} as in the paper, the ends for what is beyond. {MIDDLE} Below: "
        f"the last column{circles}.",
        conclusion(picture.grids),
        chance_words(picture.grids[0].bands, picture.side, picture.no_inputs, "the figure"),
        *_beyond(picture.grids, [f"r = {r}" for r in picture.ranks]),
        standing(picture.runs[0].run, picture.scale),
    ]


def layers_words(item: UpdateItem, run: Run) -> str:
    """Says which layers are meant, counted from 0 as in checkpoints, and what the paper, from 1, calls its own."""
    depth = run.arch.num_layers
    ours = [layer_at(part, depth) for part in item.layers]
    paper = [layer_at(part, PAPER_DEPTH) + 1 for part in item.layers]
    many = len(set(ours)) > 1
    parts = ", ".join(part.removesuffix("/1") for part in item.layers)
    return (
        f"{'Layers' if many else 'Layer'} {_and(dict.fromkeys(ours))} of 0 to {depth - 1}, at {parts} of the depth "
        f"(paper: layer{'s' if len(paper) > 1 else ''} {_and(paper)} of {PAPER_DEPTH}, counted from 1)"
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
        amount.format(f"{_and(names)} {'explain' if len(names) > 1 or PLAIN[INPUTS] in names else 'explains'}")
        for amount, names in found.items()
    ]
    return f"So what is shared is {'; '.join(parts)}."


def _shown(picture: PhiPicture) -> str:
    one, other = picture.runs
    i, j = picture.ranks
    whose = picture.side.of if picture.side.of != "dW" else r"dW"
    seeds = (one.run.seed, other.run.seed)
    of = f"one run of r = {i} (rows, i) and one of r = {j} (columns, j), both of seed {seeds[0]}"
    if i == j:
        of = f"two runs of r = {i}, of seed {seeds[0]} (rows, i) and seed {seeds[1]} (columns, j)"
    return (
        f"phi(i, j) between {of}: how much the first i directions of the one's {whose} and the first j of the other's "
        "share, from 0 (nothing) to 1 (the smaller space lies in the larger); Section 7.2, Eq. 4, of the "
        f"{picture.side.words}. {layers_words(picture.item, one.run)}; d = "
        f"{_and(dict.fromkeys(grid.d for grid in picture.grids))}."
    )


def _how_to_read(picture: PhiPicture) -> str:
    low, high = picture.item.colours
    zoom = f" The panels on the right show the first {picture.ranks[0]} columns again." if picture.item.zoom else ""
    square = picture.ranks[0] == picture.ranks[1]
    curves = "diagonal" if square else f"last column (j = {picture.ranks[1]}), and beside it the diagonal"
    circles = ""
    if any(picture.paper_points(grid.site, grid.curve) for grid in picture.grids):
        circles = "; circles: values read off the paper's figure, approximate, for the shape (GPT-3, d = 12288)"
    return (
        f"Above: phi, colours from {low:g} to {high:g} as in the paper.{zoom} {MIDDLE} Below: the {curves}, "
        f"with the nulls' means and bands{circles}."
    )


def chance_words(bands: Mapping[str, Band], side: Side, no_inputs: str, picture: str) -> str:
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


def _beyond(grids: Sequence[Grid], names: Sequence[str]) -> list[str]:
    """Counts the cells outside of the bands, grid by grid."""
    found = [f"{whose}: {_outside(grid.phi, grid.bands)}" for grid, whose in zip(grids, names, strict=True)]
    return [f"Cells outside, of {grids[0].phi.size} a grid: {'; '.join(found)}."]


def _theirs(words: str, grids: Sequence[Grid], found: Sequence[np.ndarray | None]) -> list[str]:
    """Counts the same of a control, grid by grid."""
    counts = [
        f"{_place(grid)}: {_outside(values, grid.bands)}"
        for grid, values in zip(grids, found, strict=True)
        if values is not None
    ]
    return [f"{words} outside: {'; '.join(counts)}."] if counts else []


def _of_other_seed(picture: PhiPicture) -> list[str]:
    """Says what is left where the two runs do not share their seed, and counts it."""
    if picture.other_seed is None:
        return [picture.no_other_seed] if picture.no_other_seed else []
    words = f"Diamonds: the same with r = {picture.ranks[1]} of seed {picture.other_seed.run.seed}; {ONE_SEED}. Theirs"
    return _theirs(words, picture.grids, [grid.other_seed for grid in picture.grids])


def _outside(values: np.ndarray, bands: Mapping[str, Band]) -> str:
    return ", ".join(_counted(name, *outside(values, band)) for name, band in bands.items())


def _counted(name: str, above: int, below: int) -> str:
    return f"{above} above {name}" + (f" ({below} below)" if below else "")


def permuted_words(controls: Sequence[Control | None], why_not: Sequence[str]) -> list[str]:
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


def _order(grids: Sequence[Grid]) -> list[str]:
    """Says where directions have no order of their own."""
    places = [
        f"{_place(grid)}, {which}: " + ", ".join(f"{group.start + 1} to {group.stop}" for group in groups)
        for grid in grids
        for which, groups in zip(("rows", "columns"), grid.near_equal, strict=True)
        if groups
    ]
    return [f"Singular values too near to order the directions ({'; '.join(places)})."] if places else []


def _rank(permuted: Permuted) -> int:
    method = permuted.trained.run.method
    assert isinstance(method, LoRAConfig)
    return method.r


def _place(grid: Grid) -> str:
    return f"W_{grid.site.role} of layer {grid.site.layer}"


def _and(values: Sequence[object] | Mapping[object, None]) -> str:
    *some, last = map(str, values)
    return f"{', '.join(some)} and {last}" if some else last
