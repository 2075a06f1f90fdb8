"""What of a report goes to a tracker: the claims, and each section's table and figure in the group of its runs."""

from collections.abc import Iterator

from analysis.items import read_item
from analysis.report.data import Box, Entry, Report, Section
from lora_repro.mirror.tracked_run import Logged

NAME = "report"
"""Of its runs."""


def logged(report: Report, page: str) -> Iterator[Logged]:
    """Yields what is logged; items without runs are left out.

    The group of a section is that of its runs (`table6-proxy-tuned`), that of the claims `claims-proxy`.
    """
    header: list[str | int] = ["claim", "verdict", "in one sentence", "the paper's numbers under the same test", "ours"]
    lines = [[each.record["claim"], each.verdict, each.sentence, each.paper, each.ours] for each in report.claims]
    yield Logged(f"claims-{report.scale}", NAME, {"claims": (header, lines)}, {"report": page})
    boxes = {box.id: box for box in report.boxes}
    for item in report.items:
        sweep = getattr(read_item(item.id), "sweep", item.id)
        for section in item.sections:
            if section.missing is None:
                group = "-".join(filter(None, [sweep, report.scale, section.regime]))
                figures = {} if section.figure is None else {f"{item.id}_figure": section.figure}
                yield Logged(group, NAME, {item.id: _table(section, boxes)} if section.header else {}, figures)


def _table(section: Section, boxes: dict[str, Box]) -> tuple[list[str | int], list[list[str]]]:
    lines = [
        [" ".join(filter(None, row.heads)), *(_text(entry, boxes) for entry in row.entries)] for row in section.rows
    ]
    return list(section.header), lines


def _text(entry: Entry, boxes: dict[str, Box]) -> str:
    if entry.box is None:
        return entry.text
    box = boxes[entry.box]
    difference = f"({box.difference.text})" if box.difference is not None else ""
    return " ".join(filter(None, [entry.paper and f"{entry.paper} /", box.text, box.interval, box.seeds, difference]))
