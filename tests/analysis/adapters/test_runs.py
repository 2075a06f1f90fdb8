"""Our own runs, and pairs of full checkpoints: dW against what was trained, and against the difference itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.fixture_types import Compose
from helpers.foreign_adapters import added_by, base, peft_folder
from omegaconf import DictConfig
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from analysis.adapters import Adapter, Options, checkpoints, read
from analysis.adapters.checkpoints import first_directions
from analysis.section7 import starts
from analysis.section7.comparison import compare
from analysis.section7.inspection import inspect
from analysis.section7.sides import Side
from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.config.schema import load_group
from lora_repro.errors import InputError, MissingInputError
from lora_repro.models.load import load_model
from lora_repro.models.tokenizer import load_tokenizer
from lora_repro.training.job import run_job

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),  # PEFT asks by an old name
    pytest.mark.filterwarnings("ignore:Could not find a config file in local"),  # the base is no repository of the hub
]


def updates(adapter: Adapter) -> dict[tuple[int | None, str], np.ndarray]:
    found = {}
    for matrix in adapter.matrices:
        update = adapter.load(matrix)
        assert update.scaling is not None
        found[matrix.layer, matrix.weight] = update.scaling * update.B.astype(float) @ update.A.astype(float)
    return found


def folder_of(cfg: DictConfig) -> Path:
    return Path(cfg.paths.outputs, "runs", run_id(resolve(cfg).run))


def test_a_run_is_read_by_its_id_its_directory_and_its_adapter(tiny: Compose, tmp_path: Path) -> None:
    cfg = tiny("method.alpha=16", "log.snapshots=[0.5,1]")
    run_job(cfg)
    folder = folder_of(cfg)
    by_id = read(folder.name, Options(store=str(tmp_path)))
    assert (by_id.format, by_id.name) == ("run of lora", folder.name)
    assert [(m.layer, m.weight, m.d_in, m.d_out) for m in by_id.matrices] == [
        (layer, role, 32, 32) for layer in range(2) for role in "qv"
    ]
    assert by_id.unknown and all("classifier" in name or "pooler" in name for name in by_id.unknown)
    tensors = load_file(folder / "adapter" / "adapter_model.safetensors")
    for matrix in by_id.matrices:
        A, B = (tensors[f"base_model.model.{matrix.module}.lora_{m}.weight"].double().numpy() for m in "AB")
        np.testing.assert_allclose(updates(by_id)[matrix.layer, matrix.weight], 2 * B @ A, atol=1e-7)
    for given in (str(folder), f"{folder}/adapter", f"{folder}/snapshots/1.safetensors"):
        again = read(given)
        assert again.name == folder.name
        for key, value in updates(again).items():
            np.testing.assert_array_equal(value, updates(by_id)[key])
    half = updates(read(f"{folder}/snapshots/0.5.safetensors"))
    assert any(np.abs(half[key] - value).max() > 1e-4 for key, value in updates(by_id).items())


def test_inspect_says_how_far_each_A_of_a_run_has_moved(tiny: Compose) -> None:
    cfg = tiny("method.r_pattern={layers.1.v:3}", "log.snapshots=[0,1]")
    run_job(cfg)
    folder = folder_of(cfg)
    rows, began = (
        inspect(adapter, adapter.matrices, with_base=False).rows
        for adapter in (read(str(folder)), read(f"{folder}/snapshots/0.safetensors"))
    )
    first, last = (load_file(folder / "snapshots" / f"{name}.safetensors") for name in "01")
    for row, start in zip(rows, began, strict=True):
        A_0, A = (tensors[f"base_model.model.{row.module}.lora_A.weight"].double() for tensors in (first, last))
        assert row.moved is not None and row.moved > 0
        assert row.moved == pytest.approx(float((A - A_0).norm() / A_0.norm()), rel=1e-6)
        assert (start.moved, start.above_edge) == (0, 0) and row.above_edge is not None
    together = starts.final(folder).moved
    assert min(row.moved or 0 for row in rows) < together < max(row.moved or 0 for row in rows)
    ours = read(str(folder)), read(f"{folder}/snapshots/0.safetensors")
    chosen = ours[0].matrices, ours[1].matrices
    compared = compare(*ours, chosen, Side.A)
    assert [each.moved for each in compared.rows] == [(row.moved, 0) for row in rows]
    assert "one start" in compared.notes[0] and "has moved from it by 0 to" in compared.notes[0]


def test_a_run_on_some_layers_has_updates_there_alone(tiny: Compose) -> None:
    cfg = tiny("method.layers=[1]", "method.targets=[q,o]")
    run_job(cfg)
    assert [(matrix.layer, matrix.weight) for matrix in read(str(folder_of(cfg))).matrices] == [(1, "q"), (1, "o")]


def test_what_was_not_drawn_has_not_moved_from_anywhere(tiny: Compose) -> None:
    cfg = tiny("model=tiny_llama", "preset@train=tiny_llama", "method.targets=[q,embed]", "method.r=2")
    run_job(cfg)
    adapter = read(str(folder_of(cfg)))
    rows = inspect(adapter, adapter.matrices, with_base=False).rows
    assert [(row.weight, row.moved is None, row.above_edge is None) for row in rows] == [
        ("embed", True, True), ("q", False, False), ("q", False, False),
    ]  # fmt: skip
    later = tiny("model=tiny_llama", "preset@train=tiny_llama", "method.targets=[q,embed]", "method.r=2",
                 f"train.init_from={folder_of(cfg).name}", "seed=1")  # fmt: skip
    run_job(later)
    adapter = read(str(folder_of(later)))
    rows = inspect(adapter, adapter.matrices, with_base=False).rows
    assert [(row.moved, row.above_edge) for row in rows] == [(None, None)] * 3


def test_an_embedding_of_a_run_is_read(tiny: Compose) -> None:
    cfg = tiny("model=tiny_llama", "preset@train=tiny_llama", "method.targets=[q,embed]", "method.r=2")
    run_job(cfg)
    adapter = read(str(folder_of(cfg)))
    assert [(m.layer, m.weight) for m in adapter.matrices] == [(None, "embed"), (0, "q"), (1, "q")]
    tensors = load_file(folder_of(cfg) / "adapter" / "adapter_model.safetensors")
    A, B = (tensors[f"base_model.model.model.embed_tokens.lora_embedding_{m}"].double().numpy() for m in "AB")
    scaling = adapter.load(adapter.matrices[0]).scaling
    assert scaling is not None and (adapter.matrices[0].d_in, adapter.matrices[0].d_out) == (A.shape[1], B.shape[0])
    np.testing.assert_allclose(updates(adapter)[None, "embed"], scaling * B @ A, atol=1e-7)


@pytest.mark.parametrize(("family", "pattern"), [("gpt2", "{v:2}"), ("gpt_neox", "{layers.0:3}")])
def test_a_fused_runs_matrices_have_their_own_factors(family: str, pattern: str, tiny: Compose, tmp_path: Path) -> None:
    """Of the run by factors.safetensors, of PEFT's folder by its zeros; PEFT says what both add to the layer."""
    base(family).save_pretrained(tmp_path / "base")
    load_tokenizer(load_group("model", "tiny_bert"), None, "").save_pretrained(str(tmp_path / "base"))
    cfg = tiny(
        "model=local", f"paths.model={tmp_path / 'base'}", "preset@train=tiny_llama", "task.form=text",
        "method.targets=[q,v]", "method.r=4", f"method.r_pattern={pattern}", "method.alpha=8",
    )  # fmt: skip
    run_job(cfg)
    folder = folder_of(cfg)
    own = read(str(folder))
    ranks = {(m.layer, m.weight): len(own.load(m).A) for m in own.matrices}
    assert ranks[1, "q"] == 4 and ranks[0, "v"] == (2 if family == "gpt2" else 3)
    (tmp_path / "copy").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "copy" / name).write_bytes((folder / "adapter" / name).read_bytes())
    peft = read(str(tmp_path / "copy"), Options(base=str(tmp_path / "base")))
    ours, theirs = updates(own), updates(peft)
    assert {(m.layer, m.weight): len(peft.load(m).A) for m in peft.matrices if m.weight != "k"} == ranks
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), str(tmp_path / "copy"))
    layers = [layer for _, layer in model.named_modules() if isinstance(layer, LoraLayer)]
    assert len(layers) == 2
    for number, layer in enumerate(layers):
        whole = added_by(layer).numpy()
        parts = whole.reshape(1 if family == "gpt2" else 4, 3, -1, 32)
        for index, role in enumerate("qkv"):
            expected = parts[:, index].reshape(32, 32)
            np.testing.assert_allclose(theirs[number, role], expected, atol=1e-6)
            if role != "k":
                np.testing.assert_allclose(ours[number, role], expected, atol=1e-6)
        assert np.abs(whole).max() > 1e-4 and not np.any(theirs[number, "k"])


