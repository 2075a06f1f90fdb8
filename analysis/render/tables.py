"""A frame of cells becomes a table, in Markdown or JSON. Only here are scores printed in their unit, as percent."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.kinds.scores import ScoreTable
from analysis.protocol import Protocol
from analysis.render.lines import aligned
from analysis.stats import half_width_in_standard_errors
from lora_repro.tasks import Metric, Targets, Unit

DASH = "—"
FEW_SEEDS = 4
"""Below it the table says how wide a t interval is."""

STATES = {
    "todo": "not run yet",
    "running": "running, or its process was killed",
    "interrupted": "interrupted",
    "failed": "failed",
    "diverged": "diverged (a run that diverged is not repeated)",
    "not counted": "not counted",
}
"""How the states of missing runs are told."""


def to_json(frame: pd.DataFrame) -> str:
    """Writes the frame as a list of objects, a cell each; what is missing is null."""
    return json.dumps([{key: _plain(value) for key, value in row.items()} for row in _rows(frame)], indent=1)


def markdown(item: ScoreTable, frame: pd.DataFrame, names: Mapping[str, Mapping[str, str]]) -> str:
    """Writes the table in Markdown: title, what is compared, the grid, and what a reader must know of it.

    Args:
        item: The paper's item.
        frame: Its cells; `frame.attrs["command"]` supplies what all of them lack.
        names: How tasks and models are printed, and their footnotes (analysis/names.yaml).
    """
    rows = _rows(frame)
    ours = [row for row in rows if row["n_expected"]]
    targets = frame.attrs["targets"]
    metrics = {task: metric for task in targets if (metric := targets[task].metric(item.metric)) is not None}
    parts = [
        [f"## Table {item.number}: {item.title}"],
        [*_about_paper(item, rows, names), *_about_ours(ours, targets, metrics, names)],
        _grid(item, rows, metrics, names),
        [f"Verdict: {'; '.join(dict.fromkeys(row['verdict'] for row in ours))}."] if ours else [],
        _missing(item, ours, frame.attrs["command"]),
        _notes(item, rows, ours, targets, metrics, names),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _about_paper(item: ScoreTable, rows: Sequence[dict[str, Any]], names: Mapping[str, Mapping[str, str]]) -> list[str]:
    if not item.facts:
        return ["An ablation of ours: the paper has no such table."]
    models = _joined(_model(row["paper_model"], names) for row in rows if _there(row["paper_model"]))
    spreads = _joined(
        f"±{_percent(row['paper_fluctuation'])} ({_task(row['task'], names)})"
        for row in rows
        if _there(row["paper_fluctuation"])
    )
    return [f"Paper: {models}, {item.facts['unit']}" + (f"; fluctuation {spreads}." if spreads else ".")]


def _about_ours(
    ours: Sequence[dict[str, Any]],
    targets: Mapping[str, Targets],
    metrics: Mapping[str, Metric],
    names: Mapping[str, Mapping[str, str]],
) -> list[str]:
    """Says line by line what ours are: metric, protocol, seeds, settings, examples and their targets."""
    if not ours:
        return []
    first = ours[0]
    seeds = sorted({seed for row in ours for seed in row["seeds"]})
    scored = _joined(metric.title for metric in metrics.values())
    words = [
        f"Ours (scale={first['scale']}): {scored}, {Protocol(first['protocol']).words}; mean "
        f"[two-sided 95 % t interval] over n seeds ({', '.join(map(str, seeds))})."
    ]
    for (task, model), cells in _by(ours, "task", "model").items():
        settings = {
            key: _joined(row["settings"][key] for row in cells if key in row["settings"])
            for key in cells[0]["settings"]
        }
        told = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in settings.items())
        data = next((row["data"] for row in cells if _there(row["data"])), None)
        line = [f"{_model(model, names)} on {_task(task, names)}"]
        line += [told] if told else []
        line += [targets[task].summary(data)] if data is not None else []
        words.append(f"- {'; '.join(line)}.")
    return words


def _grid(
    item: ScoreTable,
    rows: Sequence[dict[str, Any]],
    metrics: Mapping[str, Metric],
    names: Mapping[str, Mapping[str, str]],
) -> list[str]:
    """Lays out the cells: a block of lines for each row of the item, a line for each task and model."""
    columns = list(dict.fromkeys(row["column"] for row in rows))
    if all(isinstance(column, int) for column in columns):
        columns.sort()
    with_baseline = any(_there(row["majority"]) for row in rows)
    units = list(dict.fromkeys(metric.unit.value for metric in metrics.values())) or [Unit.percent.value]
    header = [item.rows.label, " / ".join(units), *(f"{item.columns.label} = {column}" for column in columns)]
    lines = [header + ([_joined(metric.baseline or "" for metric in metrics.values())] if with_baseline else [])]
    for row, block in _by(rows, "row").items():
        for position, cells in enumerate(_by(block, "task", "model").values()):
            at = {cell["column"]: cell for cell in cells}
            line = [str(row[0]) if position == 0 else "", _whose(cells, names)]
            metric = metrics.get(cells[0]["task"], Metric(item.metric, Unit.percent))
            line += [_cell(at[column], metric) if column in at else "" for column in columns]
            baseline = next((cell["majority"] for cell in cells if _there(cell["majority"])), None)
            lines.append(line + ([metric.format(baseline) if baseline is not None else ""] if with_baseline else []))
    return aligned(lines)


def _whose(cells: Sequence[dict[str, Any]], names: Mapping[str, Mapping[str, str]]) -> str:
    paper, ours = any(_there(cell["paper"]) for cell in cells), any(cell["n_expected"] for cell in cells)
    who = " / ".join([*(["paper"] if paper else []), *(["ours"] if ours else [])])
    model = f" ({_model(cells[0]['model'], names)})" if ours else ""
    return f"{who}, {_task(cells[0]['task'], names)}{model}"


def _cell(row: dict[str, Any], metric: Metric) -> str:
    """Writes one cell: the paper's number, ours, or both."""
    paper = [metric.format(row["paper"])] if _there(row["paper"]) else []
    return " / ".join(paper + ([_our_cell(row, metric)] if row["n_expected"] else []))


