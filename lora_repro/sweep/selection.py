"""Which grids of a sweep a model, task or method of the command line means. No torch."""

from collections.abc import Mapping, Sequence
from typing import Any

from lora_repro.config.catalogue import group_names
from lora_repro.config.grammar import quoted
from lora_repro.errors import InputError, no_such_choice
from lora_repro.sweep.job import START

CHOICES = ("model", "task", "method")
"""Keys that choose a file of conf/, of which a configuration holds the name, and so the grids of a sweep."""

Grid = dict[str, Any]


def select(
    grids: Sequence[Mapping[str, Any]], axes: Mapping[str, list[Any]], defaults: Mapping[str, Any]
) -> tuple[list[Grid], dict[str, list[Any]]]:
    """Returns the grids that have the model, task and method of the command line, and the axes that are left to set.

    Grids of several tasks differ in more (task.train_size goes with a task, method.r with a method), so where some have
    what is asked for the others are left out, and not turned into it. Where all grids have the same, there is nothing
    to choose, and what is asked for takes its place. What no grid has takes the place of the first model, task or
    method that is left: its grids are those of one study.

    Args:
        grids: Of a sweep's file.
        axes: Of the command line, by key.
        defaults: What a grid has that does not say its model, task or method.

    Raises:
        InputError: If a value is no choice; if grids have some of the values of a key and not the others; if no grid
            has one of them beside the values of another key; or if runs of the grids start from runs of others.
    """
    there = {key: [value for grid in grids for value in _own(grid, key, defaults)] for key in CHOICES}
    asked = {
        key: axes[key]
        for key in CHOICES
        if key in axes and any(value in there[key] for value in axes[key]) and not _is_one(grids, key, defaults)
    }
    for key, values in asked.items():
        _refuse_unknown(key, values, there[key])
    kept = [grid for grid in (_narrowed(each, asked, defaults) for each in grids) if grid is not None]
    for key, values in asked.items():
        if lost := [value for value in values if not any(value in grid[key] for grid in kept)]:
            others = " ".join(f"{other}={quoted(asked[other])[1:-1]}" for other in asked if other != key)
            raise InputError(
                f"{key}={','.join(map(str, lost))}: no grid of this sweep has it with {others}.\n"
                "Leave one of them out, or give all settings yourself, without +sweeps."
            )
    _refuse_lost_starts(kept, asked, there)
    left = {key: values for key, values in axes.items() if key not in asked}
    for key in CHOICES:
        if key in left and kept:
            first = _own(kept[0], key, defaults)[0]
            kept = [grid for grid in kept if first in _own(grid, key, defaults)]
    return kept, left


def as_list(axis: Any) -> list[Any]:
    """Returns the values of an axis; a single value is one."""
    return axis if isinstance(axis, list) else [axis]


def _is_one(grids: Sequence[Mapping[str, Any]], key: str, defaults: Mapping[str, Any]) -> bool:
    return all(_own(grid, key, defaults) == _own(grids[0], key, defaults) for grid in grids)


def _own(grid: Mapping[str, Any], key: str, defaults: Mapping[str, Any]) -> list[Any]:
    return as_list(grid.get(key, defaults[key]))


def _narrowed(grid: Mapping[str, Any], asked: Mapping[str, list[Any]], defaults: Mapping[str, Any]) -> Grid | None:
    """Returns a grid with those of its values that are asked for; None if it has none of a key."""
    kept = {key: [v for v in values if v in _own(grid, key, defaults)] for key, values in asked.items()}
    return {**grid, **kept} if all(kept.values()) else None


def _refuse_unknown(key: str, values: Sequence[Any], there: Sequence[Any]) -> None:
    missing = [value for value in values if value not in there]
    if not missing:
        return
    choices = group_names(key)
    for value in missing:
        if value not in choices:
            raise InputError(no_such_choice(key, str(value), choices))
    raise InputError(
        f"{key}: no grid of this sweep has {','.join(map(str, missing))}, while some have the others (given: "
        f"{quoted(list(values))}).\nGive those of the sweep alone ({', '.join(dict.fromkeys(map(str, there)))}), and "
        f"start a sweep of its own for {','.join(map(str, missing))}."
    )


def _refuse_lost_starts(
    kept: Sequence[Grid], asked: Mapping[str, list[Any]], there: Mapping[str, Sequence[Any]]
) -> None:
    """Refuses to leave out the runs from which others start."""
    for grid in kept:
        for given in as_list(grid.get(START)):
            for key, values in asked.items():
                start = given.get(key) if isinstance(given, dict) else None
                if start in there[key] and start not in values:
                    raise InputError(
                        f"{key}={','.join(map(str, values))}: these runs start from runs of {key}={start}, which it "
                        f"leaves out.\nGive both: {key}={','.join(map(str, [*values, start]))}"
                    )
