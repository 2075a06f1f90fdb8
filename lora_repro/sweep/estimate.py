"""Estimates how long runs take from finished runs of the same model, or from the first steps of a run. No torch.

The time grows with the examples that are trained and scored; loading takes a fixed time beside. An estimate uses the
timings that resemble the run most, and of several their median.
"""

import socket
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lora_repro.config.schema import Run
from lora_repro.store.listing import Listing
from lora_repro.store.reading import is_count, is_number, read_lines
from lora_repro.store.record import plain
from lora_repro.store.result import read_result, run_seconds_of
from lora_repro.store.status import read_status

SCORED = 1 / 3
"""Scoring an example costs a third of training on it: a forward pass without the backward pass, which costs two."""


class Timing(NamedTuple):
    """How long a run, or a part of one, took."""

    model: tuple[str, str]
    """Name and digest."""
    task: str
    method: str
    dtype: str
    is_here: bool
    """It ran on this machine."""
    is_whole: bool
    trains: bool
    rate: float
    """Seconds for each trained example."""
    beside: float
    """Seconds that do not grow with the examples."""
    seconds: float
    """Seconds in all."""


class Work(NamedTuple):
    """What a run computes, in examples."""

    trained: int
    scored: int

    @property
    def total(self) -> float:
        """All of the work, in trained examples."""
        return self.trained + SCORED * self.scored


