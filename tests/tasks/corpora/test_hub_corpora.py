"""Corpora that the hub gives: rows as datasets reads them become the official files, and hold what those do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from helpers import corpora
from helpers.corpora import declared

from lora_repro.config.schema import load_group
from lora_repro.errors import MissingInputError
from lora_repro.fetch import corpora as hub

Rows = dict[str, list[dict[str, Any]]]
SPLITS = {"train": "train", "dev": "validation", "test": "test"}


def e2e_rows(folder: Path) -> Rows:
    import csv

    files = {"train": "trainset.csv", "validation": "devset.csv", "test": "testset_w_refs.csv"}
    return {
        split: [
            {"meaning_representation": row["mr"], "human_reference": row["ref"]}
            for row in csv.DictReader((folder / name).read_text(encoding="utf-8").splitlines(keepends=True))
        ]
        for split, name in files.items()
    }


def webnlg_row(number: int, category: str, triples: list[str], texts: list[tuple[str, str]]) -> dict[str, Any]:
    marks, words = zip(*texts, strict=True) if texts else ((), ())
    return {
        "category": category, "eid": f"Id{number}", "modified_triple_sets": {"mtriple_set": [triples]},
        "lex": {"comment": [*marks], "lid": [f"Id{i}" for i in range(1, len(words) + 1)], "text": [*words]},
    }  # fmt: skip


def webnlg_rows(folder: Path) -> Rows:
    """Test is three files on the hub: without texts, the unseen part alone, and all of it, each from Id1 on."""
    found = {
        SPLITS[name.removesuffix(".json")]: [webnlg_row(i, *entry) for i, entry in enumerate(entries, 1)]
        for name, entries in corpora.WEBNLG.items()
    }
    whole = corpora.WEBNLG["test.json"]
    without = [webnlg_row(i, category, triples, []) for i, (category, triples, _) in enumerate(whole, 1)]
    return found | {"test": [*without, webnlg_row(1, *whole[1]), *found["test"]]}


def dart_rows(folder: Path) -> Rows:
    return {
        SPLITS[name.removesuffix(".json").rpartition("-")[2]]: [
            {"tripleset": triples, "annotations": {"source": ["mine"] * len(texts), "text": texts}}
            for triples, texts in entries
        ]
        for name, entries in corpora.DART.items()
    }


def samsum_rows(folder: Path) -> Rows:
    names = {"train.json": "train", "val.json": "validation", "test.json": "test"}
    keys = ("id", "dialogue", "summary")
    return {names[name]: [dict(zip(keys, row, strict=True)) for row in rows] for name, rows in corpora.SAMSUM.items()}


def wikisql_rows(folder: Path) -> Rows:
    """The hub has all values as texts, those of cells too."""
    (table,) = corpora.TABLES
    table = table | {"rows": [[*map(str, row)] for row in table["rows"]], "name": "t"}
    return {
        SPLITS[split]: [
            {
                "phase": 1, "question": text, "table": table,
                "sql": {
                    "human_readable": "", "sel": sql["sel"], "agg": sql["agg"],
                    "conds": {
                        "column_index": [column for column, _, _ in sql["conds"]],
                        "operator_index": [op for _, op, _ in sql["conds"]],
                        "condition": [str(value) for _, _, value in sql["conds"]],
                    },
                },
            }
            for text, sql in questions
        ]
        for split, questions in corpora.QUESTIONS.items()
    }  # fmt: skip


CASES: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Rows]]] = {
    "e2e_csv": (lambda folder: corpora.write_text(folder, corpora.E2E_CSV), e2e_rows),
    "webnlg": (corpora.write_webnlg, webnlg_rows),
    "dart": (corpora.write_dart, dart_rows),
    "samsum": (corpora.write_samsum, samsum_rows),
    "wikisql": (corpora.write_wikisql, wikisql_rows),
}


@pytest.mark.parametrize("name", CASES)
def test_the_hub_gives_the_same_examples(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write, rows_of = CASES[name]
    task = declared(name, write(tmp_path / "official"))
    rows = rows_of(tmp_path / "official")
    found = DatasetDict({split: Dataset.from_list(of) for split, of in rows.items()})
    monkeypatch.setattr(hub, "_dataset", lambda repository, subset: found)
    cache = str(tmp_path / "cache")
    official = task.load(str(tmp_path / "official"), "none")
    assert task.fetch(cache).startswith("fetched (")
    assert task.load(None, cache) == official
    assert task.fetch(cache).startswith("present (")


def test_what_the_hub_has_else_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GEM/e2e_nlg, the cleaned set, has other texts under the same names."""
    task = declared("e2e_csv", corpora.write_text(tmp_path / "official", corpora.E2E_CSV))
    rows = e2e_rows(tmp_path / "official")
    rows["test"][0]["human_reference"] = "Cleaned."
    found = DatasetDict({split: Dataset.from_list(of) for split, of in rows.items()})
    monkeypatch.setattr(hub, "_dataset", lambda repository, subset: found)
    with pytest.raises(MissingInputError, match="hold other texts than declared"):
        hub.download(task, str(tmp_path / "cache"))
    assert not (tmp_path / "cache" / "data").exists()
    monkeypatch.setattr(hub, "_dataset", lambda repository, subset: {"train": found["train"]})
    with pytest.raises(MissingInputError, match="tuetschek/e2e_nlg: the hub has no split validation of it"):
        hub.download(task, str(tmp_path / "cache"))


def test_a_repository_with_a_script_is_read_from_the_hub_s_own_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load(repository: str, subset: str | None, revision: str | None) -> str:
        asked.append((repository, subset, revision))
        if revision is None:
            raise RuntimeError("Dataset scripts are no longer supported, but found e2e_nlg.py")
        return "the copy"

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert hub._dataset("a/b", "c") == "the copy"
    assert asked == [("a/b", "c", None), ("a/b", "c", "refs/convert/parquet")]

    def fail(repository: str, subset: str | None, revision: str | None) -> str:
        raise OSError("offline")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(MissingInputError, match=r"a/b: the hub does not give it \(OSError: offline\)\.\n.*paths\.data"):
        hub._dataset("a/b", None)


def test_every_corpus_of_the_hub_is_tried() -> None:
    assert {name for name in ("e2e", "e2e_csv", "webnlg", "dart", "dart_2020", "samsum", "wikisql", "wikisql_mlx")
            if load_group("task", name).hub is not None} == {*CASES}  # fmt: skip
