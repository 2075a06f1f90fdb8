"""Own data: task=table, from files to examples. All files are made here."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from helpers.quick_compose import compose_quickly
from pyarrow import parquet

from lora_repro.config.identity import NUMERICS_VERSION, id_fields, run_id
from lora_repro.config.resolve import Resolved, resolve
from lora_repro.errors import InputError, MissingInputError
from lora_repro.tasks import TableConfig
from lora_repro.tasks.encoding import encode
from lora_repro.tasks.notices import of_examples
from lora_repro.tasks.own_data import read_here as own
from lora_repro.tasks.recorded import task_of
from lora_repro.tasks.targets import Example
from lora_repro.training.job import compute

GOOD, BAD = ("fine", "lovely", "superb"), ("dull", "broken", "poor")
ROWS = [(f"{(GOOD if i % 2 else BAD)[i % 3]}, item {i}", "good" if i % 2 else "bad", i // 4) for i in range(40)]
"""Text, label and user of 40 examples, 20 of each class."""

Make = Callable[..., Resolved]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Resolves task=table on a file or folder."""

    def of(data: Path | str, *overrides: str) -> Resolved:
        paths = (f"paths.outputs={tmp_path}/outputs", f"paths.data={data}", "compute.device=cpu")
        return resolve(compose_quickly(["model=tiny_bert", "task=table", *paths, *overrides]))

    return of


REVIEWS = ("task.text=review", "task.label=stars")


def csv_of(path: Path, rows: list[Any] = ROWS, header: str = "review,stars,user") -> Path:
    lines = [header, *(",".join(f'"{value}"' for value in row) for row in rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def table_of(resolved: Resolved) -> TableConfig:
    assert isinstance(resolved.run.task, TableConfig)
    return resolved.run.task


def load(resolved: Resolved) -> dict[str, list[Any]]:
    return resolved.run.task.load(resolved.settings.paths.data, "")


def test_one_file_is_divided_and_its_labels_are_named(make: Make, tmp_path: Path) -> None:
    resolved = make(csv_of(tmp_path / "mine.csv"), *REVIEWS)
    task, splits = table_of(resolved), load(resolved)
    assert (task.labels, task.num_labels, task.head_width) == (["bad", "good"], 2, 2)
    assert task.sizes() == {"train": 32, "eval": 4, "test": 4} == {split: len(of) for split, of in splits.items()}
    assert {split: sum(e.target for e in of) for split, of in splits.items()} == {"train": 16, "eval": 2, "test": 2}
    examples = {example.id: example for of in splits.values() for example in of}
    assert len(examples) == 40
    assert (examples["1"].input, examples["1"].target) == ("dull, item 0", 0)
    assert (examples["4"].input, examples["4"].target) == ("fine, item 3", 1)
    assert resolved.run.train_examples == 32


def same_in_other_forms(folder: Path) -> list[tuple[Path, tuple[str, ...]]]:
    """Writes the same rows in all formats, with other line ends, quoting, encoding and order of columns."""
    columns = {name: [row[i] for row in ROWS] for i, name in enumerate(("review", "stars", "user"))}
    entries = [dict(zip(columns, row, strict=True)) for row in ROWS]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, entries)))
    (folder / "b.json").write_text(json.dumps(entries, indent=1))
    (folder / "c.tsv").write_bytes("\r\n".join(["stars\treview", *(f"{r[1]}\t{r[0]}" for r in ROWS)]).encode("utf-16"))
    (folder / "d.txt").write_text("\n".join(f"{row[1]};{row[0]}" for row in ROWS))
    parquet.write_table(pyarrow.table(columns), folder / "e.parquet")
    datasets.Dataset.from_dict(columns).save_to_disk(folder / "f")
    headless = ("task.format=csv", "task.delimiter=';'", "task.header=[stars,review]", "task.quotes=false")
    return [
        (folder / "a.jsonl", ()),
        (folder / "b.json", ()),
        (folder / "c.tsv", ("task.encoding=utf-16",)),
        (folder / "d.txt", headless),
        (folder / "e.parquet", ()),
        (folder / "f", ()),
    ]


def test_the_examples_alone_make_the_id(make: Make, tmp_path: Path) -> None:
    resolved = make(csv_of(tmp_path / "one" / "mine.csv"), *REVIEWS)
    expected = run_id(resolved.run)
    assert run_id(make(csv_of(tmp_path / "moved" / "renamed.csv"), *REVIEWS).run) == expected
    for path, options in same_in_other_forms(tmp_path):
        other = make(path, *REVIEWS, *options)
        assert run_id(other.run) == expected, path
        assert load(other) == load(resolved)
    renamed = csv_of(tmp_path / "columns.csv", header="text,y,user")
    assert run_id(make(renamed, "task.text=text", "task.label=y").run) == expected