def work(epochs: int, batch_size: int, max_steps: int | None, sizes: Mapping[str, int]) -> Work:
    """Returns how many examples a run trains and scores.

    Args:
        epochs: As configured; 0 scores once.
        batch_size: As configured.
        max_steps: As configured.
        sizes: Examples of train and of each scored split.
    """
    trained = epochs * sizes["train"]
    if max_steps is not None:
        trained = min(trained, max_steps * batch_size)
    scorings = max(1, -(-trained // sizes["train"]))
    return Work(trained, scorings * sum(size for split, size in sizes.items() if split != "train"))


class _Kind(NamedTuple):
    """What of a run decides which timings resemble it."""

    model: tuple[str, str]
    task: str
    method: str
    dtype: str
    trains: bool
    has_sizes: bool


def expected(runs: Sequence[Run], timings: Sequence[Timing]) -> float | None:
    """Returns the seconds that runs will take, one after another; None where no timing is known.

    Runs of a model without timings count as the mean of the others.
    """
    nearest: dict[_Kind, list[Timing]] = {}
    found: dict[tuple[_Kind, float], float | None] = {}
    each = []
    for run in runs:
        sizes, train = sizes_of(run), run.train
        model, trains = (run.model.name, run.model.digest), train.epochs > 0
        kind = _Kind(model, run.task.name, run.method.name, train.dtype.value, trains, sizes is not None)
        total = work(train.epochs, train.batch_size, train.max_steps, sizes).total if sizes is not None else 0.0
        if kind not in nearest:
            nearest[kind] = _nearest(kind, timings)
        if (kind, total) not in found:
            found[kind, total] = _expected(kind, total, nearest[kind])
        each.append(found[kind, total])
    known = [seconds for seconds in each if seconds is not None]
    return statistics.mean(known) * len(runs) if known else None


def _expected(kind: _Kind, total: float, nearest: Sequence[Timing]) -> float | None:
    """Returns the median over the timings that resemble a run most; None if there are none."""
    if not nearest:
        return None
    if not kind.has_sizes:
        return statistics.median(timing.seconds for timing in nearest)
    return statistics.median(timing.rate * total + timing.beside for timing in nearest)


def _nearest(kind: _Kind, timings: Iterable[Timing]) -> list[Timing]:
    """Returns the timings that resemble a kind of run most. Without sizes only whole runs of its task tell anything."""
    of_model = [
        (_likeness(timing, kind), timing)
        for timing in timings
        if timing.model == kind.model and (kind.has_sizes or (timing.task == kind.task and timing.is_whole))
    ]
    most = max((likeness for likeness, _ in of_model), default=())
    return [timing for likeness, timing in of_model if likeness == most]


def _likeness(timing: Timing, kind: _Kind) -> tuple[bool, ...]:
    return (
        timing.trains or not kind.trains,
        timing.is_here,
        timing.task == kind.task,
        timing.dtype == kind.dtype,
        timing.method == kind.method,
        timing.is_whole,
    )


def sizes_of(run: Run) -> dict[str, int] | None:
    """Returns the numbers of examples of a run; None where one is not known without reading its data."""
    sizes = run.task.known_sizes()
    return sizes if sizes.keys() >= set(run.task.all_splits) else None


class Timings:
    """How long the runs of a store took; each finished run is read once.

    Args:
        outputs: The store.
    """

    def __init__(self, outputs: str | Path) -> None:
        self.runs = Path(outputs) / "runs"
        self._finished: dict[Path, Timing | None] = {}
        self._noted: dict[Path, Timing | None] = {}
        """Of results that others have read; on which machine they ran is not known yet."""

    def note(self, folder: Path, result: Mapping[str, Any]) -> None:
        """Takes note of a result that has been read, so that it is not read again."""
        if folder not in self._finished:
            self._noted[folder] = _of_result(result)

    def of(self, runs: Iterable[Run], begun: Mapping[str, Run]) -> list[Timing]:
        """Returns the timings of all finished runs of these runs' models, and of the steps of those that are begun.

        Args:
            runs: The runs to estimate.
            begun: Runs that are under way or were interrupted, by id.
        """
        listing = Listing(self.runs.parent)
        for model in {run.model.name for run in runs}:
            for folder in (self.runs / name for name in listing.names(f"{model}-")):
                if folder in self._finished:
                    continue
                if folder in self._noted:
                    timing = self._noted.pop(folder)
                elif (result := read_result(folder).result) is not None:
                    timing = _of_result(result)
                else:
                    continue
                self._finished[folder] = None if timing is None else timing._replace(is_here=_ran_here(folder))
        found = [*self._finished.values(), *(_of_steps(self.runs / name, run) for name, run in begun.items())]
        return [timing for timing in found if timing is not None]


def _of_result(result: Mapping[str, Any]) -> Timing | None:
    """Returns what a finished run took, as if on another machine; None where an old record does not say."""
    config, train = result["config"], result["config"]["train"]
    sizes = {split: described["n"] for split, described in result.get("data", {}).items()}
    seconds = float(run_seconds_of(result) or 0)
    epochs, batch_size, max_steps = (train.get(key) for key in ("epochs", "batch_size", "max_steps"))
    if not (
        seconds and sizes and is_count(epochs) and is_count(batch_size) and (max_steps is None or is_count(max_steps))
    ):
        return None
    done = work(epochs, batch_size, max_steps, sizes)
    rate = (result.get("train_seconds") or 0) / done.trained if done.trained else 0.0
    beside = seconds - rate * done.total
    if not rate or beside < 0:
        rate, beside = seconds / done.total, 0.0
    return _timing(config, is_whole=True, trains=done.trained > 0, rate=rate, beside=beside, seconds=seconds)


def _of_steps(folder: Path, run: Run) -> Timing | None:
    """Returns how long the steps took that a run has logged."""
    try:
        rows = read_lines(folder / "metrics.jsonl").rows
    except (OSError, ValueError):
        return None
    last: dict[str, Any] = next((row for row in reversed(rows) if "loss" in row), {})
    examples, seconds = last.get("examples", 0), last.get("wall_time_s", 0)
    if not is_number(examples) or not is_number(seconds) or min(examples, seconds) <= 0:
        return None
    timing = _timing(
        plain(run), is_whole=False, trains=True, rate=seconds / examples, beside=0.0, seconds=float(seconds)
    )
    return timing._replace(is_here=_ran_here(folder))


def _ran_here(folder: Path) -> bool:
    return read_status(folder).get("host") == socket.gethostname()


def _timing(
    config: Mapping[str, Any], *, is_whole: bool, trains: bool, rate: float, beside: float, seconds: float
) -> Timing:
    return Timing(
        model=(config["model"]["name"], config["model"]["digest"]),
        task=config["task"]["name"],
        method=config["method"]["name"],
        dtype=str(config["train"].get("dtype")),
        is_here=False,
        is_whole=is_whole,
        trains=trains,
        rate=rate,
        beside=beside,
        seconds=seconds,
    )
