"""Golden numbers: whoever changes one of them raises NUMERICS_VERSION, or old and new results share their ids."""

from collections.abc import Callable

import numpy as np
import pytest
from omegaconf import DictConfig

from lora_repro import draw
from lora_repro.config.identity import NUMERICS_VERSION
from lora_repro.methods.lora.layers import Start, initial_A
from lora_repro.tasks import Example, encoding
from lora_repro.tasks.batches import batches
from lora_repro.tasks.ratings import RatingsConfig
from lora_repro.training.job import run_job

A_0 = [-0.19808257, -0.18920666, 0.18275511, -0.17835522, 0.43880743, -0.00765204, -0.26905841, -0.49125206]
HEAD = [0.00401158, -0.02000038, -0.00471787, 0.01089705]
BATCHES = [[6, 2, 0], [4, 8, 1], [7], [9, 5, 3]]
SUBSET = [3, 4, 2, 0, 6, 8, 9, 5, 1, 7]
LOSSES = {
    ("lora", "fp32"): [0.707339, 0.68921],
    ("lora", "bf16"): [0.707619, 0.689127],
    ("full", "fp32"): [0.715, 0.687737],
    ("full", "bf16"): [0.714962, 0.687753],
    ("head_only", "fp32"): [0.707059, 0.689463],
    ("head_only", "bf16"): [0.707305, 0.689417],
}

OTHER = {
    "rating": ("task=movies", "task.target=rating"),
    "text": ("model=tiny_llama", "preset@train=tiny_llama", "task=reverse"),
    "label words": ("model=tiny_llama", "preset@train=tiny_llama", "task.form=text"),
}
OTHER_LOSSES = {"rating": [2.11898, 1.9038], "text": [4.0275, 4.03406], "label words": [2.08643, 1.3975]}


def test_this_is_the_version_of_the_numbers_below() -> None:
    assert NUMERICS_VERSION == 2


def test_the_start_of_A() -> None:
    A = initial_A(Start(0), "layers.0.q", 2, 4)
    assert A.flatten().tolist() == pytest.approx(A_0, abs=1e-7)
    assert A.abs().max() <= 0.5


def test_the_start_of_a_head() -> None:
    assert draw.normal(0, "classifier.weight", (2, 2), 0.02).ravel().tolist() == pytest.approx(HEAD, abs=1e-7)


def test_the_order_of_batches() -> None:
    lengths = [7, 30, 8, 12, 25, 9, 5, 6, 31, 11]
    assert batches(lengths, 3, seed=0, epoch=0) == BATCHES


def test_subsets() -> None:
    assert draw.generator("subset", 0, "train").permutation(10).tolist() == SUBSET


@pytest.mark.parametrize("method", ["lora", "full", "head_only"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_tiny_run(tiny: Callable[..., DictConfig], method: str, dtype: str) -> None:
    """Loss on dev and test after two epochs; the tolerance is what CPUs may differ in."""
    metrics = run_job(tiny(f"method={method}", f"train.dtype={dtype}"))
    found = [metrics["eval/loss"], metrics["test/loss"]]
    assert found == pytest.approx(LOSSES[method, dtype], abs=2e-4 if dtype == "fp32" else 5e-3)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("kind", OTHER)
def test_a_tiny_run_of_another_kind_of_answer(
    tiny: Callable[..., DictConfig], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [Example(str(i), "joy " * (i % 5) + "sad", float(i % 5 - 2), str(i)) for i in range(128)]
    splits = {"train": made[:64], "eval": made[64:96], "test": made[96:]}
    monkeypatch.setattr(RatingsConfig, "load", lambda *_: splits)
    monkeypatch.setattr(encoding, "_encoded", {})
    metrics = run_job(tiny(*OTHER[kind], "train.dtype=fp32"))
    assert [metrics["eval/loss"], metrics["test/loss"]] == pytest.approx(OTHER_LOSSES[kind], abs=2e-4)