def _our_cell(row: dict[str, Any], metric: Metric) -> str:
    """Writes `83.4 [82.1, 84.7] n=2`, or a dash with what is missing; never a mean over a part of the seeds."""
    if _there(row["reason"]):
        return DASH
    if row["missing"]:
        states = [missing["state"] for missing in row["missing"]]
        named = [f"{states.count(state)} {state}" for state in dict.fromkeys(states) if state != "todo"]
        finished = f"{row['n']}/{row['n_expected']} seeds"
        return f"{DASH} ({', '.join([finished, *named])})"
    interval = f" [{metric.format(row['low'])}, {metric.format(row['high'])}]" if _there(row["low"]) else ""
    return f"{metric.format(row['mean'])}{interval} n={row['n']}"


def _missing(item: ScoreTable, ours: Sequence[dict[str, Any]], whole: str) -> list[str]:
    """Says what is missing, each cause once, with the command that supplies it."""
    causes: dict[tuple[str, str], list[tuple[dict[str, Any], int]]] = {}
    for row in ours:
        for missing in row["missing"]:
            cause = (missing["state"], _one_line(missing["reason"] or ""))
            causes.setdefault(cause, []).append((row, missing["seed"]))
    planned = list(dict.fromkeys(row["reason"] for row in ours if _there(row["reason"])))
    lines = []
    for (state, reason), found in causes.items():
        cells = list({(row["row"], row["column"], row["task"], row["model"]): row for row, _ in found}.values())
        what = f"{len(found)} {'run' if len(found) == 1 else 'runs'} {STATES.get(state, state)}"
        where = f" ({_where(item, cells, ours)}{f', seed {found[0][1]}' if len(found) == 1 else ''})"
        command = "" if state == "diverged" else f"\n  `{cells[0]['command'] if len(cells) == 1 else whole}`"
        lines.append(f"- {what}{where}{f': {reason}' if reason else '.'}{command}")
    lines += [f"- planned, cannot be run yet: {reason}." for reason in planned]
    total = sum(row["n_expected"] for row in ours)
    lacking = total - sum(row["n"] for row in ours)
    return [f"Missing: {lacking} of {total} runs.", *lines] if lines else []


