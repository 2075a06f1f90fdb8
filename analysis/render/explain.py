"""What a cell is made of, as text: the paper's number, ours, its runs, its tuning, and where to look further."""

import shlex
import statistics
from collections.abc import Sequence
from typing import Any

from analysis.cell import Cell, SeedRun, commit_of, computed_on
from analysis.explain import Explained, Explanation, epochs_of, record, tasks_of_paper
from analysis.foreign_text import paragraph
from analysis.kinds.across import AcrossTable
from analysis.kinds.facts import SPREAD
from analysis.kinds.scores import ScoreTable
from analysis.render import lines
from analysis.render.across import as_printed
from analysis.render.methods import in_words
from analysis.render.tables import DASH, Names, line_name, our_cell, task_name
from analysis.states import PLANNED, state_label
from analysis.stats import few_seeds, half_width_in_standard_errors
from analysis.store import name_of, store_arguments
from analysis.verdicts import verdict_of
from lora_repro.config.grammar import quoted
from lora_repro.store.ledger import ledgers_of
from lora_repro.store.status import State
from lora_repro.sweep.tuning import Scored, Tuning
from lora_repro.tasks import Metric

MOST_NAMESAKES = 5
"""Runs of the same name that are listed; the JSON form has all."""


def to_json(explanation: Explanation) -> str:
    """Writes a list of objects, one a cell."""
    return lines.to_json(record(each, explanation) for each in explanation.entries)


def markdown(explanation: Explanation, store: str, names: Names) -> str:
    """Writes a block for each selected cell, and how to look further.

    Args:
        explanation: The cells.
        store: The folder that holds runs/.
        names: How tasks and models are printed.
    """
    item, entries = explanation.item, explanation.entries
    title = f"{item.name}: {item.title}"
    at = " ".join([f"scale={explanation.scale}", *explanation.given])
    parts = [f"## {title}", f"{len(entries)} of its {explanation.of} cells, at {at}."]
    if explanation.planned:
        parts.append(f"Ours is planned and cannot run yet: {'; '.join(explanation.planned)}.")
    for each in entries:
        parts += [f"### {_name(explanation, each.cell, names)}", *_cell(explanation, each, store)]
    parts.append(_further(explanation, store))
    return "\n\n".join(part for part in parts if part)


def _name(explanation: Explanation, cell: Cell, names: Names) -> str:
    """Names a cell by whose it is, task, model and place: `ours, movies (minilm), targets q,v, r 8`."""
    item, place = explanation.item, cell.place
    who = " and ".join([*(["the paper's"] if cell.paper is not None else []), *(["ours"] if cell.runs else [])])
    whose = line_name(place, names) if cell.runs else task_name(place.task, names)
    rows, columns = getattr(item, "rows", None), getattr(item, "columns", None)
    where = [place.row if rows is None else f"{rows.label} {place.row}"]
    where += [] if columns is None else [f"{'' if rows is None else columns.label} {place.column}".strip()]
    where += [f"{key} {value}" for key, value in _telling(explanation, cell).items()]
    return ", ".join([who, whose, *where])


def _telling(explanation: Explanation, cell: Cell) -> dict[str, Any]:
    """Returns the settings of a line of methods in which it differs from others of its name."""
    own = next((each.settings for each in explanation.entries if each.cell is cell), {})
    alike = [each.settings for each in explanation.entries if each.cell.place == cell.place and each.cell.runs]
    if not cell.runs or len(alike) < 2:
        return {}
    keys = dict.fromkeys(key for settings in alike for key in settings)
    differ = [key for key in keys if len({str(settings.get(key)) for settings in alike}) > 1]
    return {key.rpartition(".")[2]: own[key] for key in differ if key in own and key.startswith("method.")}


def _cell(explanation: Explanation, each: Explained, store: str) -> list[str]:
    cell, item = each.cell, explanation.item
    parts = [_paper(explanation, each)] if cell.paper is not None else []
    if not cell.runs:
        return [*parts, "Ours: none. The sweep has no run there at this scale."]
    if cell.paper is None and item.facts and (isinstance(item, ScoreTable) or cell.task not in tasks_of_paper(item)):
        parts.append(f"Paper: it has no number for {cell.task}.")
    return [
        *parts,
        _settings(explanation, each),
        _ours(explanation, each),
        _runs(cell),
        _states(cell),
        _provenance(cell, store),
        _command(cell),
        *([_tuning(cell.tuning, each, store)] if cell.tuning is not None else []),
        _records(each, store),
    ]


