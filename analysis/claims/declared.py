"""What a claim declares before its runs: the paper's words in short, and how each part of it is tested."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.claims.estimates import FEWEST, LEVEL, Bounded
from analysis.items import item_names
from analysis.items.entry import build, read_yaml
from analysis.section7.statistics import AGAINST, NAMES
from lora_repro.config.catalogue import regime_names
from lora_repro.errors import InputError, did_you_mean

CLAIMS = Path(__file__).resolve().parent / "claims.yaml"

Selector = dict[str, Any]
"""Settings by which an arm of a sweep is found, keys without their section: {targets: "q,v", r: 1}."""


@dataclass(kw_only=True)
class Control:
    """A comparison that must show a loss: if it does not, the sweep could not have shown one elsewhere either."""

    of: Selector
    """The better arm."""
    than: Selector
    """The worse one."""

    @property
    def both(self) -> list[Selector]:
        """The two arms."""
        return [self.of, self.than]


@dataclass(kw_only=True)
class Study:
    """On what a claim is judged."""

    model: str
    task: str
    regimes: list[str]
    """How rates and scaling are set: files of sweeps/regimes."""

    @property
    def name(self) -> str:
        """Its model and task: `minilm movies`."""
        return f"{self.model} {self.task}"


@dataclass(kw_only=True)
class Part:
    """One question of a claim, with its test. Which fields count depends on the test (docs/claims.md)."""

    says: str
    """What is asked, as a statement."""
    test: str
    """better, not_worse, some_better, trend, ratio, count or above_chance."""
    asked_of: list[str] = field(default_factory=list)
    """The studies on which it is asked, each by model and task, `minilm movies`; empty: on all."""
    seeds: int = 0
    """How many seeds each comparison needs at least; of an item over draws of the training examples, how many draws."""
    item: str | None = None
    """Whose sweep makes the runs, and whose printed numbers are the paper's evidence."""
    metric: str | None = None
    """By which arms are compared; None: the first of those that the item shows. A lower loss counts as better."""
    of: Selector = field(default_factory=dict)
    than: list[Selector] = field(default_factory=list)
    by: str = "nothing"
    """By how much `better` must be better: nothing, or margin."""
    control: Control | None = None
    along: str | None = None
    """The key along whose values a trend goes, by doublings."""
    falls: bool = False
    """Whether the trend is claimed to fall."""
    start: float | None = None
    """The first value of the trend."""
    measure: str = ""
    """What is taken from runs (RATIOS) or counted from shapes (COUNTS)."""
    least: float | None = None
    most: float | None = None
    """Between which values a ratio or a count must lie."""
    printed: str | None = None
    """What the paper prints of it, where that is one number."""
    printed_arms: list[Selector] = field(default_factory=list)
    """The paper's arms, where they have other sizes than ours: in place of `of`, and of each of `than`."""
    statistic: str | None = None
    """Of trained weights, which statistic (docs/section7.md). Its value less chance must lie above nothing, or above
    `least`, or below `most`, or, with `by: margin`, below the margin."""
    where: list[str] = field(default_factory=list)
    """Of which matrices; of scores, of which splits."""
    setting: str | None = None
    """Whose directions, how many, and the ranks."""
    against: list[str] = field(default_factory=list)
    """The nulls and controls; none of a statistic that has none."""

    def is_asked_of(self, study: Study) -> bool:
        """Whether it is asked on a study."""
        return not self.asked_of or study.name in self.asked_of

    @property
    def has_margin(self) -> bool:
        """Whether it asks for a difference in the terms of the margin."""
        return self.test in ("not_worse", "some_better") or self.by == "margin"

    @property
    def unit(self) -> float:
        """What its numbers are multiplied by in texts: scores are in points, all else is as it is."""
        plain = self.test == "ratio" or (self.test == "above_chance" and not self.has_margin) or self.metric == "loss"
        return 1 if plain else 100

    def margin_at(self, differences: Sequence[Bounded]) -> float | None:
        """Returns the margin at which it begins to hold (`not_worse`), or up to which it holds; None without bounds.

        Args:
            differences: As its test takes them.
        """
        if self.test == "some_better":  # by Holm's method the first of k tests rejects at the k-th part of the level
            bounds = [each.low_at(LEVEL / len(differences)) for each in differences]
        else:
            bounds = [each.low if self.test == "better" else each.high for each in differences]
        known = [bound for bound in bounds if bound is not None]
        if not known or len(known) < len(bounds):
            return None
        return min(known) if self.test == "better" else max(known)

    @property
    def margin_word(self) -> str:
        """How a text puts it: holds from, or up to, a margin."""
        return "up to" if self.test in ("better", "some_better") else "from"


@dataclass(kw_only=True)
class Claim:
    """A claim of the paper."""

    id: str
    section: str
    claim: str
    """What the paper says, in short."""
    kind: str
    """efficiency, quality, analysis, method or limitation."""
    model: str | None = None
    """The model of which the paper says it."""
    caution: str | None = None
    """What a reader must know of the paper's evidence."""
    studies: list[Study] = field(default_factory=list)
    """The first study's first regime makes the headline."""
    parts: list[Part] = field(default_factory=list)
    missing: str | None = None
    """Why there are no parts: what this project lacks."""
    paper_only: bool = False
    """Whether nothing here can stand for the paper's own model."""


