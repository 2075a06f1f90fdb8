"""An alpha that stands beside the factors is the scale's, under every tool's names and in every type of number."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.handmade_adapters import factors, write_peft
from safetensors.torch import load_file, save_file
from torch import Tensor

from analysis.adapters import Options, read
from analysis.section7.inspection import inspect
from lora_repro.errors import InputError

NAMES = [
    "diffusion_model.blocks.0.self_attn.q.{lora_A.weight,lora_B.weight,alpha}",
    "diffusion_model.blocks.0.self_attn.q.{lora_A,lora_B,alpha}",
    "diffusion_model.blocks.0.self_attn.q.{lora_A.weight,lora_B.weight,lora_alpha}",
    "diffusion_model.blocks.0.self_attn.q.{lora_down.weight,lora_up.weight,alpha}",
    "base_model.model.blocks.0.self_attn.q.{lora_A.default.weight,lora_B.default.weight,alpha}",
    "transformer.single_transformer_blocks.0.attn.to_q.{lora_A.weight,lora_B.weight,alpha}",
    "unet.down_blocks.0.attentions.0.to_q.{lora.down.weight,lora.up.weight,lora.alpha}",
    "lora_unet_blocks_0_self_attn_q.{lora_down.weight,lora_up.weight,alpha}",
    "lycoris_unet_blocks_0_self_attn_q.{lora_down.weight,lora_up.weight,alpha}",
]


def written(path: Path, names: str, alpha: Tensor | None) -> float:
    """Writes a module's factors, of rank 8, and returns ||B A||_F."""
    generator = torch.Generator().manual_seed(0)
    A, B = (torch.randn(shape, generator=generator) for shape in ((8, 16), (16, 8)))
    module, _, ends = names.partition("{")
    tensors = {f"{module}{end}": t for end, t in zip(ends[:-1].split(","), (A, B, alpha), strict=True) if t is not None}
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return float((B.double() @ A.double()).norm())


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("names", NAMES)
def test_an_alpha_beside_the_factors_is_the_scales(names: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{suffix}"
    whole = written(path, names, torch.tensor(2.0))
    adapter = read(str(path), Options(alpha=64))  # the file's own goes before
    (row,) = inspect(adapter, adapter.matrices, False).rows
    assert row.scaling == 2 / 8 and row.norm == pytest.approx(whole * 2 / 8)
    assert not adapter.unknown and not any("Holds no alpha" in note for note in adapter.notes)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_alpha_is_a_number_of_any_type(dtype: torch.dtype, shape: tuple[int, ...], suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{suffix}"
    written(path, NAMES[0], torch.full(shape, 4, dtype=dtype))
    adapter = read(str(path))
    assert adapter.load(adapter.matrices[0]).scaling == 4 / 8


@pytest.mark.parametrize("names", NAMES[:3])
def test_without_alpha_the_scale_is_said_to_be_unknown(names: str, tmp_path: Path) -> None:
    whole = written(tmp_path / "x.safetensors", names, None)
    adapter = read(str(tmp_path / "x.safetensors"))
    (row,) = inspect(adapter, adapter.matrices, False).rows
    assert row.scaling is None and row.norm == pytest.approx(whole)
    assert any("Holds no alpha" in note for note in adapter.notes)


def test_alphas_of_modules_of_other_ranks_are_taken_one_by_one(tmp_path: Path) -> None:
    tensors = {}
    for layer, (r, alpha) in enumerate(((2, 1.0), (4, 1.0), (4, 8.0))):
        name = f"diffusion_model.blocks.{layer}.ffn.0"
        tensors |= {f"{name}.lora_down.weight": torch.ones(r, 6), f"{name}.lora_up.weight": torch.ones(6, r)}
        tensors |= {f"{name}.alpha": torch.tensor(alpha)}
    save_file(tensors, tmp_path / "x.safetensors")
    adapter = read(str(tmp_path / "x.safetensors"))
    assert [adapter.load(matrix).scaling for matrix in adapter.matrices] == [0.5, 0.25, 2]


def test_an_alpha_that_contradicts_pefts_settings_is_refused(tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "a", factors(4, 0), alpha=8)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    name = "base_model.model.model.layers.0.self_attn.q_proj.alpha"
    save_file(tensors | {name: torch.tensor(8.0)}, path)
    assert read(str(folder)).load(read(str(folder)).matrices[0]).scaling == 2
    save_file(tensors | {name: torch.tensor(4.0)}, path)
    with pytest.raises(InputError, match=r"alpha is 4, which makes the scale 1; adapter_config\.json makes it 2"):
        read(str(folder))
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 4}))
    np.testing.assert_equal(read(str(folder)).load(read(str(folder)).matrices[0]).scaling, 1)
