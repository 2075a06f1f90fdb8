"""Table 7 in Markdown: ours beside the paper's."""

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.render.captions import about, layers_words, standing
from analysis.render.tables import DASH, aligned
from analysis.section7.projection_table import ProjectedTable
from analysis.stats import half_width_in_standard_errors, summarise

ROWS = {
    "on_update": "‖Uᵀ W_q V‖ on directions of ΔW_q",
    "on_weight": "... on W_q's own",
    "on_random": "... on random ones, exactly",
    "weight_norm": "‖W_q‖",
    "update_norm": "‖ΔW_q‖",
    "amplification": "amplification, ‖ΔW_q‖ / ‖Uᵀ W_q V‖",
    "random_amplification": "... of a random update of this norm",
    "position": "position between random (0) and W_q's own (1)",
    "sign": "sign, cosine of ΔW_q and W_q",
    "random_sign": "... of a random update, standard deviation",
}


def markdown(table: ProjectedTable) -> str:
    """Writes the table: a column for each rank of the paper and of ours."""
    ours = {r: [each.found._asdict() for each in table.ours if each.found.r == r] for r in table.ranks}
    header = ["Frobenius norms", *(f"paper, r = {block['r']}" for block in table.paper)]
    header += [f"ours, r = {r}" for r in table.ranks]
    lines = [header]
    for key, words in ROWS.items():
        paper = [_number(block[key]) if block[key] is not None else DASH for block in table.paper]
        lines.append([words, *paper, *(_cell(found, key) for found in ours.values())])
    parts = [f"## Table {table.item.number}: {table.item.title}", "\n".join(aligned(lines)), "\n".join(_notes(table))]
    return "\n\n".join(parts)


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
    notes = [
        f"Paper: GPT-3 175B, layer {table.item.facts['rows'][0]['layer']}; its random rows are printed as "
        f"{' and '.join(_number(block['on_random_printed']) for block in table.paper)}. Amplification, position and "
        f"what random gives follow from what it prints, at d = {table.item.width}; the sign it does not print.",
        f"Ours (scale={table.scale}): {about(table.run)}, seeds {', '.join(map(str, seeds))}. "
        f"{layers_words(table.item, table.run)}. Mean [two-sided 95 % t interval] over seeds.",
        "U and V: as many singular directions as the update's rank. Amplification falls with r for random updates too, "
        "as their projection is r ‖W_q‖ / sqrt(d_in d_out): only beside that is it a finding.",
        "Sign: above 0 the update adds to W_q, below 0 it cancels; the norms cannot tell.",
    ]
    if len(seeds) in (2, 3):
        reach = half_width_in_standard_errors(len(seeds))
        notes.append(
            f"An interval over {len(seeds)} seeds reaches {reach:.1f} standard errors of the mean to each side: it "
            "says little."
        )
    notes.append(standing(table.run, table.scale))
    return ["Notes:", *(f"- {note}" for note in notes)]
