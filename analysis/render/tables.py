"""Cells become a printed table. Only here and in figures are scores printed in their unit, as percent."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analysis.cell import Cell, Place, SeedRun, Table, peft_of, records
from analysis.render import tuning
from analysis.render.printed import PrintedTable
from analysis.states import STATES
from analysis.stats import few_seeds
from lora_repro.store.status import State
from lora_repro.tasks.targets import split_name

DASH = "—"
CHOOSE_EXAMPLES = ("train_size", "eval_size", "test_size", "subset_seed", "scored_subset_seed", "permute_labels")
"""Keys of a task that choose among examples; others, as its form, change their texts, of which a sha256 is taken."""
NESTED = ("tuning", "data", "flags", "settings", "commits", "computed_on")
"""Of a cell's record, what CSV leaves out."""
SIZES = ("task.train_size", "task.eval_size", "task.test_size")
"""Keys whose null is a size too: all examples."""

Names = Mapping[str, Mapping[str, str]]
"""How tasks and models are printed, and their footnotes (analysis/names.yaml)."""


def printed(table: Table, names: Names) -> PrintedTable:
    """Writes title, what is compared, the grid, and what a reader must know of it."""
    verdicts = list(dict.fromkeys(cell.verdict for cell in table.ours if cell.verdict is not None))
    verdict = [f"Verdict: {'; '.join(verdicts)}."] if verdicts else []
    found = records(table)
    return PrintedTable(
        title=table.title,
        grid=_grid(table, names),
        records=[_unnested(record) for record in found],
        above=[*_about_paper(table, names), *about_ours(table, names)],
        below=[verdict, missing(table, names), notes_of(table, names)],
        json=found,
    )


def _unnested(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what CSV holds of a cell's record."""
    missing = [f"{run['run_id']}: {run['state']}" for run in record["missing"]]
    return {key: value for key, value in record.items() if key not in NESTED} | {"missing": missing}


def _about_paper(table: Table, names: Names) -> list[str]:
    if not table.is_item:
        return []
    if table.unit is None:
        return ["An ablation of ours: the paper has no such table."]
    facts = [(cell, cell.paper) for cell in table.cells if cell.paper is not None]
    models = _joined(_model(paper.model, names) for _, paper in facts)
    spreads = _joined(
        f"±{cell.metric.format(paper.fluctuation)} ({task_name(cell.place.task, names)})"
        for cell, paper in facts
        if paper.fluctuation is not None
    )
    return [f"Paper: {models}, {table.unit}" + (f"; fluctuation {spreads}." if spreads else ".")]


def about_ours(table: Table, names: Names) -> list[str]:
    """Says line by line what ours are: metric, protocol, seeds, settings (but false), examples and targets."""
    ours = table.ours
    if not ours:
        return []
    metrics = ", ".join(dict.fromkeys(cell.metric.title for cell in ours))
    seeds = sorted({run.seed for cell in ours for run in cell.runs if run.seed is not None})
    whose = f"Ours (scale={table.scale})" if table.is_item else "Scores"
    draws = ", or over n draws of the training examples" if any(cell.is_over_draws for cell in ours) else ""
    words = [
        f"{whose}: {metrics}, {table.protocol.description}; mean [two-sided 95 % t interval] over n seeds "
        f"({', '.join(map(str, seeds))}){draws}.",
        *table.about,
    ]
    for cells in _by_model_andtask_name(ours):
        first = cells[0]
        known = [cell.settings(table.settings) for cell in cells if cell.config is not None]
        settings = {
            key: _of_columns(cells, key)
            if key in SIZES
            else _joined(values[key] for values in known if values[key] is not None)
            for key in table.settings
            if table.beneath is None or key != table.beneath.key
        }
        named = {key: value for key, value in settings.items() if value not in ("", "false")}
        described = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in named.items())
        line = [f"{_model(first.model, names)} on {task_name(first.task, names)}"]
        line += [described] if described else []
        line += list(dict.fromkeys(cell.about_data for cell in cells if cell.about_data))
        words.append(f"- {'; '.join(line)}.")
    return words


def _of_columns(cells: Sequence[Cell], key: str) -> str:
    """Writes sizes, `500 (column 100), all (column all)` where columns differ; empty where each is the whole split."""
    columns: dict[str, list[str]] = {}
    for cell in cells:
        if cell.config is not None:
            value = cell.settings([key])[key]
            name = str(cell.place.column).removeprefix(f"{cell.task} ")
            columns.setdefault("all" if value is None else str(value), []).append(name)
    if len(columns) < 2:
        return "".join(columns).removeprefix("all")
    return ", ".join(f"{value} (column {_joined(there)})" for value, there in columns.items())


