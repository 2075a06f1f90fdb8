"""A cell of a table: the paper's number and, of ours, the score of every seed and run. All else follows from these."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from analysis.protocol import Protocol
from analysis.states import PLANNED
from analysis.stats import Summary, summarise
from lora_repro.config.grammar import quoted
from lora_repro.config.schema import Run
from lora_repro.errors import InputError
from lora_repro.sweep.grid import reasons
from lora_repro.sweep.tuning import DEV, Tuning
from lora_repro.tasks import Metric, Targets

if TYPE_CHECKING:
    from analysis.kinds.scores import Beneath


class Place(NamedTuple):
    """Where a run belongs in a table."""

    task: str
    model: str | None
    """None on lines that only the paper has."""
    row: str
    column: str | int | float
    metric: str | None = None
    """Set only if the table shows several metrics."""


class PaperFact(NamedTuple):
    """A number that the paper prints, in [0, 1] as our scores."""

    value: float
    fluctuation: float | None
    model: str
    settings: dict[str, Any]
    """What else the paper's line says, such as its r."""


class SeedRun(NamedTuple):
    """One run of a cell."""

    seed: int | None
    run_id: str | None
    """None of a planned run."""
    state: str
    """A key of analysis.states.STATES."""
    reason: str | None
    """Why there is no score."""
    score: float | None = None
    """None unless the run is finished and its record holds the metric."""
    epoch: int | None = None
    """The epoch whose score it is."""
    baseline: float | None = None
    """What the metric's baseline scores on the same split."""
    result: Mapping[str, Any] | None = None
    """The record's result.json, where it counts."""
    draw: int | None = None
    """Which draw of the training examples it has, where a cell is over draws; None: all its runs have the same."""

    @property
    def flags(self) -> list[str]:
        """The flags that it raises: of its predictions after the epoch of the score, where the record has them."""
        found = {} if self.result is None else dict(self.result.get("flags", {}))
        if self.result is not None:
            found |= self.result.get("flags_by_epoch", {}).get(str(self.epoch), {})
        return [name for name, is_raised in found.items() if is_raised]


@dataclass(frozen=True)
class Cell:
    """A place of a table with what the paper and our runs say there."""

    place: Place
    metric: Metric
    paper: PaperFact | None = None
    runs: tuple[SeedRun, ...] = ()
    config: Run | None = None
    """The configuration that all its runs share but for the seed; None of planned runs and of the paper's cells."""
    command: str | None = None
    """What a person types to get the cell's runs."""
    verdict: str | None = None
    tuning: Tuning | None = None
    """How the tuned value of its runs was chosen; None where nothing is tuned."""

    @property
    def task(self) -> str:
        """The task of its runs, or of the paper's number."""
        return self.place.task if self.config is None else self.config.task.name

    @property
    def model(self) -> str:
        """The model of our runs."""
        return self.place.model or "" if self.config is None else self.config.model.name

    @property
    def targets(self) -> Targets | None:
        """What the task of our runs declares."""
        return None if self.config is None else self.config.task.targets

    @property
    def planned(self) -> str | None:
        """Why its runs cannot run yet; None if all can."""
        return reasons(run.reason or "" for run in self.runs if run.state == PLANNED) or None

    @property
    def missing(self) -> tuple[SeedRun, ...]:
        """Runs without a score that could have one."""
        return tuple(run for run in self.runs if run.score is None and run.state != PLANNED)

    @cached_property
    def _scores(self) -> list[float]:
        return [run.score for run in self.runs if run.score is not None]

    @property
    def n(self) -> int:
        """How many runs have a score."""
        return len(self._scores)

    @property
    def is_over_draws(self) -> bool:
        """Whether its runs have several draws of the training examples, which then are the replicates."""
        return len({run.draw for run in self.runs}) > 1

    @cached_property
    def replicates(self) -> dict[int | None, float]:
        """The independent scores: one for each seed, or, over several draws, for each draw the mean over its seeds.

        Runs that share a draw are alike, so to count them singly would make an interval too narrow. Empty while a run
        is missing: nothing is taken over a part of the runs.
        """
        if self.missing:
            return {}
        scores = {key: [run.score for run in runs if run.score is not None] for key, runs in self.by_replicate.items()}
        return {key: statistics.fmean(of_each) for key, of_each in scores.items() if of_each}

    @property
    def by_replicate(self) -> dict[int | None, list[SeedRun]]:
        """Its runs by what makes them independent: the draw if there are several, else the seed."""
        found: dict[int | None, list[SeedRun]] = {}
        for run in self.runs:
            found.setdefault(run.draw if self.is_over_draws else run.seed, []).append(run)
        return found

    @cached_property
    def summary(self) -> Summary:
        """Mean and interval over its replicates; no mean while a run is missing."""
        return summarise([*self.replicates.values()])

    @property
    def baseline(self) -> float | None:
        """The best baseline of its runs, which is the hardest to beat."""
        found = [run.baseline for run in self.runs if run.baseline is not None]
        return found[self.metric.best(found)] if found else None

    @property
    def results(self) -> list[Mapping[str, Any]]:
        """The records of its runs that count."""
        return [run.result for run in self.runs if run.result is not None]

    @property
    def trained(self) -> int | None:
        """How many weights its method trains, the head not counted, as its runs recorded it; None before one is done.

        Raises:
            InputError: If its runs recorded different numbers.
        """
        counts = sorted({result["params"]["method"] for result in self.results})
        if len(counts) > 1:
            raise InputError(
                f"{self.runs[0].run_id}: runs that differ in their seed alone record {' and '.join(map(str, counts))} "
                "trained weights.\nCompute them again with one version."
            )
        return counts[0] if counts else None

    @property
    def data(self) -> Mapping[str, Any] | None:
        """The sizes and the balance of the splits."""
        return next((result["data"] for result in self.results if "data" in result), None)

    @property
    def about_data(self) -> str:
        """Says how large its splits are, and what they hold; empty while no run is finished."""
        if self.data is None or self.targets is None or self.config is None:
            return ""
        return self.targets.summary(self.data, self.config.task.label_names)

    @property
    def flags(self) -> dict[str, int]:
        """How many runs raise each flag."""
        raised = [name for run in self.runs for name in run.flags]
        return {name: raised.count(name) for name in dict.fromkeys(raised)}

    @property
    def commits(self) -> tuple[str, ...]:
        """The commits at which its runs were computed."""
        return tuple(dict.fromkeys(filter(None, map(commit_of, self.results))))

    @property
    def computed_on(self) -> tuple[str, ...]:
        """Hardware and versions of its runs, which change numbers a little."""
        return tuple(dict.fromkeys(computed_on(result) for result in self.results if "provenance" in result))

    def settings(self, keys: Iterable[str]) -> dict[str, Any]:
        """Returns the configuration's values of these keys; none where only the paper has the cell."""
        if self.config is None:
            return {}
        open_key = self.tuning.tune.key if self.tuning is not None and self.tuning.chosen is None else None
        return {key: "tuned" if key == open_key else label(value_of(self.config, key)) for key in keys}


