"""Tasks whose targets are scores or texts, from YAML to a record: trained, resumed, described, damaged."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.computed_runs import interrupted, record_of
from helpers.fixture_types import Compose
from helpers.store_contents import contents
from safetensors.torch import load_file

from analysis.items import names
from analysis.listing import read_listing
from analysis.render.listing import markdown as runs_markdown
from analysis.render.printed import markdown
from analysis.render.tables import printed
from analysis.sweep_table import read_sweep
from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.errors import MissingInputError
from lora_repro.store.finished_runs import run_of
from lora_repro.store.record import Record
from lora_repro.tasks import Example, Splits, encoding
from lora_repro.tasks.ratings import RatingsConfig
from lora_repro.tasks.recorded import task_of
from lora_repro.tasks.reverse import ReverseConfig
from lora_repro.tasks.targets import Texts
from lora_repro.tasks.text_metrics import protocols, samsum, tools
from lora_repro.tasks.texts import TextConfig
from lora_repro.training import train
from lora_repro.training.job import run_job
from lora_repro.training.train import assemble

CPU = torch.device("cpu")
TASKS = {
    "rating": ("task=movies", "task.target=rating"),
    "reverse": ("model=tiny_llama", "preset@train=tiny_llama", "task=reverse", "train.dtype=fp32"),
}


def rated(config: RatingsConfig, data: object, cache: object) -> Splits:
    """Texts of two words, rated by how many of them are good."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["joy", "sad"], 6)) for _ in range(128)]
    made = [Example(str(i), text, text.count("joy") / 2 - 1.5, str(i)) for i, text in enumerate(texts)]
    return {"train": made[:64], "eval": made[64:96], "test": made[96:]}


