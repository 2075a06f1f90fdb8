"""The mirroring process: `python -m lora_repro.mirror`. It only reads records, and shows them in a tracker."""

import argparse
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from lora_repro.errors import InputError
from lora_repro.mirror.tracked_run import ENDED, TrackedRun, environment, is_online, state_of
from lora_repro.store.adapter_identity import is_run

POLL_S = 2.0
"""How often the metrics of a run under way are read."""

log = logging.getLogger(__name__)


def _follow(wait_s: float) -> None:
    """Mirrors the runs that the training process names, until it closes the pipe, and for at most wait_s after that."""
    commands: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            commands.put(line.rstrip("\n"))
        commands.put(None)
        threading.Timer(wait_s, lambda: os.killpg(0, signal.SIGKILL)).start()  # the parent may have been killed

    threading.Thread(target=read, daemon=True).start()
    followed: TrackedRun | None = None
    while True:
        try:
            command = commands.get(timeout=POLL_S if followed is not None else None)
        except queue.Empty:
            command = ""
        if command is None:
            break
        event, _, name = command.partition(" ")
        try:
            if event == "begin" and is_online(Path(name)):
                followed = TrackedRun(Path(name), online=True)
            elif event == "end":
                unread, followed = _mirror(Path(name), followed), None
                if unread:
                    log.error("%s is mirrored except for %s", name, unread)
                else:
                    print(name, flush=True)
            elif followed is not None:
                followed.tail()
        except (Exception, SystemExit):
            log.exception("%s could not be mirrored", name or "a run")
            followed = None if event else followed
    os._exit(0)  # without waiting for a tracker's threads


def _mirror(folder: Path, followed: TrackedRun | None) -> str:
    """Mirrors a run that has ended, and returns what `unreadable_lines` says of it."""
    if followed is None and state_of(folder) not in ENDED:
        return ""
    mirrored = followed if followed is not None else TrackedRun(folder, is_online(folder))
    mirrored.tail()
    mirrored.end()
    return mirrored.unreadable_lines()


def _runs(given: str, store: str) -> list[Path]:
    """Returns the directories of all runs of a store, or of its runs/, or that of one run, named by itself or its id.

    Raises:
        InputError: If it is none of these.
    """
    from lora_repro.store.finished_runs import run_folder  # what follows a run needs none of it

    for folder in (Path(given, "runs"), Path(given)):
        if runs := sorted(path for path in folder.glob("*") if is_run(path)):
            return runs
    folder = run_folder(given, store, "mirror")
    if not is_run(folder):
        raise InputError(
            f"mirror: {given} is no run and holds none.\n"
            "Give a run's id or directory, or a store: python -m lora_repro.mirror outputs"
        )
    return [folder]


def _why_not(folder: Path) -> str | None:
    """Says why a run is not mirrored as it is; None if it can be."""
    if (state := state_of(folder)) not in ENDED:
        return f"it is {state}"
    if not (folder / "config.yaml").exists():
        return "it has no config.yaml and no curves here (restored from a ledger)"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Mirrors runs from their records; returns 0 if every one that was named is mirrored."""
    parser = argparse.ArgumentParser(prog="python -m lora_repro.mirror", description="Mirrors records to W&B.")
    parser.add_argument("given", nargs="*", metavar="RUN", help="ids or directories of runs, or a store (outputs)")
    parser.add_argument("--runs", default="outputs", metavar="DIR", help="where ids are looked for; default: outputs")
    parser.add_argument("--online", action="store_true", help="to the server; default: offline, for `wandb sync`")
    parser.add_argument("--project", help="default: the record's log.project")
    parser.add_argument("--follow", type=float, metavar="S", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.follow is not None:
        _follow(options.follow)
    if not options.given:
        parser.error("name run directories, or a store: python -m lora_repro.mirror outputs")
    failed = 0
    for given in options.given:
        try:
            runs = _runs(given, options.runs)
        except InputError as error:
            print(f"Error: {error}", file=sys.stderr)
            failed += 1
            continue
        for folder in (run.absolute() for run in runs):
            if (why := _why_not(folder)) is not None:
                print(f"{folder.name}: not mirrored, {why}.", file=sys.stderr)
                failed += len(runs) == 1
                continue
            try:
                os.environ.update(environment(folder.parent.parent))
                mirrored = TrackedRun(folder, options.online, options.project)
                mirrored.tail()
                mirrored.end()
                unread = mirrored.unreadable_lines()
                print(f"{folder.name}: mirrored{f' except for {unread}' if unread else ''}", file=sys.stderr)
                failed += unread != ""
            except Exception as error:  # the tracker's, of any kind
                print(f"Error: {folder.name} could not be mirrored ({type(error).__name__}: {error}).", file=sys.stderr)
                failed += 1
    return int(failed > 0)
