"""Stable Diffusion's adapters: diffusers' names (PEFT writes the tensors), kohya's by hand, linear and convolution."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from helpers.foreign_adapters import added_by, loralib_model, trained
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from analysis.adapters import Adapter, Options, read
from analysis.section7.comparison import compare, paired
from analysis.section7.sides import Side
from lora_repro.errors import InputError

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "net.2"]
CONFIG = LoraConfig(
    r=4, lora_alpha=6, target_modules=TARGETS, alpha_pattern={"attn2.to_k": 2}, rank_pattern={"conv1": 3}
)


def unet() -> nn.Module:
    """A piece of a U-Net under diffusers' names: self and cross attention, a convolution, a feed-forward layer."""
    layers: dict[str, nn.Module] = {
        f"{BLOCK}.{attention}.{name}": nn.Linear(width if name in ("to_k", "to_v") else 32, 32, bias=False)
        for attention, width in (("attn1", 32), ("attn2", 24))
        for name in ("to_q", "to_k", "to_v")
    }
    layers |= {f"{BLOCK}.{attention}.to_out.0": nn.Linear(32, 32) for attention in ("attn1", "attn2")}
    layers |= {f"{BLOCK}.ff.net.2": nn.Linear(64, 32), "down_blocks.0.resnets.0.conv1": nn.Conv2d(8, 16, 3)}
    return loralib_model(layers)


class Written:
    """What PEFT put on the U-Net: its tensors by its own names, and the dense updates by module."""

    def __init__(self) -> None:
        model = trained(inject_adapter_in_model(CONFIG, unet()))
        self.tensors: dict[str, Tensor] = get_peft_model_state_dict(model)
        layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}
        self.dense = {name: added_by(layer).reshape(len(added_by(layer)), -1).numpy() for name, layer in layers.items()}
        assert len(self.dense) == 10 and len(self.tensors) == 20


def named(change: Callable[[str], str], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {change(name): tensor.contiguous() for name, tensor in tensors.items()}


def old(name: str) -> str:
    """Names of diffusers with PEFT for attention, as its training scripts write them."""
    return f"unet.{name}".replace(".lora_A.", ".lora.down.").replace(".lora_B.", ".lora.up.")


def oldest(name: str) -> str:
    """Names of attention processors, before PEFT."""
    for matrix, word in (("A", "down"), ("B", "up")):
        name = name.replace(f".to_out.0.lora_{matrix}.", f".processor.to_out_lora.{word}.")
        for role in "qkv":
            name = name.replace(f".to_{role}.lora_{matrix}.", f".processor.to_{role}_lora.{word}.")
    return f"unet.{name}" if "processor" in name else old(name)


def kohya(name: str) -> str:
    module, _, factor = name.partition(".lora_")
    return f"lora_unet_{module.replace('.', '_')}.lora_{'down' if factor[0] == 'A' else 'up'}.weight"


def check(adapter: Adapter, dense: dict[str, np.ndarray], scaled: bool) -> None:
    """Holds an adapter against PEFT's updates, in whatever way its modules are written."""
    plain = {name.replace(".to_out.0", ".to_out").replace(".", "_"): value for name, value in dense.items()}
    found = {}
    for matrix in adapter.matrices:
        update = adapter.load(matrix)
        module = matrix.module.removeprefix("unet.").removeprefix("lora_unet_").replace(".processor", "")
        module = module.replace(".", "_").replace("to_out_0", "to_out")
        r = len(update.A)
        assert r == (3 if "conv1" in module else 4) and (update.scaling is not None) == scaled
        scaling = update.scaling if update.scaling is not None else (2 if "attn2_to_k" in module else 6) / r
        found[module] = scaling * update.B.astype(float) @ update.A.astype(float)
        role = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out": "o"}
        assert matrix.layer is None and matrix.weight == next(
            (role[end] for end in role if module.endswith(end)), matrix.weight
        )
    assert found.keys() == plain.keys()
    for module, value in found.items():
        np.testing.assert_allclose(value, plain[module], atol=1e-6)


@pytest.mark.parametrize("names", [lambda name: f"unet.{name}", old, oldest])
def test_diffusers_names_old_and_new_are_read(names: Callable[[str], str], tmp_path: Path) -> None:
    written = Written()
    save_file(named(names, written.tensors), tmp_path / "pytorch_lora_weights.safetensors")
    adapter = read(str(tmp_path))  # a folder that holds one file
    assert adapter.format == "Stable Diffusion file in diffusers' names" and not adapter.unknown
    assert any("Holds no alpha" in note for note in adapter.notes)
    check(adapter, written.dense, scaled=False)


@pytest.mark.parametrize("component", ["unet.", ""])
def test_peft_settings_in_a_files_header_give_the_scale(component: str, tmp_path: Path) -> None:
    written = Written()
    settings = {
        f"{component}{key}": sorted(value) if isinstance(value, set) else value
        for key, value in CONFIG.to_dict().items()
    }
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(settings, default=str)}
    path = tmp_path / "pytorch_lora_weights.safetensors"
    save_file(named(lambda name: component + name, written.tensors), path, metadata)
    adapter = read(str(path))
    assert not adapter.notes and not adapter.takes
    check(adapter, written.dense, scaled=True)


