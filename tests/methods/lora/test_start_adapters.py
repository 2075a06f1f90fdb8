"""Adapters of PEFT's as the start of a run: what its own from_pretrained computes, or a refusal."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from helpers.computed_runs import record_of
from helpers.damaged_files import change_json
from helpers.fixture_types import Compose
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.config.schema import load_group
from lora_repro.errors import InputError
from lora_repro.methods import HeadOnlyConfig
from lora_repro.methods.lora import peft, peft_settings
from lora_repro.models.tokenizer import load_tokenizer
from lora_repro.store.adapter import fill
from lora_repro.store.adapter_identity import identify_adapter
from lora_repro.store.digests import sha256_of
from lora_repro.store.layout import TRAINED
from lora_repro.store.record import Record
from lora_repro.training.job import run_job
from lora_repro.training.train import build

CPU = torch.device("cpu")
SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, pad_token_id=0)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A tiny BERT with the tiny tokenizer, its pooler and no classifier, as transformers saves a backbone."""
    torch.manual_seed(0)
    config = AutoConfig.for_model("bert", vocab_size=64, max_position_embeddings=80, **SIZES)
    folder = tmp_path / "base"
    AutoModelForSequenceClassification.from_config(config).base_model.save_pretrained(folder)
    load_tokenizer(load_group("model", "tiny_bert"), None, "").save_pretrained(str(folder))
    return folder


def classifier(base: Path, labels: int = 2) -> PreTrainedModel:
    """The base with a head, for PEFT."""
    torch.manual_seed(1)
    return AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)


def peft_folder(base: Path, labels: int = 2, head: list[str] | None = None, **settings: Any) -> Path:
    """Has PEFT write an adapter of the base, with numbers in every factor and in the head."""
    given = {"r": 4, "lora_alpha": 8, "target_modules": ["query", "value"], **settings}
    config = LoraConfig(task_type=TaskType.SEQ_CLS, modules_to_save=head, **given)
    theirs = get_peft_model(classifier(base, labels), config)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in theirs.named_parameters():
        if "lora_" in name or parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    theirs.save_pretrained(str(base.parent / "adapter"))
    return base.parent / "adapter"


def ours(tiny: Compose, base: Path, adapter: Path, *overrides: str) -> nn.Module:
    """Our model of the run that starts from an adapter, before training."""
    given = (f"train.init_from={adapter}", "train.dtype=fp32", "method.r=4", "method.alpha=8", *overrides)
    return build(resolve(tiny("model=local", f"paths.model={base}", "preset@train=tiny_bert", *given)), CPU).eval()


def same_as_pefts(model: nn.Module, base: Path, adapter: Path) -> bool:
    """Tells whether a model computes what PEFT does, which opens the adapter on the same base."""
    theirs = PeftModel.from_pretrained(classifier(base), str(adapter)).eval()
    inputs = {"input_ids": torch.arange(24).reshape(2, 12) % 64, "attention_mask": torch.ones(2, 12, dtype=torch.long)}
    with torch.inference_mode():
        return torch.allclose(model(**inputs).logits, theirs(**inputs).logits, atol=1e-5)


HEAD = ["classifier", "pooler"]


@pytest.mark.parametrize("start", [True, False, "gaussian", "orthogonal", "mica"])
def test_an_adapter_beside_its_own_base_computes_what_peft_computes(tiny: Compose, base: Path, start: object) -> None:
    adapter = peft_folder(base, head=HEAD, init_lora_weights=start)
    assert same_as_pefts(ours(tiny, base, adapter), base, adapter)


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora"])
@pytest.mark.filterwarnings("ignore:.*PiSSA changes the base weights of the model:UserWarning")
@pytest.mark.filterwarnings("ignore:.*OLoRA changes the base weights of the model:UserWarning")
def test_an_adapter_that_changes_its_base_is_refused_and_the_remedy_scores_as_peft(
    tiny: Compose, base: Path, start: str
) -> None:
    adapter = peft_folder(base, head=HEAD, init_lora_weights=start)
    with pytest.raises(InputError, match=rf"init_lora_weights={start}, which changes the base.*\n.*merge_and_unload"):
        ours(tiny, base, adapter)
    torch.manual_seed(0)
    merged = base.parent / "merged"
    PeftModel.from_pretrained(classifier(base), str(adapter)).merge_and_unload().save_pretrained(str(merged))
    load_tokenizer(load_group("model", "tiny_bert"), None, "").save_pretrained(str(merged))
    given = ("model=local", f"paths.model={merged}", "preset@train=tiny_bert", "train.dtype=fp32")
    model = build(resolve(tiny(*given)), CPU).eval()
    torch.manual_seed(0)
    assert same_as_pefts(model, base, adapter)