class Table(NamedTuple):
    """The cells of a table in their order, and what is said about all of them."""

    title: str
    rows: str
    """What the rows are called; empty where there is a single row."""
    columns: str
    """What the columns are called; empty where there is a single column."""
    cells: list[Cell]
    protocol: Protocol
    scale: str | None
    """None of a sweep that has no scales."""
    command: str
    """What a person types to get all runs."""
    outside: list[str]
    """Ids of runs of the sweep that have no row or column."""
    settings: list[str]
    """Keys of the configuration that are printed beside the numbers."""
    notes: list[str]
    is_item: bool = True
    """Whether it is an item of the paper or an ablation of ours, and no sweep of a user's own."""
    unit: str | None = None
    """What the paper's numbers are; None where the paper has no such table."""
    beneath: "Beneath | None" = None
    """What stands under each column."""
    about: tuple[str, ...] = ()
    """Further lines about our runs, above the table."""
    keys: tuple[str, ...] = ()
    """The configuration's keys that make rows and columns of a user's own sweep."""

    @property
    def ours(self) -> list[Cell]:
        """The cells for which we have runs, or plan some."""
        return [cell for cell in self.cells if cell.runs]

    @property
    def column_values(self) -> list[str | int | float]:
        """The columns in their order: numbers by size, then all others as they come."""
        columns = dict.fromkeys(cell.place.column for cell in self.cells)
        numbers = sorted(column for column in columns if isinstance(column, int | float))
        return [*numbers, *(column for column in columns if isinstance(column, str))]

    @property
    def missing(self) -> list[SeedRun]:
        """The runs without a score that could have one."""
        return [run for cell in self.cells for run in cell.missing]


def records(table: Table) -> list[dict[str, Any]]:
    """Returns the cells as the data frame and JSON hold them.

    Of a user's own sweep each record begins with the values of the keys of rows and columns, and ends with the score
    of each seed.
    """
    if table.is_item:
        return [_record(cell, table) for cell in table.cells]
    return [
        {**cell.settings(table.keys), **_record(cell, table), "scores": tuple(run.score for run in cell.runs)}
        for cell in table.cells
    ]


