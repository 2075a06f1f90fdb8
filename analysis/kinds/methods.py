"""The kind `methods`: a line for each setting of each method, with what it trains, scores and costs (Table 15)."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from analysis.items import Item, Request, facts_of, names, refuse_unknown_sweep, register
from lora_repro.errors import InputError

if TYPE_CHECKING:
    from analysis.cell import Cell
    from analysis.protocol import Protocol
    from analysis.render.printed import PrintedTable
    from analysis.stats import Paired
    from lora_repro.sweep.grid import Sweep


@dataclass
class PaperLines:
    """What of the paper's rows is printed beside ours."""

    trained: str
    """The key of a row that holds the number of trained weights."""
    scores: dict[str, str]
    """For each task as the facts call it, the key of a row that holds its score in percent."""
    methods: dict[str, str]
    """How the rows call a method, and how we do."""
    settings: dict[str, str]
    """Keys of a row that are settings, and how they are printed."""
    fluctuation: dict[str, float] = field(default_factory=dict)
    """For each task the standard deviation that the paper prints for it, in percent."""


@register("methods")
@dataclass(kw_only=True)
class MethodTable(Item):
    """Methods by their scores."""

    takes = ("protocol", "again")

    sweep: str
    """Which runs make the lines."""
    metrics: list[str]
    """As metric keys spell them, without the split: accuracy. A task is shown by the first of them that it has."""
    settings: list[str]
    """Keys of the configuration that are printed where a method has them and they are not at their default."""
    protocol: str = "last_epoch"
    """Which number is taken from a run if the command line does not say."""
    baseline: dict[str, Any] = field(default_factory=dict)
    """Values of keys by which the arm is found whose score is taken off all others, seed by seed; one for each budget.
    Empty: no differences."""
    paper: PaperLines | None = None
    """The paper's lines; their rows are the facts'."""
    notes: list[str] = field(default_factory=list)
    """Sentences below the table."""

    @property
    def baseline_method(self) -> str:
        """The baseline's method, as people write it."""
        name = str(self.baseline["method.name"])
        return {"lora": "LoRA"}.get(name, name)

    @property
    def baseline_arm(self) -> str:
        """The baseline's method and matrices."""
        return " ".join(str(self.baseline[key]) for key in ("method.name", "method.targets") if key in self.baseline)

    def check(self) -> None:
        """Refuses a sweep that is not there."""
        refuse_unknown_sweep(self.name, self.sweep)

    def printed(self, request: Request) -> "PrintedTable":
        """Returns the table in words."""
        from analysis.render import methods

        return methods.printed(read_methods(self, request), names())


class Line(NamedTuple):
    """An arm in its table."""

    arm: "Cell"
    settings: dict[str, str]
    """The settings that say which arm it is."""
    budget: str | None
    """What its size was solved from; None of a method that has one size."""
    difference: "Paired | None"
    """Its score minus the score of the baseline, seed by seed; None without a baseline, and of one. The baseline has
    the same task, model and budget; of a method that has one size, the largest budget."""
    is_baseline: bool
    time: float | None
    """Seconds of training over the baseline's, on machines that computed both."""
    memory: "Memory | None"
    """None where no run measured it."""


class Memory(NamedTuple):
    """The peak of training an arm."""

    gib: float
    """The smallest of its runs."""
    is_bound: bool
    """Whether it can be less: the processes had kept memory of earlier runs."""


class Methods(NamedTuple):
    """All lines of the table."""

    item: MethodTable
    scale: str
    protocol: "Protocol"
    lines: list[Line]
    planned: list[str]
    """Why runs of the sweep cannot run yet."""
    command: str
    again: "Sequence[Twice]"
    """The runs that a second store holds too; none if there is none."""
    paper: Sequence[Mapping[str, Any]]


class Twice(NamedTuple):
    """A run that was computed again."""

    arm: "Cell"
    difference: float
    """The second score minus the first."""
    result: Mapping[str, Any]
    """What the second store holds."""


