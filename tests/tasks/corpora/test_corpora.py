"""Corpora: small files made here in the official formats, and the real ones if LORA_REPRO_REAL_DATA names a folder."""

import json
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from helpers import corpora
from helpers.corpora import declared
from helpers.quick_compose import compose_quickly

from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.config.schema import load_group
from lora_repro.errors import InputError, MissingInputError
from lora_repro.tasks.base import Splits
from lora_repro.tasks.corpora import dart, e2e, webnlg
from lora_repro.tasks.corpora.base import CorpusConfig, blob_names
from lora_repro.tasks.parts import Parts
from lora_repro.tasks.targets import Example, Texts

NAMES = ("e2e", "e2e_csv", "webnlg", "dart", "samsum", "wikisql", "wikisql_mlx", "dart_2020")
WRITERS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "e2e": ("e2e/lora_txt", lambda folder: corpora.write_text(folder, corpora.E2E_TEXT)),
    "e2e_csv": ("e2e", lambda folder: corpora.write_text(folder, corpora.E2E_CSV)),
    "webnlg": ("webnlg_challenge_2017", corpora.write_webnlg),
    "dart": ("dart", corpora.write_dart),
    "samsum": ("samsum", corpora.write_samsum),
    "wikisql": ("wikisql", corpora.write_wikisql),
}
"""Where each lies below a folder of data, and what writes it there."""


def made(tmp_path: Path, name: str, **changes: Any) -> Any:
    folder, write = WRITERS[name]
    write(tmp_path / folder)
    return declared(name, tmp_path, **changes)


def loaded(tmp_path: Path, name: str, **changes: Any) -> Splits:
    return made(tmp_path, name, **changes).load(str(tmp_path), "none")


def seen(examples: list[Example]) -> list[tuple[Any, list[str]]]:
    return [(example.input, example.target) for example in examples]


def inputs(splits: Splits) -> dict[str, list[Any]]:
    return {split: [example.input for example in examples] for split, examples in splits.items()}


FOX = "name : The Fox | price : £ 20 - 25 | family friendly : yes"


def test_e2e_trains_on_pairs_and_scores_meanings_with_all_their_texts(tmp_path: Path) -> None:
    splits = loaded(tmp_path, "e2e")
    assert seen(splits["train"]) == [
        (FOX, ['The Fox costs £ 20 - 25 , and is n\'t bad . It is " fine " .']),
        ("name : Olé | near : The Fox", ["Olé is near The Fox ."]),
        (FOX, ["A fox ."]),
    ]
    assert seen(splits["eval"]) == [
        ("name : A | Type : pub", ["A , a pub .", "A is a pub ."]),
        ("name : B | area : riverside", ["B !"]),
    ]
    assert [example.id for example in splits["train"]] == ["train-0", "train-1", "train-2"]
    assert [example.id for example in splits["eval"]] == ["eval-0", "eval-1"]
    assert splits["train"][0].document == splits["train"][2].document != splits["train"][1].document


def test_both_forms_of_e2e_have_the_same_inputs_either_way(tmp_path: Path) -> None:
    for linearisation in (e2e.Linearisation.authors, e2e.Linearisation.official):
        authors, release = (loaded(tmp_path, name, linearisation=linearisation) for name in ("e2e", "e2e_csv"))
        assert inputs(authors) == inputs(release)
    official = loaded(tmp_path, "e2e", linearisation=e2e.Linearisation.official)
    assert official["train"][0].input == "name[The Fox], priceRange[£20-25], familyFriendly[yes]"
    release = loaded(tmp_path, "e2e_csv")
    assert release["train"][0].target == ['The Fox costs £20-25, and isn\'t bad. It is "fine".']
    assert release["eval"][0].target == ["A, a pub.", "A is a pub."]


