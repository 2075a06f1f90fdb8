"""The command `report`: claims, items and runs of a store as one HTML file."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.commands.options import add_scale_option, add_store_option, scale_named
from analysis.output import write_output
from analysis.store import DEFAULT_STORE, name_of
from lora_repro.errors import InputError

if TYPE_CHECKING:
    from analysis.report.data import Report


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to the program's."""
    report = commands.add_parser(
        "report", help="one page with the verdicts on all claims, the tables and their runs: report --out report.html"
    )
    report.set_defaults(command=_report, writes={"--out": "out"}, format="page")
    report.add_argument("overrides", nargs="*", metavar="scale=SCALE", help="as --scale; nothing else is taken")
    report.add_argument("--out", metavar="FILE", required=True, help="the page, one HTML file that needs no network")
    report.add_argument(
        "--wandb",
        nargs="?",
        const="offline",
        choices=("offline", "online"),
        help="log claims, tables and figures to W&B too, in the groups of their runs (offline: for `wandb sync`)",
    )
    report.add_argument("--project", help="W&B's (default: that of log.project)")
    add_scale_option(report)
    add_store_option(report)


def _report(options: argparse.Namespace) -> str:
    from analysis.render.report import page
    from analysis.report.build import report

    scale = scale_named(options)
    if options.overrides:
        raise InputError(
            f"report: takes no {options.overrides[0]}, because its claims and items have sweeps of their own.\n"
            "Leave it out; or print a sweep: python -m analysis table +sweeps=NAME"
        )
    if options.project is not None and options.wandb is None:
        raise InputError("--project: is W&B's. Add --wandb, or leave it out.")
    if not Path(options.runs).exists():
        print(f"{options.runs}: there is no such folder, so the page holds no runs.", file=sys.stderr)
    print("Judging the claims, then reading each table and figure: up to half a minute.", file=sys.stderr)
    found = report(str(options.runs), scale, options.line)
    text = page(found)
    if options.wandb is None:
        return text
    write_output("--out", options.out, text + "\n")  # first: a tracker may fail
    options.out = None
    return _log(found, text, options)


def _log(found: "Report", text: str, options: argparse.Namespace) -> str:
    from analysis.report.tracked import logged
    from lora_repro.config.settings import LogConfig
    from lora_repro.mirror.tracked_run import log_report

    outputs = Path(name_of(options.runs))
    outputs = outputs if outputs.is_dir() else Path(DEFAULT_STORE)  # a ledger is a file
    outputs.mkdir(exist_ok=True)
    project = options.project if options.project is not None else LogConfig().project
    try:
        groups = log_report(logged(found, text), outputs.absolute(), project, options.wandb == "online")
    except Exception as error:  # the tracker's, of any kind
        raise InputError(
            f"--wandb: the report could not be logged ({type(error).__name__}: {error}). The page is written.\n"
            "Leave --wandb out, or see that W&B works here."
        ) from error
    where = "" if options.wandb == "online" else f" in {outputs / 'wandb'}"
    print(f"Logged to W&B, project {project}, {options.wandb}{where}: {', '.join(groups)}", file=sys.stderr)
    return ""
