"""Finds the run of a sweep from which another one starts: named in a grid by what differs. No torch.

The start has the model, the method with all its settings, and the seed of the run that starts from it, unless the grid
says otherwise. Of several it is the one that agrees with the run in every other key that the points of both give.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lora_repro.config.declared_types import as_declared
from lora_repro.config.grammar import quoted
from lora_repro.config.identity import id_fields
from lora_repro.config.schema import InitHead, Run
from lora_repro.errors import InputError, did_you_mean
from lora_repro.store.record import plain
from lora_repro.sweep.job import START, Job, Point, named, overrides
from lora_repro.sweep.selection import CHOICES
from lora_repro.tasks.base import order_of_outputs

EXAMPLE = "start: {task: mnli}"
INIT_FROM, INIT_HEAD = "train.init_from", "train.init_head"
_NONE = object()
"""What stands for the value of a key that a run does not have."""


class Candidate(NamedTuple):
    """A run of the sweep from which others may start."""

    point: Point
    run: Run
    """Its configuration; a tuned value is the smallest of its grid, and a start is not in it."""
    start: Mapping[str, Any] | None
    """From what it starts itself."""
    tuned: str | None
    """The key that is tuned for it."""
    job: Callable[[int], Job]
    """Returns the run of one of its seeds."""
    seeds: tuple[int, ...]


SHAPES = frozenset(
    f"method.{key}"
    for key in ("r", "alpha", "rslora", "targets", "layers", "r_pattern", "alpha_pattern", "bottleneck", "l_p", "l_i")
)
"""Settings without which weights of one run do not fit another, or compute something else there."""


def parse(given: Any) -> dict[str, Any] | None:
    """Reads the `start` of a point.

    Raises:
        InputError: If it names no run by keys and values.
    """
    if given is None:
        return None
    if not isinstance(given, dict) or not given:
        hint = " A run of the store is given by its id: train.init_from=ID." if isinstance(given, str) else ""
        raise InputError(
            f"start: must be keys and values that name a run of the sweep, or null (given: {quoted(given)}).{hint}\n"
            f"Example: {EXAMPLE}"
        )
    found = {str(key): parse(value) if key == START else as_declared(str(key), value) for key, value in given.items()}
    for key, value in found.items():
        several = isinstance(value, list) and (
            key in (*CHOICES, "seed") or any(isinstance(each, list) for each in value)
        )
        if several or key in ("tune", INIT_FROM):
            raise InputError(
                f"start: {key}: one run is named by plain values (given: {key}={quoted(value)}).\nExample: {EXAMPLE}"
            )
    return found


def is_itself(given: Mapping[str, Any], run: Run, point: Point) -> bool:
    """Tells whether a run has the values by which a start is named: then it is a start, and starts from nothing.

    So one grid can hold both: `{task: [mnli, rte], start: {task: mnli}}`. Another seed of the start is a start too.
    """
    values = {key: value for key, value in given.items() if key not in ("seed", START)}
    if not values:
        return "seed" in given and run.seed == given["seed"]
    return all(_value(key, run, point) == value for key, value in values.items())


def draws_head(start: Run, run: Run) -> bool:
    """Tells whether a run draws its head anew: the one of its start is not wanted, or is of other labels."""
    theirs, ours = start.task, run.task
    return ours.head_width is not None and (
        run.train.init_head is InitHead.anew
        or theirs.head_width != ours.head_width
        or order_of_outputs(theirs, theirs.label_names, ours) is None
    )


class Finder:
    """Finds starts among the runs of a sweep.

    Args:
        candidates: The runs.
        what: What each is, for messages: run, or tuning run.
    """

    def __init__(self, candidates: Sequence[Candidate], what: str) -> None:
        self._candidates, self._what = candidates, what
        self._having: dict[str, dict[str, list[Candidate]]] = {}
        """Those that have the values of a start, by what they must share with the run that starts from them."""
        self._possible: set[tuple[Any, ...]] = set()
        """Kinds of pairs that were looked at."""

    def find(self, given: Mapping[str, Any], run: Run, point: Point) -> tuple[Candidate, int]:
        """Returns the start of a run, and its seed.

        Args:
            given: What names the start.
            run: The configuration of the run that starts from it.
            point: Its point.

        Raises:
            InputError: If none or several match, or what is named cannot be taken over.
        """
        text, seed = quoted(dict(given)), given.get("seed", run.seed)
        if text not in self._having:
            self._having[text] = _grouped(self._candidates, given)
        groups, shared = self._having[text], _shared(run, given)
        if not groups:
            raise InputError(self._no_such(given))
        found = [each for each in groups.get(shared, []) if seed in each.seeds]
        if not found:
            raise InputError(self._none_agrees(given, run, [each for group in groups.values() for each in group]))
        if len(found) > 1:
            found = [each for each in found if not _differing(each.point, point, given)] or found
        if len(found) > 1:
            raise InputError(self._several(given, found))
        shape = quoted([_value(key, run, point) for key in given if key in SHAPES])
        pair = (text, shared, shape, draws_head(found[0].run, run), found[0].tuned)
        if pair not in self._possible:
            self._refuse_impossible(given, found[0], run)
            self._possible.add(pair)
        return found[0], seed

    def _no_such(self, given: Mapping[str, Any]) -> str:
        lines = []
        for key, value in given.items():
            if key in ("seed", START):
                continue
            there = [_value(key, each.run, each.point) for each in self._candidates if key != each.tuned]
            values = list(dict.fromkeys(quoted(each) for each in there if each is not _NONE))
            if quoted(value) not in values:
                lines.append(
                    f"{key} of its {self._what}s: {', '.join(values) or 'none'}.{did_you_mean(str(value), values)}"
                )
        return (
            f"start: no {self._what} of this sweep has {named(given)}.\n"
            + "".join(f"{line}\n" for line in lines)
            + "Give the start a grid of its own in the sweep, or a run of the store: train.init_from=ID"
        )

    def _none_agrees(self, given: Mapping[str, Any], run: Run, having: Sequence[Candidate]) -> str:
        differences = [_disagreements(each, run, given) for each in having]
        nearest = min(differences, key=len)
        keys = list(nearest)
        there = {key: list(dict.fromkeys(each[key][0] for each in differences if list(each) == keys)) for key in keys}
        words = "; ".join(f"{key} is {', '.join(there[key])} there and {nearest[key][1]} here" for key in keys)
        named_too = dict(given) | {key: _parsed(key, nearest[key][0], having) for key in keys}
        return (
            f"start: no {self._what} of {named(given)} has the model, method and seed of the run that starts from it: "
            f"{words}.\nGive the sweep that run too; or name the one that is meant, if it may differ: "
            f"start: {written(named_too)}"
        )

    def _several(self, given: Mapping[str, Any], found: Sequence[Candidate]) -> str:
        keys = dict.fromkeys(key for each in found for key in each.point)
        values = {
            key: list(dict.fromkeys(quoted(each.point.get(key)) for each in found)) for key in keys if key not in given
        }
        differ = {key: options for key, options in values.items() if len(options) > 1}
        of_starts = list(dict.fromkeys("null" if each.start is None else written(each.start) for each in found))
        if len(of_starts) > 1:
            differ[START] = of_starts
        words = "; ".join(f"{key} is {' or '.join(options)}" for key, options in differ.items())
        key, options = next(iter(differ.items()), ("KEY", ["VALUE"]))
        shown = written(given).removesuffix("}")
        return (
            f"start: {len(found)} {self._what}s of this sweep have {named(given)}: "
            f"{words or 'they differ in nothing that is given'}.\nSay which: start: {shown}, {key}: {options[0]}}}"
        )

    def _refuse_impossible(self, given: Mapping[str, Any], found: Candidate, run: Run) -> None:
        start = found.run
        if start.method.name != run.method.name or start.model.digest != run.model.digest:
            group = "method" if start.method.name != run.method.name else "model"
            theirs, ours = getattr(start, group).name, getattr(run, group).name
            raise InputError(
                f"start: {named(given)}: was trained with {group}={theirs}, and a run of {group}={ours} has no place "
                f"for its weights.\nName a start of {group}={ours}."
            )
        for key in given.keys() & SHAPES:
            theirs, ours = _written(start, key), _written(run, key)
            if theirs != ours:
                raise InputError(
                    f"start: {named(given)}: a run of {key}={ours} cannot take over what was trained with {theirs}.\n"
                    f"Leave {key} out: a start has the method with all its settings."
                )
        if found.tuned is not None and found.tuned.partition(".")[0] in ("method", "model"):
            raise InputError(
                f"start: {found.tuned} of {named(given)} is tuned, and a run takes over an adapter of its own method "
                "alone, with the same settings.\nTune a key of train, as train.learning_rate; or give the value itself."
            )
        has_no_update = run.method.count(run.arch).method == 0
        if has_no_update and draws_head(start, run):
            raise InputError(
                f"start: method={run.method.name} trains the head alone, and that of {named(given)} is not taken over, "
                f"so nothing would be.\nGive method={run.method.name} a grid of its own without start."
            )


def _grouped(candidates: Iterable[Candidate], given: Mapping[str, Any]) -> dict[str, list[Candidate]]:
    found: dict[str, list[Candidate]] = {}
    for each in candidates:
        has = all(
            (each.start == value if key == START else key != each.tuned and _value(key, each.run, each.point) == value)
            for key, value in given.items()
            if key != "seed"
        )
        if has:
            found.setdefault(_shared(each.run, given), []).append(each)
    return found


def _shared(run: Run, given: Mapping[str, Any]) -> str:
    """Returns what a run and its start have in common: the model's weights and the method, but for what is named."""
    return json.dumps(_sections(run, given), sort_keys=True, default=str)


