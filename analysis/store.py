"""The store that commands read: its default, and how a command line names another."""

from pathlib import Path

DEFAULT_STORE = "outputs"
"""The folder that holds runs/, if none is given."""


def store_arguments(store: str | Path) -> list[str]:
    """Returns the option by which `python -m analysis` reads this store; none for the default."""
    return [] if str(store) == DEFAULT_STORE else ["--runs", str(store)]


def elsewhere(store: str | Path) -> list[str]:
    """Returns the override by which a run writes into this store; none for the default."""
    from lora_repro.sweep.grid import overrides

    return [] if str(store) == DEFAULT_STORE else overrides({"paths.outputs": str(store)})
