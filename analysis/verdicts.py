"""What is said of a result of ours before any claim is judged, by scale."""

from collections.abc import Iterable

from analysis.items import names

VERDICTS = {"smoke": "smoke: plumbing, not judged", "demo": "demo, not judged"}


def verdict_of(scale: str) -> str:
    """Says how far results of a scale are judged."""
    return VERDICTS.get(scale, "not judged yet")


def verdict_sentence(scale: str, about: Iterable[str]) -> str:
    """Says it in a caption, with what a reader must know about the models and tasks that are named."""
    footnotes = names()["footnotes"]
    known = [footnotes[name] for name in dict.fromkeys(about) if name in footnotes]
    return " ".join([f"Verdict: {verdict_of(scale)}.", *known])
