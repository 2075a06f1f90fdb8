"""The command `table`: a table of the paper by its number, or any sweep of a user's own."""

import argparse
import shlex
from typing import TYPE_CHECKING

from analysis.commands.options import FORMATS, PROTOCOLS, add_scale, add_scale_option, add_store_option, request_of
from analysis.store import store_arguments
from lora_repro.errors import InputError

if TYPE_CHECKING:
    from analysis.cell import Table

EXAMPLES = (
    "Of the paper: table 6 --scale demo. Of a sweep: table +sweeps=table6 --rows method.targets --columns method.r\n"
    "Without a file: table model=minilm task=movies method.r=1,2,4 seed=0,1,2"
)

OWN = ("rows", "columns", "metric")
"""Options that a table of the paper does not take."""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to the program's."""
    table = commands.add_parser(
        "table",
        help="a table of the paper beside ours: table 6 --scale demo; or of any sweep: table +sweeps=mine",
        description=f"Prints a table of the paper beside ours, or any sweep.\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    table.set_defaults(command=_table, side=None, writes={"--out": "out", "--plot": "plots"})
    table.add_argument(
        "overrides",
        nargs="*",
        metavar="N or KEY=VALUE",
        help="the table's number in the paper, and overrides of its sweep (seed=0,1,2); or a sweep: +sweeps=NAME, "
        "axes (method.r=1,2,4), or both",
    )
    table.add_argument("-m", "--multirun", action="store_true", help="accepted before a sweep, and not needed")
    table.add_argument(
        "--rows", metavar="KEYS", help="of a sweep: keys that make the rows, method.targets or several with commas"
    )
    table.add_argument("--columns", metavar="KEYS", help="of a sweep: keys that make the columns, as --rows")
    table.add_argument("--metric", metavar="NAMES", help="of a sweep: metrics of its task (default: the task's first)")
    table.add_argument(
        "--protocol", choices=PROTOCOLS, help="which score of a run (default: the table's, which it names)"
    )
    table.add_argument(
        "--again",
        metavar="DIR",
        help="of the leaderboard: a store or ledger of the same runs, for the noise of a rerun",
    )
    add_scale_option(table)
    table.add_argument("--format", choices=FORMATS, default="md", help="default: %(default)s")
    table.add_argument("--out", metavar="FILE", help="write to a file instead of stdout")
    table.add_argument(
        "--plot",
        dest="plots",
        metavar="FILE",
        action="append",
        help="draw the table to this file too, .svg, .pdf or .png; may be given several times",
    )
    add_store_option(table)


def _table(options: argparse.Namespace) -> str:
    from analysis.items import names

    numbers = [word for word in options.overrides if "=" not in word]
    options.overrides = [word for word in options.overrides if "=" in word]
    if len(numbers) > 1:
        raise InputError(
            f"table: one number is taken, and all else is KEY=VALUE (given: {' and '.join(numbers)}).\n{EXAMPLES}"
        )
    for plot in options.plots or ():
        from analysis.render.style import form_of

        form_of(plot, "--plot")
    table = _of_paper(options, numbers[0]) if numbers else _own(options)
    if isinstance(table, str):
        return table
    _plot(options, table, numbers)
    from analysis.render.printed import write
    from analysis.render.tables import printed

    return write(printed(table, names()), options.format)


def _of_paper(options: argparse.Namespace, number: str) -> "Table | str":
    """Returns the cells of a table of scores, and the text of any other."""
    from analysis.kinds.scores import ScoreTable

    for name in OWN:
        if getattr(options, name) is not None:
            raise InputError(
                f"--{name}: table {number} has its rows, columns and metric. Leave it out, or print a sweep:\n"
                f"table +sweeps=NAME --{name} {getattr(options, name)}"
            )
    item, request = request_of("table", number, options)
    if isinstance(item, ScoreTable):
        return item.read(request)
    if options.plots:
        raise InputError("--plot: only for tables of scores. Leave it out.")
    return item.text(request)


def _own(options: argparse.Namespace) -> "Table":
    from analysis.kinds.scores import report
    from analysis.protocol import Protocol
    from analysis.sweep_table import read_sweep

    add_scale(options)
    if not options.overrides:
        raise InputError(f"table: needs a number of the paper, or a sweep.\n{EXAMPLES}")
    rows, columns, metrics = (_list(getattr(options, name), name) for name in OWN)
    protocol = Protocol(options.protocol if options.protocol is not None else PROTOCOLS[0])
    table = read_sweep(options.overrides, options.runs, protocol, rows, columns, metrics)
    report(table)
    return table


def _list(given: str | None, name: str) -> list[str] | None:
    if given is None:
        return None
    words = [word.strip() for word in given.split(",")]
    if not all(words):
        raise InputError(f"--{name}: names with commas between (given: {given!r}). Example: --{name} method.r")
    return words


def _plot(options: argparse.Namespace, table: "Table", numbers: list[str]) -> None:
    """Draws the table to each file that is asked for."""
    if not options.plots:
        return
    from analysis.items import names
    from analysis.render import plots, style

    own = [word for name in OWN if getattr(options, name) is not None for word in (f"--{name}", getattr(options, name))]
    chosen = ["--scale", table.scale] if numbers and table.scale is not None else []
    chosen += ["--protocol", options.protocol] if options.protocol is not None else []
    words = [*numbers, *options.overrides, *own, *chosen, *store_arguments(options.runs)]
    runs = sorted({run.run_id for cell in table.cells for run in cell.runs if run.run_id is not None})
    about = f"Generated by: {shlex.join(['python', '-m', 'analysis', 'table', *words])}; runs: {', '.join(runs)}"
    with style.styled():
        for plot in options.plots:
            style.save(plots.draw(table, names()), plot, about, "--plot")
