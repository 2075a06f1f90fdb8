"""Records become numbers, tables and figures. In a notebook: `from analysis import load_runs`. No torch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.runs import load_runs

__all__ = ["load_runs"]


def __getattr__(name: str) -> Any:
    """Imports load_runs, and with it pandas, when it is asked for: `python -m analysis --help` needs neither."""
    if name == "load_runs":
        from analysis.runs import load_runs

        return load_runs
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
