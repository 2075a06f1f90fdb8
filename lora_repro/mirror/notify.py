"""The training process's side of mirroring: it starts the mirroring process and says when a run begins and ends.

It writes a line a run into a pipe that never blocks, and waits for CLOSE_WAIT_S at most when it ends. So a tracker that
has no key or network, hangs, fails or floods its output costs no run anything: the record is whole, and
`python -m lora_repro.mirror RUN_DIR` mirrors it at any time.
"""

import atexit
import logging
import os
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from lora_repro.config.settings import Mirror, Settings
from lora_repro.mirror.tracked_run import ENDED, environment, not_installed, state_of

CLOSE_WAIT_S = 20.0
"""How long the training process waits at its end for runs that are not mirrored yet."""

log = logging.getLogger(__name__)


class _MirroringProcess:
    """The mirroring process, started by the training process."""

    def __init__(self, outputs: Path, tracker: str) -> None:
        self.tracker = tracker
        self.begun: set[str] = set()
        self.open: set[str] = set()
        """Folders of runs that have ended and are not yet reported as mirrored."""
        folder = outputs / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        self.log_file = folder / "mirror.log"
        with self.log_file.open("ab") as log_file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lora_repro.mirror", "--follow", str(CLOSE_WAIT_S)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                start_new_session=True,  # Ctrl-C does not reach it: it ends when its pipe is closed
                env=environment(outputs),
            )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.commands, self.answers = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self.commands, False)
        os.set_blocking(self.answers, False)

    def send(self, event: str, folder: str) -> None:
        """Writes a command, unless the pipe is full or broken: the folder then stays among the open ones."""
        with suppress(OSError):
            os.write(self.commands, f"{event} {folder}\n".encode())

    def read_answers(self) -> None:
        """Reads which folders the process has mirrored."""
        with suppress(OSError):
            while answer := os.read(self.answers, 65536):
                self.open -= set(answer.decode().splitlines())

    def close(self) -> None:
        """Waits up to CLOSE_WAIT_S for the open runs, ends the process and warns of each run that is not mirrored."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(CLOSE_WAIT_S)
        with suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.read_answers()
        self.process.stdout.close()
        if self.open:
            one = len(self.open) == 1
            log.warning(
                "%s recorded completely, but not mirrored (%s).\nMirror %s: python -m lora_repro.mirror %s",
                "1 run is" if one else f"{len(self.open)} runs are",
                not_installed(self.tracker) or f"see {self.log_file}",
                "it" if one else "them", shlex.join(sorted(self.open)),
            )  # fmt: skip


_process: _MirroringProcess | None = None


def begin(folder: Path, settings: Settings) -> None:
    """Says that a run has begun. With `log.wandb=online` it is mirrored while it trains."""
    global _process
    if settings.log.wandb is Mirror.off:
        return
    try:
        if _process is None:
            _process = _MirroringProcess(Path(settings.paths.outputs).absolute(), settings.log.tracker.value)
            atexit.register(close)
        _process.begun.add(str(folder.absolute()))
        _process.send("begin", str(folder.absolute()))
    except OSError as error:
        log.warning("The mirroring process cannot be started (%s); the run goes on.", error)


def end(folder: Path, settings: Settings) -> None:
    """Says that a run has ended, in whatever state. Does nothing for a run that `begin` was not called for."""
    name = str(folder.absolute())
    if _process is None or name not in _process.begun:
        return
    _process.begun.discard(name)
    if state_of(folder) in ENDED:
        _process.open.add(name)
    _process.send("end", name)
    _process.read_answers()


def close() -> None:
    """Ends the mirroring within CLOSE_WAIT_S. Runs when the training process ends."""
    global _process
    process, _process = _process, None
    if process is not None:
        process.close()
