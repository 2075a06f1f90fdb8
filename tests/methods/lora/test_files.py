import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers.computed_runs import record_of
from helpers.damaged_files import change_json
from helpers.fixture_types import Compose
from helpers.local_models import words_tokenizer, write
from helpers.store_contents import contents
from omegaconf import DictConfig
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.errors import InputError, MissingInputError
from lora_repro.store.record import Record, plain
from lora_repro.tasks.encoding import encode
from lora_repro.training.job import run_job
from lora_repro.training.train import build

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),  # PEFT asks by an old name
    pytest.mark.filterwarnings("ignore:Could not find a config file in local"),  # the base is no repository of the hub
]

CPU = torch.device("cpu")
FAMILIES = {"bert": {"pad_token_id": 0}, "roberta": {"pad_token_id": 1, "type_vocab_size": 1}}


@pytest.fixture(params=FAMILIES)
def local(request: pytest.FixtureRequest, tmp_path: Path, tiny: Compose) -> Callable[..., DictConfig]:
    """A tiny BERT or RoBERTa on disk, as a user of model=local has it, with the tiny tokenizer."""
    from lora_repro.config.schema import load_group
    from lora_repro.models.tokenizer import load_tokenizer

    torch.manual_seed(0)
    sizes = dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    config = AutoConfig.for_model(request.param, max_position_embeddings=80, **sizes, **FAMILIES[request.param])
    folder = tmp_path / "base"
    AutoModelForSequenceClassification.from_config(config).base_model.save_pretrained(folder)
    load_tokenizer(load_group("model", "tiny_bert"), None, "").save_pretrained(str(folder))
    return lambda *overrides: tiny(
        "model=local", f"paths.model={folder}", "preset@train=tiny_bert", "method.targets=[q,k,v,o]", *overrides
    )


def test_peft_opens_the_adapter_on_the_same_base_and_gives_equal_logits(local: Compose) -> None:
    cfg = local("method.alpha=16")
    run_job(cfg)
    resolved = resolve(cfg)
    record = Record(cfg.paths.outputs, run_id(resolved.run))
    base = AutoModelForSequenceClassification.from_pretrained(cfg.paths.model, num_labels=2)
    theirs = PeftModel.from_pretrained(base, str(record.folder / "adapter")).eval()
    inputs, _ = encode(resolved.run, resolved.settings)["test"].batch(list(range(32)), CPU)
    stored = _stored_logits(record, "test")
    with torch.inference_mode():
        assert torch.allclose(theirs(**inputs).logits, stored, atol=1e-5)
        with theirs.disable_adapter():
            assert not torch.allclose(theirs(**inputs).logits, stored, atol=1e-3)
    assert str(cfg.paths.model) not in (record.folder / "adapter" / "adapter_config.json").read_text()


def test_what_peft_saves_can_be_scored(local: Compose, tmp_path: Path) -> None:
    cfg = local()
    run_job(cfg)
    record = record_of(cfg)
    base = AutoModelForSequenceClassification.from_pretrained(cfg.paths.model, num_labels=2)
    PeftModel.from_pretrained(base, str(record.folder / "adapter")).save_pretrained(str(tmp_path / "theirs"))
    scored = local("train.epochs=0", f"train.init_from={tmp_path / 'theirs'}")
    assert _metrics(scored) == pytest.approx(_last(record))


@pytest.mark.parametrize(("method", "form"), [("lora", "id"), ("head_only", "folder")])
def test_zero_epochs_score_a_run_without_training(tiny: Compose, method: str, form: str) -> None:
    cfg = tiny(f"method={method}")
    run_job(cfg)
    record = record_of(cfg)
    given = record.run_id if form == "id" else record.folder
    scored = tiny(f"method={method}", "train.epochs=0", f"train.init_from={given}")
    assert _metrics(scored) == _last(record)
    result = Record(cfg.paths.outputs, run_id(resolve(scored).run)).read().result
    assert result is not None and result["flags"]["untrained"] and result["train_examples_per_s"] is None


def test_zero_epochs_without_an_adapter_score_the_heads_start(tiny: Compose) -> None:
    assert _metrics(tiny("train.epochs=0")) == _metrics(tiny("train.epochs=0", "method=head_only"))


