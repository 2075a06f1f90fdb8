"""The tuners of the installed PEFT, with settings that fit tiny models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.computed_runs import computed
from helpers.fixture_types import Compose
from helpers.local_models import words_tokenizer, write
from peft import PeftModel
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from lora_repro import interrupt
from lora_repro.config.resolve import Resolved, resolve
from lora_repro.methods.peft import declared
from lora_repro.methods.peft.not_offered import NOT_HERE
from lora_repro.models.load import load_model
from lora_repro.tasks.encoding import encode
from lora_repro.training.job import run_job
from lora_repro.training.train import build

CPU = torch.device("cpu")

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
TYPES = [name for name, tuner in declared.tuners().items() if not tuner.is_prompt and name not in NOT_HERE]

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


def plain(cfg: Any) -> nn.Module:
    """Returns the base as transformers computes it, with the same weights."""
    run = resolve(cfg).run
    base = load_model(run, None, "", CPU)
    keys = run.model.config
    config = AutoConfig.for_model(keys["model_type"], **{k: v for k, v in keys.items() if k != "model_type"})
    config.num_labels, config.pad_token_id = 2, config.pad_token_id if config.pad_token_id is not None else 0
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = config.attention_dropout = 0.0
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    missing = model.load_state_dict(base.state_dict(), strict=False)
    assert not missing.unexpected_keys
    return model


def opens_and_scores_again(kind: str, family: str, given: list[str] | None, tiny: Compose, tmp_path: Path) -> None:
    """Holds a run's scores against PEFT's model, opened from its folder, and against a run that scores it again."""
    words, preset = words_tokenizer(pad_token="<unk>"), "bert" if family in ("bert", "roberta") else "llama"
    base = write(tmp_path / "base", family, words, max_position_embeddings=80, initializer_range=0.1)
    local = [
        "model=local",
        f"paths.model={base}",
        f"preset@train=tiny_{preset}",
        *overrides(kind, "", given)[2:],
        "train.learning_rate=0.02",
    ]
    record, result = computed(tiny(*local, "train.max_steps=3"))
    resolved = resolve(again := tiny(*local, "train.epochs=0", f"train.init_from={record.run_id}"))
    model: Any = AutoModelForSequenceClassification.from_pretrained(base)
    theirs = PeftModel.from_pretrained(model, str(record.folder / "adapter")).eval()
    ours, split = build(resolved, CPU).eval(), encode(*resolved[:2])["test"]
    with torch.inference_mode():
        for index in range(4):  # one by one: where there is no padding, transformers too reads a decoder's last token
            inputs = {key: value[[index], : int(split.lengths[index])] for key, value in split.inputs.items()}
            assert torch.allclose(theirs(**inputs).logits, ours(**inputs).logits, atol=1e-5)
    assert computed(again)[1]["metrics"] == result["metrics"]


def same_logits(ours: nn.Module, theirs: nn.Module, resolved: Resolved) -> None:
    """Holds a model's logits of a batch against those of PEFT's model, and computes the gradients of both.

    The batch is cut to its shortest example, so that it holds no padding.
    """
    inputs, targets = encode(*resolved[:2])["train"].batch(list(range(8)), CPU)
    inputs = {key: value[:, : int(inputs["attention_mask"].sum(1).min())] for key, value in inputs.items()}
    one, other = ours(**inputs).logits, theirs(**inputs).logits
    assert torch.allclose(one, other, atol=1e-5)
    nn.functional.cross_entropy(one, targets).backward()
    nn.functional.cross_entropy(other, targets).backward()


def stops_and_goes_on(
    given: list[str], stop_at: int, tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops a run at one of the places where it looks whether it was asked to, and goes on to the same bits."""
    same = [*given, "train.learning_rate=0.02", "train.batch_size=8", "log.checkpoint_every_s=0"]
    record, whole = computed(tiny(*same, f"paths.outputs={tmp_path}/whole"))
    cfg, calls = tiny(*same, f"paths.outputs={tmp_path}/cut"), iter(range(100))

    def stop() -> None:
        if next(calls) == stop_at:
            raise interrupt.AskedToEndError

    with monkeypatch.context() as patched:
        patched.setattr(interrupt, "refuse_to_go_on", stop)
        with pytest.raises(KeyboardInterrupt):
            run_job(cfg)
    other, resumed = computed(cfg)
    assert resumed["metrics_by_epoch"] == whole["metrics_by_epoch"]
    assert resumed["digests"] == whole["digests"]
    name = "adapter/adapter_model.safetensors"
    assert (record.folder / name).read_bytes() == (other.folder / name).read_bytes()
