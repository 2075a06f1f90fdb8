"""The command `measure`: statistics of trained weights, computed once and kept as data in the store."""

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from analysis.commands.options import add_scale_option, add_store_option, directions, scale_of
from lora_repro.errors import InputError, MissingInputError

if TYPE_CHECKING:
    from analysis.section7.run_weights import RunWeights

EXAMPLES = """Examples:
  python -m analysis measure section7
  python -m analysis measure section7 --scale smoke --truncate
The numbers are kept in the store, statistics/section7-SCALE.json, and by `ledger write`."""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to the program's."""
    measure = commands.add_parser(
        "measure",
        help="measure trained weights by seed, and keep the numbers in the store: measure section7",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    measure.set_defaults(command=_measure, reads_runs=False)
    measure.add_argument("what", choices=("section7",), help="section7: what updates learn")
    measure.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of compute and paths: paths.data=DIR")
    measure.add_argument(
        "--truncate",
        action="store_true",
        help="cut updates to their first directions too and score them; took 20 minutes for the 10 runs of minilm",
    )
    measure.add_argument("--keep", metavar="LIST", help="with --truncate: directions kept (default: 0,1,2,4,8)")
    measure.add_argument("--format", choices=("md", "json"), default="md", help="default: %(default)s")
    add_scale_option(measure)
    add_store_option(measure)


def _measure(options: argparse.Namespace) -> str:
    from analysis.render import measured
    from analysis.section7.measuring import KEEP, measure, models_of, truncations
    from analysis.section7.statistics import SWEEP, Statistic, merge, read_statistics, write_statistics

    scale = scale_of(options, "measurement")
    _refuse(options)
    keep = KEEP if options.keep is None else directions(options.keep)
    try:
        statistics = read_statistics(options.runs, SWEEP, scale)
    except InputError as error:
        print(f"What was measured before is left out. {error}", file=sys.stderr)
        statistics = []
    models = models_of(scale, options.runs, options.overrides)
    run_ids = [run_id for weights in models for run_id in weights.compared.run_ids]

    def parts() -> Iterator[list[Statistic]]:
        yield from map(measure, models)
        if options.truncate:
            for weights in models:
                yield from truncations(weights, statistics, keep)

    for found in parts():
        statistics = merge(found, statistics, run_ids)
        if statistics:  # written each time: what follows takes minutes a run
            path = write_statistics(options.runs, SWEEP, scale, statistics, options.line)
            print(f"Written: {path}, {len(statistics)} numbers", file=sys.stderr)
    for weights in models:
        _report(weights)
    if not statistics:
        raise MissingInputError(
            f"measure: no run of {SWEEP} at scale={scale} has weights here, so nothing is measured."
        )
    return measured.to_json(statistics) if options.format == "json" else measured.markdown(statistics, scale)


def _refuse(options: argparse.Namespace) -> None:
    """Refuses a ledger, and other runs than the sweep's.

    Raises:
        InputError: Naming the option.
    """
    from lora_repro.store.ledger import ledgers_of

    if ledgers_of(options.runs):
        raise InputError(
            f"measure: --runs is a store with weights, a folder that holds runs/ (given: {options.runs}).\n"
            "A ledger has no weights; it keeps what was measured before."
        )
    if options.keep is not None and not options.truncate:
        raise InputError("--keep: says how updates are cut, and nothing is cut here. Give --truncate too.")
    for override in options.overrides:
        if not override.startswith(("compute.", "paths.")):
            raise InputError(
                f"{override}: what is measured is the whole sweep, so only compute.* and paths.* can be given here."
            )


def _report(weights: "RunWeights") -> None:
    """Says on stderr which runs are missing, with the command that computes them, and what else is left out."""
    compared = weights.compared
    if weights.missing:
        names = ", ".join(f"{run_id} ({why})" for run_id, why in weights.missing.items())
        print(
            f"{len(weights.missing)} of {len(compared.run_ids)} runs of {compared.run.model.name} are missing, and so "
            f"are the statistics that need them: {names}.\nCompute them: {compared.command}",
            file=sys.stderr,
        )
        from analysis.section7.run_weights import WITHOUT_WEIGHTS

        if WITHOUT_WEIGHTS in weights.missing.values():
            print("A finished run without weights is computed again with log.rebuild=true.", file=sys.stderr)
    for reason in weights.left_out:
        print(reason, file=sys.stderr)
