"""The kind `projections`: a weight projected on the directions of its updates, ours beside the paper's (Table 7)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from analysis.items import Request, register
from analysis.render.captions import about, describe_layers, verdict
from analysis.render.printed import PrintedTable
from analysis.render.tables import DASH
from analysis.section7.compared_runs import ComparedRuns
from analysis.section7.item import UpdateItem
from analysis.section7.projection import (
    Projections,
    amplification,
    position,
    projections,
    random_projection,
    random_sign,
    top_directions,
)
from analysis.stats import few_seeds, summarise
from lora_repro import draw
from lora_repro.config.schema import Run
from lora_repro.models.arch import Site

ROWS = {
    "on_update": "‖Uᵀ W_{0} V‖ on directions of ΔW_{0}",
    "on_weight": "... on W_{0}'s own",
    "on_random": "... on random ones, exactly",
    "weight_norm": "‖W_{0}‖",
    "update_norm": "‖ΔW_{0}‖",
    "amplification": "amplification, ‖ΔW_{0}‖ / ‖Uᵀ W_{0} V‖",
    "random_amplification": "... of a random update of this norm",
    "position": "position between random (0) and W_{0}'s own (1)",
    "sign": "sign, cosine of ΔW_{0} and W_{0}",
    "random_sign": "... of a random update, standard deviation",
}
"""Of each number, its line in the table; {0} stands for the matrix."""


@register("projections")
@dataclass(kw_only=True)
class ProjectionTable(UpdateItem):
    """A weight projected on directions of its updates, of itself, and on random ones."""

    width: int
    """d of the paper's weight, for what random directions give there."""

    def printed(self, request: Request) -> PrintedTable:
        """Returns the table in words.

        Raises:
            MissingInputError: If runs or weights are missing.
        """
        return printed(projection_table(ComparedRuns(self, request.scale, request.store, request.overrides)))


class Projected(NamedTuple):
    """One update of ours."""

    run_id: str
    seed: int
    found: Projections


class ProjectedTable(NamedTuple):
    """The table: the paper's blocks, and ours at each rank and seed."""

    item: ProjectionTable
    scale: str
    run: Run
    site: Site
    ranks: list[int]
    paper: list[dict[str, Any]]
    ours: list[Projected]


def projection_table(compared: ComparedRuns) -> ProjectedTable:
    """Reads the runs of all seeds and the weight they start from.

    Raises:
        MissingInputError: If a run or the weights are missing.
    """
    from lora_repro.models.base_weights import base_matrices

    item = compared.item
    assert isinstance(item, ProjectionTable)
    (site,) = compared.sites
    runs = compared.finished([(r, seed) for r in compared.ranks for seed in compared.seeds])
    W = base_matrices(compared.run, compared.settings, [site])[site.name]
    updates = [run.updates([site])[0] for run in runs]
    own = top_directions(W, max(len(update.A) for update in updates), draw.generator("top directions", site.name))
    ours = [
        Projected(run.run_id, run.run.seed, projections(W, update, own))
        for run, update in zip(runs, updates, strict=True)
    ]
    return ProjectedTable(item, compared.scale, compared.run, site, compared.ranks, paper_blocks(item, site.role), ours)


def paper_blocks(item: ProjectionTable, role: str) -> list[dict[str, Any]]:
    """Returns what the paper prints for each rank, and what follows from it: the random row exactly, the position.

    Args:
        item: The table.
        role: Which matrix is projected. Of one that the paper does not show there is no block.
    """
    blocks = []
    facts = [row for row in item.facts["rows"] if row["weight"] == role]
    weight, update = f"w_{role}", f"delta_w_{role}"
    for r in dict.fromkeys(row["r"] for row in facts):
        rows = {row["directions_of"]: row for row in facts if row["r"] == r}
        printed = {name: row["projected_norm"] for name, row in rows.items()}
        W_norm, dW_norm = rows[weight][f"norm_{weight}"], rows[weight][f"norm_{update}"]
        random = random_projection(W_norm, r, item.width, item.width)
        blocks.append(
            {
                "r": r,
                "weight_norm": W_norm,
                "update_norm": dW_norm,
                "on_update": printed[update],
                "on_weight": printed[weight],
                "on_random": random,
                "on_random_printed": printed["random"],
                "amplification": amplification(dW_norm, printed[update]),
                "random_amplification": amplification(dW_norm, random),
                "position": position(printed[update], random, printed[weight]),
                "sign": None,
                "random_sign": random_sign(item.width, item.width),
            }
        )
    return blocks


