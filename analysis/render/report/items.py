"""The items of a report: a table for each regime, whose cells open, its figure and its notes."""

import base64
from collections.abc import Mapping

from analysis.render.report.elements import Element, paragraph, paragraphs, tag
from analysis.report.data import Box, Entry, Report, Section, Shown

MOST_INLINE = 4
"""Columns with which what names a line fits into one line on a wide screen."""
SIGNS = {1: "up", 0: "zero", -1: "down"}


def items(report: Report) -> list[Element]:
    """Returns the part of the page that holds the items."""
    boxes = {box.id: box for box in report.boxes}
    how = (
        "Each cell of ours opens: its runs, their curves, what they answered, and the command. The line below a score "
        "is its difference to the reference, taken seed by seed; it is grey where its 95 % t interval holds 0. This "
        "takes each cell alone and only its seeds; the claims above also draw the examples of test anew."
    )
    return [paragraph(how, class_="how"), *(_item(item, boxes) for item in report.items)]


def _item(item: Shown, boxes: Mapping[str, Box]) -> Element:
    shown = [part for section in item.sections for part in _section(section, boxes)]
    return tag("article", tag("h3", item.title), *shown, id=f"item-{item.id}", class_="item")


def _section(section: Section, boxes: Mapping[str, Box]) -> list[Element]:
    name = section.regime
    head = [] if name is None else [tag("h4", name, tag("small", f" {section.about}"), id=section.id)]
    if section.missing is not None:
        return [*head, paragraph(section.missing, class_="missing")]
    if not section.header:
        lines = [line for part in section.below for line in part]
        return [*head, *_figure(section), tag("details", tag("summary", "Notes"), *paragraphs(lines))]
    columns = tag("tr", *(tag("th", name, scope="col") for name in section.header))
    table = tag("table", tag("thead", columns), tag("tbody", *_rows(section, boxes)))
    missing = [line for part in section.below if part[0].startswith("Missing") for line in part]
    notes = [line for part in section.below if not part[0].startswith("Missing") for line in part]
    shown = [boxes[entry.box] for row in section.rows for entry in row.entries if entry.box is not None]
    references = dict.fromkeys(box.reference for box in shown if box.reference is not None)
    to = [paragraph(f"Differences are to {' or '.join(map(str, references))}.", class_="how")] if references else []
    return [
        *head,
        *paragraphs(section.above),
        tag(
            "div",
            table,
            class_="wide" if len(section.header) > MOST_INLINE else "wide inline",
            tabindex="0",
            role="region",
            aria_label=f"Table {section.id}",
        ),
        *to,
        *paragraphs(missing),
        *_figure(section),
        tag("details", tag("summary", "Notes"), *paragraphs(notes)),
    ]


def _rows(section: Section, boxes: Mapping[str, Box]) -> list[Element]:
    """Returns the lines of a table; what names a line stands in one column, which stays in sight."""
    found = []
    for row in section.rows:
        name, *more = row.heads
        head = tag("th", name, *(tag("small", each) for each in more if each), scope="row")
        cells = [_cell(entry, boxes) for entry in row.entries]
        found.append(tag("tr", head, *cells, class_="paper" if row.is_paper else "ours"))
    return found


def _cell(entry: Entry, boxes: Mapping[str, Box]) -> Element:
    if entry.box is None:
        return tag("td", entry.text)
    box = boxes[entry.box]
    shown = [tag("b", box.text), *(tag("small", part) for part in (box.interval, box.seeds) if part)]
    if box.difference is not None:
        shown.append(tag("i", box.difference.text, class_=SIGNS[box.difference.sign]))
    button = tag("button", *shown, type="button", data_box=box.id, aria_haspopup="dialog", title=box.title)
    return tag("td", *([tag("span", entry.paper, class_="paper")] if entry.paper else []), button)


def _figure(section: Section) -> list[Element]:
    if section.figure is None:
        return []
    source = f"data:image/svg+xml;base64,{base64.b64encode(section.figure.encode()).decode()}"
    return [tag("figure", tag("img", src=source, alt=section.caption))]
