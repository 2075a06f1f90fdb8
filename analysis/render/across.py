"""A table of methods across tasks, or across numbers of training examples, becomes a printed one."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from statistics import fmean
from typing import Any

from analysis.cell import Cell, Table, tuning_record
from analysis.kinds.across import ALL, Across, Block, Line
from analysis.kinds.facts import SPREAD
from analysis.printed_counts import printed_size
from analysis.protocol import Protocol, pick_on
from analysis.render.methods import ALPHA, EQUAL, signed
from analysis.render.printed import PrintedTable
from analysis.render.tables import DASH, Names, about_ours, missing, notes_of, our_cell, task_name
from analysis.stats import Paired, Summary, holm
from analysis.verdicts import verdict_of

UNDECIDED = "~"
"""Behind a difference whose interval holds 0."""
MEAN = "mean"
BIAS = "best epoch on dev minus cross-fitted"


def printed(table: Across, names: Names) -> PrintedTable:
    """Writes title, what is compared, lines, differences and selection bias, and what a reader must know of them."""
    cells = _as_table(table)
    ours = [record for block in table.blocks for record in _our_records(table, block)]
    records = [*_paper_records(table), *ours]
    verdict = [f"Verdict: {verdict_of(table.scale)}."] if table.lines else []
    planned = [f"Planned, cannot run yet: {reason}." for reason in table.planned]
    return PrintedTable(
        title=cells.title,
        grid=_grid(table, names),
        records=[{key: value for key, value in record.items() if key != "tuning"} for record in records],
        above=[*_about_paper(table), *about_ours(cells, names), *planned],
        below=[verdict, missing(cells, names), [*(notes_of(cells, names) or ["Notes:"]), *_own_notes(table, names)]],
        json=records,
    )


def _as_table(table: Across) -> Table:
    """Returns the cells as a table of scores, of which all is written that does not depend on how they are laid out."""
    item = table.item
    return Table(
        title=f"Table {item.number}: {item.title}",
        rows="method",
        columns=f"task and {item.columns.second}" if item.columns.second else "task",
        cells=[cell for line in table.lines for cell in line.cells.values()],
        protocol=table.protocol,
        scale=table.scale,
        command=table.command,
        outside=[],
        settings=item.about,
        notes=item.notes,
        unit=item.facts.get("unit"),
    )


def _about_paper(table: Across) -> list[str]:
    shown = dict.fromkeys(row["model"] for block in table.blocks for row in block.paper)
    if not shown:
        return []
    spread = (
        "; ± is its spread over seeds" if any("_std" in key for row in table.item.facts["rows"] for key in row) else ""
    )
    return [f"Paper: {', '.join(shown)}, {table.item.facts['unit']}{spread}."]


# The grid.


def _grid(table: Across, names: Names) -> list[list[str]]:
    item = table.item
    has_mean = item.mean and any(len(block.columns) > 1 for block in table.blocks)
    has_average = has_mean and item.paper is not None and item.paper.average is not None and _shows_paper(table)
    ends = [*([MEAN] if has_mean else []), *(["paper's own mean"] if has_average else [])]
    header = ["model", "method", "settings", "trained", *(_header(table, column, names) for column in table.columns)]
    lines = [[*header, *ends]]
    for block in table.blocks:
        lines += [line[: len(lines[0])] for line in _block(table, block, names)]
    return lines


def _shows_paper(table: Across) -> bool:
    return any(block.paper for block in table.blocks)


def _header(table: Across, column: str, names: Names) -> str:
    """Writes `RTE (accuracy)`, `MNLI, n = 100 (accuracy)` or `E2E (bleu)`."""
    cell = next((line.cells[column] for line in table.lines if column in line.cells), None)
    metric = table.item.columns.metric(column) if cell is None else cell.metric
    return f"{column_name(table, column, names)}{'' if metric is None else f' ({metric.name})'}"


def column_name(table: Across, column: str, names: Names) -> str:
    """Returns how a column is printed."""
    task, _, value = column.partition(" ")
    if table.item.columns.metrics:
        return task_name(task, names)
    label = f", {table.item.columns.label} = {value}" if value and value != ALL else f", {value}" if value else ""
    return f"{task_name(task, names)}{label}"


def _block(table: Across, block: Block, names: Names) -> list[list[str]]:
    """Writes the lines of a model: scores, with the paper's before ours, then differences and selection bias."""
    lines = []
    in_paper = [] if table.item.paper is None else table.item.paper.methods.values()
    order = dict.fromkeys([*in_paper, *(line.method for line in block.lines)])
    for method in order:
        rows = [row for row in block.paper if _method(table, row) == method]
        lines += [_paper_line(table, block, row) for row in rows]
        lines += [_our_line(table, block, line, names) for line in block.lines if line.method == method]
    lines += _baselines(table, block, names)
    baseline = next((line for line in block.lines if line.is_baseline), None)
    if baseline is not None:
        others = [line for line in block.lines if line is not baseline]
        lines += [_difference_line(table, block, line, baseline, names) for line in others]
    if any(bias.summary.n for bias in block.biases.values()):
        lines.append(_bias_line(table, block, names))
    return lines


