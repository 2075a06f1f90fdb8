"""A system's files and the data sets' are read in all their forms, and what does not fit together is refused."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from analysis.texts import references
from analysis.texts.pairs import CATEGORIES, paired
from analysis.texts.predictions import Predictions, read_predictions
from analysis.texts.references import References, read_references
from lora_repro.config.schema import load_group
from lora_repro.errors import InputError
from lora_repro.tasks.base import subset
from lora_repro.tasks.targets import Example

RIGHT = [["a pub .", "the pub"], ["a café", "un “café”", "x"], ["y|z"]]
MEANINGS = ["name[A]", "name[B], area[C]", "name[D]"]
TRIPLES = [[("A", "is", "pub")], [("B", "is", "café"), ("B", "in", "C")], [("D", "is", "E")]]
KINDS = ["Food", "Artist", "Food"]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return path


def webnlg(folder: Path) -> Path:
    entries = [
        {
            str(i): {
                "category": kind,
                "xml_id": f"Id{i}",
                "modifiedtripleset": [{"subject": s, "property": p, "object": o} for s, p, o in triples],
                "lexicalisations": [
                    *({"comment": "good", "lex": text} for text in texts), {"comment": "bad", "lex": "wrong"},
                ],
            }
        }
        for i, (kind, triples, texts) in enumerate(zip(KINDS, TRIPLES, RIGHT, strict=True), 1)
    ]  # fmt: skip
    return write(folder / "test.json", json.dumps({"entries": entries}, indent=1))


def xml(folder: Path) -> Path:
    entries = "".join(
        f'<entry category="{kind}" eid="Id{i}"><originaltripleset><otriple>?</otriple></originaltripleset>'
        + "<modifiedtripleset>"
        + "".join(f"<mtriple>{' | '.join(each)}</mtriple>" for each in triples)
        + "</modifiedtripleset>"
        + "".join(f'<lex comment="good" lid="Id1">{text}</lex>' for text in texts)
        + '<lex comment="toFix" lid="Id9">wrong</lex></entry>'
        for i, (kind, triples, texts) in enumerate(zip(KINDS, TRIPLES, RIGHT, strict=True), 1)
    )
    return write(
        folder / "test.xml",
        f'<?xml version="1.0" encoding="UTF-8"?><benchmark><entries>{entries}</entries></benchmark>',
    )


def dart(folder: Path) -> Path:
    entries = [
        {"tripleset": triples, "annotations": [{"source": "x", "text": text} for text in texts]}
        for triples, texts in zip(TRIPLES, RIGHT, strict=True)
    ]
    return write(folder / "dart.json", json.dumps([{"subtree_was_extended": False, **entries[0]}, *entries[1:]]))


def numbered(folder: Path, end: str = "\n") -> Path:
    for i in range(3):
        lines = [texts[i] if len(texts) > i else "" for texts in RIGHT]
        write(folder / "refs" / f"reference{i}", "\n".join(lines) + end)
    return folder / "refs"


def table(folder: Path) -> Path:
    rows = "".join(
        f'"{meaning}","{text}"\r\n' for meaning, texts in zip(MEANINGS, RIGHT, strict=True) for text in texts
    )
    return write(folder / "refs.csv", f"\ufeffMR,ref\r\n{rows}")


def blocks(folder: Path) -> Path:
    return write(folder / "refs.txt", "\n\n".join("\n".join(texts) for texts in RIGHT) + "\n\n")


def authors(folder: Path) -> Path:
    lines = [f"{meaning}||{text} " for meaning, texts in zip(MEANINGS, RIGHT, strict=True) for text in texts]
    return write(folder / "test.txt", "\n".join([*lines[:2], lines[-1], *lines[2:-1]]) + "\n")


FORMS = [
    webnlg,
    xml,
    lambda folder: xml(folder).parent,
    dart,
    numbered,
    lambda folder: numbered(folder) / "reference",
    table,
    blocks,
]


@pytest.mark.parametrize("form", FORMS)
def test_references_are_the_same_in_every_form(form, tmp_path: Path) -> None:
    found = read_references(form(tmp_path))
    assert [example.references for example in found.examples] == RIGHT
    pairs = paired(read_predictions(write(tmp_path / "out.txt", "1\n\n3\n")), found)
    assert pairs.texts == ["1", "", "3"] and pairs.references == RIGHT and pairs.places[2] == "line 3"


def test_the_authors_form_of_e2e_is_grouped_by_meaning_wherever_its_rows_stand(tmp_path: Path) -> None:
    found = read_references(authors(tmp_path))
    assert [example.references for example in found.examples] == [RIGHT[0], RIGHT[2], RIGHT[1]]


def test_empty_lines_behind_the_authors_form_change_nothing_and_one_text_is_one_reference(tmp_path: Path) -> None:
    found = read_references(write(tmp_path / "refs.txt", "name[A]||A is a pub\nname[B]||B is a bar\n\n\n"))
    assert [(each.input, each.references) for each in found.examples] == [
        ("name[A]", ["A is a pub"]),
        ("name[B]", ["B is a bar"]),
    ]
    alone = read_references(write(tmp_path / "refs.json", '[{"references": "the cat"}, {"references": ["a", "b"]}]'))
    assert [each.references for each in alone.examples] == [["the cat"], ["a", "b"]]


def test_a_reference_a_line_needs_no_empty_lines(tmp_path: Path) -> None:
    found = read_references(write(tmp_path / "refs.txt", "a\nb\n"))
    assert [example.references for example in found.examples] == [["a"], ["b"]]


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_newline_at_the_end_of_a_file_is_no_line(end: str, tmp_path: Path) -> None:
    out = write(tmp_path / "out.txt", f"1\n2\u2028\x852\n3{end}")
    right = write(tmp_path / "refs" / "reference0", f"a\nb\nc{end}")
    write(tmp_path / "refs" / "reference1", f"a\n\nc{end}")
    pairs = paired(read_predictions(out), read_references(right.parent))
    assert pairs.texts == ["1", "2\u2028\x852", "3"] and pairs.references == [["a", "a"], ["b"], ["c", "c"]]
    (note,) = pairs.notes
    assert note.endswith("refs: 1 of 3 examples have an empty line in some of 2 files, which is no reference.")


def test_empty_lines_at_the_end_are_refused_with_what_they_do_to_the_official_script(tmp_path: Path) -> None:
    """The authors' decoded files end METEOR of GenerationEval so: github.com/microsoft/LoRA, issue 138."""
    right, out = read_references(numbered(tmp_path)), write(tmp_path / "out.txt", "1\n2\n3\n\n")
    with pytest.raises(InputError) as refused:
        paired(read_predictions(out), right)
    assert "has 4 texts" in str(refused.value) and "has 3 examples" in str(refused.value)
    assert "Remove what follows line 3, which is empty." in str(refused.value)
    assert "METEOR then ends with 'test and reference not same length'" in str(refused.value)
    with pytest.raises(InputError, match=r"reference0, line 4: is empty in all of reference0 to reference2.\n.*METEOR"):
        read_references(numbered(tmp_path, "\n\n"))


