"""The differences are all there, what they say of this project is checked where it can be, and words select them."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from helpers.commands import call
from helpers.fixture_types import Captured

from analysis.discrepancies import FILE, Discrepancy, read, select
from lora_repro.config.catalogue import HOME
from lora_repro.config.compose import compose
from lora_repro.errors import InputError

ENTRIES = read()


def by_id(name: str) -> Discrepancy:
    return next(entry for entry in ENTRIES if entry.id == name)


def changed(tmp_path: Path, change: str, **fields: object) -> Path:
    """Writes the file with an entry changed: a field given, or, as None, taken away; or the entry `again`."""
    content = yaml.safe_load(FILE.read_text())
    entry = content["entries"][0]
    if change == "again":
        content["entries"].append(dict(entry))
    for key, value in fields.items():
        entry[key] = value
        if value is None:
            del entry[key]
    path = tmp_path / "discrepancies.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_all_80_are_there_once() -> None:
    assert len({entry.id for entry in ENTRIES}) == len(ENTRIES) == 80
    assert Counter(entry.severity for entry in ENTRIES) == {"high": 13, "medium": 37, "low": 30}
    listed = yaml.safe_load(FILE.read_text())["most_important"]
    assert [entry.id for entry in ENTRIES[: len(listed)]] == listed


def test_every_setting_is_one_of_the_configuration() -> None:
    entries = [entry for entry in ENTRIES if entry.keys]
    assert len(entries) > 40
    for entry in entries:
        compose(entry.keys)


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.effect], ids=lambda entry: entry.id)
def test_every_measured_effect_stands_under_the_heading_that_is_cited(entry: Discrepancy) -> None:
    effect = entry.effect
    assert effect is not None
    section = re.split(rf"^#+ {re.escape(effect.heading)}$", (HOME / effect.page).read_text(), flags=re.MULTILINE)
    assert len(section) == 2, effect.heading
    numbers = re.findall(r"\d+\.\d+|\b\d{3,}\b|\d+e-\d+", effect.text)
    text = re.split(r"^# |^## 20", section[1], flags=re.MULTILINE)[0]
    assert len(numbers) >= 2 and all(number in text for number in numbers)


def test_what_is_said_of_the_defaults_holds() -> None:
    config = compose([])
    assert (config.method.alpha, config.method.r, config.method.init, config.method.bias) == (8, 8, "kaiming", "none")
    assert (config.train.weight_decay, config.train.warmup_ratio, config.train.batch_size) == (0, 0.06, 32)
    assert (config.method.dropout, config.train.max_grad_norm, config.train.max_length) == (0, 1, 128)
    dropouts = {name: compose([f"model={name}"]).model.dropout for name in ("roberta_base", "deberta_v2_xxlarge")}
    assert set(dropouts.values()) == {0.1} and compose(["model=gpt2_medium"]).model.dropout == 0
    assert compose(["method=full"]).train.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("change", "fields", "message"),
    [
        ("", {"severiti": "high"}, "base_alpha: there is no field 'severiti'. Did you mean 'severity'?"),
        ("", {"paper": None}, "base_alpha: the field 'paper' is missing"),
        ("", {"paper": 8}, "base_alpha: paper: must be str (given: 8)"),
        ("", {"severity": "hihg"}, "base_alpha: severity: no severity 'hihg'. Did you mean 'high'?"),
        ("", {"effect": {"text": "x", "page": "y"}}, "effect: must be"),
        ("", {"id": "other"}, "most_important: no entry 'base_alpha'"),
        ("again", {}, "base_alpha: the id stands there twice"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, change: str, fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as refused:
        read(changed(tmp_path, change, **fields))
    assert message in str(refused.value)


def test_words_of_one_kind_add_up_and_of_two_kinds_narrow() -> None:
    nlu_high = select(ENTRIES, ["nlu", "high"])
    assert {entry.severity for entry in nlu_high} == {"high"} and all("nlu" in entry.areas for entry in nlu_high)
    assert [entry.id for entry in select(ENTRIES, ["seeds", "base_alpha"])] == ["base_alpha", "seeds"]
    assert by_id("seeds") in select(ENTRIES, ["nlu"]) and by_id("seeds") in select(ENTRIES, ["nlg"])
    of_gpt2 = select(ENTRIES, ["gpt2_medium"])
    assert by_id("init_a") in of_gpt2 and by_id("base_alpha") not in of_gpt2  # the first is of all models
    assert select(ENTRIES, []) == ENTRIES


def test_the_command_prints_blocks_by_area_and_json(capsys: Captured, tmp_path: Path) -> None:
    code, out, _ = call(capsys, "discrepancies")
    assert code == 0 and out.count("\n- here: ") == 80 and "80 differences" in out
    assert re.findall(r"^### (\w+)", out, re.MULTILINE)[:2] == ["nlu", "nlg"]
    assert out.index("**base_alpha**") < out.index("**nlu_effective_batch**") < out.index("**roberta_weight_decay**")
    _, out, _ = call(capsys, "discrepancies", "--format", "json", "base_alpha")
    (entry,) = json.loads(out)
    assert entry["keys"] == ["method.alpha=16"] and entry["effect"] is None
    code, out, _ = call(capsys, "discrepancies", "seeds", "--out", tmp_path / "seeds.md")
    assert (code, out) == (0, "")
    assert (tmp_path / "seeds.md").read_text().startswith("<!-- Generated by: python -m analysis discrepancies seeds")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bsae_alpha"], "Did you mean 'base_alpha'?"),
        (["roberta"], "model: roberta_base, roberta_large"),
        (["loralib", "high"], "none has all of loralib, high"),
    ],
)
def test_words_that_select_nothing_are_refused(capsys: Captured, words: list[str], said: str) -> None:
    code, out, err = call(capsys, "discrepancies", *words)
    assert code != 0 and out == "" and said in err
