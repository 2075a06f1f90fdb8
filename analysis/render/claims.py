"""Verdicts on the claims, as a table with a paragraph a claim, and as records."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.claims.criteria import Outcome, Verdict, signed, together
from analysis.claims.declared import Study
from analysis.claims.estimates import Estimate
from analysis.claims.judged import Judged, Verdicts
from analysis.claims.printed import Printed
from analysis.render.printed import PrintedTable

DASH = "—"
AS_SWEPT = "rates of the sweep's file"
"""The regime of a sweep that is taken as it is."""

Names = Mapping[str, Mapping[str, str]]
"""How tasks and models are printed (analysis/names.yaml)."""


def printed_claims(verdicts: Sequence[Verdicts], names: Names, in_full: bool) -> PrintedTable:
    """Returns the table of claims: what the paper says, its evidence and ours, the verdict and the command.

    Args:
        verdicts: The claims.
        names: How tasks and models are printed.
        in_full: With a paragraph on each claim below the table.
    """
    header = ["claim", "the paper's numbers under the same test", "ours", "verdict", "command"]
    lines = [
        [
            f"{each.claim.id} ({each.claim.section})",
            paper_cell(each, names),
            our_cell(each),
            verdict_cell(each, names),
            command_cell(each),
        ]
        for each in verdicts
    ]
    return PrintedTable(
        title="The paper's claims",
        grid=[header, *lines],
        records=[line for each in verdicts for line in _lines(each)],
        json=[record(each) for each in verdicts],
        above=[counts(verdicts)],
        below=[*(paragraph(each, names) for each in verdicts if in_full), ["Notes:", *(f"- {note}" for note in NOTES)]],
    )


def record(found: Verdicts) -> dict[str, Any]:
    """Returns a claim as JSON writes it: numbers as scores in [0, 1], ratios as they are."""
    claim = found.claim
    return {
        **{"id": claim.id, "verdict": found.verdict.value, "scale": found.scale},
        **{"section": claim.section, "kind": claim.kind, "model": claim.model},
        **{"claim": claim.claim, "caution": claim.caution, "missing": found.missing},
        "evidence": [_evidence(each) for each in found.parts],
    }


def _lines(found: Verdicts) -> list[dict[str, Any]]:
    """Returns what CSV holds of a claim: a line for each estimate of each part, study and regime."""
    claim = record(found)
    evidence = claim.pop("evidence")
    own = {key: claim[key] for key in ("id", "verdict", "scale", "section", "missing")}
    lines = []
    for part in evidence or [{}]:
        asked = {key: part.get(key) for key in ("says", "test", "item", "model", "task", "regime")}
        asked |= {"part_verdict": part.get("verdict"), "control": (part.get("control") or {}).get("verdict")}
        asked |= {key: part.get(key) for key in ("reason", "limit", "side", "at_margin", "finished", "expected")}
        for estimate in part.get("estimates") or [{}]:
            measured = {"estimate": estimate.get("name")} | {k: estimate.get(k) for k in ("mean", "low", "high", "n")}
            lines.append(own | asked | measured)
    return lines


def _evidence(part: Judged) -> dict[str, Any]:
    back = math.exp if part.part.test == "ratio" else float
    study = part.study
    return {
        **{"says": part.part.says, "test": part.part.test, "regime": part.regime, "item": part.part.item},
        **{"model": None if study is None else study.model, "task": None if study is None else study.task},
        **_outcome(part.outcome),
        "limit": None if part.limit is None else back(part.limit),
        "side": part.side.name,
        "holds": part.part.margin_word if part.holds_from is not None else None,
        "at_margin": part.holds_from,
        "estimates": [
            {"name": name, **{key: _back(value, back) for key, value in _numbers(each).items()}, "n": each.n}
            for name, each in part.estimates.items()
        ],
        "control": None if part.control is None else _outcome(part.control),
        "printed": [
            {
                "task": each.task,
                "differences": dict(each.differences),
                "holds": part.part.margin_word if each.holds_from is not None else None,
                "at_margin": each.holds_from,
                **(_outcome(each.outcome) if each.outcome is not None else {"verdict": None, "reason": None}),
            }
            for each in part.printed
        ],
        **{"prints": part.part.printed, "notes": part.notes},
        **{"finished": part.finished, "expected": part.expected, "commands": part.commands, "run_ids": part.run_ids},
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {"verdict": outcome.verdict.value, "reason": outcome.reason, "seeds_that_decide": outcome.seeds}


def _numbers(estimate: Estimate) -> dict[str, float | None]:
    return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}


def _back(value: float | None, back: Any) -> float | None:
    return None if value is None else back(value)


NOTES = (
    "Scores are those on test at the epoch best on dev, of SST-2 and other tasks without test those of each half of "
    "dev at the epoch best on the other. Bounds are one-sided at 95 %. For accuracy they count only if both a paired t "
    "test over seeds and a bootstrap over documents clear them; of other metrics and of statistics of weights they are "
    "those of the t test.",
    "The paper's numbers: a z test with the spread that it prints, one number an arm. Where the question has a margin, "
    "the one with which it would hold is given in points, as the paper has none. (1), (2) are the parts of a claim.",
    "A verdict on a proxy is about that model and task. It never says that a number of the paper is wrong.",
)


def counts(verdicts: Sequence[Verdicts]) -> str:
    """Says how many claims have each verdict."""
    found = [each.verdict for each in verdicts]
    said = [f"{found.count(verdict)} {verdict.value}" for verdict in Verdict if verdict in found]
    return f"{len(found)} {'claim' if len(found) == 1 else 'claims'}: {', '.join(said)}."


def paper_cell(found: Verdicts, names: Names) -> str:
    """Writes what the paper's numbers say under the same test, task by task."""
    by_task: dict[str, list[str]] = {}
    several = len(found.headline) > 1
    for number, part in enumerate(found.headline, 1):
        for each in part.printed:
            mark = f"({number}) " if several else ""
            by_task.setdefault(each.task, []).append(f"{mark}{_in_short(each, part)}")
    said = [f"{_name(task, names, 'tasks')}: {', '.join(each)}" for task, each in by_task.items()]
    said += [
        f"{f'({number}) ' if several else ''}{part.part.printed}"
        for number, part in enumerate(found.headline, 1)
        if part.part.printed is not None
    ]
    return "; ".join(said) or DASH


