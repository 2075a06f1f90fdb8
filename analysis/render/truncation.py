"""A run's cuts as a table, and as a plot of score against k."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.render import lines, style
from analysis.section7.truncation import Truncation
from lora_repro.tasks import Unit
from lora_repro.tasks.targets import split_name

COLOURS = (style.BEYOND, style.SECOND)
"""Of dev, and of the next split that the task scores."""


def _splits(truncation: Truncation) -> list[str]:
    """Returns the splits that were scored, as metric keys spell them."""
    ending = f"/{truncation.metric.name}"
    return [key.removesuffix(ending) for key in truncation.whole if key.endswith(ending)]


def rows(truncation: Truncation) -> list[dict[str, Any]]:
    """Returns an entry for each cut: how many directions are kept, the metrics of each split, the energy kept."""
    return [{"keep": cut.keep, **cut.metrics, "energy": cut.energy} for cut in truncation.cuts]


def to_json(truncation: Truncation) -> str:
    """Writes the cuts as a list of objects."""
    return lines.to_json(rows(truncation))


def to_csv(truncation: Truncation) -> str:
    """Writes the cuts as CSV."""
    found = rows(truncation)
    return lines.to_csv([list(found[0]), *(list(row.values()) for row in found)])


def markdown(truncation: Truncation) -> str:
    """Writes the cuts as a table, and what a reader must know of them."""
    metric = truncation.metric
    header = [
        "directions kept",
        "energy kept",
        *(f"{split_name(split)} {metric.name}" for split in _splits(truncation)),
    ]
    table = [header]
    for cut in truncation.cuts:
        all_of_it = " (all)" if cut.keep >= truncation.rank else ""
        scores = [metric.format(cut.metrics[f"{split}/{metric.name}"], 2) for split in _splits(truncation)]
        table.append([f"{cut.keep}{all_of_it}", f"{100 * cut.energy:.1f}", *scores])
    units = "In percent" if metric.unit is Unit.percent else f"{metric.name} as it is, energy in percent"
    notes = [f"- {note}" for note in [f"{units}; energy: of the sum of ||dW||_F^2.", *truncation.notes]]
    return "\n".join([f"## {_title(truncation)}", "", *lines.aligned(table), "", *notes])


def draw(truncation: Truncation) -> Figure:
    """Draws score against k."""
    figure = Figure((5.2, 3.9), layout="constrained")
    ax = figure.subplots()
    draw_scores(ax, truncation)
    figure.suptitle(_title(truncation), fontsize=8, x=0.02, ha="left")
    style.put_caption(figure, truncation.notes)
    return figure


def draw_scores(ax: Axes, truncation: Truncation) -> Axes:
    """Draws the scores of each split at each k, and as lines those of the whole run and of k = 0."""
    metric = truncation.metric.name
    keeps = [cut.keep for cut in truncation.cuts]
    x = range(len(keeps))
    for split, colour in zip(_splits(truncation), COLOURS, strict=False):
        key, name = f"{split}/{metric}", split_name(split)
        ax.plot(
            x, [cut.metrics[key] for cut in truncation.cuts], "o-", color=colour, label=f"{name}, first k directions"
        )
        ax.axhline(truncation.whole[key], color=colour, linewidth=0.8, linestyle="--", label=f"{name}, not cut")
        zero = next((cut.metrics[key] for cut in truncation.cuts if cut.keep == 0), None)
        if zero is not None:
            ax.axhline(zero, color=colour, linewidth=0.8, linestyle=":", label=f"{name}, k = 0")
    ax.set_xticks(x, labels=list(map(str, keeps)))
    ax.set_xlabel(f"k, directions kept in each of {truncation.matrices} matrices (of {truncation.rank} at the most)")
    ax.set_ylabel(metric)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def _title(truncation: Truncation) -> str:
    return f"{truncation.run_id}, cut to its first k directions"
