"""What a plan says of the claims that a sweep decides: the power of their tests with the seeds that it has."""

import statistics
from collections.abc import Iterator, Sequence

from analysis.cell import Cell
from analysis.claims.arms import JUDGED, Arms, Group, describe, meant
from analysis.claims.declared import Claims, Part, Study, load_claims
from analysis.claims.margin import margin_of
from analysis.claims.power import power, power_of_some
from lora_repro.sweep.grid import Sweep

SIMULATED = {"better": power, "not_worse": power, "some_better": power_of_some}
"""Tests whose power is known."""

FEWEST = 3
"""Seeds of an arm whose spread is taken from the store."""


def power_lines(overrides: Sequence[str], store: str, planned: Sweep) -> list[str]:
    """Returns a line for each part of a claim that reads this sweep at the scale that is judged; none of others.

    Args:
        overrides: As on the command line: `+sweeps=table6`, `regime=tuned`, `seed=0,1`.
        store: The folder that holds runs/.
        planned: The sweep of these overrides.
    """
    given = {key.lstrip("+"): value for key, _, value in (override.partition("=") for override in overrides)}
    sweep, regime = given.get("sweeps"), given.get("regime")
    if sweep is None or given.get("scale", JUDGED) != JUDGED:
        return []
    claims, arms = load_claims(), Arms(store, JUDGED, {(sweep, regime): planned})
    lines = (
        line
        for claim in claims.claims
        for part in claim.parts
        if part.test in SIMULATED and part.metric is None  # what is assumed of spreads and margins is of accuracy
        if part.item is not None and getattr(arms.read_item(part.item), "sweep", None) == sweep
        for study in claim.studies
        if part.is_asked_of(study) and (regime or study.regimes[0]) in study.regimes
        for line in _of_part(claim.id, part, study, arms.item(part.item, regime), arms, claims)
    )
    return list(dict.fromkeys(lines))


def _of_part(name: str, part: Part, study: Study, group: Group, arms: Arms, claims: Claims) -> Iterator[str]:
    plain = [{key: value for key, value in each.items() if key != "regime"} for each in (part.of, *part.than)]
    by_selector = [meant(group, each, study) for each in plain]
    if not all(by_selector) or len(plain) < 2:
        return
    several = next((selector for selector, cells in zip(plain, by_selector, strict=True) if len(cells) > 1), None)
    if several is not None:  # what is typed beside the sweep makes arms that no claim asks for
        yield f"Power of {name} on {study.model} ({part.says}): unknown, as here {describe(several)} is several arms."
        return
    found = [cell for [cell] in by_selector]
    own, *others = (len(cell.by_replicate) for cell in found)
    pairs = [min(own, other) for other in others]
    margin = margin_of(claims.margin, arms, study).value
    size = claims.assumed_margin if margin is None else margin
    measured = _spread(found)
    spreads = claims.assumed_sd if measured is None else [measured]
    if part.test == "not_worse":
        asked = "equal arms are found equal"
    elif part.test == "some_better":
        asked = "one arm that gains two margins is found"
    else:
        asked = f"a gain of {'two margins' if part.by == 'margin' else 'one margin'} over each is found"
    units = "draws" if any(cell.is_over_draws for cell in found) else "seeds"
    source = "assumed" if measured is None else "of the runs that are there"
    spread = " or ".join(f"{100 * sd:.2f}" for sd in spreads)
    simulated = SIMULATED[part.test]
    shares = " or ".join(f"{100 * simulated(pairs, sd, size):.0f}" for sd in spreads) if min(pairs) > 1 else "0"
    yield (
        f"Power of {name} on {study.model} ({part.says}): with {_span(pairs)} {units}, a margin of {100 * size:.2f} "
        f"points{' (assumed)' if margin is None else ''} and a spread of {spread} points ({source}), {asked} in "
        f"{shares} % of sweeps, by {units} alone."
    )


def _replicated(cell: Cell) -> list[float]:
    """Returns the score of each seed, or of each draw whose seeds all have one."""
    by_replicate = ([run.score for run in runs] for runs in cell.by_replicate.values())
    return [statistics.fmean(s for s in scores if s is not None) for scores in by_replicate if None not in scores]


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _spread(cells: Sequence[Cell]) -> float | None:
    """Returns the standard deviation over seeds, pooled over the arms that have enough; None if none has."""
    scores = [_replicated(cell) for cell in cells]
    variances = [statistics.variance(each) for each in scores if len(each) >= FEWEST]
    pooled = statistics.fmean(variances) if variances else 0.0
    return pooled**0.5 if pooled > 0 else None