@pytest.mark.parametrize("start", ["loftq", "corda", "lora_ga", "CorDA", "magic", ["pissa"], 3])
def test_other_starts_of_peft_are_refused_by_name(tiny: Compose, base: Path, start: object) -> None:
    adapter = peft_folder(base, head=HEAD)
    change_json(adapter / "adapter_config.json", init_lora_weights=start)
    with pytest.raises(InputError, match=r"init_lora_weights.*(changes the base|not known here)"):
        ours(tiny, base, adapter)


def test_every_start_and_every_setting_of_peft_is_known() -> None:
    known = {*peft_settings.WITHOUT_EFFECT, *peft_settings.CHECKED, *peft_settings.MORE_THAN_BA}
    assert {field.name for field in fields(LoraConfig)} - {"runtime_config"} == known - {"merge_weights"}
    starts = [
        str(start).partition("_niter")[0].lower()
        for hint in get_args(get_type_hints(LoraConfig)["init_lora_weights"])
        for start in (get_args(hint) or ["true", "false"])
    ]
    assert set(starts) <= {*peft.DRAWN, *peft.CHANGES_W0} and len(starts) > 5


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_dora", True),
        ("use_qalora", True),
        ("lora_bias", True),
        ("use_bdlora", {"nblocks": 2}),
        ("kasa_config", {"beta": 0.1}),
        ("arrow_config", {"top_k": 2}),
        ("alora_invocation_tokens", [5, 6]),
        ("target_parameters", ["experts.gate_up_proj"]),
        ("trainable_token_indices", [1]),
        ("layer_replication", [[0, 2], [1, 2]]),
        ("monteclora_config", {"n": 4}),
        ("ensure_weight_tying", True),
        ("a_setting_of_a_later_peft", 0.5),
        ("a_switch_of_a_later_peft", 1),
    ],
)
def test_a_setting_that_changes_the_update_is_refused_by_name(
    tiny: Compose, base: Path, key: str, value: object
) -> None:
    adapter = peft_folder(base, head=HEAD)
    change_json(adapter / "adapter_config.json", **{key: value})
    with pytest.raises(InputError, match=rf"the adapter has {key} = .*\nGive an adapter without it"):
        ours(tiny, base, adapter)


@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments:UserWarning")  # PEFT passes over what it does not know
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to True:UserWarning")  # and PEFT goes by the layer
def test_settings_that_change_nothing_are_taken(tiny: Compose, base: Path) -> None:
    adapter = peft_folder(base, head=HEAD)
    neutral = {"a_later_peft": False, "another": [], "fan_in_fan_out": True, "merge_weights": True}
    change_json(adapter / "adapter_config.json", layers_to_transform=[0, 1], exclude_modules=["key"], **neutral)
    assert same_as_pefts(ours(tiny, base, adapter), base, adapter)


@pytest.mark.parametrize(
    "changes",
    [
        {"layers_to_transform": [0]},
        {"layers_to_transform": 1},
        {"exclude_modules": ["value"]},
        {"exclude_modules": r".*layer\.0\.attention.*"},
        {"target_modules": ["query"]},
        {"target_modules": r".*\.query"},
    ],
)
def test_tensors_that_pefts_settings_leave_out_are_refused(tiny: Compose, base: Path, changes: dict[str, Any]) -> None:
    adapter = peft_folder(base, head=HEAD)
    change_json(adapter / "adapter_config.json", **changes)
    with pytest.raises(InputError, match=r"leaves bert\.encoder\.layer\.\d.* as it is"):
        ours(tiny, base, adapter)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r": 8.5}, "r must be a whole number"),
        ({"r": "4"}, "r must be a whole number"),
        ({"r": True}, "r must be a whole number"),
        ({"r": 0}, "1 or more"),
        ({"lora_alpha": "8"}, "lora_alpha must be a number"),
        ({"lora_alpha": True}, "lora_alpha must be a number"),
        ({"rank_pattern": {"query": 2.5}}, "rank_pattern of query must be a whole number"),
        ({"alpha_pattern": {"query": "8"}}, "alpha_pattern of query must be a number"),
        ({"alpha_pattern": [8]}, "must be numbers by name"),
        ({"use_rslora": "false"}, "true or false"),
        ({"target_modules": 5}, "must be a list of names"),
        ({"target_modules": [5]}, "must be a list of names"),
        ({"layers_to_transform": ["0"]}, "must be numbers of layers"),
        ({"alpha_pattern": {"(": 4}}, "is no pattern"),
        ({"alpha_pattern": {"a{99999999999}": 4}}, "too large to match"),
    ],
)
def test_settings_of_a_wrong_type_are_refused(tiny: Compose, base: Path, changes: dict[str, Any], message: str) -> None:
    adapter = peft_folder(base, head=HEAD)
    change_json(adapter / "adapter_config.json", **changes)
    with pytest.raises(InputError, match=message):
        ours(tiny, base, adapter)