def test_a_runs_id_and_its_directory_are_one_identity(tiny: Compose) -> None:
    cfg = tiny()
    run_job(cfg)
    name = run_id(resolve(cfg).run)
    by_id, by_folder = (tiny(f"train.init_from={given}") for given in (name, f"{cfg.paths.outputs}/runs/{name}"))
    assert run_id(resolve(by_id).run) == run_id(resolve(by_folder).run) != name


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.r=4"], "the adapter has r = 8 and alpha = 8.*\nGive the adapter's: method.r=8 method.alpha=8"),
        (["method.alpha=4"], "Give the adapter's"),
        (["method.targets=[q]"], "holds 4 tensors that method=lora-r8-q has no place for"),
        (
            ["method.targets=[q,k,v]"],
            "leaves .*key as it is, and the method adapts it.*\nGive method.targets and method.layers as",
        ),
        (["method=head_only"], "was trained with method=lora, and this run has method=head_only"),
    ],
)
def test_an_adapter_of_another_method_is_refused(tiny: Compose, overrides: list[str], message: str) -> None:
    cfg = tiny()
    run_job(cfg)
    name = run_id(resolve(cfg).run)
    with pytest.raises(InputError, match=message):
        run_job(tiny("train.epochs=0", f"train.init_from={name}", *overrides))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "is damaged"),
        (lambda path: save_file({k: v * torch.nan for k, v in load_file(path).items()}, path), "not finite"),
        (lambda path: save_file({k: v[..., :1].clone() for k, v in load_file(path).items()}, path), "has shape"),
        (lambda path: path.unlink(), "holds no adapter_model.safetensors"),
    ],
)
def test_a_damaged_adapter_of_a_result_without_digests_is_refused(
    tiny: Compose, damage: Callable[[Path], None], message: str
) -> None:
    cfg = tiny()
    run_job(cfg)
    record = record_of(cfg)
    change_json(record.folder / "result.json", digests=None)
    damage(record.folder / "adapter" / "adapter_model.safetensors")
    with pytest.raises(InputError, match=message):
        run_job(tiny("train.epochs=0", f"train.init_from={record.run_id}"))


def test_an_adapter_of_replicated_layers_is_no_start(tiny: Compose, tmp_path: Path) -> None:
    """Its second layer may be a copy of the base's first: names and shapes fit, the layers are others."""
    cfg = tiny()
    run_job(cfg)
    folder = shutil.copytree(record_of(cfg).folder / "adapter", tmp_path / "theirs")
    settings = folder / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"layer_replication": [[0, 1], [0, 1]]}))
    with pytest.raises(InputError, match="layer_replication"):
        run_job(tiny("train.epochs=0", f"train.init_from={folder}"))


def test_a_run_that_does_not_exist_is_refused(tiny: Compose) -> None:
    with pytest.raises(MissingInputError, match="no run tiny_bert-x-s0-0123456789"):
        run_job(tiny("train.init_from=tiny_bert-x-s0-0123456789"))


def test_full_fine_tuning_keeps_no_weights_and_says_so(tiny: Compose) -> None:
    cfg = tiny("method=full")
    run_job(cfg)
    with pytest.raises(InputError, match=r"saved no weights: method=full does only with log\.save_full=true"):
        run_job(tiny("method=full", "train.epochs=0", f"train.init_from={run_id(resolve(cfg).run)}"))


def test_a_start_of_a_restored_ledger_says_how_its_weights_are_computed_again(tiny: Compose) -> None:
    cfg = tiny()
    run_job(cfg)
    record = record_of(cfg)
    curves = contents(record.folder)["metrics.jsonl"]
    shutil.rmtree(record.folder / "adapter")
    for name in ("config.yaml", "metrics.jsonl"):
        (record.folder / name).unlink()
    given = [record.run_id, str(record.folder), str(record.folder / "adapter")]
    starts = [tiny("train.epochs=0", f"train.init_from={each}") for each in given]
    for start in starts:
        with pytest.raises(MissingInputError, match=r"has no weights here.*\n.*log\.save_full=true log\.rebuild=true"):
            run_job(start)
    run_job(tiny("log.save_full=true", "log.rebuild=true"))
    assert {run_id(resolve(start).run) for start in starts} == {run_id(resolve(starts[0]).run)}
    assert run_job(starts[2]) == run_job(starts[0]) == _last(record)
    assert contents(record.folder)["metrics.jsonl"] == curves
    assert yaml.safe_load((record.folder / "config.yaml").read_text())["run"] == plain(resolve(cfg).run)


