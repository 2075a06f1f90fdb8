"""Adapters that the foreign libraries wrote themselves, read back: dW against what those libraries add to a weight."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.dense_updates import dense, of, places
from helpers.foreign_adapters import base, peft_folder
from safetensors.torch import load_file, save_file
from torch import nn

from analysis.adapters import Options, read
from analysis.adapters.backbone import arch_named
from analysis.adapters.tensors import open_tensors
from lora_repro.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),  # PEFT asks by an old name
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning"),
]


@pytest.mark.parametrize(
    ("settings", "scalings"),
    [
        (dict(r=4, lora_alpha=8), [2, 2]),
        (dict(r=4, lora_alpha=8, use_rslora=True), [4, 4]),
        (dict(r=4, lora_alpha=8, bin_file=True), [2, 2]),
        (
            dict(r=4, lora_alpha=8, rank_pattern={"v_proj": 2}, alpha_pattern={r"layers\.1\.self_attn\.q_proj": 6}),
            [2, 4, 1.5, 4],
        ),
    ],
)
def test_peft_folders_have_their_scale(settings: dict[str, Any], scalings: list[float], tmp_path: Path) -> None:
    theirs = peft_folder(tmp_path, base("llama"), target_modules=["q_proj", "v_proj"], **settings)
    adapter = read(str(tmp_path))
    assert adapter.format == "PEFT folder" and adapter.unknown == []
    assert places(adapter) == [(0, "q"), (0, "v"), (1, "q"), (1, "v")]
    assert [adapter.load(m).scaling for m in adapter.matrices] == pytest.approx(scalings * (4 // len(scalings)))
    for matrix in adapter.matrices:
        np.testing.assert_allclose(dense(adapter, matrix), theirs[matrix.module], atol=1e-6)


@pytest.mark.parametrize(
    ("family", "targets", "roles"),
    [
        ("bert", ["query", "output.dense", "intermediate.dense"], ["q", "o", "up", "down"]),
        ("llama", ["o_proj", "gate_proj", "down_proj"], ["o", "down", "gate"]),
        ("gpt2", ["attn.c_proj", "c_fc"], ["o", "up"]),
    ],
)
def test_letters_come_from_names_and_from_a_base_alike(
    family: str, targets: list[str], roles: list[str], tmp_path: Path
) -> None:
    model = base(family)
    model.save_pretrained(tmp_path / "base")
    theirs = peft_folder(tmp_path / "peft", model, r=2, target_modules=targets, fan_in_fan_out=family == "gpt2")
    for options in (Options(), Options(base=str(tmp_path / "base"))):
        adapter = read(str(tmp_path / "peft"), options)
        assert places(adapter) == [(layer, role) for layer in range(2) for role in roles]
        for matrix in adapter.matrices:
            np.testing.assert_allclose(dense(adapter, matrix), theirs[matrix.module], atol=1e-6)


def test_an_adapted_embedding_is_a_matrix_of_tokens(tmp_path: Path) -> None:
    theirs = peft_folder(tmp_path, base("llama"), r=3, target_modules=["embed_tokens", "v_proj"])
    adapter = read(str(tmp_path))
    assert places(adapter) == [(None, "embed"), (0, "v"), (1, "v")]
    assert (adapter.matrices[0].d_in, adapter.matrices[0].d_out) == (64, 32)
    np.testing.assert_allclose(of(adapter, None, "embed"), theirs["model.embed_tokens"], atol=1e-6)


@pytest.mark.parametrize("name", ["shared", "tok_embeddings"])
def test_an_embedding_is_one_by_its_tensors_whatever_its_name(name: str, tmp_path: Path) -> None:
    """T5 calls it `shared`. PEFT starts its A at zero, and the weight is a table of W's columns."""
    table, layer = nn.Embedding(64, 32), nn.Linear(32, 32)
    save_file({f"model.{name}.weight": table.weight.detach()}, tmp_path / "base.safetensors")
    model = nn.ModuleDict({"model": nn.ModuleDict({name: table, "q_proj": layer})})
    theirs = peft_folder(tmp_path / "peft", model, r=3, target_modules=[name, "q_proj"])
    adapter = read(str(tmp_path / "peft"), Options(base=str(tmp_path / "base.safetensors")))
    adapted, other = sorted(adapter.matrices, key=lambda matrix: matrix.module == "model.q_proj")
    assert (adapted.module, adapted.d_in, adapted.d_out) == (f"model.{name}", 64, 32)
    assert (adapted.origin.variance, other.origin.variance) == (None, 1 / (3 * 32))
    dW = theirs[f"model.{name}"] if "embed" in name else theirs[f"model.{name}"].T
    np.testing.assert_allclose(dense(adapter, adapted), dW, atol=1e-6)
    W_0 = adapted.frozen()
    assert W_0 is not None
    np.testing.assert_array_equal(W_0, table.weight.detach().numpy().T)