def test_a_foreign_head_is_read_in_the_order_of_the_labels_of_its_base(
    tiny: Compose, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = peft_folder(base, head=HEAD)
    inputs = {"input_ids": torch.arange(24).reshape(2, 12) % 64, "attention_mask": torch.ones(2, 12, dtype=torch.long)}
    with torch.inference_mode():
        plain = ours(tiny, base, adapter)(**inputs).logits
        change_json(base / "config.json", id2label={"0": "POSITIVE", "1": "NEGATIVE"})
        assert torch.equal(ours(tiny, base, adapter)(**inputs).logits, plain.flip(1))
        change_json(base / "config.json", id2label={"0": "glad", "1": "sorry"})
        assert torch.equal(ours(tiny, base, adapter)(**inputs).logits, plain)
    assert f"{adapter}: config.json names the labels glad, sorry" in caplog.text


def test_a_saved_head_counts_labels_as_its_base_does_and_is_read_so_again(tiny: Compose, base: Path) -> None:
    change_json(base / "config.json", id2label={"0": "POSITIVE", "1": "NEGATIVE"})
    local = ("model=local", f"paths.model={base}", "preset@train=tiny_bert", "train.dtype=fp32")
    cfg = tiny(*local, "method.r=4", "method.alpha=8")
    metrics = run_job(cfg)
    run = resolve(cfg).run
    folder = Record(cfg.paths.outputs, run_id(run)).folder
    again = run_job(tiny(*local, "method.r=4", "method.alpha=8", "train.epochs=0", f"train.init_from={folder}"))
    assert again == metrics
    mine = ours(tiny, base, folder)
    theirs = PeftModel.from_pretrained(classifier(base), str(folder / "adapter")).eval()
    inputs = {"input_ids": torch.arange(24).reshape(2, 12) % 64, "attention_mask": torch.ones(2, 12, dtype=torch.long)}
    with torch.inference_mode():
        assert torch.allclose(mine(**inputs).logits, theirs(**inputs).logits.flip(1), atol=1e-5)


def test_what_peft_saves_where_all_biases_are_trained_is_read_as_peft_reads_it(tiny: Compose, base: Path) -> None:
    adapter = peft_folder(base, bias="all")
    model = ours(tiny, base, adapter, "method.bias=all")
    assert same_as_pefts(model, base, adapter)


def test_a_key_that_stands_twice_in_the_settings_is_refused(base: Path) -> None:
    path = peft_folder(base, head=HEAD) / "adapter_config.json"
    text = path.read_text()
    for key in ('"r": 8', '"rank_pattern": {"query": 2, "query": 4}'):
        path.write_text(text.rstrip().rstrip("}") + f", {key}, {json.dumps('r')}: 4}}")
        with pytest.raises(InputError, match="twice"):
            identify_adapter(str(path.parent))


def test_settings_nested_without_end_are_refused(base: Path) -> None:
    path = peft_folder(base, head=HEAD) / "adapter_config.json"
    path.write_text("[" * 100_000)
    with pytest.raises(InputError, match="nested deeper"):
        identify_adapter(str(path.parent))


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.float8_e4m3fn])
@pytest.mark.parametrize("part", ["lora_A", "classifier.weight"])
def test_tensors_without_fractions_are_no_weights(tiny: Compose, base: Path, kind: torch.dtype, part: str) -> None:
    path = peft_folder(base, head=HEAD) / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({key: value.to(kind) if part in key else value for key, value in tensors.items()}, path)
    with pytest.raises(InputError, match=r"is stored as .*; only .* are read"):
        ours(tiny, base, path.parent)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_of_other_precisions_are_read(tiny: Compose, base: Path, kind: torch.dtype) -> None:
    path = peft_folder(base, head=HEAD) / "adapter_model.safetensors"
    save_file({key: value.to(kind) for key, value in load_file(path).items()}, path)
    assert same_as_pefts(ours(tiny, base, path.parent), base, path.parent)


