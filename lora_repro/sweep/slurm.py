"""Slurm's own words: how jobs stand, what a job was granted, whether it is to be requeued. No torch.

Jobs are looked up by squeue and scontrol, which every cluster has; sacct needs an accounting database.
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
"""States in which a job has left the queue (man squeue, JOB STATE CODES)."""

log = logging.getLogger(__name__)


def granted_cpus() -> int | None:
    """Returns the CPUs that Slurm has granted to this process; None outside of a job.

    Where Slurm does not bind processes to CPUs (TaskPlugin without task/affinity and task/cgroup), nothing else tells.
    """
    is_step = "SLURM_STEP_ID" in os.environ  # begun by srun; a batch script itself has the CPUs of all its tasks
    granted = os.environ.get("SLURM_CPUS_PER_TASK" if is_step else "SLURM_CPUS_ON_NODE", "")
    return int(granted) if granted.isdecimal() and int(granted) > 0 else None


def shall_requeue(warned: bool) -> bool:
    """Tells whether this job, which was asked to end, is to be requeued by itself.

    A preempted job is told by SIGTERM and has a while (GraceTime) until Slurm requeues it; one that ends before then
    has ended for good. Once it is COMPLETING, Slurm itself has decided: it was cancelled, or is in the queue again.

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
    """Returns the states of jobs (12, or in an array 12_3) by their names; of one that Slurm has forgotten, none.

    Raises:
        RunFailedError: If Slurm does not answer.
    """
    numbers = sorted({number(job) for job in jobs})
    if not numbers:
        return {}
    asked = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T", f"--jobs={','.join(numbers)}"]
    lines = _ask(asked, unless="Invalid job id").splitlines()
    return dict(line.strip().split("|", 1) for line in lines if "|" in line)


def number(job: str) -> str:
    """Returns the number that scancel takes for the whole array of a job."""
    return job.partition("_")[0]


@contextmanager
def outside_of_job() -> Iterator[None]:
    """Hides the variables of the Slurm job that this process runs in, which sbatch and srun take for options.

    Settings of the user's stay: SLURM_CONF and its kin, and SBATCH_ACCOUNT or others that no job sets.
    """
    hidden = {}
    if "SLURM_JOB_ID" in os.environ:
        prefixes = ("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_", "SBATCH_CPU_BIND", "SBATCH_MEM_BIND")
        kept = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_TIME_FORMAT")
        hidden = {
            name: os.environ.pop(name) for name in [*os.environ] if name.startswith(prefixes) and name not in kept
        }
    try:
        yield
    finally:
        os.environ.update(hidden)


def _ask(command: list[str], unless: str = "no such words") -> str:
    """Returns what a command of Slurm's prints, or nothing where its error has the words of `unless`.

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