def test_gpt2s_fused_layer_is_split_into_q_k_and_v(tmp_path: Path) -> None:
    theirs = peft_folder(tmp_path, base("gpt2"), r=4, target_modules=["c_attn"], fan_in_fan_out=True)
    adapter = read(str(tmp_path))
    assert places(adapter) == [(layer, role) for layer in range(2) for role in "qkv"]
    whole = theirs["transformer.h.1.attn.c_attn"]
    for index, role in enumerate("qkv"):
        np.testing.assert_allclose(of(adapter, 1, role), whole[32 * index : 32 * (index + 1)], atol=1e-6)


@pytest.mark.parametrize(
    ("family", "module"), [("mpt", "transformer.blocks.1.attn.Wqkv"), ("modernbert", "model.layers.1.attn.Wqkv")]
)
def test_blocks_of_other_names_are_split_as_the_model_splits_its_output(
    family: str, module: str, tmp_path: Path
) -> None:
    model = base(family)
    theirs = peft_folder(tmp_path, model, r=4, target_modules=["Wqkv"])
    adapter = read(str(tmp_path))
    assert places(adapter) == [(layer, role) for layer in range(2) for role in "qkv"] and not adapter.notes
    for role, block in zip("qkv", np.split(theirs[module], 3), strict=True):
        np.testing.assert_allclose(of(adapter, 1, role), block, atol=1e-6)


@pytest.mark.parametrize(
    ("module", "d_out", "parts"),
    [
        ("model.layers.0.self_attn.W_pack", 96, ["q", "k", "v"]),
        ("model.layers.0.self_attn.W_pack", 64, ["W_pack"]),  # heads in groups: k and v are narrower
        ("transformer.blocks.0.attn.Wqkv", 48, ["Wqkv"]),
        ("transformer.h.0.attn.c_attn", 48, ["c_attn"]),  # one k and v for all heads
        ("transformer.h.0.self_attention.query_key_value", 96, ["query_key_value"]),  # BLOOM and Falcon, by head
        ("transformer.h.0.attn.qkv_proj", 96, ["qkv_proj"]),  # CodeGen
        ("somebodys.own.qkv", 96, ["qkv"]),
        ("model.layers.0.mlp.gate_up_proj", 128, ["gate_up_proj"]),
    ],
)
def test_what_is_not_split_is_told(module: str, d_out: int, parts: list[str], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    A, B = (torch.from_numpy(rng.normal(size=size)).float() for size in ((2, 32), (d_out, 2)))
    save_file({f"{module}.lora_A.weight": A, f"{module}.lora_B.weight": B}, tmp_path / "x.safetensors")
    adapter = read(str(tmp_path / "x.safetensors"), Options(alpha=2))
    assert [m.weight for m in adapter.matrices] == parts
    told = [note for note in adapter.notes if note == f"Computes several matrices at once, not split: {module}."]
    assert len(told) == (len(parts) == 1)
    whole = np.concatenate([dense(adapter, matrix) for matrix in adapter.matrices])
    np.testing.assert_allclose(whole, (B.double() @ A.double()).numpy(), atol=1e-6)


def test_bloom_keeps_its_heads_apart_so_its_layer_stays_whole(tmp_path: Path) -> None:
    theirs = peft_folder(tmp_path, base("bloom"), r=4, target_modules=["query_key_value"])
    adapter = read(str(tmp_path))
    assert places(adapter) == [(0, "query_key_value"), (1, "query_key_value")]
    assert any("not split: transformer.h.*.self_attention.query_key_value (2)" in note for note in adapter.notes)
    for matrix in adapter.matrices:
        np.testing.assert_allclose(dense(adapter, matrix), theirs[matrix.module], atol=1e-6)


def test_neox_interleaves_by_head_and_says_what_is_missing(tmp_path: Path) -> None:
    model = base("gpt_neox")
    model.save_pretrained(tmp_path / "base")
    theirs = peft_folder(tmp_path / "peft", model, r=4, target_modules=["query_key_value"])
    with pytest.raises(InputError, match=r"how many heads there are.\nGive the base: --base MODEL"):
        read(str(tmp_path / "peft"))
    adapter = read(str(tmp_path / "peft"), Options(base=str(tmp_path / "base")))
    assert places(adapter) == [(layer, role) for layer in range(2) for role in "qkv"]
    heads = theirs["gpt_neox.layers.0.attention.query_key_value"].reshape(4, 3, 8, 32)
    for index, role in enumerate("qkv"):
        np.testing.assert_allclose(of(adapter, 0, role), heads[:, index].reshape(32, 32), atol=1e-6)


def test_a_base_is_known_by_our_name_or_the_hubs_and_never_opened_as_a_path() -> None:
    for name in ("minilm", "sentence-transformers/all-MiniLM-L6-v2"):
        arch = arch_named(name)
        assert arch is not None and (arch.model_type, arch.d_model) == ("bert", 384)
    assert [arch_named(name) for name in (None, 3, "local", "../minilm", "/")] == [None] * 5


def test_the_head_and_biases_are_listed_as_no_part_of_the_update(tmp_path: Path) -> None:
    peft_folder(tmp_path, base("bert"), r=2, target_modules=["query"], bias="lora_only", task_type="SEQ_CLS")
    unknown = read(str(tmp_path)).unknown
    assert "base_model.model.classifier.weight" in unknown
    assert "base_model.model.bert.encoder.layer.0.attention.self.query.base_layer.bias" in unknown


@pytest.mark.parametrize(("start", "words"), [("pissa", "pissa"), (False, "false")])
def test_a_start_of_b_a_that_is_not_zero_is_told(start: str | bool, words: str, tmp_path: Path) -> None:
    peft_folder(tmp_path, base("llama"), r=2, target_modules=["v_proj"], init_lora_weights=start)
    (note,) = read(str(tmp_path)).notes
    assert note.startswith(f"init_lora_weights={words}: B A did not start at zero")


@pytest.mark.parametrize(
    ("start", "words"),
    [("eva", "two such adapters share directions of A"), ("mica", "have the same B"), (True, ""), ("gaussian", "")],
)
def test_a_start_at_zero_that_is_not_drawn_has_a_sentence_of_its_own(
    start: str | bool, words: str, tmp_path: Path
) -> None:
    peft_folder(tmp_path, base("llama"), r=2, target_modules=["v_proj"])
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"init_lora_weights": start}))
    notes = " ".join(read(str(tmp_path)).notes)
    assert words in notes and bool(notes) == bool(words) and "did not start at zero" not in notes


