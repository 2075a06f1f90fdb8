"""Models whose architecture is read from their folder are trained, resumed, merged and opened by PEFT."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fixture_types import Compose
from helpers.local_models import words_tokenizer, write
from helpers.store_contents import contents
from omegaconf import DictConfig
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from lora_repro import interrupt
from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.library import attach_lora
from lora_repro.methods.lora.layers import merge
from lora_repro.models.load import load_model
from lora_repro.store.record import Record
from lora_repro.tasks.encoding import encode
from lora_repro.training import checkpoint
from lora_repro.training.checkpoint import Checkpointer
from lora_repro.training.job import run_job
from lora_repro.training.train import build

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),  # PEFT asks by an old name
    pytest.mark.filterwarnings("ignore:Could not find a config file in local"),  # the base is no repository of the hub
]
CPU = torch.device("cpu")
FAMILIES = ["qwen3", "gemma", "distilbert"]
STREAM = ("input_layernorm", "model.norm", "layer_norm", "LayerNorm")
"""Norms that read the residual stream; others read products, which are bf16."""


def local(tiny: Compose, folder: Path, family: str, *overrides: str, **config: Any) -> DictConfig:
    if not folder.exists():
        write(folder, family, words_tokenizer(pad_token="<unk>"), initializer_range=0.1, **config)
    return tiny(
        "model=local", f"paths.model={folder}", "preset@train=tiny_llama", "train.dtype=fp32", "train.epochs=1",
        "task.train_size=32", "task.eval_size=16", "task.test_size=16", *overrides,
    )  # fmt: skip


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    after_step = Checkpointer.after_step

    def hear(checkpointer: Checkpointer, state: checkpoint.TrainState) -> None:
        if state.step == step:
            monkeypatch.setattr(interrupt, "_requested", signal.SIGTERM)
        after_step(checkpointer, state)

    monkeypatch.setattr(interrupt, "_is_program", True)
    monkeypatch.setattr(Checkpointer, "after_step", hear)


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_resumed_run_equals_the_undisturbed_one_and_trains_what_it_counts(
    family: str, method: str, tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    same = [f"method={method}", "log.save_full=true", "train.batch_size=16"]
    whole, cut = (local(tiny, tmp_path / "m", family, *same, f"paths.outputs={name}") for name in ("whole", "cut"))
    run_job(whole)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, 1)
        run_job(cut)
    run_job(cut)
    expected, found = contents(tmp_path / "whole"), contents(tmp_path / "cut")
    for files in (expected, found):
        files.pop(next(name for name in files if name.endswith("config.yaml")))  # paths.outputs stands in it
    assert found == expected
    run = resolve(cut).run
    result = Record("cut", run_id(run)).read().result
    assert result is not None and (result["merge_max_abs_error"] or 0) < 1e-5
    count = run.method.count(run.arch)
    assert result["params"]["method"] == count.method and result["params"]["head"] == run.arch.head_size > 0
    if method == "full":
        theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")
        assert count.trainable == sum(parameter.numel() for parameter in theirs.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_opens_the_adapter_and_gives_equal_logits(family: str, tiny: Compose, tmp_path: Path) -> None:
    """Every matrix is adapted; of Gemma's embedding, whose rows are scaled, PEFT scales the update too."""
    targets = "[q,k,v,o,up,down,embed]" if family == "distilbert" else "[q,k,v,o,gate,up,down,embed]"
    adapted = (f"method.targets={targets}", "method.alpha=64")
    cfg = local(tiny, tmp_path / "m", family, *adapted, "train.learning_rate=0.05")
    run_job(cfg)
    resolved = resolve(cfg)
    record = Record(cfg.paths.outputs, run_id(resolved.run))
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")
    theirs = PeftModel.from_pretrained(base, str(record.folder / "adapter")).eval()
    split = encode(resolved.run, resolved.settings)["test"]
    again = ("train.epochs=0", f"train.init_from={record.folder / 'adapter'}")
    scored = resolve(local(tiny, tmp_path / "m", family, *adapted, *again))
    ours = build(scored, CPU).eval()
    row = split.inputs["input_ids"][0][None, : int(split.lengths[0])]
    with torch.inference_mode():
        logits = ours(input_ids=row, attention_mask=torch.ones_like(row)).logits
        assert torch.allclose(theirs(input_ids=row).logits, logits, atol=1e-5)
        with theirs.disable_adapter():
            assert not torch.allclose(theirs(input_ids=row).logits, logits, atol=1e-3)
        merge(ours)
        assert torch.allclose(ours(input_ids=row, attention_mask=torch.ones_like(row)).logits, logits, atol=1e-4)


