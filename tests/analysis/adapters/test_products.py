"""LyCORIS's LoHa and LoKr, kernels between factors, and dW itself: under kohya's names, against the formulas."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from analysis.adapters import Options, read
from analysis.section7.inspection import inspect
from lora_repro.errors import InputError

Parts = dict[str, tuple[int, ...]]

LOHA: Parts = {"hada_w1_a": (12, 2), "hada_w1_b": (2, 10), "hada_w2_a": (12, 2), "hada_w2_b": (2, 10)}
LOHA_TUCKER: Parts = {
    **{f"hada_w{i}_a": (2, 6) for i in (1, 2)},
    **{f"hada_w{i}_b": (2, 5) for i in (1, 2)},
    **{f"hada_t{i}": (2, 2, 3, 3) for i in (1, 2)},
}
LOKR_FULL: Parts = {"lokr_w1": (2, 3), "lokr_w2": (4, 5)}
LOKR_HALF: Parts = {"lokr_w1": (2, 3), "lokr_w2_a": (4, 2), "lokr_w2_b": (2, 5)}
LOKR_LOW: Parts = {"lokr_w1_a": (6, 2), "lokr_w1_b": (2, 4), "lokr_w2_a": (4, 2), "lokr_w2_b": (2, 5)}
LOKR_TUCKER: Parts = {"lokr_w1": (2, 3), "lokr_t2": (2, 2, 3, 3), "lokr_w2_a": (2, 4), "lokr_w2_b": (2, 5)}
LOKR_CONV: Parts = {"lokr_w1": (2, 3), "lokr_w2": (4, 5, 3, 3)}
DIFF: Parts = {"diff": (7, 9)}


def formula(t: dict[str, Tensor]) -> Tensor:
    """The update without its scale, spelt out."""
    tucker = "ijkl,ip,jr->prkl"
    if "diff" in t:
        return t["diff"]
    if "hada_t1" in t:
        one, two = (torch.einsum(tucker, t[f"hada_t{i}"], t[f"hada_w{i}_a"], t[f"hada_w{i}_b"]) for i in (1, 2))
        return one * two
    if "hada_w1_a" in t:
        return (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"])
    outer = t["lokr_w1"] if "lokr_w1" in t else t["lokr_w1_a"] @ t["lokr_w1_b"]
    if "lokr_t2" in t:
        inner = torch.einsum(tucker, t["lokr_t2"], t["lokr_w2_a"], t["lokr_w2_b"]).contiguous()
    else:
        inner = t["lokr_w2"] if "lokr_w2" in t else t["lokr_w2_a"] @ t["lokr_w2_b"]
    return torch.kron(outer[:, :, None, None] if inner.ndim == 4 else outer, inner)


def drawn(parts: Parts) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in parts.items()}


@pytest.mark.parametrize("end", ["", ".weight"])
@pytest.mark.parametrize("module", ["lora_unet_blocks_0_q", "lycoris_blocks_0_q", "diffusion_model.blocks.0.q"])
@pytest.mark.parametrize(
    ("parts", "scale"),
    [
        (LOHA, 3 / 2),
        (LOHA_TUCKER, 3 / 2),
        (LOKR_FULL, 1),  # LyCORIS's alpha of two full matrices means nothing: files hold 1e10 there
        (LOKR_HALF, 3 / 2),
        (LOKR_LOW, 3 / 2),
        (LOKR_TUCKER, 3 / 2),
        (LOKR_CONV, 1),
        (DIFF, 1),
    ],
)
def test_a_product_is_read_as_its_formula_says(
    parts: Parts, scale: float, module: str, end: str, tmp_path: Path
) -> None:
    tensors = drawn(parts)
    named = {f"{module}.{name}{end}": tensor for name, tensor in tensors.items()} | {f"{module}.alpha": torch.tensor(3)}
    save_file(named, tmp_path / "x.safetensors")
    adapter = read(str(tmp_path / "x.safetensors"))
    wanted = scale * formula(tensors).flatten(1).numpy()
    (matrix,) = adapter.matrices
    update = adapter.load(matrix)
    assert (matrix.d_out, matrix.d_in) == wanted.shape and update.scaling == 1 and not adapter.notes
    np.testing.assert_allclose(update.B @ update.A, wanted, atol=1e-9)
    (row,) = inspect(adapter, adapter.matrices, False).rows
    assert row.norm == pytest.approx(np.linalg.norm(wanted))


def test_a_product_without_alpha_has_no_scale_until_it_is_given(tmp_path: Path) -> None:
    tensors = drawn(LOHA)
    save_file({f"lora_unet_x.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "x.safetensors")
    bare = read(str(tmp_path / "x.safetensors"))
    assert bare.load(bare.matrices[0]).scaling is None and "Holds no alpha" in bare.notes[0]
    scaled = read(str(tmp_path / "x.safetensors"), Options(alpha=5))
    (row,) = inspect(scaled, scaled.matrices, False).rows
    assert row.norm == pytest.approx(5 / 2 * float(formula(tensors).norm())) and not scaled.notes


def test_only_the_first_directions_are_kept_and_the_norm_is_of_all(tmp_path: Path) -> None:
    tensors = drawn(DIFF)
    save_file(
        {"x.diff": tensors["diff"], "x.diff_b": torch.ones(7), "norm.diff": torch.ones(9)}, tmp_path / "x.safetensors"
    )
    adapter = read(str(tmp_path / "x.safetensors"), Options(top=2))
    (row,) = inspect(adapter, adapter.matrices, False).rows
    assert row.r == 2 and row.norm == pytest.approx(float(tensors["diff"].norm())) and row.energy_kept < 0.9
    assert adapter.format == "file of dW" and "no part of a figure: norm.diff, x.diff_b" in adapter.notes[0]


def test_a_kernel_between_two_factors_convolves_as_the_three_do(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    down, mid, up, x = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((3, 8, 1, 1), (3, 3, 3, 3), (16, 3, 1, 1), (2, 8, 6, 6))
    )
    parts = {"lora_down": down, "lora_mid": mid, "lora_up": up}
    save_file({f"lora_unet_conv_in.{name}.weight": part for name, part in parts.items()}, tmp_path / "x.safetensors")
    adapter = read(str(tmp_path / "x.safetensors"))
    update = adapter.load(adapter.matrices[0])
    kernel = torch.from_numpy(update.B @ update.A).reshape(16, 8, 3, 3)
    torch.testing.assert_close(F.conv2d(x, kernel), F.conv2d(F.conv2d(F.conv2d(x, down), mid), up))


def test_products_and_factors_stand_in_one_file(tmp_path: Path) -> None:
    tensors = {f"lora_unet_x.{name}": tensor for name, tensor in drawn(LOKR_FULL).items()}
    tensors |= {"lora_unet_y.lora_down.weight": torch.ones(2, 8), "lora_unet_y.lora_up.weight": torch.ones(8, 2)}
    save_file(tensors | {"lora_unet_y.alpha": torch.tensor(1)}, tmp_path / "x.safetensors")
    adapter = read(str(tmp_path / "x.safetensors"))
    assert sorted(m.module for m in adapter.matrices) == ["lora_unet_x", "lora_unet_y"] and not adapter.notes


def test_flux_factors_outside_its_blocks_are_read_too(tmp_path: Path) -> None:
    names = ["transformer.single_transformer_blocks.0.attn.to_q", "transformer.proj_out", "transformer.x_embedder"]
    tensors = {
        f"{name}.lora_{end}.weight": torch.ones(shape)
        for name in names
        for end, shape in (("A", (2, 8)), ("B", (8, 2)))
    }
    save_file(tensors, tmp_path / "x.safetensors")
    adapter = read(str(tmp_path / "x.safetensors"))
    assert {matrix.module for matrix in adapter.matrices} == set(names)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({**LOHA, "hada_w2_b": (3, 10)}, "do not fit together"),
        ({**LOKR_HALF, "lokr_w2_b": (3, 5)}, "do not fit together"),
        ({**LOHA, "hada_w1_a": (12,)}, r"has shape \(12,\), which is no matrix"),
        ({**LOHA, "diff": (12, 10)}, "holds two updates"),
    ],
)
def test_parts_that_make_no_product_are_refused(parts: Parts, words: str, tmp_path: Path) -> None:
    save_file({f"lora_unet_x.{name}": torch.ones(shape) for name, shape in parts.items()}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=words):
        adapter = read(str(tmp_path / "x.safetensors"))
        adapter.load(adapter.matrices[0])
