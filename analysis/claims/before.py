"""What a plan says of the claims that a sweep decides: the power of their tests with the seeds that it has."""

import statistics
from collections.abc import Iterator, Sequence

from analysis.cell import Cell
from analysis.claims.arms import JUDGED, Arms, select
from analysis.claims.declared import Claims, Part, Study, load_claims
from analysis.claims.margin import margin_of
from analysis.claims.power import found_better, found_equal
from analysis.items import read_item

FEWEST = 3
"""Seeds of an arm whose spread is taken from the store."""


def power_lines(overrides: Sequence[str], store: str) -> list[str]:
    """Returns a line for each test of a claim that reads this sweep at the scale that is judged; none of others.

    Args:
        overrides: As on the command line: `+sweeps=table6`, `regime=tuned`.
        store: The folder that holds runs/.
    """
    given = {key.lstrip("+"): value for key, _, value in (override.partition("=") for override in overrides)}
    sweep, regime = given.get("sweeps"), given.get("regime")
    if sweep is None or given.get("scale", JUDGED) != JUDGED:
        return []
    claims = load_claims()
    arms = Arms(store, JUDGED)
    return [
        line
        for claim in claims.claims
        for part in claim.parts
        if part.item is not None and getattr(read_item(part.item), "sweep", None) == sweep
        for study in claim.studies
        if (regime or study.regimes[0]) in study.regimes
        for line in _of_part(claim.id, part, study, regime, arms, claims)
    ]


def _of_part(name: str, part: Part, study: Study, regime: str | None, arms: Arms, claims: Claims) -> Iterator[str]:
    assert part.item is not None
    if part.test not in ("better", "not_worse"):
        return
    group = arms.item(part.item, regime)
    on = {"model": study.model, "task": study.task}
    cells = [select(group.cells, {**on, **each}) for each in (part.of, *part.than)]
    found = [cell for arm in cells for cell in arm]
    if not cells[0] or len(found) < 2:
        return
    own, *others = (len(cell.runs) for cell in found)
    pairs = [min(own, other) for other in others]
    margin = margin_of(claims.margin, arms, study).value
    size = claims.assumed_margin if margin is None else margin
    measured = _spread(found)
    spreads = claims.assumed_sd if measured is None else [measured]
    shares = [
        found_equal(pairs, sd, size) if part.test == "not_worse" else found_better(min(pairs), size, sd)
        for sd in spreads
    ]
    asked = "equal arms are found equal" if part.test == "not_worse" else "a gain of one margin is found"
    source = "assumed" if measured is None else "of the runs that are there"
    spread = " or ".join(f"{100 * sd:.2f}" for sd in spreads)
    found_in = " or ".join(f"{100 * share:.0f}" for share in shares)
    yield (
        f"Power of {name} on {study.model} ({part.says}): with {_span(pairs)} seeds, a margin of {100 * size:.2f} "
        f"points{' (assumed)' if margin is None else ''} and a spread of {spread} points ({source}), {asked} in "
        f"{found_in} % of sweeps."
    )


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _spread(cells: Sequence[Cell]) -> float | None:
    """Returns the standard deviation over seeds, pooled over the arms that have enough; None if none has."""
    scores = [[run.score for run in cell.runs if run.score is not None] for cell in cells]
    variances = [statistics.variance(each) for each in scores if len(each) >= FEWEST]
    pooled = statistics.fmean(variances) if variances else 0.0
    return pooled**0.5 if pooled > 0 else None
