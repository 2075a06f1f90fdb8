"""Says how far a long loop is: a bar on a terminal, elsewhere a line now and then. No torch."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

EVERY_S = 10.0
"""Seconds between two lines, where stderr is no terminal."""

Step = TypeVar("Step")


def progress(steps: Iterable[Step], what: str, total: int) -> Iterator[Step]:
    """Yields the steps of a loop and says on stderr how many are done.

    Args:
        steps: What is looped over.
        what: What the loop does, as in "drawing untrained A".
        total: How many steps there are.
    """
    if sys.stderr.isatty():
        yield from tqdm(steps, desc=what, total=total, leave=False)
        return
    told = time.monotonic()
    for done, step in enumerate(steps):
        if time.monotonic() - told > EVERY_S:
            told = time.monotonic()
            print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)
        yield step
