"""The command `explain`: where a number of a table comes from."""

import argparse

from analysis.commands.options import PROTOCOLS, add_scale_option, add_store_option, scale_of
from lora_repro.cli import normalise
from lora_repro.errors import InputError

EXAMPLES = (
    "Examples: explain table6 targets=q,v r=8; explain leaderboard method=lora loraplus_lr_ratio=16 --format json; "
    "explain table15 method=prefix_layer --runs study.parquet"
)


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to the program's."""
    parser = commands.add_parser(
        "explain",
        help="where a cell of a table comes from: explain table6 targets=q,v r=8",
        epilog=EXAMPLES,
    )
    parser.set_defaults(command=_explain, takes_overrides=False, writes={"--out": "out"})
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="ITEM or KEY=VALUE",
        help="the item (table6, leaderboard), and settings that select cells; a key may be its last part (r=8). "
        "regime=, seed= and tune= are the sweep's",
    )
    parser.add_argument("--protocol", choices=PROTOCOLS, help="which score of a run. Default: the table's")
    add_scale_option(parser)
    parser.add_argument("--format", choices=("md", "json"), default="md", help="default: %(default)s")
    parser.add_argument("--out", metavar="FILE", help="write to a file instead of stdout")
    add_store_option(parser)


def _explain(options: argparse.Namespace) -> str:
    from analysis import explain
    from analysis.items import Request, names
    from analysis.render import explain as render

    scale = scale_of(options, "table")
    words = [word for word in options.overrides if "=" in word]
    given = [word for word in words if word.lstrip("+").partition("=")[0] in explain.OF_THE_SWEEP]
    item = explain.load(_name([word for word in options.overrides if "=" not in word]))
    if not isinstance(item, explain.OfScores):
        if words or options.format == "json":
            what = words[0] if words else "--format json"
            raise InputError(f"explain: {what}: {explain.without_cells(item)}\nLeave {what} out.")
        return explain.without_cells(item)
    request = Request(scale, options.runs, normalise(["-m", *given])[1:], options.format, options.protocol)
    explanation = explain.read(item, request, [word for word in words if word not in given])
    if options.format == "json":
        return render.to_json(explanation)
    return render.markdown(explanation, options.runs, names())


def _name(words: list[str]) -> str:
    """Returns the item's name: `table6`, or its two words."""
    if words[:1] in (["table"], ["figure"]) and len(words) == 2:
        words = ["".join(words)] if words[1][:1].isdigit() else words[1:]
    if len(words) != 1:
        given = " and ".join(words) if words else "none"
        raise InputError(f"explain: one item is explained (given: {given}).\n{EXAMPLES}")
    return words[0]
