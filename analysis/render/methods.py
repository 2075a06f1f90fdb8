"""A table of methods becomes a printed one."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.budgets import UNEQUAL, percent
from analysis.cell import Cell, tuning_record
from analysis.kinds.methods import Line, Methods, Noise, PaperLines
from analysis.printed_counts import printed_size
from analysis.render import tuning
from analysis.render.printed import PrintedTable
from analysis.render.tables import DASH, Names, about_peft, about_runs, line_name, our_cell, task_name
from analysis.stats import CONFIDENCE, Paired, few_seeds, holm
from analysis.verdicts import verdict_of
from lora_repro.costs.budget import is_unequal

ONE_SIZE = "own size"
ALPHA = 1 - CONFIDENCE
EQUAL = "(all equal)"
"""Behind a difference that is the same with each seed: its interval would be empty, and look certain."""


def printed(table: Methods, names: Names) -> PrintedTable:
    """Writes title, what is compared, the lines, and what they can tell apart; the paper's rows come first in data."""
    verdict = [f"Verdict: {verdict_of(table.scale)}."] if table.lines else []
    paper, ours = _paper_records(table), [_record(table, line) for line in table.lines]
    return PrintedTable(
        title=_title(table),
        grid=_grid(table, names),
        records=[*paper, *map(_unnested, ours)],
        above=_about(table, names),
        below=[_apart(table, names), _missing(table), verdict, _notes(table, names)],
        json=[*paper, *ours],
    )


def _title(table: Methods) -> str:
    item = table.item
    return f"Table {item.number}: {item.title}" if item.facts else item.title


def _record(table: Methods, line: Line) -> dict[str, Any]:
    arm, summary, difference, used = line.arm, line.arm.summary, line.difference, used_of(line.arm)
    return {
        **{"source": "ours", "task": arm.task, "model": arm.model, "method": arm.place.row},
        **{"settings": line.settings, "budget": getattr(arm.config and arm.config.method, "budget", None)},
        **{"trained": arm.trained, "share": share_of(arm)},
        **{"utilisation": used, "unequal": None if used is None else is_unequal(used)},
        **{"metric": arm.metric.name, "protocol": table.protocol.value, "scale": table.scale},
        **{"seeds": [run.seed for run in arm.runs], "scores": [run.score for run in arm.runs]},
        **{"run_ids": [run.run_id for run in arm.runs], "states": [run.state for run in arm.runs]},
        **{"mean": summary.mean, "low": summary.low, "high": summary.high},
        "is_baseline": line.is_baseline,
        "difference": None if difference is None else difference._asdict(),
        **{"time": line.time, "peak_memory_gib": None if line.memory is None else line.memory.gib},
        "peak_memory_is_bound": None if line.memory is None else line.memory.is_bound,
        **{"tuning": tuning_record(arm.tuning), "command": arm.command},
    }


