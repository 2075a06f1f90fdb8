"""What the runs of a sweep of one model learned, each file read once; and which of them are missing."""

from collections.abc import Callable
from typing import TypeVar

from analysis.runs import run_status
from analysis.section7.compared_runs import ComparedRuns, Permuted, Trained
from analysis.section7.sides import Directions, Side, directions_of
from analysis.section7.starts import final
from analysis.section7.statistics import Statistic
from analysis.section7.update import Update
from analysis.states import state_label
from lora_repro.errors import InputError, MissingInputError
from lora_repro.store.status import State

T = TypeVar("T")
Key = TypeVar("Key")

WITHOUT_WEIGHTS = "without weights"
"""What is said of a finished run whose adapter is not in the store: of one that was restored from a ledger."""


class RunWeights:
    """The trained weights of a sweep's runs of one model.

    Args:
        compared: The runs.
    """

    def __init__(self, compared: ComparedRuns) -> None:
        self.compared = compared
        self.missing: dict[str, str] = {}
        """Of each run that is missing, or has no weights, its state in words."""
        self.left_out: dict[str, None] = {}
        """Why else statistics are left out, each reason once."""
        self._trained: dict[tuple[int, int], Trained | None] = {}
        self._permuted: dict[tuple[int, int], Permuted | None] = {}
        self._updates: dict[tuple[int, int, bool], list[Update] | None] = {}
        self._directions: dict[tuple[int, int, bool, Side], list[Directions] | None] = {}

    def read_all(self) -> None:
        """Reads every run, so that all that are missing are known."""
        for r in self.compared.ranks_there:
            for seed in self.compared.seeds:
                self.updates(r, seed)
                self.permuted(r, seed)

    def trained(self, r: int, seed: int) -> Trained | None:
        """Returns a finished run on true labels."""
        return _once(self._trained, (r, seed), lambda: self._finished(r, seed, permuted=False))

    def permuted(self, r: int, seed: int) -> Permuted | None:
        """Returns the run on permuted labels where it has moved as far as the one on true labels.

        None where the sweep has no such run (`has_permuted`), or it is missing, or never moved as far.
        """
        return _once(self._permuted, (r, seed), lambda: self._control(r, seed))

    def has_permuted(self, r: int) -> bool:
        """Tells whether the sweep has runs on permuted labels of this rank."""
        return any(self.compared.job(r, seed, permuted=True) is not None for seed in self.compared.seeds)

    def updates(self, r: int, seed: int, permuted: bool = False) -> list[Update] | None:
        """Returns what a run learned of each matrix; None if its weights are missing."""
        return _once(self._updates, (r, seed, permuted), lambda: self._read(r, seed, permuted))

    def directions(self, r: int, seed: int, side: Side, permuted: bool = False) -> list[Directions] | None:
        """Returns all r directions of each matrix on one side; None if weights are missing or there are fewer."""
        return _once(self._directions, (r, seed, permuted, side), lambda: self._decomposed(r, seed, permuted, side))

    def run_id(self, r: int, seed: int, permuted: bool = False) -> str:
        """Returns the id of a run of the sweep."""
        job = self.compared.job(r, seed, permuted)
        assert job is not None
        return job.run_id

    def statistic(
        self,
        name: str,
        where: str,
        setting: str,
        seeds: tuple[int, ...],
        numbers: tuple[float, float],
        against: str,
        run_ids: tuple[str, ...],
    ) -> Statistic:
        """Returns a statistic of these runs; `numbers` are its value and chance."""
        run, (value, chance) = self.compared.run, map(float, numbers)
        return Statistic(name, run.model.name, run.task.name, where, setting, seeds, value, chance, against, run_ids)

    def _finished(self, r: int, seed: int, permuted: bool) -> Trained | None:
        job = self.compared.job(r, seed, permuted)
        if job is None:
            return None
        state = run_status(self.compared.store, job.run_id).state
        if state != State.finished.value:
            self.missing[job.run_id] = state_label(state)
            return None
        return self.compared.trained(job)

    def _control(self, r: int, seed: int) -> Permuted | None:
        beside = self._finished(r, seed, permuted=True)
        if beside is None:
            return None
        try:
            final(beside.folder)
        except MissingInputError:
            self.missing[beside.run_id] = WITHOUT_WEIGHTS
            return None
        run = self.trained(r, seed)
        if run is None or self.updates(r, seed) is None:
            return None
        try:
            found, why_not = self.compared.permuted([run])
        except InputError as error:  # of its snapshots: its adapter and the other run's weights are read above
            found, why_not = None, str(error)
        if found is None:
            self.left_out[f"Against permuted labels, r = {r}, seed {seed}: {why_not}"] = None
            return None
        return found[0]

    def _read(self, r: int, seed: int, permuted: bool) -> list[Update] | None:
        run = self.permuted(r, seed) if permuted else self.trained(r, seed)
        if run is None:
            return None
        try:
            return run.updates(self.compared.sites)
        except MissingInputError:
            self.missing[self.run_id(r, seed, permuted)] = WITHOUT_WEIGHTS
            return None

    def _decomposed(self, r: int, seed: int, permuted: bool, side: Side) -> list[Directions] | None:
        updates = self.updates(r, seed, permuted)
        if updates is None:
            return None
        found = [directions_of(update, side) for update in updates]
        if (fewest := min(len(each.s) for each in found)) < r:
            run_id = self.run_id(r, seed, permuted)
            self.left_out[f"{side.of} of {run_id} has {fewest} directions in a matrix, not {r}."] = None
            return None
        return found


def _once(cache: dict[Key, T], key: Key, make: Callable[[], T]) -> T:
    if key not in cache:
        cache[key] = make()
    return cache[key]