def _grid(table: Table, names: Names) -> list[list[str]]:
    """Lays out the cells: a block of lines for each row, in it a line for each task, model and metric."""
    cells = table.cells
    columns = table.column_values
    named = dict.fromkeys(cell.metric.baseline or "" for cell in cells if cell.baseline is not None)
    are_several = len(named) > 1
    baselines = "baseline" if are_several else _joined(named)
    units = _joined(cell.metric.unit.value for cell in cells) if table.is_item else "task (model)"
    header = [units, *(f"{table.columns} = {column}" if table.columns else str(column) for column in columns)]
    header += [baselines] if baselines else []
    lines = [[table.rows, *header]]
    for row, block in _groups(cells, lambda cell: cell.place.row).items():
        body: list[list[str]] = []
        beneath: list[str] = []
        for line in _lines(block):
            at = {cell.place.column: cell for cell in line}
            settings = [_beneath(table, at[column]) if column in at else "" for column in columns]
            if table.beneath is not None and settings != beneath:
                body.append([table.beneath.facts, *settings, *([""] if baselines else [])])
                beneath = settings
            baseline = next((cell for cell in line if cell.baseline is not None), None)
            scores = [_cell(at[column]) if column in at else "" for column in columns]
            end = [_baseline(baseline, are_several) if baseline is not None else ""] if baselines else []
            body.append([_whose(line, table, names), *scores, *end])
        lines += [[str(row) if number == 0 else "", *line] for number, line in enumerate(body)]
    return lines if table.rows else [line[1:] for line in lines]


def _baseline(cell: Cell, is_named: bool) -> str:
    """Writes a cell's baseline, with its name if the table has several."""
    return f"{_score(cell, cell.baseline)}{f' ({cell.metric.baseline})' if is_named else ''}"


def _whose(line: Sequence[Cell], table: Table, names: Names) -> str:
    """Names a line: whose numbers, task and model, and the metric where lines have different ones."""
    place = line[0].place
    named = line_name(place, names)
    if not table.is_item:
        return ", ".join(filter(None, [named, place.metric and line[0].metric.title]))
    paper, ours = any(cell.paper is not None for cell in line), any(cell.runs for cell in line)
    who = " / ".join([*(["paper"] if paper else []), *(["ours"] if ours else [])])
    return f"{who}, {named}"


def line_name(place: Place, names: Names) -> str:
    """Names task and model: `movies (minilm)`, or the one of them that is no axis."""
    task, model = task_name(place.task, names), _model(place.model or "", names)
    return f"{task} ({model})" if task and model else task or model


def _beneath(table: Table, cell: Cell) -> str:
    """Writes what stands under a column: the paper's value and ours, once where they are equal."""
    if table.beneath is None:
        return ""
    fact, key = table.beneath.facts, table.beneath.key
    paper = [cell.paper.settings[fact]] if cell.paper is not None and fact in cell.paper.settings else []
    ours = [value for value in cell.settings([key]).values() if value is not None]
    return " / ".join(dict.fromkeys(map(str, paper + ours)))


def _cell(cell: Cell) -> str:
    """Writes one cell: the paper's number, ours, or both."""
    paper = [_score(cell, cell.paper.value)] if cell.paper is not None else []
    return " / ".join(paper + ([our_cell(cell)] if cell.runs else []))


def our_cell(cell: Cell) -> str:
    """Writes `83.4 [82.1, 84.7] n=2`, or a dash with what is missing; never a mean over a part of the seeds."""
    mean, low, high, n = cell.summary
    if cell.missing:
        return f"{DASH} ({states_of(cell)})"
    if mean is None:
        return DASH
    interval = f" [{_score(cell, low)}, {_score(cell, high)}]" if low is not None and high is not None else ""
    draws = " draws" if cell.is_over_draws else ""
    return f"{_score(cell, mean)}{interval} n={n}{draws}{tuning.chosen(cell)}"


def states_of(cell: Cell) -> str:
    """Writes `1/2 seeds, 1 failed`: how many runs have a score, and what is with the others that were begun."""
    states = [run.state for run in cell.missing]
    named = [f"{states.count(state)} {state}" for state in dict.fromkeys(states) if state != State.todo.value]
    return ", ".join([f"{cell.n}/{len(cell.runs)} {'runs' if cell.is_over_draws else 'seeds'}", *named])


