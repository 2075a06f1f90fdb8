"""The runs of a store become text: pure functions."""

import csv
import io
import json
import shlex
from collections.abc import Sequence

from analysis.commands.options import DEFAULT_STORE
from analysis.listing import Listed, counts, row, varying
from analysis.render.differences import word
from analysis.render.lines import aligned
from analysis.render.words import paragraph, shown, state_words


def to_json(runs: Sequence[Listed]) -> str:
    """Writes a list of objects, a run each; scores in [0, 1]."""
    keys, metrics = varying(runs), _metrics(runs)
    return json.dumps([dict(row(run, keys, metrics)) for run in runs], indent=1)


def to_csv(runs: Sequence[Listed]) -> str:
    """Writes a line a run; scores in [0, 1]."""
    keys, metrics, text = varying(runs), _metrics(runs), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run_id", *keys, "state", *metrics])
    for run in runs:
        cells = [_word(value) if key in keys else value for key, value in row(run, keys, metrics).items()]
        writer.writerow(cells)
    return text.getvalue().rstrip("\n")


def markdown(runs: Sequence[Listed], store: str) -> str:
    """Writes a table, a line a run, scores in percent; below it how many runs are in each state."""
    keys, metrics = varying(runs), _metrics(runs)
    header = ["run", *(key.removesuffix(".name") for key in keys), "state", *(f"{name}, %" for name in metrics)]
    lines = []
    for run in runs:
        settings = [_word(run.config[key]) if key in run.config else "" for key in keys]
        scores = [f"{100 * run.metrics[name]:.2f}" if name in run.metrics else "" for name in metrics]
        lines.append([run.run_id, *settings, state_words(run.state), *scores])
    table = ["\n".join(aligned([header, *lines]))] if runs else []
    return "\n\n".join([*table, summary(runs, store)])


def summary(runs: Sequence[Listed], store: str) -> str:
    """Says in a line how many runs a store holds, and in which states."""
    return f"Runs in all: {len(runs)}{f' ({_counted(runs)})' if runs else ''}. Store: {store}"


def overview(runs: Sequence[Listed], store: str) -> str:
    """Writes a line for each model and task with the number of runs in each state, then why runs are not finished."""
    kinds: dict[str, list[Listed]] = {}
    for run in runs:
        kinds.setdefault(" ".join(run.run_id.split("-")[:2]), []).append(run)
    lines = [
        f"{kind}: {', '.join(f'{n} {state_words(state)}' for state, n in counts(some).items())}"
        for kind, some in kinds.items()
    ]
    reasons = [
        f"{state_words(run.state)}: {run.run_id}\n{paragraph(run.reason)}" for run in runs if run.reason is not None
    ]
    elsewhere = [] if store == DEFAULT_STORE else ["--runs", store]
    each = [f"Each run: {shlex.join(['python', '-m', 'analysis', 'runs', *elsewhere])}"] if runs else []
    return "\n".join([*lines, summary(runs, store), *reasons, *each])


def _counted(runs: Sequence[Listed]) -> str:
    return ", ".join(f"{number} {state_words(state)}" for state, number in counts(runs).items())


def _metrics(runs: Sequence[Listed]) -> list[str]:
    return sorted({name for run in runs for name in run.metrics})


def _word(value: object) -> str:
    return shown(word(value))
