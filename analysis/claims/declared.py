"""What a claim declares before its runs: the paper's words in short, and how each part of it is tested."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.items import item_names
from analysis.items.entry import build, read_yaml
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


@dataclass(kw_only=True)
class Study:
    """On what a claim is judged."""

    model: str
    task: str
    regimes: list[str]
    """How rates and scaling are set: files of sweeps/regimes."""


@dataclass(kw_only=True)
class Part:
    """One question of a claim, with its test. Which fields count depends on the test (docs/claims.md)."""

    says: str
    """What is asked, as a statement."""
    test: str
    """better, not_worse, trend, ratio, count or above_chance."""
    item: str | None = None
    """Whose sweep makes the runs, and whose printed numbers are the paper's evidence."""
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
    measure: str = "score"
    """What is taken from runs or counted: score, trained, share, bytes, bytes_of_100_tasks, train_seconds or
    peak_memory_gib."""
    least: float | None = None
    most: float | None = None
    """Between which values a ratio or a count must lie."""
    printed: str | None = None
    """What the paper prints of it, where that is one number."""
    statistic: str | None = None
    """Of trained weights, which statistic (docs/section7.md). Its value less chance must lie above nothing, or above
    `least`, or below `most`, or, with `by: margin`, below the margin."""
    where: list[str] = field(default_factory=list)
    """Of which matrices; of scores, of which splits."""
    setting: str | None = None
    """Whose directions, how many, and the ranks."""
    against: list[str] = field(default_factory=list)
    """The nulls and controls; none of a statistic that has none."""


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
    "better": ("item", "of", "than"),
    "not_worse": ("item", "of", "than"),
    "trend": ("item", "of", "along"),
    "ratio": ("item", "of", "than", "measure"),
    "count": ("of", "measure"),
    "above_chance": ("statistic", "where", "setting"),
}
"""The fields that each test needs."""


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
        _check(claim, f"{path.name}: {claim.id}")
    return found


def _check(claim: Claim, where: str) -> None:
    if not claim.parts and claim.missing is None and not claim.paper_only:
        raise InputError(f"{where}: it has no parts, so it must say what is missing.")
    for part in claim.parts:
        if part.test not in TESTS:
            raise InputError(
                f"{where}: there is no test {part.test!r}.{did_you_mean(part.test, TESTS)}\nTests: {', '.join(TESTS)}."
            )
        if lacking := [name for name in TESTS[part.test] if not getattr(part, name)]:
            raise InputError(f"{where}: {part.says}: the test {part.test} needs {', '.join(lacking)}.")
        if part.test in ("ratio", "count") and part.least is None and part.most is None:
            raise InputError(f"{where}: {part.says}: the test {part.test} needs least or most.")
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
