"""The runs that an item of Section 7 is made of: those of its sweep, read from a store."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from analysis.runs import flat, run_status
from analysis.section7.item import UpdateItem
from analysis.section7.starts import FACTOR_FILES, Snapshot, final, nearest_snapshot
from analysis.section7.update import Update
from analysis.states import state_label
from analysis.store import elsewhere, name_of
from lora_repro.config.compose import compose
from lora_repro.config.identity import id_fields
from lora_repro.config.schema import Run
from lora_repro.config.settings import Settings
from lora_repro.errors import InputError, MissingInputError
from lora_repro.methods import LoRAConfig
from lora_repro.methods.chosen_layers import shown_layers
from lora_repro.methods.lora.names import factor_name
from lora_repro.models.arch import Site
from lora_repro.store.digests import as_written
from lora_repro.store.status import State
from lora_repro.sweep.grid import Job, load

ANEW = "outputs/weights"
"""The store in which runs are computed whose weights are not kept: where they count as finished, nothing is run."""
FAR = 1.5
"""How many times as far as another run a run may have moved and still serve as its control: our choice."""


class Trained(NamedTuple):
    """A finished run of LoRA."""

    run_id: str
    run: Run
    folder: Path

    @property
    def paths(self) -> list[Path]:
        """The files that may hold its adapter, the first that is there."""
        return [self.folder / "adapter" / name for name in FACTOR_FILES]

    def updates(self, sites: Sequence[Site]) -> list[Update]:
        """Reads what it learned of these matrices.

        Raises:
            MissingInputError: If its adapter is missing or damaged.
        """
        return read_updates(next(filter(Path.is_file, self.paths), self.paths[-1]), self.run, sites)


class Permuted(NamedTuple):
    """A run on permuted labels at the point of its training that is compared with a run on true labels."""

    trained: Trained
    snapshot: Snapshot
    beside: float
    """How far the run on true labels had moved in the end: ||A - A_0|| / ||A_0||."""

    def updates(self, sites: Sequence[Site]) -> list[Update]:
        """Reads what it had learned of these matrices."""
        return read_updates(self.snapshot.path, self.trained.run, sites)


class ComparedRuns:
    """The runs of an item's sweep at one scale, which the item compares: of the sweep's first model and task.

    Args:
        item: The item.
        scale: A scale of its sweep.
        store: The folder that holds runs/.
        given: Further overrides, as for the sweep. Values of `method.r` are the ranks that are compared, `model` and
            `task` choose another than the sweep's first.
        jobs: The sweep's jobs of one model and task, where they are loaded already; see `each_model`.

    Raises:
        InputError: If nothing can be run at this scale, or the runs differ in more than rank, seed and permuted labels.
    """

    def __init__(
        self,
        item: UpdateItem,
        scale: str,
        store: str | Path,
        given: Sequence[str] = (),
        jobs: Sequence[Job] | None = None,
    ) -> None:
        self.item, self.scale, self.store = item, scale, store
        keys = {override.partition("=")[0] for override in given}
        chosen = []
        if jobs is None:
            jobs = _load(item, scale, store, given)
            groups = _by_model(jobs)
            if len(groups) > 1 and not keys & {"model", "task"}:
                (model, task), jobs = next(iter(groups.items()))
                chosen = [f"model={model}", f"task={task}"]
        arguments = [f"+sweeps={item.sweep}", f"scale={scale}", *given, *chosen]
        command = ["python", "-m", "lora_repro", "-m", *arguments]
        self.command = shlex.join([*command, *elsewhere(store)])
        self._anew = shlex.join([*command, *elsewhere(ANEW)])
        self._jobs = {_key(job.resolved.run): job for job in jobs}
        _refuse_mixed(jobs)
        first = jobs[0].resolved
        self.run: Run = first.run
        self.settings: Settings = first.settings
        self.ranks_there = list(dict.fromkeys(r for r, _, _ in self._jobs))
        """All ranks that were trained, compared or not."""
        self.ranks = self._ranks(self.ranks_there, "method.r" in keys)
        self.seeds = list(dict.fromkeys(seed for _, seed, permuted in self._jobs if not permuted))
        self.sites = item.sites(self.run.arch)
        method = self.run.method
        if isinstance(method, LoRAConfig) and (absent := set(item.weights) - set(method.targets)):
            raise InputError(
                f"method.targets: {item.name} compares {', '.join(item.weights)}, and the runs do not adapt "
                f"{', '.join(sorted(absent))} (given: [{', '.join(method.targets)}])."
            )
        if isinstance(method, LoRAConfig) and (absent := set(self.sites) - set(method.sites(self.run.arch))):
            raise InputError(
                f"method.layers: {item.name} compares {min(site.name for site in absent)}, and the runs do not adapt "
                f"it (given: {shown_layers(method.layers)}).\nLeave method.layers out."
            )
        if isinstance(method, LoRAConfig) and method.r_pattern:
            raise InputError(
                f"method.r_pattern: {self.item.name} compares runs that have one rank each (given: "
                f"{dict(method.r_pattern)}).\nLeave it out."
            )

    @classmethod
    def each_model(
        cls, item: UpdateItem, scale: str, store: str | Path, given: Sequence[str] = ()
    ) -> list["ComparedRuns"]:
        """Returns the runs of every model and task of the sweep.

        Raises:
            InputError: As for one.
        """
        groups = _by_model(_load(item, scale, store, given))
        return [cls(item, scale, store, given, jobs) for jobs in groups.values()]

    def finished(self, wanted: Sequence[tuple[int, int]]) -> list[Trained]:
        """Returns the finished runs of these ranks and seeds.

        Raises:
            MissingInputError: If one is missing or has no weights, with the command that computes it.
        """
        found, missing = [], []
        for r, seed in wanted:
            job = self._jobs.get((r, seed, False))
            if job is None:
                raise InputError(f"seed: the sweep has no run of r = {r} and seed {seed}. Give seed={seed} too.")
            state = run_status(self.store, job.run_id).state
            if state == State.finished.value:
                found.append(self.trained(job))
            else:
                missing.append(f"{job.run_id} ({state_label(state)})")
        if missing:
            raise MissingInputError(
                f"{self.item.name}: {len(missing)} of {len(wanted)} runs are missing in {name_of(self.store)}: "
                f"{', '.join(dict.fromkeys(missing))}.\nCompute them: {self.command}"
            )
        if bare := [each.run_id for each in found if not any(path.is_file() for path in each.paths)]:
            raise MissingInputError(
                f"{self.item.name}: {len(bare)} of {len(wanted)} runs are without weights in {name_of(self.store)}, as "
                f"a ledger keeps records and no weights: {', '.join(dict.fromkeys(bare))}.\n"
                f"Compute them in another store, and give --runs {ANEW}: {self._anew}"
            )
        return found

    def permuted(self, like: Sequence[Trained]) -> tuple[list[Permuted] | None, str]:
        """Returns the runs on permuted labels that are the control of these, or None and the reason.

        Each is taken at the snapshot whose ||A - A_0|| / ||A_0|| is nearest to that of the run on true labels; at its
        end if it has no snapshots. A snapshot that is still too far away is no control. The reason is empty where the
        sweep has no runs on permuted labels.
        """
        if not any(permuted for _, _, permuted in self._jobs):
            return None, ""
        found = []
        for trained in like:
            method = trained.run.method
            assert isinstance(method, LoRAConfig)
            job = self._jobs.get((method.r, trained.run.seed, True))
            if job is None or run_status(self.store, job.run_id).state != State.finished.value:
                return None, f"they are not computed yet: {self.command}"
            beside = self.trained(job)
            if trained.run.train.init_from is not None:
                return None, "the runs start from an adapter, so there is no ||A - A_0|| by which to choose a snapshot."
            moved = final(trained.folder).moved
            has_snapshots = (beside.folder / "snapshots").is_dir()
            snapshot = nearest_snapshot(beside.folder, moved) if has_snapshots else final(beside.folder)
            if max(snapshot.moved, moved) > FAR * min(snapshot.moved, moved):
                return None, (
                    f"||A - A_0|| / ||A_0|| of {beside.run_id} is {snapshot.moved:.2f} at its nearest snapshot (after "
                    f"{snapshot.fraction:g} of training) and {moved:.2f} for the run on true labels, more than {FAR} "
                    "times apart."
                )
            found.append(Permuted(beside, snapshot, moved))
        return found, ""

    @property
    def run_ids(self) -> list[str]:
        """All runs of the sweep, permuted labels too."""
        return [job.run_id for job in self._jobs.values()]

    def job(self, r: int, seed: int, permuted: bool = False) -> Job | None:
        """Returns the job of the sweep with this rank, seed and labels, if there is one."""
        return self._jobs.get((r, seed, permuted))

    def trained(self, job: Job) -> Trained:
        """Returns a job's run, which is finished."""
        return Trained(job.run_id, job.resolved.run, Path(self.store) / "runs" / job.run_id)

    def _ranks(self, there: list[int], are_given: bool) -> list[int]:
        wanted = self.item.ranks_for(self.scale)
        distinct = list(dict.fromkeys(wanted))
        if are_given:
            if len(there) != len(distinct):
                raise InputError(
                    f"method.r: {self.item.name} compares {len(distinct)} (given: {', '.join(map(str, there))}).\n"
                    f"Example: method.r={','.join(map(str, distinct))}"
                )
            return [there[distinct.index(r)] for r in wanted]
        if absent := [str(r) for r in distinct if r not in there]:
            added = ",".join(map(str, distinct))
            raise InputError(
                f"{self.item.name}: the sweep has no runs of r = {', '.join(absent)} at scale={self.scale}.\n"
                f"Give method.r, of {', '.join(map(str, there))}; or method.r={added}, which adds what is absent."
            )
        return wanted


