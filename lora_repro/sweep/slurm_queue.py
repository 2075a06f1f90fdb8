"""Submits a sweep's jobs to Slurm as one array, notes them in the store, and waits for them. No torch."""

import json
import logging
import pickle
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus

from lora_repro import interrupt
from lora_repro.errors import InputError, RunFailedError
from lora_repro.store import files
from lora_repro.store.lock import exclusive
from lora_repro.store.reading import read_json
from lora_repro.store.result import read_result
from lora_repro.sweep import slurm
from lora_repro.sweep.watch import failed

EARLY_S = 60
"""Slurm may send the signal of --signal this much earlier than asked (man sbatch)."""
POLL_S = 1.0
ASK_EVERY_S = 30.0
LATE_S = 15.0
"""A job's last file may reach this machine this long after the job has left the queue."""

log = logging.getLogger(__name__)


@runtime_checkable
class JobFunction(Protocol):
    """Hydra's launcher for Slurm: each job calls it with the overrides of its run."""

    params: dict[str, Any]
    """hydra.launcher."""

    def __call__(
        self,
        sweep_overrides: list[str],
        job_dir_key: str,
        job_num: int,
        job_id: str,
        singleton_state: dict[type, Singleton],
    ) -> JobReturn:
        """Runs a job on its node."""
        ...


class Task(NamedTuple):
    """The job of a run."""

    job: str
    """Slurm's name for it: 12, or in an array 12_3."""
    folder: str
    """Where submitit writes the job's result (hydra.launcher.submitit_folder)."""


class Queue:
    """Slurm's queue, as far as it holds the jobs of a store.

    Args:
        launcher: Hydra's.

    Raises:
        InputError: If a job would be warned of its time limit before it could begin to compute.
    """

    def __init__(self, launcher: JobFunction) -> None:
        self._launcher = launcher
        limit_s, warned_s = launcher.params["timeout_min"] * 60, launcher.params["signal_delay_s"]
        if 0 < limit_s <= warned_s + EARLY_S:
            raise InputError(
                f"hydra.launcher.signal_delay_s={warned_s}: with hydra.launcher.timeout_min={limit_s // 60} a job\n"
                f"would be asked to end as it begins (Slurm may ask {EARLY_S} s early), and be requeued for ever.\n"
                f"Give more time: hydra.launcher.timeout_min={(warned_s + EARLY_S) // 60 + 10}, or a shorter delay."
            )

    def compute(self, lines: Mapping[str, Sequence[str]], outputs: str, initial: int) -> list[JobReturn]:
        """Submits the runs that are not in the queue yet, as one array; waits for all and returns how each ended.

        Args:
            lines: The overrides of each run, by its id.
            outputs: The store.
            initial: How many jobs there were before these.

        Raises:
            RunFailedError: If Slurm does not answer, or takes no jobs.
            KeyboardInterrupt: If this process was asked to end; the jobs stay in the queue.
        """
        tasks: dict[str, Task] = {}
        try:
            with _locked(outputs):
                tasks |= {name: task for name, task in jobs_in_queue(outputs).items() if name in lines}
                if tasks:
                    log.info("In Slurm's queue already: %d runs (job %s).", len(tasks), _numbers(tasks.values()))
                if new := {name: line for name, line in lines.items() if name not in tasks}:
                    submitted = self._submit(new, outputs, initial)
                    tasks |= submitted
                    log.info("Submitted to Slurm: %d runs (job %s).", len(submitted), _numbers(submitted.values()))
            if interrupt.requested():
                raise KeyboardInterrupt
            ended = _wait(tasks, outputs)
        except KeyboardInterrupt:
            if tasks:
                log.warning("The jobs stay in Slurm's queue; scancel %s ends them.", _numbers(tasks.values()))
            raise
        return [ended[name] for name in lines]

    def _submit(self, lines: Mapping[str, Sequence[str]], outputs: str, initial: int) -> dict[str, Task]:
        import submitit
        from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

        own = {"submitit_folder", "max_num_timeout"}
        params = self._launcher.params
        executor = submitit.AutoExecutor(
            folder=params["submitit_folder"], cluster="slurm", slurm_max_num_timeout=params["max_num_timeout"]
        )
        shared = BaseQueueConf.__dataclass_fields__
        executor.update_parameters(
            **{key if key in shared else f"slurm_{key}": value for key, value in params.items() if key not in own}
        )
        if (cpus := params.get("cpus_per_task")) is not None:  # Slurm 22.05 to 23.02 do not hand it to srun
            executor.update_parameters(slurm_srun_args=[f"--cpus-per-task={cpus}"])
        numbers = range(initial, initial + len(lines))
        calls = [
            (list(line), "hydra.sweep.dir", number, f"job_id_for_{number}", Singleton.get_state())
            for number, line in zip(numbers, lines.values(), strict=True)
        ]
        folder = str(Path(params["submitit_folder"]).absolute())
        try:
            with interrupt.deferred(), slurm.outside_of_job():  # no signal between the submission and its note
                jobs = executor.map_array(self._launcher, *zip(*calls, strict=True))
                tasks = {name: Task(job.job_id, folder) for name, job in zip(lines, jobs, strict=True)}
                _note(tasks, outputs)
        except Exception as error:  # of any kind: submitit's, Slurm's
            if interrupt.requested():  # Ctrl-C has ended sbatch too
                raise KeyboardInterrupt from None
            raise RunFailedError(f"Slurm takes no jobs: {error}{_remedy(str(error), len(lines))}") from error
        return tasks