def test_texts_of_a_table_find_their_references_by_their_meanings(tmp_path: Path) -> None:
    rows = [("name[D]", "3"), ("name[A]", "1 Â£5 cafÃ©"), ("name[B], area[C]", "2")]
    out = write(tmp_path / "out.csv", "mr,output\n" + "".join(f'"{mr}","{text}"\n' for mr, text in rows))
    pairs = paired(read_predictions(out), read_references(table(tmp_path)))
    assert pairs.texts == ["3", "1 £5 café", "2"]  # mended as measure_scores.py mends tables
    assert pairs.references == [RIGHT[2], RIGHT[0], RIGHT[1]]
    tsv = write(tmp_path / "out.tsv", "System Output\tMR\n1\tname[A]\n2\tname[B], area[C]\n3\tname[D]\n")
    assert paired(read_predictions(tsv), read_references(table(tmp_path))).references == RIGHT


def test_examples_with_one_input_are_one_where_there_are_as_many_texts(tmp_path: Path) -> None:
    """The authors' gpt2_decode.py makes 4,159 of the 5,097 entries of DART's test file."""
    entries = [
        {"tripleset": [["A", prop, "B"]], "annotations": [{"source": "x", "text": text}]}
        for prop, text in (("IS", "1"), ("has", "2"), ("is", "3"))
    ]
    right = read_references(write(tmp_path / "dart.json", json.dumps(entries)))
    alone = paired(read_predictions(write(tmp_path / "three.txt", "x\ny\nz\n")), right)
    assert alone.references == [["1"], ["2"], ["3"]]
    assert "each of 3 examples has a text of its own, and 2 inputs differ" in alone.notes[0]
    merged = paired(read_predictions(write(tmp_path / "two.txt", "x\ny\n")), right)
    assert merged.references == [["1", "3"], ["2"]]
    assert "3 examples have 2 different inputs" in merged.notes[0]