def _where(item: ScoreTable, cells: Sequence[dict[str, Any]], ours: Sequence[dict[str, Any]]) -> str:
    """Names a few cells."""
    if len(cells) == sum(not _there(row["reason"]) for row in ours) > 1:
        return "in all cells"
    named = [f"{item.rows.label} {row['row']} {item.columns.label} = {row['column']}" for row in cells[:3]]
    return "; ".join(named) + (f" and {len(cells) - 3} more cells" if len(cells) > 3 else "")


def _notes(
    item: ScoreTable,
    rows: Sequence[dict[str, Any]],
    ours: Sequence[dict[str, Any]],
    targets: Mapping[str, Targets],
    metrics: Mapping[str, Metric],
    names: Mapping[str, Mapping[str, str]],
) -> list[str]:
    """Collects what a reader must know: how to read the cells, flags, models, where the numbers come from."""
    notes = list(item.notes)
    if any(_there(row["paper"]) for row in ours):
        notes.append("A cell that both have: the paper's number / ours.")
    if ours and len(ours) < len(list(_by(ours, "task", "model"))) * len({(r["row"], r["column"]) for r in rows}):
        notes.append("A blank or a line that is not there: this scale does not run it.")
    if any(row["missing"] for row in ours):
        notes.append(f"{DASH}: no number until all seeds of the cell are finished (finished/expected).")
    for n in sorted({row["n"] for row in ours if 2 <= row["n"] < FEW_SEEDS and not row["missing"]}):
        notes.append(
            f"An interval over {n} seeds reaches {half_width_in_standard_errors(n):.1f} standard errors of the mean to "
            "each side: it says little."
        )
    if any(_there(row["majority"]) for row in ours):
        named = {metric.baseline for metric in metrics.values()}
        baselines = [metric for task in metrics for metric in targets[task].metrics if metric.name in named]
        notes += dict.fromkeys(f"{metric.name}: {metric.about}." for metric in baselines)
    flagged = list(dict.fromkeys(flag for row in ours for flag in row["flags"]))
    for flag in flagged:
        cells = [row for row in ours if flag in row["flags"]]
        count, total = sum(row["flags"][flag] for row in cells), sum(row["n"] for row in ours)
        notes.append(f"Flag {flag} in {count} of {total} runs ({_where(item, cells, ours)}).")
    printed = list(dict.fromkeys(name for row in ours for name in (row["model"], row["task"])))
    notes += [names["footnotes"][name] for name in printed if name in names["footnotes"]]
    if commits := list(dict.fromkeys(commit for row in ours for commit in row["commits"])):
        notes.append(f"Our runs were computed at commit {', '.join(commits)}.")
    if places := list(dict.fromkeys(place for row in ours for place in row["computed_on"])):
        differ = "on machines or versions that differ, which changes results a little" if len(places) > 1 else "on"
        notes.append(f"Computed {differ}{':' if len(places) > 1 else ''} {'; '.join(places)}.")
    return ["Notes:", *(f"- {note}" for note in notes)] if notes else []


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _by(rows: Iterable[dict[str, Any]], *keys: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Groups rows, in the order of their first appearance."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] if _there(row[key]) else None for key in keys), []).append(row)
    return groups


def _there(value: Any) -> bool:
    """Says whether a cell of the frame holds something."""
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if _there(value) else None


def _percent(score: float) -> str:
    return f"{100 * score:.1f}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _joined(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(f"{value:g}" if isinstance(value, float) else str(value) for value in values))


def _task(name: str, names: Mapping[str, Mapping[str, str]]) -> str:
    return names["tasks"].get(name, name)


def _model(name: str, names: Mapping[str, Mapping[str, str]]) -> str:
    return names["models"].get(name, name)
