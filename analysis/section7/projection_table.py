"""The data of Table 7: a weight projected on the directions of its updates, ours beside the paper's."""

import math
from typing import Any, NamedTuple

from analysis.items import ProjectionTable
from analysis.section7.compared_runs import Arms
from analysis.section7.projection import (
    Projections,
    amplification,
    position,
    projections,
    random_projection,
    random_sign,
    top_directions,
)
from lora_repro import draw
from lora_repro.config.schema import Run
from lora_repro.models.arch import Site


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


def projection_table(arms: Arms) -> ProjectedTable:
    """Reads the runs of all seeds and the weight they start from.

    Raises:
        MissingInputError: If a run or the weights are missing.
    """
    from lora_repro.models.base_weights import base_matrices

    item = arms.item
    assert isinstance(item, ProjectionTable)
    (site,) = arms.sites
    runs = arms.finished([(r, seed) for r in arms.ranks for seed in arms.seeds])
    W = base_matrices(arms.run, arms.settings, [site])[site.name]
    updates = [run.updates([site])[0] for run in runs]
    own = top_directions(W, max(len(update.A) for update in updates), draw.generator("top directions", site.name))
    ours = [
        Projected(run.run_id, run.run.seed, projections(W, update, own))
        for run, update in zip(runs, updates, strict=True)
    ]
    return ProjectedTable(item, arms.scale, arms.run, site, arms.ranks, paper_blocks(item), ours)


def paper_blocks(item: ProjectionTable) -> list[dict[str, Any]]:
    """Returns what the paper prints for each rank, and what follows from it: the random row exactly, the position."""
    blocks = []
    for r in dict.fromkeys(row["r"] for row in item.facts["rows"]):
        rows = {row["directions_of"]: row for row in item.facts["rows"] if row["r"] == r}
        printed = {name: row["projected_norm"] for name, row in rows.items()}
        W_norm, dW_norm = rows["w_q"]["norm_w_q"], rows["w_q"]["norm_delta_w_q"]
        random = random_projection(W_norm, r, item.width, item.width)
        blocks.append(
            {
                "r": r,
                "weight_norm": W_norm,
                "update_norm": dW_norm,
                "on_update": printed["delta_w_q"],
                "on_weight": printed["w_q"],
                "on_random": random,
                "on_random_printed": printed["random"],
                "amplification": amplification(dW_norm, printed["delta_w_q"]),
                "random_amplification": amplification(dW_norm, random),
                "position": position(printed["delta_w_q"], random, printed["w_q"]),
                "sign": None,
                "random_sign": random_sign(item.width, item.width),
            }
        )
    return blocks


def to_json(table: ProjectedTable) -> list[dict[str, Any]]:
    """Returns an entry a block: the paper's for each rank, ours for each rank and seed."""
    facts = table.item.facts["rows"][0]
    paper = [
        {"source": "paper", "layer": facts["layer"] - 1, "weight": facts["weight"], **block} for block in table.paper
    ]
    place = {"source": "ours", "layer": table.site.layer, "weight": table.site.role, "scale": table.scale}
    ours = [{**place, "run_id": each.run_id, "seed": each.seed, **each.found._asdict()} for each in table.ours]
    return [{key: _finite(value) for key, value in entry.items()} for entry in [*paper, *ours]]


def _finite(value: object) -> object:
    """Returns None in place of what JSON cannot hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