def test_seen_and_unseen_categories_are_chosen_from_all_texts_or_given_alone(tmp_path: Path) -> None:
    right, every = read_references(webnlg(tmp_path)), read_predictions(write(tmp_path / "out.txt", "1\n2\n3\n"))
    pairs = {name: paired(every, right, name) for name in CATEGORIES}
    assert (pairs["all"].texts, pairs["seen"].texts, pairs["unseen"].texts) == (["1", "2", "3"], ["1", "3"], ["2"])
    assert pairs["seen"].references == [RIGHT[0], RIGHT[2]] and pairs["seen"].places == ["line 1", "line 3"]
    alone = paired(read_predictions(write(tmp_path / "unseen.txt", "2\n")), right, "unseen")
    assert (alone.texts, alone.references) == (["2"], [RIGHT[1]])
    with pytest.raises(InputError, match=r"--categories seen: .*names no such category"):
        paired(every, read_references(dart(tmp_path)), "seen")


def with_marked_json(folder: Path) -> Path:
    entries = json.loads(webnlg(folder).read_text())["entries"]
    bad = {"category": "Artist", "xml_id": "Id9", "lexicalisations": [{"comment": "toFix", "lex": "wrong"}] * 2}
    bad["modifiedtripleset"] = [{"subject": "X", "property": "is", "object": "Y"}]
    of_each = [*(of for entry in entries for of in entry.values())]
    numbered = [{str(i): of} for i, of in enumerate([of_each[0], bad, *of_each[1:]], 1)]
    return write(folder / "dev.json", json.dumps({"entries": numbered}))


def with_marked_xml(folder: Path) -> Path:
    bad = (
        '<entry category="Artist" eid="Id9"><modifiedtripleset><mtriple>X | is | Y</mtriple></modifiedtripleset>'
        '<lex comment="toFix" lid="Id1">wrong</lex></entry>'
    )
    first, *others = xml(folder).read_text().split("</entry>")
    return write(folder / "dev.xml", "</entry>".join([first, bad.removesuffix("</entry>"), *others]))