def test_full_fine_tuning_is_read_against_the_base_that_it_began_from(tiny: Compose) -> None:
    cfg = tiny("method=full", "log.save_full=true")
    run_job(cfg)
    folder = folder_of(cfg)
    adapter = read(str(folder))
    start = load_model(resolve(cfg).run, None, "", torch.device("cpu")).state_dict()
    trained = load_file(folder / "trained.safetensors")
    assert {m.weight for m in adapter.matrices} >= {"q", "k", "v", "o", "up", "down", "embed"}
    for matrix in adapter.matrices:
        change = (trained[f"{matrix.module}.weight"].double() - start[f"{matrix.module}.weight"].double()).numpy()
        expected = change.T if "embeddings" in matrix.module and matrix.weight == "embed" else change
        np.testing.assert_allclose(updates(adapter)[matrix.layer, matrix.weight], expected, atol=1e-10)
    assert any("bert.encoder.layer.*.output.dense.bias" in note for note in adapter.notes)


def test_runs_that_hold_no_update_say_why(tiny: Compose) -> None:
    for method, words in (("full", "log.save_full=true"), ("head_only", "changes no matrix but the head's")):
        cfg = tiny(f"method={method}")
        run_job(cfg)
        with pytest.raises(InputError, match=words):
            read(str(folder_of(cfg)))
    (folder_of(cfg) / "result.json").unlink()
    with pytest.raises(MissingInputError, match="the run is not finished"):
        read(str(folder_of(cfg)))