def test_what_changes_the_examples_changes_the_id(make: Make, tmp_path: Path) -> None:
    path = csv_of(tmp_path / "mine.csv")
    ids = {run_id(make(path, *REVIEWS, *more).run) for more in ((), ("task.split_seed=1",), ("task.group=user",))}
    ids.add(run_id(make(csv_of(tmp_path / "a.csv", [*ROWS[1:], ROWS[0]]), *REVIEWS).run))
    ids.add(run_id(make(csv_of(tmp_path / "b.csv", [("x", *ROWS[0][1:]), *ROWS[1:]]), *REVIEWS).run))
    ids.add(run_id(make(csv_of(tmp_path / "c.csv", [(ROWS[0][0], "good", 0), *ROWS[1:]]), *REVIEWS).run))
    ids.add(run_id(make(csv_of(tmp_path / "d.csv", [(r[0], r[1].upper(), 0) for r in ROWS]), *REVIEWS).run))
    assert len(ids) == 7


def test_where_halves_of_dev_hold_whole_groups_the_id_is_another(make: Make, tmp_path: Path) -> None:
    """Ids of runs with a test split are made of the configuration alone."""

    def is_of_configuration(data: str, *more: str) -> bool:
        run = make(tmp_path / data, *REVIEWS, *more).run
        text = json.dumps({"numerics_version": NUMERICS_VERSION, "run": id_fields(run)}, sort_keys=True)
        return run_id(run).endswith(hashlib.sha256(text.encode()).hexdigest()[:10])

    for name, rows in {"two/train": ROWS[:32], "two/dev": ROWS[32:], "one": ROWS}.items():
        csv_of(tmp_path / f"{name}.csv", rows)
    assert not is_of_configuration("two", "task.group=user")
    assert not is_of_configuration("two")  # rows with the same text are a group
    assert is_of_configuration("one.csv", "task.group=user")  # it has a test split


def test_the_wording_is_in_the_id_where_it_is_read_and_nowhere_else(make: Make, tmp_path: Path) -> None:
    mine = csv_of(tmp_path / "mine.csv")
    other = ("task.prompt='{text} So?'", "task.label_words=[' yes',' no']")
    heads = {run_id(make(mine, *REVIEWS, *given).run) for given in ((), other, other[:1], other[1:])}
    asked = ("model=tiny_llama", "task.form=text")
    words = ("task.label_words=[' bad',' good']",)
    texts = {run_id(make(mine, *REVIEWS, *asked, *given).run) for given in (words, other, (*words, *other[:1]))}
    assert len(heads) == 1 and len(texts) == 3


def test_a_file_that_was_changed_is_read_again(make: Make, tmp_path: Path) -> None:
    path = csv_of(tmp_path / "mine.csv")
    before = make(path, *REVIEWS)
    csv_of(path, ROWS[:-2])
    assert run_id(make(path, *REVIEWS).run) != run_id(before.run)
    with pytest.raises(MissingInputError, match="the data has changed since this run was composed"):
        load(before)


