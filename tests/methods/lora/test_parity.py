"""LoRA as loralib 0.1.2 and PEFT have it: the same weights and inputs give the same outputs and gradients."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import loralib
import peft
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lora_repro.methods.lora import Bias, Init, LoRAConfig
from lora_repro.methods.lora.layers import (
    LoRAEmbedding,
    LoRALinear,
    LoRAUpdate,
    Start,
    attach_update,
    merge,
)
from lora_repro.models.arch import Part, Site, arch_of
from lora_repro.models.parts import features_of

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

R, ALPHA = 3, 6.0


def update(d_in: int, d_out: int, name: str = "layers.0.q") -> LoRAUpdate:
    made = LoRAUpdate(d_in, d_out, R, ALPHA / R, Start(0), name)
    nn.init.normal_(made.lora_A)
    nn.init.normal_(made.lora_B)
    return made


def updates_of(model: nn.Module, sites: Iterable[Site]) -> dict[Site, LoRAUpdate]:
    """Returns the update of every adapted site."""
    found = {}
    for site in sites:
        update = model.get_submodule(f"{site.module}.updates.{site.role}")
        assert isinstance(update, LoRAUpdate)
        found[site] = update
    return found


@torch.no_grad()
def same(theirs: nn.Module, base: nn.Module, lora_A: Tensor, lora_B: Tensor) -> None:
    """Gives a layer of loralib the base's weights and these factors."""
    for name, value in {**dict(base.named_parameters()), "lora_A": lora_A, "lora_B": lora_B}.items():
        theirs.get_parameter(name).copy_(value)


def close(*pairs: tuple[Tensor | None, Tensor | None]) -> None:
    for ours, theirs in pairs:
        assert ours is not None and theirs is not None
        assert ours.shape == theirs.shape and ours.abs().max() > 0
        assert torch.allclose(ours, theirs, atol=1e-5, rtol=1e-4), (ours - theirs).abs().max()


@pytest.mark.parametrize("merged", [False, True])
def test_linear_is_loralibs(merged: bool) -> None:
    torch.manual_seed(0)
    base, x = nn.Linear(12, 10), torch.randn(4, 5, 12)
    theirs = loralib.Linear(12, 10, r=R, lora_alpha=int(ALPHA))
    ours = update(12, 10)
    same(theirs, base, ours.lora_A, ours.lora_B)
    layer = LoRALinear(base, {"q": ours}, {"q": None})
    if merged:
        theirs.eval()
        close((layer.merged()(x), theirs(x)), (layer.merged().weight, theirs.weight))  # pyright: ignore
        return
    for output in (layer(x), theirs(x)):
        output.square().sum().backward()
    close((layer(x), theirs(x)), (ours.lora_A.grad, theirs.lora_A.grad), (ours.lora_B.grad, theirs.lora_B.grad))


def test_dropout_with_the_same_seed_is_loralibs() -> None:
    torch.manual_seed(0)
    base, x = nn.Linear(12, 10), torch.randn(4, 5, 12)
    theirs = loralib.Linear(12, 10, r=R, lora_alpha=int(ALPHA), lora_dropout=0.5)
    ours = LoRAUpdate(12, 10, R, ALPHA / R, Start(0), "layers.0.q", dropout=0.5)
    nn.init.normal_(ours.lora_B)
    same(theirs, base, ours.lora_A, ours.lora_B)
    outputs = []
    for layer in (LoRALinear(base, {"q": ours}, {"q": None}), theirs):
        torch.manual_seed(1)
        outputs.append(layer(x))
        outputs[-1].square().sum().backward()
    close((outputs[0], outputs[1]), (ours.lora_A.grad, theirs.lora_A.grad), (ours.lora_B.grad, theirs.lora_B.grad))


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("roles", ["qv", "qkv", "k"])
def test_fused_linear_is_loralibs_merged_linear(roles: str, merged: bool) -> None:
    torch.manual_seed(0)
    d, x = 8, torch.randn(4, 5, 8)
    base, enabled = nn.Linear(d, 3 * d), [role in roles for role in "qkv"]
    theirs = loralib.MergedLinear(d, 3 * d, r=R, lora_alpha=int(ALPHA), enable_lora=enabled)
    ours = {role: update(d, d) for role in roles}
    same(theirs, base, *(torch.cat([getattr(one, name) for one in ours.values()]) for name in ("lora_A", "lora_B")))
    layer = LoRALinear(base, ours, {role: Part("qkv".index(role), 3) for role in roles})
    if merged:
        theirs.eval()
        close((layer.merged()(x), theirs(x)), (layer.merged().weight, theirs.weight))  # pyright: ignore
        return
    for output in (layer(x), theirs(x)):
        output.square().sum().backward()
    grads = [torch.cat([getattr(one, name).grad for one in ours.values()]) for name in ("lora_A", "lora_B")]
    close((layer(x), theirs(x)), (grads[0], theirs.lora_A.grad), (grads[1], theirs.lora_B.grad))


