"""Which directories a store has, found in one look at it instead of one for each run. No torch."""

import os
from pathlib import Path


class Listing:
    """The names in a store's folder of runs at one moment.

    Args:
        store: The store (paths.outputs).
    """

    def __init__(self, store: str | Path) -> None:
        try:
            self._names: set[str] | None = set(os.listdir(Path(store) / "runs"))
        except FileNotFoundError:
            self._names = set()
        except OSError:
            self._names = None

    def may_have(self, run_id: str) -> bool:
        """Tells whether a run's directory may be there; where the store cannot be listed, each may."""
        return self._names is None or run_id in self._names

    def names(self, start: str) -> list[str]:
        """Returns the names that begin so, sorted; none where the store cannot be listed."""
        return sorted(name for name in self._names or () if name.startswith(start))
