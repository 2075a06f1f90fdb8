"""The command `report`: claims, items and runs of a store as one HTML file."""

import argparse

from analysis.commands.options import add_scale_option, add_store_option, scale_named
from lora_repro.errors import InputError


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to the program's."""
    report = commands.add_parser(
        "report", help="one page with the verdicts on all claims, the tables and their runs: report --out report.html"
    )
    report.set_defaults(command=_report, writes={"--out": "out"}, format="page")
    report.add_argument("overrides", nargs="*", metavar="scale=SCALE", help="as --scale; nothing else is taken")
    report.add_argument("--out", metavar="FILE", required=True, help="the page, one HTML file that needs no network")
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
    return page(report(str(options.runs), scale, options.line))
