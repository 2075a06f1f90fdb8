"""A table of any sweep: the user names rows and columns, or they are found from what varies between the runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from analysis.cell import Cell, Place, Table, label, value_of
from analysis.join import Commands, refuse_mixed, seed_runs
from analysis.protocol import Protocol
from analysis.runs import flat
from analysis.store import DEFAULT_STORE
from lora_repro.config.compose import compose
from lora_repro.errors import InputError, did_you_mean
from lora_repro.store.record import plain
from lora_repro.sweep.grid import load
from lora_repro.sweep.job import Job
from lora_repro.tasks import Metric, TaskConfig

NAMED = {"model": "model.name", "task": "task.name", "method": "method.name", "start": "train.init_from"}
"""Groups of conf/ and the start of a run, and the key that holds their name."""

COUNTS = ("trained_by_method", "utilisation")
"""What follows from a configuration and can be an axis as its keys can."""

SETTINGS = (
    "method.r",
    "method.alpha",
    "train.learning_rate",
    "train.epochs",
    "train.batch_size",
    "train.dtype",
    "train.init_from",
)
"""Keys that are printed above the table unless they are one of its axes."""

NONE = "none"
"""The value of a key that a run does not have."""


class Axes(NamedTuple):
    """The keys of rows and of columns."""

    rows: list[str]
    columns: list[str]


def read_sweep(
    given: Sequence[str],
    store: str | Path = DEFAULT_STORE,
    protocol: Protocol = Protocol.last_epoch,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
) -> Table:
    """Returns the cells of a sweep: each holds the runs that differ in the seed alone.

    Args:
        given: What `python -m lora_repro -m` takes: `+sweeps=mine`, or axes such as `method.r=1,2`, or both.
        store: The folder that holds runs/.
        protocol: Which number is taken from a run.
        rows: Keys of the rows; None: found from what varies.
        columns: Keys of the columns; None: found from what varies.
        metrics: Names of metrics; None: the first that each task declares.

    Raises:
        InputError: If the sweep is impossible, a key is unknown or does not vary, a task lacks a metric, or runs of a
            cell differ in more than their seed.
    """
    sweep = load(compose, given, store)
    jobs = sweep.reported
    if not jobs:
        raise InputError(
            f"table: all {len(sweep.planned)} runs of the sweep are planned: {sweep.why_planned}.\n"
            "Give another scale: scale=demo."
        )
    axes = _axes(jobs, rows, columns)
    scored = [(job, metric) for job in jobs for metric in _metrics(job.resolved.run.task, metrics)]
    are_several = len({metric.name for _, metric in scored}) > 1
    cells: dict[Place, tuple[Metric, list[Job]]] = {}
    for job, metric in scored:
        place = _place(job, axes)._replace(metric=metric.name if are_several else None)
        cells.setdefault(place, (metric, []))[1].append(job)
    commands = Commands([], given, store, jobs)
    found = []
    for place, (metric, members) in cells.items():
        parts = [(axes.rows, place.row), (axes.columns, place.column)]
        where = ", ".join(f"{_label(keys)} {value}" for keys, value in parts if keys)
        refuse_mixed(where or "the table", members, ", or give the key to --rows or --columns")
        runs, first = seed_runs(members, store, metric, protocol), members[0]
        found.append(Cell(place, metric, None, runs, first.shown, commands.of(members), None, first.tuning))
    order = {row: number for number, row in enumerate(_ordered([cell.place.row for cell in found]))}
    names = [word.partition("=")[2] for word in given if word.startswith("+sweeps=")]
    return Table(
        title=f"Sweep {names[0]}" if names else "Sweep of the command line",
        rows=_label(axes.rows),
        columns=_label(axes.columns),
        cells=sorted(found, key=lambda cell: order[cell.place.row]),
        protocol=protocol,
        scale=next((word.partition("=")[2] for word in given if word.startswith("scale=")), None),
        command=commands.whole(),
        outside=[],
        settings=[key for key in SETTINGS if key not in axes.rows + axes.columns],
        notes=[f"{len(sweep.planned)} planned runs are left out: {sweep.why_planned}."] if sweep.planned else [],
        is_item=False,
        keys=(*axes.rows, *axes.columns),
        about=(_described(axes, rows is None or columns is None),),
    )


def _place(job: Job, axes: Axes) -> Place:
    """Returns where a run belongs: tasks and models have lines of their own, unless they are an axis."""
    run, keys = job.resolved.run, axes.rows + axes.columns
    row = " / ".join(str(_value(job, key)) for key in axes.rows)
    values = [_value(job, key) for key in axes.columns]
    column = values[0] if len(values) == 1 else " / ".join(map(str, values)) or "score"
    task = "" if "task.name" in keys else run.task.name
    return Place(task, "" if "model.name" in keys else run.model.name, row, column)


def _metrics(task: TaskConfig, names: Sequence[str] | None) -> list[Metric]:
    if names is None:
        return [task.targets.metrics[0]]
    found = []
    for name in dict.fromkeys(names):
        metric = task.targets.metric(name)
        if metric is None:
            known = [*(each.name for each in task.targets.shown), "loss"]
            raise InputError(
                f"--metric: {task.name} has no metric {name!r}.{did_you_mean(name, known)}\n"
                f"Metrics of {task.name}: {', '.join(known)}."
            )
        found.append(metric)
    return found


def _axes(jobs: Sequence[Job], rows: Sequence[str] | None, columns: Sequence[str] | None) -> Axes:
    """Returns the axes that are given, and finds those that are not.

    The key with the most values makes the columns; in a tie a numeric key wins, then the later one. All others make
    the rows. Where only one axis is given, the other takes all keys that the given one leaves open.
    """
    varying = _varying(jobs)
    named = [_named(key, "--rows", jobs, varying) for key in rows or ()]
    across = [_named(key, "--columns", jobs, varying) for key in columns or ()]
    if twice := sorted({key for key in named + across if (named + across).count(key) > 1}):
        raise InputError(f"--rows, --columns: {twice[0]} is given twice. Give each key once.")
    if rows is not None and columns is not None:
        return Axes(named, across)
    left = [key for key in varying if key not in (*named, *across, "task.name", "model.name")]
    left = _needed(jobs, left, [*named, *across, "task.name", "model.name"])
    if rows is not None:
        return Axes(named, left)
    if columns is not None or not left:
        return Axes(left, across)
    values = {key: {repr(_value(job, key)): _value(job, key) for job in jobs} for key in left}
    rank = {key: (len(values[key]), _are_numbers(values[key].values()), left.index(key)) for key in left}
    widest = max(left, key=lambda key: rank[key])
    return Axes([key for key in left if key != widest], [widest])


def _varying(jobs: Sequence[Job]) -> list[str]:
    """Returns the keys of the sweep in which runs differ, but the seed and keys whose value follows from others."""
    keys = dict.fromkeys(NAMED.get(key, key) for job in jobs for key in job.point if key != "seed")
    return _needed(jobs, [key for key in keys if len({repr(_value(job, key)) for job in jobs}) > 1])


def _needed(jobs: Sequence[Job], keys: Sequence[str], beside: Sequence[str] = ()) -> list[str]:
    """Drops keys that add nothing: runs that differ in such a key differ in another key too.

    The names of model, task and method stay.
    """

    def groups(some: Sequence[str]) -> int:
        return len({tuple(repr(_value(job, key)) for key in some) for job in jobs})

    needed, whole = list(keys), groups([*keys, *beside])
    for key in reversed(keys):
        rest = [other for other in needed if other != key]
        if (key not in NAMED.values() or beside) and groups([*rest, *beside]) == whole:
            needed = rest
    return needed


def _named(key: str, flag: str, jobs: Sequence[Job], varying: Sequence[str]) -> str:
    """Returns a key that a user gives, as the configuration spells it.

    Raises:
        InputError: If there is no such key, or all runs have the same value of it.
    """
    name = NAMED.get(key, key)
    points = dict.fromkeys(name for job in jobs for name in job.point)
    known = [*dict.fromkeys(key for job in jobs for key in flat(plain(job.resolved.run))), *COUNTS, *points]
    vary = f"Keys that vary: {', '.join(varying) if varying else 'none but the seed'}."
    if name not in known:
        raise InputError(f"{flag}: no run of the sweep has a key {key!r}.{did_you_mean(key, known)}\n{vary}")
    values = dict.fromkeys(str(_value(job, name)) for job in jobs)
    if len(values) == 1:
        raise InputError(f"{flag}: {key} is {next(iter(values))} in all runs of the sweep.\n{vary}")
    return name


def _value(job: Job, key: str) -> str | int | float:
    """Returns a run's value of a key, as the table prints it."""
    value = value_of(job.shown, key)
    value = job.point.get(key) if value is None else value
    return NONE if value is None else label(value)


def _label(keys: Sequence[str]) -> str:
    """Writes `targets / r`; the whole key where two end alike."""
    short = [_short(key) for key in keys]
    return " / ".join(key if short.count(name) > 1 else name for key, name in zip(keys, short, strict=True))


def _short(key: str) -> str:
    return key.removesuffix(".name").rpartition(".")[2]


def _described(axes: Axes, is_found: bool) -> str:
    rows, columns = (", ".join(key.removesuffix(".name") for key in keys) or "none" for keys in axes)
    how = " (found from what varies; choose with --rows KEY,KEY and --columns KEY,KEY)" if is_found else ""
    return f"Rows: {rows}; columns: {columns}{how}."


def _ordered(values: Sequence[Any]) -> list[Any]:
    """Orders rows that are numbers by size; all others stay in the order of the sweep."""
    distinct: Mapping[Any, None] = dict.fromkeys(values)
    try:
        return sorted(distinct, key=float)
    except ValueError:
        return list(distinct)


def _are_numbers(values: Any) -> bool:
    return all(isinstance(value, int | float) for value in values)
