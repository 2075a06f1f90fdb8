"""Refuses to start outside the environment, instead of a traceback. Imports only Python's standard library."""

import sys
from importlib.util import find_spec

OLDEST = (3, 11)
NEEDED = ("hydra", "omegaconf", "yaml", "numpy", "pandas")
"""Packages that the programs import before they read the command line."""


def refuse_outside() -> None:
    """Ends a program that runs outside its environment, and says how to enter it.

    Raises:
        SystemExit: If Python is too old, or a package is missing.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if sys.version_info >= OLDEST and not missing:
        return
    found = f"the package {missing[0]} is not installed" if missing else "Python 3.11 or later is needed"
    sys.exit(
        f"Error: {found} (this is {sys.executable}, Python {sys.version.split()[0]}).\n"
        "Make the environment once, and activate it in each shell: make setup; . .venv/bin/activate"
    )
