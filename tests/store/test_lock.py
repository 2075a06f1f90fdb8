import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from helpers.fake_launcher import Launches, run, sweep
from helpers.handmade_runs import write_status
from helpers.waiting import touch, wait_for

from lora_repro.errors import InputError, RunBusyError
from lora_repro.store import lock
from lora_repro.store.lock import Lock, Owner, holder, read_owner
from lora_repro.store.record import Record

HOLD = """
import sys, time
from pathlib import Path
from lora_repro.store.lock import Lock
lock = Lock(Path(sys.argv[1])); lock.acquire(); print("held", flush=True); time.sleep(600)
"""


@contextmanager
def other_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Has another process hold the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def owner_elsewhere(path: Path) -> Owner:
    owner = replace(Lock(path).owner, host="node17", machine="another boot", pid=4242)
    path.write_text(json.dumps(asdict(owner)))
    return owner


def test_a_lock_is_held_by_one_and_names_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second = Lock(path), Lock(path)
    first.acquire()
    assert holder(path) == first.owner == read_owner(path) and first.is_ours()
    with pytest.raises(RunBusyError, match=f"by process {os.getpid()} on .*\nWait for it"):
        second.acquire()
    first.release()
    assert holder(path) is None and not path.exists()
    second.acquire()
    assert second.is_ours() and not first.is_ours()
    second.release()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_dead_process_is_free_at_once(tmp_path: Path, number: int) -> None:
    path = tmp_path / "lock"
    with other_process(path) as process:
        found = holder(path)
        assert found is not None and found.pid == process.pid
        with pytest.raises(RunBusyError, match=f"process {process.pid}"):
            Lock(path).acquire()
        process.send_signal(number)
        process.wait()
        assert path.exists() and holder(path) is None
        ours = Lock(path)
        ours.acquire()
        assert ours.is_ours()
        ours.release()


def test_a_stopped_process_keeps_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with other_process(path) as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(RunBusyError):
            Lock(path).acquire()


RACE = """
import sys
from pathlib import Path
from lora_repro.errors import RunBusyError
from lora_repro.store.lock import Lock
lock = Lock(Path(sys.argv[1])); print("ready", flush=True); sys.stdin.readline()
try:
    lock.acquire(); print("had", flush=True)
except RunBusyError:
    print("busy", flush=True)
sys.stdin.read()  # until all have tried
"""


def test_of_many_that_race_for_a_dead_ones_lock_one_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with other_process(path) as process:
        process.kill()
    command = [sys.executable, "-c", RACE, str(path)]
    racers = [subprocess.Popen(command, stdin=-1, stdout=-1, text=True) for _ in range(6)]
    pipes = [(racer.stdin, racer.stdout) for racer in racers]
    assert [out.readline() for _, out in pipes if out is not None] == ["ready\n"] * 6
    for start, _ in pipes:
        assert start is not None
        start.write("\n")
        start.flush()
    words = sorted(out.readline().strip() for _, out in pipes if out is not None)
    for racer in racers:
        racer.communicate()
    assert words == ["busy"] * 5 + ["had"]


class Clock:
    """A monotonic clock that only sleeping moves."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        patch.setattr(lock.time, "monotonic", lambda: self.now)
        patch.setattr(lock.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_an_owner_on_another_machine_that_touches_its_lock_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock = tmp_path / "lock", Clock(monkeypatch)
    owner = owner_elsewhere(path)

    def beat(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.now > 60:
            os.utime(path, (1, 1))

    monkeypatch.setattr(lock.time, "sleep", beat)
    with pytest.raises(RunBusyError, match="process 4242 on node17"):
        Lock(path).acquire()
    assert holder(path) == owner and 60 < clock.now < 62


def test_an_owner_on_another_machine_that_stands_still_is_taken_over_whatever_the_clocks_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock = tmp_path / "lock", Clock(monkeypatch)
    owner_elsewhere(path)
    future = time.time() + 10**7
    os.utime(path, (future, future))  # its clock, or ours, has jumped
    ours = Lock(path)
    ours.acquire()
    assert clock.now == lock.GRACE_S == 120 and ours.is_ours()
    ours.release()


def test_an_owner_of_this_name_and_another_boot_may_live_on_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two containers are called alike. An owner before a reboot of this machine is waited for in the same way."""
    path, clock = tmp_path / "lock", Clock(monkeypatch)
    owner = replace(Lock(path).owner, machine="another boot")
    path.write_text(json.dumps(asdict(owner)))
    assert holder(path) == owner
    ours = Lock(path)
    ours.acquire()
    assert clock.now == lock.GRACE_S
    ours.release()


