"""Expands grids to runs, for the sweeper, plan, status, fetch and the tables alike. No torch."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lora_repro.config.catalogue import GROUPS, common_grid, group_names, refuse_no_choice
from lora_repro.config.compose import refuse_repeated_keys
from lora_repro.config.declared_types import as_declared
from lora_repro.config.explain import explain
from lora_repro.config.grammar import quoted, refuse_too_many, values
from lora_repro.config.identity import run_id
from lora_repro.config.resolve import Resolved
from lora_repro.config.settings import Settings
from lora_repro.config.variants import Variants
from lora_repro.costs import budget
from lora_repro.errors import InputError, did_you_mean

Compose = Callable[[list[str]], DictConfig]
"""Composes a configuration from override strings: Hydra's, however it was started."""

Point = dict[str, Any]
"""One run of a grid: keys and values as on the command line."""

PLANNED = "planned"
"""The key of a grid that cannot run here; its value is the reason."""
COMMON = "common"
"""The key of a grid that takes the keys of sweeps/common/NAME.yaml."""


class Job(NamedTuple):
    """One run of a sweep."""

    overrides: list[str]
    run_id: str
    resolved: Resolved
    point: Point


class Sweep(NamedTuple):
    """The runs of a sweep at one scale."""

    jobs: list[Job]
    planned: list[tuple[Point, str]]
    """Points that cannot run yet, each with the reason."""

    @property
    def why_planned(self) -> str:
        """The reasons of the planned points, each once."""
        return reasons(why for _, why in self.planned)


def reasons(each: Iterable[str]) -> str:
    """Writes reasons, each once, in the order of their first appearance."""
    return "; ".join(dict.fromkeys(each))


def expand(grids: Iterable[Mapping[str, Any]]) -> list[Point]:
    """Multiplies out each grid's axes, first axis outermost, and orders all points by seed.

    A list is always an axis; one fixed list is therefore written [[q, v]]. Ordered by seed, an interrupted sweep holds
    whole paired blocks.

    Raises:
        InputError: If an axis is empty, or no list of lists where the values are lists, or there are too many runs.
    """
    points: list[Point] = []
    for grid in grids:
        refuse_too_many(len(points) + math.prod(len(axis) for axis in grid.values() if isinstance(axis, list)))
        for key, axis in grid.items():
            if isinstance(axis, list) and not axis:
                raise InputError(f"sweep: the axis {key} is empty (given: []). Give it at least one value.")
            if key == "method.targets" and not (isinstance(axis, list) and all(isinstance(v, list) for v in axis)):
                raise InputError(
                    f"sweep: {key} is an axis of lists (given: {quoted(axis)}).\n"
                    f"One fixed set of matrices is written [[q, v]], two sets [[q], [q, v]]."
                )
        axes = [axis if isinstance(axis, list) else [axis] for axis in grid.values()]
        points += [
            {key: as_declared(key, value) for key, value in zip(grid, choice, strict=True)}
            for choice in itertools.product(*axes)
        ]
    return sorted(points, key=lambda point: point["seed"] if isinstance(point.get("seed"), int) else 0)


def overrides(point: Point) -> list[str]:
    """Writes a point as override strings."""
    return [f"{key}={quoted(value)}" for key, value in point.items()]


def load(compose: Compose, arguments: Sequence[str]) -> Sweep:
    """Turns the arguments of a sweep (`+sweeps=table6 scale=smoke seed=0,1`) into jobs; no job is run.

    An axis or value of the command line replaces the one of each grid that has its key, and joins the grids that can
    take it. Every job is composed here, so that an impossible one is refused before the first starts.

    Raises:
        InputError: If an argument, a grid or one of its points is impossible.
    """
    given = OverridesParser.create().parse_overrides(list(arguments))
    refuse_repeated_keys(arguments)
    sweeps = [o for o in given if o.key_or_group == "sweeps"]
    own = [o for o in given if _is_setting(o)]
    if axes := [_line(o) for o in own if o.is_sweep_override()]:
        raise InputError(
            f"{axes[0]}: a sweep has one {axes[0].partition('=')[0].lstrip('+')}; only what a run is can be an axis.\n"
            "Give one value, and start one sweep for each."
        )
    if not sweeps:
        refuse_idle_scale(given)
    passed = [_line(o) for o in own]
    axes = {_key(o): values(o) for o in given if o not in own}
    cfg = compose(passed)
    grids = _grids(cfg) if sweeps else [{}]
    runnable = [grid for grid in grids if PLANNED not in grid]
    try:
        jobs = _compose_points(compose, passed, expand(_with_axes(compose, passed, runnable, axes)))
    except InputError as error:
        where = f"\nIn sweeps/{sweeps[0].value()}.yaml, scale={cfg.scale.name}." if sweeps else ""
        raise InputError(f"{error}{where}") from error
    planned = [
        (point, str(grid[PLANNED]))
        for grid in grids
        if PLANNED in grid
        for point in expand([{k: axes.get(k, v) for k, v in grid.items() if k != PLANNED}])
    ]
    return Sweep(jobs, planned)