def _in_short(printed: Printed, part: Judged) -> str:
    if printed.lacking:
        return "not all arms printed"
    if printed.holds_from is not None:
        return _with_margin(part, printed.holds_from)
    return "no spread printed" if printed.outcome is None else printed.outcome.verdict.value


def _with_margin(part: Judged, margin: float) -> str:
    """Says with which margins a part holds, given where that changes."""
    if margin <= 0:
        return f"{'holds at any' if part.part.margin_word == 'from' else 'does not hold at any'} margin"
    return f"holds {part.part.margin_word} a margin of {100 * margin:.2f} points"


def our_cell(found: Verdicts) -> str:
    """Writes the reasons of the parts that make the verdict, or what is missing."""
    several = len(found.headline) > 1
    reasons: dict[str, None] = {}
    for number, part in enumerate(found.headline, 1):
        if part in found.deciding and part.outcome.reason:
            reasons[f"{f'({number}) ' if several else ''}{_measured(part)}{part.outcome.reason}"] = None
    return " ".join(reasons) or found.missing or DASH


def _measured(part: Judged) -> str:
    """Names the statistic of weights that was estimated, for a place that does not say what the part asks."""
    if part.part.statistic is None or not part.estimates:
        return ""
    return f"{part.part.statistic.replace('_', ' ')} ({part.part.setting}): "


def verdict_cell(found: Verdicts, names: Names) -> str:
    """Writes the verdict with its tier and regime, and other regimes and models where they differ."""
    first = next((part for part in found.headline if part.study is not None), None)
    if first is None or first.study is None:
        return found.verdict.value + (" (counted)" if found.parts else "")
    where = f"on {_place(found, first.study, names)} ({found.scale}, {first.regime or AS_SWEPT})"
    elsewhere = [
        f"{verdict.value} {place}"
        for place, verdict in others(found, names)
        if (verdict, found.verdict) != (Verdict.not_run, Verdict.not_run)
    ]
    return "; ".join([f"{found.verdict.value} {where}", *elsewhere])


