"""The tuners of the installed PEFT, with settings that fit tiny models."""

from collections.abc import Sequence
from typing import Any

import pytest
from omegaconf import DictConfig

from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.methods.peft import declared
from lora_repro.methods.peft.config import NOT_HERE
from lora_repro.store.record import Record
from lora_repro.training.job import run_job

TARGETS = "method.targets=[q,v]"
CASES: dict[str, list[list[str]]] = {
    "LORA": [
        [TARGETS],
        [TARGETS, "method.config={use_dora:true,r:4}"],
        [TARGETS, "method.config={use_rslora:true,r:4}"],
        [TARGETS, "method.config={init_lora_weights:pissa,r:4}"],
        [TARGETS, "method.config={init_lora_weights:olora,r:4}"],
        [TARGETS, "method.config={r:4,bias:lora_only}"],
        [TARGETS, "method.layers=[1]", "method.config={r:4,use_dora:true}"],
        ["method.targets=[q,embed]", "method.config={r:4}"],
        [],
    ],
    "IA3": [[TARGETS], ["method.targets=[k,v,down]"], []],
    "LN_TUNING": [[]],
    "TRAINABLE_TOKENS": [["method.config={token_indices:[5,6,7]}"]],
    **{
        name: [[TARGETS, f"method.config={{{given}}}"]]
        for name, given in {
            "OFT": "oft_block_size:8",
            "BOFT": "boft_block_size:8",
            "C3A": "block_size:8",
            "FOURIERFT": "n_frequency:20",
            "WAVEFT": "n_frequency:20",
            "VBLORA": "vector_length:8,num_vectors:16",
            "GRALORA": "r:4,gralora_k:2",
            "MISS": "r:8,mini_r:8",
            "PSOFT": "r:4",
            "ROAD": "group_size:8",
        }.items()
    },
}
"""What a type is given, where its defaults do not fit a tiny model."""
NOT_TRIED = {"ADAMSS": "needs scikit-learn"}
TYPES = [
    name for name, tuner in declared.tuners().items() if not tuner.is_prompt and name not in (*NOT_HERE, *NOT_TRIED)
]

QUICK = ("LORA", "VERA", "ADALORA", "IA3", "LN_TUNING", "OFT")
"""Those that are always tried; the others are of the long tests."""


def marked(kind: str, *more: object) -> Any:
    """Returns a parameter set of a type, marked as long unless it is always tried."""
    return pytest.param(kind, *more, marks=[] if kind in QUICK else pytest.mark.long)


EACH = [marked(kind) for kind in TYPES]


def overrides(kind: str, family: str, given: Sequence[str] | None = None) -> list[str]:
    """Returns what composes a run of a type on a tiny model."""
    given = CASES.get(kind, [[TARGETS]])[0] if given is None else given
    return [f"model={family}", f"preset@train={family}", "method=peft", f"method.peft_type={kind}", *given]


def computed(cfg: DictConfig) -> tuple[Record, dict[str, Any]]:
    """Computes a run, and returns its record and result."""
    run_job(cfg)
    record = Record(cfg.paths.outputs, run_id(resolve(cfg).run))
    result = record.read().result
    assert result is not None
    return record, result
