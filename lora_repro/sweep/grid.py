"""Expands grids to runs, for the sweeper, plan, status, fetch and the tables alike. No torch."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from lora_repro.config import catalogue
from lora_repro.config.catalogue import common_grid, group_names, refuse_no_choice
from lora_repro.config.compose import refuse_repeated_keys
from lora_repro.config.declared_types import as_declared
from lora_repro.config.grammar import quoted, refuse_too_many, values
from lora_repro.config.settings import Settings
from lora_repro.errors import InputError, did_you_mean
from lora_repro.methods import METHODS
from lora_repro.sweep.job import START, Job, Point, Start, Sweep, overrides, reasons
from lora_repro.sweep.jobs import Compose, Jobs
from lora_repro.sweep.selection import CHOICES, as_list, select
from lora_repro.sweep.tuning import TUNE, parse

__all__ = ["Job", "Point", "Start", "Sweep", "expand", "load", "overrides", "reasons", "refuse_idle_scale"]

METHOD = "method"
"""The key of a grid that chooses methods."""
PLANNED = "planned"
"""The key of a grid that cannot run here; its value is the reason."""
REGIME = "regime"
"""The key of the command line that takes the keys of sweeps/regimes/NAME.yaml for all grids."""
GROUPS = (CHOICES, ("preset",))
"""Keys that decide which others there are, and of those which first: a preset is one of a model, task and method."""
COMMON = "common"
"""The key of a grid that takes the keys of sweeps/common/NAME.yaml."""


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
        axes = [as_list(axis) for axis in grid.values()]
        points += [
            {key: as_declared(key, value) for key, value in zip(grid, choice, strict=True)}
            for choice in itertools.product(*axes)
        ]
    return sorted(points, key=lambda point: point["seed"] if isinstance(point.get("seed"), int) else 0)


def load(compose: Compose, arguments: Sequence[str], store: str | Path | None = None) -> Sweep:
    """Turns the arguments of a sweep (`+sweeps=table6 scale=smoke seed=0,1`) into jobs; no job is run.

    A model, task or method of the command line keeps the grids that have it; see `select`. Any other axis or value
    replaces the one of each grid that has its key, and joins the grids, and in grids of several methods the methods,
    that can take it. So do the keys of a regime (regime=tuned), but for its `tune` in grids that have one of their own.
    Every job is composed here, so that an impossible one is refused before the first starts. Tuned values are chosen
    here, from the tuning runs that the store has: called again once those are finished, it returns more jobs.

    Args:
        compose: Composes a configuration.
        arguments: As on the command line.
        store: The folder that holds runs/; None: there are no runs, and nothing that is tuned is chosen.

    Raises:
        InputError: If an argument, a grid or one of its points is impossible.
    """
    every = OverridesParser.create().parse_overrides(list(arguments))
    given = [override for override in every if _key(override) not in (TUNE, REGIME, START)]
    tunes, regimes, starts = (
        [override for override in every if _key(override) == key] for key in (TUNE, REGIME, START)
    )
    refuse_repeated_keys(arguments)
    sweeps = [o for o in given if o.key_or_group == "sweeps"]
    own = [o for o in given if _is_setting(o)]
    _refuse_lost_values([*(o for o in given if o not in own), *tunes, *regimes, *starts])
    if axes := [_line(o) for o in [*own, *regimes] if o.is_sweep_override()]:
        raise InputError(
            f"{axes[0]}: a sweep has one {axes[0].partition('=')[0].lstrip('+')}; only what a run is can be an axis.\n"
            "Give one value, and start one sweep for each."
        )
    if not sweeps:
        refuse_idle_scale(given)
    passed = [_line(o) for o in (*own, *regimes)]
    regime = _regime_of(regimes[0]) if regimes else {}
    axes = {key: [value] for key, value in regime.items() if key not in (TUNE, START)}
    axes |= {_key(o): values(o) for o in given if o not in own}
    cfg = compose([_line(o) for o in own])
    where = f"\nIn sweeps/{sweeps[0].value()}.yaml, scale={cfg.scale.name}." if sweeps else ""
    settings = [_line(o) for o in own if o not in sweeps]
    grids = _grids(cfg) if sweeps else [{}]
    if sweeps:
        try:
            grids, axes = select(grids, axes, {key: cfg[key].name for key in CHOICES})
        except InputError as error:
            raise InputError(f"{error}{where}") from error
    if tunes:
        grids = [grid | {TUNE: _tune_of(tunes[0])} for grid in grids]
    elif TUNE in regime:
        grids = [part for grid in grids for part in _in_regime(compose, settings, grid, regime[TUNE])]
    if starts or START in regime:
        grids = [grid | {START: values(starts[0]) if starts else regime[START]} for grid in grids]
    runnable = [grid for grid in grids if PLANNED not in grid]
    is_another = bool(tunes) and (_tune_of(tunes[0]) is None) != (regime.get(TUNE) is None)  # tuned, where it is not
    name = _regime_name(regimes[0]) if regimes and not is_another else None
    jobs = Jobs(compose, passed, settings, name, store)
    try:
        jobs.add(expand(_with_tuning(runnable, compose, settings, axes)))
    except InputError as error:
        raise InputError(f"{error}{where}") from error
    planned = [
        (point, str(grid[PLANNED]))
        for grid in grids
        if PLANNED in grid
        for point in expand([{k: axes.get(k, v) for k, v in grid.items() if k not in (PLANNED, TUNE)}])
    ]
    return jobs.sweep(planned)


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


def _refuse_lost_values(given: Iterable[Override]) -> None:
    """Refuses several values of a key that is given again behind them, as the last ones would count alone.

    A single value gives way to what follows, as in a single run.
    """
    before: dict[str, Override] = {}
    for override in given:
        key = _key(override).lstrip("+~")
        other = before.get(key)
        if other is not None and (key in (TUNE, REGIME, START) or other.is_sweep_override()):
            raise InputError(
                f"{key}: is given twice ({_line(other)} and {_line(override)}), and the last one would count alone.\n"
                "Give all its values at once, or leave one out."
            )
        before[key] = override


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
) -> list[list[dict[str, Any]]]:
    """Replaces or adds the command line's axes, grid by grid, and returns the grids that each becomes.

    Their order on the command line is that of the runs, and says nothing of which of them fit together.
    """
    merged = [[dict(grid)] for grid in grids]
    for key, axis in [*axes.items(), *(entry for grid in grids for entry in grid.items())]:
        for value in as_list(axis):
            refuse_no_choice(key, value)
    for key, axis in sorted(axes.items(), key=lambda each: _rank(each[0])):
        may_split = key.startswith(f"{METHOD}.") and METHOD not in axes
        taken = [[_with_axis(compose, passed, part, key, axis, may_split) for part in parts] for parts in merged]
        merged = [[part for found in each for part in found.grids] for each in taken]
        refusals = [found.refusal for each in taken for found in each]
        if refusals and None not in refusals:
            raise cast(Exception, refusals[-1])
    return [
        [{key: part[key] for key in (*grid, *axes) if key in part} for part in parts]
        for grid, parts in zip(grids, merged, strict=True)
    ]


def _rank(key: str) -> int:
    return next((rank for rank, keys in enumerate(GROUPS) if key.lstrip("+") in keys), len(GROUPS))


class _Taken(NamedTuple):
    """What becomes of a grid that may take an axis."""

    grids: list[dict[str, Any]]
    refusal: Exception | None
    """Why it cannot take it."""


def _with_axis(
    compose: Compose, passed: list[str], grid: dict[str, Any], key: str, axis: list[Any], may_split: bool
) -> _Taken:
    """Returns a grid with an axis if it can take it.

    Where it may be split, a grid of several methods becomes two: of those that can take the axis, and of the others.
    """
    if key in grid:
        return _Taken([grid | {key: axis}], None)
    methods = grid.get(METHOD)
    choices = [{METHOD: each} for each in methods] if may_split and isinstance(methods, list) and methods else [{}]
    # Which keys there are follows from what is chosen by a name; a dictionary brings those below it.
    decide = [k for k in grid if k.lstrip("+") in catalogue.GROUPS or key.startswith(f"{k}.")]
    first = {k: v[0] if isinstance(v := grid[k], list) and v else v for k in decide}
    takes, others, refusal = [], [], None
    for choice in choices:
        try:
            compose(passed + overrides(first | choice | {key: axis[0]}))
        except Exception as error:  # Hydra has several exceptions for a missing key
            refusal = error
            others.append(choice)
        else:
            takes.append(choice)
    if not others:
        return _Taken([grid | {key: axis}], None)
    if not takes:
        return _Taken([grid], refusal)
    with_it, without = ({METHOD: [each[METHOD] for each in some]} for some in (takes, others))
    return _Taken([grid | with_it | {key: axis}, grid | without], None)


def _with_tuning(
    grids: Sequence[Mapping[str, Any]], compose: Compose, settings: list[str], axes: Mapping[str, list[Any]]
) -> list[dict[str, Any]]:
    """Returns grids with the axes of the command line, and with their tunings read."""
    tunes = [parse(grid.get(TUNE)) for grid in grids]
    beside = [{key: grid[key] for key in (START,) if key in grid} for grid in grids]
    plain = _with_axes(
        compose, settings, [{k: v for k, v in grid.items() if k not in (TUNE, START)} for grid in grids], axes
    )
    found = []
    for parts, tune, more in zip(plain, tunes, beside, strict=True):
        for grid in parts:
            if tune is not None and tune.key in grid:
                raise InputError(
                    f"{tune.key}: is tuned by this sweep, and given too (given: {quoted(grid[tune.key])}).\n"
                    "Leave it out; or give tune=null, which takes the value as it is given."
                )
            found.append(grid | {TUNE: tune} | more)
    return found


def _tune_of(override: Override) -> Any:
    """Returns what the command line tunes, or null."""
    given = values(override)
    if len(given) != 1:
        raise InputError(f"{_line(override)}: a sweep is tuned in one way. Give one: tune=null, or 'tune={{...}}'.")
    return given[0]


def _regime_of(override: Override) -> dict[str, Any]:
    """Returns the keys of the regime that the command line names; none of null."""
    name = _regime_name(override)
    return {} if name is None else catalogue.regime(name)


def _regime_name(override: Override) -> str | None:
    name = override.value()
    return None if name is None else str(name)


def _in_regime(compose: Compose, passed: list[str], grid: dict[str, Any], tune: Any) -> list[dict[str, Any]]:
    """Returns a grid that is tuned as a regime says, and beside it one of the methods that cannot be.

    A grid with a tuning of its own keeps it. Methods that train nothing, or lack the tuned key, stay as they are.
    """
    if tune is None:
        return [grid | {TUNE: None}]
    if TUNE in grid or PLANNED in grid:
        return [grid]
    read = parse(tune)
    assert read is not None
    methods = as_list(grid[METHOD]) if METHOD in grid else []
    asked = [name for name in methods if name in METHODS and not METHODS[name].is_trained]
    found = [grid | {METHOD: asked}] if asked else []
    if methods and len(asked) == len(methods):
        return found
    beside = {key: grid[key] for key in (START,) if key in grid}
    plain = {key: value for key, value in grid.items() if key not in (START, read.key)}
    if asked:
        plain[METHOD] = [name for name in methods if name not in asked]
    for part in _with_axis(compose, passed, plain, read.key, [read.values[0]], may_split=True).grids:
        takes = part.pop(read.key, None) is not None
        found.append(part | beside | ({TUNE: tune} if takes else {k: grid[k] for k in (read.key,) if k in grid}))
    return found


def _is_setting(override: Override) -> bool:
    first = override.key_or_group.split(".")[0].split("/")[0]
    return first in ("sweeps", "hydra", *(f.name for f in fields(Settings)))


def _line(override: Override) -> str:
    assert override.input_line is not None
    return override.input_line


def _key(override: Override) -> str:
    return override.get_key_element()