@pytest.mark.parametrize("merged", [False, True])
def test_embedding_is_loralibs(merged: bool) -> None:
    torch.manual_seed(0)
    base, x = nn.Embedding(20, 9), torch.randint(20, (4, 5))
    theirs = loralib.Embedding(20, 9, r=R, lora_alpha=int(ALPHA))
    ours = update(20, 9, "embed")
    same(theirs, base, ours.lora_A, ours.lora_B)
    layer = LoRAEmbedding(base, ours)
    if merged:
        theirs.eval()
        close((layer.merged()(x), theirs(x)), (layer.merged().weight, theirs.weight))  # pyright: ignore
        return
    for output in (layer(x), theirs(x)):
        output.square().sum().backward()
    close((layer(x), theirs(x)), (ours.lora_A.grad, theirs.lora_A.grad), (ours.lora_B.grad, theirs.lora_B.grad))


def test_updates_start_as_loralibs_do() -> None:
    fresh, embedding = LoRAUpdate(64, 64, 8, 1.0, Start(0), "layers.0.q"), LoRAUpdate(64, 32, 8, 1.0, Start(0), "embed")
    assert not fresh.lora_B.any() and fresh.lora_A.abs().max() < 64**-0.5
    assert fresh.lora_A.std().item() == pytest.approx(loralib.Linear(64, 64, r=8).lora_A.std().item(), rel=0.1)
    assert not embedding.lora_A.any() and embedding.lora_B.std().item() == pytest.approx(1.0, rel=0.15)
    gaussian = LoRAUpdate(64, 64, 8, 1.0, Start(0, Init.gaussian, 0.5), "layers.0.q")
    assert gaussian.lora_A.std().item() == pytest.approx(0.5, rel=0.1) and not gaussian.lora_B.any()


SHAPE = dict(vocab_size=60, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40)
TINY: dict[str, dict[str, Any]] = {
    "roberta": SHAPE | dict(max_position_embeddings=42, type_vocab_size=1, pad_token_id=1),
    "llama": SHAPE | dict(max_position_embeddings=40, num_key_value_heads=2),
    "gpt2": dict(vocab_size=60, n_embd=24, n_layer=2, n_head=4, n_positions=40, resid_pdrop=0.0),
    "gpt_neox": SHAPE | dict(max_position_embeddings=40),
}
TOKENS = torch.arange(5, 29).reshape(2, 12)