def _stored_logits(record: Record, split: str) -> torch.Tensor:
    import pandas as pd

    stored = pd.read_parquet(record.folder / "predictions.parquet")
    rows = stored[(stored.split == split) & (stored.epoch == stored.epoch.max())]
    return torch.tensor(np.stack(rows.scores.tolist()), dtype=torch.float32)


def _metrics(cfg: DictConfig) -> dict[str, float]:
    return run_job(cfg)


def _last(record: Record) -> dict[str, float]:
    result = record.read().result
    assert result is not None
    return result["metrics"]


DECODERS: dict[str, dict[str, object]] = {
    "gpt2": dict(n_embd=32, n_layer=2, n_head=4, n_positions=80),
    "gpt_neox": dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64),
    "llama": dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64),
}


def decoder(family: str, folder: Path, tiny: Compose) -> Compose:
    """A tiny language model on disk, trained and scored in words."""
    from lora_repro.config.schema import load_group
    from lora_repro.models.tokenizer import load_tokenizer

    torch.manual_seed(0)
    tokens = dict(vocab_size=64, bos_token_id=2, eos_token_id=3, pad_token_id=0)
    config = AutoConfig.for_model(family, **tokens, **DECODERS[family])
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    load_tokenizer(load_group("model", "tiny_bert"), None, "").save_pretrained(str(folder))
    return lambda *overrides: tiny(
        "model=local", f"paths.model={folder}", "preset@train=tiny_llama", "task.form=text", *overrides
    )


def scores(model: torch.nn.Module, cfg: DictConfig) -> torch.Tensor:
    """What a foreign model says of the labels of the test split, by our objective."""
    from lora_repro.config.schema import Dtype

    resolved = resolve(cfg)
    split = encode(resolved.run, resolved.settings)["test"]
    with torch.inference_mode():
        return split.outputs(model, list(range(32)), Dtype.fp32, CPU)


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("gpt2", ["method.targets=[q,k,v,o,up]", "method.r_pattern={v:2}", "method.bias=all"]),
        ("gpt_neox", ["method.targets=[k,v,down]", "method.rslora=true"]),
        ("llama", ["method.targets=[q,gate,embed]", "method.loraplus_lr_ratio=4"]),
    ],
)
def test_peft_opens_adapters_of_language_models_and_ours_are_read_back(
    family: str, overrides: list[str], tiny: Compose, tmp_path: Path
) -> None:
    local = decoder(family, tmp_path / "base", tiny)
    cfg = local(*overrides)
    run_job(cfg)
    record = record_of(cfg)
    base = AutoModelForCausalLM.from_pretrained(cfg.paths.model)
    theirs = PeftModel.from_pretrained(base, str(record.folder / "adapter")).eval()
    stored = _stored_logits(record, "test")
    assert torch.allclose(scores(theirs.get_base_model(), cfg), stored, atol=1e-5)
    if "method.bias=all" not in overrides:  # PEFT keeps trained biases when an adapter is disabled, and warns
        with theirs.disable_adapter():
            assert not torch.allclose(scores(theirs.get_base_model(), cfg), stored, atol=1e-3)
    assert _metrics(local(*overrides, "train.epochs=0", f"train.init_from={record.run_id}")) == _last(record)