def _method(table: Across, row: Mapping[str, Any]) -> str | None:
    assert table.item.paper is not None
    return table.item.paper.methods.get(row["method"])


def _model(model: str, names: Names) -> str:
    return names["models"].get(model, model)


def _paper_line(table: Across, block: Block, row: Mapping[str, Any]) -> list[str]:
    paper = table.item.paper
    assert paper is not None
    cells = [_paper_cell(table, column, row) for column in table.columns]
    mean = _paper_mean(table, block, row)
    settings = [f"{key}={row[key]}" for key in paper.settings if key in row]
    marks = " ".join([*settings, *(words for key, words in paper.marks.items() if row.get(key))])
    size = "" if paper.trained is None else printed_size(row[paper.trained])
    average = "" if paper.average is None else str(row.get(paper.average, ""))
    whose = f"{row['model']} (paper)"
    return [whose, str(_method(table, row)), marks, size, *cells, "" if mean is None else f"{mean:.1f}", average]


def _paper_cell(table: Across, column: str, row: Mapping[str, Any]) -> str:
    key = table.item.columns.facts.get(column, "")
    is_share = key in table.item.columns.shares
    value, spread = (as_printed(row.get(each), is_share) for each in (key, f"{key}{SPREAD}"))
    return "" if value is None else value if spread is None else f"{value} ±{spread}"


def as_printed(value: float | None, is_share: bool) -> str | None:
    """Writes a number of the paper as the facts hold it, shares in percent; a float keeps no zero at its end: 0.4."""
    if value is None or not is_share:
        return None if value is None else str(value)
    return f"{(Decimal(str(value)) * 100).normalize():f}"


def _paper_mean(table: Across, block: Block, row: Mapping[str, Any]) -> float | None:
    """Returns the mean of what a row prints for the tasks of our lines, in percent; None where it lacks one of them."""
    values = [row.get(table.item.columns.facts.get(column, "")) for column in block.columns]
    if not table.item.mean or len(values) < 2 or any(value is None for value in values):
        return None
    return fmean(value for value in values if value is not None)


def _our_line(table: Across, block: Block, line: Line, names: Names) -> list[str]:
    settings = " ".join(f"{key}={value}" for key, value in line.settings.items())
    cells = [our_cell(line.cells[column]) if column in line.cells else "" for column in table.columns]
    mean = "" if len(block.columns) < 2 or line.cells.keys() != set(block.columns) else DASH
    if line.mean is not None:
        mean = f"{_interval(line, line.mean)} n={line.mean.n}"
    return [_model(line.model, names), line.method, settings, f"{line.trained:,}", *cells, mean, ""]


def _interval(line: Line, summary: Summary) -> str:
    cell = next(iter(line.cells.values()))
    mean, low, high = (None if value is None else cell.metric.format(value) for value in summary[:3])
    return f"{mean}" if low is None else f"{mean} [{low}, {high}]"


def _baselines(table: Across, block: Block, names: Names) -> list[list[str]]:
    """Writes what an answer gets that ignores the input, where metrics have such a baseline."""
    found: dict[str, Cell] = {}
    for line in block.lines:
        for column, cell in line.cells.items():
            if cell.baseline is not None and (column not in found or cell.baseline > (found[column].baseline or 0)):
                found[column] = cell
    if not found:
        return []
    name = " or ".join(dict.fromkeys(cell.metric.baseline or "" for cell in found.values()))
    scores = {column: cell.metric.format(cell.baseline or 0.0) for column, cell in found.items()}
    return [[_model(block.model, names), name, "", "", *(scores.get(column, "") for column in table.columns), "", ""]]