def _sections(run: Run, given: Mapping[str, Any]) -> dict[str, Any]:
    parts = {"model": {"name": run.model.name, "digest": run.model.digest}, "method": id_fields(run.method)}
    return {
        f"{group}.{key}": value
        for group, fields in parts.items()
        if group not in given
        for key, value in fields.items()
        if f"{group}.{key}" not in given
    }


def _disagreements(each: Candidate, run: Run, given: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Returns in which keys a candidate is not what the start must be: its value, and the run's."""
    theirs, ours = _sections(each.run, given), _sections(run, given)
    keys = [key for key in {**ours, **theirs} if theirs.get(key) != ours.get(key)]
    if names := [key for key in keys if key.endswith(".name")]:
        keys = names  # all else follows from another model or method
    found = {
        key.removesuffix(".name"): (_written(each.run, key), _written(run, key))
        for key in keys
        if key != "model.digest"
    }
    seed = given.get("seed", run.seed)
    if seed not in each.seeds:
        found["seed"] = (", ".join(map(str, each.seeds)), str(seed))
    return found


def _written(run: Run, key: str) -> str:
    value = _value(key, run, {})
    return "not there" if value is _NONE else quoted(value)


def _parsed(key: str, written: str, having: Sequence[Candidate]) -> Any:
    """Returns the value behind what was written of a candidate: the first seed of several."""
    return int(written.partition(",")[0]) if key == "seed" else written


def _differing(one: Point, other: Point, given: Mapping[str, Any]) -> bool:
    keys = (one.keys() & other.keys()) - {"seed", *CHOICES, *given}
    return any(one[key] != other[key] for key in keys)


def _value(key: str, run: Run, point: Point) -> Any:
    """Returns a run's value of a key as a grid writes it."""
    if key in CHOICES:
        return getattr(run, key).name
    if "." not in key and key != "seed":
        return point.get(key, _NONE)
    value: Any = run
    for part in key.split("."):
        value = getattr(value, part, _NONE)
    return value if value is _NONE else plain(value)


def written(given: Mapping[str, Any]) -> str:
    """Writes what names a start as a grid has it: `{task: mnli}`."""
    pairs = (f"{key}: {written(value) if isinstance(value, dict) else _bare(value)}" for key, value in given.items())
    return "{" + ", ".join(pairs) + "}"


def _bare(value: Any) -> str:
    return value if isinstance(value, str) else quoted(value)


def where(point: Point) -> str:
    """Writes in which run an error was found."""
    return f"\nIn the job: {' '.join(overrides(point))}"
