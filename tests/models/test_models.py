import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.fixture_types import Compose
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.config.schema import load_group
from lora_repro.errors import InputError, MissingInputError
from lora_repro.models.load import _check_config, load_model
from lora_repro.models.tokenizer import load_tokenizer
from lora_repro.training.job import run_job

CPU = torch.device("cpu")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A tiny BERT on disk, without a head, as a pretrained checkpoint is."""
    torch.manual_seed(0)
    sizes = dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    config = AutoConfig.for_model("bert", max_position_embeddings=80, pad_token_id=0, **sizes)
    folder = tmp_path / "base"
    AutoModelForSequenceClassification.from_config(config).base_model.save_pretrained(folder)
    load_tokenizer(load_group("model", "tiny_bert"), None, "").save_pretrained(str(folder))
    return folder


def local(tiny: Compose, base: Path, *overrides: str) -> DictConfig:
    return tiny("model=local", f"paths.model={base}", "preset@train=tiny_bert", *overrides)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_pooler_is_loaded_and_the_classifier_drawn(tiny: Compose, base: Path) -> None:
    one, other = (load_model(resolve(local(tiny, base, f"seed={seed}")).run, str(base), "", CPU) for seed in (0, 1))
    stored = load_file(base / "model.safetensors")
    for model in (one, other):
        assert torch.equal(model.get_parameter("bert.pooler.dense.weight"), stored["pooler.dense.weight"])
        assert not model.get_parameter("bert.encoder.layer.0.attention.self.query.weight").requires_grad
        assert model.get_parameter("bert.pooler.dense.weight").requires_grad
    assert not torch.equal(one.get_parameter("classifier.weight"), other.get_parameter("classifier.weight"))


def test_a_pooler_that_the_checkpoint_lacks_is_drawn(tiny: Compose, base: Path) -> None:
    weights = base / "model.safetensors"
    save_file({k: v for k, v in load_file(weights).items() if "pooler" not in k}, weights, metadata={"format": "pt"})
    model = load_model(resolve(local(tiny, base)).run, str(base), "", CPU)
    pooler = model.get_parameter("bert.pooler.dense.weight")
    assert pooler.std().item() == pytest.approx(0.02, rel=0.2) and pooler.requires_grad


@pytest.mark.parametrize("damage", ["missing", "shape"])
def test_a_backbone_that_is_not_whole_is_refused(tiny: Compose, base: Path, damage: str) -> None:
    weights, name = base / "model.safetensors", "encoder.layer.1.output.LayerNorm.weight"
    tensors = load_file(weights)
    tensors[name] = tensors[name][:16].clone()
    if damage == "missing":
        del tensors[name]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(MissingInputError, match=r"1 of the backbone's tensors.*layer\.1\.output\.LayerNorm\.weight"):
        run_job(local(tiny, base))


def test_the_identity_of_a_local_model_is_all_that_counts(tiny: Compose, base: Path) -> None:
    def identity() -> str:
        return run_id(resolve(local(tiny, base)).run)

    ids = [identity()]
    edit(base / "config.json", transformers_version="0.0")
    assert identity() == ids[0]
    edit(base / "config.json", num_attention_heads=8)
    ids.append(identity())
    edit(base / "tokenizer_config.json", do_lower_case=False)
    ids.append(identity())
    weights = base / "model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(weights).items()}, weights, metadata={"format": "pt"})
    ids.append(identity())
    assert len(set(ids)) == 4


@pytest.mark.parametrize("form", ["shards", "pickle"])
def test_a_local_model_in_another_form_is_loaded_and_known_by_all_of_its_files(
    tiny: Compose, base: Path, tmp_path: Path, form: str
) -> None:
    whole = resolve(local(tiny, base)).run
    other = Path(shutil.copytree(base, tmp_path / form))
    (other / "model.safetensors").unlink()
    if form == "shards":
        AutoModel.from_pretrained(base).save_pretrained(other, max_shard_size="20KB")
        assert len(list(other.glob("model-*-of-*.safetensors"))) > 2
    else:
        torch.save(load_file(base / "model.safetensors"), other / "pytorch_model.bin")
    run = resolve(local(tiny, other)).run
    assert run_id(run) != run_id(whole)
    expected, model = (load_model(each, str(folder), "", CPU) for each, folder in ((whole, base), (run, other)))
    for (name, a), (_, b) in zip(expected.named_parameters(), model.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    last = max(other.glob("model-*.safetensors" if form == "shards" else "*.bin"))
    changed = {name: tensor + 1 for name, tensor in (load_file(last) if form == "shards" else torch.load(last)).items()}
    if form == "shards":
        save_file(changed, last, metadata={"format": "pt"})
    else:
        torch.save(changed, last)
    assert run_id(resolve(local(tiny, other)).run) != run_id(run)


def test_a_named_model_whose_config_says_otherwise_is_refused(tmp_path: Path) -> None:
    declared = dict(load_group("model", "minilm").config)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(declared | {"architectures": ["BertModel"]}))
    _check_config(path, declared)
    edit(path, num_attention_heads=6)
    with pytest.raises(MissingInputError, match="num_attention_heads is 6, but 12 in conf/model"):
        _check_config(path, declared)


def test_a_run_on_other_weights_is_no_start(tiny: Compose, base: Path) -> None:
    run_job(tiny())
    given = run_id(resolve(tiny()).run)
    with pytest.raises(
        InputError, match=r"adapts other weights: tiny_bert.*here: local.*\nGive the run's own: model=tiny_bert"
    ):
        run_job(local(tiny, base, f"train.init_from={given}"))


def test_an_adapter_without_a_head_starts_a_training_and_scores_nothing(
    tiny: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_job(tiny())
    adapter = Path(tiny().paths.outputs) / "runs" / run_id(resolve(tiny()).run) / "adapter"
    bare = tmp_path / "bare"
    bare.mkdir()
    tensors = {k: v for k, v in load_file(adapter / "adapter_model.safetensors").items() if "lora" in k}
    save_file(tensors, bare / "adapter_model.safetensors")
    with pytest.raises(MissingInputError, match="neither a run id"):
        resolve(tiny(f"train.init_from={bare}"))
    (bare / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text())
    with pytest.raises(InputError, match=r"holds no trained head for this task .*, so there is nothing to score"):
        run_job(tiny("train.epochs=0", f"train.init_from={bare}"))
    run_job(tiny(f"train.init_from={bare}"))
    assert "classifier.weight, classifier.bias start anew" in caplog.text


def test_the_identity_of_a_foreign_adapter_holds_no_path(tiny: Compose, tmp_path: Path) -> None:
    run_job(tiny())
    adapter = Path(tiny().paths.outputs) / "runs" / run_id(resolve(tiny()).run) / "adapter"
    ids = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        for file in adapter.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        edit(folder / "adapter_config.json", base_model_name_or_path=str(folder))
        ids.append(run_id(resolve(tiny(f"train.init_from={folder}")).run))
    assert ids[0] == ids[1]
    edit(tmp_path / "b" / "adapter_config.json", lora_alpha=1)
    assert run_id(resolve(tiny(f"train.init_from={tmp_path / 'b'}")).run) != ids[0]
    of_run = {run_id(resolve(tiny(f"train.init_from={given}")).run) for given in (adapter, adapter.parent)}
    assert len(of_run) == 1
