"""Tables of hyperparameters: the presets have every printed value, and differences of each source are marked."""

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import call
from helpers.fixture_types import Captured

from analysis import items
from analysis.items import facts_of, read_item
from analysis.kinds.presets import PresetTable
from lora_repro.config import presets
from lora_repro.config.compose import compose
from lora_repro.config.resolve import resolve
from lora_repro.errors import InputError

TABLES = ("table9", "table10", "table11", "table12", "table17")

PRINTED = {
    "batch_size": "train.batch_size", "epochs": "train.epochs", "learning_rate": "train.learning_rate",
    "max_seq_len": "train.max_length", "weight_decay": "train.weight_decay", "cls_dropout": "model.head_dropout",
    "warmup_ratio": "train.warmup_ratio", "lr_schedule": "train.schedule", "lora_r": "method.r",
    "lora_alpha": "method.alpha", "bottleneck": "method.bottleneck", "l_p": "method.l_p", "l_i": "method.l_i",
    "dropout": "method.dropout", "lora_dropout": "method.dropout", "label_smoothing": "train.label_smoothing",
    "warmup_steps": "train.warmup_steps", "beam_size": "task.num_beams", "length_penalty": "task.length_penalty",
    "no_repeat_ngram_size": "task.no_repeat_ngram_size",
}  # fmt: skip
"""What the facts call a printed value, and the key of a preset that must have it."""

LEFT = {("prefix_embed", "samsum"): 2048 - 256 - 8, ("prefix_layer", "samsum"): 2048 - 8 - 8}
"""What prefixes leave of GPT-3's 2,048 positions."""

NOT_VALUES = {"model", "method", "task", "subset", "restricted_setup", "trainable_params", "optimizer"}


def preset_of(row: dict[str, Any]) -> str:
    if row.get("subset", "n392k") != "n392k":
        return f"paper_{row['subset']}"
    if not row.get("restricted_setup"):
        return "paper"
    return "paper_restricted_64" if row.get("bottleneck") == 64 else "paper_restricted"


@pytest.mark.parametrize("table", TABLES)
def test_a_preset_has_every_value_that_is_printed(table: str) -> None:
    facts = facts_of(table)
    for row in facts["rows"]:
        every = facts.get("shared", {}) | row
        method = str({"ft": "full"}.get(row["method"], row["method"]))
        values = presets.values_of(preset_of(row), row["model"], method, every["task"])
        for key, printed in every.items():
            if key == "max_seq_len" and (method, every["task"]) in LEFT:
                assert values["train.max_length"] == LEFT[method, every["task"]]
            elif key in PRINTED:
                assert values[PRINTED[key]] == printed, (row, key)
            elif key == "adapted_weights":
                assert values["method.targets"] == [*printed]
            else:
                assert key in NOT_VALUES or key == "warmup_tokens", key


def test_no_entry_of_a_preset_is_without_a_printed_row() -> None:
    printed = {
        (preset_of(row), row["model"], {"ft": "full"}.get(row["method"], row["method"]), row.get("task", "mnli"))
        for table in TABLES
        for row in facts_of(table)["rows"]
    }
    there = {
        (name, model, method, task)
        for name in ("paper", "paper_restricted", "paper_restricted_64", "paper_n100", "paper_n1k", "paper_n10k")
        for model, methods in presets.read(name).items()
        if not model.startswith(("cerebras_", "opt_"))  # stand-ins for GPT-3, with its values
        for method, entry in methods.items()
        for task in entry
        if task not in (presets.ALL, "dart_2020")  # the row of dart, whose earlier version it is
    }
    assert printed == there and len(printed) == 7 * 8 + 8 + 16 + 2 * 3 + (6 * 3 - 4)


def test_the_preset_script_has_every_value_of_the_scripts() -> None:
    scripts = [row for table in TABLES for row in facts_of(table).get("scripts", [])]
    assert len(scripts) == 8 + 8 + 8 + 2 + 1
    for row in scripts:
        values = presets.values_of("script", row["model"], row["method"], row["task"])
        if "train_batch_size" in row:  # the README of the text tasks, on one GPU
            assert values["train.batch_size"] == row["train_batch_size"] * row["num_gpus"]
        else:
            assert values["train.batch_size"] == row["num_gpus"] * row["per_device_batch"] == row["effective_batch"]
        assert values["train.dtype"] == ("bf16" if row.get("fp16") else "fp32")
        keys = {key: of for key, of in PRINTED.items() if key in row}
        assert len(keys) >= 6 and {key: values[of] for key, of in keys.items()} == {key: row[key] for key in keys}
        assert ("train.warmup_steps" in values) == ("warmup_steps" in row)


@pytest.mark.parametrize("table", ["table10", "table17"])
def test_ours_is_what_a_run_would_have(table: str) -> None:
    item = read_item(table)
    assert isinstance(item, PresetTable)
    for row in item.read():
        run = resolve(compose(row.line)).run
        assert row.values["ours"]["batch"] == run.train.batch_size
        assert row.values["ours"]["learning rate"] == run.train.learning_rate == row.facts["learning_rate"]
        marked = {column.label for column in item.columns if row.differs("ours", column)}
        assert marked == ({"weights"} if table == "table10" else set()), "r = 8 makes no 4.7M"