def test_an_adapted_embedding_leaves_the_output_layer_that_is_tied_to_it(tiny: Compose, tmp_path: Path) -> None:
    """Also once it is merged: the token embedding changes, and the frozen table still reads the words' likelihoods."""
    folder = write(tmp_path / "m", "gemma", words_tokenizer(pad_token="<unk>"), auto=AutoModelForCausalLM)
    cfg = tiny(
        "model=local", f"paths.model={folder}", "preset@train=tiny_llama", "train.dtype=fp32", "task.form=text",
        "method.targets=[embed]", "task.train_size=8", "task.eval_size=8", "task.test_size=8",
    )  # fmt: skip
    model = build(resolve(cfg), CPU).eval()
    frozen = AutoModelForCausalLM.from_pretrained(folder).get_parameter("model.embed_tokens.weight")
    ids = torch.arange(3, 11)[None]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_A"):
                parameter.normal_()
        before = model(input_ids=ids).logits
        merge(model)
        assert torch.allclose(model(input_ids=ids).logits, before, atol=1e-4)
    assert torch.equal(model.get_parameter("lm_head.weight"), frozen)
    assert not torch.equal(model.get_parameter("model.embed_tokens.weight"), frozen)


def test_a_merged_embedding_is_tied_to_nothing_wherever_it_is_read(tiny: Compose, tmp_path: Path) -> None:
    """Tying them again would put the changed table into the output layer."""
    tokenizer = words_tokenizer(pad_token="<unk>")
    base = write(tmp_path / "base", "gemma", tokenizer, auto=AutoModelForCausalLM)
    lora = attach_lora(AutoModelForCausalLM.from_pretrained(base).eval(), ["embed"], r=2, alpha=2)
    lora.model.get_parameter("model.embed_tokens.updates.embed.lora_A").data.normal_()
    ids = torch.arange(3, 11)[None]
    with torch.no_grad():
        before = lora.model(input_ids=ids).logits
        merged = lora.merge()
        merged.tie_weights()
        merged.save_pretrained(tmp_path / "m")
        tokenizer.save_pretrained(tmp_path / "m")
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
        theirs.tie_weights()
        given = tiny("model=local", f"paths.model={tmp_path / 'm'}", "preset@train=tiny_llama", "task.form=text")
        ours = load_model(resolve(given).run, str(tmp_path / "m"), "", CPU)
        for model in (merged, theirs, ours):
            assert torch.allclose(model.eval()(input_ids=ids).logits, before, atol=1e-4)
    assert not theirs.config.tie_word_embeddings and not merged.all_tied_weights_keys


@pytest.mark.parametrize("family", [*FAMILIES, "gemma3_text"])
def test_the_residual_stream_has_the_dtype_of_the_products(family: str, tiny: Compose, tmp_path: Path) -> None:
    """Gemma's embeddings are scaled by the root of d_model, which is 5.66 here and 5.65625 in bf16."""
    scores: dict[str, torch.Tensor] = {}
    streams: dict[str, list[torch.dtype]] = {"fp32": [], "bf16": []}
    for dtype in ("fp32", "bf16"):
        resolved = resolve(local(tiny, tmp_path / "m", family, f"train.dtype={dtype}", "method.targets=[q,v]"))
        model = build(resolved, CPU).eval()
        split = encode(resolved.run, resolved.settings)["eval"]
        norms = [module for name, module in model.named_modules() if name.endswith(STREAM)]
        for norm in norms:
            norm.register_forward_pre_hook(lambda _, inputs, found=streams[dtype]: found.append(inputs[0].dtype))
        with torch.inference_mode():
            scores[dtype] = split.outputs(model, list(range(16)), resolved.run.train.dtype, CPU).float()
    assert len(streams["fp32"]) >= 3 and set(streams["fp32"]) == {torch.float32}
    assert len(streams["bf16"]) >= 3 and set(streams["bf16"]) == {torch.bfloat16}
    error = (scores["bf16"] - scores["fp32"]).abs().max() / scores["fp32"].std()
    assert 0 < error < 0.06