def test_kohyas_names_and_alphas_are_read(tmp_path: Path) -> None:
    written = Written()
    tensors = named(kohya, written.tensors)
    for name in list(tensors):
        if name.endswith(".lora_down.weight"):
            alpha = 2.0 if "attn2_to_k" in name else 6.0
            tensors[name.replace(".lora_down.weight", ".alpha")] = torch.tensor(alpha)
    tensors |= {
        "lora_te_text_model_encoder_layers_3_self_attn_q_proj.lora_down.weight": torch.ones(2, 8),
        "lora_te_text_model_encoder_layers_3_self_attn_q_proj.lora_up.weight": torch.ones(8, 2),
    }
    for suffix in ("safetensors", "pt"):
        path = tmp_path / f"kohya.{suffix}"
        save_file(tensors, path) if suffix == "safetensors" else torch.save(tensors, path)
        adapter = read(str(path))
        (text,) = [matrix for matrix in adapter.matrices if "_te_" in matrix.module]
        assert adapter.format == "Stable Diffusion file in kohya's names" and not adapter.unknown
        assert (text.layer, text.weight) == (3, "q") and adapter.load(text).scaling is None
        adapter.matrices.remove(text)
        check(adapter, written.dense, scaled=True)


def test_a_convolutions_matrix_convolves_as_its_two_factors_do(tmp_path: Path) -> None:
    torch.manual_seed(0)
    down, up, x = torch.randn(3, 8, 3, 3), torch.randn(16, 3, 1, 1), torch.randn(2, 8, 6, 6)
    save_file({"lora_unet_conv_in.lora_down.weight": down, "lora_unet_conv_in.lora_up.weight": up},
              tmp_path / "x.safetensors")  # fmt: skip
    adapter = read(str(tmp_path / "x.safetensors"))
    update = adapter.load(adapter.matrices[0])
    assert (update.A.shape, update.B.shape, update.weight) == ((3, 72), (16, 3), "conv_in")
    kernel = torch.from_numpy(update.B @ update.A).reshape(16, 8, 3, 3)
    torch.testing.assert_close(F.conv2d(x, kernel), F.conv2d(F.conv2d(x, down), up), atol=1e-4, rtol=1e-4)


def test_one_adapter_in_two_layouts_is_one_adapter(tmp_path: Path) -> None:
    tensors = Written().tensors
    for name, change in (("a", oldest), ("b", kohya)):
        save_file(named(change, tensors), tmp_path / f"{name}.safetensors")
    first, second = (read(str(tmp_path / f"{name}.safetensors")) for name in "ab")
    assert len(paired(first.matrices, second.matrices)) == 10
    found = compare(first, second, (first.matrices, second.matrices), Side.update_left)
    assert len(found.rows) == 10 and not [note for note in found.notes if "Only in" in note]
    for row in found.rows:
        np.testing.assert_allclose(np.diag(row.phi), 1, atol=1e-5)


