"""How threads wait for each other: what Linux says is put in its place, and so is the clock."""

import ctypes
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from lora_repro.training import waiting
from lora_repro.training.waiting import CHOICES, Gomp, Llvm, Spent, Threads, longest_wait, read, watched

ME = threading.get_native_id()


class Recorded:
    """A runtime that only writes down what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def sleep(self) -> None:
        self.asked.append("sleep")

    def spin(self) -> None:
        self.asked.append("spin")


class Machine:
    """A clock, and threads that wait for a core for a share of the time."""

    def __init__(self, runtime: Recorded | None, advice: str = "Do this.") -> None:
        self.now, self.waited = 0.0, 0.0
        self.threads = Threads(runtime, advice, self.read, lambda: self.now)

    def read(self) -> dict[int, Spent]:
        return {ME: Spent(int(1e9 * self.now), 0), ME + 1: Spent(0, int(1e9 * self.waited))}

    def go_on(self, seconds: float, share: float) -> None:
        for _ in range(round(seconds / 0.25)):
            self.now += 0.25
            self.waited += 0.25 * share
            self.threads.look()


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that leaves open how threads wait."""
    for name in CHOICES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def gomp() -> Iterator[Gomp]:
    """The runtime of this process; its threads spin again at the end."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "GOMP_parallel"):
        pytest.skip("torch uses another OpenMP runtime than libgomp")
    runtime = Gomp(library, max(2, len(os.sched_getaffinity(0))))
    yield runtime
    runtime.spin()


def test_threads_sleep_while_others_want_the_cores_and_spin_afterwards() -> None:
    runtime = Recorded()
    machine = Machine(runtime)
    machine.go_on(10, share=0.04)
    assert runtime.asked == []
    machine.go_on(0.5, share=0.5)
    assert runtime.asked == ["sleep"]
    machine.go_on(10, share=0.1)
    assert runtime.asked == ["sleep"]
    machine.go_on(4, share=0.01)
    assert runtime.asked == ["sleep", "spin"]


def test_threads_that_meet_others_whenever_they_spin_try_it_ever_more_seldom() -> None:
    runtime = Recorded()
    machine = Machine(runtime)
    tries = []
    for _ in range(4):
        before = len(runtime.asked)
        for _ in range(600):
            machine.go_on(0.25, share=0.5 if runtime.asked[-1:] != ["sleep"] else 0)
        tries.append(runtime.asked[before:].count("spin"))
    assert tries[0] > tries[-1] > 0


def test_a_disturbance_is_told_once_with_what_was_seen_and_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine(None)
    machine.go_on(20, share=0.5)
    (message,) = caplog.messages
    assert "waited for a core 50 % of the time" in message and message.endswith("Do this.")


def test_what_happened_before_the_first_batch_does_not_count() -> None:
    runtime = Recorded()
    machine = Machine(runtime)
    machine.now, machine.waited = 100, 90
    machine.threads.begin()
    machine.go_on(1, share=0)
    assert runtime.asked == []


def test_the_share_is_that_of_the_thread_that_waited_most() -> None:
    before = {ME: Spent(100, 100), 1: Spent(0, 0)}
    after = {ME: Spent(170, 130), 1: Spent(40, 60), 2: Spent(0, 20)}
    assert longest_wait(before, after) == 0.6
    assert longest_wait(after, after) == 0.0
    assert longest_wait({}, {}) == 0.0


def test_times_are_those_of_linux_and_a_thread_that_ended_is_left_out(tmp_path: Path) -> None:
    for name, text in {"7": "12 34 5\n", "8": ""}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "schedstat").write_text(text)
    (tmp_path / "9").mkdir()
    assert read(tmp_path) == {7: Spent(12, 34)}
    assert read(tmp_path / "none") == {}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux says it")
def test_this_thread_is_found_under_its_number() -> None:
    assert read()[threading.get_native_id()].ran_ns > 0


def test_batches_come_in_order_and_are_looked_at_with_several_threads_only(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    monkeypatch.setattr(Threads, "begin", lambda self: looks.append("begin"))
    monkeypatch.setattr(Threads, "look", lambda self: looks.append("look"))
    machine = Machine(None)
    monkeypatch.setattr(waiting, "_of_process", lambda threads: machine.threads)
    assert list(watched([3, 1, 2], threads=1)) == [3, 1, 2] and looks == ["begin"]
    assert list(watched([3, 1, 2], threads=2)) == [3, 1, 2] and looks[1:] == ["begin", "look", "look", "look"]


def test_no_number_changes_while_threads_sleep(gomp: Gomp) -> None:
    def gradients() -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(512, 512), nn.LayerNorm(512))
        inputs = torch.randn(256, 512)
        loss = nn.functional.mse_loss(model(inputs), inputs)
        return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        spinning = gradients()
        gomp.sleep()
        asleep = gradients()
    finally:
        torch.set_num_threads(before)
    assert len(spinning) == 5
    for one, other in zip(spinning, asleep, strict=True):
        assert torch.equal(one, other)


def test_the_idle_team_exists_only_while_threads_sleep(gomp: Gomp) -> None:
    def tasks() -> set[str]:
        return {path.name for path in Path("/proc/self/task").iterdir()}

    def idle_teams() -> int:
        return sum(thread.name == "idle OpenMP team" for thread in threading.enumerate())

    before, others = tasks(), idle_teams()  # a run of another test may have its threads asleep
    gomp.sleep()
    team = tasks() - before
    assert len(team) == max(2, len(os.sched_getaffinity(0)))
    gomp.spin()
    assert idle_teams() == others


def test_another_runtime_is_asked_and_gets_back_what_it_had() -> None:
    class Library(ctypes.CDLL):
        def __init__(self) -> None:
            self.blocktime = 200

        def kmp_get_blocktime(self) -> int:
            return self.blocktime

        def kmp_set_blocktime(self, ms: int) -> None:
            self.blocktime = ms

    library = Library()
    runtime = Llvm(library)
    runtime.sleep()
    assert library.blocktime == 0
    runtime.spin()
    assert library.blocktime == 200


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ("OMP_WAIT_POLICY=PASSIVE", ""),
        ("OMP_WAIT_POLICY=ACTIVE", "OMP_WAIT_POLICY=ACTIVE says; without it"),
        ("GOMP_SPINCOUNT=0", ""),
        ("GOMP_SPINCOUNT=900000", "GOMP_SPINCOUNT=900000 says; without it"),
        ("KMP_BLOCKTIME=200", "KMP_BLOCKTIME=200 says; without it"),
    ],
)
def test_what_the_user_chose_stays(unset: pytest.MonkeyPatch, choice: str, says: str) -> None:
    unset.setenv(*choice.split("="))
    waiting._of_process.cache_clear()
    threads = waiting._of_process(2)
    waiting._of_process.cache_clear()
    assert threads._runtime is None
    assert says in threads._advice and bool(says) == bool(threads._advice)


def test_without_a_choice_threads_can_be_let_sleep(unset: pytest.MonkeyPatch) -> None:
    waiting._of_process.cache_clear()
    threads = waiting._of_process(2)
    waiting._of_process.cache_clear()
    assert threads._runtime is not None and "compute.threads=1 leaves a core" in threads._advice


def test_where_threads_cannot_be_let_sleep_the_user_is_told_what_to_set(unset: pytest.MonkeyPatch) -> None:
    unset.setattr(waiting.os, "sched_getaffinity", lambda pid: set(range(500)))
    unset.setattr(waiting.ctypes, "CDLL", lambda name: type("Library", (), {"GOMP_parallel": None}))
    assert waiting._runtime(2) is None
    assert "OMP_WAIT_POLICY=PASSIVE" in waiting._advice(None, 2)
