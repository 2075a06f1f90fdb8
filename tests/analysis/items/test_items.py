"""Items' files: each is read by its kind, and a wrong field is refused in words."""

import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from helpers.commands import call
from helpers.fixture_types import Captured
from helpers.handmade_runs import fill

from analysis import items, kinds
from analysis.items import Request, item_names, load_item, read_item
from analysis.items.entry import build, read_yaml
from analysis.kinds.scores import ScoreTable
from lora_repro.config.catalogue import HOME, group_names
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
        assert kind in ("facts", "presets") or item.sweep in group_names("sweeps")  # pyright: ignore[reportAttributeAccessIssue]
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
metrics: [accuracy]
settings: [method.alpha]
"""
    )
    fill(tmp_path)
    code, out, err = call(capsys, "table", "by_targets", "--scale", "smoke", "--runs", str(tmp_path))
    assert (code, err) == (0, "") and out.startswith("## Table by_targets: Ranks side by side")
    assert "targets = q,v" in out and out.count("85.0 [21.5, 148.5] n=2") == 4
    _, _, err = call(capsys, "table", "by_target")
    assert "Did you mean 'by_targets'?" in err


TOY = """
import json
from dataclasses import dataclass

from analysis.items import Item, Request, register


@register("toy")
@dataclass(kw_only=True)
class Toy(Item):
    weights: list[str]

    def text(self, request: Request) -> str:
        return json.dumps([self.title, *self.weights, request.scale, request.overrides])