def missing(table: Table, names: Names) -> list[str]:
    """Says what is missing, each cause once, with the command that supplies it."""
    ours = table.ours
    causes: dict[tuple[str, str], list[tuple[Cell, SeedRun]]] = {}
    for cell in ours:
        for run in cell.missing:
            causes.setdefault((run.state, _one_line(run.reason or "")), []).append((cell, run))
    lines = []
    for (state, reason), found in causes.items():
        runs = {run.run_id or (cell.place._replace(metric=None), run.seed) for cell, run in found}
        cells = _of_runs(cell for cell, _ in found)
        what = f"{len(runs)} {'run' if len(runs) == 1 else 'runs'} {STATES[state].missing}"
        seed = f", seed {found[0][1].seed}" if len(runs) == 1 else ""
        commands = list(dict.fromkeys(cell.command for cell in cells))
        command = (
            "" if state == State.diverged.value else f"\n  `{commands[0] if len(commands) == 1 else table.command}`"
        )
        lines.append(f"- {what} ({_where(table, cells, names)}{seed}){f': {reason}' if reason else '.'}{command}")
    lines += [
        f"- planned, cannot be run yet: {reason}." for reason in dict.fromkeys(c.planned for c in ours if c.planned)
    ]
    total = _distinct_runs(ours)
    lacking = total - _distinct_runs(ours, scored=True)
    return [f"Missing: {lacking} of {total} runs.", *lines] if lines else []


def _distinct_runs(cells: Sequence[Cell], scored: bool = False) -> int:
    """Counts runs once, though a table of several metrics shows each several times."""
    runs = [
        run.run_id or (cell.place._replace(metric=None), number)
        for cell in cells
        for number, run in enumerate(cell.runs)
        if not scored or run.score is not None
    ]
    return len(set(runs))


def _of_runs(cells: Iterable[Cell]) -> list[Cell]:
    """Returns of the cells that show metrics of the same runs the first one."""
    return [shown[0] for shown in _groups(cells, lambda cell: cell.place._replace(metric=None)).values()]


def _where(table: Table, cells: Sequence[Cell], names: Names) -> str:
    """Names a few cells."""
    if len(cells) == len(_of_runs(cell for cell in table.ours if cell.planned is None)) > 1:
        return "in all cells"
    several = not table.is_item and len({(cell.place.task, cell.place.model) for cell in table.ours}) > 1
    named = []
    for cell in cells[:3]:
        row = [f"{table.rows} {cell.place.row}"] if table.rows else []
        column = [f"{table.columns} = {cell.place.column}"] if table.columns else []
        line = [line_name(cell.place, names)] if several or not row + column else []
        named.append(" ".join([*line, *row, *column]))
    return "; ".join(named) + (f" and {len(cells) - 3} more cells" if len(cells) > 3 else "")


def notes_of(table: Table, names: Names) -> list[str]:
    """Collects what a reader must know: how to read the cells, flags, models, where the numbers come from."""
    ours = table.ours
    notes = list(table.notes)
    if any(cell.paper is not None for cell in ours):
        notes.append("Where a cell holds two numbers: the paper's / ours.")
    blocks = _groups(table.cells, lambda cell: cell.place.row).values()
    lines = [line for block in blocks for line in _lines(block) if any(cell.runs for cell in line)]
    named = [(_where(table, [cell], names), cell) for cell in ours]
    notes += [*tuning.sentences(named), *about_peft(named)]
    if any(len(line) < len(table.column_values) for line in lines):
        notes.append(f"Empty cell: {'this scale' if table.is_item else 'the sweep'} has no such run.")
    both = [(any(cell.runs for cell in block), any(cell.paper is not None for cell in block)) for block in blocks]
    if (True, True) in both and (False, True) in both:
        notes.append("A line that is not there: this scale has no such run.")
    if any(cell.missing for cell in ours):
        notes.append(f"{DASH}: a cell has a number once all its seeds are finished (finished/expected).")
    notes += few_seeds(cell.summary.n for cell in ours if not cell.missing and not cell.is_over_draws)
    notes += few_seeds((cell.summary.n for cell in ours if not cell.missing and cell.is_over_draws), "draws")
    notes += _about_metrics(ours)
    for flag in dict.fromkeys(flag for cell in ours for flag in cell.flags):
        cells = _of_runs(cell for cell in ours if flag in cell.flags)
        raised = {run.run_id for cell in cells for run in cell.runs if flag in run.flags}
        total = _distinct_runs(ours, scored=True)
        notes.append(f"Flag {flag} in {len(raised)} of {total} runs ({_where(table, cells, names)}).")
    notes += about_runs(ours, names)
    return ["Notes:", *(f"- {note}" for note in notes)] if notes else []


