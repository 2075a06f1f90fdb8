"""The commands on the runs of a sweep or a store: plan, status, runs, doctor and diff."""

import argparse
import shlex
import sys
from collections import Counter

from analysis.commands.options import add_scale, add_scale_option, add_store_option
from analysis.foreign_text import paragraph
from analysis.states import PLANNED, STARTING, counts, state_label
from analysis.store import name_of
from lora_repro.errors import InputError


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands to the program's."""
    plan = commands.add_parser("plan", help="what a sweep would run: plan +sweeps=table6 scale=demo")
    plan.set_defaults(command=_plan)
    plan.add_argument("--memory", action="store_true", help="what the largest runs hold; this needs some seconds")
    status = commands.add_parser(
        "status",
        help="states of a sweep's runs, and why they failed: status +sweeps=table6; without one, of the whole store",
    )
    status.set_defaults(command=_status)
    runs = commands.add_parser("runs", help="all runs of a store: their states, their differences and their scores")
    runs.set_defaults(command=_runs, writes={"--out": "out"})
    runs.add_argument("--format", choices=("md", "json", "csv"), default="md", help="default: %(default)s")
    runs.add_argument("--out", metavar="FILE", help="write to a file instead of stdout")
    doctor = commands.add_parser("doctor", help="before a sweep: is everything there and sound? doctor +sweeps=table6")
    doctor.set_defaults(command=_doctor, reads_runs=False)
    doctor.add_argument(
        "--verbose", action="store_true", help="print for each check what it protects from, and what to do"
    )
    diff = commands.add_parser("diff", help="what differs between two runs: diff RUN RUN")
    diff.set_defaults(command=_diff)
    diff.add_argument("run", nargs=2, metavar="RUN", help="a run's id, or its directory")
    diff.add_argument("--format", choices=("md", "json"), default="md", help="default: %(default)s")
    for command in (plan, status, doctor):
        add_scale_option(command)
        what = "what is run: +sweeps=table6, or axes as in model=minilm method.r=1,2 seed=0,1"
        command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=what)
    runs.add_argument("overrides", nargs="*", help=argparse.SUPPRESS)  # paths.outputs=DIR is read, others are refused
    for command in (plan, status, doctor, diff, runs):
        add_store_option(command)


def _plan(options: argparse.Namespace) -> str:
    from analysis.budgets import memory_of, utilisation_lines
    from analysis.claims.before import power_lines
    from analysis.join import state_while_open
    from analysis.printed_counts import count_lines
    from lora_repro.config.compose import compose
    from lora_repro.errors import RunFailedError
    from lora_repro.sweep import campaign
    from lora_repro.sweep.grid import load, overrides
    from lora_repro.sweep.slurm_queue import jobs_in_queue

    add_scale(options)
    sweep = load(compose, options.overrides, options.runs)
    try:
        queued = jobs_in_queue(options.runs)
    except RunFailedError as error:
        print(f"Jobs in Slurm's queue are not shown: {error}", file=sys.stderr)
        queued = {}
    plan = campaign.plan(sweep, options.runs, queued)
    campaign.refuse_impossible(plan.to_run)
    lines = []
    held = {job.run_id for job in plan.after} | plan.stopped.keys()
    for job in sweep.to_compute:
        missing = plan.missing.get(job.run_id)
        note = f"  without {', '.join(missing)}" if missing else ""
        state = STARTING if job.run_id in held else plan.states[job.run_id].value
        lines.append(f"{state_label(state):<12} {job.run_id}{note}")
    lines += [
        f"{state_label(state_while_open(job)):<12} {' '.join(overrides(job.point))}"
        for job in (*sweep.waiting_tuning, *sweep.waiting)
    ]
    lines += [f"{state_label(PLANNED):<12} {' '.join(overrides(point))}" for point, _ in sweep.planned]
    if unreached := [note for job in sweep.reported if (note := job.resolved.run.unreached) is not None]:
        lines.append(f"Warm-up longer than the run: {len(unreached)} of {len(sweep.reported)} runs. {unreached[0]}")
    lines += utilisation_lines(sweep.reported)
    lines += count_lines(options.overrides, sweep.reported)
    lines += memory_of(sweep.reported) if options.memory else []
    known = plan.seconds is not None or not plan.to_run
    unknown = "" if known else ", time unknown: no run of this model is finished or under way here"
    lines += power_lines(options.overrides, options.runs, sweep)
    lines += [f"Tuning: {plan.of_tuning}."] if plan.of_tuning is not None else []
    if plan.to_run:
        given = shlex.join(options.overrides)
        lines.append(f"Whether data, weights and tools are here: python -m analysis doctor {given}")
    return "\n".join([*lines, f"Plan: {plan.describe()}{unknown}. Store: {name_of(options.runs)}"])


