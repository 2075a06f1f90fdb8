"""A value that is chosen on dev before a sweep's runs are computed: a learning rate for each arm. No torch.

An arm is what a sweep compares: all settings of a run but the seed. Each arm tries the same values on tuning seeds,
which are never reported, and takes the value with the best mean dev score. The tuning runs are ordinary runs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from lora_repro.config.declared_types import as_declared
from lora_repro.config.grammar import quoted
from lora_repro.errors import InputError, did_you_mean
from lora_repro.store.status import State
from lora_repro.tasks import TaskConfig
from lora_repro.tasks.metrics import Metric

TUNE = "tune"
"""The key of a grid that says what is tuned; null: nothing."""
FACTOR = 3
"""A grid whose best value lies at its end grows by a value this many times larger, or smaller."""
MOST_GROWTHS = 3
DEV = "eval/"
EXAMPLE = "tune: {train.learning_rate: [1e-3, 3e-3, 1e-2], seed: [100, 101]}"


@dataclass(frozen=True)
class Tune:
    """What a grid says about tuning."""

    key: str
    """The tuned key: train.learning_rate."""
    values: tuple[float, ...]
    """The values that every arm tries, from the smallest."""
    seeds: tuple[int, ...]
    by: str | None
    """The dev score that decides, as records spell it: eval/accuracy. None: the task's first metric."""
    at: tuple[tuple[str, Any], ...] = ()
    """Settings at which arms are tuned that differ from their own: arms that then are equal share their tuning."""

    def metric(self, task: TaskConfig) -> Metric:
        """Returns the metric that decides.

        Raises:
            InputError: If the task has no such metric.
        """
        targets = task.targets
        if self.by is None:
            return targets.metrics[0]
        name = self.by.removeprefix(DEV)
        metric = targets.metric(name)
        if metric is None or not self.by.startswith(DEV):
            known = [f"{DEV}{each.name}" for each in targets.shown] + [f"{DEV}loss"]
            raise InputError(
                f"tune: by: {task.name} has no dev score {self.by!r}.{did_you_mean(self.by, known)}\n"
                f"Scores of {task.name}: {', '.join(known)}."
            )
        return metric

    def override(self) -> str:
        """Writes it as the command line takes it."""
        given: dict[str, Any] = {self.key: list(self.values), "seed": list(self.seeds)}
        given |= {"by": self.by} if self.by is not None else {}
        given |= {"at": dict(self.at)} if self.at else {}
        return f"{TUNE}={quoted(given)}"


def parse(given: Any) -> Tune | None:
    """Reads the `tune` of a grid.

    Raises:
        InputError: If it is no tuning of one number.
    """
    if given is None:
        return None
    if not isinstance(given, dict):
        raise InputError(f"tune: must be keys and values, or null (given: {given}).\nExample: {EXAMPLE}")
    rest = dict(given)
    seeds, by, at = rest.pop("seed", None), rest.pop("by", None), rest.pop("at", None)
    if len(rest) != 1:
        names = ", ".join(map(str, rest)) if rest else "none"
        meant = next((hint for name in rest if (hint := did_you_mean(str(name), ["seed", "by", "at"]))), "")
        raise InputError(f"tune: one key is tuned, beside seed, by and at (given: {names}).{meant}\nExample: {EXAMPLE}")
    ((key, values),) = rest.items()
    if "." not in str(key):
        raise InputError(f"tune: {key}: a key is written with its section, as train.learning_rate.\nExample: {EXAMPLE}")
    if not _are(values, (int, float)) or not all(math.isfinite(value) and value > 0 for value in values):
        raise InputError(f"tune: {key}: must be a list of numbers above 0 (given: {values}).\nExample: {EXAMPLE}")
    if len(set(values)) < 2:
        raise InputError(
            f"tune: {key}: one value is no choice (given: {values}). Give two or more, or tune: null and the value "
            "itself."
        )
    if not _are(seeds, (int,)) or len(set(seeds)) < len(seeds):
        raise InputError(f"tune: seed: must be a list of different seeds (given: {seeds}).\nExample: {EXAMPLE}")
    if by is not None and not isinstance(by, str):
        raise InputError(f"tune: by: must be a dev score, as in eval/accuracy (given: {by}).")
    if at is not None and (not isinstance(at, dict) or not at.keys().isdisjoint((key, "seed"))):
        raise InputError(
            f"tune: at: must be settings other than {key} and seed at which arms are tuned (given: {at}).\n"
            "Example: at: {method.r: 8}"
        )
    return Tune(
        key=str(key),
        values=tuple(sorted({as_declared(str(key), value) for value in values})),
        seeds=tuple(seeds),
        by=by,
        at=tuple((str(name), as_declared(str(name), value)) for name, value in (at or {}).items()),
    )