def _unnested(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what CSV holds of a line of ours: a column for each number of the difference."""
    paired = record["difference"] or {}
    found = {key: value for key, value in record.items() if key not in ("tuning", "difference")}
    return found | {f"difference_{key}": paired.get(key) for key in Paired._fields}


def _paper_records(table: Methods) -> list[dict[str, Any]]:
    """Returns the paper's scores, one each, under the names of ours and in [0, 1]."""
    if (paper := table.item.paper) is None:
        return []
    return [
        {
            **{"source": "paper", "task": task, "model": row.get("model"), "method": _method(table, row)},
            "settings": paper_settings(paper, row),
            "trained": row[paper.trained],
            "mean": round(row[key] / 100, 6),
        }
        for row in table.paper
        for task, key in paper.scores.items()
        if row.get(key) is not None
    ]


def paper_settings(paper: PaperLines, row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that a row of the paper names, as ours are called and written: the facts' qv is q,v."""
    found = {name: row[key] for key, name in paper.settings.items() if key in row}
    return {name: ",".join(value) if name == "targets" else value for name, value in found.items()}


def _about(table: Methods, names: Names) -> list[str]:
    if not table.lines:
        return [f"Ours is planned and cannot run yet: {'; '.join(table.planned)}."] if table.planned else []
    arms = [line.arm for line in table.lines]
    seeds = sorted({run.seed for arm in arms for run in arm.runs if run.seed is not None})
    where = " and ".join(dict.fromkeys(_where(arm, names) for arm in arms))
    metrics = " and ".join(dict.fromkeys(arm.metric.title for arm in arms))
    described = next((f" {arm.about_data}." for arm in arms if arm.about_data), "")
    return [
        f"Ours (scale={table.scale}): {metrics} of {where}, {table.protocol.description}; mean [two-sided "
        f"95 % t interval] over n seeds ({', '.join(map(str, seeds))}).{described}"
    ]


def _where(arm: Cell, names: Names) -> str:
    return f"{names['models'].get(arm.model, arm.model)} on {names['tasks'].get(arm.task, arm.task)}"


def _grid(table: Methods, names: Names) -> list[list[str]]:
    paper, has_baseline = table.item.paper, bool(table.item.baseline)
    scores = [] if paper is None else [f"{task_name(task, names)}, paper" for task in paper.scores]
    budgets = [] if paper is not None else ["budget"]
    whose = list(dict.fromkeys(line_name(line.arm.place, names) for line in table.lines))
    ours = [
        f"{whose[0]}, ours" if len(whose) == 1 else "ours",
        *([f"minus {table.item.baseline_method}", "time", "GiB"] if has_baseline else []),
    ]
    on = ["on"] if len(whose) > 1 else []

    def our_line(line: Line) -> list[str]:
        where = [line_name(line.arm.place, names)] if on else []
        return [line.arm.place.row, *where, *_our_line(table, line, len(scores))]

    of_budget = ["of the budget"] if has_budgets(table) else []
    lines = [[*budgets, "method", *on, "settings", "trained", "of the model", *of_budget, *scores, *ours]]
    if paper is not None:
        for method in dict.fromkeys(paper.methods.values()):
            rows = [row for row in table.paper if _method(table, row) == method]
            lines += [[method, *([""] * len(on)), *_paper_line(paper, row, has_baseline)] for row in rows]
            lines += [our_line(line) for line in table.lines if line.arm.place.row == method]
        rest = [line for line in table.lines if line.arm.place.row not in paper.methods.values()]
        return [*lines, *map(our_line, rest)]
    return [*lines, *([line.budget or ONE_SIZE, *our_line(line)] for line in by_budget(table.lines))]


def by_budget(lines: Sequence[Line]) -> list[Line]:
    """Orders lines as a table without the paper's has them: by budget, by task, then the best mean first."""
    budgets = list(dict.fromkeys(line.budget for line in lines))
    places = list(dict.fromkeys(line.arm.place[:2] for line in lines))
    return sorted(
        lines, key=lambda line: (budgets.index(line.budget), places.index(line.arm.place[:2]), _by_score(line))
    )


def _by_score(line: Line) -> float:
    mean = line.arm.summary.mean
    best_first = -1 if line.arm.metric.higher_is_better else 1
    return math.inf if mean is None else best_first * mean


def _method(table: Methods, row: Mapping[str, Any]) -> str | None:
    assert table.item.paper is not None
    return table.item.paper.methods.get(row["method"])


def _paper_line(paper: PaperLines, row: Mapping[str, Any], has_baseline: bool) -> list[str]:
    settings = " ".join(f"{name}={value}" for name, value in paper_settings(paper, row).items())
    scores = [str(row.get(key, "")) for key in paper.scores.values()]
    return [settings, printed_size(row[paper.trained]), "", *scores, "", *([""] * 3 * has_baseline)]


def has_budgets(table: Methods) -> bool:
    """Tells whether a table is one of budgets, which some of its lines name."""
    return table.item.paper is None and any(line.budget is not None for line in table.lines)


def used_of(arm: Cell) -> float | None:
    """Returns the trained weights over those that the arm's budget names; None without one, or before a run is done."""
    return None if arm.config is None or arm.trained is None else arm.config.utilisation


def _our_line(table: Methods, line: Line, paper_scores: int) -> list[str]:
    arm = line.arm
    settings = " ".join(f"{key}={value}" for key, value in line.settings.items())
    share = share_of(arm)
    size = [
        "" if arm.trained is None else f"{arm.trained:,}",
        "" if share is None else f"{100 * share:{'.0f' if share >= 0.1 else '.2g'}} %",
    ]
    used = used_of(arm)
    of_budget = ["" if used is None else percent(used)] if has_budgets(table) else []
    cells = [settings, *size, *of_budget, *[""] * paper_scores, our_cell(arm)]
    if not table.item.baseline:
        return cells
    difference = "" if line.difference is None else in_words(arm, line.difference)
    difference = "the baseline" if line.is_baseline else difference
    return [*cells, difference, "" if line.time is None else f"{line.time:.2f}", memory_of(line)]


def in_words(arm: Cell, difference: Paired) -> str:
    """Writes a difference with its interval, if it has one that says something."""
    mean, low, high = (None if value is None else signed(arm, value) for value in difference[:3])
    if difference.are_equal:
        return f"{mean} {EQUAL}"
    return f"{mean}" if low is None else f"{mean} [{low}, {high}]"


def signed(arm: Cell, value: float) -> str:
    """Writes a difference of scores with its sign."""
    text = arm.metric.format(abs(value), 2)
    return text if not float(text) else f"{'-' if value < 0 else '+'}{text}"


def share_of(arm: Cell) -> float | None:
    """Returns the trained weights as a share of the model's own, the head apart."""
    if arm.trained is None or arm.config is None:
        return None
    arch = arm.config.arch
    return arm.trained / (arch.size() - arch.head_size)


def memory_of(line: Line) -> str:
    """Writes the smallest peak of a line's runs in GiB; behind ≤ where it is a bound."""
    return "" if line.memory is None else f"{'≤ ' * line.memory.is_bound}{line.memory.gib:.2f}"


def _apart(table: Methods, names: Names) -> list[str]:
    """Says how small a difference the table can tell from noise, and which differences it tells, task by task."""
    groups: dict[str, list[Line]] = {}
    for line in table.lines:
        groups.setdefault(line_name(line.arm.place, names), []).append(line)
    return [
        f"{whose}: {sentence}" if len(groups) > 1 else sentence
        for whose, lines in groups.items()
        for sentence in _told_apart(table, lines)
    ]


def _told_apart(table: Methods, lines: Sequence[Line]) -> list[str]:
    arms = [line.arm for line in lines if line.arm.n > 1 and not line.arm.missing]
    if not arms:
        return []
    metric, words = arms[0].metric, []
    sd = math.sqrt(
        statistics.fmean(statistics.variance([r.score for r in arm.runs if r.score is not None]) for arm in arms)
    )
    words.append(
        f"Noise of seeds: the scores of one arm have a standard deviation of {metric.format(sd, 2)} over its seeds."
    )
    if again := [twice for twice in table.again if any(twice.arm is line.arm for line in lines)]:
        noise = Noise.of(again)
        words.append(
            f"Noise of a rerun: {noise.runs} of these runs were computed again ({'; '.join(noise.computed_on)}); one "
            f"run's score has a standard deviation of {metric.format(noise.sd, 2)}, the largest difference is "
            f"{metric.format(noise.largest, 2)}."
        )
    tested = [(line, line.difference.p) for line in lines if line.difference and line.difference.p is not None]
    if tested:
        halves = [(line.difference.high or 0) - line.difference.mean for line, _ in tested if line.difference]
        named = [_name(line) for (line, _), beyond in zip(tested, holm([p for _, p in tested]), strict=True) if beyond]
        which = f": {'; '.join(named)}" if named else ""
        words.append(
            "What it tells apart: half of the intervals of a difference reach less than "
            f"{metric.format(statistics.median(halves), 2)} to each side. Of {len(tested)} differences to the baseline "
            f"{sum(p < ALPHA for _, p in tested)} exclude 0 one by one, and {len(named)} when all are tested together "
            f"(Holm, {100 * ALPHA:.0f} %){which}."
        )
    return words


def _name(line: Line) -> str:
    settings = " ".join(f"{key}={value}" for key, value in line.settings.items())
    at = "" if line.budget is None else f" at {line.budget}"
    return f"{line.arm.place.row} {settings}".rstrip() + at


def _missing(table: Methods) -> list[str]:
    missing = [run for line in table.lines for run in line.arm.missing]
    if not missing:
        return []
    total = sum(len(line.arm.runs) for line in table.lines)
    return [f"Missing: {len(missing)} of {total} runs. Compute them: `{table.command}`"]


def _notes(table: Methods, names: Names) -> list[str]:
    arms = [line.arm for line in table.lines]
    notes = list(table.item.notes)
    if table.lines:
        notes.append(
            "trained: weights that the method trains, the head not counted; of the model: their share in its weights, "
            "the head apart."
        )
    if any(used is not None and is_unequal(used) for used in map(used_of, arms)):
        notes.append(UNEQUAL)
    if table.item.baseline:
        budgets = f" at the same budget (of methods with {ONE_SIZE}: of the largest)" if has_budgets(table) else ""
        notes.append(
            f"minus {table.item.baseline_method}: the difference to {table.item.baseline_arm}{budgets}, taken seed by "
            "seed. time: of training over the baseline's, all on the machine that computed "
            "the most of them; what a CPU computed where it is recorded, else that on the clock. GiB: the smallest "
            "peak of the runs, on a CPU that of the process; ≤ where it had computed others before, as it keeps memory."
        )
    named = [(_name(line), line.arm) for line in table.lines]
    notes += [*tuning.sentences(named), *about_peft(named)]
    notes += few_seeds(arm.n for arm in arms if not arm.missing)
    if any(arm.missing for arm in arms):
        notes.append(f"{DASH}: a line has a number once all its seeds are finished (finished/expected).")
    notes += about_runs(arms, names)
    return ["Notes:", *(f"- {note}" for note in notes)] if notes else []
