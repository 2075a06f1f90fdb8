"""A Slurm of one node for tests: sbatch, srun, sacct and scontrol that really run, preempt and requeue jobs.

`install` writes the four executables into a folder for PATH; what they know lies as files in $FAKE_SLURM.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "srun", "sacct", "scontrol")
AT_ONCE = 2
"""Tasks that run at a time."""


def install(folder: Path) -> dict[str, str]:
    """Writes the executables and returns the environment in which they are Slurm."""
    (folder / "bin").mkdir(parents=True)
    (folder / "state").mkdir()
    for name in COMMANDS:
        script = folder / "bin" / name
        script.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            f"import fake_slurm\nfake_slurm.{name}(sys.argv[1:])\n"
        )
        script.chmod(0o755)
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "FAKE_SLURM": str(folder / "state")}


def sbatch(arguments: list[str]) -> None:
    """Takes a script: each task of its array is a job that runs in the background."""
    script = Path(arguments[-1]).read_text()
    job = _state() / str(len(list(_state().iterdir())) + 1)
    (job / "tasks").mkdir(parents=True)
    (job / "script").write_text(script)
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script, re.MULTILINE))
    found = re.fullmatch(r"(\d+)-(\d+)%(\d+)", options["array"]) if "array" in options else None
    tasks = range(int(found[1]), int(found[2]) + 1) if found else [-1]
    for task in tasks:
        (job / "tasks" / str(task)).mkdir()
        _say(job, task, "PENDING")
    command = [sys.executable, "-c", f"import fake_slurm; fake_slurm.control({job.name!r})"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "FAKE_OUTPUT": options["output"]}
    subprocess.Popen(command, start_new_session=True, env=environment, stdout=-3, stderr=-3, stdin=-3)
    print(f"Submitted batch job {job.name}")


def control(name: str) -> None:
    """Runs a job's tasks, AT_ONCE at a time, again those that were requeued."""
    job = _state() / name
    waiting = sorted(int(path.name) for path in (job / "tasks").iterdir())
    running: dict[int, subprocess.Popen[bytes]] = {}
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            task = waiting.pop(0)
            running[task] = _start(job, task)
            _say(job, task, "RUNNING")
        for task, process in list(running.items()):
            if process.poll() is not None:
                del running[task]
                requeued = job / "tasks" / str(task) / "requeue"
                if requeued.exists():
                    requeued.unlink()
                    _say(job, task, "PENDING")
                    waiting.append(task)
                else:
                    _say(job, task, "COMPLETED" if process.returncode == 0 else "FAILED")
        time.sleep(0.05)


def srun(arguments: list[str]) -> None:
    """Becomes the command behind its options, and leaves word of its process."""
    first = next(i for i, argument in enumerate(arguments) if argument == sys.executable)
    (Path(os.environ["FAKE_TASK"]) / "pid").write_text(str(os.getpid()))
    os.execvp(arguments[first], arguments[first:])


def sacct(arguments: list[str]) -> None:
    """Tells the states of jobs as submitit asks for them."""
    print("JobID|State|NodeList")
    for name in [arguments[i + 1] for i, argument in enumerate(arguments) if argument == "-j"]:
        for path in (_state() / name / "tasks").iterdir():
            suffix = "" if path.name == "-1" else f"_{path.name}"
            print(f"{name}{suffix}|{(path / 'state').read_text()}|node1")


def scontrol(arguments: list[str]) -> None:
    """Requeues a task: it runs again when its process has ended."""
    assert arguments[0] == "requeue", arguments
    job, _, task = arguments[1].partition("_")
    (_state() / job / "tasks" / (task or "-1") / "requeue").touch()


def preempt(state: Path, number: int = signal.SIGUSR2) -> int:
    """Sends the signal to every running task, as Slurm does to the processes of a job step; returns how many."""
    sent = 0
    for path in state.glob("*/tasks/*/pid"):
        if (path.parent / "state").read_text() == "RUNNING":
            os.kill(int(path.read_text()), number)
            sent += 1
    return sent


def scripts(state: Path) -> list[str]:
    """Returns what was handed to sbatch, in order."""
    return [path.read_text() for path in sorted(state.glob("*/script"), key=lambda path: int(path.parent.name))]


def _start(job: Path, task: int) -> "subprocess.Popen[bytes]":
    output = os.environ["FAKE_OUTPUT"].replace("%A", job.name).replace("%a", str(task)).replace("%j", job.name)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    array = {} if task < 0 else {"SLURM_ARRAY_JOB_ID": job.name, "SLURM_ARRAY_TASK_ID": str(task)}
    environment = os.environ | array | {
        "SLURM_JOB_ID": job.name, "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0",
        "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_JOB_NODELIST": "node1",
        "FAKE_TASK": str(job / "tasks" / str(task)),
    }  # fmt: skip
    with open(output, "ab") as file:
        return subprocess.Popen(["bash", str(job / "script")], env=environment, stdout=file, stderr=file)


def _say(job: Path, task: int, state: str) -> None:
    path = job / "tasks" / str(task) / "state"
    partial = path.with_name("state.partial")
    partial.write_text(state)
    partial.replace(path)


def _state() -> Path:
    return Path(os.environ["FAKE_SLURM"])