def drawn_head(tiny: Compose, base: Path) -> nn.Module:
    """Our model of a run that starts from no adapter."""
    return build(resolve(tiny("model=local", f"paths.model={base}", "preset@train=tiny_bert")), CPU)


def test_what_peft_saves_of_berts_head_by_itself_is_scored_beside_the_bases_pooler(tiny: Compose, base: Path) -> None:
    adapter = peft_folder(base)
    assert not any("pooler" in name for name in load_file(adapter / "adapter_model.safetensors"))
    for epochs in (0, 1):
        assert same_as_pefts(ours(tiny, base, adapter, f"train.epochs={epochs}"), base, adapter)


def test_a_classifier_beside_a_pooler_that_nobody_trained_is_not_scored(
    tiny: Compose, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = peft_folder(base)
    weights = {key: value for key, value in load_file(base / "model.safetensors").items() if "pooler" not in key}
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"holds no trained head for this task .*a part of the head"):
        ours(tiny, base, adapter, "train.epochs=0")
    model = ours(tiny, base, adapter, "train.epochs=1")
    assert "bert.pooler.dense.weight, bert.pooler.dense.bias start anew; classifier" in caplog.text
    stored = load_file(adapter / "adapter_model.safetensors")["base_model.model.classifier.weight"]
    assert model.get_parameter("classifier.weight").equal(stored)
    start = drawn_head(tiny, base).get_parameter("bert.pooler.dense.weight")
    assert model.get_parameter("bert.pooler.dense.weight").equal(start)


def test_an_adapter_without_a_head_is_scored_with_the_head_of_its_base(tiny: Compose, base: Path) -> None:
    classifier(base).save_pretrained(base)
    adapter = peft_folder(base)
    path = adapter / "adapter_model.safetensors"
    save_file({key: value for key, value in load_file(path).items() if "lora_" in key}, path)
    change_json(adapter / "adapter_config.json", task_type=None, modules_to_save=None)
    assert same_as_pefts(ours(tiny, base, adapter, "train.epochs=0"), base, adapter)