def refuse_idle_scale(given: Iterable[Override]) -> None:
    """Refuses a scale without a sweep, on which it would have no effect.

    Raises:
        InputError: With a sweep.
    """
    for override in given:
        if override.key_or_group == "scale":
            scale, names = override.get_value_string(), group_names("sweeps")
            raise InputError(
                f"scale={scale}: only the sweeps of this project have scales ({', '.join(names)}).\n"
                f"Give one: -m +sweeps=table6 scale={scale}. Without it set sizes yourself, as task.train_size=2000."
            )


def _grids(cfg: DictConfig) -> list[dict[str, Any]]:
    """Returns the grids of the composed sweep at its scale, checked for their form."""
    sweep = cast(dict[str, Any], OmegaConf.to_container(cfg.sweep))
    name, scale, scales = sweep.pop("name", None), cfg.scale.name, group_names("scale")
    for key in sweep:
        if key not in scales:
            raise InputError(
                f"sweeps/{name}.yaml: {key!r} is no scale.{did_you_mean(key, scales)}\nScales: {', '.join(scales)}."
            )
    if scale not in sweep:
        raise InputError(f"sweeps/{name}.yaml: has no grids for scale={scale}. It has: {', '.join(sweep)}.")
    grids = sweep[scale]
    if not isinstance(grids, list) or not grids or not all(isinstance(grid, dict) for grid in grids):
        raise InputError(f"sweeps/{name}.yaml: {scale} must be a list of grids, '- {{seed: [0], model: ...}}'.")
    return [_with_common_keys(grid) for grid in grids]


def _with_common_keys(grid: dict[str, Any]) -> dict[str, Any]:
    """Puts the keys of sweeps/common/NAME.yaml where a grid says `common: NAME`; a key of the grid itself wins."""
    if COMMON not in grid:
        return grid
    own = {key: value for key, value in grid.items() if key != COMMON}
    return common_grid(str(grid[COMMON])) | own


def _with_axes(
    compose: Compose, passed: list[str], grids: list[dict[str, Any]], axes: Mapping[str, list[Any]]
) -> list[dict[str, Any]]:
    """Replaces or adds the command line's axes, grid by grid."""
    merged = [dict(grid) for grid in grids]
    for key, axis in [*axes.items(), *(entry for grid in grids for entry in grid.items())]:
        for value in axis if isinstance(axis, list) else [axis]:
            refuse_no_choice(key, value)
    for key, axis in axes.items():
        fits, refusal = False, None
        for grid in merged:
            if key in grid:
                grid[key], fits = axis, True
                continue
            first = {k: v[0] if isinstance(v, list) and v else v for k, v in grid.items()}
            try:
                compose(passed + overrides(first | {key: axis[0]}))
            except Exception as error:  # Hydra has several exceptions for a missing key; the last one is raised below
                refusal = error
            else:
                grid[key], fits = axis, True
        if not fits and refusal is not None:
            raise refusal
    return merged


def _compose_points(compose: Compose, passed: list[str], points: list[Point]) -> list[Job]:
    """Resolves every point, composing once per choice of groups and setting the other keys."""
    bases: dict[tuple[str, ...], Variants] = {}
    jobs: dict[str, Job] = {}
    for point in points:
        groups = {key: value for key, value in point.items() if key in GROUPS}
        choice = (*passed, *overrides(groups))
        if choice not in bases:
            bases[choice] = Variants(compose(list(choice)))
        try:
            budget.refuse_both(point)
            resolved = bases[choice].resolve({key: value for key, value in point.items() if key not in groups})
        except (InputError, OmegaConfBaseException) as error:
            reason = error if isinstance(error, InputError) else explain(error)
            raise InputError(f"{reason}\nIn the job: {' '.join(overrides(point))}") from error
        name = run_id(resolved.run)
        jobs.setdefault(name, Job([*passed, *overrides(point)], name, resolved, point))
    return list(jobs.values())


def _is_setting(override: Override) -> bool:
    first = override.key_or_group.split(".")[0].split("/")[0]
    return first in ("sweeps", "hydra", *(f.name for f in fields(Settings)))


def _line(override: Override) -> str:
    assert override.input_line is not None
    return override.input_line


def _key(override: Override) -> str:
    return override.get_key_element()
