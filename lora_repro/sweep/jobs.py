"""Resolves the points of grids to jobs: finds their starts, and chooses the values that are tuned. No torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lora_repro.config.catalogue import GROUPS
from lora_repro.config.explain import explain
from lora_repro.config.grammar import quoted
from lora_repro.config.identity import run_id
from lora_repro.config.presets import refuse_idle_ratio
from lora_repro.config.schema import Run
from lora_repro.config.variants import Variants
from lora_repro.costs import budget
from lora_repro.errors import InputError
from lora_repro.store.listing import Listing
from lora_repro.store.record import Record
from lora_repro.store.status import State
from lora_repro.sweep import starts
from lora_repro.sweep.job import START, Job, Point, Start, Sweep, named, overrides
from lora_repro.sweep.starts import INIT_FROM, INIT_HEAD, Candidate, Finder
from lora_repro.sweep.tuning import DEV, TUNE, Scored, Trial, Tune, Tuning, choose

Compose = Callable[[list[str]], DictConfig]
"""Composes a configuration from override strings: Hydra's, however it was started."""

SOME_START = "start-of_the_sweep-s0-0000000000"
"""Stands for the id of a start while it is looked for."""


class _Entry(NamedTuple):
    """A point of a grid, with what its keys `tune` and `start` say."""

    point: Point
    tune: Tune | None
    start: Mapping[str, Any] | None

    @property
    def arm(self) -> Point:
        """The settings at which it is tuned: all but the seed."""
        assert self.tune is not None
        return {key: value for key, value in self.point.items() if key != "seed"} | dict(self.tune.at)

    @property
    def arm_name(self) -> str:
        """Names the arm: points of one name share their tuning."""
        return f"{self.tune} {quoted(self.arm)} {quoted(self.start)}"


