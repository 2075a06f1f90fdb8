"""A head that is taken over from a run with as many labels of other names."""

import logging
from pathlib import Path

import pytest

from lora_repro.config.compose import compose
from lora_repro.config.resolve import resolve
from lora_repro.config.schema import load_group
from lora_repro.store.adapter import _warn_of_other_labels


@pytest.mark.parametrize(("theirs", "warns"), [("rte", True), ("mrpc", False), ("qqp", True)])
def test_labels_of_other_names_are_told(theirs: str, warns: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Class 0 of rte is entailment and of mrpc not_equivalent: a head of the one starts the other upside down."""
    run = resolve(compose(["model=tiny_bert", "task=mrpc", "train.learning_rate=1e-3"])).run
    with caplog.at_level(logging.WARNING):
        _warn_of_other_labels(run, load_group("task", theirs), Path("run"))
    assert ("train.init_head=anew" in caplog.text) is warns
    assert ("entailment, not_entailment there (task=rte)" in caplog.text) is (theirs == "rte")