@pytest.mark.parametrize("head", [None, HEAD])
def test_of_an_adapter_for_three_labels_a_task_with_two_takes_the_updates_and_draws_the_head(
    tiny: Compose, base: Path, head: list[str] | None, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = peft_folder(base, labels=3, head=head)
    with pytest.raises(InputError, match=r"head is of 3 labels, the task's of 2\), so there is nothing to score"):
        ours(tiny, base, adapter, "train.epochs=0")
    model, start = ours(tiny, base, adapter), drawn_head(tiny, base)
    assert "the adapter's head is of 3 labels, the task's of 2, so classifier.weight" in caplog.text
    for name in ("classifier.weight", "classifier.bias", "bert.pooler.dense.weight"):
        assert model.get_parameter(name).equal(start.get_parameter(name))
    stored = load_file(adapter / "adapter_model.safetensors")
    factors = [name for name, _ in model.named_parameters() if name.endswith("lora_B")]
    assert len(factors) == 4 == sum("lora_B" in key for key in stored)
    for name in factors:
        module = name.partition(".updates.")[0]
        assert model.get_parameter(name).equal(stored[f"base_model.model.{module}.lora_B.weight"])


def test_a_head_alone_for_three_labels_is_no_start_for_two(tiny: Compose, base: Path, tmp_path: Path) -> None:
    run = resolve(tiny("model=local", f"paths.model={base}", "preset@train=tiny_bert", "method=head_only")).run
    model = classifier(base)
    model.base_model.requires_grad_(False)
    save_file({"classifier.weight": torch.ones(3, 32), "classifier.bias": torch.ones(3)}, tmp_path / TRAINED)
    with pytest.raises(InputError, match="has shape"):
        fill(model, run.arch, HeadOnlyConfig(name="head_only"), tmp_path, [], is_trained=True)


def test_the_record_says_what_a_run_started_from(tiny: Compose, base: Path) -> None:
    adapter = peft_folder(base, labels=3)
    given = ("model=local", f"paths.model={base}", "preset@train=tiny_bert", "method.r=4", "method.alpha=8")
    cfg = tiny(*given, f"train.init_from={adapter}", "train.epochs=1", "train.max_steps=1")
    run_job(cfg)
    result = record_of(cfg).read().result
    assert result is not None
    origin = result["provenance"]["init_from"]
    assert origin["head"].startswith("drawn anew: classifier.weight, classifier.bias (the adapter's head is of 3")
    assert origin["files"] == {path.name: sha256_of(path) for path in sorted(adapter.glob("adapter_*"))}


def test_a_head_that_fits_is_taken_over_or_drawn_anew_as_asked(tiny: Compose, base: Path) -> None:
    """The paper takes over LoRA's modules; the authors' code takes the head of as many labels too."""
    adapter = peft_folder(base, labels=2, head=HEAD)
    given = ("model=local", f"paths.model={base}", "preset@train=tiny_bert", "method.r=4", "method.alpha=8")
    short = ("train.epochs=1", "train.max_steps=1")
    drawn = build(resolve(tiny(*given)), CPU).state_dict()
    theirs = load_file(adapter / "adapter_model.safetensors")
    ids = set()
    for asked, weight in (
        ("fitting", theirs["base_model.model.classifier.weight"]),
        ("anew", drawn["classifier.weight"]),
    ):
        cfg = tiny(*given, *short, f"train.init_from={adapter}", f"train.init_head={asked}")
        model = build(resolve(cfg), CPU).state_dict()
        assert torch.equal(model["classifier.weight"], weight)
        ours_a, their_a = (
            next(
                value for name, value in tensors.items() if "layer.0.attention.self.query" in name and "lora_A" in name
            )
            for tensors in (model, theirs)
        )
        assert torch.equal(ours_a, their_a)
        run_job(cfg)
        result = record_of(cfg).read().result
        assert result is not None
        ids.add(result["run_id"])
        head = result["provenance"]["init_from"]["head"]
        assert (
            head == "the adapter's"
            if asked == "fitting"
            else head.endswith("init_head=anew leaves the adapter's head out)")
        )
    without = tiny(*given, *short, f"train.init_from={adapter}")
    assert run_id(resolve(without).run) in ids and len(ids) == 2


def test_a_head_that_is_left_out_is_not_scored_and_needs_a_start(tiny: Compose, base: Path, tmp_path: Path) -> None:
    adapter = peft_folder(base, head=HEAD)
    with pytest.raises(InputError, match=r"no trained head for this task .*init_head=anew leaves"):
        ours(tiny, base, adapter, "train.init_head=anew", "train.epochs=0")
    with pytest.raises(InputError, match="init_head=anew: is for a run that starts from another one"):
        resolve(tiny("train.init_head=anew"))
    run, model = resolve(tiny("method=head_only")).run, build(resolve(tiny("method=head_only")), CPU)
    save_file(
        {name: value for name, value in model.state_dict().items() if name.startswith("classifier")}, tmp_path / TRAINED
    )
    with pytest.raises(InputError, match="a head and nothing else"):
        fill(
            model, run.arch, HeadOnlyConfig(name="head_only"), tmp_path, [], is_trained=True, without_head="not wanted"
        )


def test_an_adapter_that_changes_between_the_id_and_the_start_is_refused(tiny: Compose, base: Path) -> None:
    adapter = peft_folder(base)
    given = (f"train.init_from={adapter}", "method.r=4", "method.alpha=8")
    resolved = resolve(tiny("model=local", f"paths.model={base}", "preset@train=tiny_bert", *given))
    path = adapter / "adapter_model.safetensors"
    save_file({key: 3 * value for key, value in load_file(path).items()}, path)
    with pytest.raises(InputError, match="was changed after this run got its id from it"):
        build(resolved, CPU)


@pytest.mark.parametrize(("said", "is_told"), [("org/theirs", True), ("MINE", False), ("other/mine", False)])
def test_an_adapter_that_names_another_base_says_so(
    tiny: Compose, base: Path, said: str, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = peft_folder(base)
    change_json(adapter / "adapter_config.json", base_model_name_or_path=said)
    given = (f"train.init_from={adapter}", "method.r=4", "method.alpha=8")
    resolved = resolve(tiny("model=local", f"paths.model={base}", "preset@train=tiny_bert", *given))
    resolved.run.model.hub = "org/mine"
    build(resolved, CPU)
    assert (f"says that its base is {said}, and this run's is org/mine" in caplog.text) is is_told