class Noise(NamedTuple):
    """How far the scores of equal runs differ that were computed twice."""

    runs: int
    sd: float
    """Of one run: the standard deviation of the differences over the root of 2."""
    largest: float
    computed_on: tuple[str, ...]
    """The machines of the second store."""

    @staticmethod
    def of(again: "Sequence[Twice]") -> "Noise":
        """Returns the noise of some runs of one task, at least one."""
        from analysis.cell import computed_on

        differences = [twice.difference for twice in again]
        sd = math.sqrt(sum(value**2 for value in differences) / len(differences) / 2)
        machines = tuple(dict.fromkeys(computed_on(twice.result) for twice in again))
        return Noise(len(differences), sd, max(map(abs, differences)), machines)


def read_methods(item: MethodTable, request: Request, sweep: "Sweep | None" = None) -> Methods:
    """Joins the sweep to the store.

    Args:
        item: The table.
        request: Scale, store and overrides.
        sweep: The sweep of these, if it is loaded already.

    Raises:
        InputError: If the sweep is impossible, or the baseline is no arm of it.
    """
    from analysis.arms import read_arms
    from analysis.join import Commands
    from analysis.protocol import Protocol
    from lora_repro.config.compose import compose
    from lora_repro.sweep.grid import load

    base = [f"+sweeps={item.sweep}", f"scale={request.scale}"]
    sweep = load(compose, [*base, *request.overrides], request.store) if sweep is None else sweep
    protocol = Protocol.of(request.protocol, item.protocol)
    commands = Commands(base, request.overrides, request.store, sweep.reported)
    arms = read_arms(sweep.reported, request.store, item.metrics, protocol, item.name, commands)
    again = [] if request.again is None else _computed_again(arms, item, request.again, protocol)
    return Methods(
        item=item,
        scale=request.scale,
        protocol=protocol,
        lines=_lines(item, arms, again),
        planned=list(dict.fromkeys(reason for _, reason in sweep.planned)),
        command=commands.whole(),
        again=again,
        paper=facts_of(item.name).get("rows", []) if item.paper is not None else [],
    )


def _lines(item: MethodTable, arms: Sequence["Cell"], again: Sequence[Twice]) -> list[Line]:
    from analysis.differences import difference as difference_of

    baselines, owns = _baselines(item, arms), list["Cell | None"]()
    for arm in arms:
        budget, alike = _budget(arm), baselines.get((arm.task, arm.model), {})
        owns.append(alike.get(budget) if budget is not None else max(alike.values(), key=_counted, default=None))
    times = _times([(arm, own) for arm, own in zip(arms, owns, strict=True) if own is not None])
    return [
        Line(
            arm=arm,
            settings=shown_settings(item.settings, arm),
            budget=_budget(arm),
            difference=None if own is None or own is arm else difference_of(arm, own),
            is_baseline=own is arm,
            time=times.get(id(arm)),
            memory=_memory([*arm.results, *(twice.result for twice in again if twice.arm is arm)]),
        )
        for arm, own in zip(arms, owns, strict=True)
    ]


def _baselines(item: MethodTable, arms: Sequence["Cell"]) -> dict[tuple[str, str], dict[str | None, "Cell"]]:
    """Returns the arms that others are compared with, by task and model and then by budget.

    Raises:
        InputError: If there is none, or more than one for the same.
    """
    found: dict[tuple[str, str], dict[str | None, Cell]] = {}
    for arm in arms if item.baseline else ():
        if has_values(arm, item.baseline):
            alike, budget = found.setdefault((arm.task, arm.model), {}), _budget(arm)
            if budget in alike:
                raise InputError(
                    f"{item.name}: two of the arms are its baseline {item.baseline} of {arm.model} on {arm.task}, at "
                    f"the budget {budget}. Give one value for each key."
                )
            alike[budget] = arm
    if item.baseline and arms and not found:
        raise InputError(f"{item.name}: none of the arms is its baseline {item.baseline}. Leave overrides out.")
    return found


def _counted(arm: "Cell") -> int:
    assert arm.config is not None
    return arm.config.method.count(arm.config.arch).method


def _budget(arm: "Cell") -> str | None:
    assert arm.config is not None
    given = getattr(arm.config.method, "budget", None)
    return None if given is None else f"{given:,}" if isinstance(given, int) else str(given)


def has_values(arm: "Cell", values: Mapping[str, Any]) -> bool:
    """Tells whether an arm is the one that an item names by the values of some keys."""
    from analysis.cell import label, value_of

    return arm.config is not None and all(
        str(label(value_of(arm.config, key))) == str(value) for key, value in values.items()
    )


