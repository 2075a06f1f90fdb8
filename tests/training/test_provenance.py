"""What changes numbers without standing in the configuration is recorded."""

import pytest
import torch

from lora_repro.config.identity import NUMERICS_VERSION
from lora_repro.config.schema import Dtype
from lora_repro.training import provenance

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
