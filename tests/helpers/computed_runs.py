"""Runs that are really computed, in this process, and their records."""

from typing import Any

from omegaconf import DictConfig

from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.store.record import Record
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
