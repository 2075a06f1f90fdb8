"""Runs that are really computed, in this process, and their records."""

import signal
from typing import Any

import pytest
from omegaconf import DictConfig

from lora_repro import interrupt
from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.store.record import Record
from lora_repro.training.checkpoint import Checkpointer, TrainState
from lora_repro.training.job import run_job


def record_of(cfg: DictConfig) -> Record:
    """Returns the record of a run, computed or not."""
    return Record(cfg.paths.outputs, run_id(resolve(cfg).run))


def computed(cfg: DictConfig) -> tuple[Record, dict[str, Any]]:
    """Computes a run, and returns its record and result."""
    run_job(cfg)
    record = record_of(cfg)
    result = record.read().result
    assert result is not None
    return record, result


def interrupted(cfg: DictConfig, monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """Computes a run until `after_step` is called for this time, from 1, where a signal arrives."""
    seen, after_step = [], Checkpointer.after_step

    def hear(checkpointer: Checkpointer, state: TrainState) -> None:
        seen.append(state.step)
        if len(seen) == calls:
            monkeypatch.setattr(interrupt, "_requested", signal.SIGTERM)
        after_step(checkpointer, state)

    with monkeypatch.context() as patch:
        patch.setattr(interrupt, "_is_program", True)
        patch.setattr(Checkpointer, "after_step", hear)
        with pytest.raises(KeyboardInterrupt):
            run_job(cfg)
    monkeypatch.setattr(interrupt, "_requested", None)
