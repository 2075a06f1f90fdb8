"""The cells of a paper item: the paper's numbers and ours in one frame.

A cell of ours is the set of runs that the item's sweep expands to, joined to the store by run id; what else lies in the
store never changes it.
"""

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis.commands.options import DEFAULT_STORE
from analysis.kinds.scores import ScoreTable
from analysis.protocol import Protocol, Scores, pick
from analysis.runs import NOT_COUNTED, elsewhere, flat, standing
from analysis.stats import summarise
from lora_repro.config.compose import compose
from lora_repro.config.identity import id_fields
from lora_repro.errors import InputError
from lora_repro.sweep.grid import Job, Point, Sweep, load, overrides

VERDICTS = {"smoke": "smoke: plumbing, not judged", "demo": "demo, not judged"}
"""What is said of our cells by scale, before any claim is judged."""
NOT_JUDGED_YET = "not judged yet"

AGGREGATES = {"mean": summarise}


class Place(NamedTuple):
    """Where a run belongs in a table."""

    task: str
    model: str | None
    """None on lines that only the paper has."""
    row: str
    column: str | int


class PaperFact(NamedTuple):
    """A number that the paper prints, in [0, 1] as our scores."""

    value: float
    fluctuation: float | None
    model: str


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
    runs of the sweep that have no row or column; `frame.attrs["targets"]` says of each task what its scores are.

    Args:
        item: The paper's item.
        scale: A scale of its sweep.
        store: The folder that holds runs/.
        given: Further overrides, as for the sweep: `seed=0,1,2`.
        protocol: Which number is taken from a run.

    Raises:
        InputError: If the sweep is impossible, or runs of a cell differ in more than their seed.
    """
    base = [f"+sweeps={item.sweep}", f"scale={scale}"]
    sweep = load(compose, [*base, *given])
    jobs, outside = _by_place(item, sweep.jobs)
    planned = _planned_by_place(item, sweep)
    paper = _paper(item)
    commands = _Commands(base, given, store, sweep.jobs)
    shared = {"scale": scale, "protocol": protocol.value, "metric": item.metric}
    rows = []
    for place in _places(item, [*jobs, *planned], paper):
        cell: dict[str, Any] = {**place._asdict(), **_paper_columns(paper.get((place.task, place.row, place.column)))}
        if place in jobs:
            cell |= _our_columns(item, jobs[place], store, protocol)
            cell |= {"command": commands.of(jobs[place])}
        elif place in planned:
            cell |= _planned_columns(*planned[place])
        if place in jobs or place in planned:
            cell |= {"verdict": VERDICTS.get(scale, NOT_JUDGED_YET)}
        rows.append(_EMPTY | cell | shared)
    frame = pd.DataFrame(rows)
    targets = {job.resolved.run.task.name: job.resolved.run.task.targets for job in sweep.jobs}
    frame.attrs = {"command": commands.whole(), "outside": outside, "targets": targets}
    return frame


_EMPTY: dict[str, Any] = {
    **dict.fromkeys(("task", "model", "row", "column", "paper", "paper_fluctuation", "paper_model")),
    **dict.fromkeys(("mean", "low", "high"), math.nan),
    **{"n": 0, "n_expected": 0, "seeds": (), "run_ids": (), "missing": ()},
    **dict.fromkeys(("verdict", "reason", "command")),
    **{"majority": math.nan, "data": None, "flags": {}, "settings": {}, "commits": (), "computed_on": ()},
}
"""A cell that only the paper has, and the order of the columns."""


def _by_place(item: ScoreTable, jobs: Iterable[Job]) -> tuple[dict[Place, list[Job]], list[str]]:
    """Sorts jobs into cells; those without a row or a column are told apart."""
    places: dict[Place, list[Job]] = {}
    outside = []
    for job in jobs:
        run = job.resolved.run
        row, column = _of(run, item.rows.key), _of(run, item.columns.key)
        if row is None or column is None:
            outside.append(job.run_id)
        else:
            place = Place(run.task.name, run.model.name, str(_label(row)), _label(column))
            places.setdefault(place, []).append(job)
    for place, members in places.items():
        _refuse_mixed(place, members)
    return places, outside


def _planned_by_place(item: ScoreTable, sweep: Sweep) -> dict[Place, tuple[list[Point], str]]:
    places: dict[Place, tuple[list[Point], str]] = {}
    for point, reason in sweep.planned:
        row, column = point.get(item.rows.key), point.get(item.columns.key)
        if row is not None and column is not None:
            place = Place(point["task"], point["model"], str(_label(row)), _label(column))
            places.setdefault(place, ([], reason))[0].append(point)
    return places


def _refuse_mixed(place: Place, jobs: Sequence[Job]) -> None:
    """Refuses a cell whose mean would be taken over more than seeds."""
    sciences = [flat(id_fields(job.resolved.run)) for job in jobs]
    keys = sorted({key for values in sciences for key in values} - {"seed"})
    for key in keys:
        values = list(dict.fromkeys(str(values.get(key)) for values in sciences))
        if len(values) > 1:
            raise InputError(
                f"{key}: a cell is a mean over seeds only, and the runs of {place.row}, {place.column} on {place.task} "
                f"differ in it (given: {', '.join(values)}).\nGive one value: {key}={values[0]}"
            )


def _places(
    item: ScoreTable, ours: Sequence[Place], paper: Mapping[tuple[str, str, str | int], PaperFact]
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


def _paper(item: ScoreTable) -> dict[tuple[str, str, str | int], PaperFact]:
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
                        )
    return found


def _paper_columns(fact: PaperFact | None) -> dict[str, Any]:
    if fact is None:
        return {"paper": math.nan, "paper_fluctuation": math.nan}
    spread = math.nan if fact.fluctuation is None else fact.fluctuation
    return {"paper": fact.value, "paper_fluctuation": spread, "paper_model": fact.model}


def _our_columns(item: ScoreTable, jobs: Sequence[Job], store: str | Path, protocol: Protocol) -> dict[str, Any]:
    scores: list[Scores] = []
    results, missing = [], []
    for job in jobs:
        stands = standing(store, job.run_id)
        state, reason, score = stands.state, stands.reason, None
        if stands.result is not None:
            metric = job.resolved.run.task.targets.metric(item.metric)
            score = None if metric is None else pick(stands.result["metrics_by_epoch"], metric, protocol)
            if score is None:
                state = NOT_COUNTED
                reason = f"{job.run_id}: result.json lacks eval/{item.metric} or {protocol.split}/{item.metric}."
        if score is not None:
            scores.append(score)
            results.append(stands.result)
        else:
            seed = job.resolved.run.seed
            missing.append({"run_id": job.run_id, "seed": seed, "state": state, "reason": reason})
    summary = AGGREGATES[item.aggregate]([score.value for score in scores])
    numbers = summary if not missing else summarise([])
    baselines = [score.baseline for score in scores if score.baseline is not None]
    flags = [name for result in results for name, raised in result.get("flags", {}).items() if raised]
    return {
        "mean": _or_nan(numbers.mean),
        "low": _or_nan(numbers.low),
        "high": _or_nan(numbers.high),
        "n": summary.n,
        "n_expected": len(jobs),
        "seeds": tuple(job.resolved.run.seed for job in jobs),
        "run_ids": tuple(job.run_id for job in jobs),
        "missing": tuple(missing),
        "majority": max(baselines) if baselines else math.nan,
        "data": next((result["data"] for result in results if "data" in result), None),
        "flags": {name: flags.count(name) for name in dict.fromkeys(flags)},
        "settings": {key: _label(_of(jobs[0].resolved.run, key)) for key in item.settings},
        "commits": tuple(dict.fromkeys(commit for result in results if (commit := _commit(result)) is not None)),
        "computed_on": tuple(dict.fromkeys(_computed_on(result) for result in results if "provenance" in result)),
    }


def _planned_columns(points: Sequence[Point], reason: str) -> dict[str, Any]:
    seeds = tuple(point.get("seed") for point in points)
    return {"n_expected": len(points), "seeds": seeds, "reason": reason}


class _Commands:
    """Writes what a person types to get runs."""

    def __init__(self, base: list[str], given: Sequence[str], store: str | Path, jobs: Sequence[Job]) -> None:
        self.base, self.given = base, given
        self.store = elsewhere(store)
        points = [job.point for job in jobs]
        axes = {key: {str(point.get(key)) for point in points} for point in points for key in point}
        self.is_product = math.prod(map(len, axes.values())) == len(points)
        self.pinned = [key for key, values in axes.items() if len(values) > 1 and key != "seed"]

    def whole(self) -> str:
        """Returns the command of the whole sweep."""
        return self._line([*self.base, *self.given])

    def of(self, jobs: Sequence[Job]) -> str:
        """Returns the command of one cell, which expands to exactly its runs.

        Where the sweep is a single product it is the sweep with the cell's values on each axis; otherwise an override
        could reach other grids too, so the cell's settings are spelt out.
        """
        point = jobs[0].point
        if self.is_product:
            pins = {key: point[key] for key in self.pinned}
            kept = [override for override in self.given if override.partition("=")[0] not in pins]
            return self._line([*self.base, *kept, *overrides(pins)])
        seeds = ",".join(str(job.resolved.run.seed) for job in jobs)
        return self._line([*overrides({key: value for key, value in point.items() if key != "seed"}), f"seed={seeds}"])

    def _line(self, arguments: Sequence[str]) -> str:
        return shlex.join(["python", "-m", "lora_repro", "-m", *arguments, *self.store])


def _of(run: Any, key: str) -> Any:
    """Returns the value of a dotted key, or None where the configuration has no such key."""
    for part in key.split("."):
        run = getattr(run, part, None)
    return run


def _label(value: Any) -> Any:
    """Writes a list as the items do (`q,v`), a yes or no as YAML, an Enum as its value; everything else stays."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else getattr(value, "value", value)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _computed_on(result: Mapping[str, Any]) -> str:
    """Says what may change the numbers of a run whose configuration is the same."""
    provenance = result["provenance"]
    versions = provenance.get("versions", {})
    parts = [
        provenance.get("device_class"),
        f"{provenance.get('threads')} CPU thread(s)",
        f"bf16: {provenance['bf16']}" if provenance.get("bf16") else None,
        *(f"{name} {versions[name]}" for name in ("torch", "transformers") if name in versions),
    ]
    return ", ".join(part for part in parts if part)


def _commit(result: Mapping[str, Any]) -> str | None:
    provenance = result.get("provenance", {})
    commit = provenance.get("commit")
    return f"{commit[:10]}{' with uncommitted changes' if provenance.get('dirty') else ''}" if commit else None
