"""Files that loralib 0.1.2 wrote itself, read back: dW against what it adds to a weight when it merges."""

from pathlib import Path

import loralib
import numpy as np
import pytest
import torch
from helpers.dense_updates import dense, of, places
from helpers.foreign_adapters import loralib_model, merged_difference, roberta_layers
from safetensors.torch import save_file

from analysis.adapters import Options, read
from lora_repro.errors import InputError


@pytest.mark.parametrize("suffix", ["bin", "pt", "safetensors"])
@pytest.mark.parametrize("alpha", [None, 16.0])
def test_loralibs_files_are_read_with_and_without_alpha(suffix: str, alpha: float | None, tmp_path: Path) -> None:
    layers = roberta_layers(r=4, lora_alpha=16)
    state = loralib.lora_state_dict(loralib_model(layers)) | {"classifier.dense.weight": torch.ones(2, 2)}
    path = tmp_path / f"roberta_base_lora.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    adapter = read(str(path), Options(alpha=alpha))
    assert adapter.format == "loralib file" and places(adapter) == [(0, "q"), (0, "v"), (1, "q"), (1, "v")]
    assert list(adapter.unknown) == ["classifier.dense.weight"]
    assert any("Holds no alpha" in note for note in adapter.notes) == (alpha is None)
    for matrix in adapter.matrices:
        theirs = merged_difference(layers[matrix.module])
        assert adapter.load(matrix).scaling == (None if alpha is None else 4)
        np.testing.assert_allclose(dense(adapter, matrix), theirs / (1 if alpha is not None else 4), atol=1e-6)


def test_loralibs_embedding_and_what_training_scripts_put_around(tmp_path: Path) -> None:
    name = "transformer.wte"
    layers = {name: loralib.Embedding(64, 32, r=4, lora_alpha=4)}
    state = {f"module.{key}": value for key, value in loralib.lora_state_dict(loralib_model(layers)).items()}
    torch.save({"model_state_dict": state, "step": 3}, tmp_path / "a.pt")
    adapter = read(str(tmp_path / "a.pt"), Options(alpha=4))
    assert places(adapter) == [(None, "embed")] and list(adapter.unknown) == ["step"]
    np.testing.assert_allclose(of(adapter, None, "embed"), merged_difference(layers[name]), atol=1e-6)


@pytest.mark.parametrize(
    ("enabled", "given", "roles", "assumed"),
    [
        ([True, False, True], None, "qv", True),
        ([True, False, True], ["q", "v"], "qv", False),
        ([True, True, False], ["q", "k"], "qk", False),
        ([True, True, True], None, "qkv", False),
        ([False, True, False], ["k"], "k", False),
    ],
)
def test_merged_linears_groups_are_told_apart(
    enabled: list[bool], given: list[str] | None, roles: str, assumed: bool, tmp_path: Path
) -> None:
    name = "transformer.h.0.attn.c_attn"
    layer = loralib.MergedLinear(32, 96, r=4, lora_alpha=32, enable_lora=enabled, fan_in_fan_out=True)
    model = loralib_model({name: layer})
    torch.save(loralib.lora_state_dict(model), tmp_path / "gpt2.bin")
    adapter = read(str(tmp_path / "gpt2.bin"), Options(alpha=32, enable_lora=given))
    assert places(adapter) == [(0, role) for role in roles]
    assert any("taken as q and v" in note for note in adapter.notes) == assumed
    theirs = merged_difference(layer)
    for role in roles:
        rows = slice(32 * "qkv".index(role), 32 * ("qkv".index(role) + 1))
        assert adapter.load(adapter.matrices[roles.index(role)]).A.shape == (4, 32)
        np.testing.assert_allclose(of(adapter, 0, role), theirs[rows], atol=1e-6)


