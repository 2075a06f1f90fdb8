import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fixture_types import Compose
from helpers.waiting import wait_for

from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.errors import InputError
from lora_repro.models.precision import Products
from lora_repro.training import compiled, train

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's compiler imports it
CPU = torch.device("cpu")
LLAMA = ("model=tiny_llama", "preset@train=tiny_llama", "task.form=text", "train.dtype=bf16")
BERT = ("train.dtype=bf16",)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks blocks without preparing torch for a compilation, as these tests take no step."""
    monkeypatch.setattr(compiled, "_set_up", lambda folder: None)
    monkeypatch.setattr(compiled, "_has_compiler", lambda: True)
    monkeypatch.setattr(compiled, "products_of", lambda dtype, device: Products.bf16)


def decision(tiny: Compose, *overrides: str, steps: int = 10**4, device: torch.device = CPU) -> bool:
    resolved = resolve(tiny(*overrides))
    model: Any = train.build(resolved, CPU)
    found = compiled.compile_blocks(model, resolved.run, resolved.settings, steps, device)
    blocks = model.model.layers if "model=tiny_llama" in overrides else []
    assert all((type(block).forward.__module__ == compiled.__name__) is found for block in blocks)
    return found


@pytest.mark.usefixtures("quiet")
def test_what_gains_is_compiled_if_its_run_is_long_enough(tiny: Compose) -> None:
    assert decision(tiny, *LLAMA, steps=compiled.STEPS)
    assert not decision(tiny, *LLAMA, steps=compiled.STEPS - 1)
    assert not decision(tiny, *BERT)
    assert not decision(tiny, *LLAMA, "compute.compile=false")
    assert decision(tiny, *LLAMA, "compute.compile=true", steps=1)


@pytest.mark.usefixtures("quiet")
def test_nothing_is_compiled_unasked_on_a_gpu_without_a_compiler_or_without_products_in_bf16(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not decision(tiny, *LLAMA, device=torch.device("cuda"))
    with monkeypatch.context() as patch:
        patch.setattr(compiled, "_has_compiler", lambda: False)
        assert not decision(tiny, *LLAMA)
    monkeypatch.setattr(compiled, "products_of", lambda dtype, device: Products.rounded)
    assert not decision(tiny, *LLAMA)


@pytest.mark.usefixtures("quiet")
def test_what_cannot_be_compiled_is_refused_if_it_is_asked_for(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"compute.compile: true, but model=tiny_bert .*llama \(given: bert\)"):
        decision(tiny, *BERT, "compute.compile=true")
    monkeypatch.setattr(compiled, "_has_compiler", lambda: False)
    with pytest.raises(InputError, match="compiler with Python"):
        decision(tiny, *LLAMA, "compute.compile=true")
    monkeypatch.setattr(compiled, "_has_compiler", lambda: True)
    with pytest.raises(InputError, match="a CPU that multiplies in bf16"):
        decision(tiny, *LLAMA, "compute.compile=true", device=torch.device("cuda"))
    monkeypatch.setattr(compiled, "products_of", lambda dtype, device: Products.fp32)
    with pytest.raises(InputError, match="a CPU that multiplies in bf16"):
        decision(tiny, *LLAMA, "compute.compile=true")


def test_a_compiler_without_pythons_headers_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Debian has them in a package of their own; a run must not end in its first step for want of them."""
    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", lambda: "g++")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert not compiled._has_compiler.__wrapped__()
    (tmp_path / "Python.h").touch()
    assert compiled._has_compiler.__wrapped__()


def test_compiling_is_no_part_of_the_id(tiny: Compose) -> None:
    ids = {run_id(resolve(tiny(*LLAMA, f"compute.compile={value}")).run) for value in ("true", "false", "null")}
    assert len(ids) == 1


def test_a_compiled_run_does_not_go_on_from_steps_that_were_not(tiny: Compose) -> None:
    """And the other way round: the machine of a checkpoint says it, and `log.resume=same` compares all of it."""
    from lora_repro.config.schema import Dtype
    from lora_repro.training import provenance

    a, b = (provenance.machine(CPU, Dtype.bf16, value) for value in (True, False))
    assert a.keys() == b.keys() and [key for key in a if a[key] != b[key]] == ["compiled"]


@pytest.mark.long
def test_a_compiled_run_trains_like_another_is_resumed_bit_for_bit_and_says_so(tmp_path: Path) -> None:
    """In processes of their own, since the checks of types in tests cannot be compiled."""

    def result(name: str, *overrides: str, stopped: bool = False) -> dict[str, Any]:
        outputs = tmp_path / name
        given = ("task=generated", *LLAMA, "train.epochs=40", f"paths.outputs={outputs}", "log.wandb=off", *overrides)
        command = [sys.executable, "-m", "lora_repro", *given, "log.every_steps=1", "compute.threads=1"]
        if stopped:
            process = subprocess.Popen(command)
            wait_for(lambda: any(outputs.glob("runs/*/metrics.jsonl")) and any(outputs.glob("runs/*/checkpoint/*")))
            process.terminate()
            assert process.wait() != 0
        seen = {**os.environ, "TORCH_LOGS": "graph_breaks"}
        done = subprocess.run(command, check=True, env=seen, stderr=subprocess.PIPE, text=True)
        assert "Graph break" not in done.stderr  # with one, a step is no faster and nothing else would say so
        return json.loads(next(outputs.glob("runs/*/result.json")).read_text())

    plain = result("plain", "compute.compile=false")
    one = result("one", "compute.compile=true")
    again = result("again", "compute.compile=true", "log.checkpoint_every_s=0", stopped=True)
    assert one["metrics_by_epoch"] == again["metrics_by_epoch"]
    assert one["provenance"]["compiled"] and "compiled" not in plain["provenance"]
    first, other = (found["metrics_by_epoch"][0] for found in (plain, one))
    assert first != other and first["eval/loss"] == pytest.approx(other["eval/loss"], rel=0.01)
