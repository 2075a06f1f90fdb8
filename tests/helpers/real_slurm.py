"""A real Slurm for tests: a controller and two nodes of two CPUs on this host, for whichever user starts it.

Debian's `slurm-wlm` is all it needs. It is the barest of clusters: no accounting (sacct fails), no authentication
beyond this host, no binding of processes to CPUs. `python tests/real_slurm.py FOLDER` runs one until Ctrl-C.
"""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NODES = ("n1", "n2")
DAEMONS = ("slurmctld", "slurmd")

# A job of `high` preempts one of `low` at once, one of `grace` or `cancel` after GraceTime.
# The short intervals keep the tests short, cred_expire above all: a requeued job waits that long (120 s by default).
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdSpoolDir={folder}/%n
SlurmdPidFile={folder}/%n.pid
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
KillWait=20
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
{nodes}
PartitionName=low Nodes=n1,n2 Default=YES PriorityTier=1 PreemptMode=REQUEUE
PartitionName=grace Nodes=n1,n2 PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=cancel Nodes=n1,n2 PriorityTier=1 PreemptMode=CANCEL GraceTime=60
PartitionName=high Nodes=n1,n2 PriorityTier=9 PreemptMode=OFF
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=8000"


def lacking() -> str | None:
    """Says what is missing for a Slurm here; None if nothing is."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [name for name in (*DAEMONS, "sbatch") if shutil.which(name, path=path) is None]
    return f"no {', '.join(missing)} here: apt-get install slurm-wlm" if missing else None


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Starts a Slurm, yields the environment in which its commands reach it, and stops it with all of its jobs."""
    folder.mkdir(parents=True, exist_ok=True)
    host = socket.gethostname().partition(".")[0]
    controller, *ports = _free_ports(1 + len(NODES))
    nodes = [NODE.format(name=name, host=host, port=port) for name, port in zip(NODES, ports, strict=True)]
    conf = folder / "slurm.conf"
    conf.write_text(
        CONF.format(host=host, user=getpass.getuser(), controller=controller, folder=folder, nodes="\n".join(nodes))
    )
    environment = {"SLURM_CONF": str(conf), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    lines = [["slurmctld", "-D"], *(["slurmd", "-D", "-N", name] for name in NODES)]
    running = []
    try:
        for line in lines:
            with (folder / f"{line[-1] if '-N' in line else line[0]}.log").open("ab") as log:
                running.append(
                    subprocess.Popen(
                        line, env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                        start_new_session=True,
                    )
                )  # fmt: skip
        _wait(
            lambda: ask(environment, "sinfo", "--noheader", "--format=%T").split() == ["idle"], "its nodes to come up"
        )
        yield environment
    finally:
        try:
            if len(running) == len(lines):
                ask(environment, "scancel", f"--user={getpass.getuser()}")
                _wait(lambda: not ask(environment, "squeue", "--noheader"), "its jobs to end")
        finally:
            for process in reversed(running):
                process.terminate()
            for process in running:
                process.wait(30)


def ask(environment: dict[str, str], *line: str) -> str:
    """Returns what a command of Slurm's prints, or its error."""
    done = subprocess.run(line, env=os.environ | environment, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip()


def _wait(what: Callable[[], bool], words: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Slurm: {words} took over {seconds:.0f} s")
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with cluster(Path(sys.argv[1]).absolute()) as found:
        print(f"export SLURM_CONF={found['SLURM_CONF']}")
        with suppress(KeyboardInterrupt):
            signal.pause()
