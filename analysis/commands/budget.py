"""The command `budget`: what meets a parameter budget on a model."""

import argparse
import sys

from analysis.commands.options import taken
from lora_repro.errors import InputError


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to the program's."""
    budget = commands.add_parser("budget", help="what meets a budget: budget --model gpt3_175b --budget 18M")
    budget.set_defaults(command=_budget, runs=None, writes={"--out": "out"})
    budget.add_argument("--model", help="a model of conf/model; local with paths.model=DIR")
    budget.add_argument("--budget", metavar="N", help="18M, 0.35M, 0.01%% (what prints so), or a number as a bound")
    budget.add_argument("--targets", nargs="+", metavar="Q,V", help="sets of matrices (default: all of attention)")
    budget.add_argument(
        "--num-labels", type=int, metavar="N", help="of a classification head (default: a decoder has none)"
    )
    budget.add_argument("--memory", action="store_true", help="what training takes, in bytes; this needs some seconds")
    of_memory = "with --memory (default: %(default)s)"
    budget.add_argument("--batch-size", type=int, default=32, metavar="N", help=of_memory)
    budget.add_argument("--length", type=int, metavar="N", help="in tokens, with --memory (default: 128, if it may be)")
    budget.add_argument("--dtype", choices=("bf16", "fp32"), default="bf16", help=of_memory)
    budget.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help=of_memory)
    budget.add_argument("--format", choices=("md", "json"), default="md", help="default: %(default)s")
    budget.add_argument("--out", metavar="FILE", help="write to a file instead of stdout")
    budget.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="model=local paths.model=DIR model.sites.q=..."
    )


def _budget(options: argparse.Namespace) -> str:
    from analysis.budgets import model_of, offers, with_memory
    from analysis.render import budgets
    from lora_repro.models.arch.names import KEYS

    model = taken(options, "model", options.model, "--model")
    given = taken(options, "method.budget", options.budget, "--budget")
    folder = taken(options, "paths.model", None, "paths.model")
    given_sites = {key: taken(options, f"model.sites.{key}", None, f"model.sites.{key}") for key in KEYS}
    if options.overrides:
        raise InputError(f"budget: takes no {options.overrides[0]}. Leave it out (see budget --help).")
    if model is None or given is None:
        raise InputError("budget: needs a model and a budget. Example: budget --model gpt3_175b --budget 18M")
    sites = {key: str(pattern) for key, pattern in given_sites.items() if pattern is not None}
    config, arch = model_of(model, folder, options.num_labels, sites)
    if arch.reading is not None:
        print(f"{model}: {arch.reading.describe()}", file=sys.stderr)
    length = options.length if options.length is not None else min(128, arch.max_length)
    for flag, value, most in (("--batch-size", options.batch_size, None), ("--length", length, arch.max_length)):
        if value < 1 or (most is not None and value > most):
            raise InputError(f"{flag}: must be at least 1{f' and at most {most}' if most else ''} (given: {value}).")
    found, batch = offers(arch, given, [roles.split(",") for roles in options.targets or []]), None
    if options.memory:
        from lora_repro.costs.memory import Batch, Products

        batch = Batch(options.batch_size, length, Products(options.dtype), on_gpu=options.device == "gpu")
        found = with_memory(found, arch, config, batch)
    if options.format == "json":
        return budgets.to_json(found, model)
    return budgets.markdown(found, model, arch, batch)
