"""The command `claims`: what holds of the paper, with the evidence."""

import argparse

from analysis.commands.options import FORMATS, add_scale_option, add_store_option, scale_named
from lora_repro.errors import InputError, did_you_mean


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to the program's."""
    claims = commands.add_parser(
        "claims", help="the claims of the paper and what our runs say of each: claims, or claims rank_one for all of it"
    )
    claims.set_defaults(command=_claims, writes={"--out": "out"})
    claims.add_argument(
        "overrides", nargs="*", metavar="CLAIM", help="show only these claims, in full (default: a table of all)"
    )
    claims.add_argument("--full", action="store_true", help="a paragraph on each claim below the table")
    add_scale_option(claims)
    claims.add_argument("--format", choices=FORMATS, default="md", help="default: %(default)s")
    claims.add_argument("--out", metavar="FILE", help="write to a file instead of stdout")
    add_store_option(claims)


def _claims(options: argparse.Namespace) -> str:
    from analysis.claims.declared import load_claims
    from analysis.claims.judge import judge
    from analysis.items import names
    from analysis.render.claims import printed_claims
    from analysis.render.printed import write

    scale = scale_named(options)
    declared = load_claims()
    known = [claim.id for claim in declared.claims]
    for name in options.overrides:
        if name not in known:
            raise InputError(
                f"claims: there is no claim {name!r}.{did_you_mean(name, known)}\nClaims: {', '.join(known)}."
            )
    chosen = frozenset(options.overrides) or None
    found = judge(declared, str(options.runs), scale, chosen)
    return write(printed_claims(found, names(), in_full=options.full or chosen is not None), options.format)