def about_runs(cells: Sequence[Cell], names: Names) -> list[str]:
    """Returns the footnotes of the models and tasks of cells, and the commits and machines of their runs."""
    printed = dict.fromkeys(name for cell in cells for name in (cell.model, cell.task))
    notes = [names["footnotes"][name] for name in printed if name in names["footnotes"]]
    commits = dict.fromkeys(commit for cell in cells for commit in cell.commits)
    notes += _of_several_copies(cells, names)
    notes += [f"Our runs were computed at commit {', '.join(commits)}."] if commits else []
    machines = list(dict.fromkeys(machine for cell in cells for machine in cell.computed_on))
    several = " on machines or versions that differ, which changes results a little:" if len(machines) > 1 else " on"
    return [*notes, *([f"Computed{several} {'; '.join(machines)}."] if machines else [])]


def about_peft(cells: Sequence[tuple[str, Cell]]) -> list[str]:
    """Says which arms mix versions of PEFT, whose tuners may differ between them.

    Args:
        cells: The table's cells, each with its name.
    """
    found = [(name, dict.fromkeys(filter(None, map(peft_of, cell.results)))) for name, cell in cells]
    mixed = [f"{name} ({', '.join(versions)})" for name, versions in found if len(versions) > 1]
    return [f"Runs of one arm were computed with several versions of PEFT: {'; '.join(mixed)}."] if mixed else []


def _of_several_copies(cells: Sequence[Cell], names: Names) -> list[str]:
    """Says of which tasks runs read different examples, where no digest in conf/task forbids that."""
    found: dict[tuple[str, str, str], dict[str, set[str]]] = {}
    for cell in cells:
        for result in cell.results:
            shape = {key: value for key, value in result["config"]["task"].items() if key not in CHOOSE_EXAMPLES}
            for split, described in result.get("data", {}).items():
                if "sha256" in described:
                    copies = found.setdefault((cell.task, split, json.dumps(shape, sort_keys=True)), {})
                    copies.setdefault(described["sha256"], set()).add(result["run_id"])
    return [
        f"The runs on {task_name(task, names)} read different examples of {split_name(split)}, so that their scores do "
        f"not compare: sha256 {', '.join(f'{sha[:10]} in {len(runs)}' for sha, runs in copies.items())}. Compute them "
        "on one copy of the files."
        for (task, split, _), copies in found.items()
        if len(copies) > 1
    ]


def _about_metrics(ours: Sequence[Cell]) -> list[str]:
    """Says what the printed metrics and baselines are, and which way is better where it is not up."""
    notes = []
    for cell in ours:
        if not cell.metric.higher_is_better:
            notes.append(f"{cell.metric.name}: lower is better.")
        baseline = cell.targets.metric(cell.metric.baseline) if cell.targets and cell.metric.baseline else None
        if baseline is not None and cell.baseline is not None:
            notes.append(f"{baseline.name}: {baseline.about}.")
    return list(dict.fromkeys(notes))


def _groups(cells: Iterable[Cell], key: Any) -> dict[Any, list[Cell]]:
    """Groups cells, in the order of their first appearance."""
    groups: dict[Any, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(key(cell), []).append(cell)
    return groups


def _lines(cells: Iterable[Cell]) -> Iterable[list[Cell]]:
    """Groups cells into the lines of a block."""
    return _groups(cells, lambda cell: (cell.place.task, cell.place.model, cell.place.metric)).values()


def _by_model_andtask_name(cells: Iterable[Cell]) -> Iterable[list[Cell]]:
    return _groups(cells, lambda cell: (cell.task, cell.model)).values()


def _score(cell: Cell, value: float | None) -> str:
    return "" if value is None else cell.metric.format(value)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _joined(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(f"{value:g}" if isinstance(value, float) else str(value) for value in values))


def task_name(name: str, names: Names) -> str:
    """Returns how a task is printed."""
    return names["tasks"].get(name, name)


def _model(name: str, names: Names) -> str:
    return names["models"].get(name, name)
