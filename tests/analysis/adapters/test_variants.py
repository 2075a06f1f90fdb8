"""Each variant of LoRA, and each other method, that PEFT can write: its true dW, or a refusal that says what it is."""

import json
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import peft
import pytest
import torch
from helpers.foreign_adapters import base
from helpers.handmade_adapters import factors, write_peft
from peft import AdaLoraConfig, LoHaConfig, LoKrConfig, LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from peft.tuners.lora.config import BdLoraConfig, KasaConfig, MontecloraConfig, VeloraConfig
from peft.utils.peft_types import PeftType
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from analysis.adapters import Adapter, Matrix, Options, beside, read
from analysis.adapters.beside import METHODS
from analysis.section7.inspection import inspect, notes_on
from lora_repro.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT and transformers warn of each other's old names

QV: dict[str, Any] = dict(target_modules=["q_proj", "v_proj"])
QUERY: dict[str, Any] = dict(target_modules=["query"])
TRAINED = ("lora_", "hada_", "lokr_", "trainable_tokens_delta")


def build(folder: Path, config: PeftConfig, model: nn.Module | None = None) -> PeftModel:
    """Has PEFT write an adapter of random numbers."""
    theirs = cast(PeftModel, get_peft_model(cast(Any, model if model is not None else base("llama")), config))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in theirs.named_parameters():
        if parameter.requires_grad and any(part in name for part in TRAINED):
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    theirs.save_pretrained(str(folder))
    return theirs


def merged(theirs: PeftModel) -> dict[str, np.ndarray]:
    """Returns what PEFT adds to each weight when it merges."""
    modules = theirs.get_base_model().named_modules()
    layers = {n: m for n, m in modules if hasattr(m, "merge") and not n.endswith("token_adapter")}
    added = {}
    for name, layer in layers.items():
        weight = cast(Tensor, cast(Any, layer).base_layer.weight)
        before = weight.detach().double().clone()
        cast(Any, layer).merge()
        added[name] = (weight.detach() - before).reshape(len(before), -1).numpy()
    return added


def dense(adapter: Adapter, matrix: Matrix) -> np.ndarray:
    update = adapter.load(matrix)
    assert update.scaling is not None
    return update.scaling * update.B.astype(float) @ update.A.astype(float)


def check(adapter: Adapter, theirs: dict[str, np.ndarray]) -> None:
    assert {matrix.module for matrix in adapter.matrices} == theirs.keys() and theirs
    for matrix in adapter.matrices:
        wanted = theirs[matrix.module]
        assert (matrix.d_out, matrix.d_in) == wanted.shape
        np.testing.assert_allclose(dense(adapter, matrix), wanted, atol=1e-6 * np.abs(wanted).max() + 1e-7)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (LoraConfig(r=4, lora_alpha=6, kasa_config=KasaConfig(), **QV), "KaSA also takes the r weakest directions"),
        (LoraConfig(r=4, velora_config=VeloraConfig(num_groups=4), **QV), "lora_velora_embed"),
        (LoraConfig(r=4, monteclora_config=MontecloraConfig(num_samples=4), **QV), "lora_monteclora_sampler"),
        (LoraConfig(r=4, init_lora_weights="mica", **QV), "have the same B"),
        (LoraConfig(r=4, init_lora_weights="orthogonal", **QV), ""),
        (LoraConfig(r=4, trainable_token_indices=[1, 2], **QV), "Changes biases, norms or single tokens"),
        (LoraConfig(r=4, modules_to_save=["lm_head"], **QV), "lm_head.weight"),
        (LoraConfig(r=4, lora_bias=True, **QUERY), "query.lora_B.bias"),
        (AdaLoraConfig(init_r=6, target_r=4, lora_alpha=3, total_step=9, **QV), ""),
        (LoHaConfig(r=4, alpha=6, **QV), ""),
        (LoHaConfig(r=4, alpha=6, rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 3}, **QV), ""),
        (LoKrConfig(r=2, alpha=6, **QV), ""),
        (LoKrConfig(r=2, alpha=6, decompose_both=True, decompose_factor=4, **QV), ""),
        (LoKrConfig(r=64, alpha=6, **QV), ""),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)  # fmt: skip
def test_a_variant_of_pefts_is_read_as_peft_merges_it(config: PeftConfig, words: str, tmp_path: Path) -> None:
    theirs = build(tmp_path, config, base("bert") if getattr(config, "lora_bias", False) else None)
    adapter = read(str(tmp_path))
    check(adapter, merged(theirs))
    notes = " ".join(inspect(adapter, adapter.matrices, False).notes)
    assert words in notes and bool(words) == bool(notes)