MADE_UP = """
kind: presets
title: Made up
heads: {model: model, restricted: restricted, task: task}
same: [model, task]
presets: [{preset: mine, rows: {restricted: true}}, {preset: mine}]
columns:
  - {label: weights, paper: trained, ours: params.method}
  - {label: batch, paper: batch, script: batch, ours: train.batch_size}
  - {label: decay, script: decay, ours: train.weight_decay}
  - label: warm-up
    paper: warmup_ratio
    script: [warmup_steps]
    ours: [train.warmup_steps, train.warmup_ratio]
notes: ["All of it is made up & so is <this>."]
discrepancies: [base_alpha]
facts:
  paper: 2106.09685
  shared: {model: tiny_bert, method: lora, warmup_ratio: 0.06}
  rows:
    - {task: generated, trained: 100000, batch: 5}
    - {task: movies, batch: 9, restricted: true}
  scripts:
    - {model: tiny_bert, task: generated, batch: 40, decay: 0.1, warmup_steps: 1000}
  source: [nowhere]
  checked: true
"""

MINE = """
tiny_bert:
  lora:
    all: {train.weight_decay: 0.2, train.warmup_ratio: 0.06, method.targets: [q], method.r: 2}
    generated: {train.batch_size: 5}
    movies: {train.batch_size: 8, train.warmup_steps: 3}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of items with table99, and a preset that it shows."""
    from lora_repro.config import catalogue
    from lora_repro.config.schema import register

    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "mine.yaml").write_text(MINE)
    for module in (catalogue, presets):
        monkeypatch.setattr(module, "BY_TASK", tmp_path / "presets")
    presets.read.cache_clear()
    register()
    folder = tmp_path / "items"
    shutil.copytree(items.ITEMS, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (folder / "table99.yaml").write_text(MADE_UP)
    monkeypatch.setattr(items, "ITEMS", folder)
    return folder


@pytest.mark.usefixtures("folder")
def test_differences_are_marked_and_told(capsys: Captured) -> None:
    """tiny_bert has 2 layers of width 32: r = 2 on q alone trains 2 * 2 * 2 * 32 = 256 weights."""
    code, out, _ = call(capsys, "table", "99")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("| ")]
    assert code == 0 and lines == [
        ["model", "restricted", "task", "", "weights", "batch", "decay", "warm-up"],
        ["tiny_bert", "", "generated", "paper", "0.1M", "5", "", "0.06"],
        ["", "", "", "script", "", "40*", "0.1", "1,000 steps*"],
        ["", "", "", "ours", "256*", "5", "0.2*", "0.06"],
        ["tiny_bert", "yes", "movies", "paper", "", "9", "", "0.06"],
        ["", "", "", "ours", "256", "8*", "0.2", "3 steps*"],
    ]
    told = out.partition("Differences:\n")[2].splitlines()
    assert told[:6] == [
        "- batch, script, tiny_bert: 40 for 5",
        "- warm-up, script, tiny_bert: 1,000 steps for 0.06",
        "- weights, ours, tiny_bert: 256 for 0.1M",
        "- batch, ours, tiny_bert restricted: 8 for 9",
        "- decay, ours, tiny_bert: 0.2 for 0.1",
        "- warm-up, ours, tiny_bert restricted: 3 steps for 0.06",
    ]
    assert "- All of it is made up & so is <this>." in told
    assert told[-1] == "More of them: `python -m analysis discrepancies base_alpha`"


@pytest.mark.usefixtures("folder")
def test_every_format_has_all_sources(capsys: Captured) -> None:
    rows = json.loads(call(capsys, "table", "99", "--format", "json")[1])["rows"]
    assert rows[0]["script"] == {"weights": None, "batch": 40, "decay": 0.1, "warm-up": "1,000 steps"}
    assert (
        rows[0]["differs"] == {"script": ["batch", "warm-up"], "ours": ["weights", "decay"]}
        and rows[1]["script"] is None
    )
    assert rows[1]["command"] == "preset=mine model=tiny_bert method=lora task=movies"
    lines = [*csv.DictReader(io.StringIO(call(capsys, "table", "99", "--format", "csv")[1]))]
    assert [line["source"] for line in lines] == ["paper", "script", "ours", "paper", "ours"]
    assert (lines[4]["batch"], lines[4]["differs"]) == ("8", "batch warm-up")
    assert r"made up \& so is \textless{}this\textgreater{}" in call(capsys, "table", "99", "--format", "latex")[1]
    assert "made up &amp; so is &lt;this&gt;" in call(capsys, "table", "99", "--format", "html")[1]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("preset: mine}", "preset: mien}", "presets: there is no 'mien'. Did you mean 'mine'?"),
        ("paper: batch,", "paper: bach,", "columns: paper: there is no 'bach'. Did you mean 'batch'?"),
        ("script: decay", "script: decoy", "columns: script: there is no 'decoy'"),
        ("[base_alpha]", "[base_alfa]", "discrepancies: there is no 'base_alfa'"),
        ("{model: model,", "{models: model,", "heads: there is no 'models'"),
        (", {preset: mine}]", "]", "presets: none for the row"),
        ("[model, task]", "3", "same: must be"),
    ],
)
def test_a_wrong_field_is_refused(folder: Path, old: str, new: str, words: str, capsys: Captured) -> None:
    assert old in MADE_UP
    (folder / "table99.yaml").write_text(MADE_UP.replace(old, new))
    code, out, said = call(capsys, "table", "99")
    assert code == 1 and not out and words in said


@pytest.mark.usefixtures("folder")
def test_overrides_are_refused(capsys: Captured) -> None:
    code, _, said = call(capsys, "table", "99", "seed=1")
    assert code == 1 and "table99: shows presets as they are, and takes no seed=1" in said


def test_a_key_that_a_method_lacks_is_an_empty_cell() -> None:
    item = read_item("table17")
    assert isinstance(item, PresetTable)
    full, *_, lora = item.read()
    assert full.values["ours"]["r"] is None and lora.values["ours"]["r"] == 8
    with pytest.raises(InputError, match="has no values for model=gpt3_175b method=ft_top2"):
        presets.values_of("paper", "gpt3_175b", "ft_top2", "mnli")
