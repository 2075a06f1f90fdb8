"""How subject, property and object are written for a model: what WebNLG and DART share. No torch."""

import re
from collections.abc import Sequence

Triple = tuple[str, str, str]
"""Subject, property (or relation), object."""

CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def with_bars(triples: Sequence[Triple]) -> str:
    """Writes "Mars_Hill : joined : 1973 | Mars_Hill : location : Mars_Hill,_North_Carolina"."""
    return " | ".join(" : ".join(triple) for triple in triples)


def with_tags(triples: Sequence[Triple]) -> str:
    """Writes "<H> Mars Hill <R> joined <T> 1973 <H> Mars Hill <R> location <T> Mars Hill, North Carolina".

    Names lose underscores and quotes, and birthPlace becomes "birth place".
    """
    parts = [f"<H> {_words(s)} <R> {_words(CAMEL.sub(' ', p)).lower()} <T> {_words(o)}" for s, p, o in triples]
    return " ".join(parts)


def _words(name: str) -> str:
    return " ".join(name.replace("_", " ").replace('"', "").split())