def test_the_runs_of_a_sweep_read_a_file_once(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read, reads = csv_of(tmp_path / "mine.csv"), TableConfig.read, []
    monkeypatch.setattr(TableConfig, "read", lambda *given: reads.append(1) or read(*given))
    for seed in range(5):
        load(make(path, *REVIEWS, f"seed={seed}"))
    assert len(reads) == 1
    make(path, *REVIEWS, "task.split_seed=1")
    assert len(reads) == 2


def test_neither_the_record_nor_the_id_holds_a_path(make: Make, tmp_path: Path) -> None:
    from lora_repro.store.record import plain

    resolved = make(csv_of(tmp_path / "mine.csv"), *REVIEWS)
    recorded = plain(resolved.run)
    assert str(tmp_path) not in json.dumps(recorded) and "mine" not in json.dumps(recorded)
    task = task_of(recorded)
    assert isinstance(task, TableConfig)
    assert (task.labels, task.digest, task.sizes()) == (
        ["bad", "good"],
        table_of(resolved).digest,
        {"train": 32, "eval": 4, "test": 4},
    )


def test_a_run_tells_where_its_data_is_not(make: Make, tmp_path: Path) -> None:
    """So that a laptop plans and prints what a cluster computes."""
    path = csv_of(tmp_path / "mine.csv")
    resolved = make(path, *REVIEWS, "task.train_size=8", "task.eval_size=4", "task.test_size=4", "train.epochs=1")
    compute(resolved)
    path.unlink()
    run = tmp_path / "outputs" / "runs" / run_id(resolved.run)
    again = make(run, *REVIEWS, "task.train_size=8", "task.eval_size=4", "task.test_size=4", "train.epochs=1")
    assert run_id(again.run) == run_id(resolved.run)
    other = make(run, *REVIEWS, "seed=1")
    assert (table_of(other).labels, other.run.train_examples) == (["bad", "good"], 32)
    with pytest.raises(InputError, match=r"the run there has task\.text=review \(given: user\)"):
        make(run, "task.text=user", "task.label=stars")
    with pytest.raises(MissingInputError, match="is a run, which tells what its data was"):
        load(other)


def test_pairs_are_two_columns(make: Make, tmp_path: Path) -> None:
    rows = [(f"premise {i}", f"hypothesis {i}", i % 3) for i in range(30)]
    path = csv_of(tmp_path / "pairs.csv", rows, "a,b,y")
    example = load(make(path, "task.text=[a,b]", "task.label=y"))["train"][0]
    assert example.input == ("premise 0", "hypothesis 0")
    swapped = load(make(path, "task.text=[b,a]", "task.label=y"))["train"][0]
    assert swapped.input == ("hypothesis 0", "premise 0")


def test_numbers_are_sorted_by_size(make: Make, tmp_path: Path) -> None:
    rows = [(f"text {i}", i % 11 - 1, 0) for i in range(110)]
    task = table_of(make(csv_of(tmp_path / "mine.csv", rows), *REVIEWS))
    assert task.labels == [*map(str, range(-1, 10))]


def test_words_that_pandas_takes_for_nothing_are_labels_and_texts(make: Make, tmp_path: Path) -> None:
    words = ("NA", "None", "null", "nan", "N/A", "007", "TRUE")
    rows = [(f"{words[i % 7]}" + (f" {i}" if i >= 7 else ""), words[i % 7], 0) for i in range(70)]
    resolved = make(csv_of(tmp_path / "mine.csv", rows), *REVIEWS)
    assert table_of(resolved).labels == sorted(words)
    assert {"NA", "None", "null", "nan"} <= {e.input for of in load(resolved).values() for e in of}


def test_a_target_is_a_number(make: Make, tmp_path: Path) -> None:
    rows = [(f"text {i}", i / 4, 0) for i in range(40)]
    resolved = make(csv_of(tmp_path / "mine.csv", rows), "task.text=review", "task.target=stars")
    task, splits = table_of(resolved), load(resolved)
    assert (task.head_width, task.label_names, task.targets.column) == (1, [], "target")
    assert sorted(e.target for of in splits.values() for e in of) == [i / 4 for i in range(40)]


def test_dev_without_scores_is_refused(make: Make, tmp_path: Path) -> None:
    """As GLUE's test files on the hub, which have -1 in every row: correlations with it would be 0."""
    rows = [(text, i % 5 / 2, user) for i, (text, _, user) in enumerate(ROWS)]
    csv_of(tmp_path / "train.csv", rows)
    csv_of(tmp_path / "dev.csv", [("a text", -1, 0), ("another", "-1.0", 1)])
    given = (tmp_path, "task.text=review", "task.target=stars")
    with pytest.raises(InputError, match="all 2 rows of eval have -1 for 'stars'"):
        make(*given)
    csv_of(tmp_path / "train.csv", [*rows, ("a low one", -1, 0)])
    assert table_of(make(*given)).sizes() == {"train": 41, "eval": 2}


def test_one_column_of_whole_numbers_can_be_both(make: Make, tmp_path: Path) -> None:
    path = csv_of(tmp_path / "mine.csv", [(f"text {i}", i % 5, 0) for i in range(40)])
    classes, scores = make(path, *REVIEWS), make(path, "task.text=review", "task.target=stars")
    assert run_id(classes.run) != run_id(scores.run)
    assert (classes.run.task.head_width, scores.run.task.head_width) == (5, 1)


@pytest.mark.parametrize(
    "names",
    [
        ("train.csv", "dev.csv", "test.csv"),
        ("training.csv", "Validation.csv", "testing.csv"),
        ("train/0.csv", "valid/0.csv", "test/0.csv"),
        ("data/train-00000-of-00001.csv", "data/val-00000-of-00001-0f3a.csv", "data/test-00000-of-00001.csv"),
    ],
)
def test_a_folder_is_read_by_the_names_of_its_files(make: Make, tmp_path: Path, names: tuple[str, ...]) -> None:
    parts = ROWS[:20], ROWS[20:30], ROWS[30:]
    for name, rows in zip(names, parts, strict=True):
        csv_of(tmp_path / "set" / name, rows)
    (tmp_path / "set" / "README.md").write_text("about it")
    csv_of(tmp_path / "set" / "extra.csv", ROWS[:3])
    splits = load(make(tmp_path / "set", *REVIEWS))
    assert {split: [e.input for e in of] for split, of in splits.items()} == {
        split: [row[0] for row in rows] for split, rows in zip(("train", "eval", "test"), parts, strict=True)
    }
    assert splits["eval"][0].id == "eval-1"


def test_named_splits_are_the_same_run_as_a_folder_of_them(make: Make, tmp_path: Path) -> None:
    for name, rows in (("train", ROWS[:20]), ("dev", ROWS[20:30]), ("test", ROWS[30:])):
        csv_of(tmp_path / "one" / f"{name}.csv", rows)
        csv_of(tmp_path / "two" / f"my_{name}.csv", rows)
    given = "task.splits={train: my_train.csv, eval: my_dev.csv, test: my_test.csv}"
    one, two = make(tmp_path / "one", *REVIEWS), make(tmp_path / "two", *REVIEWS, given)
    assert run_id(one.run) == run_id(two.run)


def test_shards_are_read_one_after_the_other_and_all_of_them(make: Make, tmp_path: Path) -> None:
    columns = [{"review": [r[0] for r in part], "stars": [r[1] for r in part]} for part in (ROWS[:24], ROWS[24:])]
    (tmp_path / "data").mkdir()
    for i, part in enumerate(columns):
        parquet.write_table(pyarrow.table(part), tmp_path / "data" / f"train-{i:05}-of-00002.parquet")
    splits = load(make(tmp_path, *REVIEWS))
    assert sorted(int(e.id.removeprefix("train-")) for of in splits.values() for e in of) == [*range(1, 41)]
    (tmp_path / "data" / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(MissingInputError, match=r"of the 2 parts of .* 1 are missing, the first is number 0"):
        make(tmp_path, *REVIEWS)


def test_parts_that_count_their_classes_otherwise_are_refused(make: Make, tmp_path: Path) -> None:
    """One part was written by datasets, which says what its numbers mean, the other by pandas, which does not."""
    features = datasets.Features(
        {"review": datasets.Value("string"), "stars": datasets.ClassLabel(names=["good", "bad"])}
    )
    numbers = [{"good": 0, "bad": 1}[row[1]] for row in ROWS]
    texts = [row[0] for row in ROWS]
    (tmp_path / "data").mkdir()
    names = [str(tmp_path / "data" / f"train-{part:05}-of-00002.parquet") for part in range(2)]
    datasets.Dataset.from_dict({"review": texts[:20], "stars": numbers[:20]}, features).to_parquet(names[0])
    parquet.write_table(pyarrow.table({"review": texts[20:], "stars": numbers[20:]}), names[1])
    with pytest.raises(InputError, match=r"has the classes of no names, and that of .* good, bad, so"):
        make(tmp_path, *REVIEWS)


def test_rows_of_several_lines_are_told_with_the_longest(make: Make, tmp_path: Path) -> None:
    """Row 3 begins with a quote and row 9 ends with one: the rows between them become one text."""
    lines = [f"item {i},{'good' if i % 2 else 'bad'}" for i in range(40)]
    lines[3], lines[9] = '"5 inch, nr 3,good', 'item 9",good'
    path = tmp_path / "mine.csv"
    path.write_text("review,stars\n" + "\n".join(lines) + "\n")
    said = " ".join(table_of(make(path, *REVIEWS)).notices({}))
    assert "mine.csv: 1 rows take several lines, as a quote begins a text; the longest 7, from line 5." in said


def test_a_header_among_the_rows_is_told(make: Make, tmp_path: Path) -> None:
    path = csv_of(tmp_path / "mine.csv", header="sentence,cls,who")
    given = ("'task.header=[review,stars,user]'", *REVIEWS)
    said = " ".join(table_of(make(path, *(each.strip("'") for each in given))).notices({}))
    assert "mine.csv: the label of the first row (cls) is in no other row." in said


def test_what_datasets_saved_keeps_its_order_of_classes(make: Make, tmp_path: Path) -> None:
    features = datasets.Features(
        {"review": datasets.Value("string"), "stars": datasets.ClassLabel(names=["good", "unused", "bad"])}
    )
    parts = {"train": ROWS[:20], "validation": ROWS[20:30], "test": ROWS[30:], "unsupervised": ROWS[:1]}
    of = {
        split: datasets.Dataset.from_dict(
            {"review": [row[0] for row in rows], "stars": [{"good": 0, "bad": 2}[row[1]] for row in rows]}, features
        )
        for split, rows in parts.items()
    }
    datasets.DatasetDict({**of}).save_to_disk(tmp_path / "saved")
    resolved = make(tmp_path / "saved", *REVIEWS)
    assert table_of(resolved).labels == ["good", "bad"]
    assert [e.target for e in load(resolved)["eval"]] == [0 if row[1] == "good" else 1 for row in ROWS[20:30]]
    (tmp_path / "parquet").mkdir()
    for split in ("train", "validation", "test"):
        of[split].to_parquet(tmp_path / "parquet" / f"{split}.parquet")
    again = make(tmp_path / "parquet", *REVIEWS)
    assert table_of(again).labels == ["good", "bad"] and table_of(again).digest == table_of(resolved).digest


def saved_in(folder: Path, **parts: list[Any]) -> Path:
    of = {
        split: datasets.Dataset.from_dict({"review": [row[0] for row in rows], "stars": [row[1] for row in rows]})
        for split, rows in parts.items()
    }
    datasets.DatasetDict({**of}).save_to_disk(folder)
    return folder


def test_where_there_is_no_dev_it_is_taken_from_train_and_never_from_a_split_without_labels(
    make: Make, tmp_path: Path
) -> None:
    """As IMDb is on the hub: train, test, and texts whose label is -1."""
    unlabelled = [(f"text {i}", "-1") for i in range(9)]
    data = saved_in(tmp_path / "imdb", train=ROWS[:30], test=ROWS[30:], unsupervised=unlabelled)
    resolved = make(data, *REVIEWS)
    splits = load(resolved)
    assert {split: len(of) for split, of in splits.items()} == {"train": 27, "eval": 3, "test": len(ROWS) - 30}
    assert f"unsupervised of {data} is not read." in table_of(resolved).notices(splits)
    two = saved_in(tmp_path / "two_parts", train=ROWS, unlabeled=unlabelled)
    assert table_of(make(two, *REVIEWS)).sizes() == {"train": 32, "eval": 4, "test": 4}
    lone = saved_in(tmp_path / "no_train", unsupervised=unlabelled, all=ROWS)
    with pytest.raises(InputError, match=r"no split that is called train .*\n.*'task\.splits={train: all}'"):
        make(lone, *REVIEWS)


def test_splits_of_unusual_names_that_datasets_saved_are_asked_for(make: Make, tmp_path: Path) -> None:
    data = saved_in(tmp_path / "one", train=ROWS[:20], validation_matched=ROWS[20:30], validation_mismatched=ROWS[30:])
    with pytest.raises(InputError, match=r"which split of .*one is eval\?.*\n.*splits={eval: validation_matched}"):
        make(data, *REVIEWS)
    for given in ("eval: validation_matched", "train: train, eval: validation_matched"):
        assert table_of(make(data, *REVIEWS, f"task.splits={{{given}}}")).sizes() == {"train": 20, "eval": 10}
    with pytest.raises(InputError, match=r"task\.splits\.eval: .*one has no split 'dev'"):
        make(data, *REVIEWS, "task.splits={eval: dev}")
    both = saved_in(tmp_path / "two", train=ROWS[:20], validation=ROWS[20:30], dev=ROWS[30:])
    with pytest.raises(InputError, match=r"two has several splits for eval: validation, dev"):
        make(both, *REVIEWS)
    datasets.Dataset.from_dict({"review": ["a"], "stars": ["b"]}).save_to_disk(tmp_path / "three")
    with pytest.raises(InputError, match=r"task\.splits: .*three has no splits"):
        make(tmp_path / "three", *REVIEWS, "task.splits={train: train}")


def test_a_test_file_of_which_the_first_row_lacks_a_label_is_no_test_file_without_labels(
    make: Make, tmp_path: Path
) -> None:
    entries = [{"review": row[0], "stars": row[1]} for row in ROWS]
    for name, of in (("train", entries[:20]), ("dev", entries[20:30]), ("test", [{"review": "new"}, *entries[30:]])):
        (tmp_path / f"{name}.json").write_text(json.dumps(of))
    with pytest.raises(InputError, match=r"test\.json, row 1"):
        make(tmp_path, *REVIEWS)


def test_a_test_split_without_labels_is_left_out_and_told(make: Make, tmp_path: Path) -> None:
    csv_of(tmp_path / "train.csv", ROWS[:20])
    csv_of(tmp_path / "dev.csv", ROWS[20:])
    for header, answer in (("review,user", None), ("review,stars,user", "-1"), ("review,stars,user", "")):
        rows = [(f"new {i}", *([answer] if answer is not None else []), i) for i in range(7)]
        csv_of(tmp_path / "test.csv", rows, header)
        resolved = make(tmp_path, *REVIEWS)
        splits = load(resolved)
        assert resolved.run.task.scored == ("eval",) and [*splits] == ["train", "eval"]
        assert not any(e.input.startswith("new") for of in splits.values() for e in of)
        assert any("test has no labels (all 7 are missing or -1)" in line for line in resolved.run.task.notices(splits))


def test_a_folder_with_train_and_dev_has_no_test(make: Make, tmp_path: Path) -> None:
    csv_of(tmp_path / "train.csv", ROWS[:30])
    csv_of(tmp_path / "dev.csv", ROWS[30:])
    resolved = make(tmp_path, *REVIEWS)
    assert table_of(resolved).sizes() == {"train": 30, "eval": 10}
    assert resolved.run.task.scored == ("eval",)
    assert any("There is no test split" in line for line in resolved.run.task.notices(load(resolved)))


@pytest.mark.parametrize(
    ("names", "overrides", "sizes"),
    [
        (("train",), (), {"train": 24, "eval": 3, "test": 3}),
        (("train",), ("task.shares={train: 0.8, eval: 0.2, test: 0.0}",), {"train": 24, "eval": 6}),
        (("train", "test"), ("task.shares={train: 0.4, eval: 0.1, test: 0.5}",), {"train": 24, "eval": 6, "test": 10}),
    ],
)  # fmt: skip
def test_splits_that_are_missing_are_taken_from_train(
    make: Make, tmp_path: Path, names: tuple[str, ...], overrides: tuple[str, ...], sizes: dict[str, int]
) -> None:
    for name in names:
        csv_of(tmp_path / f"{name}.csv", ROWS[:30] if name == "train" else ROWS[30:])
    resolved = make(tmp_path, *REVIEWS, *overrides)
    assert table_of(resolved).sizes() == {split: len(of) for split, of in load(resolved).items()} == sizes


def test_minus_one_is_a_class_where_training_has_it(make: Make, tmp_path: Path) -> None:
    for name, rows in (("train", 30), ("dev", 9)):
        csv_of(tmp_path / f"{name}.csv", [(f"{name} {i}", i % 3 - 1, 0) for i in range(rows)])
    csv_of(tmp_path / "test.csv", [(f"test {i}", -1, 0) for i in range(4)])
    splits = load(make(tmp_path, *REVIEWS))
    assert [e.target for e in splits["test"]] == [0] * 4


def test_a_group_is_never_divided(make: Make, tmp_path: Path) -> None:
    splits = load(make(csv_of(tmp_path / "mine.csv"), *REVIEWS, "task.group=user"))
    users = [{example.document for example in of} for of in splits.values()]
    assert sum(map(len, users)) == len(set().union(*users)) == 10


def test_rows_with_the_same_text_stay_together(make: Make, tmp_path: Path) -> None:
    rows = [(f"text {i % 20}", "ab"[i % 2], 0) for i in range(100)]
    splits = load(make(csv_of(tmp_path / "mine.csv", rows), *REVIEWS))
    texts = [{example.input for example in of} for of in splits.values()]
    assert sum(map(len, texts)) == len(set().union(*texts)) == 20


def test_names_come_from_a_column(make: Make, tmp_path: Path) -> None:
    rows = [(*row[:2], f"name{i}") for i, row in enumerate(ROWS)]
    splits = load(make(csv_of(tmp_path / "mine.csv", rows), *REVIEWS, "task.id=user"))
    assert {e.id for of in splits.values() for e in of} == {f"name{i}" for i in range(40)}


def test_rows_without_text_are_left_out_where_asked(make: Make, tmp_path: Path) -> None:
    path = csv_of(tmp_path / "mine.csv", [("  ", "bad", 9), *ROWS, ("", "good", 9)])
    with pytest.raises(InputError, match=r"2 of 42 rows have no text \(mine\.csv, line 2; mine\.csv, line 43\)"):
        make(path, *REVIEWS)
    dropped = make(path, *REVIEWS, "task.drop_empty=true")
    assert run_id(dropped.run) == run_id(make(csv_of(tmp_path / "clean.csv"), *REVIEWS).run)
    assert any("2 rows without text are left out" in line for line in dropped.run.task.notices(load(dropped)))


def test_what_is_in_the_data_is_told_before_training(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    csv_of(tmp_path / "train.csv", [("one", 1, 0), ("one", 2, 0), ("two", 2, 0), ("two", 2, 0), ("one", 1, 0)])
    csv_of(tmp_path / "dev.csv", [("three", 1, 0), ("two", 1, 0)])
    csv_of(tmp_path / "test.csv", [("four " * 20, 2, 0), ("three", 1, 0)])
    resolved = make(tmp_path, *REVIEWS, "train.max_length=12")
    monkeypatch.setattr("lora_repro.tasks.encoding._encoded", {})
    with caplog.at_level(logging.INFO, "lora_repro"):
        encode(resolved.run, resolved.settings)
    told = "\n".join(caplog.messages)
    assert "The numbers of 'stars' (1, 2) are taken as 2 classes" in told and "task.target=stars" in told
    assert "Labels, sorted: 0 = 1, 1 = 2." in told
    assert "Examples: train 5, dev 2, test 2." in told
    assert "train: 1: 2 (40.0 %), 2: 3 (60.0 %)." in told
    assert "train: 3 examples repeat the text of an earlier one, 1 with another target." in told
    assert "dev and train share 1 text, 1 with another target" in told
    assert "test and dev share 1 text, 0 with another target" in told
    # [CLS] and [SEP] around letters: 5 for one, 5 for two, 7 for three; the long one has 20 times four letters.
    assert "Lengths in tokens: median 5, longest 82; 1 is cut to train.max_length=12 (test 1)." in told


def test_a_run_with_prompts_takes_the_labels_in_their_order(make: Make, tmp_path: Path) -> None:
    path = csv_of(tmp_path / "mine.csv")
    text = ("model=tiny_llama", "preset@train=tiny_llama", "task.form=text", "task.prompt='{text} so'")
    with pytest.raises(InputError, match="2 different words are needed, one a label: bad, good"):
        make(path, *REVIEWS, *text)
    resolved = make(path, *REVIEWS, *text, 'task.label_words=[" sad"," joy"]')
    assert resolved.run.task.head_width is None
    assert encode(resolved.run, resolved.settings)["train"].objective.reserved > 0


def test_composing_imports_no_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    path = csv_of(tmp_path / "mine.csv")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from lora_repro.config.compose import compose; from lora_repro.config.resolve import resolve\n"
        f"print(resolve(compose(['task=table', 'paths.data={path}', *{REVIEWS}])).run.task.labels)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "['bad', 'good']\n", done.stderr


LABELS = [(f"text {i}", i % 2, i) for i in range(20)]


@pytest.mark.parametrize(
    ("rows", "overrides", "message"),
    [
        (ROWS, ("task.label=stars",), r"task\.text: must name the column of the text"),
        (ROWS, ("task.text=[review,user,stars]", "task.label=stars"), r"task\.text: must name .* or two columns"),
        (ROWS, ("task.text=review",), r"task\.label: must name the column of the classes"),
        (ROWS, (*REVIEWS, "task.target=user"), r"given: task\.label=stars task\.target=user"),
        (ROWS, ("task.text=stars", "task.label=stars"), r"task\.text: one column is asked for twice"),
        (ROWS, ("task.text=revew", "task.label=stars"), r"no column 'revew'\. Did you mean 'review'"),
        (ROWS, ("task.text=review", "task.label=star"), "no column 'star'"),
        (ROWS, (*REVIEWS, "task.group=who"), "no column 'who'"),
        (ROWS, (*REVIEWS, "task.id=user"), r"task\.id: '0' names two rows \(mine\.csv, line 2 and mine\.csv, line 3"),
        (ROWS, (*REVIEWS, "task.shares={train: 0.5}"), r"task\.shares: must add up to 1 .*0\.7"),
        (ROWS, (*REVIEWS, "task.shares={eval: 0.0, train: 0.9}"), r"task\.shares: must be fractions above 0, and test"),
        (ROWS, (*REVIEWS, "task.shares={test: 0.0, train: 0.9}", "task.test_size=3"), r"task\.test_size: there is no"),
        (ROWS, (*REVIEWS, "task.digest=abc"), r"task\.digest: belongs to task=table and cannot be overridden"),
        (ROWS, (*REVIEWS, "task.labels=[a,b]"), r"task\.labels: belongs to task=table"),
        (ROWS, (*REVIEWS, "task.train_size=33"), r"table has 32 train examples \(given: 33\)"),
        (ROWS, ("task.text=review", "task.target=stars"), r"40 rows of the file have a 'stars' that is no finite"),
        (ROWS[:3], REVIEWS, r"task\.shares: \w+ gets no row"),
        ([(f"text {i}", "good", 0) for i in range(9)], REVIEWS, r"all 9 training rows have the same 'stars', 'good'"),
        ([*LABELS, ("x", "", 0)], REVIEWS, r"1 of 21 rows have no 'stars' \(mine\.csv, line 22\)"),
        ([(f"t {i}", i / 2, 0) for i in range(9)], REVIEWS, r"fractions \(0\.5, 1\.5.*\n.*task\.target=stars instead"),
        ([(f"t {i}", i, 0) for i in range(60)], REVIEWS, r"60 different values .*\n.*\.target=stars .*max_labels=60"),
        ([(f"t {i}", f"l{i}", 0) for i in range(60)], REVIEWS, r"60 different values .*\n.*column of the labels\?"),
        ([*LABELS, ("x", "1.0", 0)], REVIEWS, r"one number in two ways, '1' \(10 rows\) and '1\.0' \(1 rows\)"),
        ([*LABELS, ("x", "1,5", 0)], ("task.text=review", "task.target=stars"), r"found: '1,5'; .* line 22.*\n.*point"),
        ([*LABELS, ("x", "nan", 0)], ("task.text=review", "task.target=stars"), r"no finite number \(found: 'nan'"),
        ([*LABELS, ("x", "1e999", 0)], ("task.text=review", "task.target=stars"), r"no finite number"),
        ([*LABELS, ("x", "1_000", 0)], ("task.text=review", "task.target=stars"), r"no finite number"),
        ([(f"t {i}", 3, 0) for i in range(9)], ("task.text=review", "task.target=stars"), "the same 'stars', 3"),
        (LABELS, ("task.text=review", "task.target=stars", "task.form=text"), r"task\.target: a number is read from a"),
        ([(f"t {i}", i % 2, i % 2) for i in range(20)], (*REVIEWS, "task.group=user"), r"\w+ gets no row"),
    ],
)  # fmt: skip
def test_what_makes_no_task_is_refused(
    make: Make, tmp_path: Path, rows: list[Any], overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make(csv_of(tmp_path / "mine.csv", rows), *overrides)


def test_a_group_that_holds_a_whole_class_can_be_kept_out_of_training(make: Make, tmp_path: Path) -> None:
    rows = [(f"t {i}", i % 2, i) for i in range(20)] + [(f"rare {i}", 7, "one") for i in range(2)]
    path, refused = csv_of(tmp_path / "mine.csv", rows), 0
    for seed in range(10):
        try:
            make(
                path,
                *REVIEWS,
                "task.group=user",
                f"task.split_seed={seed}",
                "task.shares={train: 0.2, eval: 0.4, test: 0.4}",
            )
        except InputError as error:
            assert "label '7' are in" in str(error) and "none is in train" in str(error)
            refused += 1
    assert refused


@pytest.mark.parametrize(
    ("files", "overrides", "message"),
    [
        ({"dev": ROWS}, (), r"has no file that is called train \(files there: dev\.csv\).*\n.*task\.splits"),
        ({}, (), "none that can be read"),
        ({"train": ROWS, "dev": ROWS, "valid": ROWS}, (), r"several files for eval: dev\.csv, valid\.csv"),
        ({"train": ROWS, "dev": [("x", "ugly", 0)]}, (), r"eval: 1 of 1 rows .* no training row has: '?\"?'ugly"),
        ({"train": ROWS, "test": [("x", "good", 0), ("y", "-1", 0)]}, (), r"test: 1 of 2 rows .*'-1'"),
        ({"train": ROWS, "test": [("x", "good", 0), ("y", "", 0)]}, (), r"test: 1 of 2 rows have no 'stars'"),
        ({"train": ROWS, "dev": [("x", "-1", 0)]}, (), r"eval: 1 of 1 rows .*'-1'"),
        ({"train": ROWS, "dev": ROWS}, ("task.splits={eval: dev.csv}",), r"task\.splits: needs train"),
        ({"train": ROWS}, ("task.splits={train: trian.csv}",), r"no file 'trian\.csv' .* Did you mean 'train\.csv'"),
        ({"train": ROWS}, ("task.splits={train: /etc/passwd}",), r"task\.splits: files are named relative"),
        ({"train": ROWS}, ("task.splits={train: ../set/train.csv}",), r"task\.splits: files are named relative"),
        ({"train": ROWS}, ("task.splits={train: train.csv, eval: train.csv}",), "one file is given for two splits"),
        ({"train": ROWS, "dev": ROWS[:4]}, ("task.group=user",), r"the rows with user '0' are in train and in eval"),
    ],
)  # fmt: skip
def test_a_folder_that_makes_no_task_is_refused(
    make: Make, tmp_path: Path, files: dict[str, list[Any]], overrides: tuple[str, ...], message: str
) -> None:
    (tmp_path / "set").mkdir()
    for name, rows in files.items():
        csv_of(tmp_path / "set" / f"{name}.csv", rows)
    with pytest.raises(InputError, match=message):
        make(tmp_path / "set", *REVIEWS, *overrides)


def test_data_that_is_not_there_is_named(make: Make, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"paths\.data: there is no .*none\.csv"):
        make(tmp_path / "none.csv", *REVIEWS)
    with pytest.raises(MissingInputError, match=r"paths\.data: task=table needs a file or folder"):
        make("null", *REVIEWS)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (7, r"must hold texts \(found: 7, at mine\.jsonl, line 3\)"),
        (["a"], r"must hold texts"),
        ("\ud83d", r"mine\.jsonl, line 3: the text holds half of a character"),
    ],
)
def test_a_value_that_is_no_text_is_refused(make: Make, tmp_path: Path, value: Any, message: str) -> None:
    entries = [{"review": text, "stars": i % 2} for i, text in enumerate(["a", "b", value, *"cdefghijklmn"])]
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(map(json.dumps, entries)))
    with pytest.raises(InputError, match=message):
        make(path, *REVIEWS)


def test_several_labels_for_one_text_are_refused(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps({"review": f"t {i}", "stars": ["a", "b"]}) for i in range(20)))
    with pytest.raises(InputError, match=r"one label a row.*mine\.jsonl, line 1"):
        make(path, *REVIEWS)


