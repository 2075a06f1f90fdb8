"""Adapters of other tools (MLX, AdapterHub, torchtune, PEFT before 0.2), and files that are no adapters at all."""

import json
from pathlib import Path
from typing import Any

import loralib
import numpy as np
import pytest
import torch
from helpers.dense_updates import dense, of, places
from helpers.foreign_adapters import loralib_model, merged_difference, roberta_layers
from helpers.handmade_adapters import factors, write_peft
from safetensors.torch import load_file, save_file
from torch import Tensor

from analysis.adapters import Options, read
from lora_repro.errors import InputError

LAYER = "model.layers.0.self_attn.q_proj"


def pair() -> tuple[Tensor, Tensor]:
    """A (r, d_in) and B (d_out, r), of r = 4."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 16, generator=generator), torch.randn(24, 4, generator=generator)


def write_mlx(folder: Path, settings: dict[str, Any], **more: Tensor) -> Path:
    A, B = pair()
    folder.mkdir()
    tensors = {f"{LAYER}.lora_a": A.T.contiguous(), f"{LAYER}.lora_b": B.T.contiguous()}
    save_file(tensors | {f"{LAYER}.{name}": tensor for name, tensor in more.items()}, folder / "adapters.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("said", "scale"),
    [({"rank": 4, "scale": 20.0, "dropout": 0}, 20), ({"rank": 4, "alpha": 8, "scale": 10}, 20)],
)
def test_mlx_factors_are_transposed_and_its_scale_is_no_alpha(
    said: dict[str, Any], scale: float, tmp_path: Path
) -> None:
    folder = write_mlx(tmp_path / "a", {"fine_tune_type": "lora", "num_layers": 1, "lora_parameters": said})
    A, B = pair()
    for given in (folder, folder / "adapters.safetensors"):
        adapter = read(str(given))
        assert adapter.format == "MLX folder" and places(adapter) == [(0, "q")] and not adapter.notes
        (matrix,) = adapter.matrices
        assert (matrix.d_out, matrix.d_in) == (24, 16)
        np.testing.assert_allclose(dense(adapter, matrix), scale * (B.double() @ A.double()).numpy(), atol=1e-4)


def test_an_mlx_file_alone_has_no_scale(tmp_path: Path) -> None:
    folder = write_mlx(tmp_path / "a", {})
    (folder / "adapter_config.json").unlink()
    adapter = read(str(folder), Options(alpha=8))
    A, B = pair()
    assert adapter.format == "MLX file without its settings" and "alpha" in adapter.takes
    np.testing.assert_allclose(of(adapter, 0, "q"), 2 * (B.double() @ A.double()).numpy(), atol=1e-5)
    assert "Holds no alpha" in read(str(folder)).notes[0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fine_tune_type": "dora", "lora_parameters": {"rank": 4, "scale": 20}}, "MLX's fine_tune_type dora"),
        ({"fine_tune_type": "full"}, "MLX's fine_tune_type full"),
        ({"fine_tune_type": "lora"}, "holds no lora_parameters"),
        ({"lora_parameters": {"rank": 8, "scale": 20}}, "says rank = 8 .* lora_a has 4 columns"),
        ({"lora_parameters": {"rank": 4, "scale": "x"}}, "scale must be a number"),
        ({"lora_parameters": {"rank": 0, "scale": 1}}, "rank must be a whole number"),
    ],
)
def test_mlx_settings_of_no_plain_update_are_refused(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        read(str(write_mlx(tmp_path / "a", settings)))


def test_mlx_magnitudes_and_stacks_of_experts_are_refused(tmp_path: Path) -> None:
    settings = {"lora_parameters": {"rank": 4, "scale": 20}}
    with pytest.raises(InputError, match=r"q_proj\.m, and what it does to the update is not known"):
        read(str(write_mlx(tmp_path / "a", settings, m=torch.ones(24))))
    folder = write_mlx(tmp_path / "b", settings)
    save_file({f"{LAYER}.lora_a": torch.ones(3, 4, 16), f"{LAYER}.lora_b": torch.ones(3, 24, 4)},
              folder / "adapters.safetensors")  # fmt: skip
    with pytest.raises(InputError, match="a stack of experts"):
        read(str(folder))


@pytest.mark.parametrize("settings", [True, False])
def test_torchtunes_names_are_read(settings: bool, tmp_path: Path) -> None:
    A, B = pair()
    names = {"attn.q_proj": "q", "attn.output_proj": "o", "mlp.w1": "gate", "mlp.w2": "down", "mlp.w3": "up"}
    tensors = {f"layers.1.{name}.lora_{end}.weight": t for name in names for end, t in (("a", A), ("b", B))}
    torch.save(tensors, tmp_path / "adapter_0.pt")
    if settings:
        (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    adapter = read(str(tmp_path), Options(alpha=8))
    assert sorted(places(adapter)) == sorted((1, role) for role in names.values())
    for matrix in adapter.matrices:
        np.testing.assert_allclose(dense(adapter, matrix), 2 * (B.double() @ A.double()).numpy(), atol=1e-5)
    assert "orders the rows of q and k otherwise" in " ".join(adapter.notes)
    torch.save(tensors | {"layers.1.attn.q_proj.magnitude": torch.ones(24)}, tmp_path / "adapter_0.pt")
    with pytest.raises(InputError, match="is of DoRA"):
        read(str(tmp_path))


def test_an_epoch_of_torchtunes_is_read_and_of_several_one_is_asked_for(tmp_path: Path) -> None:
    A, B = pair()
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    for epoch in (1, 2):
        tensors = {"layers.1.attn.q_proj.lora_a.weight": A, "layers.1.attn.q_proj.lora_b.weight": epoch * B}
        torch.save(tensors, tmp_path / f"adapter_{epoch}.pt")
        if epoch == 1:
            np.testing.assert_allclose(of(read(str(tmp_path)), 1, "q"), 2 * (B.double() @ A.double()), atol=1e-5)
    with pytest.raises(
        InputError, match=r"2 epochs: adapter_1\.pt, adapter_2\.pt.\nGive one of them: .*/adapter_2\.pt"
    ):
        read(str(tmp_path))
    for epoch in (1, 2):
        found = of(read(str(tmp_path / f"adapter_{epoch}.pt")), 1, "q")
        np.testing.assert_allclose(found, 2 * epoch * (B.double() @ A.double()), atol=1e-5)


HUB: dict[str, Any] = {
    "architecture": "lora",
    "r": 4,
    "alpha": 8,
    "attn_matrices": ["q", "v"],
    "composition_mode": "add",
    "use_gating": False,
    "vera_d": None,
}


def write_hub(folder: Path, tensors: dict[str, Tensor], config: object = HUB) -> Path:
    folder.mkdir()
    named = {f"{name.rpartition('.')[0]}.loras.mine.{name.rpartition('.')[2]}": t for name, t in tensors.items()}
    torch.save(named, folder / "pytorch_adapter.bin")
    said = {"config": config, "hidden_size": 32, "model_name": "roberta-base", "model_type": "roberta", "name": "mine"}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return folder


def test_adapterhubs_folders_are_read_with_their_scale(tmp_path: Path) -> None:
    layers = roberta_layers(r=4, lora_alpha=8)
    adapter = read(str(write_hub(tmp_path / "a", loralib.lora_state_dict(loralib_model(layers)))))
    assert adapter.format == "AdapterHub folder" and adapter.base == "roberta-base" and not adapter.notes
    assert places(adapter) == [(0, "q"), (0, "v"), (1, "q"), (1, "v")]
    for matrix in adapter.matrices:
        np.testing.assert_allclose(dense(adapter, matrix), merged_difference(layers[matrix.module]), atol=1e-6)


def test_adapterhubs_other_starts_have_no_variance_and_a_note(tmp_path: Path) -> None:
    tensors = loralib.lora_state_dict(loralib_model(roberta_layers(r=4, lora_alpha=8)))
    plain, other = (
        read(str(write_hub(tmp_path / name, tensors, HUB | more)))
        for name, more in (("a", {"init_weights": "lora"}), ("b", {"init_weights": "bert"}))
    )
    assert {matrix.origin.variance for matrix in plain.matrices} == {1 / (3 * 32)} and not plain.notes
    assert {matrix.origin.variance for matrix in other.matrices} == {None}
    assert "init_weights=bert: B A did not start at zero" in " ".join(other.notes)


def test_adapterhubs_fused_layers_hold_groups_in_the_order_of_q_k_v(tmp_path: Path) -> None:
    name = "transformer.h.0.attn.c_attn"
    layer = loralib.MergedLinear(32, 96, r=4, lora_alpha=8, enable_lora=[True, False, True], fan_in_fan_out=True)
    state = loralib.lora_state_dict(loralib_model({name: layer}))
    adapter = read(str(write_hub(tmp_path / "a", state, HUB | {"attn_matrices": ["v", "q"]})))
    whole = merged_difference(layer)
    for role, begin in (("q", 0), ("v", 64)):
        np.testing.assert_allclose(of(adapter, 0, role), whole[begin : begin + 32], atol=1e-6)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (HUB | {"architecture": None}, "AdapterHub's, of the architecture None"),
        ({"architecture": "union", "configs": []}, "of the architecture union"),
        ("pfeiffer", "of the architecture pfeiffer"),
        (HUB | {"composition_mode": "scale"}, "composition_mode = scale"),
        (HUB | {"use_gating": True}, "use_gating = True"),
        (HUB | {"vera_d": 0.1}, "vera_d = 0.1"),
        (HUB | {"r": 0}, "r must be a whole number"),
    ],
)
def test_adapterhubs_other_methods_are_refused_by_name(config: object, words: str, tmp_path: Path) -> None:
    layers = roberta_layers(r=4, lora_alpha=8)
    with pytest.raises(InputError, match=words):
        read(str(write_hub(tmp_path / "a", loralib.lora_state_dict(loralib_model(layers)), config)))


def test_peft_before_0_2_has_groups_where_enable_lora_says_so(tmp_path: Path) -> None:
    name = "transformer.h.0.attn.c_attn"
    layer = loralib.MergedLinear(32, 96, r=4, lora_alpha=8, enable_lora=[True, False, True], fan_in_fan_out=True)
    state = loralib.lora_state_dict(loralib_model({name: layer}))
    old = {f"base_model.model.{name}.lora_A.weight": state[f"{name}.lora_A"]}
    old |= {f"base_model.model.{name}.lora_B.weight": state[f"{name}.lora_B"][:, :, None]}  # a Conv1d's
    torch.save(old, tmp_path / "adapter_model.bin")
    settings = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "enable_lora": [True, False, True],
        "merge_weights": False,
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    adapter, whole = read(str(tmp_path)), merged_difference(layer)
    assert adapter.format == "PEFT folder" and places(adapter) == [(0, "q"), (0, "v")] and not adapter.notes
    for role, begin in (("q", 0), ("v", 64)):
        np.testing.assert_allclose(of(adapter, 0, role), whole[begin : begin + 32], atol=1e-6)
    torch.save({key.replace("attn.c_attn", "query_key_value"): value for key, value in old.items()},
               tmp_path / "adapter_model.bin")  # fmt: skip
    with pytest.raises(InputError, match=r"of PEFT before 0\.2, and .*query_key_value is no known layer"):
        read(str(tmp_path))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (POINTER, "is a Git-LFS pointer.*\ngit lfs pull"),
        (b"GGUF\x03\0\0\0" + bytes(40), "is a GGUF file"),
        (b"<!DOCTYPE html><html>Not found</html>", "is a web page"),
        (b'{"r": 8}', "is JSON: settings, not weights"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "is an HDF5 file"),
    ],
)
@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_model.bin"])
def test_a_file_that_is_no_adapter_is_called_what_it_is(content: bytes, words: str, name: str, tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "a", factors(2, 0))
    (folder / "adapter_model.safetensors").unlink()
    (folder / name).write_bytes(content)
    (tmp_path / name).write_bytes(content)
    for given in (folder, tmp_path / name):
        with pytest.raises(InputError, match=words):
            read(str(given))


def test_settings_that_are_a_git_lfs_pointer_are_called_so(tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "a", factors(2, 0))
    (folder / "adapter_config.json").write_bytes(POINTER)
    with pytest.raises(InputError, match="is a Git-LFS pointer"):
        read(str(folder))


def test_mlx_archives_of_numpy_say_how_to_write_them_anew(tmp_path: Path) -> None:
    np.savez(tmp_path / "adapters.npz", x=np.ones(2))
    with pytest.raises(InputError, match="as MLX wrote adapters before safetensors"):
        read(str(tmp_path / "adapters.npz"))


@pytest.mark.parametrize("length", [60, 123, 316, 379])
def test_a_whole_file_whose_length_looks_like_a_page_is_read(length: int, tmp_path: Path) -> None:
    """The length of a header stands first: 60 and 123 are < and {, as are 316 and 379 in their lowest byte."""
    A, B = pair()
    path = tmp_path / "x.safetensors"
    save_file({"a.lora_A": A, "a.lora_B": B}, path)
    content = path.read_bytes()
    header = content[8 : 8 + int.from_bytes(content[:8], "little")].rstrip()
    if len(header) > length:
        length += 512
    path.write_bytes(
        length.to_bytes(8, "little") + header.ljust(length) + content[8 + int.from_bytes(content[:8], "little") :]
    )
    assert load_file(path).keys() == {"a.lora_A", "a.lora_B"} and len(read(str(path)).matrices) == 1


def test_nesting_without_end_in_a_header_or_an_index_is_damage(tmp_path: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    text = f'{{"__metadata__": {deep}}}'.encode()
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(InputError, match="is damaged"):
        read(str(tmp_path / "x.safetensors"))
    A, B = pair()
    path = tmp_path / "y.safetensors"
    save_file({"x.lora_A.weight": A, "x.lora_B.weight": B}, path, {"lora_adapter_metadata": deep})
    with pytest.raises(InputError, match=r"lora_adapter_metadata in its header: is damaged \(it is nested deeper"):
        read(str(path))
    shards = tmp_path / "shards"
    shards.mkdir()
    save_file({"x.weight": A}, shards / "model-00001-of-00001.safetensors")
    (shards / "model.safetensors.index.json").write_text(deep)
    with pytest.raises(InputError, match=r"index\.json: is damaged"):
        read(str(shards))
    (shards / "model.safetensors.index.json").unlink()
    (shards / "config.json").write_text(deep)
    with pytest.raises(InputError, match=r"config\.json: is damaged"):
        read(str(shards))


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.uint8, torch.bool, torch.int64, torch.float8_e4m3fn, torch.complex64]
)
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_factors_of_a_type_that_is_no_plain_number_are_refused_in_words(
    dtype: torch.dtype, suffix: str, tmp_path: Path
) -> None:
    A, B = pair()
    tensors = {"x.lora_A.weight": A.to(dtype), "x.lora_B.weight": B.to(dtype)}
    path = tmp_path / f"x.{suffix}"
    save_file(tensors, path) if suffix == "safetensors" else torch.save(tensors, path)
    with pytest.raises(InputError, match=r"(is kept as|is no plain tensor).*\nGive a file"):
        adapter = read(str(path))
        adapter.load(adapter.matrices[0])