@pytest.mark.parametrize("form", [with_marked_json, with_marked_xml])
def test_an_entry_whose_texts_are_all_marked_does_not_count_with_or_without_a_text_for_it(form, tmp_path: Path) -> None:
    """As one of the 872 of WebNLG's dev."""
    right = read_references(form(tmp_path))
    for lines, unseen in ((["1", "x", "2", "3"], ["x", "2"]), (["1", "2", "3"], ["2"])):
        written = read_predictions(write(tmp_path / "out.txt", "".join(f"{line}\n" for line in lines)))
        pairs = paired(written, right)
        assert (pairs.texts, pairs.references) == (["1", "2", "3"], RIGHT)
        assert pairs.places == [f"line {lines.index(text) + 1}" for text in pairs.texts]
        (note,) = pairs.notes
        assert note.endswith("1 of 4 entries do not count, as all of their texts are marked as to be fixed (entry 2).")
        alone = read_predictions(write(tmp_path / "alone.txt", "".join(f"{line}\n" for line in unseen)))
        for of in (written, alone):
            found = paired(of, right, "unseen")
            assert (found.texts, found.references) == (["2"], [RIGHT[1]])
    sources = [example.input for example in right.examples]
    by_source = written._replace(texts=["1", "x", "2", "3"], sources=sources, places=["a", "b", "c", "d"])
    assert (paired(by_source, right).texts, paired(by_source, right).places) == (["1", "2", "3"], ["a", "c", "d"])
    assert paired(by_source, right).references == RIGHT
    with pytest.raises(InputError, match=r"has 5 texts, and .* has 3 examples"):
        paired(by_source._replace(texts=["1"] * 5, sources=None), right)


def test_a_file_whose_texts_are_all_marked_has_no_reference(tmp_path: Path) -> None:
    path = webnlg(tmp_path)
    path.write_text(path.read_text().replace('"good"', '"toFix"'))
    with pytest.raises(InputError, match="entry 1: there is no reference"):
        read_references(path)


def test_json_holds_texts_with_line_breaks(tmp_path: Path) -> None:
    texts = ["a\nb", "", "c"]
    as_list = write(tmp_path / "out.json", json.dumps(texts))
    as_lines = write(
        tmp_path / "out.jsonl", "".join(json.dumps({"id": 1, "prediction": text}) + "\n" for text in texts)
    )
    assert read_predictions(as_list).texts == read_predictions(as_lines).texts == texts
    assert read_predictions(as_lines).places == ["line 1", "line 2", "line 3"]


OBJECT = {"sel": 0, "agg": 3, "conds": [[1, 0, "x"]]}


def test_wikisqls_files_are_read_as_objects_and_as_sql(tmp_path: Path) -> None:
    official = write(tmp_path / "dev.jsonl", json.dumps({"phase": 1, "question": "?", "sql": OBJECT}) + "\n")
    text = "table: 1\ncolumns: a\nQ: ?\nA: SELECT COUNT a FROM t"
    mlx = write(tmp_path / "mlx.jsonl", json.dumps({"text": text}) + "\n")
    out = write(tmp_path / "out.jsonl", json.dumps({"query": OBJECT}) + "\n")
    failed = write(tmp_path / "failed.jsonl", json.dumps({"error": "no"}) + "\n")
    sql = write(tmp_path / "out.txt", "select count a from t\n")
    pairs = paired(read_predictions(out), read_references(official))
    assert json.loads(pairs.texts[0]) == json.loads(pairs.references[0][0]) == OBJECT
    assert paired(read_predictions(failed), read_references(official)).texts == [""]
    assert paired(read_predictions(sql), read_references(mlx)).references == [["SELECT COUNT a FROM t"]]
    for written, right, said in ((sql, official, "names columns"), (out, mlx, "numbers columns")):
        with pytest.raises(InputError, match=rf"{written.name}, line 1: {said} .*{right.name}, line 1, "):
            paired(read_predictions(written), read_references(right), are_queries=True)
    with pytest.raises(InputError, match="line 1: is no query of WikiSQL"):
        read_references(write(tmp_path / "bad.jsonl", json.dumps({"sql": "DROP TABLE t"})))


def test_texts_of_many_examples_find_their_references_in_no_time() -> None:
    """The numbers of those that count were collected anew for each of them: half a minute of 20,000."""
    count = 20_000
    places = [f"line {number}" for number in range(count)]
    right = References("refs", [references.Example([place], place) for place in places], [])
    began = time.process_time()
    pairs = paired(Predictions("out", places, places), right)
    assert pairs.references == [[place] for place in places] and time.process_time() - began < 5