"""


def test_a_kind_is_one_module(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr(items, "KINDS", dict(items.KINDS))
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path / "kinds")])
    monkeypatch.setitem(sys.modules, "analysis.kinds.toy", None)  # which is taken out again afterwards
    del sys.modules["analysis.kinds.toy"]
    (tmp_path / "kinds").mkdir()
    (tmp_path / "kinds" / "toy.py").write_text(TOY)
    (folder / "toy_item.yaml").write_text("kind: toy\ntitle: A toy\nweights: [q, v]\n")
    code, out, _ = call(capsys, "table", "toy_item", "--scale", "demo", "seed=3")
    assert code == 0 and json.loads(out) == ["A toy", "q", "v", "demo", ["seed=3"]]
    code, _, err = call(capsys, "table", "toy_item", "--protocol", "held_out")
    assert code == 1 and "--protocol held_out: toy_item takes no --protocol. Leave it out." in err


def test_facts_may_be_another_items(folder: Path) -> None:
    (folder / "later.yaml").write_text("kind: facts\ntitle: Once more\nfacts: table15\n")
    assert read_item("later").facts == read_item("table15").facts != {}


METRICS = "metrics: [logical_form, accuracy]\n"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("label: r\n", "label: r\n  lable: x\n", ["table6.yaml: columns: there is no field 'lable'", "Did you mean"]),
        (METRICS, "", ["table6.yaml: the field 'metrics' is missing", "Fields: title, facts, sweep, rows"]),
        (METRICS, "metrics: accuracy\n", ["metrics: must be list[str] (given: 'accuracy')"]),
        ("{1: r1,", "{on: r1,", ["columns: values: key: must be str | int (given: True)", "on, off, yes and no"]),
        ("{1: r1,", "{1e0: r1, 1.5: r1,", ["columns: values: key: must be str | int (given: 1.5)"]),
        (
            "kind: scores",
            "kind: score",
            ["kind: no kind 'score'. Did you mean 'scores'?", "Kinds: across, facts, methods, phi"],
        ),
        ("{1: r1,", "{1: r1, 1: r2,", ["table6.yaml:", "the key 1 stands there twice"]),
        (METRICS, METRICS * 2, ["the key 'metrics' stands there twice"]),
        ("facts:\n", "facts: table66\nfact:\n", ["table66: there is no such item.", "Items: figure1, "]),
        ("kind: scores\n", "kind: scores\n  x: [\n", ["table6.yaml: this is no YAML"]),
        (
            "{1: r1,",
            "{1: r11,",
            ["table6.yaml: columns: values: the facts have no 'r11'", "They have:"],
        ),
        ('{"q": q,', '{"q": qq,', ["table6.yaml: rows: values: the facts have no 'qq'", "They have: q, qv, qkvo."]),
        ("  facts: adapted_weights\n", "", ["table6.yaml: rows: facts: it is missing. Keys: model, method, task"]),
        ("facts: adapted_weights", "facts: adapted", ["rows: facts: the facts have no 'adapted'", "'adapted_weights'"]),
        ("sweep: table6", "sweep: table66", ["table6.yaml: sweep: no sweep 'table66'", "Sweeps: "]),
        ("mnli: fluctuation_mnli", "mnli: spread", ["table6.yaml: fluctuation: the facts have no 'spread'"]),
        (METRICS, f"{METRICS}beneath: [r]\n", ["table6.yaml: beneath: must be"]),
        (
            METRICS,
            f"{METRICS}beneath: {{facts: rank, key: method.r}}\n",
            ["table6.yaml: beneath: facts: the facts have no 'rank'"],
        ),
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


@pytest.mark.parametrize(
    ("scale", "old", "new", "words"),
    [
        (
            "smoke",
            "key: method.r\n",
            "key: method.rank\n",
            r"columns: key: no run of the sweep has a key 'method\.rank'",
        ),
        (
            "paper",
            "key: method.r\n",
            "key: method.rank\n",
            r"columns: key: no run of the sweep has a key 'method\.rank'",
        ),
        (
            "smoke",
            "[method.alpha,",
            "[method.alfa,",
            r"settings: no run of the sweep has a key 'method\.alfa'\. Did you",
        ),
    ],
)
def test_a_key_that_no_run_has_is_refused(folder: Path, scale: str, old: str, new: str, words: str) -> None:
    path = folder / "table6.yaml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=rf"table6\.yaml: {words}"):
        cast(ScoreTable, load_item("table", "6")).read(Request(scale, "nowhere"))


def test_items_without_facts_name_none(folder: Path) -> None:
    path = folder / "freeze_a.yaml"
    path.write_text(path.read_text().replace("  label: freeze_A\n", "  label: freeze_A\n  facts: r\n", 1))
    with pytest.raises(InputError, match=r"freeze_a\.yaml: columns: facts: the item has no facts"):
        read_item("freeze_a")


def test_an_unknown_item_is_refused_with_those_from_runs_and_those_of_the_papers_numbers_alone() -> None:
    with pytest.raises(InputError, match=r"Give one of: table 2, table 3, .*table sql_ranks\.$"):
        load_item("table", "99")
    with pytest.raises(InputError, match=r"Give one of: figure 2, .*alone: figure 1, figure 5\."):
        load_item("figure", "9")


def test_items_of_the_papers_numbers_alone_take_no_options_and_point_at_no_file(capsys: Captured) -> None:
    code, _, err = call(capsys, "figure", "1", "--side", "B")
    assert code == 1 and "--side B: figure1 takes no --side. Leave it out." in err
    code, out, _ = call(capsys, "figure", "5")
    assert code == 0 and "adapter_h" in out and "slow-down in percent over the no-adapter baseline" in out
    files = {path.name: set(re.findall(r"\w+\.yaml", path.read_text())) for path in items.ITEMS.glob("*.yaml")}
    assert {name: found - files.keys() for name, found in files.items() if found - files.keys()} == {}


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


def test_the_docs_name_the_tables_that_are_held_out() -> None:
    text = " ".join((HOME / "docs" / "sweeps_and_tables.md").read_text().split())
    found = re.search("The default is `held_out` for (.*?), and `last_epoch` for all else", text)
    assert found is not None
    named = {f"table{word}" if word.isdigit() else word for word in re.findall(r"\d+|\w+(?=`)", found[1])}
    assert named == {name for name in item_names() if getattr(read_item(name), "protocol", None) == "held_out"}


def test_a_table_says_its_sweep() -> None:
    tables = [item for item in map(read_item, item_names()) if isinstance(item, ScoreTable)]
    assert {item.name for item in tables} == {"table5", "table6", "freeze_a", "rank_rates", "sql_ranks"}
    assert all(item.sweep == item.name for item in tables)