def _paper(explanation: Explanation, each: Explained) -> str:
    """Writes the paper's number and the line of the facts that holds it."""
    cell, paper, item = each.cell, each.cell.paper, explanation.item
    assert paper is not None
    shown: list[str | None] = [
        None if value is None else cell.metric.format(value) for value in (paper.value, paper.fluctuation)
    ]
    if each.fact is not None and not isinstance(item, ScoreTable):
        shares = item.columns.shares if isinstance(item, AcrossTable) else []
        shown = [as_printed(paper.settings.get(key), each.fact in shares) for key in (each.fact, each.fact + SPREAD)]
    number = " ± ".join(value for value in shown if value is not None)
    about = ", ".join(f"{key} {value}" for key, value in paper.settings.items() if not _is_other(key, each, value))
    facts = item.facts
    return (
        f"Paper: {number} ({facts.get('unit', cell.metric.title)}), {each.fact} in "
        f"the line {about} of its Table {facts.get('table', item.number)} "
        f"(facts of analysis/items/{item.name}.yaml)."
    )


def _is_other(key: str, each: Explained, value: Any) -> bool:
    """Tells whether a value of the facts' line is another cell's number."""
    return key != each.fact and isinstance(value, float)


def _settings(explanation: Explanation, each: Explained) -> str:
    """Writes the settings that the table prints beside its numbers, all as recorded."""
    item = explanation.item
    keys = [axis.key for name in ("rows", "columns") if (axis := getattr(item, name, None)) is not None and axis.key]
    shown = {key: each.settings[key] for key in dict.fromkeys([*keys, *item.settings]) if key in each.settings}
    method = {key: value for key, value in each.settings.items() if key.startswith("method.")} if not keys else {}
    rate = {key: each.settings[key] for key in ("train.learning_rate",) if key in each.settings}
    return "Settings: " + " ".join(f"{key}={_shown(value)}" for key, value in {**method, **shown, **rate}.items())


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _ours(explanation: Explanation, each: Explained) -> str:
    """Writes our number, and says how it is computed."""
    cell = each.cell
    what = f"{cell.metric.title} {explanation.protocol.description}"
    if cell.planned is not None:
        return f"Ours: none yet; its runs are planned and cannot run: {cell.planned}."
    words = [f"Ours: {our_cell(cell)}. Each score is the {what}."]
    scores = [*cell.replicates.values()]
    if cell.missing:
        words.append(
            f"There is no mean: {len(cell.missing)} of {len(cell.runs)} runs without a score, and none is ever taken "
            "over a part of the seeds."
        )
    elif len(scores) == 1:
        words.append("It is one score: a single seed has no interval.")
    else:
        n = len(scores)
        half, sd = half_width_in_standard_errors(n), statistics.stdev(scores)
        each_is = "a draw of the training examples, the mean over its seeds" if cell.is_over_draws else "a seed"
        words.append(
            f"The number is the mean of {n} scores, one {each_is}. The interval is the two-sided 95 % t interval: "
            f"{half:.2f} times the standard deviation {cell.metric.format(sd, 2)} over the root of {n}."
        )
        words += few_seeds([n])
    if cell.about_data:
        words.append(f"Data: {cell.about_data}.")
    if (paired := each.difference) is not None:
        baseline = ", ".join(f"{key}={value}" for key, value in explanation.baseline.items())
        method = cell.config and cell.config.method
        which = " of its budget" if getattr(method, "budget", None) is not None else " of the largest budget"
        which = which if explanation.has_budgets else ""
        how = "draw by draw" if cell.is_over_draws else "seed by seed"
        words.append(f"Minus the baseline{which}, taken {how}: {in_words(cell, paired)} (baseline: {baseline}).")
    words.append(f"Verdict: {cell.verdict if cell.verdict is not None else verdict_of(explanation.scale)}.")
    return " ".join(words)


def _runs(cell: Cell) -> str:
    """Writes a line a run: seed, id, state, score, epoch, flags, commit."""
    rows = [["seed", "run", "state", "score", "epoch taken", "flags", "commit"]]
    for run in cell.runs:
        result = run.result
        score = "" if run.score is None else cell.metric.format(run.score, 2)
        epoch = "" if result is None or run.epoch is None else f"{run.epoch} ({epochs_of(result)} scored)"
        flags = "" if result is None else ", ".join(run.flags) or "none"
        commit = "" if result is None else commit_of(result) or "not recorded"
        seed = "" if run.seed is None else str(run.seed)
        rows.append([seed, run.run_id or DASH, state_label(run.state), score, epoch, flags, commit])
    return "\n".join(lines.aligned(rows))


def _states(cell: Cell) -> str:
    """Says why runs have no score, each reason once."""
    groups: dict[tuple[str, str], list[SeedRun]] = {}
    for run in cell.missing:
        if run.reason is not None:
            groups.setdefault((run.state, run.reason), []).append(run)
    return "\n".join(
        f"Seed {_seeds(runs)}, {state_label(state)}:\n{paragraph(reason)}" for (state, reason), runs in groups.items()
    )


def _seeds(runs: Sequence[SeedRun]) -> str:
    return ", ".join(str(run.seed) for run in runs)


