"""Where a run is computed. There is no GPU here: what CUDA would say is put in its place."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lora_repro.config.schema import Dtype
from lora_repro.config.settings import ComputeConfig
from lora_repro.training import device, provenance

HOLD = """
import fcntl, os, sys, time
fcntl.flock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX); print("held", flush=True); time.sleep(600)
"""


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two GPUs, whose locks lie in the test's folder."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"gpu{index}"))
    monkeypatch.setattr(device.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(device, "_own_gpu", {})
    yield tmp_path
    for descriptor in device._own_gpu.values():
        os.close(descriptor)


def held_by_another(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_process_takes_a_gpu_and_keeps_it(two_gpus: Path) -> None:
    assert device._own() == device._own() == "cuda:0"
    assert list(device._own_gpu) == [0]


def test_a_gpu_that_another_process_has_taken_is_left_to_it(
    two_gpus: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with held_by_another(two_gpus / "lora_repro-gpu0.lock") as first:
        assert device._own() == "cuda:1"
        os.close(device._own_gpu.pop(1))
        with held_by_another(two_gpus / "lora_repro-gpu1.lock") as second:
            assert device._own() == "cuda:0" and device._own_gpu == {}
            assert "All 2 GPUs are taken by other runs" in caplog.text
            second.kill()
        first.kill()
    assert device._own() == "cuda:0" and list(device._own_gpu) == [0]


def test_a_lock_that_another_user_has_created_is_tried_and_one_that_cannot_be_opened_counts_as_taken(
    two_gpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a file of mode 0644 or 0600 in a sticky folder; the superuser, who may run this, opens any."""
    path, unreadable, opens = two_gpus / "lora_repro-gpu0.lock", [False], os.open

    def refuses(where: Path, flags: int, mode: int = 0o777) -> int:
        if where == path and (unreadable[0] or flags & (os.O_CREAT | os.O_RDWR)):
            raise PermissionError(13, "Permission denied")
        return opens(where, flags, mode)

    path.touch()
    monkeypatch.setattr(device.os, "open", refuses)
    with held_by_another(path) as process:
        try:
            assert device._own() == "cuda:1"
        finally:
            process.kill()
    os.close(device._own_gpu.pop(1))
    assert device._own() == "cuda:0"
    os.close(device._own_gpu.pop(0))
    unreadable[0] = True
    assert device._own() == "cuda:1"


def test_the_gpu_that_is_asked_for_becomes_torchs_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[torch.device] = []
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    for name in ("cpu", "cuda", "cuda:1"):
        assert device.prepare(ComputeConfig(device=name)) == torch.device(name)
    assert current == [torch.device("cuda:1")]


def test_products_in_fp32_on_a_gpu_are_without_tf32_and_the_record_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's default allows it in convolutions, of which DeBERTa has one."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(provenance, "_device_class", lambda _: "H200")
    gpu = torch.device("cuda:0")

    def recorded() -> list[object]:
        return [of(gpu, Dtype.fp32)["tf32"] for of in (provenance.machine, provenance.collect)]

    assert recorded() == [True, True]
    device.prepare(ComputeConfig(device="cuda:0"))
    assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
    assert recorded() == [False, False] and "tf32" not in provenance.machine(torch.device("cpu"), Dtype.fp32)


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_gpu_without_a_number_is_one_that_no_other_process_has(
    name: str, two_gpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with held_by_another(two_gpus / "lora_repro-gpu0.lock") as process:
        try:
            assert device.prepare(ComputeConfig(device=name)) == torch.device("cuda:1")
            assert device.prepare(ComputeConfig(device="cuda:0")) == torch.device("cuda:0")
        finally:
            process.kill()


def test_the_threads_that_a_run_asks_for_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [5]
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda number: now.__setitem__(0, number))
    monkeypatch.setattr(device, "cores", lambda: 8)
    monkeypatch.setattr(device, "_threads_before", {})

    def after(threads: int | None) -> int:
        device.prepare(ComputeConfig(device="cpu", threads=threads))
        return now[0]

    assert [after(threads) for threads in (None, 1, 2, None, 5, 1, None, None)] == [5, 1, 2, 5, 5, 1, 5, 5]
    after(1)
    now[0] = 3  # by the user's own code
    assert [after(threads) for threads in (None, 2, None)] == [3, 2, 3]
    monkeypatch.setattr(device, "cores", lambda: 2)
    assert after(None) == 2


def test_a_single_gpu_is_locked_too_and_shared_with_a_warning(
    two_gpus: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with held_by_another(two_gpus / "lora_repro-gpu0.lock") as process:
        assert device._own() == "cuda:0" and device._own_gpu == {}
        assert "The only GPU is taken by other runs; this one shares the first." in caplog.text
        process.kill()
    assert device._own() == "cuda:0" and list(device._own_gpu) == [0]


def test_huge_pages_are_asked_for_without_changing_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where the system has no list of its memory, or no heap in it."""
    held = torch.arange(3 * 2**20)
    x = torch.randn(64, 64)
    product = x @ x
    device.use_huge_pages()
    assert torch.equal(held, torch.arange(3 * 2**20)) and torch.equal(x @ x, product)
    asked: list[object] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda *_: asked.append(1))
    for content in (None, "", "7f00-7f01 rw-p 0 00:00 0 [stack]\n", "200000-200000 rw-p 0 00:00 0 [heap]\n"):
        path = tmp_path / "maps"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content)
        monkeypatch.setattr(device, "Path", lambda _, path=path: path)
        device.use_huge_pages()
    assert asked == []


PEAKS = """
import torch
from lora_repro.config.settings import ComputeConfig
from lora_repro.training import device

cpu = device.prepare(ComputeConfig(device="cpu", threads=1))

def a_run(blocks):
    is_bound = device.reset_peak_memory(cpu)
    held = [torch.ones(2**18) for _ in range(blocks)]  # 1 MiB each, so they lie in the heap
    return is_bound, device.peak_memory_gib(cpu)

for blocks in (100, 800, 100):
    print(*a_run(blocks))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is not reset here")
def test_what_a_larger_run_took_before_is_given_back_and_the_peak_says_that_something_may_be_left() -> None:
    lines = subprocess.run([sys.executable, "-c", PEAKS], check=True, capture_output=True, text=True).stdout.split("\n")
    (first, small), (second, large), (third, small_again) = (line.split() for line in lines[:3])
    assert [first, second, third] == ["False", "True", "True"]
    assert float(large) > float(small) + 0.6
    assert float(small_again) < float(small) + 0.1
