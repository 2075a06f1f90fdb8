"""The environment that all tests share, set before anything is imported."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks a hub, which costs half a minute a call where there is none
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: more threads are slower, and the workers are two already
os.environ["LORA_REPRO_WANDB"] = "off"  # tests of the mirror ask for it
os.environ.pop("LORA_REPRO_DATA", None)  # a data set of the developer's

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

TINY = ("model=tiny_bert", "task=generated", "task.train_size=64", "task.eval_size=32", "task.test_size=32")
"""A run of a second, without downloads."""


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., DictConfig]:
    """Composes a tiny run with more overrides; its store is the test's own."""
    from helpers.quick_compose import compose_quickly

    return lambda *overrides: compose_quickly([*TINY, f"paths.outputs={tmp_path}", "compute.device=cpu", *overrides])


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs of section7 at scale smoke, made by hand; to be read, not changed."""
    from helpers.section7_runs import fill

    store = tmp_path_factory.mktemp("store")
    fill(store)
    return store


@pytest.fixture
def one_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the inputs are like is kept in one place for all tests that ask for it."""
    monkeypatch.setenv("LORA_REPRO_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
