"""What a report holds. Each number stands there as it was recorded, beside the text that is printed for it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Difference(NamedTuple):
    """A score minus that of the reference, taken seed by seed."""

    mean: float
    low: float | None
    """The ends of its two-sided 95 % t interval; None over a single seed."""
    high: float | None
    n: int
    text: str
    sign: int
    """1 or -1 if the interval excludes 0, else 0."""


class SeedScore(NamedTuple):
    """One run."""

    seed: int | None
    run_id: str | None
    state: str
    reason: str | None
    score: float | None
    text: str
    epoch: int | None
    """The epoch of the score."""
    curve: tuple[tuple[int, float], ...] = ()
    """Epoch and dev score."""
    curve_text: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    commit: str | None = None
    computed_on: str | None = None
    seconds: float | None = None


class Answered(NamedTuple):
    """Examples of the split, by how many of a cell's runs answered them right."""

    n: int
    """Examples."""
    runs: int
    never: int
    always: int
    examples: tuple["ExampleAnswer", ...]
    """Some of each kind, the first ones in the order of the split."""


class ExampleAnswer(NamedTuple):
    """One example."""

    number: int
    """Counted from 0 in the order of the split."""
    document: int | None
    label: str
    answers: tuple[str, ...]
    """A cell's answers, in the order of its seeds."""
    right: int
    """How many of them are right."""


class Box(NamedTuple):
    """A cell that can be opened: what it shows, and its runs."""

    id: str
    title: str
    metric: str
    protocol: str
    mean: float | None
    low: float | None
    high: float | None
    n: int
    expected: int
    text: str
    interval: str
    """The interval; of a cell without a mean, what is missing."""
    seeds: str
    """How many, and the tuned value."""
    paper: float | None
    paper_text: str
    reference: str | None
    """What the difference is taken to; None where nothing is."""
    difference: Difference | None
    trained: int | None
    settings: Mapping[str, Any]
    """Those in which cells of the report differ."""
    tuning: str | None
    command: str | None
    runs: tuple[SeedScore, ...]
    answered: Answered | None


class Entry(NamedTuple):
    """What stands in a place of a table: text, or a box."""

    text: str = ""
    box: str | None = None
    """The id of a box; its text is shown."""
    paper: str = ""
    """The paper's number, where a box stands beside it."""


class Row(NamedTuple):
    """A line of a table."""

    heads: tuple[str, ...]
    """What names it, the most important part first."""
    entries: tuple[Entry, ...]
    is_paper: bool = False


class Section(NamedTuple):
    """An item in one regime."""

    id: str
    item: str
    regime: str | None
    about: str
    """What the regime is; empty without one."""
    above: tuple[str, ...]
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    below: tuple[tuple[str, ...], ...]
    figure: str | None
    """An SVG."""
    caption: str
    missing: str | None
    """Why there is no table, with the command; None where there is one."""


class Shown(NamedTuple):
    """An item with its regimes."""

    id: str
    title: str
    sections: tuple[Section, ...]


class ClaimShown(NamedTuple):
    """A claim, in words and as JSON has it."""

    sentence: str
    """The verdict in one sentence."""
    verdict: str
    """With tier and regime."""
    paper: str
    ours: str
    command: str | None
    details: tuple[str, ...]
    """All that is known of it, in the lines of `claims --full`."""
    record: Mapping[str, Any]


class Point(NamedTuple):
    """An arm of the scatter."""

    box: str
    method: str
    trained: int
    mean: float
    low: float | None
    high: float | None
    text: str


class Panel(NamedTuple):
    """A scatter of the arms of one item and regime, on one task and model."""

    title: str
    metric: str
    unit: float
    """What scores are multiplied by where they are printed."""
    points: tuple[Point, ...]


class Cost(NamedTuple):
    """The computing of one machine."""

    machine: str
    runs: int
    hours: float | None
    text: str


class Report(NamedTuple):
    """All of it."""

    command: str
    store: str
    scale: str
    judged: str | None
    """Why no claim is judged at this scale; None where they are."""
    runs: int
    """Finished runs of the store."""
    commits: tuple[str, ...]
    counts: str
    """How many claims have each verdict."""
    claims: tuple[ClaimShown, ...]
    notes: tuple[str, ...]
    """How to read the verdicts."""
    items: tuple[Shown, ...]
    boxes: tuple[Box, ...]
    common: Mapping[str, Any]
    """Settings that all boxes share."""
    panels: tuple[Panel, ...]
    subspaces: str
    costs: tuple[Cost, ...]
    environment: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]
    """Runs that do not count, and why."""


LONGEST = 1000
"""Characters of a line that quotes what a run says."""


def cut(line: str) -> str:
    """Shortens a line that quotes a run: the error of one may have megabytes."""
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


def plain(value: Any) -> Any:
    """Returns what JSON holds of a report: an object for each named tuple."""
    if isinstance(value, tuple) and (names := getattr(value, "_fields", None)):
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return getattr(value, "value", value)