def _record(cell: Cell, table: Table) -> dict[str, Any]:
    """Returns a cell as a record: scores as the store has them, nan or None where there is nothing."""
    place, paper, numbers = cell.place, cell.paper, cell.summary
    missing = [
        {"run_id": run.run_id, "seed": run.seed, "state": run.state, "reason": run.reason} for run in cell.missing
    ]
    return {
        **{"task": place.task, "model": place.model, "row": place.row, "column": place.column},
        "paper": math.nan if paper is None else paper.value,
        "paper_fluctuation": math.nan if paper is None or paper.fluctuation is None else paper.fluctuation,
        "paper_model": None if paper is None else paper.model,
        **{key: math.nan if value is None else value for key, value in numbers._asdict().items()},
        **{"n": cell.n, "n_expected": len(cell.runs)},
        "seeds": tuple(run.seed for run in cell.runs),
        "run_ids": tuple(run.run_id for run in cell.runs if run.run_id is not None),
        "missing": tuple(missing),
        **{"verdict": cell.verdict, "reason": cell.planned, "command": cell.command},
        "majority": math.nan if cell.baseline is None else cell.baseline,
        **{"chosen": None if cell.tuning is None else cell.tuning.chosen, "tuning": tuning_record(cell.tuning)},
        **{"data": cell.data, "flags": cell.flags, "settings": cell.settings(table.settings)},
        **{"commits": cell.commits, "computed_on": cell.computed_on},
        **{"scale": table.scale, "protocol": table.protocol.value, "metric": cell.metric.name},
    }


def tuning_record(tuning: Tuning | None) -> dict[str, Any] | None:
    """Returns what was tuned, and the dev scores of each value that was tried."""
    if tuning is None:
        return None
    return {
        **{"key": tuning.tune.key, "by": f"{DEV}{tuning.metric.name}", "seeds": tuning.tune.seeds},
        **{"grid": tuning.tune.values, "chosen": tuning.chosen, "at_edge": tuning.at_edge, "runs": tuning.runs},
        "tried": [
            {
                **{"value": trial.value, "mean": trial.mean, "scores": tuple(run.score for run in trial.runs)},
                **{"run_ids": tuple(run.run_id for run in trial.runs), "diverged": trial.diverged},
            }
            for trial in tuning.trials
        ],
    }


def value_of(run: Run, key: str) -> Any:
    """Returns the value of a dotted key, or None where the configuration has no such key."""
    value: Any = run
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
    return value


def label(value: Any) -> Any:
    """Writes a list as the items do (`q,v`), a mapping and a yes or no as YAML, an Enum as its value; else it stays."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return quoted(dict(value))
    return ",".join(map(str, value)) if isinstance(value, list) else getattr(value, "value", value)


def machine_of(result: Mapping[str, Any]) -> str:
    """Names what a run's times depend on: device, products in bf16, threads, and whether the model was compiled."""
    provenance = result.get("provenance", {})
    keys = ("device_class", "bf16", "threads", "compiled")
    return ", ".join(str(provenance.get(key)) for key in keys)


def only_machine_of(result: Mapping[str, Any]) -> str | None:
    """Names the machine that computed a whole run; None where times are of several, or of a last attempt alone."""
    is_mixed = result.get("provenance", {}).get("machines_before") or not is_of_all_attempts(result)
    return None if is_mixed else machine_of(result)


def is_of_all_attempts(result: Mapping[str, Any]) -> bool:
    """Whether a record's costs are those of all attempts; early records of a resumed run hold the last one's."""
    return (result.get("run_seconds") or math.inf) >= (result.get("train_seconds") or 0)


def computed_on(result: Mapping[str, Any]) -> str:
    """Names the hardware and the versions that computed a run."""
    provenance = result["provenance"]
    versions = provenance.get("versions", {})
    parts = [
        provenance.get("device_class"),
        f"{provenance.get('threads')} CPU thread(s)",
        f"bf16: {provenance['bf16']}" if provenance.get("bf16") else None,
        "compiled" if provenance.get("compiled") else None,
        *(f"{name} {versions[name]}" for name in ("torch", "transformers") if name in versions),
        peft_of(result),
    ]
    return ", ".join(part for part in parts if part)


def peft_of(result: Mapping[str, Any]) -> str | None:
    """Names the version of PEFT that computed a run of method=peft; None of other runs."""
    version = result.get("provenance", {}).get("peft", {}).get("version")
    return None if version is None else f"peft {version}"


def commit_of(result: Mapping[str, Any]) -> str | None:
    """Names the commit that computed a run, and says if its code differed; None if the record has none."""
    provenance = result.get("provenance", {})
    commit = provenance.get("commit")
    return f"{commit[:10]}{' with uncommitted changes' if provenance.get('dirty') else ''}" if commit else None