@pytest.fixture
def small(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> Compose:
    monkeypatch.setattr(RatingsConfig, "load", rated)
    monkeypatch.setattr(encoding, "_encoded", {})
    return tiny


@pytest.mark.parametrize("task", TASKS)
def test_a_resumed_run_equals_the_undisturbed_one_bit_for_bit(
    small: Compose, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole, cut = (small(*TASKS[task], "log.every_steps=3", f"paths.outputs={store}") for store in ("whole", "cut"))
    run_job(whole)
    interrupted(cut, monkeypatch, 4)  # after the third step
    interrupted(cut, monkeypatch, 4)  # after dev is scored and before test is
    run_job(cut)
    expected, found = contents(tmp_path / "whole"), contents(tmp_path / "cut")
    for files in (expected, found):
        files.pop(next(name for name in files if name.endswith("config.yaml")))  # paths.outputs stands in it
    assert found == expected


INIT = {**TASKS, "rating from classes": TASKS["rating"]}


@pytest.mark.parametrize("task", INIT)
def test_a_run_starts_from_what_another_one_trained(small: Compose, task: str) -> None:
    first = small(*(() if task == "rating from classes" else INIT[task]), "train.epochs=1")
    run_job(first)
    name = run_id(resolve(first).run)
    start = resolve(small(*INIT[task], f"train.init_from={name}", "train.epochs=1", "seed=1"))
    model, origin, _ = assemble(start, CPU)
    saved = load_file(next((Record(first.paths.outputs, name).folder / "adapter").glob("*.safetensors")))
    B = next(value for key, value in saved.items() if "lora_B" in key)
    assert origin is not None and any(torch.equal(parameter, B) for parameter in model.parameters())
    heads = [value for key, value in saved.items() if key.endswith(("classifier.weight", "score.weight"))]
    found = [parameter for key, parameter in model.named_parameters() if "classifier.weight" in key]
    assert len(found) == (0 if task == "reverse" else 1)
    assert [torch.equal(a, b) for a, b in zip(found, heads, strict=False)] == [task == "rating"] * len(found)


@pytest.mark.parametrize(
    ("task", "column", "kind", "metrics"),
    [
        ("rating", "target", float, ["mse", "pearson", "spearman", "variance", "loss"]),
        ("reverse", "references", np.ndarray, ["exact_match", "loss"]),
    ],
)
def test_the_record_holds_targets_predictions_and_declared_metrics(
    small: Compose, task: str, column: str, kind: type, metrics: list[str]
) -> None:
    cfg = small(*TASKS[task], "train.epochs=1")
    run_job(cfg)
    record = record_of(cfg)
    result = record.read().result
    assert result is not None and run_of(result) == resolve(cfg).run and task_of(result["config"]) is not None
    assert list(result["metrics"]) == [f"{split}/{name}" for split in ("eval", "test") for name in metrics]
    rows = pd.read_parquet(record.folder / "predictions.parquet")
    asked = ["input"] if column == "references" else []
    assert list(rows.columns) == ["split", "epoch", "id", column, "prediction", *asked, "document", "scores"]
    assert len(rows) == 64
    assert isinstance(rows[column][0], kind) and all(len(scores) == 1 for scores in rows["scores"])
    if task == "reverse":
        found = np.mean([p in list(r) for p, r in zip(rows["prediction"], rows["references"], strict=True)][:32])
        assert found == result["metrics"]["eval/exact_match"]


@pytest.mark.parametrize(
    ("task", "shown"),
    [
        (
            "rating",
            ["mse, on dev after", "lower is better", "scores (mean ± standard", "variance: the mse of"],
        ),
        ("reverse", ["exact_match in percent, on dev after", "characters to be written"]),
    ],
)
def test_a_sweep_is_printed_in_the_unit_of_its_metric(small: Compose, task: str, shown: list[str]) -> None:
    found = []
    for seed in (0, 1):
        cfg = small(*TASKS[task], "train.epochs=0", f"seed={seed}")
        found.append(next(iter(run_job(cfg).values())))
    sizes = [f"task.{split}_size={size}" for split, size in (("train", 64), ("eval", 32), ("test", 32))]
    given = dict(override.split("=", 1) for override in ("model=tiny_bert", *sizes, *TASKS[task]))
    sweep = [*(f"{key}={value}" for key, value in given.items()), "train.epochs=0", "seed=0,1"]
    table = read_sweep(sweep, cfg.paths.outputs)
    text = markdown(printed(table, names()))
    assert [run.score for cell in table.cells for run in cell.runs] == found
    mean = np.mean(found)
    assert (f"| {mean:.3f} [" if task == "rating" else f"| {100 * mean:.1f} [") in text
    assert all(words in text for words in shown), text
    listing = runs_markdown(read_listing(cfg.paths.outputs), cfg.paths.outputs)
    header, score = ("eval/mse ", f"{found[0]:.4f}") if task == "rating" else ("eval/exact_match, %", f"{found[0]:.2f}")
    assert header in listing and score in listing


def test_texts_without_a_test_split_are_scored_where_they_were_written(
    small: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written answers to RTE have no test split, and are written after the last epoch alone."""
    load = ReverseConfig.load
    monkeypatch.setattr(ReverseConfig, "scored", ("eval",))
    monkeypatch.setattr(ReverseConfig, "load", lambda *given: {k: v for k, v in load(*given).items() if k != "test"})
    cfg = small(*TASKS["reverse"], "train.epochs=2", "task.test_size=null")
    metrics = run_job(cfg)
    result = record_of(cfg).read().result
    assert result is not None and "test/exact_match" not in metrics
    assert result["cross_fitted"] == {"exact_match": metrics["eval/exact_match"]}


def test_texts_are_scored_by_a_protocol_whose_signature_the_record_holds(
    small: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TextConfig, "targets", property(lambda config: Texts(*protocols.SAMSUM.declared)))
    cfg = small(*TASKS["reverse"], "train.epochs=1")
    metrics = run_job(cfg)
    record = record_of(cfg)
    result = record.read().result
    assert result is not None
    names = ["rouge_1", "rouge_2", "rouge_l"]
    assert list(metrics) == [f"{split}/{name}" for split in ("eval", "test") for name in [*names, "loss"]]
    rows = pd.read_parquet(record.folder / "predictions.parquet")
    rows = rows[rows["split"] == "eval"]
    expected = samsum.rouge_1(list(rows["prediction"]), [list(texts) for texts in rows["references"]])
    assert metrics["eval/rouge_1"] == expected
    signatures = result["provenance"]["metrics"]
    assert list(signatures) == names and "rouge-score:0.1" in signatures["rouge_l"]


def test_a_missing_program_of_a_metric_ends_a_run_before_anything_is_loaded(
    small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TextConfig, "targets", property(lambda config: Texts(*protocols.E2E.declared)))
    monkeypatch.setattr(tools, "_java", lambda: None)
    tools.java_version.cache_clear()
    monkeypatch.setattr(train, "encode", None)  # which reads the data
    with pytest.raises(MissingInputError, match="METEOR: needs Java"):
        run_job(small(*TASKS["reverse"]))
    tools.java_version.cache_clear()
    assert not list(tmp_path.glob("runs/*/result.json"))


@pytest.mark.long
def test_a_tiny_decoder_learns_to_write_in_reverse_order(small: Compose) -> None:
    sizes = ["task.train_size=400", "task.eval_size=100", "task.test_size=100"]
    metrics = run_job(small(*TASKS["reverse"], *sizes, "method=full", "train.epochs=6"))
    assert metrics["eval/exact_match"] > 0.5 and metrics["test/exact_match"] > 0.5


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("eval/pearson", 1.5, "eval/pearson must be a number, -1 to 1"),
        ("eval/mse", -0.5, "eval/mse must be a number, 0 or more"),
    ],
)
def test_a_metric_outside_its_declared_range_is_damage(small: Compose, key: str, value: float, message: str) -> None:
    cfg = small(*TASKS["rating"], "train.epochs=0")
    run_job(cfg)
    record = record_of(cfg)
    result = record.read().result
    assert result is not None
    whole, broken = (f'"{key}": {number}' for number in (result["metrics"][key], value))
    path = record.folder / "result.json"
    path.write_text(path.read_text().replace(whole, broken))
    assert message in str(record.read().problem)
