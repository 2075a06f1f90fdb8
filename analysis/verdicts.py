"""What a table or figure says of how far its numbers are judged, by scale."""

from collections.abc import Iterable

from analysis.items import names

VERDICTS = {"smoke": "smoke: plumbing, not judged", "demo": "demo, not judged"}
NOT_HERE = "not judged here; python -m analysis claims judges the paper's claims"


def verdict_of(scale: str) -> str:
    """Says how far results of a scale are judged."""
    return VERDICTS.get(scale, NOT_HERE)


def verdict_sentence(scale: str, about: Iterable[str]) -> str:
    """Says it in a caption, with what a reader must know about the models and tasks that are named."""
    footnotes = names()["footnotes"]
    known = [footnotes[name] for name in dict.fromkeys(about) if name in footnotes]
    return " ".join([f"Verdict: {verdict_of(scale)}.", *known])
