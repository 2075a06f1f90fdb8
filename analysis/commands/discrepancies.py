"""The command `discrepancies`: where paper, code and reports differ, and what is done here."""

import argparse

EXAMPLES = "Examples: discrepancies base_alpha; discrepancies nlu high; discrepancies gpt2_medium --format json"


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to the program's."""
    parser = commands.add_parser(
        "discrepancies",
        help="where the paper, the authors' code and users' reports differ, and what is done here",
        epilog=EXAMPLES,
    )
    parser.set_defaults(
        command=_discrepancies, runs=None, reads_runs=False, takes_overrides=False, writes={"--out": "out"}
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="WORD", help="ids, areas, models or severities (default: all differences)"
    )
    parser.add_argument("--format", choices=("md", "json"), default="md", help="default: %(default)s")
    parser.add_argument("--out", metavar="FILE", help="write to a file instead of stdout")


def _discrepancies(options: argparse.Namespace) -> str:
    from analysis.discrepancies import read, select
    from analysis.render import discrepancies

    found = select(read(), options.overrides)
    return discrepancies.to_json(found) if options.format == "json" else discrepancies.markdown(found)