def _difference_line(table: Across, block: Block, line: Line, baseline: Line, names: Names) -> list[str]:
    settings = " ".join(f"{key}={value}" for key, value in line.settings.items())
    cells = []
    for column in table.columns:
        if column not in line.cells or column not in baseline.cells:
            cells.append("")
            continue
        found = line.differences.get(column)
        cells.append(DASH if found is None else _difference(line.cells[column], found))
    cell = next(iter(line.cells.values()))
    mean = "" if line.mean_difference is None else _difference(cell, line.mean_difference)
    return [_model(block.model, names), f"{line.method} minus {baseline.name}", settings, "", *cells, mean, ""]


def _difference(cell: Cell, found: Paired) -> str:
    """Writes a difference with its interval, marked where that holds 0, so that seeds alone may make the difference."""
    if found.low is None or found.high is None:
        return f"{signed(cell, found.mean)} n={found.n}"
    if found.are_equal:
        return f"{signed(cell, found.mean)} {EQUAL} n={found.n}"
    mark = f" {UNDECIDED}" if found.low <= 0 <= found.high else ""
    return f"{signed(cell, found.mean)} [{signed(cell, found.low)}, {signed(cell, found.high)}]{mark}"


def _bias_line(table: Across, block: Block, names: Names) -> list[str]:
    cells = []
    for column in table.columns:
        mean, low, high, n = block.biases[column].summary if column in block.biases else Summary(None, None, None, 0)
        if mean is None:
            cells.append("")
            continue
        cell = next(line.cells[column] for line in block.lines if column in line.cells)
        ends = "" if low is None or high is None else f" [{signed(cell, low)}, {signed(cell, high)}]"
        cells.append(f"{signed(cell, mean)}{ends} n={n} runs")
    return [_model(block.model, names), BIAS, "", "", *cells, "", ""]


# Notes.


def _own_notes(table: Across, names: Names) -> list[str]:
    notes, lines = [], table.lines
    if lines:
        notes.append("trained: weights that the method trains, the head not counted.")
    if table.item.mean and any(len(block.columns) > 1 for block in table.blocks):
        over = "; ".join(
            f"{block.model} {', '.join(block.columns)}" for block in table.blocks if len(block.columns) > 1
        )
        metrics = dict.fromkeys(cell.metric.name for line in lines for cell in line.cells.values())
        mixed = f" It averages {', '.join(metrics)}, as the paper's does." if len(metrics) > 1 else ""
        beside = " Of a line of the paper it is over the same tasks." if _shows_paper(table) else ""
        notes.append(f"{MEAN}: over the tasks of a model's lines, taken seed by seed ({over}).{mixed}{beside}")
    notes += _about_other_splits(table, names)
    notes += _about_differences(lines)
    if any(bias.summary.n for block in table.blocks for bias in block.biases.values()):
        tuned = any(cell.tuning is not None for line in lines for cell in line.cells.values())
        rates = (
            " Tuned values were chosen on all of dev, with other seeds: that choice is in both numbers."
            if tuned
            else ""
        )
        notes.append(
            f"{BIAS}: how much the paper's protocol flatters, at most. Dev is scored at the epoch best on it, less "
            "each half of dev at the epoch best on the other half; mean and 95 % t interval over runs of all methods, "
            f"which share dev. Tasks with a test split have none, nor have runs of one epoch.{rates if tuned else ''}"
        )
    if any(cell.is_over_draws for line in lines for cell in line.cells.values()):
        notes.append(
            f"n draws: an interval is over draws of the training examples ({table.item.draws}), the seeds of each "
            "averaged first, because runs on one draw are alike. Where a cell has one draw it is over seeds, and says "
            "nothing of another draw."
        )
    return [f"- {note}" for note in notes]


def _about_other_splits(table: Across, names: Names) -> list[str]:
    """Prints the scores on parts of dev that no column has, and on all of dev: mnli's mismatched part, and overall."""
    found: dict[str, list[str]] = {}
    for line in table.lines:
        for cell in line.cells.values():
            task = None if cell.config is None else cell.config.task
            if task is None or not task.has_overall or cell.missing:
                continue
            # dev, which chose the epoch, is half of overall, so overall is held out from nothing
            splits = [*task.scored[1:], *(["overall"] if table.protocol is not Protocol.held_out else [])]
            of_split = {
                split: [pick_on(result, cell.metric, table.protocol, split) for result in cell.results]
                for split in splits
            }
            scores = ", ".join(
                f"{split} {cell.metric.format(fmean(score.value for score in picked if score is not None))}"
                for split, picked in of_split.items()
                if picked and None not in picked
            )
            found.setdefault(task.name, []).append(f"{line.name} ({_model(line.model, names)}): {scores}")
    return [
        f"{task_name(task, names)} beside its column, at the epoch that is taken by matched dev: {'; '.join(each)}."
        for task, each in found.items()
    ]


