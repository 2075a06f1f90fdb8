"""What changes numbers without standing in the configuration is recorded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.computed_runs import computed
from helpers.fixture_types import Compose

from lora_repro.config.identity import NUMERICS_VERSION
from lora_repro.config.schema import Dtype
from lora_repro.training import provenance, train

CPU = torch.device("cpu")


def test_variables_that_choose_kernels_are_recorded_and_only_those_that_are_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in provenance.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    assert "settings" not in provenance.collect(CPU, Dtype.fp32)
    assert provenance.machine(CPU, Dtype.fp32)["settings"] is None
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("MKL_CBWR", "")
    monkeypatch.setenv("HOME", "/elsewhere")
    expected = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    assert provenance.collect(CPU, Dtype.fp32)["settings"] == expected
    assert provenance.machine(CPU, Dtype.fp32)["settings"] == expected


def test_the_numerics_version_is_recorded() -> None:
    assert provenance.collect(CPU, Dtype.fp32)["numerics_version"] == NUMERICS_VERSION


def test_the_recorded_commit_is_the_one_that_was_checked_out_when_training_began(
    tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, epoch = ["a" * 40], train.train_epoch

    def commits(*arguments: Any) -> None:
        head[0] = "b" * 40
        epoch(*arguments)

    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(provenance, "HOME", tmp_path)
    monkeypatch.setattr(provenance, "_git", lambda *arguments: f"{head[0]}\n" if "HEAD" in arguments else "")
    monkeypatch.setattr(train, "train_epoch", commits)
    provenance.code.cache_clear()
    try:
        _, result = computed(tiny())
    finally:
        provenance.code.cache_clear()
    assert (result["provenance"]["commit"], result["provenance"]["dirty"]) == ("a" * 40, False)


def test_the_versions_of_all_packages_and_of_the_methods_own_decide_the_bits() -> None:
    found = provenance.machine(CPU, Dtype.fp32, packages=("peft",))
    assert {*provenance.PACKAGES, "peft"} <= found.keys() and "peft" not in provenance.machine(CPU, Dtype.fp32)
    versions = provenance.collect(CPU, Dtype.fp32)["versions"]
    assert {name: found[name] for name in provenance.PACKAGES} == {name: versions[name] for name in provenance.PACKAGES}