def read_updates(path: Path, run: Run, sites: Sequence[Site]) -> list[Update]:
    """Reads the factors of these matrices from a file of a run: its adapter, or a snapshot.

    Raises:
        MissingInputError: If the file is missing or damaged.
        InputError: If it is not what the run wrote.
    """
    method = run.method
    assert isinstance(method, LoRAConfig)
    updates = []
    as_written(path)
    try:
        with safe_open(path, framework="numpy") as tensors:
            for site in sites:
                own = site.part is not None
                A, B = (
                    np.asarray(tensors.get_tensor(factor_name(site, factor, own))) for factor in ("lora_A", "lora_B")
                )
                updates.append(Update(site.layer, site.role, site.module, A, B, method.scaling_of(site)))
    except (SafetensorError, OSError) as error:
        raise MissingInputError(
            f"{path} is missing or damaged ({error}).\nCompute the run in another store: paths.outputs={ANEW}"
        ) from error
    return updates


def _load(item: UpdateItem, scale: str, store: str | Path, given: Sequence[str]) -> list[Job]:
    """Returns the jobs of an item's sweep.

    Raises:
        InputError: If nothing can be run at this scale.
    """
    sweep = load(compose, [f"+sweeps={item.sweep}", f"scale={scale}", *given], store)
    if not sweep.jobs:
        raise InputError(
            f"scale={scale}: nothing of this sweep can be run yet: {sweep.why_planned}.\nGive another: --scale proxy"
        )
    return sweep.jobs