@pytest.mark.parametrize("more", [{}, {"text": "Below is an instruction.\n\n### Response:\nb"}])
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_of_instructions_the_output_is_the_reference(suffix: str, more: dict[str, str], tmp_path: Path) -> None:
    """As files have them, and as the hub's tatsu-lab/alpaca has them."""
    rows = [{"instruction": "a", "input": "", "output": f" b {i}\n"} | more for i in range(2)]
    lines = [json.dumps(row) for row in rows]
    content = "\n".join(lines) if suffix == "jsonl" else f"[{','.join(lines)}]"
    found = read_references(write(tmp_path / f"alpaca.{suffix}", content))
    assert [example.references for example in found.examples] == [["b 0"], ["b 1"]]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("out.txt", "1\n2\n", "has 2 texts, and .*refs.csv has 3 examples"),
        ("out.txt", "1\n\n2\n3\n", "The first empty text is at line 2"),
        ("out.txt", "1\n2\n2b\n3\n", "A text with line breaks is several here"),
        ("out.txt", "", "out.txt: the file is empty"),
        ("out.txt", " \n", "has 1 texts, and .* has 3 examples"),
        ("none.txt", None, "none.txt: No such file"),
        ("out.json", '["a", 3]', "out.json, entry 2: is no text .found: 3"),
        ("out.json", '{"a": 1}', "must hold a list"),
        ("out.json", '["a",\n"b"', "line 2: is not JSON"),
        ("out.jsonl", '{"answer": "a"}', "out.jsonl, line 1: has none of the keys prediction, .*found: answer"),
        ("out.csv", "mr,answer\nx,y\n", "no column called output, out, system_output"),
        ("out.csv", 'mr,output\n"name[X]",y\n', r"out.csv, line 2: there is no reference for it in .*name\[X\]"),
        ("out.csv", "mr,output\nname[A],y\nname[A],z\n", "line 3: has the same meaning as line 2"),
        ("out.csv", "mr,output\nname[A],y\nname[D],z\n", r"refs.csv, line 4: there is no text .*name\[B\].*0 others"),
        ("out.csv", "mr,output\nname[A],y,z\n", "line 2: 3 fields, and there are 2 columns"),
    ],
)  # fmt: skip
def test_texts_that_do_not_fit_are_refused_with_their_place(
    name: str, content: str | None, said: str, tmp_path: Path
) -> None:
    if content is not None:
        write(tmp_path / name, content)
    with pytest.raises(InputError, match=said):
        paired(read_predictions(tmp_path / name), read_references(table(tmp_path)))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("refs.txt", b"a\n\n\nb\n", "refs.txt, line 3: a second empty line"),
        ("refs.txt", b"a\nb\xff\n", "refs.txt, line 2: is not UTF-8"),
        ("refs.csv", b"mr,text\na,b\n", "no column called ref, reference, human"),
        ("refs.json", b'[{"a": 1}]', "no references that are known here"),
        ("refs.json", b'{"entries": [{"1": {"category": "Food"}}]}', "entry 1: there is no 'modifiedtripleset'"),
        ("refs.json", b'[{"tripleset": [], "annotations": []}]', "refs.json, entry 1: has no triple or no text"),
        ("refs.json", b'[{"text": "a"}]', "no references that are known here"),
        ("refs.json", b'[{"text": "Q: a\\nA: SELECT b FROM c"}, {"text": "a"}]', "refs.json, row 2: is no query of W"),
        ("refs.json", b'[{"output": "a"}, {"output": " "}]', "refs.json, row 2: output must be a text"),
        ("refs.json", b'[{"references": []}]', "refs.json, row 1: there is no reference"),
        ("refs.json", b'[{"summary": "a"}, {"id": 3}]', "refs.json, row 2: there is no 'summary'"),
        ("refs.json", b'[{"summary": ["a"]}]', "refs.json, row 1: summary must be a text"),
        ("refs.json", b'[{"references": {"a": 1}}]', "refs.json, row 1: references must be a list of texts"),
        ("refs.csv", b"mr,ref,Refs\na,b,c\n", "the columns ref, Refs mean the same"),
        ("refs.txt", b"x||a\nb\n", r"refs.txt, line 2: has no \|\| as line 1 has"),
        ("refs.xml", b"<a>", "refs.xml: is no XML"),
        ("refs.xml", b"<a/>", "refs.xml: has no example"),