def test_pefts_names_without_its_settings_have_no_scale(tmp_path: Path) -> None:
    theirs = peft_folder(tmp_path, base("llama"), r=2, lora_alpha=6, target_modules=["v_proj"])
    (tmp_path / "adapter_config.json").unlink()
    for options, scaling in ((Options(), None), (Options(alpha=6), 3)):
        adapter = read(str(tmp_path), options)
        assert "without adapter_config.json" in adapter.format and "alpha" in adapter.takes
        assert adapter.load(adapter.matrices[0]).scaling == scaling
    np.testing.assert_allclose(of(adapter, 0, "v"), theirs["model.layers.0.self_attn.v_proj"], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_every_type_with_fractions_is_read_exactly(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {
        "a": torch.randn(3, 5).to(dtype),
        "b": (1e-5 * torch.randn(4)).to(dtype),
        "c": torch.tensor(7.0).to(dtype),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    torch.save(tensors, tmp_path / "x.bin")
    for path in (tmp_path / "x.safetensors", tmp_path / "x.bin"):
        opened = open_tensors(path)
        for name, tensor in tensors.items():
            assert opened.shapes[name] == tuple(tensor.shape)
            np.testing.assert_array_equal(opened.read(name), tensor.double().numpy())


def test_whole_numbers_are_refused_when_they_are_read(tmp_path: Path) -> None:
    save_file(
        {"x.lora_A.weight": torch.ones(2, 4, dtype=torch.int8), "x.lora_B.weight": torch.ones(4, 2)},
        tmp_path / "x.safetensors",
    )
    adapter = read(str(tmp_path / "x.safetensors"))
    with pytest.raises(InputError, match="kept as I8"):
        adapter.load(adapter.matrices[0])


def test_two_tensors_of_one_name_are_refused(tmp_path: Path) -> None:
    """The library lets the last win where both are of the same bytes, here as numbers of another type."""
    entries = [("x.lora_A", "I32", [2, 4], 0), ("x.lora_B", "F32", [4, 2], 32), ("x.lora_A", "F32", [2, 4], 0)]
    header = ", ".join(
        f'"{name}": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": [{begin}, {begin + 32}]}}'
        for name, dtype, shape, begin in entries
    )
    text = f"{{{header}}}".encode()
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
    assert len(load_file(tmp_path / "x.safetensors")) == 2
    with pytest.raises(InputError, match=r"1 names stand there more than once: x\.lora_A"):
        read(str(tmp_path / "x.safetensors"))


def test_one_matrix_is_in_memory_at_a_time(tmp_path: Path) -> None:
    shape = {
        f"model.layers.{i}.self_attn.q_proj.lora_{m}": s
        for i in range(32)
        for m, s in zip("AB", [(8, 16384), (16384, 8)], strict=True)
    }
    save_file({name: torch.ones(size) for name, size in shape.items()}, tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").stat().st_size > 32 * 2**20
    tracemalloc.start()
    try:
        adapter = read(str(tmp_path / "x.safetensors"))
        total = sum(float(adapter.load(matrix).A.sum()) for matrix in adapter.matrices)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 32 * 8 * 16384 and peak < 4 * 2**20
    assert load_file(tmp_path / "x.safetensors").keys() == shape.keys()