def test_true_and_false_of_json_and_parquet_are_two_labels(make: Make, tmp_path: Path) -> None:
    columns = {"review": [row[0] for row in ROWS], "stars": [row[1] == "good" for row in ROWS]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "mine.parquet")
    assert table_of(make(tmp_path / "mine.parquet", *REVIEWS)).labels == ["False", "True"]


def test_labels_that_differ_in_case_alone_are_asked_about(make: Make, tmp_path: Path) -> None:
    rows = [(f"t {i}", ("Good", "good", "bad")[i % 3], 0) for i in range(60)]
    resolved = make(csv_of(tmp_path / "mine.csv", rows), *REVIEWS)
    assert any("'Good' and 'good' differ in" in line for line in resolved.run.task.notices(load(resolved)))


def test_white_space_around_a_label_does_not_count(make: Make, tmp_path: Path) -> None:
    rows = [(f"t {i}", ("good ", " bad", "bad")[i % 3], 0) for i in range(60)]
    resolved = make(csv_of(tmp_path / "mine.csv", rows), *REVIEWS)
    assert table_of(resolved).labels == ["bad", "good"]
    assert Counter(e.target for of in load(resolved).values() for e in of) == {0: 40, 1: 20}


@pytest.fixture(autouse=True)
def _nothing_read_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "_known", {})
    monkeypatch.setattr(own, "_last", {})


def test_a_class_of_one_stray_value_is_told() -> None:
    made = [Example(str(i), f"text {i}", target, str(i)) for i, target in enumerate([0, 0, 1, 1, 2])]
    told = of_examples({"train": made, "eval": made[:4]}, ["bad", "good", "n/a"])
    assert "train has no or one example of n/a. Are these labels meant?" in told
    assert "dev has no example of n/a. Are these labels meant?" in told
    assert not any("Are these" in line for line in of_examples({"train": made[:4], "eval": made[:4]}, ["bad", "good"]))