def shown_settings(keys: Sequence[str], arm: "Cell") -> dict[str, str]:
    """Returns the settings that are printed: of these keys those of the method that are not at its class's default."""
    from analysis.arms import settings_of
    from lora_repro.config.grammar import quoted

    assert arm.config is not None
    method = arm.config.method
    defaults = {f"method.{each.name}": each.default for each in fields(method)}
    found = settings_of(arm, keys)
    shown = {
        key: value
        for key, value in found.items()
        if getattr(defaults.get(key), "value", defaults.get(key)) != getattr(value, "value", value) and value != "false"
    }
    return {
        key.rpartition(".")[2]: quoted(value) if isinstance(value, dict) else str(value) for key, value in shown.items()
    }


def _times(pairs: Sequence[tuple["Cell", "Cell"]]) -> dict[int, float]:
    """Returns how long arms train over their baselines, by the arm's `id`: the ratio of medians over seeds.

    All of a task and model are of one machine, that which computed the most of them, as ratios differ between machines.
    Of runs on a CPU the time is what it computed, as other work makes the time on the clock longer; of others, and of
    records that do not hold it, it is that on the clock.
    """
    found: dict[int, float] = {}
    for place in dict.fromkeys(arm.place[:2] for arm, _ in pairs):
        ratios = {id(arm): _ratios(arm, own) for arm, own in pairs if arm.place[:2] == place}
        counts = Counter(machine for by_machine in ratios.values() for machine in sorted(by_machine))
        if counts:
            ((machine, _),) = counts.most_common(1)
            found |= {arm: by_machine[machine] for arm, by_machine in ratios.items() if machine in by_machine}
    return found


def _ratios(arm: "Cell", baseline: "Cell") -> dict[str, float]:
    """Returns the ratio of their times on each machine that computed both."""
    ratios: dict[str, float] = {}
    for key in ("train_seconds", "train_cpu_seconds"):
        ours, theirs = (_seconds(each, key) for each in (arm, baseline))
        ratios |= {machine: median(ours[machine]) / median(theirs[machine]) for machine in ours.keys() & theirs.keys()}
    return ratios


def _seconds(arm: "Cell", key: str) -> dict[str, list[float]]:
    from analysis.cell import only_machine_of

    found: dict[str, list[float]] = {}
    for result in arm.results:
        if (seconds := result.get(key)) and (machine := only_machine_of(result)) is not None:
            found.setdefault(machine, []).append(seconds)
    return found


def _memory(results: Sequence[Mapping[str, Any]]) -> Memory | None:
    """Returns the smallest peak that is known exactly, else the smallest bound; early records count as bounds."""
    from analysis.cell import is_of_all_attempts

    peaks = [
        Memory(peak, result.get("peak_memory_is_bound", True))
        for result in results
        if (peak := result.get("peak_memory_gib")) is not None and is_of_all_attempts(result)
    ]
    return min(peaks, key=lambda peak: (peak.is_bound, peak.gib), default=None)


def _are_bound_to_agree(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether one is a copy of the other, or has the same device, threads and versions, which give equal bits."""
    from analysis.cell import computed_on

    return one["metrics_by_epoch"] == other["metrics_by_epoch"] and computed_on(one) == computed_on(other)


def _computed_again(arms: Sequence["Cell"], item: MethodTable, again: str, protocol: "Protocol") -> list[Twice]:
    """Returns the runs that another store holds too, computed anew.

    Raises:
        InputError: If no run is in both, computed twice.
    """
    from analysis.protocol import pick
    from analysis.runs import run_status
    from analysis.store import opened

    found = []
    if not Path(again).exists():
        raise InputError(
            f"--again: there is no store and no ledger {again}. Give the folder that holds runs/, or a file."
        )
    with opened(again) as store:
        for arm in arms:
            for run in arm.runs:
                if run.score is None or run.run_id is None:
                    continue
                result = run_status(store, run.run_id).result
                if result is None or run.result is None or _are_bound_to_agree(result, run.result):
                    continue
                if (score := pick(result, arm.metric, protocol)) is not None:
                    found.append(Twice(arm, score.value - run.score, result))
    if not found:
        raise InputError(
            f"--again {again}: none of the runs of {item.name} was computed again there.\n"
            "Compute some again: the sweep's command with compute.threads=2 paths.outputs=DIR"
        )
    return found