def _about_differences(lines: Sequence[Line]) -> list[str]:
    """Says how differences are taken, and how many are there when all are tested together."""
    found = [each for line in lines for each in line.differences.values()]
    if not found:
        return []
    baselines = dict.fromkeys(line.name for line in lines if line.is_baseline)
    words = (
        f"minus {' or '.join(baselines)}: the difference of two methods with the same seed and training examples, mean "
        f"[two-sided 95 % t interval]. {UNDECIDED}: the interval holds 0."
    )
    if any(each.are_equal for each in found):
        words += f" {EQUAL}: each seed gave the same difference, which says nothing of noise, so it is not tested."
    if tested := [each.p for each in found if each.p is not None]:
        words += (
            f" Of {len(tested)} differences {sum(p < ALPHA for p in tested)} exclude 0 one by one, and "
            f"{sum(holm(tested))} when all are tested together (Holm, {100 * ALPHA:.0f} %)."
        )
    return [words]


# Records.


def _our_records(table: Across, block: Block) -> list[dict[str, Any]]:
    found = []
    for line in block.lines:
        head = {**_head(block.model, line.method), "settings": line.settings, "trained": line.trained}
        for column, cell in line.cells.items():
            found.append({**head, "column": column, **_cell_record(table, cell)})
        if line.mean is not None:
            found.append({**head, "column": MEAN, "columns": block.columns, **line.mean._asdict()})
        differences = {**line.differences}
        if line.mean_difference is not None:
            differences[MEAN] = line.mean_difference
        baseline = next((each.name for each in block.lines if each.is_baseline), None)
        for column, each in differences.items():
            found.append({**head, "what": "difference", "baseline": baseline, "column": column, **each._asdict()})
    for column, bias in block.biases.items():
        if bias.summary.n:
            head = {**_head(block.model, None), "what": "selection bias", "column": column}
            found.append({**head, **bias.summary._asdict(), "run_ids": bias.run_ids})
    return found


def _head(model: str, method: str | None) -> dict[str, Any]:
    return {"what": "score", "source": "ours", "model": model, "method": method}


def _cell_record(table: Across, cell: Cell) -> dict[str, Any]:
    return {
        **{"task": cell.task, "metric": cell.metric.name, **cell.summary._asdict()},
        **{"over": "draws" if cell.is_over_draws else "seeds", "majority": cell.baseline},
        **{"seeds": [run.seed for run in cell.runs], "scores": [run.score for run in cell.runs]},
        **({"draws": [run.draw for run in cell.runs]} if table.item.draws is not None else {}),
        **{"run_ids": [run.run_id for run in cell.runs], "states": [run.state for run in cell.runs]},
        **{"chosen": None if cell.tuning is None else cell.tuning.chosen, "tuning": tuning_record(cell.tuning)},
        **{"protocol": table.protocol.value, "scale": table.scale, "command": cell.command},
    }


def _paper_records(table: Across) -> list[dict[str, Any]]:
    """Returns every number of the facts' rows in the unit of ours, whether it is printed beside ours or not."""
    paper = table.item.paper
    if paper is None:
        return []
    keys = dict.fromkeys(table.item.columns.facts.values())
    names_of = {key: next(c for c, each in table.item.columns.facts.items() if each == key) for key in keys}
    found = []
    for row in table.item.facts["rows"]:
        head = {"what": "score", "source": "paper", "model": row["model"], "method": paper.methods.get(row["method"])}
        head["settings"] = {key: row[key] for key in paper.settings if key in row}
        head["settings"] |= {words: True for key, words in paper.marks.items() if row.get(key)}
        head["trained"] = None if paper.trained is None else row[paper.trained]
        for key, column in names_of.items():
            if row.get(key) is not None:
                of_paper, spread = table.item.columns.of_paper, row.get(f"{key}{SPREAD}")
                sd = None if spread is None else of_paper(column, spread)
                found.append({**head, "column": column, "mean": of_paper(column, row[key]), "sd": sd})
        if paper.average is not None and row.get(paper.average) is not None:
            found.append({**head, "column": paper.average, "mean": round(row[paper.average] / 100, 6), "sd": None})
    return found