@pytest.mark.parametrize(
    "family", ["bert", "gpt2", *(pytest.param(name, marks=pytest.mark.long) for name in ("gpt_neox", "llama"))]
)
def test_peft_opens_an_adapter_of_some_layers_and_changes_no_other(family: str, tiny: Compose, tmp_path: Path) -> None:
    if family == "bert":
        write(tmp_path / "base", "bert", words_tokenizer(pad_token="<unk>"), max_position_embeddings=80)
        local = partial(tiny, "model=local", f"paths.model={tmp_path / 'base'}", "preset@train=tiny_bert")
    else:
        local = decoder(family, tmp_path / "base", tiny)
    given = ("method.targets=[q,v,o]", "method.layers=[1]", "method.r=3", "method.alpha=12")
    cfg = local(*given)
    run_job(cfg)
    resolved = resolve(cfg)
    record = Record(cfg.paths.outputs, run_id(resolved.run))
    settings = json.loads((record.folder / "adapter" / "adapter_config.json").read_text())
    assert settings["layers_to_transform"] == [1]
    auto = AutoModelForSequenceClassification if family == "bert" else AutoModelForCausalLM
    theirs = PeftModel.from_pretrained(auto.from_pretrained(cfg.paths.model), str(record.folder / "adapter")).eval()
    adapted = {name.split(".lora_A")[0] for name, _ in theirs.named_parameters() if ".lora_A" in name}
    assert adapted and all(".1." in name for name in adapted)
    logits = scores(theirs.get_base_model(), cfg)
    assert torch.allclose(logits, _stored_logits(record, "test"), atol=1e-5)
    assert _metrics(local(*given, "train.epochs=0", f"train.init_from={record.run_id}")) == _last(record)
    with pytest.raises(InputError, match=r"method\.layers as the adapter has them"):
        run_job(local("method.targets=[q,v,o]", *given[2:], "train.epochs=0", f"train.init_from={record.run_id}"))


def test_pefts_one_update_of_a_fused_layer_is_split_into_q_k_and_v(tiny: Compose, tmp_path: Path) -> None:
    local = decoder("gpt2", tmp_path / "base", tiny)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=["c_attn"], fan_in_fan_out=True)).eval()
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    theirs.save_pretrained(str(tmp_path / "theirs"))
    given = ["method.r=4", "method.alpha=8", "train.epochs=0", f"train.init_from={tmp_path / 'theirs'}"]
    cfg = local("method.targets=[q,k,v]", *given)
    run_job(cfg)
    stored = _stored_logits(record_of(cfg), "test")
    assert torch.allclose(scores(theirs.get_base_model(), cfg), stored, atol=1e-5)
    with pytest.raises(InputError, match="changes q, k and v"):
        run_job(local("method.targets=[q,v]", *given))


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning")
@pytest.mark.parametrize(
    "method",
    [("method.r=4", "method.alpha=8"), ("method=peft", "method.config={r:4,lora_alpha:8}")],
    ids=("lora", "peft"),
)
def test_an_adapter_of_the_embedding_is_read_without_the_frozen_table_that_peft_saves_too(
    method: tuple[str, str], tiny: Compose, tmp_path: Path
) -> None:
    local = decoder("llama", tmp_path / "base", tiny)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "embed_tokens"])).eval()
    for name, parameter in theirs.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    theirs.save_pretrained(str(tmp_path / "theirs"))
    table = "base_model.model.model.embed_tokens.base_layer.weight"
    assert table in load_file(tmp_path / "theirs" / "adapter_model.safetensors")
    cfg = local(*method, "method.targets=[q,embed]", "train.epochs=0", f"train.init_from={tmp_path / 'theirs'}")
    run_job(cfg)
    stored = _stored_logits(record_of(cfg), "test")
    assert torch.allclose(scores(theirs.get_base_model(), cfg), stored, atol=1e-5)


def test_factors_that_are_not_those_of_pefts_file_beside_are_refused(tiny: Compose, tmp_path: Path) -> None:
    local = decoder("gpt2", tmp_path / "base", tiny)
    run_job(local())
    folder = Record(tmp_path, run_id(resolve(local()).run)).folder / "adapter"
    copy = shutil.copytree(folder, tmp_path / "copy")
    given = ("train.epochs=0", f"train.init_from={copy}")
    build(resolve(local(*given)), CPU)
    path = copy / "factors.safetensors"
    save_file({key: 3 * value for key, value in load_file(path).items()}, path)
    with pytest.raises(InputError, match=r"does not hold the same adapter as adapter_model\.safetensors beside it"):
        build(resolve(local(*given)), CPU)
