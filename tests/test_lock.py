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

from lora_repro import lock
from lora_repro.errors import RunBusyError
from lora_repro.lock import Lock, Owner, holder, read_owner

HOLD = """
import sys, time
from pathlib import Path
from lora_repro.lock import Lock
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


def test_of_many_that_race_for_a_dead_ones_lock_one_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with other_process(path) as process:
        process.kill()
    race = """
import sys, time
from pathlib import Path
from lora_repro.errors import RunBusyError
from lora_repro.lock import Lock
lock = Lock(Path(sys.argv[1])); time.sleep(max(0, float(sys.argv[2]) - time.time()))
try:
    lock.acquire(); print("had"); time.sleep(3)
except RunBusyError:
    print("busy")
"""
    at = str(time.time() + 2)
    racers = [
        subprocess.Popen([sys.executable, "-c", race, str(path), at], stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    words = sorted(racer.communicate(timeout=60)[0].strip() for racer in racers)
    assert words == ["busy"] * 5 + ["had"]


def test_an_owner_on_another_machine_that_touches_its_lock_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    owner = owner_elsewhere(path)
    monkeypatch.setattr(lock, "GRACE_S", 2.0)
    sleep = time.sleep

    def beat(seconds: float) -> None:
        sleep(seconds)
        os.utime(path)

    monkeypatch.setattr(lock.time, "sleep", beat)
    with pytest.raises(RunBusyError, match="process 4242 on node17"):
        Lock(path).acquire()
    assert holder(path) == owner


def test_an_owner_on_another_machine_that_stands_still_is_taken_over_whatever_the_clocks_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    owner_elsewhere(path)
    future = time.time() + 10**7
    os.utime(path, (future, future))  # its clock, or ours, has jumped
    monkeypatch.setattr(lock, "GRACE_S", 0.5)
    ours = Lock(path)
    began = time.monotonic()
    ours.acquire()
    assert 0.5 <= time.monotonic() - began < 5 and ours.is_ours()
    ours.release()


def test_a_machine_that_was_booted_again_has_no_old_owners(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    owner = replace(Lock(path).owner, machine="the boot before")
    path.write_text(json.dumps(asdict(owner)))
    assert holder(path) is None
    ours = Lock(path)
    ours.acquire()
    ours.release()


def test_a_look_says_stale_of_another_machine_after_minutes_of_silence(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    owner = owner_elsewhere(path)
    assert holder(path) == owner
    past = time.time() - lock.CLOCK_GRACE_S - 1
    os.utime(path, (past, past))
    assert holder(path) is None


def test_the_owner_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.05)
    path = tmp_path / "lock"
    ours = Lock(path)
    ours.acquire()
    os.utime(path, (1, 1))
    time.sleep(0.5)
    assert path.stat().st_mtime > 1
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


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}', "\x00\x00"])
def test_a_damaged_lock_blocks_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lock"
    path.write_text(content)
    assert holder(path) is None
    ours = Lock(path)
    ours.acquire()
    ours.release()
    assert not path.exists()