def _are(values: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(values, list) and bool(values) and all(type(value) in kinds for value in values)


class Scored(NamedTuple):
    """A tuning run as the store has it."""

    run_id: str | None
    """None while the run is not known that it starts from."""
    seed: int
    state: State
    score: float | None
    """Its dev score; None while it has none."""


class Trial(NamedTuple):
    """A value that was tried, or is to be tried."""

    value: float
    runs: tuple[Scored, ...]

    @property
    def diverged(self) -> bool:
        """Tells whether a run diverged: the value cannot be chosen."""
        return any(run.state is State.diverged for run in self.runs)

    @property
    def missing(self) -> int:
        """How many runs have no score yet; none are needed once one has diverged."""
        return 0 if self.diverged else sum(run.score is None for run in self.runs)

    @property
    def mean(self) -> float | None:
        """The mean dev score over the tuning seeds; None where a run has none, as one that diverged."""
        scores = [run.score for run in self.runs if run.score is not None]
        return fmean(scores) if scores and len(scores) == len(self.runs) else None


class Tuning(NamedTuple):
    """How the value of an arm was chosen, or what is missing for it."""

    tune: Tune
    metric: Metric
    trials: tuple[Trial, ...]
    """From the smallest value."""
    chosen: float | None
    """None while runs are missing, or if all values diverged."""
    at_edge: bool = False
    """The chosen value is the grid's first or last, though the grid has grown as often, or as far, as it may."""

    @property
    def runs(self) -> int:
        """How many runs the choice takes."""
        return sum(len(trial.runs) for trial in self.trials)

    @property
    def missing(self) -> int:
        """How many of them have no score yet."""
        return sum(trial.missing for trial in self.trials)

    @property
    def grown(self) -> tuple[float, ...]:
        """The values that were added to the grid."""
        return tuple(trial.value for trial in self.trials if trial.value not in self.tune.values)

    @property
    def best(self) -> float | None:
        """The mean dev score at the chosen value."""
        return next((trial.mean for trial in self.trials if trial.value == self.chosen), None)

    @property
    def neighbours(self) -> list[float]:
        """The mean dev scores at the values next to the chosen one."""
        values = [trial.value for trial in self.trials]
        if self.chosen is None:
            return []
        at = values.index(self.chosen)
        near = [self.trials[number].mean for number in (at - 1, at + 1) if 0 <= number < len(values)]
        return [mean for mean in near if mean is not None]

    @property
    def why_not(self) -> str | None:
        """Why nothing is chosen; None if something is."""
        if self.chosen is not None:
            return None
        if self.missing:
            return f"{self.missing} of the {self.runs} tuning runs of an arm are missing"
        span = f"from {self.trials[0].value:g} to {self.trials[-1].value:g}"
        return f"tuning diverged at every {self.tune.key} {span}: give lower values to tune"


Try = Callable[[float], Trial]
"""Looks up the runs of a value."""


def choose(tune: Tune, metric: Metric, trial_of: Try) -> Tuning:
    """Chooses the value with the best mean score, of equal ones the smallest, and grows a grid that ends too soon.

    A grid whose best value is its first or last gets one value more there, up to MOST_GROWTHS times, and as long as the
    key can have it: a rank cannot be 2/3. Values at which a run diverged are not chosen.

    Args:
        tune: What is tuned.
        metric: The score that decides.
        trial_of: Looks up the runs of a value; called for the values of the grid, and for those that are added.

    Raises:
        InputError: If a value of the grid is impossible.
    """
    trials = [trial_of(value) for value in tune.values]
    for growths_left in reversed(range(MOST_GROWTHS + 1)):
        means = [(trial.value, trial.mean) for trial in trials if trial.mean is not None]
        if any(trial.missing for trial in trials) or not means:
            break
        chosen = means[metric.best([mean for _, mean in means])][0]
        is_first, is_last = chosen == trials[0].value, chosen == trials[-1].value
        if not (is_first or is_last):
            return Tuning(tune, metric, tuple(trials), chosen)
        value = as_declared(tune.key, _rounded(chosen / FACTOR if is_first else chosen * FACTOR))
        beyond = _possible(trial_of, value) if growths_left else None
        if beyond is None:
            return Tuning(tune, metric, tuple(trials), chosen, at_edge=True)
        trials.insert(0 if is_first else len(trials), beyond)
    return Tuning(tune, metric, tuple(trials), None)


def _possible(trial_of: Try, value: float) -> Trial | None:
    """Looks up the runs of a value; None where the key cannot have it."""
    try:
        return trial_of(value)
    except InputError:
        return None


def _rounded(value: float) -> float:
    """Returns two digits of a value, as people write rates: 0.009, and not 0.009000000000000001."""
    return float(f"{value:.2g}")


class Ranked(NamedTuple):
    """Whether the place of an arm among the others depends on the choice of its value."""

    place: int
    """1 is the best, by the mean dev score of the tuning runs."""
    with_neighbour: int
    """The place it would have with the better of the two values next to the chosen one."""


def rank(tunings: Mapping[Any, Tuning]) -> dict[Any, Ranked]:
    """Ranks arms by their tuning scores, each once more with the better of the values beside its chosen one.

    Args:
        tunings: By arm, of one task and model; those without a choice are left out.
    """
    best = {arm: tuning.best for arm, tuning in tunings.items() if tuning.best is not None}
    found = {}
    for arm, score in best.items():
        metric, others = tunings[arm].metric, [other for name, other in best.items() if name != arm]
        beside = tunings[arm].neighbours
        last = len(best)  # if the runs of both diverged
        with_neighbour = _place(beside[metric.best(beside)], others, metric) if beside else last
        found[arm] = Ranked(_place(score, others, metric), with_neighbour)
    return found


def _place(score: float, others: Sequence[float], metric: Metric) -> int:
    better = [other for other in others if (other > score if metric.higher_is_better else other < score)]
    return 1 + len(better)