def _by_model(jobs: Sequence[Job]) -> dict[tuple[str, str], list[Job]]:
    """Sorts jobs by model and task, in the order of the sweep."""
    found: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        run = job.resolved.run
        found.setdefault((run.model.name, run.task.name), []).append(job)
    return found


def _key(run: Run) -> tuple[int, int, bool]:
    if not isinstance(run.method, LoRAConfig):
        raise InputError(f"method: Section 7 compares updates of LoRA (given: {run.method.name}).\nLeave method out.")
    return run.method.r, run.seed, run.task.permute_labels


def _refuse_mixed(jobs: Sequence[Job]) -> None:
    """Refuses a sweep whose runs differ in more than what an item compares."""
    configurations = [flat(id_fields(job.shown)) for job in jobs]
    found = {key for values in configurations for key in values} - {"seed", "method.r", "task.permute_labels"}
    for key in sorted(
        found, key=lambda key: (not key.endswith(".name"), key)
    ):  # a model's name says more than its hash
        values = list(dict.fromkeys(str(found.get(key)) for found in configurations))
        if len(values) > 1:
            name = key.removesuffix(".name")
            raise InputError(
                f"{name}: the compared runs may differ in rank, seed and labels alone (given: {', '.join(values)}).\n"
                f"Give one value: {name}={values[0]}"
            )
