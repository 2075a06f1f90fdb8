"""Judges a part on what updates learn: statistics of trained weights, less what chance gives in their place."""

import re
from collections.abc import Sequence

from analysis.cell import Cell
from analysis.claims.arms import Arms, Group, select, setting
from analysis.claims.criteria import Outcome, Side, Verdict, bounded
from analysis.claims.declared import Claims, Part, Study
from analysis.claims.estimates import FEWEST, LEVEL, Estimate
from analysis.claims.gates import at_edge, untrained, unusable
from analysis.claims.judged import Judged
from analysis.claims.margin import margin_of
from analysis.section7.statistics import PERMUTED, Statistic
from analysis.section7.statistics import SWEEP as SECTION7
from analysis.verdicts import VERDICTS

TRUNCATED = ("truncated_gap", "whole_score")
"""Statistics that are measured only with --truncate."""
ALL_CUT = "keep=0"
"""Where a truncation keeps nothing, it must lose more than the margin: the positive control of all others."""
OF_WHOLE_RUNS = (
    "Scores of cut updates are those on test after the last epoch, with bounds by a t test over seeds alone."
)


def estimates_of(part: Part, asked: Sequence[Statistic]) -> dict[str, Estimate]:
    """Returns value minus chance, seed by seed, for each matrix and each null of a part; none of what is not there.

    A number of a pair of seeds is no estimate: the ten pairs of five seeds are not independent (docs/section7.md).

    Args:
        part: Says of which matrices and against what.
        asked: The statistics that it asks for.
    """
    estimates = {}
    for where in part.where:
        for against in part.against or [""]:
            values = [
                each.value - (each.chance or 0.0)
                for each in sorted(asked, key=lambda each: each.seeds)
                if (each.where, each.against) == (where, against)
            ]
            if values:
                estimates[f"{where} beside {against}" if against else where] = Estimate(tuple(values))
    return estimates


def _asked(part: Part, study: Study, found: Sequence[Statistic], setting: str | None = None) -> list[Statistic]:
    """Returns the statistics of single seeds that a part asks for, or those of another setting, its control's."""
    key = (part.statistic, study.model, study.task, setting or part.setting)
    return [
        each
        for each in found
        if (each.name, each.model, each.task, each.setting) == key
        and each.where in part.where
        and each.against in (part.against or [""])
        and len(each.seeds) == 1
    ]


def _cells(part: Part, study: Study, group: Group) -> dict[str, Cell]:
    """Returns the arms whose weights a part compares: those of its ranks, and on permuted labels if it names them."""
    ranks = _ranks(part)
    return {
        f"r = {setting(cell, 'r')}{' on permuted labels' if _is_permuted(cell) else ''}": cell
        for cell in select(group.cells, {"model": study.model, "task": study.task})
        if str(setting(cell, "r")) in ranks and (not _is_permuted(cell) or PERMUTED in part.against)
    }


def _ranks(part: Part) -> list[str]:
    return re.findall(r"r=(\d+)", part.setting or "")


def _is_permuted(cell: Cell) -> bool:
    return cell.config is not None and cell.config.task.permute_labels


def judge_weights(part: Part, study: Study, regime: str | None, arms: Arms, claims: Claims, family: int) -> Judged:
    """Judges a part by the statistics that a store keeps of the runs of Section 7.

    Args:
        part: What is asked.
        study: On which model and task.
        regime: How rates and scaling are set.
        arms: The runs.
        claims: What all claims declare.
        family: How many parts are tested together.
    """
    group = arms.sweep(SECTION7, regime)
    margin, cells = margin_of(claims.margin, arms, study), _cells(part, study, group)
    by_margin = part.by == "margin"
    is_below = part.most is not None or by_margin
    limit = margin.value if by_margin else part.most if part.most is not None else part.least or 0.0
    side = Side.below if is_below else Side.above
    known = {run.run_id for cell in group.cells for run in cell.runs}
    own = [each for each in arms.statistics(SECTION7) if known.issuperset(each.run_ids)]  # others are of older runs
    asked = _asked(part, study, own)
    estimates = estimates_of(part, asked)
    seeds = {run.seed for cell in group.cells if cell.model == study.model for run in cell.runs}
    wanted = len(part.where) * max(1, len(part.against))
    there = min((each.n for each in estimates.values()), default=0) if len(estimates) == wanted else 0
    flags = ["--truncate"] if part.statistic in TRUNCATED else []
    measure = arms.command("measure", SECTION7, *flags, writes=True)
    found = Judged(
        part,
        study,
        regime,
        Outcome(Verdict.not_run, "Its statistics are not measured for enough seeds."),
        estimates,
        limit,
        side,
        control=_control(part, study, own, margin.value),
        notes=(margin.how, *([OF_WHOLE_RUNS] if part.statistic in TRUNCATED else [])),
        finished=there,
        expected=len(seeds),
        commands=() if there == len(seeds) else (group.command, measure),
        run_ids=tuple(dict.fromkeys(run_id for each in asked for run_id in each.run_ids)),
    )
    is_judged = arms.scale not in VERDICTS
    if is_judged and (why := unusable(cells)):
        return found._replace(outcome=Outcome(Verdict.uninformative, why))
    trained = {str(setting(cell, "r")) for cell in cells.values()}
    if absent := [f"r = {rank}" for rank in _ranks(part) if rank not in trained]:
        reason = f"The sweep has no runs of {', '.join(absent)} at scale={arms.scale}."
        return found._replace(outcome=Outcome(Verdict.not_run, reason), commands=())
    if there < FEWEST:
        return found
    if limit is None or (is_judged and margin.value is None and (margin.is_planned or by_margin)):
        outcome = margin.why_not
    else:
        zero = 0.0 if by_margin else limit  # within a limit that is no margin nothing is worse
        outcome = bounded(estimates, limit, side, unit=part.unit, zero=zero, level=LEVEL / family)
    # dev says nothing of runs on permuted labels: what they learn does not show there
    learn = {name: cell for name, cell in cells.items() if not _is_permuted(cell)}
    if not is_judged:
        outcome = outcome._replace(verdict=Verdict.not_judged, seeds=None)
    elif there < len(seeds):
        outcome = Outcome(Verdict.interim, f"{there} of {len(seeds)} seeds. {outcome.reason}")
    elif absent := [name for name, cell in learn.items() if len(cell.results) < len(cell.runs)]:
        reason = f"The store lacks runs of {', '.join(absent)}, so whether training had ended is not known."
        outcome = Outcome(Verdict.interim, f"{reason} {outcome.reason}")
    elif found.control is not None and found.control.verdict is not Verdict.supported:
        reason = f"Cut to nothing, LoRA is not shown to lose more than the margin. {found.control.reason}"
        outcome = Outcome(Verdict.uninformative, f"{reason} {outcome.reason}")
    elif margin.value is not None and (why := at_edge(cells) or untrained(learn, margin.value)):
        outcome = Outcome(Verdict.uninformative, f"{why} {outcome.reason}")
    return found._replace(outcome=outcome)


def _control(part: Part, study: Study, found: Sequence[Statistic], margin: float | None) -> Outcome | None:
    """Asks whether runs whose updates are cut to nothing lose more than the margin; None of other statistics."""
    if part.statistic != "truncated_gap" or part.setting is None or margin is None:
        return None
    cut = f"{ALL_CUT} {part.setting.partition(' ')[2]}"
    estimates = estimates_of(part, _asked(part, study, found, cut))
    if not estimates:
        return Outcome(Verdict.interim, f"It is not measured with {cut}.")
    return bounded({f"{name}, {cut}": each for name, each in estimates.items()}, margin, Side.above)