("refs.xml", b'<a><entry category="x" eid="1"/></a>', "refs.xml, entry 1: there is no triple"),
        ("refs/reference1", b"a\n", "reference0 is missing among 1 files"),
        ("refs/other", b"a\n", "is a folder without a file reference0"),
    ],
)  # fmt: skip
def test_references_that_are_none_are_refused_with_their_place(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_references(path if path.parent == tmp_path else path.parent)


def test_reference_files_of_different_lengths_are_refused(tmp_path: Path) -> None:
    folder = numbered(tmp_path)
    write(folder / "reference2", "a\nb\n")
    with pytest.raises(InputError, match="reference2: has 2 lines, and reference0 has 3"):
        read_references(folder)
    write(folder / "all-reference0.lex", "a\n")
    with pytest.raises(InputError, match=r"several sets of references .all-reference0.lex, reference0."):
        read_references(folder)


def test_texts_that_are_all_empty_count_as_such(tmp_path: Path) -> None:
    right = read_references(write(tmp_path / "refs.json", json.dumps([["a b", "c"], "d", ["e"]])))
    assert [example.references for example in right.examples] == [["a b", "c"], ["d"], ["e"]]
    assert paired(read_predictions(write(tmp_path / "out.txt", "\n\n\n")), right).texts == [""] * 3


@pytest.mark.parametrize("wrong", ['[["a"], []]', '[["a"], [3]]', '[["a"], [" "]]'])
def test_a_list_of_references_has_texts(wrong: str, tmp_path: Path) -> None:
    if wrong == '[["a"], []]':
        with pytest.raises(InputError, match="entry 2: there is no reference"):
            read_references(write(tmp_path / "refs.json", wrong))
        return
    with pytest.raises(InputError, match="entry 2: must be a text, or a list of texts"):
        read_references(write(tmp_path / "refs.json", wrong))


def test_of_the_official_test_files_the_whole_one_is_read_and_no_entry_counts_twice(tmp_path: Path) -> None:
    """Read in the order of their names the part would come first, and its references would count twice."""
    text = xml(tmp_path / "made").read_text()
    folder = tmp_path / "test"
    for name in ("testdata_unseen_with_lex.xml", "testdata_with_lex.xml"):
        write(folder / name, text)
    alone = read_references(folder / "testdata_with_lex.xml")
    assert read_references(folder).examples == alone.examples
    (folder / "testdata_with_lex.xml").rename(folder / "other.xml")
    with pytest.raises(InputError, match=r"entry 1: is in .* too, with the same texts, and would count twice"):
        read_references(folder)


def test_the_texts_of_a_run_are_those_that_it_wrote_last_for_test(tmp_path: Path) -> None:
    rows = [
        (split, epoch, f"{split}-{i}", f"{split} {epoch} {i}", ["a"])
        for split in ("eval", "test")
        for epoch in (1, 2)
        for i in range(3)
    ]
    columns = ["split", "epoch", "id", "prediction", "references"]
    pd.DataFrame(rows, columns=columns).to_parquet(tmp_path / "predictions.parquet")
    for given in (tmp_path, tmp_path / "predictions.parquet"):
        written = read_predictions(given)
        assert written.texts == ["test 2 0", "test 2 1", "test 2 2"] and "for test after epoch 2" in str(written.note)
    pd.DataFrame(rows, columns=columns).drop(columns="references").to_parquet(tmp_path / "predictions.parquet")
    with pytest.raises(InputError, match="holds no texts beside their references"):
        read_predictions(tmp_path)


def of_run(folder: Path, examples: Sequence[Example]) -> Path:
    """Writes the record of a run whose every text is a reference of its example."""
    rows = [("test", 1, each.id, each.target[-1], list(each.target)) for each in examples]
    columns = ["split", "epoch", "id", "prediction", "references"]
    folder.mkdir()
    pd.DataFrame(rows, columns=columns).to_parquet(folder / "predictions.parquet")
    return folder


def test_texts_of_a_run_stand_beside_their_own_references_whatever_the_order_of_its_examples(tmp_path: Path) -> None:
    task = load_group("task", "restaurants")
    whole = task.load(None, str(tmp_path))["test"]
    drawn = subset({"test": whole}, task)["test"]
    assert [each.id for each in drawn] != [each.id for each in whole]
    right = read_references(write(tmp_path / "refs.json", json.dumps([list(each.target) for each in whole])))
    pairs = paired(read_predictions(of_run(tmp_path / "run", drawn)), right)
    assert len(pairs.texts) == len(whole) and all(
        text in refs for text, refs in zip(pairs.texts, pairs.references, strict=True)
    )
    few = paired(read_predictions(of_run(tmp_path / "few", drawn[:7])), right)
    assert few.texts == [each.target[-1] for each in drawn[:7]]
    assert f"{len(whole) - 7:,} of its examples are not the run's" in few.notes[-1]
    other = drawn[0]._replace(target=["another text"])
    with pytest.raises(InputError, match=f"example {other.id}: no example of .* has its references alone"):
        paired(read_predictions(of_run(tmp_path / "other", [other, *drawn[1:]])), right)
    twice = [*drawn, drawn[0]]  # more texts for one example than there are
    with pytest.raises(InputError, match=r"no example of .* has its references alone"):
        paired(read_predictions(of_run(tmp_path / "twice", twice)), right)


def test_ids_tell_which_text_is_whose(tmp_path: Path) -> None:
    rows = [{"id": f"n{i}", "dialogue": "x", "summary": f"text {i}"} for i in range(4)]
    right = read_references(write(tmp_path / "test.json", json.dumps(rows)))
    texts = [{"id": row["id"], "prediction": row["summary"]} for row in reversed(rows)]
    pairs = paired(read_predictions(write(tmp_path / "out.json", json.dumps(texts))), right)
    assert [[text] for text in pairs.texts] == pairs.references
    for wrong, message in (
        ([*texts[:3], texts[0]], "entry 4: has the id of entry 1 .n3."),
        ([*texts[:3], {"id": "n9", "prediction": "a"}], "entry 4: .* has no example with its id .n9."),
        (texts[:3], "there is no text for its id"),
    ):
        with pytest.raises(InputError, match=message):
            paired(read_predictions(write(tmp_path / "out.json", json.dumps(wrong))), right)
    without = [{"prediction": each["prediction"]} for each in texts]
    in_order = paired(read_predictions(write(tmp_path / "out.json", json.dumps(without))), right)
    assert in_order.texts == [each["prediction"] for each in texts]


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("refs.jsonl", '{"references": ["a b", ""]}\n', "line 1"),
        ("refs.jsonl", '{"summary": " "}\n', "line 1"),
        ("refs.csv", "mr,ref\nname[A],a b\nname[A],\n", "line 3"),
        ("refs.txt", "name : A||a b\nname : B||\n", "line 2"),
    ],
)
def test_a_reference_of_no_words_is_refused(name: str, content: str, place: str, tmp_path: Path) -> None:
    """BLEU takes it for one of length 0: of two texts it made 100 of 33.59."""
    with pytest.raises(InputError, match=place):
        read_references(write(tmp_path / name, content))