def changed(family: str, folder: Path, **save: object) -> dict[str, np.ndarray]:
    """Saves a base and a checkpoint that differs from it, by rank 3 in some weights; returns the differences."""
    model = base(family)
    model.save_pretrained(folder / "base")
    rng, changes = np.random.default_rng(0), {}
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and ("attn" in name or "attention" in name):
            low = rng.normal(size=(parameter.shape[0], 3)) @ rng.normal(size=(3, parameter.shape[1])) * 0.01
            before = parameter.detach().double().numpy()
            parameter.data += torch.from_numpy(low).float()
            changes[name.removesuffix(".weight")] = parameter.detach().double().numpy() - before
    model.save_pretrained(folder / "trained", **save)  # pyright: ignore[reportArgumentType]
    return changes


@pytest.mark.parametrize("form", ["folder", "shards", "file", "bin"])
def test_a_pair_of_checkpoints_gives_its_difference(form: str, tmp_path: Path) -> None:
    changes = changed("llama", tmp_path, **({"max_shard_size": "30KB"} if form == "shards" else {}))
    trained, origin = tmp_path / "trained", tmp_path / "base"
    if form == "shards":
        assert len(list(trained.glob("model-*-of-*.safetensors"))) > 2
    if form == "file":
        trained, origin = trained / "model.safetensors", origin / "model.safetensors"
    if form == "bin":
        torch.save(load_file(trained / "model.safetensors"), tmp_path / "trained.bin")
        trained = tmp_path / "trained.bin"
    adapter = read(str(trained), Options(base=str(origin)))
    assert adapter.format == "full checkpoint"
    found = {m.module: (m, adapter.load(m)) for m in adapter.matrices}
    assert set(changes) < set(found)
    for module, (matrix, update) in found.items():
        if module in changes:
            assert matrix.weight == module[-6] and matrix.layer == int(module.split(".")[2])
            np.testing.assert_allclose(update.B @ update.A, changes[module], atol=1e-12)
        else:
            assert len(update.A) == 0  # left as it is


