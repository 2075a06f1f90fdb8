"""The command `score`: what any system's generated texts are worth by the protocols of the paper's tables."""

import argparse
import sys

from lora_repro.errors import InputError

PROTOCOLS = ("e2e", "webnlg", "dart", "dart_leaderboard", "samsum", "wikisql", "any_language")
"""lora_repro.tasks.text_metrics.protocols.PROTOCOLS, spelt out so that --help imports no numpy; a test holds them."""
CATEGORIES = ("all", "seen", "unseen")
"""analysis.texts.pairs.CATEGORIES, likewise."""
SAMPLES = 3
"""How many of the worst and the best texts --samples shows."""

EXAMPLES = "Example: score e2e --predictions e2e_pred.txt --references testset_w_refs.csv --samples"


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to the program's."""
    score = commands.add_parser(
        "score", help="BLEU, METEOR, ROUGE and so on of any system's texts: score e2e", epilog=EXAMPLES
    )
    score.set_defaults(command=_score, runs=None, reads_runs=False, takes_overrides=False, writes={"--out": "out"})
    score.add_argument("protocol", choices=PROTOCOLS, help="whose metrics: docs/generated_texts.md tells them")
    score.add_argument(
        "--predictions",
        metavar="P",
        required=True,
        help="the system's texts: a text a line, CSV, TSV, JSON, or the folder of a run",
    )
    score.add_argument(
        "--references",
        metavar="R",
        required=True,
        help="the data set's file, or a folder with reference0, reference1 ...",
    )
    score.add_argument("--metrics", nargs="+", default=[], metavar="KEY", help="BLEU, NIST ... (default: all)")
    score.add_argument(
        "--categories", choices=CATEGORIES, default="all", help="webnlg: those in training or the others (default: all)"
    )
    score.add_argument(
        "--samples", nargs="?", type=int, const=SAMPLES, default=0, metavar="N",
        help=f"the N worst and best texts beside their references (default of N: {SAMPLES})",
    )  # fmt: skip
    score.add_argument("--format", choices=("md", "json"), default="md", help="default: %(default)s")
    score.add_argument("--out", metavar="FILE", help="write to a file instead of stdout")


def _score(options: argparse.Namespace) -> str:
    from pathlib import Path

    from analysis.render import texts
    from analysis.texts.pairs import paired
    from analysis.texts.predictions import read_predictions
    from analysis.texts.references import read_references
    from analysis.texts.scores import chosen, scored
    from lora_repro.tasks.text_metrics.protocols import protocol, refuse_missing_tools

    if options.overrides:
        raise InputError(f"score: takes no {options.overrides[0]}. Leave it out (see score --help).")
    if options.samples < 0:
        raise InputError(f"--samples: must be 0 or more (given: {options.samples}).")
    asked = protocol(options.protocol)
    refuse_missing_tools(chosen(asked, options.metrics))  # before anything is read
    for flag in ("predictions", "references"):
        if not getattr(options, flag):
            raise InputError(f"--{flag}: no file is given (is a variable of your shell empty?).")
    written = read_predictions(Path(options.predictions).expanduser())
    right = read_references(Path(options.references).expanduser())
    pairs = paired(written, right, options.categories, are_queries=options.protocol == "wikisql")
    for note in pairs.notes:
        print(note, file=sys.stderr)
    found = scored(asked, pairs, options.metrics, options.samples)
    return texts.to_json(found) if options.format == "json" else texts.markdown(found)
