"""Items' files: each is read by its kind, and a wrong field is refused in words."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.commands import call
from helpers.fixture_types import Captured
from helpers.handmade_runs import fill

from analysis import items, kinds
from analysis.items import Item, Request, item_names, load_item, read_item, register
from analysis.items.entry import build, read_yaml
from analysis.kinds.scores import ScoreTable
from lora_repro.config.catalogue import group_names
from lora_repro.errors import InputError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder of items, to which a test may add."""
    folder = tmp_path / "items"
    shutil.copytree(items.ITEMS, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    monkeypatch.setattr(items, "ITEMS", folder)
    return folder


def test_every_file_is_an_item_of_a_kind_and_has_a_sweep_where_it_has_runs() -> None:
    names = item_names()
    assert {"table2", "table5", "figure2", "figure3", "freeze_a", "shared_directions"} <= set(names)
    modules = {path.stem for path in Path(kinds.__path__[0]).glob("*.py")} - {"__init__"}
    seen = set()
    for name in names:
        item, kind = read_item(name), read_yaml(items.ITEMS / f"{name}.yaml")["kind"]
        seen.add(kind)
        assert type(item).__module__ == f"analysis.kinds.{kind}" and item.name == name
        assert kind == "facts" or item.sweep in group_names("sweeps")  # pyright: ignore[reportAttributeAccessIssue]
    assert seen == modules


def test_facts_name_their_source_and_whether_they_were_checked() -> None:
    for name in item_names():
        if facts := read_item(name).facts:
            assert facts["source"] and facts["checked"] is True and "2106.09685" in facts["paper"], name
            assert ("points" not in facts) or facts["points_checked"] is False


def test_an_item_of_a_known_kind_is_one_file(folder: Path, tmp_path: Path, capsys: Captured) -> None:
    (folder / "by_targets.yaml").write_text(
        """
kind: scores
title: Ranks side by side
sweep: table6
rows: {key: method.r, label: r, values: {1: 1, 2: 2}}
columns: {key: method.targets, label: targets, values: {"q": q, "q,v": qv}}
metric: accuracy
settings: [method.alpha]
"""
    )
    fill(tmp_path)
    code, out, err = call(capsys, "table", "by_targets", "--scale", "smoke", "--runs", str(tmp_path))
    assert (code, err) == (0, "") and out.startswith("## Table by_targets: Ranks side by side")
    assert "targets = q,v" in out and out.count("85.0 [21.5, 148.5] n=2") == 4
    _, _, err = call(capsys, "table", "by_target")
    assert "Did you mean 'by_targets'?" in err


def test_a_kind_is_one_class(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr(items, "KINDS", dict(items.KINDS))

    @register("toy")
    @dataclass(kw_only=True)
    class Toy(Item):
        weights: list[str]

        def text(self, request: Request) -> str:
            return json.dumps([self.title, *self.weights, request.scale, request.overrides])

    (folder / "toy_item.yaml").write_text("kind: toy\ntitle: A toy\nweights: [q, v]\n")
    code, out, _ = call(capsys, "table", "toy_item", "--scale", "demo", "seed=3")
    assert code == 0 and json.loads(out) == ["A toy", "q", "v", "demo", ["seed=3"]]
    code, _, err = call(capsys, "table", "toy_item", "--protocol", "held_out")
    assert code == 1 and "--protocol held_out: toy_item takes no --protocol. Leave it out." in err


def test_facts_may_be_another_items(folder: Path) -> None:
    (folder / "later.yaml").write_text("kind: facts\ntitle: Once more\nfacts: table15\n")
    assert read_item("later").facts == read_item("table15").facts != {}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("label: r\n", "label: r\n  lable: x\n", ["table6.yaml: columns: there is no field 'lable'", "Did you mean"]),
        ("metric: accuracy\n", "", ["table6.yaml: the field 'metric' is missing", "Fields: title, facts, sweep, rows"]),
        ("metric: accuracy\n", "metric: [accuracy]\n", ["metric: must be str (given: ['accuracy'])"]),
        ("{1: r1,", "{on: r1,", ["columns: values: key: must be str | int (given: True)", "on, off, yes and no"]),
        ("{1: r1,", "{1e0: r1, 1.5: r1,", ["columns: values: key: must be str | int (given: 1.5)"]),
        ("kind: scores", "kind: score", ["kind: no kind 'score'. Did you mean 'scores'?", "Kinds: facts, phi"]),
        ("{1: r1,", "{1: r1, 1: r2,", ["table6.yaml:", "the key 1 stands there twice"]),
        ("metric: accuracy\n", "metric: accuracy\nmetric: f1\n", ["the key 'metric' stands there twice"]),
        ("facts:\n", "facts: table66\nfact:\n", ["table66: there is no such item.", "Items: figure1, "]),
        ("kind: scores\n", "kind: scores\n  x: [\n", ["table6.yaml: this is no YAML"]),
    ],
)
def test_a_wrong_file_is_refused_with_what_it_may_hold(folder: Path, old: str, new: str, words: list[str]) -> None:
    path = folder / "table6.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as refused:
        load_item("table", "6")
    for each in words:
        assert each in str(refused.value)


def test_numbers_keep_their_type() -> None:
    @dataclass
    class Numbers:
        whole: int
        part: float
        either: str | int

    assert build(Numbers, {"whole": 1, "part": 2, "either": "1"}, "x") == Numbers(1, 2, "1")
    for entry in ({"whole": 1.0}, {"whole": True}, {"part": "1e6"}, {"part": True}, {"either": 1.5}):
        with pytest.raises(InputError, match=r"x: (whole|part|either): must be"):
            build(Numbers, {"whole": 1, "part": 0.5, "either": 1} | entry, "x")


def test_a_table_says_its_sweep() -> None:
    tables = [item for item in map(read_item, item_names()) if isinstance(item, ScoreTable)]
    assert {item.name: item.sweep for item in tables} == {name: name for name in ("table5", "table6", "freeze_a")}
