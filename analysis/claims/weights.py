"""Estimates of a claim on what updates learn: statistics of trained weights, less what chance gives in their place."""

from collections.abc import Sequence

from analysis.claims.declared import Part, Study
from analysis.claims.estimates import Estimate
from analysis.section7.statistics import Statistic


def estimates_of(part: Part, study: Study, found: Sequence[Statistic]) -> dict[str, Estimate]:
    """Returns value minus chance, seed by seed, for each matrix and each null of a part; none of what is not there.

    A number of a pair of seeds is no estimate: the ten pairs of five seeds are not independent (docs/section7.md).

    Args:
        part: Says which statistic, of which matrices, in which setting and against what.
        study: On which model and task.
        found: The statistics of a store.
    """
    estimates = {}
    for where in part.where:
        for against in part.against or [""]:
            key = (part.statistic, study.model, study.task, where, part.setting, against)
            values = [
                each.value - (each.chance or 0.0)
                for each in sorted(found, key=lambda each: each.seeds)
                if (each.name, each.model, each.task, each.where, each.setting, each.against) == key
                and len(each.seeds) == 1
            ]
            if values:
                estimates[f"{where} beside {against}" if against else where] = Estimate(tuple(values))
    return estimates
