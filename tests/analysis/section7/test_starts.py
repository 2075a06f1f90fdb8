"""A_0 drawn again, and the snapshots of a run; on tiny runs that are really computed."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from helpers.computed_runs import computed
from helpers.fixture_types import Compose
from safetensors.numpy import load_file, save_file

from analysis.section7 import starts
from analysis.section7.nulls import bands, expected_phi, outside
from analysis.section7.starts import final, initial_A, nearest_snapshot, snapshots, start_of, start_pictures
from analysis.section7.subspace import directions, phi_grid
from analysis.section7.update import Update
from lora_repro.config.compose import compose
from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.config.schema import Run
from lora_repro.errors import InputError, MissingInputError
from lora_repro.methods.lora import Init, Start
from lora_repro.methods.lora.layers import initial_A as initial_A_of_training
from lora_repro.store.finished_runs import run_of
from lora_repro.store.record import plain

SNAPSHOTS = ("log.snapshots=[0,0.5,1]", "train.epochs=2")


def run_from(*overrides: str) -> Run:
    return resolve(compose(["model=tiny_bert", "task=generated", *overrides])).run


def adapted(layer: int | None, weight: str, A: np.ndarray) -> Update:
    return Update(layer, weight, f"layers.{layer}.{weight}", A, np.zeros((4, len(A)), np.float32), 1.0)


@pytest.mark.parametrize("init", ["kaiming", "gaussian"])
def test_A_0_drawn_again_is_that_of_training(tiny: Compose, init: str) -> None:
    record, result = computed(tiny(f"method.init={init}", "method.r_pattern={layers.1.v:3}", "seed=5", *SNAPSHOTS))
    run, tensors = run_of(result), load_file(record.folder / "snapshots" / "0.safetensors")
    sites = run.arch.select(["q", "v"])
    assert len(sites) == 4
    for site in sites:
        A = tensors[f"base_model.model.{site.module}.lora_A.weight"]
        assert len(A) == (3 if site.name == "layers.1.v" else 8)
        np.testing.assert_array_equal(initial_A(run, adapted(site.layer, site.role, A)), A)


@pytest.mark.parametrize("init", list(Init))
def test_training_draws_with_the_same_code(init: Init) -> None:
    start = Start(3, init, 0.05)
    np.testing.assert_array_equal(
        initial_A_of_training(start, "layers.0.q", 4, 9).numpy(), start.draw_A("layers.0.q", 4, 9)
    )


def test_starts_that_were_not_drawn_are_refused() -> None:
    A = np.zeros((8, 32), np.float32)
    with pytest.raises(InputError, match="method=full has none"):
        start_of(run_from("method=full"))
    with pytest.raises(InputError, match="starts at zero"):
        initial_A(run_from(), adapted(None, "embed", A))
    run = run_from()
    run.train.init_from = "tiny_bert-generated-lora-r8-qv-s0-0123456789"
    with pytest.raises(InputError, match="starts from tiny_bert-generated"):
        start_of(run)


def test_snapshots_tell_how_far_a_run_has_moved_and_the_nearest_is_found(tiny: Compose) -> None:
    folder = computed(tiny(*SNAPSHOTS))[0].folder
    found = snapshots(folder)
    assert [snapshot.fraction for snapshot in found] == [0, 0.5, 1]
    assert found[0].moved == 0 < found[1].moved < found[2].moved
    end = final(folder)
    assert end.moved == found[2].moved
    assert nearest_snapshot(folder, 0.0) == found[0]
    assert nearest_snapshot(folder, 0.9 * found[1].moved + 0.1 * found[2].moved) == found[1]
    assert nearest_snapshot(folder, 1e3) == found[2]
    run, tensors = run_of(json.loads((folder / "result.json").read_text())), load_file(end.path)
    A = {site: tensors[f"base_model.model.{site.module}.lora_A.weight"] for site in run.arch.select(["q", "v"])}
    A_0 = {site: start_of(run).draw_A(site.name, *A[site].shape) for site in A}
    whole, began = (np.concatenate([of[site].ravel() for site in A]).astype(np.float64) for of in (A, A_0))
    assert end.moved == pytest.approx(np.linalg.norm(whole - began) / np.linalg.norm(began), rel=1e-9)


def test_a_frozen_A_has_not_moved(tiny: Compose) -> None:
    assert final(computed(tiny("method.freeze_A=true"))[0].folder).moved == 0


def test_the_factors_of_fused_layers_are_found(tmp_path: Path, tiny: Compose) -> None:
    """GPT-2 keeps q, k, v in one layer; a run's own factors lie beside PEFT's. The files are made by hand."""
    gpt2 = {"model_type": "gpt2", "vocab_size": 9, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16}
    run = run_from("method.r=2")
    run.model.config = gpt2
    names = {
        site.name: f"base_model.model.transformer.h.0.attn.c_attn.{site.role}.lora_A.weight"
        for site in run.arch.select(["q", "v"])
    }
    tensors = {key: Start(0).draw_A(name, 2, 8) * np.float32(1.5) for name, key in names.items()}
    save_file(tensors, tmp_path / "factors.safetensors")
    assert starts._moved(tmp_path / "factors.safetensors", run) == pytest.approx(0.5)


def test_what_is_missing_or_damaged_is_told(tiny: Compose, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"holds no result\.json"):
        final(tmp_path / "runs" / "nowhere")
    folder = computed(tiny())[0].folder
    with pytest.raises(MissingInputError, match=r"holds no snapshots.\nCompute the run again with: 'log.snapshots="):
        snapshots(folder)
    path = final(folder).path
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"adapter_model\.safetensors: was changed after the run wrote it"):
        final(folder)


def test_pictures_of_starts_are_what_runs_start_from_and_lie_where_chance_does() -> None:
    sites = run_from().arch.select(["q", "v"])[:2]
    start = Start(0)
    [first, *_] = start_pictures(start, sites, 4, 8, draws=1)
    seed = starts.FIRST_SEED
    by_hand = [phi_grid(*(directions(Start(seed).draw_A(site.name, r, site.d_in)) for r in (4, 8))) for site in sites]
    np.testing.assert_array_equal(first, by_hand)
    found = bands(start_pictures(start, sites, 4, 8, draws=400))
    for band in found:
        np.testing.assert_allclose(band.mean, expected_phi(4, 8, 32), rtol=0.25)
    real = [phi_grid(*(directions(Start(1).draw_A(site.name, r, site.d_in)) for r in (4, 8))) for site in sites]
    assert [sum(outside(grid, band)) for grid, band in zip(real, found, strict=True)] == [0, 0]


def test_pictures_of_runs_of_one_rank_have_two_seeds() -> None:
    """With one seed they would be the same A, and phi 1 everywhere."""
    [[grid]] = start_pictures(Start(0), run_from().arch.select(["q"])[:1], 4, 4, draws=1)
    assert grid[-1, -1] < 0.5


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["method=full", "train.dtype=bf16"],
        ["method.r_pattern={v:2}", "method.init=gaussian", "method.bias=lora_only", "method.targets=[v,q]"],
        ["task.permute_labels=true", "task.train_size=10", "train.max_steps=3", "seed=4"],
        ["model=minilm", "task=movies", "method.r=64"],
        ["model=smollm2", "task=movies", "task.form=text"],
    ],
)
def test_a_run_is_read_back_from_its_record(overrides: list[str]) -> None:
    run = run_from(*overrides)
    result = json.loads(json.dumps({"run_id": run_id(run), "config": plain(run)}))
    found = run_of(result)
    assert asdict(found) == asdict(run) and type(found.task) is type(run.task)
    assert found.arch == run.arch


def test_records_of_other_versions_are_refused_in_words() -> None:
    run = run_from()
    result = {"run_id": run_id(run), "config": plain(run)}

    def changed(group: str, **values: object) -> dict[str, object]:
        return result | {"config": result["config"] | {group: result["config"][group] | values}}

    with pytest.raises(InputError, match=r"there is no 'lorax'\. Did you mean 'lora'"):
        run_of(changed("method", name="lorax"))
    with pytest.raises(InputError, match=r"there is no 'moviez'\. Did you mean 'movies'"):
        run_of(changed("task", name="moviez"))
    with pytest.raises(InputError, match="does not fit this version"):
        run_of(changed("method", magic=1))
    with pytest.raises(InputError, match=r"has the id .* here; another version wrote it"):
        run_of(changed("method", r=3))