@dataclass(kw_only=True)
class Margin:
    """What difference matters: a share of what one arm gains over another, by their tuning runs."""

    share: float
    sweep: str
    of: Selector
    over: Selector


@dataclass(kw_only=True)
class Claims:
    """The file of claims."""

    margin: Margin
    assumed_sd: list[float]
    """Standard deviations over seeds, as scores, for the power before any run is there."""
    assumed_margin: float
    claims: list[Claim]


TESTS = {
    "better": ("item", "of", "than", "seeds"),
    "not_worse": ("item", "of", "than", "seeds", "control"),
    "some_better": ("item", "of", "than", "seeds", "control"),
    "trend": ("item", "of", "along", "seeds"),
    "ratio": ("item", "of", "than", "measure"),
    "count": ("of", "measure"),
    "above_chance": ("statistic", "where", "setting"),
}
"""The fields that each test needs."""
RATIOS = ("train_seconds", "peak_memory_gib")
"""What a ratio compares, as records call it."""
COUNTS = ("trained", "share", "bytes", "bytes_of_100_tasks", "bytes_of_100_copies", "saved_of_adam")
"""What is counted; see analysis/claims/counted.py."""


def load_claims(path: Path = CLAIMS) -> Claims:
    """Reads the claims.

    Raises:
        InputError: If a field is unknown, missing or does not fit its test, or a claim stands there twice.
    """
    found = build(Claims, read_yaml(path), path.name)
    names = [claim.id for claim in found.claims]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{path.name}: the claim {repeated[0]} stands there twice.")
    for claim in found.claims:
        _check(claim, found.margin, f"{path.name}: {claim.id}")
    return found


def _check(claim: Claim, margin: Margin, where: str) -> None:
    if not claim.parts and claim.missing is None and not claim.paper_only:
        raise InputError(f"{where}: it has no parts, so it must say what is missing.")
    for part in claim.parts:
        if part.test not in TESTS:
            raise InputError(
                f"{where}: there is no test {part.test!r}.{did_you_mean(part.test, TESTS)}\nTests: {', '.join(TESTS)}."
            )
        if lacking := [name for name in TESTS[part.test] if not getattr(part, name)]:
            raise InputError(f"{where}: {part.says}: the test {part.test} needs {', '.join(lacking)}.")
        measures = {"ratio": RATIOS, "count": COUNTS}.get(part.test)
        if measures is not None and part.measure not in measures:
            raise InputError(
                f"{where}: there is no measure {part.measure!r} of the test {part.test}."
                f"{did_you_mean(part.measure, measures)}\nMeasures: {', '.join(measures)}."
            )
        if part.control is not None and [_named(each) for each in part.control.both] == [
            _named(each) for each in (margin.of, margin.over)
        ]:
            raise InputError(f"{where}: its control is the gain of which the margin is a share, so it cannot fail.")
        if unknown := sorted(set(part.asked_of) - {study.name for study in claim.studies}):
            raise InputError(f"{where}: {part.says}: asked_of: there is no study of {', '.join(unknown)}.")
        if part.test in ("ratio", "count") and part.least is None and part.most is None:
            raise InputError(f"{where}: {part.says}: the test {part.test} needs least or most.")
        if part.test != "count" and part.least is not None and part.most is not None:
            raise InputError(f"{where}: {part.says}: the test {part.test} takes least or most. Make a part of each.")
        if "seeds" in TESTS[part.test] and part.seeds < FEWEST:
            raise InputError(f"{where}: {part.says}: seeds: at least {FEWEST} have a spread (given: {part.seeds}).")
        _refuse_unknown("statistic", [part.statistic] if part.statistic else [], NAMES, f"{where}: {part.says}")
        _refuse_unknown("against", part.against, AGAINST, f"{where}: {part.says}")
        if part.item is not None and part.item not in item_names():
            raise InputError(f"{where}: there is no item {part.item!r}.{did_you_mean(part.item, item_names())}")
        if part.by not in ("nothing", "margin"):
            raise InputError(f"{where}: by: must be nothing or margin (given: {part.by}).")
        if part.test != "count" and not claim.studies:
            raise InputError(f"{where}: its parts read runs, so it needs studies.")
    for study in claim.studies:
        for regime in study.regimes:
            if regime not in regime_names():
                raise InputError(f"{where}: there is no regime {regime!r}.{did_you_mean(regime, regime_names())}")


def _refuse_unknown(field: str, given: Sequence[str], known: Collection[str], where: str) -> None:
    if unknown := [each for each in given if each not in known]:
        hint = did_you_mean(unknown[0], known)
        raise InputError(f"{where}: {field}: there is no {unknown[0]!r}.{hint}\nKnown: {', '.join(known)}.")


def _named(selector: Selector) -> Any:
    """Returns the method that a selector names; LoRA where it says nothing."""
    return selector.get("method", "lora")
