"""Reads a store and makes the report of it."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.claims.arms import Arms
from analysis.claims.declared import load_claims
from analysis.claims.judge import judged
from analysis.items import names
from analysis.render import claims as render_claims
from analysis.report.boxes import Boxes
from analysis.report.costs import commits_of, costs_of, environment_of
from analysis.report.data import Report
from analysis.report.items import ITEMS, Items
from analysis.report.sentences import shown
from analysis.report.subspaces import about_subspaces, with_weights
from analysis.runs import load_runs
from analysis.store import name_of
from analysis.verdicts import VERDICTS


def report(store: str, scale: str, command: str, items: Sequence[str] = ITEMS) -> Report:
    """Returns the report of a store at a scale.

    Args:
        store: The folder that holds runs/, or stands for a ledger.
        scale: A scale of the sweeps.
        command: What is typed for it.
        items: Names of the items that are shown.

    Raises:
        InputError: If the runs of one cell contradict each other.
    """
    declared = load_claims()
    arms, boxes = Arms(store, scale), Boxes(store)
    verdicts = judged(declared, arms)
    runs = load_runs(store) if (Path(store) / "runs").is_dir() else pd.DataFrame({"run_id": []})
    kept = with_weights(store, runs)
    reader = Items(arms, declared, boxes, bool(kept))
    sections = tuple(reader.read(name) for name in items)
    made, common = boxes.finished()
    return Report(
        command=command,
        store=name_of(store),
        scale=scale,
        judged=VERDICTS.get(scale),
        runs=len(runs),
        commits=commits_of(runs),
        counts=render_claims.counts(verdicts),
        claims=tuple(shown(each, names()) for each in verdicts),
        notes=render_claims.NOTES,
        items=sections,
        boxes=made,
        common=common,
        panels=tuple(reader.panels),
        subspaces=about_subspaces(store, scale, kept),
        costs=costs_of(runs),
        environment=environment_of(runs),
        problems=tuple(runs.attrs.get("problems", ())),
    )