def test_webnlg_reads_the_same_from_json_and_xml(tmp_path: Path) -> None:
    task = made(tmp_path / "json", "webnlg")
    from_json = task.load(str(tmp_path / "json"), "none")
    folder = tmp_path / "xml" / "webnlg_challenge_2017" / "xml"
    for name, entries in corpora.WEBNLG.items():
        split = name.removesuffix(".json")
        # The release has a file for each number of triples and category, and the order is that of their names.
        groups = [entries] if split == "test" else [entries[:1], entries[1:]]
        number = 0
        for part, group in enumerate(groups, start=1):
            elements = []
            for category, triples, texts in group:
                number += 1
                inner = "".join(f"<mtriple>{triple}</mtriple>\n" for triple in triples)
                said = "".join(f'<lex comment="{mark}" lid="Id1">{text}</lex>' for mark, text in texts)
                elements.append(
                    f'<entry category="{category}" eid="Id{number}" size="1"><originaltripleset><otriple>no | no | no'
                    f"</otriple></originaltripleset><modifiedtripleset>{inner}</modifiedtripleset>{said}</entry>"
                )
            content = (
                f"<?xml version='1.0' encoding='UTF-8'?>\n<benchmark><entries>{''.join(elements)}</entries></benchmark>"
            )
            place = folder / split / ("testdata_with_lex.xml" if split == "test" else f"{part}triples/{part}_x.xml")
            corpora.write_text(place.parent, {place.name: content.replace("C & D", "C &amp; D")})
    assert task.place("train", str(tmp_path / "xml"), "none").path == folder / "train"
    assert task.load(str(tmp_path / "xml"), "none") == from_json


def test_webnlg_leaves_marked_texts_out_as_the_authors_do(tmp_path: Path) -> None:
    splits = loaded(tmp_path, "webnlg")
    assert seen(splits["train"]) == [
        ("A_b : cityServed : C,_D", ["A b serves C & D."]),
        ('X : madeOf : "Y" | X : is : Z', ["X is made of Y."]),
    ]
    assert seen(splits["eval"]) == [("K : in : L", ["K is in L.", "L has K.", "In L lies K."])]
    marked = loaded(tmp_path, "webnlg", with_marked=True)
    assert [len(marked[split]) for split in marked] == [4, 2, 2]
    assert load_group("task", "webnlg").sizes() == {"train": 18025, "eval": 870, "test": 1862}
    task = load_group("task", "webnlg")
    task.with_marked = True
    assert task.sizes() is None


def test_webnlg_writes_triples_as_the_sources_do(tmp_path: Path) -> None:
    texts = {
        webnlg.Linearisation.authors: 'X : madeOf : "Y" | X : is : Z',
        webnlg.Linearisation.prefix_tuning: '| X : madeOf : "Y" | X : is : Z',
        webnlg.Linearisation.tags: "<H> X <R> made of <T> Y <H> X <R> is <T> Z",
    }
    for linearisation, text in texts.items():
        splits = loaded(tmp_path, "webnlg", linearisation=linearisation)
        assert splits["train"][1].input == text
        assert len(splits["eval"]) == 1


def test_webnlg_is_scored_by_seen_and_unseen_categories(tmp_path: Path) -> None:
    task = made(tmp_path, "webnlg")
    splits = task.load(str(tmp_path), "none")
    assert [(example.id, webnlg.part_of(example)) for example in splits["test"]] == [
        ("test-0-City", "seen"), ("test-1-Artist", "unseen"),
    ]  # fmt: skip
    parts = Parts(Texts(), ("seen", "unseen"), webnlg.part_of)
    found = parts.evaluate(splits["test"], ["É is in L.", "nothing"])
    assert found == {"exact_match": 0.5, "exact_match_seen": 1.0, "exact_match_unseen": 0.0}
    assert parts.evaluate(splits["eval"], ["L has K."]) == {"exact_match": 1.0, "exact_match_seen": 1.0}
    assert parts.evaluate([Example("0", "", ["a"], "")], ["a"]) == {"exact_match": 1.0}
    assert parts.score("exact_match_unseen", splits["test"], ["É is in L.", "S sang T."]) == 1.0
    names = ["bleu", "meteor", "ter"]
    expected = [*names, *(f"{name}_{part}" for part in ("seen", "unseen") for name in names)]
    assert [metric.name for metric in task.targets.metrics] == expected
    assert not task.targets.metric("ter_unseen").higher_is_better


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("e2e", ["bleu", "nist", "meteor", "rouge_l", "cider"]),
        ("e2e_csv", ["bleu", "nist", "meteor", "rouge_l", "cider"]),
        ("dart", ["bleu", "meteor", "ter"]),
        ("samsum", ["rouge_1", "rouge_2", "rouge_l"]),
        ("wikisql_mlx", ["logical_form", "exact_match", "match_in_any_case"]),
        ("restaurants", ["bleu", "nist"]),
        ("instructions", ["rouge_l", "perplexity"]),
    ],
)
def test_each_corpus_is_scored_by_its_protocol(name: str, metrics: list[str]) -> None:
    task = load_group("task", name)
    assert [metric.name for metric in task.targets.metrics] == metrics
    if isinstance(task, dart.DartConfig):
        task.grouping = dart.Grouping.entry
        assert [metric.name for metric in task.targets.metrics] == ["bleu", "meteor"]


