"""What keeps runs from saying anything, whatever their numbers are: plain questions to the arms of a part, by name."""

from collections.abc import Mapping
from statistics import fmean

from analysis.cell import Cell
from lora_repro.store.status import State


def unusable(cells: Mapping[str, Cell]) -> str | None:
    """Says that runs diverged, or that nothing could be tuned."""
    if diverged := [name for name, cell in cells.items() if any(run.state == State.diverged for run in cell.runs)]:
        return f"Runs diverged: {', '.join(diverged)}."
    tunings = [(name, cell.tuning) for name, cell in cells.items() if cell.tuning is not None]
    hopeless = [f"{name}: {t.why_not}" for name, t in tunings if t.chosen is None and not t.missing]
    return f"Nothing could be tuned: {'; '.join(hopeless)}." if hopeless else None


def at_edge(cells: Mapping[str, Cell]) -> str | None:
    """Says that a larger grid could have given another value."""
    found = [name for name, cell in cells.items() if cell.tuning is not None and cell.tuning.at_edge]
    return f"A tuned value lies at the edge of its grid: {', '.join(found)}." if found else None


def untrained(cells: Mapping[str, Cell], margin: float) -> str | None:
    """Says that no arm learned anything, or that training had not ended."""
    return learned_nothing(cells, margin) or unfinished(cells, margin)


def unfinished(cells: Mapping[str, Cell], margin: float) -> str | None:
    """Says that training had not ended, or that this is not known."""
    rises = {name: _rise(cell) for name, cell in cells.items()}
    if unknown := [name for name, rise in rises.items() if rise is None]:
        return f"Whether training had ended is not known, as dev was scored once ({', '.join(unknown)})."
    if rising := [name for name, rise in rises.items() if rise is not None and rise > margin]:
        return (
            f"Training had not ended: dev got better by more than the margin in the last epoch ({', '.join(rising)})."
        )
    return None


def learned_nothing(cells: Mapping[str, Cell], margin: float) -> str | None:
    """Says that no arm is better than always naming the most frequent class, so none could lose anything either."""
    gains = [gain for cell in cells.values() if (gain := _over_baseline(cell)) is not None]
    if not gains or max(gains) > margin:
        return None
    return f"No arm learned more than the margin over naming the most frequent class ({', '.join(cells)})."


def _over_baseline(cell: Cell) -> float | None:
    """Returns by how much the best epoch on dev lies above the baseline, a mean over seeds; None without a baseline."""
    keys = f"eval/{cell.metric.name}", f"eval/{cell.metric.baseline}"
    scores = [
        [row[keys[0]] - row[keys[1]] for row in result["metrics_by_epoch"] if {*keys} <= {*row}]
        for result in cell.results
    ]
    return fmean(max(each) for each in scores) if scores and all(scores) else None


def _rise(cell: Cell) -> float | None:
    """Returns by how much dev got better in the last epoch, as a mean over seeds; None where dev was scored once."""
    key, sign = f"eval/{cell.metric.name}", better(cell)
    scores = [[row[key] for row in result["metrics_by_epoch"] if key in row] for result in cell.results]
    if any(len(each) < 2 for each in scores):
        return None
    return fmean(sign * (each[-1] - each[-2]) for each in scores) if scores else None


def better(cell: Cell) -> int:
    """Returns the sign that makes more of a metric better."""
    return 1 if cell.metric.higher_is_better else -1
