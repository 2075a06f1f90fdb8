"""The page of `report`: one HTML file that needs no network."""

import json

from analysis.render.pages import filled
from analysis.render.report.claims import claims
from analysis.render.report.elements import Element, markup, paragraph, tag
from analysis.render.report.items import items
from analysis.render.report.scatter import panels
from analysis.report.data import Report, plain

DRAWN = "figure"
"""What of a section stands on the page alone, because JSON would hold it a second time."""


def page(report: Report) -> str:
    """Returns the page: the texts of the report, and its JSON, from which the script opens cells.

    Texts are written through elements, which escape them; the JSON holds no `<`; and a policy forbids all that would
    load anything. So no name, error or answer of a run can become markup.
    """
    commits = ", ".join(report.commits) or "not recorded"
    body = "\n".join(markup(part) for part in _body(report))
    source = f"; runs computed at commit {commits}"
    text = filled("report", "What holds of the LoRA paper", report.command, data(report), source, BODY=body)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # halves of characters cannot be written


def data(report: Report) -> str:
    """Returns the JSON of a report; the same report gives the same text."""
    return json.dumps(_without_figures(plain(report)), separators=(",", ":"), allow_nan=False)


def _without_figures(found: dict[str, object]) -> dict[str, object]:
    for item in found["items"]:  # pyright: ignore[reportGeneralTypeIssues]
        for section in item["sections"]:
            section.pop(DRAWN)
    return found


def _body(report: Report) -> list[Element]:
    parts = [("claims", "Claims", claims(report))]
    parts += [("items", "Tables", items(report))]
    parts += [("quality", "Weights and quality", panels(report))]
    parts += [("subspaces", "Subspaces", [paragraph(report.subspaces)])]
    parts += [("cost", "Cost", _costs(report)), ("environment", "Environment", _environment(report))]
    links = [tag("a", title, href=f"#{name}") for name, title, _ in parts]
    sections = [tag("section", tag("h2", title), *content, id=name) for name, title, content in parts]
    return [_header(report), tag("nav", *links, aria_label="Parts"), tag("main", *sections), _footer(report)]


def _header(report: Report) -> Element:
    runs = f"{report.runs:,} finished {'run' if report.runs == 1 else 'runs'}"
    commits = ", ".join(report.commits) or "not recorded"
    about = f"Made of {report.store}: {runs}, scale {report.scale}, commit {commits}."
    note = "Runs of this scale decide no claim; only what is counted is judged."
    judged = [tag("p", note, class_="note")] if report.judged else []
    return tag(
        "header",
        tag("h1", "What holds of the LoRA paper"),
        tag("p", about, class_="about"),
        *judged,
        tag("button", "Dark or light", id="theme", type="button"),
    )


def _costs(report: Report) -> list[Element]:
    if not report.costs:
        return [paragraph("No run of the store is finished.")]
    rows = [
        tag("tr", tag("th", cost.machine, scope="row"), tag("td", f"{cost.runs:,}"), tag("td", cost.text))
        for cost in report.costs
    ]
    head = tag("tr", *(tag("th", name, scope="col") for name in ("machine", "runs", "time")))
    about = "All finished runs of the store, those of tuning too: the wall-clock time that each recorded, added up."
    return [
        paragraph(about),
        tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="wide", tabindex="0"),
    ]


def _environment(report: Report) -> list[Element]:
    rows = [tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in report.environment]
    table = _wide(tag("table", tag("tbody", *rows)))
    problems = [paragraph(f"Not counted: {problem}") for problem in report.problems]
    return [table if rows else paragraph("No run has recorded one."), *problems]


def _wide(table: Element) -> Element:
    """Lets a table that is too wide scroll in a box of its own."""
    return tag("div", table, class_="wide", tabindex="0")


def _footer(report: Report) -> Element:
    return tag("footer", tag("p", "Made by ", tag("code", report.command)))
