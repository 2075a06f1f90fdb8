"""Runs that are cut to their first directions and scored again."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.fixture_types import Captured
from helpers.quick_compose import compose_quickly as compose
from torch import nn

from analysis.__main__ import main
from analysis.section7.truncation import _added, _changes, _check, _indices, _projected, truncate
from lora_repro.config.identity import NUMERICS_VERSION, run_id
from lora_repro.config.resolve import Resolved, resolve
from lora_repro.config.settings import Settings
from lora_repro.errors import RunFailedError
from lora_repro.models.arch import arch_of
from lora_repro.tasks.encoding import encode
from lora_repro.training import device, scoring
from lora_repro.training.job import run_job
from lora_repro.training.rescore import Rescorer
from lora_repro.training.train import build

TINY = (
    *("model=tiny_bert", "task=generated", "task.train_size=64", "task.eval_size=32", "task.test_size=32"),
    *("train.epochs=2", "compute.device=cpu", "compute.threads=1", "log.wandb=off"),
)
METHODS = {
    "lora": ("method=lora", "method.r=4", "method.targets=[q,v,up]", "train.learning_rate=0.02"),
    "full": ("method=full", "log.save_full=true", "train.learning_rate=0.003", "train.dtype=fp32"),
    "head_only": ("method=head_only",),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Resolved]:
    """A finished run of each method, all in one store."""
    store = tmp_path_factory.mktemp("store")
    runs = {}
    for name, overrides in METHODS.items():
        cfg = compose([*TINY, *overrides, f"paths.outputs={store}"])
        run_job(cfg)
        runs[name] = resolve(cfg)
    return runs


def folder_of(resolved: Resolved) -> Path:
    return Path(resolved.settings.paths.outputs) / "runs" / run_id(resolved.run)


def stored(resolved: Resolved) -> dict[str, float]:
    return json.loads((folder_of(resolved) / "result.json").read_text())["metrics"]


def settings() -> Settings:
    return resolve(compose(["compute.device=cpu"])).settings


def scored(resolved: Resolved, change: Callable[[nn.Module], None]) -> dict[str, float]:
    """Scores a run's model after a change that this test makes itself."""
    run, where = resolved.run, device.prepare(resolved.settings.compute)
    model = build(Resolved(run, resolved.settings, str(folder_of(resolved))), where)
    with torch.no_grad():
        change(model)
    splits = encode(run, resolved.settings)
    found: dict[str, float] = {}
    for name in ("eval", "test"):
        predictions = scoring.predict(model, splits[name], run.train.dtype, where)
        found |= scoring.metrics(run.task, splits[name], predictions, name)
    return found


