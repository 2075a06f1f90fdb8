"""The command `ledger`: keeps the runs of a sweep in one file, and makes a store of such a file."""

import argparse
import sys
from pathlib import Path

from analysis.commands.options import add_scale, add_scale_option, add_store_option
from lora_repro.errors import InputError

EXAMPLES = """Examples:
  python -m analysis ledger write study.parquet +sweeps=table6
  python -m analysis ledger write part.parquet +sweeps=table6 seed=0,1 --runs study.parquet
  python -m analysis ledger restore study.parquet --runs outputs
Every command that reads runs takes a ledger too: python -m analysis table 6 --runs study.parquet"""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to the program's."""
    ledger = commands.add_parser(
        "ledger",
        help="keep the runs of a sweep in one small file: ledger write FILE +sweeps=table6; or a store made of one",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ledger.set_defaults(command=_ledger, reads_runs=False)
    ledger.add_argument("action", choices=("write", "restore"), help="write: the runs that ended are added to the file")
    ledger.add_argument("file", metavar="LEDGER", help="the ledger, *.parquet")
    what = "write: the sweep, as +sweeps=table6 or axes; without one, all runs of the store"
    ledger.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=what)
    add_scale_option(ledger)
    add_store_option(ledger)


def _ledger(options: argparse.Namespace) -> str:
    from analysis.section7.statistics import merge_files
    from analysis.store import opened, rows_of
    from lora_repro.store import ledger, statistics_files
    from lora_repro.store.lock import exclusive

    path = Path(options.file)
    if path.suffix != ledger.SUFFIX:
        raise InputError(f"ledger: its file must end in {ledger.SUFFIX} (given: {path}).")
    if options.action == "restore":
        if ledger.is_ledger(options.runs):
            raise InputError(f"ledger: --runs is the store, a folder that holds runs/ (given: {options.runs}).")
        if options.overrides or options.scale is not None:
            raise InputError("ledger restore: takes the file alone, and --runs DIR. Leave the rest out.")
        found = ledger.read(path)
        written = {*ledger.restore(found.rows, options.runs)}
        held = statistics_files.texts_of(options.runs, found.statistics)
        files = statistics_files.restore(merge_files(held, found.statistics), options.runs)
        also = f", and statistics of weights: {', '.join(files)}" if files else ""
        return (
            f"{len(written)} of {len(found.rows)} runs written into {options.runs}"
            f"{_kept([row.run_id for row in found.rows if row.run_id not in written], options.runs)}{also}."
        )
    add_scale(options)
    with opened(options.runs) as store:
        new = rows_of(store, _run_ids(options, store))
        collected = statistics_files.collect(store, [row.run_id for row in new])
    sweep = _given(options.overrides).get("sweeps")  # other sweeps share runs, which may be computed anew since
    statistics = {name: text for name, text in collected.items() if sweep is None or name.startswith(f"{sweep}-")}
    with exclusive(path):
        found = ledger.read(path) if path.exists() else None
        before, kept = (found.rows, found.statistics) if found is not None else ([], {})
        rows = ledger.merge(new, before)
        statistics = merge_files(statistics, kept)
        ledger.write(path, rows, {"command": options.line}, statistics)
    added = len(rows) - len(before)
    diverged = sum(row.result is None for row in rows)
    note = f", {diverged} of them diverged" if diverged else ""
    also = f", statistics of weights ({', '.join(sorted(statistics))})" if statistics else ""
    return f"{path}: {len(rows)} runs that ended ({added} new{note}){also}, {path.stat().st_size / 1024:,.0f} KiB."


def _kept(run_ids: list[str], store: str) -> str:
    """Says what is there in place of runs that were not written."""
    from analysis.runs import run_states
    from analysis.states import state_label
    from lora_repro.store.ledger import ENDED

    ended = {state.value for state in ENDED}
    states = {run_id: state for run_id, state, _ in run_states(store, run_ids)}
    open_ones = [f"{run_id} ({state_label(state)})" for run_id, state in states.items() if state not in ended]
    text = "; the others are there already" if len(open_ones) < len(run_ids) else ""
    return text + (f"; kept as they are: {', '.join(open_ones)}" if open_ones else "")


def _run_ids(options: argparse.Namespace, store: str) -> list[str]:
    """Returns the runs of the sweep that is given, of its tuning and of the claims' margin; or all of the store."""
    from analysis.listing import read_listing
    from lora_repro.config.compose import compose
    from lora_repro.sweep.grid import load

    if not options.overrides:
        return [run.run_id for run in read_listing(store)]
    sweep = load(compose, options.overrides, store)
    if waiting := [*sweep.waiting_tuning, *sweep.waiting]:
        print(f"{len(waiting)} runs wait for their tuning and are not in the ledger yet.", file=sys.stderr)
    models = {job.resolved.run.model.name for job in sweep.reported}
    return list(
        dict.fromkeys([job.run_id for job in sweep.to_compute] + _of_the_margin(options.overrides, models, store))
    )


def _of_the_margin(overrides: list[str], models: set[str], store: str) -> list[str]:
    """Returns the runs that the margin of these models is made of, if claims judge the sweep.

    The ledger of that sweep alone then gives verdicts.
    """
    from analysis.claims.declared import load_claims
    from analysis.claims.judge import sweeps_beside_the_margin
    from lora_repro.config.compose import compose
    from lora_repro.sweep.grid import load

    claims, given = load_claims(), _given(overrides)
    if given.get("sweeps") not in sweeps_beside_the_margin(claims):
        return []
    scale = [f"scale={given['scale']}"] if "scale" in given else []
    jobs = load(compose, [f"+sweeps={claims.margin.sweep}", *scale], store).to_compute
    return [job.run_id for job in jobs if job.resolved.run.model.name in models]


def _given(overrides: list[str]) -> dict[str, str]:
    return dict(each.lstrip("+").split("=", 1) for each in overrides)
