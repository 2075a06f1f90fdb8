"""Differences between paper, code and reports become text: a block each, grouped by area."""

from collections.abc import Sequence

from analysis.discrepancies import ALL_MODELS, SEVERITIES, Discrepancy, by_area, record
from analysis.render import lines

AREAS = {
    "nlu": "RoBERTa and DeBERTa on GLUE",
    "nlg": "GPT-2",
    "loralib": "the authors' library",
    "nlu and nlg": "GLUE and GPT-2",
    "repository": "what was released",
    "baselines": "baselines",
    "efficiency": "time",
    "paper": "the paper against itself",
}
"""What an area is about."""


def markdown(entries: Sequence[Discrepancy]) -> str:
    """Writes the entries, those of an area together, the most important first."""
    counts = [(severity, sum(entry.severity == severity for entry in entries)) for severity in SEVERITIES]
    said = ", ".join(f"{n} {severity}" for severity, n in counts if n)
    parts = [
        "## Where the paper, the authors' code and users' reports differ, and what is done here",
        f"{len(entries)} {'difference' if len(entries) == 1 else 'differences'}, by expected effect on a "
        f"reproduction: {said}.\nFiles and issues are those of github.com/microsoft/LoRA.",
    ]
    for area, members in by_area(entries).items():
        parts.append(f"### {area}{f': {AREAS[area]}' if AREAS.get(area, area) != area else ''}")
        parts += map(_block, members)
    return "\n\n".join(parts)


def to_json(entries: Sequence[Discrepancy]) -> str:
    """Writes the entries as a list of objects."""
    return lines.to_json(map(record, entries))


def _block(entry: Discrepancy) -> str:
    models = "all models" if entry.models == [ALL_MODELS] else ", ".join(entry.models)
    about = [
        ("paper", entry.paper),
        ("code or arithmetic", entry.script),
        ("seen", entry.observed),
        ("source", f"{entry.source} ({entry.evidence})"),
        ("here", entry.ours),
    ]
    if entry.keys:
        about.append(("settings", " ".join(entry.keys)))
    if (effect := entry.effect) is not None:
        about.append(("measured", f"{effect.text} ({effect.page}, {effect.heading.rstrip('?')})"))
    tasks = "all tasks" if entry.tasks == "all" else entry.tasks
    head = f"**{entry.id}** ({entry.severity}): {entry.parameter}; {models}; {tasks}"
    return "\n".join([head, "", *(f"- {name}: {text}" for name, text in about)])