def test_the_first_directions_are_the_best_ones_and_their_order_is_that_of_dW(tmp_path: Path) -> None:
    changes = changed("llama", tmp_path)
    adapter = read(str(tmp_path / "trained"), Options(base=str(tmp_path / "base"), top=2))
    matrix = next(m for m in adapter.matrices if m.module in changes)
    update, norm, _ = adapter.loaded(matrix)
    U, s, Vt = np.linalg.svd(changes[matrix.module])
    np.testing.assert_allclose(update.B @ update.A, (U[:, :2] * s[:2]) @ Vt[:2], atol=1e-10)
    np.testing.assert_allclose(np.linalg.svd(update.A)[1] ** 2, s[:2], rtol=1e-8)
    assert norm == pytest.approx(np.linalg.norm(s)) and update.scaling == 1


def test_gpt2s_transposed_and_fused_weights_are_turned_and_split(tmp_path: Path) -> None:
    changes = changed("gpt2", tmp_path)
    weights = {path.parent.name: path for path in tmp_path.glob("*/model.safetensors")}
    for trained, origin in (("trained", "base"), (str(weights["trained"]), str(weights["base"]))):
        adapter = read(str(tmp_path / trained), Options(base=str(tmp_path / origin)))
        found = updates(adapter)
        for layer in range(2):
            whole = changes[f"transformer.h.{layer}.attn.c_attn"].T
            for index, role in enumerate("qkv"):
                np.testing.assert_allclose(found[layer, role], whole[32 * index : 32 * index + 32], atol=1e-12)
            np.testing.assert_allclose(found[layer, "o"], changes[f"transformer.h.{layer}.attn.c_proj"].T, atol=1e-12)


LINEAR: dict[str, dict[str, Any]] = {
    "gpt_neo": dict(hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]]),
    "gpt_bigcode": dict(n_embd=32, n_layer=2, n_head=4),
}
"""Models whose layers are called as GPT-2's Conv1D are, and are linear."""


@pytest.mark.parametrize("family", LINEAR)
@pytest.mark.parametrize("form", ["folder", "file"])
def test_linear_layers_of_gpt2s_names_are_not_turned(family: str, form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(family, vocab_size=64, bos_token_id=2, eos_token_id=3, **LINEAR[family])
    )
    model.save_pretrained(tmp_path / "base")
    origin = tmp_path / "base" / ("model.safetensors" if form == "file" else "")
    before = load_file(tmp_path / "base" / "model.safetensors")
    theirs = peft_folder(tmp_path / "peft", model, r=3, target_modules=["c_fc", "c_proj"])
    adapter = read(str(tmp_path / "peft"), Options(base=str(origin)))
    assert {m.weight for m in adapter.matrices} == {"up", "down"} | ({"o"} if family == "gpt_bigcode" else set())
    save_file({f"{n}.weight": before[f"{n}.weight"] + torch.from_numpy(dW).float() for n, dW in theirs.items()}
              | {name: bias for name, bias in before.items() if name.endswith(".bias")},
              tmp_path / "trained.safetensors")  # fmt: skip
    merged = read(str(tmp_path / "trained.safetensors"), Options(base=str(origin)))
    assert [m.name for m in merged.matrices] == [m.name for m in adapter.matrices]
    for matrix, whole in zip(adapter.matrices, merged.matrices, strict=True):
        W_0 = before[f"{matrix.module}.weight"].numpy()
        for each in (matrix, whole):
            np.testing.assert_array_equal(each.frozen(), W_0)
        np.testing.assert_allclose(updates(adapter)[matrix.layer, matrix.weight], theirs[matrix.module], atol=1e-6)
        np.testing.assert_allclose(updates(merged)[matrix.layer, matrix.weight], theirs[matrix.module], atol=1e-6)


def test_the_checkpoints_own_configuration_says_how_neox_interleaves(tmp_path: Path) -> None:
    changes = changed("gpt_neox", tmp_path)
    origin = tmp_path / "base" / "model.safetensors"
    with pytest.raises(InputError, match="how many heads there are"):
        read(str(tmp_path / "trained" / "model.safetensors"), Options(base=str(origin)))
    found = updates(read(str(tmp_path / "trained"), Options(base=str(origin))))
    heads = changes["gpt_neox.layers.1.attention.query_key_value"].reshape(4, 3, 8, 32)
    for index, role in enumerate("qkv"):
        np.testing.assert_allclose(found[1, role], heads[:, index].reshape(32, 32), atol=1e-12)


