"""adapter_config.json: every wrong type ends in words, and keys whose order decides are told."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.foreign_adapters import base, peft_folder
from helpers.handmade_adapters import factors, write_peft
from omegaconf import DictConfig
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from analysis.adapters import read
from analysis.section7.inspection import inspect
from lora_repro.errors import InputError, MissingInputError
from lora_repro.methods.lora.peft_settings import PeftLoRA, lora_settings, settings_of
from lora_repro.training.job import run_job


def checked(content: str | bytes, where: str) -> PeftLoRA:
    return lora_settings(settings_of(content, where), where)


GOOD: dict[str, Any] = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}

WRONG: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    1e400,
    -0.0,
    10**400,
    "",
    "x",
    "4",
    [],
    [1],
    {},
    {"a": 1},
    {"q": None},
    [[[]]],
]

KEYS = [
    "peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "use_qalora",
    "use_bdlora",
    "init_lora_weights", "base_model_name_or_path", "target_modules", "modules_to_save", "layer_replication", "bias",
    "kasa_config", "alora_invocation_tokens", "target_parameters", "arrow_config", "lora_bias", "fan_in_fan_out",
    "enable_lora", "velora_config", "monteclora_config", "layers_to_transform", "auto_mapping",
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_every_setting_of_every_wrong_type_ends_in_words_or_in_figures(key: str, tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "a", factors(4, 0))
    read_well = 0
    for value in WRONG:
        (folder / "adapter_config.json").write_text(json.dumps(GOOD | {key: value}))
        try:
            adapter = read(str(folder))
            figures = inspect(adapter, adapter.matrices[:1], False)
        except InputError as error:
            assert "\n" in str(error) and "Error(" not in str(error) and "NoneType" not in str(error)
        else:
            read_well += 1
            assert np.isfinite([row.norm for row in figures.rows]).all()
    assert key in ("r", "lora_alpha") or read_well  # null at least


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"r": 0}, "r must be a whole number of 1 or more .given: 0"),
        ({"r": 8.5}, r"r must be a whole number of 1 or more .given: 8\.5"),
        ({"r": True}, "given: true"),
        ({"r": None}, "given: nothing"),
        ({"lora_alpha": "8"}, "lora_alpha must be a number"),
        ({"rank_pattern": {"q": -1}}, "rank_pattern of q must be a whole number"),
        ({"rank_pattern": {"q": [1]}}, "given: a list"),
        ({"rank_pattern": [["q", 1]]}, "rank_pattern must be numbers by name"),
        ({"alpha_pattern": {"q": "x"}}, "alpha_pattern of q must be a number"),
        ({"alpha_pattern": {"(": 3}}, r"alpha_pattern holds \(, which is no pattern"),
        ({"rank_pattern": {"a{999999999}": 3}}, "too large to match"),
        ({"use_rslora": "no"}, "use_rslora must be true or false"),
        ({"init_lora_weights": 3}, "init_lora_weights must be"),
        ({"base_model_name_or_path": ["x"]}, "base_model_name_or_path must be a name"),
    ],
)
def test_the_words_say_which_setting_is_wrong(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=f"(?s)here: .*{words}.*\n(Give|Write)"):
        checked(json.dumps(GOOD | setting), "here")


@pytest.mark.parametrize(
    "content", ["", "[1]", "null", "3", '"x"', "{", b"\xff\xfe", '{"r": ' + "9" * 5000 + "}", "[" * 100_000]
)
def test_what_holds_no_settings_is_damaged(content: str | bytes) -> None:
    with pytest.raises(MissingInputError, match=r"here: is damaged \(.*\)\.\nGive it as PEFT's"):
        checked(content, "here")


@pytest.mark.parametrize("key", ["(a+)+$", ".*.*.*.*.*.*x", "((q|q)*)*_", "(q_?p?r?o?j?)+x"])
def test_no_key_keeps_the_reader_busy(key: str, tmp_path: Path) -> None:
    folder = write_peft(
        tmp_path / "a", factors(4, 0, layers=30), module="model." + "a" * 60 + ".layers.{}.self_attn.{}_proj"
    )
    settings = {"alpha_pattern": {key: 3}, "rank_pattern": {key: 4}, "target_modules": key}
    (folder / "adapter_config.json").write_text(json.dumps(GOOD | settings))
    adapter = read(str(folder))  # hangs where Python's own matcher is used
    assert len(adapter.matrices) == 60 and adapter.load(adapter.matrices[0]).scaling == 2


def test_an_alpha_of_zero_is_an_update_of_zero(tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "a", factors(4, 0), alpha=0)
    adapter = read(str(folder))
    figures = inspect(adapter, adapter.matrices, False)
    assert [row.norm for row in figures.rows] == [0] * 4


@pytest.mark.parametrize("order", [("q_proj", "layers.1.self_attn.q_proj"), ("layers.1.self_attn.q_proj", "q_proj")])
@pytest.mark.filterwarnings("ignore")
def test_two_keys_for_one_module_are_taken_as_peft_takes_them_and_told(order: tuple[str, str], tmp_path: Path) -> None:
    values = {"q_proj": 2, "layers.1.self_attn.q_proj": 6}
    peft_folder(tmp_path, base("llama"), r=4, target_modules=["q_proj", "v_proj"])
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"alpha_pattern": {key: values[key] for key in order}}))
    theirs = PeftModel.from_pretrained(base("llama"), str(tmp_path))
    scales = {n: m.scaling["default"] for n, m in theirs.get_base_model().named_modules() if isinstance(m, LoraLayer)}
    adapter = read(str(tmp_path))
    assert {m.module: adapter.load(m).scaling for m in adapter.matrices} == scales
    assert scales["model.layers.1.self_attn.q_proj"] == values[order[0]] / 4
    notes = [note for note in adapter.notes if "several keys" in note]
    assert len(notes) == 1 and notes[0].startswith(
        "alpha_pattern: several keys with other values match 1 of 4 modules, first model.layers.1.self_attn.q_proj "
        f"({order[0]} = {values[order[0]]}, {order[1]} = {values[order[1]]}). PEFT takes the first in the file"
    )


def test_keys_that_agree_or_match_one_module_each_are_no_doubt() -> None:
    modules = ["a.q_proj", "a.v_proj"]
    same = checked(json.dumps(GOOD | {"alpha_pattern": {"q_proj": 2, "a.q_proj": 2, "v_proj": 3}}), "here")
    assert same.doubts(modules) == []
    idle = checked(json.dumps(GOOD | {"rank_pattern": {"^q_proj": 2}}), "here")
    assert idle.doubts(modules) == ["rank_pattern: 1 keys match no module of the adapter, first ^q_proj."]


def test_inspect_names_a_setting_that_is_not_known_and_none_that_peft_writes(tmp_path: Path) -> None:
    peft_folder(tmp_path, base("llama"), r=4, target_modules=["q_proj", "v_proj"])
    assert not [note for note in read(str(tmp_path)).notes if "not known here" in note]
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"new_magic": {"x": 1}, "off": False}))
    assert "new_magic: not known here; it may change what the adapter computes." in read(str(tmp_path)).notes


def test_init_from_says_where_the_order_of_keys_decides(
    tiny: Callable[..., DictConfig], caplog: pytest.LogCaptureFixture
) -> None:
    cfg = tiny()
    run_job(cfg)
    (adapter,) = Path(cfg.paths.outputs).glob("runs/*/adapter")
    path = adapter / "adapter_config.json"
    settings = json.loads(path.read_text())
    alphas = {"query": settings["lora_alpha"], ".*query": 99}
    folder = adapter.parent.parent.parent / "copied"
    shutil.copytree(adapter, folder)
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"alpha_pattern": alphas}))
    with caplog.at_level(logging.WARNING):
        run_job(tiny(f"train.init_from={folder}", "train.epochs=0"))
    assert "alpha_pattern: several keys with other values match" in caplog.text
