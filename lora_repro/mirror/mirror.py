"""Mirrors records to a tracker, W&B by default, in a process of its own that only reads the record.

The training process writes a line a run into a pipe that never blocks, and waits at its own end for CLOSE_WAIT_S at
most. So a tracker without key or network, one that hangs, fails or floods costs no run anything: the record is whole,
and `python -m lora_repro.mirror RUN_DIR` mirrors it at any time. A run's id is its id there too, and offline it has one
folder, so that a later `wandb sync` makes no duplicates.
"""

import argparse
import atexit
import importlib
import logging
import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from lora_repro.config.identity import run_name
from lora_repro.config.settings import Mirror, Settings, Tracker
from lora_repro.store.digests import as_written
from lora_repro.store.reading import is_number, read_bytes, read_lines
from lora_repro.store.result import read_result
from lora_repro.store.status import State, read_status

CLOSE_WAIT_S = 20.0
POLL_S = 2.0
ENDED = {State.finished.value, State.diverged.value, State.failed.value}
"""States in which a run is mirrored offline; an interrupted one goes on, and is mirrored when it has ended."""

log = logging.getLogger(__name__)


def _lacking(tracker: str) -> str:
    """Says that a tracker's package is not installed, and what to do; nothing if it is."""
    return "" if find_spec(tracker) is not None else f"{tracker} is not installed. Install it: pip install {tracker}"


# In the training process