def call(capsys: Captured, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    out, err = capsys.readouterr()
    return ended.value.code, out, err


@pytest.mark.parametrize("name", ["lora", "full"])
def test_with_all_directions_a_run_scores_to_the_bit_as_recorded(name: str, trained: dict[str, Resolved]) -> None:
    resolved = trained[name]
    found = truncate(folder_of(resolved), [4, 99] if name == "lora" else [64], settings())
    assert found.whole == stored(resolved)
    assert all(cut.metrics == stored(resolved) and cut.energy == pytest.approx(1) for cut in found.cuts)
    assert "Without a cut it scores exactly as its record says." in found.notes
    assert (found.rank, found.matrices) == ((4, 6) if name == "lora" else (32, 15))


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(("train.init_from={start}", "train.init_head=anew"), id="init_head=anew"),
        pytest.param(("train.score_merged=true",), id="score_merged"),
    ],
)
def test_a_run_with_another_head_than_its_start_or_scored_merged_scores_as_recorded(
    overrides: tuple[str, ...], trained: dict[str, Resolved], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = [override.format(start=folder_of(trained["lora"])) for override in overrides]
    cfg = compose([*TINY, *METHODS["lora"], "train.dtype=bf16", *asked, f"paths.outputs={tmp_path}"])
    run_job(cfg)
    resolved = resolve(cfg)
    caplog.clear()
    found = truncate(folder_of(resolved), [1, 4], settings())
    assert found.whole == found.cuts[-1].metrics == stored(resolved) != found.cuts[0].metrics
    assert "Without a cut it scores exactly as its record says." in found.notes and "anew" not in caplog.text


def test_without_directions_lora_is_its_base_with_the_trained_head(trained: dict[str, Resolved]) -> None:
    resolved = trained["lora"]

    def without_updates(model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.zero_()

    (cut,) = truncate(folder_of(resolved), [0], settings()).cuts
    assert (cut.keep, cut.energy) == (0, 0.0)
    assert cut.metrics == scored(resolved, without_updates)
    assert cut.metrics["eval/loss"] != stored(resolved)["eval/loss"]


def test_loras_updates_are_cut_as_dense_ones_are(trained: dict[str, Resolved]) -> None:
    """Each dW cut by numpy's dense decomposition and put into the weights, in fp32: the same but for rounding."""
    resolved = trained["lora"]
    cut = truncate(folder_of(resolved), [1], settings()).cuts[0]

    def dense(model: nn.Module) -> None:
        for module in model.modules():
            if hasattr(module, "lora_A"):
                update: Any = module
                u, s, vt = np.linalg.svd(update.delta_W().numpy().astype(np.float64))
                update.lora_A.zero_()
                update.lora_B.zero_()
                update.lora_A[0] = torch.from_numpy(s[0] / update.scaling * vt[0])
                update.lora_B[:, 0] = torch.from_numpy(u[:, 0])

    assert cut.metrics["eval/loss"] == pytest.approx(scored(resolved, dense)["eval/loss"], abs=2e-3)
    whole = stored(resolved)["eval/loss"]
    assert 0 < cut.energy < 1 and cut.metrics["eval/loss"] != whole


def test_full_fine_tuning_is_cut_in_every_matrix_and_nowhere_else(trained: dict[str, Resolved]) -> None:
    resolved = trained["full"]
    base = build(resolved, torch.device("cpu"))  # before training
    arch = resolved.run.arch

    def matrices_of_base(model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and not arch.is_head(name):
                parameter.copy_(base.get_parameter(name))

    def one_direction(model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and not arch.is_head(name):
                W = base.get_parameter(name).detach().numpy()
                u, s, vt = np.linalg.svd(parameter.detach().numpy().astype(np.float64) - W, full_matrices=False)
                parameter.copy_(torch.from_numpy(W + s[0] * np.outer(u[:, 0], vt[0])))

    zero, one, _ = truncate(folder_of(resolved), [0, 1, 32], settings()).cuts
    assert zero.metrics == scored(resolved, matrices_of_base)
    assert one.metrics["eval/loss"] == pytest.approx(scored(resolved, one_direction)["eval/loss"], abs=1e-5)
    assert one.metrics["eval/loss"] != zero.metrics["eval/loss"] and 0 < one.energy < 1


def test_a_cut_is_the_best_of_its_rank_on_either_side() -> None:
    rng = np.random.default_rng(0)
    start, change = rng.standard_normal((2, 9, 5)).astype(np.float32)
    u, s, vt = np.linalg.svd(change)
    best = start + (u[:, :2] * s[:2]) @ vt[:2]
    V = np.linalg.eigh(change.T.astype(np.float64) @ change)[1][:, ::-1]
    assert _added(start, change, V, 2) == pytest.approx(best, abs=1e-5)
    assert _added(start.T.copy(), change.T.copy(), V, 2) == pytest.approx(best.T, abs=1e-5)
    assert not _projected(change, V, 0).any()


def test_the_matrices_of_a_fused_layer_are_cut_apart() -> None:
    gpt2 = arch_of({"model_type": "gpt2", "vocab_size": 8, "n_embd": 4, "n_layer": 1, "n_head": 2, "n_positions": 8}, 2)
    places = _indices(gpt2, "transformer.h.0.attn.c_attn.weight")
    columns = [place[1] for place in places]
    assert [list(each) for each in columns if not isinstance(each, slice)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
    ]
    assert all(place[0] == slice(None) for place in places)
    assert len(_indices(gpt2, "transformer.h.0.attn.c_proj.weight")) == 1


def test_a_rescored_model_is_put_back_as_it_was(trained: dict[str, Resolved]) -> None:
    resolved = trained["lora"]
    rescorer = Rescorer(folder_of(resolved), resolved.run, resolved.settings)
    (name, *_) = (name for name in rescorer.trained if name.endswith("lora_A"))
    before = rescorer.parameter(name).copy()
    changed = rescorer.score({name: np.full_like(before, 3.0)})
    assert changed != stored(resolved) and np.array_equal(rescorer.parameter(name), before)
    assert rescorer.score({}) == stored(resolved)


def test_the_command_prints_every_format_and_draws(
    trained: dict[str, Resolved], tmp_path: Path, capsys: Captured
) -> None:
    resolved, plot = trained["lora"], tmp_path / "plot.svg"
    store, name = resolved.settings.paths.outputs, run_id(resolved.run)
    options = [name, "--runs", store, "--keep", "0,1,4", "compute.device=cpu"]
    code, out, err = call(capsys, "truncate", *options, "--format", "json", "--out", str(plot))
    entries = json.loads(out)
    assert code == 0 and [entry["keep"] for entry in entries] == [0, 1, 4]
    assert {key: entries[-1][key] for key in stored(resolved)} == stored(resolved)
    assert f"Written: {plot}" in err and "Cut: LoRA's dW on q, v, up. As trained at every k, 0 too: the head." in err
    assert plot.read_text().count("<path") > 50
    code, out, _ = call(capsys, "truncate", *options, "--format", "csv")
    assert code == 0
    assert [float(row["eval/accuracy"]) for row in csv.DictReader(out.splitlines())] == [
        entry["eval/accuracy"] for entry in entries
    ]
    code, out, _ = call(capsys, "truncate", *options)
    assert code == 0 and "| 4 (all)" in out and f"## {name}, cut to its first k directions" in out


def test_a_record_that_its_files_do_not_bear_out_is_refused(trained: dict[str, Resolved]) -> None:
    folder = folder_of(trained["lora"])
    path, text = folder / "result.json", (folder / "result.json").read_text()
    result = json.loads(text)
    for row in (result["metrics"], result["metrics_by_epoch"][-1]):
        row["eval/accuracy"] = 0.123
    try:
        path.write_text(json.dumps(result))
        with pytest.raises(RunFailedError, match=r"differs from its record by up to .* \(eval/accuracy\), on the mach"):
            truncate(folder, [4], settings())
        result["provenance"]["device_class"] = "another CPU"
        path.write_text(json.dumps(result))
        notes = truncate(folder, [4], settings()).notes
        assert "it was made elsewhere: device_class another CPU, here" in notes[-1]
    finally:
        path.write_text(text)


def test_a_record_of_an_earlier_numerics_version_may_differ_and_the_note_says_so() -> None:
    """Even one made on this very machine; of the same version it is refused."""
    record = {"run_id": "x", "metrics": {"eval/loss": 0.5}, "provenance": {"threads": 1}}
    (note,) = _check(record, {"eval/loss": 0.75}, {"threads": 1}, NUMERICS_VERSION - 1)
    before = f"it was made by earlier code (numerics {NUMERICS_VERSION - 1}, here {NUMERICS_VERSION})"
    assert "by up to 0.25 (eval/loss)" in note and note.endswith(f"{before}.")
    (note,) = _check(record, {"eval/loss": 0.75}, {"threads": 2}, NUMERICS_VERSION - 1)
    assert note.endswith(f"{before} and elsewhere: threads 1, here 2.")
    with pytest.raises(RunFailedError, match="on the machine that made it"):
        _check(record, {"eval/loss": 0.75}, {"threads": 1}, NUMERICS_VERSION)
    record["provenance"] |= {"versions": {"torch": "2", "transformers": "4"}}
    (note,) = _check(record, {"eval/loss": 0.75}, {"torch": "2", "transformers": "5"}, NUMERICS_VERSION)
    assert note.endswith("it was made elsewhere: transformers 4, here 5.")


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (["eval/accuracy"], "Without a cut it scores exactly as its record says, which holds no eval/loss."),
        ([], "Its record holds none of eval/accuracy, eval/loss, so the scores are held against nothing."),
    ],
)
def test_of_what_the_record_lacks_nothing_is_said(kept: list[str], words: str) -> None:
    whole = {"eval/accuracy": 0.5, "eval/loss": 0.75}
    assert _check({"metrics": {key: whole[key] for key in kept}}, whole, {}, NUMERICS_VERSION) == [words]


def test_what_cannot_be_cut_is_refused_in_words(trained: dict[str, Resolved], tmp_path: Path, capsys: Captured) -> None:
    store = trained["lora"].settings.paths.outputs
    lora, head_only, full = (str(folder_of(trained[name])) for name in ("lora", "head_only", "full"))
    kept = Path(full) / "trained.safetensors"
    kept.rename(tmp_path / "away")
    cases = [
        ([head_only], "method=head_only changes no matrix but the head's", "Give a run of method=lora"),
        ([full], "keeps no trained.safetensors", "log.save_full=true log.rebuild=true"),
        ([str(tmp_path)], "holds no result.json", "Compute it first"),
        (["nothing"], "no run nothing", "--runs DIR"),
        ([lora, "--keep", "1,-2"], "--keep: numbers of directions, 0 or more (given: 1,-2)", "--keep 0,1,2,4,8"),
        ([lora, "--keep", ""], "--keep: numbers of directions", "--keep 0,1,2,4,8"),
        ([lora, "--out", "x.jpg"], "--out: a file ending in .svg", "x.jpg"),
        ([lora, "method.r=2"], "method.r=2: a run is what its record says", "Only compute.*"),
    ]
    try:
        for arguments, cause, remedy in cases:
            code, out, err = call(capsys, "truncate", *arguments, "--runs", store)
            assert code == 1 and out == "" and cause in err and remedy in err and "Traceback" not in err, err
    finally:
        (tmp_path / "away").rename(kept)


def test_the_changes_of_full_fine_tuning_are_those_of_all_matrices_but_the_heads(trained: dict[str, Resolved]) -> None:
    resolved = trained["full"]
    rescorer = Rescorer(folder_of(resolved), resolved.run, resolved.settings)
    found = _changes(rescorer.parameter, rescorer.trained, resolved.run, resolved.settings)
    names = [matrix.parameter for matrix in found]
    assert "bert.embeddings.word_embeddings.weight" in names and "bert.pooler.dense.weight" not in names
    assert sum("layer.0" in name for name in names) == 6 and len(names) == 2 * 6 + 3
