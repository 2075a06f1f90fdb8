"""What Slurm is asked, what of its answers decides, and what a job may use of its node."""

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import joblib
import pytest
from hydra.core.utils import JobReturn

from lora_repro import machine as workers
from lora_repro.errors import InputError, RunFailedError
from lora_repro.sweep import slurm, slurm_queue

SHOWN = """JobId=12 JobName=lora_repro
   JobState={} Reason=None Dependency=(null)
   PreemptEligibleTime=2026-01-01T00:00:00 PreemptTime={}
"""


def answers(monkeypatch: pytest.MonkeyPatch, folder: Path, command: str, text: str) -> None:
    """Puts a command in PATH that prints the text; one that begins with `error:` fails with it."""
    script = folder / command
    where, code = (" >&2", 1) if text.startswith("error:") else ("", 0)
    script.write_text(f"#!/bin/sh\ncat{where} <<'END'\n{text}\nEND\nexit {code}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("state", "preempted", "warned", "requeues"),
    [
        ("SIGNALING", "2026-01-01T00:00:00", False, True),  # preempted, and its GraceTime runs
        ("RUNNING", "2026-01-01T00:00:00", False, True),
        ("COMPLETING", "2026-01-01T00:00:00", False, False),  # cancelled while its GraceTime ran
        ("COMPLETING", "None", False, False),  # cancelled, or preempted without a GraceTime: requeued by Slurm
        ("RUNNING", "None", False, False),  # kill of its process, by hand
        ("RUNNING", "None", True, True),  # its time limit is near
        ("COMPLETING", "None", True, False),  # warned of its time limit, then cancelled
        ("RUNNING", "Unknown", False, False),
    ],
)
def test_a_job_is_requeued_while_slurm_runs_it_and_only_if_it_was_preempted_or_warned(
    state: str, preempted: str, warned: bool, requeues: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    answers(monkeypatch, tmp_path, "scontrol", SHOWN.format(state, preempted))
    assert slurm.shall_requeue(warned) is requeues


@pytest.mark.parametrize("warned", [True, False])
def test_a_job_of_which_slurm_does_not_tell_is_requeued_if_it_was_warned(
    warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    answers(monkeypatch, tmp_path, "scontrol", "error: Unable to contact slurm controller")
    assert slurm.shall_requeue(warned) is warned


def test_states_are_told_by_job_and_a_forgotten_job_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, tmp_path, "squeue", "12_0|RUNNING\n12_10|PENDING\n13|CANCELLED")
    assert slurm.states(["12_0", "12_1", "12_10", "13"]) == {"12_0": "RUNNING", "12_10": "PENDING", "13": "CANCELLED"}
    answers(monkeypatch, tmp_path, "squeue", "error: slurm_load_jobs error: Invalid job id specified")
    assert slurm.states(["12_0"]) == {} == slurm.states([])
    answers(monkeypatch, tmp_path, "squeue", "error: Unable to contact slurm controller (connect failure)")
    with pytest.raises(RunFailedError, match=r"Slurm does not answer .squeue --noheader: error: Unable to contact"):
        slurm.states(["12_0"])


def test_a_job_submitted_from_within_a_job_inherits_nothing_of_it_but_the_users_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    users = {"SLURM_CONF": "/etc/slurm/x.conf", "SBATCH_ACCOUNT": "mine", "HOME": "/home/me"}
    jobs = {"SLURM_JOB_ID": "12", "SLURM_MEM_PER_NODE": "100", "SRUN_CPUS_PER_TASK": "2", "SBATCH_CPU_BIND": "none"}
    for name, value in (users | jobs).items():
        monkeypatch.setenv(name, value)
    with slurm.outside_of_job():
        assert not jobs.keys() & os.environ.keys() and users.items() <= os.environ.items()
    assert (users | jobs).items() <= os.environ.items()


class Launcher:
    """Hydra's, which each job would call."""

    def __init__(self, **params: Any) -> None:
        self.params = {"signal_delay_s": 120, "timeout_min": 240} | params

    def __call__(
        self, sweep_overrides: Any, job_dir_key: str, job_num: int, job_id: str, singleton_state: Any
    ) -> JobReturn:
        raise AssertionError(sweep_overrides)


class Cluster:
    """A queue that is what a test writes into it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "bin").mkdir()
        self.folder, self.patch, self.store = folder, monkeypatch, str(folder / "store")
        answers(monkeypatch, folder / "bin", "srun", "")
        answers(monkeypatch, folder / "bin", "sacct", "error: Slurm accounting storage is disabled")
        for name, does in {
            "sbatch": f"cat $1 >> {folder}/scripts; echo >> {folder}/calls; "
            f"echo Submitted batch job $(wc -l < {folder}/calls)",
            "squeue": f"cat {folder}/queue",
        }.items():
            (folder / "bin" / name).write_text(f"#!/bin/sh\n{does}\n")
            (folder / "bin" / name).chmod(0o755)
        monkeypatch.setattr(slurm_queue, "POLL_S", 0.0)
        monkeypatch.setattr(slurm_queue, "ASK_EVERY_S", 0.0)
        monkeypatch.setattr(slurm_queue, "LATE_S", 0.0)

    @property
    def submissions(self) -> int:
        calls = self.folder / "calls"
        return len(calls.read_text().splitlines()) if calls.exists() else 0

    def compute(self, runs: list[str], *queues: str, **params: Any) -> list[JobReturn]:
        """Computes runs while the queue changes each second from one text to the next, and then Ctrl-C is pressed."""
        texts = iter(queues[1:])
        (self.folder / "queue").write_text(queues[0])

        def second(seconds: float) -> None:
            try:
                (self.folder / "queue").write_text(next(texts))
            except StopIteration:
                raise KeyboardInterrupt from None

        with self.patch.context() as patch:
            patch.setattr(slurm_queue, "time", SimpleNamespace(sleep=second, monotonic=time.monotonic))
            launcher = Launcher(submitit_folder=str(self.folder / "%j"), max_num_timeout=1, name="x", **params)
            return slurm_queue.Queue(launcher).compute({run: [f"seed={run}"] for run in runs}, self.store, 0)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path, monkeypatch)


def reasons(returns: list[JobReturn]) -> list[str]:
    return [str(returned._return_value) for returned in returns]


def test_jobs_that_wait_in_the_queue_are_not_submitted_again(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            cluster.compute(["0", "1"], "1_0|RUNNING\n1_1|PENDING\n")
    assert cluster.submissions == 1 and "scancel 1 ends them" in caplog.text
    with pytest.raises(KeyboardInterrupt):  # another sweep shares one run with it
        cluster.compute(["1", "2"], "1_0|RUNNING\n1_1|PENDING\n")
    assert cluster.submissions == 2 and "array=" not in (cluster.folder / "scripts").read_text().split("#!/bin/bash")[2]
    assert set(slurm_queue.jobs_in_queue(cluster.store)) == {"0", "1"}  # the queue names no job 2


def test_a_cancelled_job_is_over_and_only_the_next_command_submits_it_again(cluster: Cluster) -> None:
    ended = cluster.compute(
        ["0", "1"], "1_0|RUNNING\n1_1|PENDING\n", "1_0|COMPLETING\n1_1|CANCELLED\n", "1_0|CANCELLED\n1_1|CANCELLED\n"
    )
    assert reasons(ended) == [f"{i}: its job 1_{i} was cancelled; the same command submits it again." for i in range(2)]
    assert cluster.submissions == 1 and slurm_queue.jobs_in_queue(cluster.store) == {}
    with pytest.raises(KeyboardInterrupt):
        cluster.compute(["0", "1"], "1_0|CANCELLED\n1_1|CANCELLED\n")
    assert cluster.submissions == 2


def test_what_slurm_says_against_a_submission_is_told(cluster: Cluster) -> None:
    answers(cluster.patch, cluster.folder / "bin", "sbatch", "error: invalid partition specified: gpu")
    with pytest.raises(RunFailedError, match=r"(?s)Slurm takes no jobs: .*invalid partition specified: gpu"):
        cluster.compute(["0", "1"], "")
    assert slurm_queue.jobs_in_queue(cluster.store) == {}


def test_an_array_that_is_too_large_is_refused_with_what_to_do(cluster: Cluster) -> None:
    said = "error: Batch job submission failed: Invalid job array specification"
    answers(cluster.patch, cluster.folder / "bin", "sbatch", said)
    with pytest.raises(RunFailedError, match=r"(?s)array has 2 jobs.*MaxArraySize.*in parts.*seed=0,1 and then"):
        cluster.compute(["0", "1"], "")


@pytest.mark.parametrize("cpus", [None, 3])
def test_srun_is_told_the_cpus_of_its_job(cpus: int | None, cluster: Cluster) -> None:
    """In Slurm 22.05 to 23.02 it does not inherit them."""
    with pytest.raises(KeyboardInterrupt):
        cluster.compute(["0"], "1|RUNNING\n", cpus_per_task=cpus)
    (line,) = (line for line in (cluster.folder / "scripts").read_text().splitlines() if line.startswith("srun"))
    assert ("--cpus-per-task=3" in line) is (cpus == 3) and ("--cpus-per-task" in line) is (cpus is not None)


def test_a_requeued_job_is_waited_for(cluster: Cluster) -> None:
    with pytest.raises(KeyboardInterrupt):
        cluster.compute(["0"], "1|RUNNING\n", "1|COMPLETING\n", "1|PENDING\n", "1|RUNNING\n")
    assert cluster.submissions == 1


@pytest.mark.parametrize(("queue", "state"), [("1|OUT_OF_MEMORY\n", "OUT_OF_MEMORY"), ("", "gone")])
def test_a_job_that_ended_without_a_word_is_told_with_its_state_and_its_log(
    queue: str, state: str, cluster: Cluster
) -> None:
    (reason,) = reasons(cluster.compute(["0"], "1|RUNNING\n", queue, queue))
    assert reason == (f"0: its job 1 ended without a result (Slurm says: {state}). See {cluster.folder}/1/1_0_log.out")


def test_a_queue_that_is_out_of_reach_for_a_while_is_waited_for(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    squeue = cluster.folder / "bin" / "squeue"
    squeue.write_text(f"#!/bin/sh\ngrep -q '|' {cluster.folder}/queue && cat {cluster.folder}/queue\n")
    assert "was cancelled" in reasons(cluster.compute(["0"], "1|RUNNING\n", "down\n", "down\n", "1|CANCELLED\n"))[0]
    assert caplog.text.count("Waiting goes on") == 2 and cluster.submissions == 1


@pytest.mark.parametrize("minutes", [1, 2, 3])
def test_a_time_limit_that_leaves_no_time_before_its_warning_is_refused(minutes: int) -> None:
    with pytest.raises(InputError, match=rf"signal_delay_s=120: with hydra.launcher.timeout_min={minutes} a job"):
        slurm_queue.Queue(Launcher(timeout_min=minutes))


@pytest.mark.parametrize("minutes", [0, 4, 240])  # 0: no limit
def test_a_time_limit_that_leaves_some_time_is_taken(minutes: int) -> None:
    slurm_queue.Queue(Launcher(timeout_min=minutes))


@pytest.mark.parametrize(
    ("environment", "granted"),
    [
        ({}, None),
        ({"SLURM_STEP_ID": "0", "SLURM_CPUS_PER_TASK": "2", "SLURM_CPUS_ON_NODE": "8"}, 2),
        ({"SLURM_CPUS_PER_TASK": "2", "SLURM_CPUS_ON_NODE": "8"}, 8),  # a batch script of several tasks
        ({"SLURM_STEP_ID": "0", "SLURM_CPUS_ON_NODE": "8"}, None),  # a step without -c: bound, or free to take all
    ],
)
def test_a_step_uses_the_cpus_of_its_task(
    environment: dict[str, str], granted: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_STEP_ID", "SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert slurm.granted_cpus() == granted


def test_cores_are_the_fewest_of_binding_grant_and_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    for granted, quota, cores in [(None, None, 64), (4, None, 4), (None, 3, 3), (4, 3, 3), (128, 99, 64)]:
        monkeypatch.setattr(slurm, "granted_cpus", lambda value=granted: value)
        monkeypatch.setattr(workers, "quota", lambda value=quota: value)
        assert workers.cores() == cores


def test_joblib_divides_the_cores_that_were_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "x")
    monkeypatch.delenv("LOKY_MAX_CPU_COUNT")
    monkeypatch.setattr(slurm, "granted_cpus", lambda: 1)
    workers.limit_joblib()
    assert joblib.cpu_count() == 1


@pytest.mark.parametrize(
    ("groups", "limits", "cores"),
    [
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2),  # a container: docker run --cpus=2.5
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),  # the parent's counts
        ("4:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "200000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 2),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("3:cpuset:/a\n", {"cpu/a/cpu.cfs_quota_us": "1\n", "cpu/a/cpu.cfs_period_us": "1\n"}, None),
    ],
)
def test_a_quota_of_processor_time_counts_as_whole_cores(
    groups: str, limits: dict[str, str], cores: int | None, tmp_path: Path
) -> None:
    (tmp_path / "own").write_text(groups)
    for name, text in limits.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert workers.quota(tmp_path / "own", tmp_path / "cgroup") == cores


CACHED = "anon 1\ninactive_file 300\ntotal_inactive_file 400\n"


@pytest.mark.parametrize(
    ("groups", "files", "free"),
    [
        ("0::/\n", {"memory.max": "5000\n", "memory.current": "1000\n"}, 4000),  # a container
        ("0::/\n", {"memory.max": "max\n", "memory.current": "1000\n"}, 1024 * 1000),
        ("0::/\n", {}, 1024 * 1000),
        ("0::/\n", {"memory.max": "5000", "memory.current": "6000"}, 0),
        ("0::/a\n", {"a/memory.max": "5000", "a/memory.current": "1000", "a/memory.stat": CACHED}, 4300),
        ("0::/a/b\n", {"a/memory.max": "5000", "a/memory.current": "2000", "a/b/memory.max": "max"}, 3000),  # of Slurm
        ("4:memory:/a\n", {f"memory/a/memory.{name}": text for name, text in (
            ("limit_in_bytes", "5000"), ("usage_in_bytes", "1000"), ("stat", CACHED))}, 4400),
        ("3:cpu:/a\n", {"memory/a/memory.limit_in_bytes": "5", "memory/a/memory.usage_in_bytes": "1"}, 1024 * 1000),
    ],
)  # fmt: skip
def test_free_memory_is_what_machine_and_control_groups_leave(
    groups: str, files: dict[str, str], free: int, tmp_path: Path
) -> None:
    (tmp_path / "own").write_text(groups)
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 1000 kB\n")
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    given = (tmp_path / "own", tmp_path / "cgroup", tmp_path / "meminfo")
    assert workers.free_memory(*given) == free
    assert workers.free_memory(*given[:2], tmp_path / "none") is None


def test_where_no_control_groups_are_there_is_no_quota(tmp_path: Path) -> None:
    assert workers.quota(tmp_path / "none", tmp_path) is None