def projection_records(table: ProjectedTable) -> list[dict[str, Any]]:
    """Returns an entry a block: the paper's for each rank, ours for each rank and seed."""
    layer = table.item.facts["rows"][0]["layer"] - 1
    paper = [{"source": "paper", "layer": layer, "weight": table.site.role, **block} for block in table.paper]
    place = {"source": "ours", "layer": table.site.layer, "weight": table.site.role, "scale": table.scale}
    ours = [{**place, "run_id": each.run_id, "seed": each.seed, **each.found._asdict()} for each in table.ours]
    return [*paper, *ours]


def printed(table: ProjectedTable) -> PrintedTable:
    """Writes the table: a column for each rank of the paper and of ours."""
    ours = {r: [each.found._asdict() for each in table.ours if each.found.r == r] for r in table.ranks}
    header = ["Frobenius norms", *(f"paper, r = {block['r']}" for block in table.paper)]
    header += [f"ours, r = {r}" for r in table.ranks]
    lines = [header]
    for key, words in ROWS.items():
        paper = [_number(block[key]) if block[key] is not None else DASH for block in table.paper]
        lines.append([words.format(table.site.role), *paper, *(_cell(found, key) for found in ours.values())])
    title = f"Table {table.item.number}: {table.item.title.format(table.site.role)}"
    return PrintedTable(title, lines, projection_records(table), below=[_notes(table)])


def _cell(found: Sequence[Mapping[str, Any]], key: str) -> str:
    """Writes the mean over seeds and its interval, or the number that all share."""
    values = [block[key] for block in found]
    if len(set(values)) == 1:
        return _number(values[0])
    mean, low, high, n = summarise(values)
    assert mean is not None and low is not None and high is not None
    return f"{_number(mean)} [{_number(low)}, {_number(high)}] n={n}"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.4g}" if abs(value) < 100 else f"{value:.0f}"


def _notes(table: ProjectedTable) -> list[str]:
    seeds = list(dict.fromkeys(each.seed for each in table.ours))
    weight = f"W_{table.site.role}"
    derived = table.item.facts["derived"]
    ranks = [block["r"] for block in table.paper]
    factors = [f"{derived[f'amplification_r{r}_as_printed']} at r = {r}" for r in ranks]
    of_paper = [
        f"Paper: GPT-3 175B, layer {table.item.facts['rows'][0]['layer']}; it prints its random rows as "
        f"{' and '.join(_number(block['on_random_printed']) for block in table.paper)}, and gives the amplification as "
        f"{' and '.join(factors)}. Amplification, position and exact random values are computed here from the norms "
        f"that it prints, at d = {table.item.width}; it does not print the sign.",
    ]
    notes = [
        *(of_paper if table.paper else []),
        f"Ours (scale={table.scale}): {about(table.run)}, seeds {', '.join(map(str, seeds))}. "
        f"{describe_layers(table.item, table.run)}. Mean [two-sided 95 % t interval] over seeds.",
        "U and V hold as many singular directions as the update's rank. Amplification falls with r for random updates "
        f"too, whose projection is r ‖{weight}‖ / sqrt(d_in d_out): compare it with theirs.",
        f"Sign: above 0 the update adds to {weight}, below 0 it cancels {weight}, which norms do not show.",
    ]
    notes += few_seeds([len(seeds)])
    notes.append(verdict(table.run, table.scale))
    return ["Notes:", *(f"- {note}" for note in notes)]