def jobs_in_queue(outputs: str) -> dict[str, Task]:
    """Returns the jobs of a store that are in Slurm's queue, by run id; the notes of finished arrays are removed.

    Raises:
        RunFailedError: If Slurm does not answer.
    """
    arrays = {path: _read_note(path) for path in sorted(_notes(outputs).glob("*.json"))}
    states = slurm.states(task.job for tasks in arrays.values() for task in tasks.values())
    found: dict[str, Task] = {}
    for path, tasks in arrays.items():
        there = {name: task for name, task in tasks.items() if states.get(task.job, "COMPLETED") not in slurm.OVER}
        found |= there
        if tasks and not there:
            files.remove(path)
    return found


def _wait(tasks: Mapping[str, Task], outputs: str) -> dict[str, JobReturn]:
    """Waits until every job has written its result, or has left the queue without one."""
    ended: dict[str, JobReturn] = {}
    left: dict[str, tuple[float, str]] = {}
    """When jobs were first seen to be out of the queue, and their last state."""
    began = last = time.monotonic()
    while True:
        for name, task in tasks.items():
            if name not in ended and (returned := _returned(name, task, outputs, left.get(name))) is not None:
                ended[name] = returned
        if len(ended) == len(tasks):
            return ended
        time.sleep(POLL_S)
        now = time.monotonic()
        if now - last > min(ASK_EVERY_S, (now - began) / 4):
            last = now
            waiting = {name: task for name, task in tasks.items() if name not in ended}
            try:
                states = slurm.states(task.job for task in waiting.values())
            except RunFailedError as error:
                log.warning("%s Waiting goes on.", error)
                continue
            seen = {name: states.get(task.job, "gone") for name, task in waiting.items()}
            left = {
                name: (left[name][0] if name in left else now, state)
                for name, state in seen.items()
                if state in slurm.OVER or state == "gone"
            }


def _returned(name: str, task: Task, outputs: str, left: tuple[float, str] | None) -> JobReturn | None:
    """Returns how a job ended; None where it has not, or where its result may still be on its way.

    Args:
        name: The run's id.
        task: The job.
        outputs: The store.
        left: When it was first seen to be out of the queue, and its last state.
    """
    from submitit.core.utils import JobPaths

    paths = JobPaths(task.folder, job_id=task.job)
    if paths.result_pickle.exists():
        outcome, value = pickle.loads(paths.result_pickle.read_bytes())
        if outcome == "success":
            return value
        return _failed(f"{name}: its job {task.job} says: {str(value).strip().splitlines()[-1]}")
    if left is None:
        return None
    since, state = left
    if read_result(Path(outputs) / "runs" / name).result is not None:
        done = JobReturn()
        done.status = JobStatus.COMPLETED
        return done
    if state in ("CANCELLED", "PREEMPTED"):
        return _failed(f"{name}: its job {task.job} was {state.lower()}; the same command submits it again.")
    if time.monotonic() - since < LATE_S:
        return None
    return _failed(f"{name}: its job {task.job} ended without a result (Slurm says: {state}). See {paths.stdout}")


def _remedy(error: str, jobs: int) -> str:
    """Says what helps where Slurm refuses an array for its size; nothing of other errors."""
    if "Invalid job array" not in error:
        return ""
    return (
        f"\nThe array has {jobs} jobs, perhaps more than this cluster takes (scontrol show config: MaxArraySize).\n"
        "Compute the sweep in parts, one command after the other, as in seed=0,1 and then seed=2,3."
    )


def _failed(reason: str) -> JobReturn:
    return failed(RunFailedError(reason))


@contextmanager
def _locked(outputs: str) -> Iterator[None]:
    """Lets one process at a time read the queue and submit to it, where the file system has locks."""
    _notes(outputs).mkdir(parents=True, exist_ok=True)
    with exclusive(_notes(outputs) / "queue"):
        yield


def _notes(outputs: str) -> Path:
    return Path(outputs) / ".slurm"


def _note(tasks: Mapping[str, Task], outputs: str) -> None:
    path = _notes(outputs) / f"{_numbers(tasks.values())}.json"
    files.write_atomically(path, json.dumps(tasks, indent=1) + "\n")


def _read_note(path: Path) -> dict[str, Task]:
    """Reads the note of an array; an empty one if another process has just removed it."""
    try:
        return {name: Task(str(job), str(folder)) for name, (job, folder) in read_json(path).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("%s cannot be read (%s): jobs that it names may be submitted again.", path, error)
        return {}


def _numbers(tasks: Iterable[Task]) -> str:
    return " ".join(sorted({slurm.number(task.job) for task in tasks}))