@pytest.mark.parametrize("ahead", [-(10**7), 0, 10**7])
def test_looks_take_a_machine_for_dead_when_its_lock_has_stood_still_for_two_minutes_whatever_its_clock_says(
    ahead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock = tmp_path / "lock", Clock(monkeypatch)
    owner = owner_elsewhere(path)
    for touched in (0, 1):
        touch(path, time.time() + ahead + touched)
        assert holder(path) == owner
        clock.sleep(119)
        assert holder(path) == owner
    clock.sleep(1)
    assert holder(path) is None
    ours = Lock(path)
    ours.acquire()
    assert clock.now == 239, "what looks have seen is not watched once more"
    ours.release()


def test_a_lock_that_was_watched_long_enough_is_removed_for_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock = tmp_path / "runs" / "x" / "lock", Clock(monkeypatch)
    path.parent.mkdir(parents=True)
    owner_elsewhere(path)
    record = Record(tmp_path, "x")
    assert not record.is_free() and path.exists()
    clock.sleep(60)
    lock.remove_dead(path)
    assert path.exists()
    clock.sleep(60)
    assert record.is_free() and not path.exists()


def test_a_finished_run_is_not_watched_to_be_tidied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    (tmp_path / "runs" / "x").mkdir(parents=True)
    owner_elsewhere(tmp_path / "runs" / "x" / "lock")
    Record(tmp_path, "x").tidy()
    assert clock.now == 0


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_lock_of_a_run_is_left_as_it_is(kind: str, tmp_path: Path) -> None:
    path, target = tmp_path / "lock", tmp_path / "target"
    target.write_text("precious")
    {"link": lambda: path.symlink_to(target), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[kind]()
    before = os.lstat(path)
    with pytest.raises(InputError, match=r"lock is .*left as it is"):
        Lock(path).acquire()
    assert holder(path) is None
    assert os.lstat(path).st_ino == before.st_ino and target.read_text() == "precious"


def test_the_owner_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.05)
    path = tmp_path / "lock"
    ours = Lock(path)
    ours.acquire()
    os.utime(path, (1, 1))
    wait_for(lambda: path.stat().st_mtime > 1)
    ours.release()


def test_where_there_is_no_flock_a_living_process_of_this_machine_still_guards_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    path = tmp_path / "lock"
    with other_process(path) as process:
        monkeypatch.setattr(fcntl, "flock", refused)
        found = holder(path)
        assert found is not None and found.pid == process.pid
        with pytest.raises(RunBusyError, match=f"process {process.pid}"):
            Lock(path).acquire()
        process.kill()
        process.wait()
        assert holder(path) is None
        ours = Lock(path)
        ours.acquire()
        assert ours.is_ours()
        ours.release()


WRONG = [{"host": 1}, {"pid": "1"}, {"pid": -1}, {"pid": True}, {"pid": 10**9}, {"token": None}, {"more": 1}]


@pytest.mark.parametrize("wrong", WRONG)
def test_an_owner_of_the_wrong_shape_is_none(wrong: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text(json.dumps(asdict(owner_elsewhere(path)) | wrong))
    assert read_owner(path) is None and holder(path) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}', "\x00\x00", "[" * 100_000])
def test_a_damaged_lock_blocks_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lock"
    path.write_text(content)
    assert holder(path) is None
    ours = Lock(path)
    ours.acquire()
    ours.release()
    assert not path.exists()


@pytest.mark.parametrize("one_by_one", [True, False])
def test_a_sweep_takes_over_the_run_of_a_dead_machine_after_two_minutes(
    one_by_one: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *rest = sweep().jobs
    write_status(tmp_path, first, "running")
    path = tmp_path / "runs" / first.run_id / "lock"
    owner_elsewhere(path)
    touch(path, time.time() + 10**7)  # that machine's clock was ahead
    clock, launches = Clock(monkeypatch), Launches(tmp_path)
    assert run(sweep(), tmp_path, launches, one_by_one) == 0
    launched = [run_id for batch in launches.batches for run_id in batch]
    assert launched == [job.run_id for job in [*rest, first]] and 120 <= clock.now <= 122
