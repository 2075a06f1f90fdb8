"""Measures everything of Section 7 that claims are judged by, once, from a store with weights."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import cast

from analysis.items import load_item
from analysis.section7.chance import inputs_or_why_not
from analysis.section7.compared_runs import ComparedRuns
from analysis.section7.item import UpdateItem
from analysis.section7.run_weights import WITHOUT_WEIGHTS, RunWeights
from analysis.section7.shared_statistics import of_ranks, of_seeds
from analysis.section7.statistics import Statistic
from analysis.section7.truncation import Truncation, truncate
from analysis.section7.weight_statistics import of_weights
from lora_repro.errors import MissingInputError

KEEP = (0, 1, 2, 4, 8)
"""Directions that a truncated update keeps, if nothing else is asked for."""

SPLITS = {"eval": "dev", "test": "test"}
"""How metrics are spelt, and what the splits are called."""


def models_of(scale: str, store: str | Path, given: Sequence[str] = ()) -> list[RunWeights]:
    """Returns the runs of each model of the sweep.

    Args:
        scale: A scale of the sweep.
        store: The folder that holds runs/.
        given: Further overrides, as for the sweep.

    Raises:
        InputError: If nothing of the sweep can be run at this scale.
    """
    every_layer = cast(UpdateItem, load_item("figure", "shared_directions"))
    return [RunWeights(compared) for compared in ComparedRuns.each_model(every_layer, scale, store, given)]


def measure(weights: RunWeights) -> list[Statistic]:
    """Returns the statistics of one model; those whose runs are missing are left out, and `weights` names the runs."""
    weights.read_all()
    compared, inputs = weights.compared, None
    i, j = compared.ranks
    if any(weights.updates(i, seed) and weights.updates(j, seed) for seed in compared.seeds):
        inputs, why_not = inputs_or_why_not(compared.run, compared.settings, compared.sites)
        if inputs is None:
            weights.left_out[f"Against inputs: {why_not}"] = None
    table = cast(UpdateItem, load_item("table", "7"))
    return [*of_ranks(weights, inputs), *of_seeds(weights), *of_weights(weights, table.weights, table.layers)]


def truncations(
    weights: RunWeights, before: Sequence[Statistic], keep: Sequence[int] = KEEP
) -> Iterator[list[Statistic]]:
    """Yields, for each run of the two ranks that are compared, what is left when it keeps its first directions.

    `truncated_gap`: the whole run's score less that of the first k directions of every matrix, in the metric's unit;
    `whole_score`: the whole run's. On dev and on test. A run takes minutes; what `before` holds is not computed again.

    Args:
        weights: The runs.
        before: What is known.
        keep: How many directions; of a run of rank r those below r count.
    """
    compared = weights.compared
    known = {(each.run_ids, each.setting) for each in before if each.name == "truncated_gap"}
    for seed in compared.seeds:
        for r in dict.fromkeys(compared.ranks):
            run = weights.trained(r, seed)
            if run is None:
                continue
            left = [k for k in keep if k < r and ((run.run_id,), _kept(k, r)) not in known]
            if not left:
                continue
            try:
                found = truncate(run.folder, left, deepcopy(compared.settings))
            except MissingInputError:
                weights.missing[run.run_id] = WITHOUT_WEIGHTS
                continue
            yield list(_gaps(weights, found, r, seed))


def _gaps(weights: RunWeights, found: Truncation, r: int, seed: int) -> Iterator[Statistic]:
    run = weights.compared.run
    for split, where in SPLITS.items():
        key = f"{split}/{found.metric.name}"
        if key not in found.whole:
            continue
        whole = found.whole[key]
        scores = {"whole_score": {f"r={r}": whole}}
        scores["truncated_gap"] = {_kept(cut.keep, r): whole - cut.metrics[key] for cut in found.cuts}
        for name, values in scores.items():
            for setting, value in values.items():
                yield Statistic(
                    name, run.model.name, run.task.name, where, setting, (seed,), value, None, "", (found.run_id,)
                )


def _kept(k: int, r: int) -> str:
    """Returns the setting of a run of rank r that keeps k directions."""
    return f"keep={k} of r={r}"