@pytest.mark.parametrize("r", [4, 6])
def test_fluxs_fused_layers_are_split_as_diffusers_splits_them(r: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    name = "lora_unet_double_blocks_3_{}_attn_qkv"
    tensors = {}
    for stream in ("img", "txt"):
        tensors |= {f"{name.format(stream)}.lora_down.weight": torch.randn(r, 32)}
        tensors |= {f"{name.format(stream)}.lora_up.weight": torch.randn(96, r)}
        tensors |= {f"{name.format(stream)}.alpha": torch.tensor(3.0)}
    save_file(tensors, tmp_path / "flux.safetensors")
    theirs = _convert_kohya_flux_lora_to_diffusers(dict(tensors))
    adapter = read(str(tmp_path / "flux.safetensors"))
    assert len(adapter.matrices) == 6 and not adapter.notes
    names = {"img": "to_{}", "txt": "add_{}_proj"}
    for matrix in adapter.matrices:
        update = adapter.load(matrix)
        part = names[matrix.module[-12:-9].strip("_")].format(matrix.weight)
        A, B = (theirs[f"transformer.transformer_blocks.3.attn.{part}.lora_{factor}.weight"] for factor in "AB")
        assert update.scaling == 3 / r
        np.testing.assert_allclose(3 / r * update.B @ update.A, (B @ A).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lora_unet_x.dora_scale", "is of DoRA"),
        ("lora_unet_y.oft_blocks", "is of OFT, a rotation"),
        ("lora_unet_y.on_input", "is of IA3"),
        ("lora_unet_x.scalar", "what it does to the update is not known"),
        ("lora_unet_y.a1.weight", "what it does to the update is not known"),  # LyCORIS's GLoRA
        ("lora_unet_x.hada_w1_a", "lora_unet_x lacks w1_b, w2_a, w2_b of its LoHa"),
        ("lora_unet_y.lokr_w1", "lora_unet_y lacks w2_a, w2_b of its LoKr"),
    ],
)
def test_other_methods_of_the_same_tools_are_refused_by_name(name: str, words: str, tmp_path: Path) -> None:
    pair = {"lora_unet_x.lora_down.weight": torch.ones(2, 8), "lora_unet_x.lora_up.weight": torch.ones(8, 2)}
    save_file(pair | {name: torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=words):
        read(str(tmp_path / "x.safetensors"))


def test_alpha_is_one_number(tmp_path: Path) -> None:
    pair = {"lora_unet_x.lora_down.weight": torch.ones(2, 8), "lora_unet_x.lora_up.weight": torch.ones(8, 2)}
    save_file(pair | {"lora_unet_x.alpha": torch.ones(2)}, tmp_path / "x.safetensors")
    adapter = read(str(tmp_path / "x.safetensors"), Options(alpha=2))
    with pytest.raises(InputError, match="alpha is one number"):
        adapter.load(adapter.matrices[0])


def test_what_diffusers_itself_writes_is_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    model.add_adapter(LoraConfig(r=4, lora_alpha=6, target_modules=["to_q", "to_k", "to_v", "to_out.0", "conv1"]))
    trained(model)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}
    dense = {name: added_by(layer).reshape(len(added_by(layer)), -1).numpy() for name, layer in layers.items()}
    state = get_peft_model_state_dict(model)
    StableDiffusionPipeline.save_lora_weights(str(tmp_path / "pipeline"), unet_lora_layers={**state})
    model.save_lora_adapter(str(tmp_path / "unet"))
    for folder in ("pipeline", "unet"):
        adapter = read(str(tmp_path / folder), Options(alpha=6 if folder == "pipeline" else None))
        assert not adapter.unknown
        found = {matrix.module.removeprefix("unet."): adapter.load(matrix) for matrix in adapter.matrices}
        assert found.keys() == dense.keys()
        for module, update in found.items():
            np.testing.assert_allclose(1.5 * update.B @ update.A, dense[module], atol=1e-5)