def _runs(options: argparse.Namespace) -> str:
    from analysis.listing import read_listing
    from analysis.render import listing

    if options.overrides:
        raise InputError(f"runs: lists a whole store, and takes no {options.overrides[0]}. Leave it out.")
    found = read_listing(options.runs)
    if options.format == "md":
        return listing.markdown(found, options.runs)
    return listing.to_json(found) if options.format == "json" else listing.to_csv(found)


def _status(options: argparse.Namespace) -> str:
    add_scale(options)
    if not options.overrides:
        from analysis.listing import read_listing
        from analysis.render.listing import overview

        return overview(read_listing(options.runs), options.runs)
    from analysis.join import state_while_open, why_held
    from analysis.runs import run_states
    from lora_repro.config.compose import compose
    from lora_repro.store.status import State
    from lora_repro.sweep.grid import load

    sweep = load(compose, options.overrides, options.runs)
    found = [
        (run_id, STARTING, why) if state == State.todo.value and (why := why_held(job, options.runs)) else each
        for job, each in zip(
            sweep.to_compute, run_states(options.runs, (job.run_id for job in sweep.to_compute)), strict=True
        )
        for run_id, state, _ in [each]
    ]
    open_jobs = [*sweep.waiting_tuning, *sweep.waiting]
    lines = [f"{n:>6} {state_label(state)}" for state, n in counts(state for _, state, _ in found).items()]
    whys = Counter((state_while_open(job), job.why_open) for job in open_jobs)
    lines += [f"{n:>6} {state_label(state)}: {why}" for (state, why), n in whys.items()]
    lines += [f"{len(sweep.planned):>6} planned: {sweep.why_planned}"] if sweep.planned else []
    reasons = [
        f"{state_label(state)}: {run_id}\n{paragraph(reason)}" for run_id, state, reason in found if reason is not None
    ]
    total = f"{len(found) + len(open_jobs) + len(sweep.planned):>6} runs in all. Store: {name_of(options.runs)}"
    return "\n".join([*lines, total, *reasons])


def _doctor(options: argparse.Namespace) -> str:
    from lora_repro import doctor

    add_scale(options)
    checks = []
    for check in doctor.examine(options.overrides, options.runs):
        checks.append(check)
        print(check.describe(options.verbose), flush=True)
    if any(check.verdict is doctor.Verdict.fail for check in checks):
        print(doctor.summary(checks))
        raise SystemExit(1)
    return doctor.summary(checks)


def _diff(options: argparse.Namespace) -> str:
    from analysis.diff import differences, recorded
    from analysis.render.differences import markdown, to_json, verdict

    if options.overrides:
        raise InputError(f"diff: takes two runs, and no {options.overrides[0]}. Leave it out.")
    first, second = (recorded(run, options.runs) for run in options.run)
    found = differences(first, second)
    if options.format == "md":
        return markdown(options.run, found, verdict(first, second, found))
    print(verdict(first, second, found), file=sys.stderr)
    return to_json(found)