def others(found: Verdicts, names: Names) -> list[tuple[str, Verdict]]:
    """Returns the verdict of each further study and regime, by where it is."""
    groups: dict[tuple[str, str | None], list[Verdict]] = {}
    own = found.headline
    for part in found.parts:
        if part.study is not None and part not in own:
            groups.setdefault((_place(found, part.study, names), part.regime), []).append(part.outcome.verdict)
    return [(f"on {place}, {regime}", together(verdicts)) for (place, regime), verdicts in groups.items()]


def _place(found: Verdicts, study: Study, names: Names) -> str:
    """Writes the model of a study, and its task where the claim is judged on several."""
    tasks = {part.study.task for part in found.parts if part.study is not None}
    of_task = f" and {_name(study.task, names, 'tasks')}" if len(tasks) > 1 else ""
    return _name(study.model, names, "models") + of_task


def command_cell(found: Verdicts) -> str:
    """Writes the command of the headline's missing runs."""
    shown = command(found)
    return f"`{shown}`" if shown is not None else DASH


def command(found: Verdicts) -> str | None:
    """Returns the command of the headline's missing runs, or of several the one that lists them; None of none."""
    missing = list(dict.fromkeys(command for part in found.headline for command in part.commands))
    return found.command if len(missing) > 1 else missing[0] if missing else None


def paragraph(found: Verdicts, names: Names) -> list[str]:
    """Writes all that is known of a claim, line by line."""
    claim = found.claim
    about = f" of {claim.model}" if claim.model else ""
    lines = [f"{claim.id}: {verdict_cell(found, names)}.", f"Section {claim.section}{about}: {claim.claim}"]
    lines += [f"Caution: {claim.caution}"] if claim.caution else []
    lines += [f"Missing: {found.missing}."] if found.missing else []
    lines += _paper_lines(found, names)
    for study, regime, parts in _by_study(found):
        on = "" if study is None else f"On {_name(study.model, names, 'models')}, {study.task}, {regime or AS_SWEPT}:"
        lines += [on] if on else []
        for part in parts:
            lines += _part_lines(part, names)
        lines += list(dict.fromkeys(note for part in parts for note in part.notes))
        commands = dict.fromkeys(command for part in parts for command in part.commands)
        lines += [f"`{command}`" for command in commands]
    return lines


def _by_study(found: Verdicts) -> list[tuple[Study | None, str | None, list[Judged]]]:
    groups: list[tuple[Study | None, str | None, list[Judged]]] = []
    for part in found.parts:
        if not groups or groups[-1][:2] != (part.study, part.regime):
            groups.append((part.study, part.regime, []))
        groups[-1][2].append(part)
    return groups


def _part_lines(part: Judged, names: Names) -> list[str]:
    more = ""
    if (seeds := part.outcome.seeds) is not None:
        more = f" About {seeds} {part.replicates} would decide it."
    elif part.outcome.verdict is Verdict.undecided:
        more = f" More {part.replicates} alone would not decide it."
    lines = [f"- {part.part.says}: {part.outcome.verdict.value}. {part.outcome.reason}{more}"]
    lines += [
        f"- {name}: {_shown(part, each.mean)}"
        + ("" if each.low is None or each.high is None else f" [{_shown(part, each.low)}, {_shown(part, each.high)}]")
        + f" n={each.n}"
        for name, each in part.estimates.items()
    ]
    if part.holds_from is not None:
        lines.append(f"- It {_with_margin(part, part.holds_from)}.")
    if part.control is not None:
        lines.append(f"- Positive control: {part.control.verdict.value}. {part.control.reason}")
    return lines


def _paper_lines(found: Verdicts, names: Names) -> list[str]:
    """Says of each part what the paper's numbers give under its test."""
    lines = []
    for part in found.headline:
        said = [f"{part.part.printed}."] if part.part.printed is not None else []
        for each in part.printed:
            outcome = f"{_in_short(each, part)}." if each.outcome is None else _said(each.outcome)
            said.append(f"{_name(each.task, names, 'tasks')}: {outcome}")
        lines += [f"- {part.part.says}: {' '.join(said)}"] if said else []
    return ["The paper's numbers:", *lines] if lines else []


def _said(outcome: Outcome) -> str:
    return f"{outcome.verdict.value}, {outcome.reason}"


def _shown(part: Judged, value: float) -> str:
    if part.part.test == "ratio":
        return f"{math.exp(value):.3g}"
    return signed(value, part.part.unit)


def _name(name: str, names: Names, group: str) -> str:
    return names.get(group, {}).get(name, name)