def test_adalora_with_directions_taken_away_keeps_the_scale_of_its_start(tmp_path: Path) -> None:
    theirs = build(tmp_path, AdaLoraConfig(init_r=6, target_r=4, lora_alpha=3, total_step=9, **QV))
    left = [True, False, True, False, True, True]
    pattern = {f"model.layers.{i}.self_attn.{m}.lora_E": left for i in range(2) for m in ("q_proj", "v_proj")}
    cast(Any, theirs.base_model).resize_modules_by_rank_pattern(pattern, "default")
    cast(Any, theirs.peft_config["default"]).rank_pattern = pattern
    shutil.rmtree(tmp_path)
    theirs.save_pretrained(str(tmp_path))
    adapter = read(str(tmp_path))
    assert {len(adapter.load(matrix).A) for matrix in adapter.matrices} == {4}
    check(adapter, merged(theirs))


class Convolutions(nn.Module):
    """Two convolutions; LoHa and LoKr take the larger kernel apart in three."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(8, 16, 3), nn.Conv2d(16, 8, 1)


@pytest.mark.parametrize("effective", [True, False])
@pytest.mark.parametrize("make", [LoHaConfig, LoKrConfig])
def test_loha_and_lokr_of_convolutions_are_read(make: Any, effective: bool, tmp_path: Path) -> None:
    config = make(r=2, alpha=3, target_modules=["wide", "narrow"], use_effective_conv2d=effective)
    theirs = build(tmp_path, config, Convolutions())
    check(read(str(tmp_path)), merged(theirs))


@pytest.mark.parametrize("make", [LoHaConfig, LoKrConfig])
def test_loha_and_lokr_whose_settings_say_another_r_are_refused(make: Any, tmp_path: Path) -> None:
    build(tmp_path, make(r=2, alpha=3, **QV))
    settings = tmp_path / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"r": 4}))
    with pytest.raises(InputError, match=r"says r = 4 for .*, whose factors have r = 2"):
        read(str(tmp_path))


def test_alora_is_read_and_says_where_it_acts(tmp_path: Path) -> None:
    build(tmp_path, LoraConfig(r=4, alora_invocation_tokens=[1, 2], task_type="CAUSAL_LM", **QV))
    assert "acts only on what follows these tokens" in read(str(tmp_path)).notes[0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(use_dora=True), "has use_dora, which scales each column"),
        (dict(use_qalora=True), "has use_qalora, which pools the input"),
        (dict(use_bdlora=BdLoraConfig(target_modules_bd_a=["q_proj"], nblocks=2, match_strict=False)), "has use_bd"),
        (dict(target_parameters=["self_attn.q_proj.weight"], target_modules=[]), "has target_parameters"),
    ],
)  # fmt: skip
def test_a_variant_that_is_no_b_a_is_refused_by_its_setting(
    settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    build(tmp_path, LoraConfig(r=4, **{**QV, **settings}))
    with pytest.raises(InputError, match=words):
        read(str(tmp_path))


OTHERS: dict[str, dict[str, Any]] = {
    "VeraConfig": QV,
    "RandLoraConfig": QV,
    "FourierFTConfig": {**QV, "n_frequency": 10},
    "OFTConfig": QV,
    "HRAConfig": QV,
    "MissConfig": {**QV, "r": 4},
    "IA3Config": {**QV, "feedforward_modules": []},
    "LNTuningConfig": {},
    "RoadConfig": {**QV, "group_size": 8},
    "C3AConfig": {**QV, "block_size": 8},
    "ShiraConfig": {**QV, "r": 2},
    "TrainableTokensConfig": dict(token_indices=[1, 2]),
    "GraloraConfig": QV,
    "HiraConfig": QV,
    "VBLoRAConfig": {**QV, "vector_length": 16, "num_vectors": 16},
    "DeloraConfig": QV,
}


@pytest.mark.parametrize("name", OTHERS)
def test_pefts_other_methods_are_refused_by_name_with_and_without_their_settings(name: str, tmp_path: Path) -> None:
    config = getattr(peft, name)(**OTHERS[name])
    build(tmp_path / "a", config)
    words = METHODS[config.peft_type.value][1]
    with pytest.raises(InputError, match=f"the adapter is PEFT's {config.peft_type.value}: {words}"):
        read(str(tmp_path / "a"))
    shutil.copy(tmp_path / "a" / "adapter_model.safetensors", tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=f"is of {words} "):
        read(str(tmp_path / "x.safetensors"))


def test_all_methods_that_the_installed_peft_knows_have_words() -> None:
    read_here = {PeftType.LORA, PeftType.ADALORA, PeftType.LOHA, PeftType.LOKR}
    assert {kind.value for kind in PEFT_TYPE_TO_PREFIX_MAPPING.keys() - read_here} <= METHODS.keys()


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.model.layers.0.self_attn.q_proj.lora_diagonal",
        "base_model.model.model.layers.0.self_attn.q_proj.gate.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.scalar",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_route.weight",
        "base_model.model.model.layers.0.self_attn.lora_task_embedding",
        "base_model.model.lora_scale",
        "scaling",
    ],
)
def test_a_tensor_that_may_change_what_the_factors_mean_is_refused(name: str, tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "a", factors(4, 0))
    path = folder / "adapter_model.safetensors"
    save_file(load_file(path) | {name: torch.ones(4)}, path)
    shutil.copy(path, tmp_path / "x.safetensors")
    for given in (folder, tmp_path / "x.safetensors"):
        with pytest.raises(InputError, match="and what it does to the update is not known here"):
            read(str(given))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("default_lora_latent_mapping.weight", "LoRA-XS, which has a matrix between B and A"),
        ("lora_magnitude_vector", "DoRA"),
        ("trainable_tokens_delta", "is not known here"),  # of a matrix that B A changes too
    ],
)
def test_a_known_tensor_between_or_around_the_factors_is_refused_by_name(name: str, words: str, tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "a", factors(4, 0))
    path = folder / "adapter_model.safetensors"
    beside = f"base_model.model.model.layers.0.self_attn.q_proj.{name}"
    save_file(load_file(path) | {beside: torch.ones(4)}, path)
    with pytest.raises(InputError, match=words):
        read(str(folder))


def test_what_stands_beside_the_factors_and_changes_nothing_is_listed(tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "a", factors(4, 0))
    path = folder / "adapter_model.safetensors"
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    more = [
        f"{layer}.base_layer.weight",
        f"{layer}.base_layer.weight.absmax",
        f"{layer}.bias",
        "base_model.model.score.weight",
    ]
    save_file(load_file(path) | {name: torch.ones(4) for name in more}, path)
    adapter = read(str(folder))
    assert set(adapter.unknown) == set(more) and "score.weight" in notes_on(adapter)[0]


def test_a_diagonal_between_the_factors_counts_without_settings_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    A, B, d = (torch.from_numpy(rng.normal(size=size)).float() for size in ((3, 8), (6, 3), (3,)))
    layer = "model.layers.0.self_attn.q_proj"
    tensors = {f"{layer}.lora_A.weight": A, f"{layer}.lora_B.weight": B, f"{layer}.lora_diag": d}
    save_file(tensors, tmp_path / "x.safetensors")
    adapter = read(str(tmp_path / "x.safetensors"), Options(alpha=3))
    np.testing.assert_allclose(dense(adapter, adapter.matrices[0]), (B * d @ A).numpy(), atol=1e-6)
    save_file({**tensors, f"{layer}.lora_diag": torch.ones(4)}, tmp_path / "x.safetensors")
    adapter = read(str(tmp_path / "x.safetensors"))
    with pytest.raises(InputError, match=r"lora_diag of \(4,\) does not fit between factors of r = 3"):
        adapter.load(adapter.matrices[0])


@pytest.mark.parametrize("module", ["model.layers.0.mlp.experts", "model.layers.0.mlp.experts.base_layer"])
def test_stacks_of_experts_are_known_without_their_settings(module: str, tmp_path: Path) -> None:
    tensors = {f"{module}.lora_A.weight": torch.ones(8, 6), f"{module}.lora_B.weight": torch.ones(6, 8)}
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="is a stack of experts"):
        read(str(tmp_path / "x.safetensors"))


def test_settings_name_what_they_are_of_a_method_nobody_knows(tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "a", factors(4, 0))
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "NEWLORA", "r": 4, "lora_alpha": 4}))
    with pytest.raises(InputError, match="PEFT's NEWLORA: whose update is not known here"):
        read(str(folder))


def test_a_part_of_a_name_is_held_against_the_methods_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapters of mixtures of experts hold 100,000 tensors, whose names have few parts that differ."""
    asked = list[str]()

    class Mark:
        def fullmatch(self, part: str) -> None:
            asked.append(part)

    monkeypatch.setattr(beside, "_MARKS", [("X", Mark(), "X")])
    beside.refuse_other_method(Path("x"), [f"layers.{i % 4}.experts.{i}.up.lora_A.weight" for i in range(100)])
    assert len(asked) == len(set(asked)) == 105
