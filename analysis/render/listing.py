"""The runs of a store become text: pure functions."""

import shlex
from collections.abc import Sequence

from analysis.foreign_text import paragraph
from analysis.listing import Listed, row, varying
from analysis.render import lines
from analysis.render.differences import value_text
from analysis.states import counts, state_label
from analysis.store import name_of, store_arguments
from lora_repro.errors import shown


def to_json(runs: Sequence[Listed]) -> str:
    """Writes a list of objects, a run each; scores as in the record."""
    keys, metrics = varying(runs), _metrics(runs)
    return lines.to_json(row(run, keys, metrics) for run in runs)


def to_csv(runs: Sequence[Listed]) -> str:
    """Writes a line a run; scores as in the record."""
    keys, metrics = varying(runs), _metrics(runs)
    rows = [row(run, keys, metrics) for run in runs]
    body = [[_setting(value) if key in keys else value for key, value in each.items()] for each in rows]
    return lines.to_csv([["run_id", *keys, "state", *metrics], *body])


def markdown(runs: Sequence[Listed], store: str) -> str:
    """Writes a table, a line a run, scores in their unit; below it how many runs are in each state."""
    keys, metrics = varying(runs), _metrics(runs)
    percent = {name for run in runs for name in run.percent}
    scored = [f"{name}, %" if name in percent else name for name in metrics]
    header = ["run", *(key.removesuffix(".name") for key in keys), "state", *scored]
    body = []
    for run in runs:
        settings = [_setting(run.config[key]) if key in run.config else "" for key in keys]
        scores = [_score(run.metrics.get(name), name in percent) for name in metrics]
        body.append([run.run_id, *settings, state_label(run.state), *scores])
    table = ["\n".join(lines.aligned([header, *body]))] if runs else []
    return "\n\n".join([*table, summary(runs, store)])


def _score(value: float | None, is_percent: bool) -> str:
    if value is None:
        return ""
    return f"{100 * value:.2f}" if is_percent else f"{value:.4f}"


def summary(runs: Sequence[Listed], store: str) -> str:
    """Says in a line how many runs a store holds, and how many are in each state."""
    return f"Runs in all: {len(runs)}{f' ({_counted(runs)})' if runs else ''}. Store: {name_of(store)}"


def overview(runs: Sequence[Listed], store: str) -> str:
    """Writes a line for each model and task with the number of runs in each state, then why runs are not finished."""
    kinds: dict[str, list[Listed]] = {}
    for run in runs:
        kinds.setdefault(" ".join(run.run_id.split("-")[:2]), []).append(run)
    overall = [f"{kind}: {_counted(some)}" for kind, some in kinds.items()]
    reasons = [
        f"{state_label(run.state)}: {run.run_id}\n{paragraph(run.reason)}" for run in runs if run.reason is not None
    ]
    each = [f"Each run: {shlex.join(['python', '-m', 'analysis', 'runs', *store_arguments(store)])}"] if runs else []
    return "\n".join([*overall, summary(runs, store), *reasons, *each])


def _counted(runs: Sequence[Listed]) -> str:
    return ", ".join(f"{number} {state_label(state)}" for state, number in counts(run.state for run in runs).items())


def _metrics(runs: Sequence[Listed]) -> list[str]:
    return sorted({name for run in runs for name in run.metrics})


def _setting(value: object) -> str:
    return shown(value_text(value))
