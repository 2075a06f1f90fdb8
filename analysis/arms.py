"""The arms of a sweep: cells of the runs that differ in nothing but their seed, whatever else varies."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from analysis.cell import Cell, Place
from analysis.join import Commands, seed_runs, shown_metric
from analysis.protocol import Protocol
from lora_repro.config.identity import id_fields
from lora_repro.sweep.job import Job
from lora_repro.sweep.tuning import Ranked, Tuning, rank


def read_arms(
    jobs: Sequence[Job],
    store: str,
    metrics: Sequence[str],
    protocol: Protocol,
    item: str,
    commands: Commands | None = None,
    draws: str | None = None,
) -> list[Cell]:
    """Returns an arm for each setting of the runs, in their order; its place is task, model and method.

    Args:
        jobs: The runs that are reported.
        store: The folder that holds runs/.
        metrics: The first of them that a task has is shown; as metric keys spell them without the split.
        protocol: Which number is taken from a run.
        item: Who shows it, for messages.
        commands: Writes the command of an arm.
        draws: A key that draws the training examples anew, as task.subset_seed: runs of an arm may differ in it too.

    Raises:
        InputError: If a task has none of the metrics, or runs of one arm record different numbers of trained weights.
    """
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        settings = {key: value for key, value in id_fields(job.shown).items() if key != "seed"}
        if draws is not None:
            section, _, drawn = draws.partition(".")
            settings[section] = {key: value for key, value in settings[section].items() if key != drawn}
        if job.open_tuning is not None:
            settings["tune"] = job.open_tuning.tune.override()  # the value of its stand-in may be another arm's own
        groups.setdefault(json.dumps(settings, sort_keys=True, default=str), []).append(job)
    return [_arm(members, store, metrics, protocol, item, commands, draws) for members in groups.values()]


def _arm(
    jobs: Sequence[Job],
    store: str,
    metrics: Sequence[str],
    protocol: Protocol,
    item: str,
    commands: Commands | None,
    draws: str | None,
) -> Cell:
    run = jobs[0].shown
    metric = shown_metric(run.task, metrics, item)
    place = Place(run.task.name, run.model.name, run.method.name, metric.name)
    command = None if commands is None else commands.of(jobs)
    runs = seed_runs(jobs, store, metric, protocol, run.task.targets.metrics[0], draws)
    arm = Cell(place, metric, runs=runs, config=run, command=command, tuning=jobs[0].tuning)
    _ = arm.trained  # refuses runs that record different numbers
    return arm


def settings_of(arm: Cell, keys: Sequence[str]) -> dict[str, Any]:
    """Returns the settings that the arm's method has, but for those that are null."""
    return {key: value for key, value in arm.settings(keys).items() if value is not None}


def comparable(cells: Iterable[Cell]) -> list[list[Tuning]]:
    """Groups the tunings of cells, each once, by what must be equal for arms to compete.

    That is task, training examples, model, budget and score.
    """
    groups: dict[tuple[str, ...], dict[int, Tuning]] = {}
    for cell in cells:
        if (tuning := cell.tuning) is not None:
            size = None if cell.config is None else cell.config.task.train_size
            budget = None if cell.config is None else getattr(cell.config.method, "budget", None)
            key = (cell.task, str(size), cell.model, str(budget), tuning.metric.name)
            groups.setdefault(key, {})[id(tuning)] = tuning
    return [[*group.values()] for group in groups.values()]


def places(groups: Iterable[Sequence[Tuning]]) -> dict[int, tuple[Ranked, int]]:
    """Returns the places of the tunings of groups, by `id`, and among how many; without those that are alone."""
    found: dict[int, tuple[Ranked, int]] = {}
    for group in groups:
        ranked = rank({id(tuning): tuning for tuning in group})
        found |= {each: (place, len(ranked)) for each, place in ranked.items() if len(ranked) > 1}
    return found