@pytest.mark.parametrize("given", ["whole file", "base of loralib", "plain base"])
@pytest.mark.parametrize(("k", "r"), [(3, 4), (1, 4), (2, 3)])
def test_loralibs_convolution_is_b_a_viewed_as_its_kernel(given: str, k: int, r: int, tmp_path: Path) -> None:
    name = "stem.conv1"
    layer = loralib.Conv2d(6, 16, k, r=r, lora_alpha=8)
    model = loralib_model({name: layer})
    state, base_name = model.state_dict(), f"{name}.conv.weight" if given == "base of loralib" else f"{name}.weight"
    save_file({base_name: layer.conv.weight.detach().clone()}, tmp_path / "base.safetensors")
    torch.save(state if given == "whole file" else loralib.lora_state_dict(model), tmp_path / "a.bin")
    base_file = None if given == "whole file" else str(tmp_path / "base.safetensors")
    theirs = merged_difference(layer)
    for alpha in (8.0, None):
        adapter = read(str(tmp_path / "a.bin"), Options(base=base_file, alpha=alpha))
        (matrix,) = adapter.matrices
        assert (matrix.d_in, matrix.d_out, matrix.weight) == (6 * k * k, 16, "conv1")
        assert not any("taken as linear" in note for note in adapter.notes)
        np.testing.assert_allclose(dense(adapter, matrix), theirs / (1 if alpha else 8 / r), atol=1e-6)


def test_a_convolution_whose_kernel_is_not_seen_is_never_taken_for_a_linear_layer(tmp_path: Path) -> None:
    layers = {"stem.conv1": loralib.Conv2d(6, 16, 3, r=4), "stem.0": loralib.Linear(12, 8, r=4)}
    torch.save(loralib.lora_state_dict(loralib_model(layers)), tmp_path / "a.bin")
    adapter = read(str(tmp_path / "a.bin"))
    conv, linear = sorted(adapter.matrices, key=lambda matrix: matrix.d_in, reverse=True)
    with pytest.raises(InputError, match=r"stem\.conv1 is called a convolution.*\nGive the base: --base MODEL"):
        adapter.load(conv)
    assert adapter.load(linear).A.shape == (4, 12)
    assert any("taken as linear: stem.0 (a convolution's kernel" in note for note in adapter.notes)


@pytest.mark.parametrize(
    ("shape", "words"),
    [((16, 3, 3, 3), "in groups"), ((16, 6, 5, 5), "no view of its weight"), ((16, 6, 3), "no view of its weight")],
)
def test_what_is_no_view_of_its_kernel_is_refused(shape: tuple[int, ...], words: str, tmp_path: Path) -> None:
    groups = 2 if words == "in groups" else 1
    model = loralib_model({"stem": loralib.Conv2d(6, 16, 3, r=4, groups=groups)})
    save_file({"stem.weight": torch.ones(shape)}, tmp_path / "base.safetensors")
    torch.save(loralib.lora_state_dict(model), tmp_path / "a.bin")
    with pytest.raises(InputError, match=words):
        read(str(tmp_path / "a.bin"), Options(base=str(tmp_path / "base.safetensors")))


def test_one_group_of_merged_linear_must_be_named(tmp_path: Path) -> None:
    layer = loralib.MergedLinear(32, 96, r=4, enable_lora=[False, False, True], fan_in_fan_out=True)
    torch.save(loralib.lora_state_dict(loralib_model({"h.0.attn.c_attn": layer})), tmp_path / "a.bin")
    with pytest.raises(InputError, match=r"adapts 1 of q, k and v.*\n.*--enable-lora q"):
        read(str(tmp_path / "a.bin"))


def test_the_start_of_adaloras_a_is_normal_and_of_loras_uniform(tmp_path: Path) -> None:
    """Their variances are 0.02 squared and 1 / (3 d_in)."""
    name = "roberta.encoder.layer.0.output.dense"
    lora = {f"{name}.lora_A": torch.randn(8, 3072), f"{name}.lora_B": torch.zeros(768, 8)}
    found = []
    for file, tensors in (("lora.pt", lora), ("adalora.pt", lora | {f"{name}.lora_E": torch.zeros(8, 1)})):
        torch.save(tensors, tmp_path / file)
        (matrix,) = read(str(tmp_path / file)).matrices
        found.append(matrix.origin.variance)
    assert found == [1 / (3 * 3072), 0.02**2]