def tiny(family: str, folder: Path) -> tuple[PreTrainedModel, int | None]:
    torch.manual_seed(0)
    labels = 3 if family == "roberta" else None
    config = AutoConfig.for_model(family, **{"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, **TINY[family]})
    config.num_labels = 3
    auto = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    auto.from_config(config).save_pretrained(folder)
    return auto.from_pretrained(folder).eval(), labels


def ours_of(family: str, folder: Path, method: LoRAConfig) -> tuple[PreTrainedModel, list[Site]]:
    model, labels = tiny(family, folder)
    model.requires_grad_(False)
    arch = arch_of(json.loads((folder / "config.json").read_text()), labels)
    method.check(arch)
    method.attach(model, arch, seed=0)
    sites = arch.select(method.targets)
    torch.manual_seed(1)
    for one in updates_of(model, sites).values():
        nn.init.normal_(one.lora_A, std=0.1)
        nn.init.normal_(one.lora_B, std=0.1)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == method.count(arch).method
    return model, sites


def lora(*targets: str, **changes: Any) -> LoRAConfig:
    return dataclasses.replace(LoRAConfig("lora", list(targets), R, ALPHA, 0.0), **changes)


@pytest.mark.parametrize(
    ("family", "method", "settings"),
    [
        ("roberta", lora("q", "v"), {}),
        ("roberta", lora("q", "k", "v", "o", "up", "down", r_pattern={"q": 5}, rslora=True), {"use_rslora": True}),
        ("llama", lora("q", "k", "v", "o", "gate", "up", "down"), {}),
        ("llama", lora("q", "embed"), {}),
        ("gpt2", lora("o", "up", "down"), {"fan_in_fan_out": True}),
        ("gpt_neox", lora("o", "up"), {}),
    ],
)
def test_whole_models_are_pefts(family: str, method: LoRAConfig, settings: dict[str, Any], tmp_path: Path) -> None:
    model, sites = ours_of(family, tmp_path, method)
    base, _ = tiny(family, tmp_path)
    ranks = {site.module: method.r_of(site) for site in sites if method.r_of(site) != R}
    modules = [site.module for site in sites]
    config = peft.LoraConfig(r=R, lora_alpha=ALPHA, target_modules=modules, rank_pattern=ranks, **settings)  # pyright: ignore
    theirs = peft.get_peft_model(base, config).eval()
    factors = dict(theirs.named_parameters())
    pairs = []
    for site, one in updates_of(model, sites).items():
        names = [f"lora_{m}.default.weight" if site.role != "embed" else f"lora_embedding_{m}.default" for m in "AB"]
        for name, factor in zip(names, (one.lora_A, one.lora_B), strict=True):
            foreign = factors[f"base_model.model.{site.module}.{name}"]
            foreign.data.copy_(factor.data)
            pairs.append((factor, foreign))
    for each in (model, theirs):
        each(input_ids=TOKENS).logits.square().mean().backward()
    close((model(input_ids=TOKENS).logits, theirs(input_ids=TOKENS).logits))
    close(*((ours.grad, foreign.grad) for ours, foreign in pairs))
    merge(model)
    close((model(input_ids=TOKENS).logits, theirs.merge_and_unload()(input_ids=TOKENS).logits))


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_a_fused_layers_matrices_are_the_slices_that_the_model_reads(family: str, tmp_path: Path) -> None:
    """An update of v alone changes no attention weight; one of q alone leaves v's part of the output as it was."""
    for role in "qkv":
        model, sites = ours_of(family, tmp_path, lora(role))
        plain, _ = tiny(family, tmp_path)
        site = sites[0]
        layer, base = model.get_submodule(site.module), plain.get_submodule(site.module)
        x = torch.randn(2, 7, 24)
        change = layer(x) - base(x)
        width = 24 if family == "gpt2" else 6
        heads = change.view(2, 7, 24 // width, 3, width)
        for position, other in enumerate("qkv"):
            assert bool(heads[..., position, :].abs().max() > 1e-3) == (other == role)
        plain.config._attn_implementation = model.config._attn_implementation = "eager"
        weights = [m(input_ids=TOKENS, output_attentions=True).attentions[0] for m in (model, plain)]
        assert torch.equal(*weights) == (role == "v")
        merge(model)
        W, W0 = (m.get_submodule(site.module).weight for m in (model, plain))
        rows = [features_of(w.T if isinstance(base, Conv1D) else w, site.part) for w in (W, W0)]  # pyright: ignore
        assert not torch.equal(*rows) and (W != W0).float().mean() < 0.34  # pyright: ignore


def test_peft_on_gpt2_shares_one_A_over_q_k_and_v_and_ours_does_not(tmp_path: Path) -> None:
    """The paper's q and v cannot be chosen in PEFT's one update of c_attn, and at equal r it has fewer weights."""
    _, sites = ours_of("gpt2", tmp_path, lora("q", "k", "v"))
    base, labels = tiny("gpt2", tmp_path)
    theirs = peft.get_peft_model(base, peft.LoraConfig(r=R, target_modules=["c_attn"], fan_in_fan_out=True))
    shapes = [tuple(p.shape) for name, p in theirs.named_parameters() if ".lora_" in name]
    assert shapes == [(R, 24), (72, R)] * 2
    arch = arch_of(json.loads((tmp_path / "config.json").read_text()), labels)
    assert theirs.get_nb_trainable_parameters()[0] == 2 * R * (24 + 72) == 2 * R * 96
    assert lora("q", "k", "v").count(arch).method == 2 * 3 * R * 48 == 2 * R * 144
    assert len(sites) == 6


def test_bias_freeze_and_pattern_train_what_they_say(tmp_path: Path) -> None:
    for bias, names in ((Bias.lora_only, ("query", "value")), (Bias.all, ("",))):
        model, _ = ours_of("roberta", tmp_path, lora("q", "v", bias=bias))
        biases = [name for name, p in model.named_parameters() if p.requires_grad and name.endswith("bias")]
        assert biases == [
            name for name, _ in model.named_parameters()
            if name.endswith("bias") and "classifier" not in name and any(part in name for part in names)
        ]  # fmt: skip
    model, _ = ours_of("roberta", tmp_path, lora("q", freeze_A=True))
    assert {name.rpartition(".")[2] for name, p in model.named_parameters() if p.requires_grad} == {"lora_B"}
    pattern = lora("q", "v", r_pattern={"v": 5, "layers.0": 2, "layers.0.q": 1})
    model, sites = ours_of("roberta", tmp_path, pattern)
    assert {site.name: len(one.lora_A) for site, one in updates_of(model, sites).items()} == {
        "layers.0.q": 1, "layers.0.v": 2, "layers.1.q": R, "layers.1.v": 5,
    }  # fmt: skip


def test_attach_puts_several_updates_of_a_fused_layer_into_one_layer(tmp_path: Path) -> None:
    model, _ = tiny("gpt2", tmp_path)
    arch = arch_of(json.loads((tmp_path / "config.json").read_text()), None)
    for site in arch.select(["q", "v"]):
        attach_update(model, site, update(24, 24, site.name))
    layers = [module for module in model.modules() if isinstance(module, LoRALinear)]
    assert [sorted(layer.updates) for layer in layers] == [["q", "v"]] * 2