def test_a_bare_model_and_a_classifier_have_other_names_and_are_one_base(tmp_path: Path) -> None:
    changed("bert", tmp_path)
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "base").base_model.save_pretrained(tmp_path / "bare")
    assert "encoder.layer.0.attention.self.query.weight" in load_file(tmp_path / "bare" / "model.safetensors")
    adapter = read(str(tmp_path / "trained"), Options(base=str(tmp_path / "bare")))
    assert any("The base does not hold them: classifier.bias, classifier.weight" in note for note in adapter.notes)
    whole = read(str(tmp_path / "trained"), Options(base=str(tmp_path / "base")))
    for key, value in updates(whole).items():
        if key in updates(adapter):
            np.testing.assert_array_equal(value, updates(adapter)[key])


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_positions_and_masks_are_listed_and_the_rest_is_read(suffix: str, tmp_path: Path) -> None:
    """Older transformers kept them with the weights: whole numbers, truth values, and a mask of floats."""
    torch.manual_seed(0)
    W, mask = torch.randn(8, 8), torch.ones(1, 1, 16, 16)
    beside = {
        "embeddings.position_ids": torch.arange(16)[None],
        "h.0.attn.bias": mask.bool(),
        "h.1.attn.bias": mask,
        "h.0.attn.masked_bias": torch.tensor(-1e4),
        "steps": torch.arange(6).reshape(2, 3),
    }
    for name, weight in (("base", W), ("trained", W + 0.1)):
        state = {"h.0.attn.q_proj.weight": weight, **beside}
        path = tmp_path / f"{name}.{suffix}"
        save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    adapter = read(str(tmp_path / f"trained.{suffix}"), Options(base=str(tmp_path / f"base.{suffix}")))
    assert [(m.layer, m.weight) for m in adapter.matrices] == [(0, "q")]
    np.testing.assert_allclose(updates(adapter)[0, "q"], np.full((8, 8), 0.1), atol=1e-6)
    (note,) = [note for note in adapter.notes if "which are not trained" in note]
    assert all(name in note for name in ("embeddings.position_ids", "h.*.attn.bias (2)", "masked_bias", "steps"))


def test_a_quantised_weight_is_no_mask(tmp_path: Path) -> None:
    name = "h.0.attn.q_proj.weight"
    save_file({name: torch.randn(8, 8)}, tmp_path / "base.safetensors")
    save_file({name: torch.ones(8, 8, dtype=torch.int8)}, tmp_path / "trained.safetensors")
    adapter = read(str(tmp_path / "trained.safetensors"), Options(base=str(tmp_path / "base.safetensors")))
    with pytest.raises(InputError, match=r"kept as I8.*\nGive a file that is not quantised"):
        adapter.load(adapter.matrices[0])
    with pytest.raises(InputError, match=r"without fractions, or masks: h\.0"):
        read(str(tmp_path / "trained.safetensors"), Options(base=str(tmp_path / "trained.safetensors")))


def test_checkpoints_need_a_base_of_their_own(tmp_path: Path) -> None:
    changed("llama", tmp_path)
    with pytest.raises(InputError, match="give what it was trained from: --base MODEL"):
        read(str(tmp_path / "trained"))
    save_file({"model.layers.0.self_attn.q_proj.weight": torch.ones(8, 8)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"no matrix in common .*of other shapes: model.layers.0.self_attn.q_proj"):
        read(str(tmp_path / "trained"), Options(base=str(tmp_path / "other.safetensors")))


def test_lanczos_gives_the_directions_that_the_whole_decomposition_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    dW = rng.normal(size=(90, 70)) @ np.diag(0.9 ** np.arange(70)) @ rng.normal(size=(70, 120))
    exact = first_directions(dW, 8)
    monkeypatch.setattr(checkpoints, "_DENSE_UP_TO", 10)
    near = first_directions(dW, 8)
    np.testing.assert_allclose(near.B @ near.A, exact.B @ exact.A, atol=1e-8 * np.abs(dW).max())
    np.testing.assert_allclose(np.abs(near.A), np.abs(exact.A), atol=1e-8 * np.abs(dW).max())
    assert near.norm == exact.norm == pytest.approx(np.linalg.norm(dW))
