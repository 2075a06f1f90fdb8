"""A Slurm of one node for tests: sbatch, srun, squeue, scontrol, scancel that really run, preempt and requeue jobs.

`install` writes the executables into a folder for PATH; what they know lies as files in $FAKE_SLURM. They do what Slurm
22.05 was seen to do (tests/slurm), and there is no accounting: sacct fails.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "srun", "squeue", "scontrol", "scancel", "sacct")
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
        waiting = [task for task in waiting if _told(job, task) != "CANCELLED"]
        while waiting and len(running) < AT_ONCE:
            task = waiting.pop(0)
            running[task] = _start(job, task)
            _say(job, task, "RUNNING")
        for task, process in list(running.items()):
            if process.poll() is not None:
                del running[task]
                folder = job / "tasks" / str(task)
                (folder / "preempted").unlink(missing_ok=True)
                if (folder / "requeue").exists():
                    (folder / "requeue").unlink()
                    _say(job, task, "PENDING")
                    waiting.append(task)
                elif _told(job, task) == "COMPLETING":
                    _say(job, task, "CANCELLED")
                else:
                    _say(job, task, "COMPLETED" if process.returncode == 0 else "FAILED")
        time.sleep(0.05)


def srun(arguments: list[str]) -> None:
    """Becomes the command behind its options, and leaves word of its process."""
    first = next(i for i, argument in enumerate(arguments) if argument == sys.executable)
    (Path(os.environ["FAKE_TASK"]) / "pid").write_text(str(os.getpid()))
    os.execvp(arguments[first], arguments[first:])


def squeue(arguments: list[str]) -> None:
    """Tells the states of jobs in the form that is asked for; of a single unknown job, an error."""
    options = dict(re.findall(r"--(\w+)=?(\S*)", " ".join(arguments)))
    assert options.keys() == {"noheader", "array", "states", "format", "jobs"} and options["format"] == "%i|%T"
    names = options["jobs"].split(",")
    if not any((_state() / name).exists() for name in names) and len(names) == 1:
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    for name in names:
        for path in _state().glob(f"{name}/tasks/*"):
            suffix = "" if path.name == "-1" else f"_{path.name}"
            print(f"{name}{suffix}|{_told(path.parent.parent, int(path.name))}")


def sacct(arguments: list[str]) -> None:
    """Fails, as where there is no slurmdbd."""
    sys.exit("Slurm accounting storage is disabled")


def scontrol(arguments: list[str]) -> None:
    """Shows a task, or requeues it: it runs again when its process has ended, a cancelled one too."""
    *verb, name = arguments
    job, _, task = name.partition("_")
    path = _state() / job / "tasks" / (task or "-1")
    if verb == ["requeue"]:
        (path / "requeue").touch()
        return
    assert verb == ["show", "job"], arguments
    when = "2026-01-01T00:00:00" if (path / "preempted").exists() else "None"
    print(f"JobId={name} JobName=x\n   JobState={_told(path.parent.parent, int(path.name))} Reason=None")
    print(f"   PreemptEligibleTime=2026-01-01T00:00:00 PreemptTime={when}")


def scancel(arguments: list[str]) -> None:
    """Cancels the tasks of a job: those that run are sent SIGTERM."""
    (name,) = arguments
    for path in (_state() / name / "tasks").iterdir():
        runs = _told(path.parent.parent, int(path.name)) == "RUNNING"
        _say(path.parent.parent, int(path.name), "COMPLETING" if runs else "CANCELLED")
        if runs:
            os.kill(int((path / "pid").read_text()), signal.SIGTERM)


def preempt(state: Path, number: int = signal.SIGUSR2) -> int:
    """Sends the signal to every running task, as Slurm does to the processes of a job step; returns how many.

    With SIGTERM the tasks have a GraceTime, after which Slurm itself would requeue them.
    """
    sent = 0
    for path in state.glob("*/tasks/*/pid"):
        if (path.parent / "state").read_text() == "RUNNING":
            if number == signal.SIGTERM:
                (path.parent / "preempted").touch()
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
        "SLURM_JOB_ID": job.name if task < 0 else f"{job.name}_{task}",
        "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0",
        "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_JOB_NODELIST": "node1",
        "FAKE_TASK": str(job / "tasks" / str(task)),
    }  # fmt: skip
    with open(output, "ab") as file:
        return subprocess.Popen(["bash", str(job / "script")], env=environment, stdout=file, stderr=file)


def _told(job: Path, task: int) -> str:
    return (job / "tasks" / str(task) / "state").read_text()


def _say(job: Path, task: int, state: str) -> None:
    path = job / "tasks" / str(task) / "state"
    partial = path.with_name("state.partial")
    partial.write_text(state)
    partial.replace(path)


def _state() -> Path:
    return Path(os.environ["FAKE_SLURM"])