def test_dart_puts_texts_of_one_input_together_unless_it_is_told_not_to(tmp_path: Path) -> None:
    splits = loaded(tmp_path, "dart")
    both = "A : is_a : B | A : [title] : C"
    assert seen(splits["train"]) == [(both, ["A is a B."]), (both, ["a b"])]
    assert seen(splits["eval"]) == [("D : is : E", ["D is E.", "E, that is D."]), ("F : is : G", ["F is G.", ""])]
    assert seen(splits["test"]) == [("H : birthplace : I_J", ["H was born in I J."])]
    alone = loaded(tmp_path, "dart", grouping=dart.Grouping.entry)
    assert [example.target for example in alone["eval"]] == [["D is E."], ["F is G.", ""], ["E, that is D."]]
    tags = loaded(tmp_path, "dart", linearisation=dart.Linearisation.tags)
    assert tags["test"][0].input == "<H> H <R> birth place <T> I J" and len(tags["eval"]) == 2
    task = load_group("task", "dart")
    assert task.sizes() == {"train": 62659, "eval": 2721, "test": 4159}
    task.grouping = dart.Grouping.entry
    assert task.sizes() == {"train": 62659, "eval": 2768, "test": 5097}
    assert "dev: 1 texts are empty, as in the release." in task.notices(splits)


def test_a_version_of_dart_that_is_known_by_git_s_names_alone_is_read_if_it_is_that(tmp_path: Path) -> None:
    corpora.write_dart(tmp_path / "dart")
    task = load_group("task", "dart_2020")
    assert task.sizes() is None and task.entries == {}
    with pytest.raises(MissingInputError, match=r"git calls it [0-9a-f]{40}, expected 66d6ce4aeb5d.*\n.*task=dart\."):
        task.load(str(tmp_path), "none")
    names = {"train": "train", "eval": "dev", "test": "test"}
    files = {split: tmp_path / "dart" / f"dart-v1.1.1-full-{name}.json" for split, name in names.items()}
    task.blobs = {split: blob_names(path.read_bytes())[0] for split, path in files.items()}
    plain = task.load(str(tmp_path), "none")
    files["test"].write_bytes(files["test"].read_bytes() + b"\r\n")
    with pytest.raises(MissingInputError, match="is another file than the one of this version"):
        task.load(str(tmp_path), "none")
    assert [len(plain[split]) for split in plain] == [2, 2, 1]


def test_git_s_names_do_not_depend_on_line_ends() -> None:
    """`git hash-object` prints the first of a file with the lines a and b."""
    unix, windows = blob_names(b"a\nb\n"), blob_names(b"a\r\nb\r\n")
    assert unix[0] == "422c2b7ab3b3c668038da977e4e93a5fc623169c" and unix[0] in windows and windows[0] in unix


def test_samsum_keeps_turns_and_its_one_empty_chat(tmp_path: Path) -> None:
    task = made(tmp_path, "samsum")
    splits = task.load(str(tmp_path), "none")
    turns = "Ann: hi\nBob:\n\nAnn: bye"
    assert seen(splits["train"]) == [(turns, ["They greet."]), ("", ["problem"]), ("C: x", ["X."])]
    assert [example.id for example in splits["train"]] == ["1", "13828807", "2-1"]
    assert "The chat 13828807 is empty, as in the release, and stays in." in task.notices(splits)
    assert "dev: 1 of the inputs are in train too, so not new." in task.notices(splits)


@pytest.mark.parametrize("name", ["e2e", "e2e_csv", "samsum", "webnlg", "dart", "wikisql"])
def test_byte_order_marks_and_line_ends_change_nothing(tmp_path: Path, name: str) -> None:
    task = made(tmp_path, name)
    plain = task.load(str(tmp_path), "none")
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert task.load(str(tmp_path), "none") == plain


