"""Asks Slurm for the states of jobs, for the CPUs that a job was granted, and whether it is requeued. No torch.

squeue and scontrol answer, which every cluster has; sacct would need an accounting database.
"""

import logging
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from lora_repro.errors import RunFailedError

ANSWER_S = 60.0
OVER = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT",
}  # fmt: skip
"""States of jobs that have left the queue (man squeue, JOB STATE CODES)."""

log = logging.getLogger(__name__)


def granted_cpus() -> int | None:
    """Returns the CPUs that Slurm has granted to this process; None outside of a job.

    Nothing else says it where Slurm binds no processes to CPUs (TaskPlugin without task/affinity and task/cgroup).
    """
    is_step = "SLURM_STEP_ID" in os.environ  # begun by srun; a batch script itself has the CPUs of all its tasks
    granted = os.environ.get("SLURM_CPUS_PER_TASK" if is_step else "SLURM_CPUS_ON_NODE", "")
    return int(granted) if granted.isdecimal() and int(granted) > 0 else None


def shall_requeue(warned: bool) -> bool:
    """Tells whether this job, which was asked to end, must requeue itself.

    A preempted job gets SIGTERM and some time (GraceTime) until Slurm requeues it; if it ends earlier it has ended for
    good. Once its state is COMPLETING, Slurm has decided already: it was cancelled, or is in the queue again.

    Args:
        warned: Slurm has sent SIGUSR2, which it does not send to a job that is cancelled.
    """
    if "SLURM_JOB_ID" not in os.environ:
        return warned
    try:
        shown = _ask(["scontrol", "show", "job", os.environ["SLURM_JOB_ID"]])
    except RunFailedError as error:
        log.warning("%s It is %s.", error, "requeued" if warned else "not requeued")
        return warned
    state = re.search(r"\bJobState=(\w+)", shown)
    preempted = re.search(r"\bPreemptTime=(?!None|Unknown)\S", shown) is not None
    return state is not None and state[1] in ("RUNNING", "SIGNALING") and (warned or preempted)


def states(jobs: Iterable[str]) -> dict[str, str]:
    """Returns the states of jobs (12, or in an array 12_3) by their names, without those that Slurm no longer knows.

    Raises:
        RunFailedError: If Slurm does not answer.
    """
    numbers = sorted({number(job) for job in jobs})
    if not numbers:
        return {}
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T", f"--jobs={','.join(numbers)}"]
    lines = _ask(command, unless="Invalid job id").splitlines()
    return dict(line.strip().split("|", 1) for line in lines if "|" in line)


def number(job: str) -> str:
    """Returns the number that scancel takes for the whole array of a job."""
    return job.partition("_")[0]


@contextmanager
def outside_of_job() -> Iterator[None]:
    """Hides the variables of the Slurm job that this process runs in, because sbatch and srun read them as options.

    The user's own settings stay: SLURM_CONF and its like, and SBATCH_ACCOUNT and others that no job sets.
    """
    hidden = {}
    if "SLURM_JOB_ID" in os.environ:
        prefixes = ("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_", "SBATCH_CPU_BIND", "SBATCH_MEM_BIND")
        needed = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_TIME_FORMAT")
        hidden = {
            name: os.environ.pop(name) for name in [*os.environ] if name.startswith(prefixes) and name not in needed
        }
    try:
        yield
    finally:
        os.environ.update(hidden)


def _ask(command: list[str], unless: str = "no such text") -> str:
    """Returns what a command of Slurm's prints, or nothing if its error contains `unless`.

    Raises:
        RunFailedError: If it fails otherwise.
    """
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ANSWER_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunFailedError(f"Slurm does not answer ({error}).") from error
    if answer.returncode == 0:
        return answer.stdout
    if unless in answer.stderr:
        return ""
    raise RunFailedError(f"Slurm does not answer ({' '.join(command[:2])}: {answer.stderr.strip()}).")