class Jobs:
    """Resolves points, composing once per choice of groups and setting the other keys.

    Args:
        compose: Composes a configuration.
        passed: What all jobs are started with.
        settings: What of it their configurations are composed with. Sweep and regime are left out, so that sweeps and
            regimes share what is composed: no run depends on the sweep, which takes longer to read than all else, and
            the regime's name is set afterwards.
        regime: The regime's name.
        store: The folder that holds runs/; None: there are no runs, and nothing that is tuned is chosen.
    """

    def __init__(
        self, compose: Compose, passed: list[str], settings: list[str], regime: str | None, store: str | Path | None
    ) -> None:
        self._compose, self._passed, self._settings, self._store = compose, passed, settings, store
        self._regime = regime
        self._listing = None if store is None else Listing(store)
        self._bases: dict[tuple[str, ...], Variants] = {}
        self._composed: dict[str, Job] = {}
        """Points that were resolved, as written."""
        self._entries: list[_Entry] = []
        self._resolved: dict[int, Job] = {}
        """The jobs of entries."""
        self._jobs: dict[str, Job] = {}
        self._tuning_jobs: dict[str, Job] = {}
        self._waiting: dict[str, Job] = {}
        self._waiting_tuning: dict[str, Job] = {}
        self._twins: list[Job] = []
        self._tunings: dict[str, Tuning] = {}
        self._under_way: dict[str, None] = {}
        """The runs whose starts are being looked for: one that is met again starts from itself."""
        self._starting: set[str] = set()
        """Ids of runs from which others start."""
        self._starting_arms: set[str] = set()
        """Arms whose tuning runs are starts of other tuning runs."""
        self._runs = self._tuned = Finder([], "run")

    def add(self, points: Sequence[Point]) -> None:
        """Adds all points of a sweep, once; the keys `tune` and `start` of a point hold what its grid says.

        Raises:
            InputError: If a point, a tuning or a start is impossible.
        """
        entries = [self._entry(dict(point)) for point in points]
        self._entries = list(
            {f"{entry.tune} {quoted(entry.start)} {quoted(entry.point)}": entry for entry in entries}.values()
        )
        if any(entry.start is not None for entry in self._entries):
            self._find_among_entries()
        for number in range(len(self._entries)):
            job = self._reported(number)
            if (self._jobs if job.why_open is None else self._waiting).setdefault(job.run_id, job) is not job:
                self._twins.append(job)
        self._refuse_tuning_seeds(
            {seed for entry in self._entries if entry.tune is not None for seed in entry.tune.seeds}
        )

    def sweep(self, planned: list[tuple[Point, str]]) -> Sweep:
        """Returns what was added."""
        for tuning in (self._tunings[name] for name in self._starting_arms):
            if tuning.chosen is None:  # which of them is the start is known when it is too late to keep its weights
                self._starting |= {
                    run.run_id for trial in tuning.trials for run in trial.runs if run.run_id is not None
                }
        known, tuning, waiting_tuning = (
            list(map(self._keeping_weights, found.values()))
            for found in (self._jobs, self._tuning_jobs, self._waiting_tuning)
        )
        tuning, waiting_tuning = (
            sorted(found, key=lambda job: job.resolved.run.seed) for found in (tuning, waiting_tuning)
        )
        return Sweep(known, planned, tuning, list(self._waiting.values()), waiting_tuning, self._twins)

    def _entry(self, point: Point) -> _Entry:
        tune, has_start, start = point.pop(TUNE, None), START in point, starts.parse(point.pop(START, None))
        if start is not None and INIT_FROM in point:
            raise InputError(f"{INIT_FROM}: start names it already. Give one of them.{starts.where(point)}")
        if start is not None and starts.is_itself(start, self._base(point, tune, start), point):
            start = None
        if start is None and has_start:
            point.pop(INIT_HEAD, None)  # what it says is about a start
        if start is not None and tune is not None and tune.key.partition(".")[0] in ("method", "model"):
            raise InputError(
                f"tune: {tune.key}: a run that starts from another one ({named(start)}) takes over an adapter of its "
                f"own method with the same settings.\nTune a key of train, as train.learning_rate.{starts.where(point)}"
            )
        return _Entry(point, tune, start)

    def _base(self, point: Point, tune: Tune | None, start: Mapping[str, Any] | None) -> Run:
        """Returns the configuration by which a point is compared with others: of a tuned value the smallest."""
        value = {} if tune is None else {tune.key: tune.values[0]}
        needs_one = start is not None and INIT_HEAD in point  # which no run without a start may have
        return self._job(point | value, {INIT_FROM: SOME_START} if needs_one else {}).resolved.run

    def _find_among_entries(self) -> None:
        """Prepares the search for starts."""
        reported, tuned, seen = [], {}, set[str]()
        for number, (point, tune, start) in enumerate(self._entries):
            run = self._base(point, tune, start)
            if (same := f"{run_id(run)} {tune} {quoted(start)}") in seen:
                continue
            seen.add(same)

            def of_entry(_: int, number: int = number) -> Job:
                return self._reported(number)

            key = None if tune is None else tune.key
            reported.append(Candidate(point, run, start, key, of_entry, (run.seed,)))
            if tune is not None and (name := self._entries[number].arm_name) not in tuned:
                entry = self._entries[number]

                def of_arm(seed: int, entry: _Entry = entry) -> Job:
                    return self._best_of_arm(entry, seed)

                arm = self._base(entry.arm | {"seed": tune.seeds[0]}, tune, entry.start)
                tuned[name] = Candidate(entry.arm, arm, start, key, of_arm, tune.seeds)
        self._runs, self._tuned = Finder(reported, "run"), Finder(list(tuned.values()), "tuning run")

    def _reported(self, number: int) -> Job:
        """Returns the job of an entry; of one that is not known yet, its stand-in."""
        if number in self._resolved:
            return self._resolved[number]
        point, tune, given = self._entries[number]
        with _Met(self._under_way, " ".join(overrides(point))):
            start = None
            if given is not None:
                try:
                    found, seed = self._runs.find(given, self._base(point, tune, given), point)
                except InputError as error:
                    raise InputError(f"{error}{starts.where(point)}") from error
                start = Start(given, found.job(seed))
            tuning = None if tune is None else self._tuning(self._entries[number])
        value = {}
        if tune is not None and tuning is not None:
            value = {tune.key: tune.values[0] if tuning.chosen is None else tuning.chosen}
        job = self._started(point | value, start)
        self._resolved[number] = job._replace(
            point={k: job.point[k] for k in job.point if k not in value}, tuning=tuning
        )
        return self._resolved[number]

    def _started(self, point: Point, start: Start | None) -> Job:
        """Returns the job of a point that starts from another one; None: from none."""
        if start is None:
            return self._job(point)
        job = self._job(point | {INIT_FROM: start.job.run_id})._replace(point=point | {START: start.given}, start=start)
        if start.job.why_open is None:
            self._starting.add(start.job.run_id)
        return job

    def _tuning(self, entry: _Entry) -> Tuning:
        """Returns how the value of an arm is chosen; its runs are among the tuning runs from then on."""
        assert entry.tune is not None
        tune, name = entry.tune, entry.arm_name
        if name not in self._tunings:
            with _Met(self._under_way, name):
                from_seed = (
                    {} if entry.start is None else {seed: self._start_of_tuning(entry, seed) for seed in tune.seeds}
                )

            def trial_of(value: float) -> Trial:
                jobs = [
                    self._started(entry.arm | {tune.key: value, "seed": seed}, from_seed.get(seed))
                    for seed in tune.seeds
                ]
                for job in jobs:
                    (self._tuning_jobs if job.why_open is None else self._waiting_tuning)[job.run_id] = job
                return Trial(value, tuple(self._scored(job, f"{DEV}{metric.name}") for job in jobs))

            metric = tune.metric(self._base(entry.arm | {"seed": tune.seeds[0]}, tune, entry.start).task)
            self._tunings[name] = choose(tune, metric, trial_of)
        return self._tunings[name]

    def _start_of_tuning(self, entry: _Entry, seed: int) -> Start:
        """Returns what a tuning run starts from: the run that is named with its seed, else one of its own tuning seed.

        A run of a reported seed is no start of a tuning run, unless the grid names that seed: a choice of the start's
        would otherwise depend on scores that are reported.
        """
        assert entry.tune is not None and entry.start is not None
        given, point = entry.start, entry.arm | {"seed": seed}
        finder = self._runs if "seed" in given else self._tuned
        try:
            found, of_seed = finder.find(given, self._base(point, entry.tune, given), point)
        except InputError as error:
            remedy = (
                f"\nRuns that tune {entry.tune.key} start from tuning runs of the same seed. Tune the start with the "
                f"seeds {', '.join(map(str, entry.tune.seeds))} too; or name one run from which all start: start: "
                f"{starts.written(dict(given) | {'seed': 0})}"
            )
            raise InputError(f"{error}{'' if 'seed' in given else remedy}{starts.where(point)}") from error
        return Start(given, found.job(of_seed))

    def _best_of_arm(self, entry: _Entry, seed: int) -> Job:
        """Returns the tuning run of an arm's chosen value."""
        tuning, tune = self._tuning(entry), entry.tune
        assert tune is not None
        self._starting_arms.add(entry.arm_name)
        value = tune.values[0] if tuning.chosen is None else tuning.chosen
        start = None if entry.start is None else self._start_of_tuning(entry, seed)
        return self._started(entry.arm | {tune.key: value, "seed": seed}, start)._replace(tuning=tuning)

    def _scored(self, job: Job, key: str) -> Scored:
        seed = job.resolved.run.seed
        if job.why_open is not None:
            return Scored(None, seed, State.todo, None)  # what the store has under the id of a stand-in is another run
        if self._store is None or self._listing is None or not self._listing.may_have(job.run_id):
            return Scored(job.run_id, seed, State.todo, None)
        state, result = Record(self._store, job.run_id).read_state()
        return Scored(job.run_id, seed, state, None if result is None else result["metrics"].get(key))

    def _refuse_tuning_seeds(self, seeds: set[int]) -> None:
        reported = {job.resolved.run.seed for job in (*self._jobs.values(), *self._waiting.values())}
        if both := sorted(seeds & reported):
            raise InputError(
                f"tune: seed: {', '.join(map(str, both))} would be tuned with and reported too. Scores of seeds on "
                "which a value was chosen are too good.\nTune with other seeds than the sweep's, as 100 and 101."
            )

    def _keeping_weights(self, job: Job) -> Job:
        """Returns a job that keeps its weights if others start from it, and counts as ready only while it has them."""
        settings, method = job.resolved.settings, job.resolved.run.method
        if job.run_id not in self._starting or settings.log.save_full:
            return job
        if method.is_saved_on_request and any(line.partition("=")[0] == "log.save_full" for line in self._settings):
            raise InputError(
                f"log.save_full=false: other runs of the sweep start from {job.run_id}, whose weights are kept only on "
                "request.\nLeave it out, or give log.save_full=true."
            )
        settings = replace(settings, log=replace(settings.log, save_full=True))
        return job._replace(
            overrides=[*job.overrides, "log.save_full=true"], resolved=job.resolved._replace(settings=settings)
        )

    def _job(self, point: Point, beside: Mapping[str, Any] | None = None) -> Job:
        """Resolves a point, and what is set beside it; once, as a start is compared with all that may start from it."""
        if (known := f"{quoted(point)} {quoted(dict(beside or {}))}") not in self._composed:
            self._composed[known] = self._resolve(point, dict(beside or {}))
        return self._composed[known]

    def _resolve(self, point: Point, beside: dict[str, Any]) -> Job:
        groups = {key: value for key, value in point.items() if key in GROUPS}
        choice = (*self._settings, *overrides(groups))
        if choice not in self._bases:
            composed = self._compose(list(choice))
            composed.regime = self._regime
            self._bases[choice] = Variants(composed)
        try:
            values = {key: value for key, value in point.items() if key not in groups}
            resolved = self._bases[choice].resolve(values | beside)
            budget.refuse_both(point, resolved.run.method.name)
            refuse_idle_ratio(point, resolved.run.train.warmup_steps)
        except (InputError, OmegaConfBaseException) as error:
            reason = error if isinstance(error, InputError) else explain(error)
            raise InputError(f"{reason}{starts.where(point)}") from error
        return Job([*self._passed, *overrides(point)], run_id(resolved.run), resolved, point)


class _Met:
    """Refuses to look for the start of a run while it is being looked for."""

    def __init__(self, under_way: dict[str, None], name: str) -> None:
        self._under_way, self._name = under_way, name

    def __enter__(self) -> None:
        if self._name in self._under_way:
            chain = [*self._under_way][[*self._under_way].index(self._name) :]
            raise InputError(
                "start: these runs start from each other, so none can be the first:\n"
                + "\n".join(f"  {each}" for each in chain)
                + "\nLeave start out of one of their grids."
            )
        self._under_way[self._name] = None

    def __exit__(self, *_: object) -> None:
        self._under_way.pop(self._name, None)