class _Helper:
    """The mirroring process, as the training process sees it."""

    def __init__(self, outputs: Path, tracker: str) -> None:
        self.tracker = tracker
        self.begun: set[str] = set()
        self.open: set[str] = set()
        """Folders of ended runs that are not confirmed to be mirrored."""
        folder = outputs / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        self.words = folder / "mirror.log"
        with self.words.open("ab") as words:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lora_repro.mirror", "--follow", str(CLOSE_WAIT_S)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                start_new_session=True,  # Ctrl-C is not for it: it ends when its pipe is closed
                env=_environment(outputs),
            )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.commands, self.answers = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self.commands, False)
        os.set_blocking(self.answers, False)

    def send(self, event: str, folder: str) -> None:
        """Writes a command, if there is room for it at once."""
        with suppress(OSError):  # full or broken: the folder stays unconfirmed
            os.write(self.commands, f"{event} {folder}\n".encode())

    def hear(self) -> None:
        """Reads which folders are mirrored."""
        with suppress(OSError):
            while answer := os.read(self.answers, 65536):
                self.open -= set(answer.decode().splitlines())

    def close(self) -> None:
        """Waits a while for what is left, then ends the process and says what is not mirrored."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(CLOSE_WAIT_S)
        with suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.hear()
        self.process.stdout.close()
        if self.open:
            one = len(self.open) == 1
            log.warning(
                "%s whole, but not mirrored (%s).\nMirror %s: python -m lora_repro.mirror %s",
                "1 run is" if one else f"{len(self.open)} runs are", _lacking(self.tracker) or f"see {self.words}",
                "it" if one else "them", shlex.join(sorted(self.open)),
            )  # fmt: skip


_helper: _Helper | None = None


def begin(folder: Path, settings: Settings) -> None:
    """Says that a run has begun; it is followed from now on where `log.wandb=online` asks for it."""
    global _helper
    if settings.log.wandb is Mirror.off:
        return
    try:
        if _helper is None:
            _helper = _Helper(Path(settings.paths.outputs).absolute(), settings.log.tracker.value)
            atexit.register(close)
        _helper.begun.add(str(folder.absolute()))
        _helper.send("begin", str(folder.absolute()))
    except OSError as error:
        log.warning("The tracker's process cannot be started (%s); the run goes on.", error)


def end(folder: Path, settings: Settings) -> None:
    """Says that a run has ended, however; of one that `begin` was not told of, nothing."""
    name = str(folder.absolute())
    if _helper is None or name not in _helper.begun:
        return
    _helper.begun.discard(name)
    if _state(folder) in ENDED:
        _helper.open.add(name)
    _helper.send("end", name)
    _helper.hear()


def close() -> None:
    """Ends the mirroring, within CLOSE_WAIT_S; is called when the process ends."""
    global _helper
    helper, _helper = _helper, None
    if helper is not None:
        helper.close()


def _environment(outputs: Path) -> dict[str, str]:
    """Returns an environment in which W&B is silent and keeps to the store."""
    data = str(outputs / "wandb")
    own = {"WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "WANDB_DATA_DIR": data, "WANDB_CACHE_DIR": f"{data}/cache"}
    here = str(Path(__file__).resolve().parents[2])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    theirs = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}  # a notebook's own W&B
    return theirs | own | {"PYTHONPATH": os.pathsep.join(paths[::-1])}


# In the mirroring process


class _Mirrored:
    """A run in the tracker, made from its record."""

    def __init__(self, folder: Path, online: bool, project: str | None = None) -> None:
        config = yaml.safe_load(read_bytes(folder / "config.yaml"))
        run, about = config["run"], config["circumstances"]
        names = [run[part]["name"] for part in ("model", "task", "method")]
        scale = about["scale"]["name"]
        self.folder, self.name, self.told = folder, run_name(folder), set[tuple[int, bool]]()
        self.broken: list[int] = []
        """Lines of metrics.jsonl that could not be read at the last look."""
        outputs = folder.parent.parent
        name, group = about["log"].get("name"), about["log"].get("group")
        of_sweep = f"{about['sweep']['name']}-{scale}" if about["sweep"] else None
        described: dict[str, Any] = {
            "project": project if project is not None else about["log"]["project"],
            "group": group if group is not None else of_sweep,
            "config": run,
        }
        self.is_wandb = about["log"]["tracker"] == Tracker.wandb.value
        if lacking := _lacking(about["log"]["tracker"]):
            raise ModuleNotFoundError(lacking)
        if not self.is_wandb:  # a tracker of this machine: no ids beside names, modes, job types, tags or artifacts
            tracker = importlib.import_module("trackio")
            with suppress(ValueError):  # there is no such project yet
                for old in list(tracker.Api().runs(described["project"])):
                    if old.name == self.name:  # rows would be added to it, and the record's lines stand there twice
                        old.delete()
            self.run: Any = tracker.init(**described, name=self.name, resume="never")
            return
        self.began = self._began()
        for old in [] if online else (outputs / "wandb").glob(f"offline-run-*-{self.name}"):
            shutil.rmtree(old)
        import wandb

        settings = wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, disable_job_creation=True,
            x_disable_meta=True, x_disable_stats=True, x_save_requirements=False,
        )  # fmt: skip
        self.run = wandb.init(
            **described, id=self.name, name=name if name is not None else self.name, job_type=names[2],
            tags=[*names, scale], dir=outputs, settings=settings,
            mode="online" if online else "offline", resume="allow" if online else None,
        )  # fmt: skip

    def tail(self) -> None:
        """Logs the lines of metrics.jsonl that are new, each at its own step, whatever was rewritten in between.

        Each has the seconds of training behind it, so that curves can be drawn over time whenever they are mirrored.
        """
        for line in self._lines():
            key = (line["step"], "loss" in line)
            if key not in self.told:
                self.told.add(key)
                clock = {"_timestamp": self.began + line["wall_time_s"]} if self.is_wandb else {}
                self.run.log({name: value for name, value in line.items() if name != "step"} | clock, step=line["step"])

    def _lines(self) -> list[dict[str, Any]]:
        """Reads metrics.jsonl; a line of scores took place when the last step before it had been made.

        The last line may be half-written, at the next look it is whole.
        """
        rows, self.broken = read_lines(self.folder / "metrics.jsonl")
        lines: list[dict[str, Any]] = []
        seconds = 0.0
        for row in rows:
            seconds = row["wall_time_s"] if is_number(row.get("wall_time_s")) else seconds
            lines.append(row | {"wall_time_s": seconds})
        return lines

    def _began(self) -> float:
        """Returns when the run would have begun without its interruptions, by the clock: W&B draws curves over that."""
        lines, status = self._lines(), read_status(self.folder)
        spent = lines[-1]["wall_time_s"] if lines else 0.0
        ended = status["updated"] if status.get("state") in ENDED and "updated" in status else time.time()
        return ended - spent

    def lacks(self) -> str:
        """Says what of the record could not be mirrored; nothing if all of it is."""
        if not self.broken:
            return ""
        lines = f"{'line' if len(self.broken) == 1 else 'lines'} {', '.join(map(str, self.broken[:5]))}"
        more = f" and {len(self.broken) - 5} more" if len(self.broken) > 5 else ""
        return f"{lines}{more} of {self.folder / 'metrics.jsonl'}, which cannot be read"

    def end(self) -> None:
        """Adds the summary and the adapter, and finishes the run."""
        result, state = read_result(self.folder).result, _state(self.folder)
        if not self.is_wandb:
            self.run.finish()
            return
        self.run.summary["state"] = state
        if result is not None:
            self.run.summary.update(result["metrics"])
            counts = {f"params.{key}": result["params"][key] for key in ("method", "head", "trainable", "total")}
            self.run.summary.update(counts)
            seconds = {key: result[key] for key in ("run_seconds", "train_seconds") if key in result}
            self.run.summary.update(seconds)  # W&B's own runtime is that of the mirroring
            self._add_adapter()
        self.run.finish(exit_code=0 if state == State.finished.value else 1)

    def _add_adapter(self) -> None:
        import wandb

        kept = [path for path in (self.folder / "adapter", self.folder / "trained.safetensors") if path.exists()]
        if kept:
            artifact = wandb.Artifact(self.name, type="adapter")
            for path in kept:
                for file in path.iterdir() if path.is_dir() else (path,):
                    as_written(file)
                artifact.add_dir(str(path)) if path.is_dir() else artifact.add_file(str(path))
            self.run.log_artifact(artifact)


def _state(folder: Path) -> str:
    if read_result(folder).result is not None:
        return State.finished.value
    return read_status(folder).get("state", State.todo.value)


def _follow(wait_s: float) -> None:
    """Mirrors what the training process tells of, until it closes the pipe, and wait_s longer at most."""
    commands: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            commands.put(line.rstrip("\n"))
        commands.put(None)
        threading.Timer(wait_s, lambda: os.killpg(0, signal.SIGKILL)).start()  # also when the parent was killed

    threading.Thread(target=read, daemon=True).start()
    followed: _Mirrored | None = None
    while True:
        try:
            command = commands.get(timeout=POLL_S if followed is not None else None)
        except queue.Empty:
            command = ""
        if command is None:
            break
        event, _, name = command.partition(" ")
        try:
            if event == "begin" and _is_online(Path(name)):
                followed = _Mirrored(Path(name), online=True)
            elif event == "end":
                lacks, followed = _mirror(Path(name), followed), None
                if lacks:
                    log.error("%s is mirrored but for %s", name, lacks)
                else:
                    print(name, flush=True)
            elif followed is not None:
                followed.tail()
        except (Exception, SystemExit):
            log.exception("%s could not be mirrored", name or "a run")
            followed = None if event else followed
    os._exit(0)  # threads of a tracker's keep nobody waiting


def _mirror(folder: Path, followed: _Mirrored | None) -> str:
    """Mirrors a run that has ended, and says what could not be mirrored of it."""
    if followed is None and _state(folder) not in ENDED:
        return ""
    mirrored = followed if followed is not None else _Mirrored(folder, _is_online(folder))
    mirrored.tail()
    mirrored.end()
    return mirrored.lacks()


def _is_online(folder: Path) -> bool:
    log_settings = yaml.safe_load(read_bytes(folder / "config.yaml"))["circumstances"]["log"]
    return log_settings["wandb"] == Mirror.online.value


def main(arguments: Sequence[str] | None = None) -> int:
    """Mirrors runs again from their records; returns 0 when all that were named are mirrored."""
    parser = argparse.ArgumentParser(prog="python -m lora_repro.mirror", description="Mirrors records to W&B.")
    parser.add_argument("folders", nargs="*", type=Path, metavar="DIR", help="run directories, or a store (outputs)")
    parser.add_argument("--online", action="store_true", help="to the server; default: offline, for `wandb sync`")
    parser.add_argument("--project", help="default: the record's log.project")
    parser.add_argument("--follow", type=float, metavar="S", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.follow is not None:
        _follow(options.follow)
    if not options.folders:
        parser.error("name run directories, or a store: python -m lora_repro.mirror outputs")
    failed = 0
    for given in options.folders:
        runs = sorted(path.parent for path in given.glob("runs/*/config.yaml")) or [given]
        for folder in (run.absolute() for run in runs):
            if _state(folder) not in ENDED:
                print(f"{folder.name}: not mirrored, it is {_state(folder)}.", file=sys.stderr)
                failed += len(runs) == 1
                continue
            try:
                os.environ.update(_environment(folder.parent.parent))
                mirrored = _Mirrored(folder, options.online, options.project)
                mirrored.tail()
                mirrored.end()
                lacks = mirrored.lacks()
                print(f"{folder.name}: mirrored{f' but for {lacks}' if lacks else ''}", file=sys.stderr)
                failed += lacks != ""
            except Exception as error:  # the tracker's, of any kind
                print(f"Error: {folder.name} could not be mirrored ({type(error).__name__}: {error}).", file=sys.stderr)
                failed += 1
    return int(failed > 0)