def _provenance(cell: Cell, store: str) -> str:
    """Says with which commits, versions and machines its runs were computed, and warns where they differ."""
    if not cell.results:
        return ""
    words = []
    for what, of in (("commit", commit_of), ("machine and versions", computed_on)):
        groups: dict[str, list[SeedRun]] = {}
        for run in cell.runs:
            if run.result is not None:
                known = of(run.result) if "provenance" in run.result else None
                groups.setdefault(known or "not recorded", []).append(run)
        if len(groups) == 1:
            words.append(f"Computed with one {what}: {next(iter(groups))}.")
            continue
        named = "; ".join(f"{name} (seed {_seeds(runs)})" for name, runs in groups.items())
        first, second = ([*groups.values()][number][0].run_id for number in (0, 1))
        words.append(
            f"Its runs differ in their {what}: {named}. What that changes: "
            f"`{_analysis('diff', str(first), str(second), *store_arguments(store))}`"
        )
    return "\n".join(words)


def _command(cell: Cell) -> str:
    if cell.command is None:
        return ""
    note = ""
    if any(run.state == State.diverged.value for run in cell.missing):
        note = " A diverged run is not repeated."
    begin = "Command that computes what is missing" if cell.missing else "Command that computes exactly these runs"
    return f"{begin}: `{cell.command}`{note}"


def _tuning(tuning: Tuning, each: Explained, store: str) -> str:
    """Writes what was tuned, each value that was tried with its runs, and what the choice decides."""
    tune, metric = tuning.tune, tuning.metric
    grid = ", ".join(f"{value:g}" for value in tune.values)
    at = "".join(f", tuned at {key}={quoted(value)}" for key, value in tune.at)
    words = [
        f"Tuned: {tune.key}, by the mean dev {metric.name} after the last epoch (tuning seeds: "
        f"{', '.join(map(str, tune.seeds))}, never reported; grid: {grid}{at})."
    ]
    if tuning.grown:
        words.append(f"The grid grew by {', '.join(f'{value:g}' for value in tuning.grown)}.")
    if tuning.chosen is None:
        words.append(f"Nothing is chosen: {tuning.why_not}.")
    else:
        edge = "at the edge of the grid, so a better value may lie beyond" if tuning.at_edge else "inside the grid"
        words.append(f"Chosen: {tuning.chosen:g}, {edge}.")
    if each.order is not None:
        place, of = each.order.ranked, each.order.of
        then = "the same place" if place.place == place.with_neighbour else f"place {place.with_neighbour}"
        words.append(
            f"By tuning scores it has place {place.place} among the {of} of its task, model and score that are tuned "
            f"so far; with the better value next to the chosen one it would have {then}."
        )
    rows = [["value", f"mean dev {metric.name}", "seed: score, run"]]
    for trial in tuning.trials:
        mean = "diverged" if trial.diverged else DASH if trial.mean is None else metric.format(trial.mean, 2)
        runs = "; ".join(
            f"{run.seed}: {_trial_score(run, metric)}, {run.run_id or 'not known yet'}" for run in trial.runs
        )
        rows.append([f"{trial.value:g}{' (chosen)' if trial.value == tuning.chosen else ''}", mean, runs])
    return "\n".join([" ".join(words), "", *lines.aligned(rows)])


def _trial_score(run: Scored, metric: Metric) -> str:
    return state_label(run.state.value) if run.score is None else metric.format(run.score, 2)


def _records(each: Explained, store: str) -> str:
    """Says where the records lie, and which runs are called alike."""
    cell, where = each.cell, name_of(store)
    begun = [run.run_id for run in cell.runs if run.run_id is not None and run.state != State.todo.value]
    words = []
    if begun and ledgers_of(where):
        words.append(f"Records: in the ledger {where}, which has no folders of runs.")
    elif begun:
        words.append(f"Records: {where}/runs/RUN/ (result.json, config.yaml, metrics.jsonl and others).")
    if each.namesakes:
        some = ", ".join(each.namesakes[:MOST_NAMESAKES])
        rest = len(each.namesakes) - MOST_NAMESAKES
        words.append(
            f"Not counted: {some}{f' and {rest} more' if rest > 0 else ''}. They are called like runs of this cell, "
            "but have other settings, or are of code with other numerics."
        )
    return "\n".join(words)


def _further(explanation: Explanation, store: str) -> str:
    runs = [run for each in explanation.entries for run in each.cell.runs if run.result is not None]
    to = store_arguments(store)
    words = ["To look further:"]
    if len(runs) > 1:
        words.append(f"- two runs compared: `{_analysis('diff', str(runs[0].run_id), str(runs[1].run_id), *to)}`")
    words.append(f"- all runs of the store: `{_analysis('runs', *to)}`")
    if any(run.state != PLANNED for each in explanation.entries for run in each.cell.runs):
        scale = [*explanation.given, "--scale", explanation.scale]
        sweep = f"+sweeps={explanation.item.sweep}"
        words.append(f"- states and reasons of all its runs: `{_analysis('status', sweep, *scale, *to)}`")
        number = explanation.item.number
        protocol = ["--protocol", explanation.protocol.value]
        words.append(f"- the table: `{_analysis('table', number, *scale, *protocol, *to)}`")
    return "\n".join(words)


def _analysis(*words: str) -> str:
    return shlex.join(["python", "-m", "analysis", *words])
