"""The cells of a paper item: the paper's numbers and ours, side by side.

A cell of ours is the set of runs that the item's sweep expands to, joined to the store by run id.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from analysis.cell import Cell, PaperFact, Place, Table, label, records, value_of
from analysis.join import Commands, planned_runs, refuse_mixed, seed_runs, shown_metric
from analysis.kinds.scores import ScoreTable
from analysis.protocol import Protocol
from analysis.runs import flat
from analysis.store import DEFAULT_STORE
from analysis.verdicts import verdict_of
from lora_repro.config.compose import compose
from lora_repro.errors import InputError, did_you_mean
from lora_repro.store.record import plain
from lora_repro.sweep.grid import Job, Point, Sweep, load
from lora_repro.tasks import Metric, Unit


def cells(
    item: ScoreTable,
    scale: str,
    store: str | Path = DEFAULT_STORE,
    given: Sequence[str] = (),
    protocol: Protocol = Protocol.last_epoch,
) -> pd.DataFrame:
    """Returns one row for each cell that the paper or our sweep has.

    Columns: `row`, `column`, `task`, `model` (of our runs; None where only the paper has the cell), `paper`,
    `paper_fluctuation`, `paper_model`; `mean`, `low`, `high`, `n`, `n_expected`, `seeds`, `run_ids` and `missing` (run
    id, seed, state and reason of each run that does not count: while one is missing there is no mean); `verdict`,
    `reason` (why it is planned), `command` (supplies what the cell lacks); `majority`, `data`, `flags` (how many runs
    have each), `settings`, `commits`, `computed_on`; `scale`, `protocol`, `metric`. Numbers of the paper and ours
    are in [0, 1].

    `frame.attrs["command"]` is the command that supplies the whole table; `frame.attrs["outside"]` holds the ids of
    runs of the sweep that have no row or column.

    `read_cells` takes the same arguments and returns typed cells, which keep the score of every seed.
    """
    table = read_cells(item, scale, store, given, protocol)
    frame = pd.DataFrame(records(table))
    frame.attrs = {"command": table.command, "outside": table.outside}
    return frame


def read_cells(
    item: ScoreTable,
    scale: str,
    store: str | Path = DEFAULT_STORE,
    given: Sequence[str] = (),
    protocol: Protocol = Protocol.last_epoch,
    sweep: Sweep | None = None,
) -> Table:
    """Returns the cells that the paper or our sweep has, in the table's order.

    Args:
        item: The paper's item.
        scale: A scale of its sweep.
        store: The folder that holds runs/.
        given: Further overrides, as for the sweep: `seed=0,1,2`.
        protocol: Which number is taken from a run.
        sweep: The sweep of these overrides, if it is loaded already.

    Raises:
        InputError: If the sweep is impossible, no run has a key of the item, or runs of a cell differ in more than
            their seed.
    """
    base = [f"+sweeps={item.sweep}", f"scale={scale}"]
    sweep = load(compose, [*base, *given], store) if sweep is None else sweep
    _refuse_unknown_keys(item, sweep)
    jobs, outside = _by_place(item, sweep.reported)
    planned = _planned_by_place(item, sweep)
    paper = paper_facts(item)
    commands = Commands(base, given, store, sweep.reported)
    found = []
    for place in _places(item, [*jobs, *planned], paper):
        fact = paper.get((place.task, place.row, place.column))
        verdict = verdict_of(scale) if place in jobs or place in planned else None
        if place in jobs:
            run = jobs[place][0].shown
            metric = shown_metric(run.task, item.metrics, item.name)
            runs = seed_runs(jobs[place], store, metric, protocol)
            found.append(Cell(place, metric, fact, runs, run, commands.of(jobs[place]), verdict, jobs[place][0].tuning))
        else:
            runs = planned_runs(planned.get(place, ()))
            found.append(Cell(place, Metric(item.metrics[-1], Unit.percent), fact, runs, verdict=verdict))
    return Table(
        title=f"Table {item.number}: {item.title}",
        rows=item.rows.label,
        columns=item.columns.label,
        cells=found,
        protocol=protocol,
        scale=scale,
        command=commands.whole(),
        outside=outside,
        settings=item.settings,
        notes=item.notes,
        unit=item.facts.get("unit"),
        beneath=item.beneath,
    )


def _refuse_unknown_keys(item: ScoreTable, sweep: Sweep) -> None:
    """Refuses a key of the item that no run has, planned ones included.

    Raises:
        InputError: With the keys that runs have.
    """
    runs = [job.resolved.run for job in sweep.reported]
    known = dict.fromkeys(key for run in runs for key in flat(plain(run)))
    points = [*(job.point for job in sweep.reported), *(point for point, _ in sweep.planned)]
    known |= dict.fromkeys(key for point in points for key in point)
    asked = [("rows: key", item.rows.key), ("columns: key", item.columns.key)]
    if runs:
        asked += [] if item.beneath is None else [("beneath: key", item.beneath.key)]
        asked += [("settings", key) for key in item.settings]
    for where, key in asked:
        if key not in known and all(value_of(run, key) is None for run in runs):
            raise InputError(
                f"{item.name}.yaml: {where}: no run of the sweep has a key {key!r}.{did_you_mean(key, known)}"
            )


def _by_place(item: ScoreTable, jobs: Iterable[Job]) -> tuple[dict[Place, list[Job]], list[str]]:
    """Sorts jobs into cells, and returns the ids of those without a row or a column apart."""
    places: dict[Place, list[Job]] = {}
    outside = []
    for job in jobs:
        run = job.shown
        row, column = value_of(run, item.rows.key), value_of(run, item.columns.key)
        if row is None or column is None:
            outside.append(job.run_id)
        else:
            place = Place(run.task.name, run.model.name, str(label(row)), label(column))
            places.setdefault(place, []).append(job)
    for place, members in places.items():
        refuse_mixed(f"{place.row}, {place.column} on {place.task}", members)
    return places, outside


def _planned_by_place(item: ScoreTable, sweep: Sweep) -> dict[Place, list[tuple[Point, str]]]:
    places: dict[Place, list[tuple[Point, str]]] = {}
    for point, reason in sweep.planned:
        row, column = point.get(item.rows.key), point.get(item.columns.key)
        if row is not None and column is not None:
            place = Place(point["task"], point["model"], str(label(row)), label(column))
            places.setdefault(place, []).append((point, reason))
    return places


def _places(
    item: ScoreTable, ours: Sequence[Place], paper: Mapping[tuple[str, str, str | int | float], PaperFact]
) -> list[Place]:
    """Returns the table's cells in its order: by row, the paper's lines first, then by column."""
    lines: list[tuple[str, str | None]] = list(dict.fromkeys((place.task, place.model) for place in ours))
    ours_tasks = {task for task, _ in lines}
    paper_lines = [(task, None) for task in dict.fromkeys(task for task, _, _ in paper) if task not in ours_tasks]
    rows = list(dict.fromkeys([*map(str, item.rows.values), *(place.row for place in ours)]))
    columns = list(dict.fromkeys([*item.columns.values, *(place.column for place in ours)]))
    if all(isinstance(column, int) for column in columns):
        columns.sort()
    there = set(ours)
    candidates = [
        Place(task, model, row, column) for row in rows for task, model in [*paper_lines, *lines] for column in columns
    ]
    return [place for place in candidates if place in there or (place.task, place.row, place.column) in paper]


def paper_facts(item: ScoreTable) -> dict[tuple[str, str, str | int | float], PaperFact]:
    """Returns the paper's numbers by task, row and column. The facts hold percent."""
    found = {}
    metrics = item.facts.get("metrics", {})
    for fact in item.facts.get("rows", []):
        for row, row_fact in item.rows.values.items():
            if fact[item.rows.facts] != row_fact:
                continue
            for column, column_fact in item.columns.values.items():
                if item.columns.facts is None:
                    scores = {fact["task"]: column_fact}
                else:
                    scores = {task: task for task in item.tasks if fact[item.columns.facts] == column_fact}
                for task, key in scores.items():
                    if key in fact:
                        spread = metrics.get(item.fluctuation.get(task))
                        found[task, str(row), column] = PaperFact(
                            round(fact[key] / 100, 6),
                            None if spread is None else round(spread / 100, 6),
                            fact["model"],
                            fact,
                        )
    return found