@pytest.mark.parametrize(("old", "new"), [("b and c", "b or c"), ("No.", "Nr.")])
def test_other_rows_or_columns_of_wikisql_have_another_digest_in_the_record(tmp_path: Path, old: str, new: str) -> None:
    """The digest of the task is of the questions, and queries are run on the tables."""
    task = made(tmp_path, "wikisql")
    assert task.unchecked == ("train", "eval", "test")
    splits = task.load(str(tmp_path), "none")
    before = [task.sha256_of(splits, split) for split in ("eval", "test")]
    path = task.place("eval", str(tmp_path), "none").path.with_suffix(".tables.jsonl")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    for same in ("train", "test"):  # the tables of all splits have the same names here
        beside = task.place(same, str(tmp_path), "none").path.with_suffix(".tables.jsonl")
        beside.write_text(path.read_text())
    splits = task.load(str(tmp_path), "none")
    after = [task.sha256_of(splits, split) for split in ("eval", "test")]
    assert all(one != other for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("name", [*WRITERS])
def test_other_texts_than_declared_are_refused_though_as_many(tmp_path: Path, name: str) -> None:
    task = made(tmp_path, name)
    path = task.place("eval", str(tmp_path), "none").path
    content = path.read_text(encoding="utf-8")
    for old, new in ((" is ", " was "), ("say", "said"), ("How", "But how")):
        content = content.replace(old, new)
    path.write_text(content, encoding="utf-8")
    with pytest.raises(MissingInputError, match=r"hold other texts than declared \(sha256 [0-9a-f]{64}, expected"):
        task.load(str(tmp_path), "none")


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "message"),
    [
        ("e2e", "valid.txt", "||B !", "|B !", r"valid\.txt, line 2: 1 fields, and there are 2 columns"),
        ("e2e", "valid.txt", "||B !", "||B||!", r"valid\.txt, line 2: 3 fields"),
        ("e2e", "valid.txt", "||B !", "|| ", r"valid\.txt, line 2: there is no text"),
        ("e2e", "valid.txt", "name : B", "name B", r"line 2: is no meaning of E2E \(found: name B \| area"),
        ("e2e", "valid.txt", "name : B | area : riverside||B ! \n", "", r"it has 2 entries, and e2e has 3 there"),
        ("e2e", "train.txt", None, None, r"no file train\.txt: looked for .*e2e/train\.txt, .*lora_txt/train\.txt"),
        ("e2e_csv", "devset.csv", "mr,ref", "meaning,ref", r"devset\.csv: there is no column 'mr'"),
        ("e2e_csv", "devset.csv", "name[B], area[riverside]", "name[B] area", r"line 3: is no meaning of E2E"),
        ("e2e_csv", "devset.csv", '"A, a pub. "', '"A, a pub.', r"line 2: the quotes of the row .* are not balanced"),
        ("e2e_csv", "devset.csv", ",B!", ",B!,C", r"line 3: 3 fields, and there are 2 columns"),
        ("webnlg", "dev.json", '"entries"', '"entry"', r"dev\.json: there is no 'entries' \(found: entry\)"),
        ("webnlg", "dev.json", '"2": ', '"4": ', r"dev\.json, entry 2: there is no '2' \(found: 4\)"),
        ("webnlg", "dev.json", '"lex": "m"', '"lex": " "', r"entry 2: has no text, or an empty one"),
        ("webnlg", "dev.json", '"object": "N"', '"object": 5', r"entry 2: must be a subject, .*\['M', 'in', 5\]"),
        ("webnlg", "dev.json", '"lexicalisations": [', '"lexicalisations": 3, "x": [', r"must be a list \(found: 3\)"),
        ("webnlg", "dev.json", "]}", "]", r"dev\.json, line 1: is not JSON"),
        ("dart", "dart-v1.1.1-full-dev.json", '"IS", "G"', '"IS"', r"entry 2: must be a subject, .*\['F', 'IS'\]"),
        ("dart", "dart-v1.1.1-full-dev.json", '"text": "F is G."', '"words": ""', r"entry 2: there is no 'text'"),
        ("dart", "dart-v1.1.1-full-dev.json", '"text": "F is G."', '"text": null', r"must be a text \(found: None"),
        ("dart", "dart-v1.1.1-full-dev.json", '"tripleset": [["F", "IS", "G"]]', '"tripleset": []', r"no triple or"),
        ("samsum", "val.json", '"dialogue": "Ann', '"dialogs": "Ann', r"entry 1: there is no 'dialogue'"),
        ("samsum", "val.json", "They say hi.", " ", r"entry 1: the summary is empty \(id '3'\)"),
        ("samsum", "train.json", '"13828807"', '"5"', r"entry 2: the dialogue is empty \(id '5'\)"),
        ("samsum", "train.json", '"2-1"', '"1"', r"entry 3: the id '1' names an earlier entry too"),
        ("samsum", "val.json", "[{", '{"a": {', r"val\.json"),
        ("wikisql", "dev.jsonl", '"1-1", "question": "What', '"1-2", "question": "What', r"there is no table 1-2"),
        ("wikisql", "dev.jsonl", '"sel": 2', '"sel": 4', r"line 1: is no query of a table with 4 columns"),
        ("wikisql", "dev.jsonl", '[1, 1, "3"]', "[1, 1]", r"line 2: is no query of a table"),
        ("wikisql", "dev.jsonl", '[1, 1, "3"]', '[1, 3, "3"]', r"line 2: is no query of a table"),
        ("wikisql", "dev.jsonl", '"agg": 1', '"agg": "MAX"', r"line 1: is no query of a table"),
        ("wikisql", "dev.tables.jsonl", '"text"]', '"text", "real"]', r"is no table with as many types as columns"),
        ("wikisql", "dev.tables.jsonl", '"b and c"]', '"b", "c"]', r"a row of the table has not 4 cells"),
        ("wikisql", "dev.tables.jsonl", '"b and c"]', '["b and c"]]', r"each a text, .* 1-1; found: .*\['b and c'\]"),
        ("wikisql", "dev.tables.jsonl", None, None, r"there is no dev\.tables\.jsonl beside it.*\n.*task=wikisql_mlx"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused_with_their_place(
    tmp_path: Path, name: str, file: str, old: str | None, new: str | None, message: str
) -> None:
    task = made(tmp_path, name)
    path = tmp_path / WRITERS[name][0] / file
    if old is None or new is None:
        path.unlink()
    else:
        content = path.read_text(encoding="utf-8")
        assert old in content
        path.write_text(content.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(MissingInputError, match=message) as error:
        task.load(str(tmp_path), "none")
    assert "paths.data=DIR" in str(error.value)


def test_a_test_file_without_texts_is_not_taken_for_one_with(tmp_path: Path) -> None:
    """The release has testdata_no_lex.xml beside testdata_with_lex.xml."""
    entry = (
        '<entry category="City" eid="Id1"><modifiedtripleset><mtriple>a | b | c</mtriple></modifiedtripleset></entry>'
    )
    corpora.write_text(tmp_path, {"test.xml": f"<benchmark><entries>{entry}</entries></benchmark>", "bad.xml": "<a>"})
    task = load_group("task", "webnlg")
    with pytest.raises(InputError, match=r"entry 1: has no text, .* one with texts \(with_lex\)"):
        task.read(tmp_path / "test.xml")
    with pytest.raises(InputError, match=r"bad\.xml: is no XML"):
        task.read(tmp_path / "bad.xml")
    with pytest.raises(InputError, match="there is no XML file in it"):
        task.read(tmp_path / "nothing") if (tmp_path / "nothing").mkdir() is None else None


@pytest.mark.parametrize("name", [*WRITERS])
def test_files_are_found_by_any_of_their_folders(tmp_path: Path, name: str) -> None:
    folder, write = WRITERS[name]
    write(tmp_path / folder)
    task = declared(name, tmp_path)
    splits = task.load(str(tmp_path), "none")
    assert task.load(str(tmp_path / folder), "none") == splits
    write(tmp_path / "cache" / "data" / name)
    assert task.load(None, str(tmp_path / "cache")) == splits
    with pytest.raises(MissingInputError, match=rf"paths\.data: there is no folder {tmp_path}/no"):
        task.load(str(tmp_path / "no"), "none")


@pytest.mark.parametrize("name", NAMES)
def test_each_corpus_declares_what_it_holds(name: str) -> None:
    task = load_group("task", name)
    task.check()
    assert task.all_splits == ("train", "eval", "test")
    left_out = {each.name for each in fields(type(task)) if not each.metadata.get("in_id", True)}
    assert left_out <= {*type(task).fixed} and len(left_out) > 7
    assert set(task.checked) <= set(task.entries) and (task.checked or task.blobs)


def test_options_change_the_id_and_the_files_do_not() -> None:
    base = ["model=tiny_llama", "task=webnlg", "task.max_new_tokens=20"]
    ids = [
        run_id(resolve(compose_quickly([*base, *more])).run)
        for more in ([], ["task.linearisation=authors"], ["task.linearisation=tags"], ["task.with_marked=true"])
    ]
    assert ids[0] == ids[1] and len(set(ids)) == 3
    for override in ("task.folders=[x]", "task.files.train=[x]", "task.entries.train=3", "task.checked=[]"):
        with pytest.raises(InputError, match=r"task\.\w+: belongs to task=webnlg and cannot be overridden"):
            resolve(compose_quickly([*base, override]))


def test_nothing_is_known_of_a_corpus_that_no_hub_has() -> None:
    with pytest.raises(MissingInputError, match=r"task e2e: no file train\.txt") as error:
        load_group("task", "e2e").fetch("none")
    assert "hub" not in str(error.value) and "task=e2e_csv" in str(error.value)


REAL = {
    "e2e": {"train": (42061, 42061), "eval": (547, 4672), "test": (630, 4693)},
    "e2e_csv": {"train": (42061, 42061), "eval": (547, 4672), "test": (630, 4693)},
    "webnlg": {"train": (18025, 18025), "eval": (870, 2258), "test": (1862, 4928)},
    "dart": {"eval": (2721, 6980), "test": (4159, 12552)},
    "samsum": {"train": (14732, 14732), "eval": (818, 818), "test": (819, 819)},
    "wikisql_mlx": {"train": (1000, 1000), "eval": (100, 100), "test": (100, 100)},
}
"""Examples and texts. The entries behind them, which the data's own README counts, are held when they are read."""


def real(name: str) -> tuple[CorpusConfig, str]:
    """Returns a task and the folder of the real data, which has no train file of DART: dev stands in for it."""
    data, task = os.environ.get("LORA_REPRO_REAL_DATA"), load_group("task", name)
    try:
        task.place("eval", data, "none")
    except MissingInputError:
        pytest.skip(f"LORA_REPRO_REAL_DATA names no folder with {name}")
    if name == "dart":
        for key in ("files", "entries", "references"):
            getattr(task, key)["train"] = getattr(task, key)["eval"]
    return task, str(data)


@pytest.mark.parametrize("name", REAL)
def test_the_real_files_hold_what_their_readme_counts(name: str) -> None:
    task, data = real(name)
    splits = task.load(data, "none")
    found = {split: (len(of), sum(len(example.target) for example in of)) for split, of in splits.items()}
    assert {split: found[split] for split in REAL[name]} == REAL[name]
    if name != "dart":
        assert {split: n for split, (n, _) in found.items()} == task.sizes()


def test_the_real_forms_of_e2e_and_of_webnlg_are_the_same() -> None:
    authors, release = (task.load(data, "none") for task, data in (real("e2e"), real("e2e_csv")))
    assert inputs(authors) == inputs(release)
    task, data = real("webnlg")
    from_json = task.load(data, "none")
    task.files = {split: names[1:] for split, names in task.files.items()}
    assert task.load(data, "none") == from_json
    parts = [webnlg.part_of(example) for example in from_json["test"]]
    assert (parts.count("seen"), parts.count("unseen")) == (971, 891)


def test_dart_s_own_grouping_has_as_many_examples_as_the_release_has_entries() -> None:
    task, data = real("dart")
    assert isinstance(task, dart.DartConfig)
    task.grouping = dart.Grouping.entry
    assert [len(of) for of in task.load(data, "none").values()][1:] == [2768, 5097]
    dev = Path(data) / "dart" / "dart-v1.1.1-full-dev.json"
    assert load_group("task", "dart_2020").blobs["eval"] in blob_names(dev.read_bytes())


def test_the_json_helpers_say_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps([1]))
    with pytest.raises(InputError, match=r"x\.json, entry 1: must be an object with 'tripleset' \(found: 1\)"):
        load_group("task", "dart").read(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(InputError, match=r"x\.json: must hold a list of entries \(found: \[\]\)"):
        load_group("task", "dart").read(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("")
    with pytest.raises(InputError, match=r"x\.json: the file is empty"):
        load_group("task", "dart").read(tmp_path / "x.json")
