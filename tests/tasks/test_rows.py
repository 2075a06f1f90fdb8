"""Files to rows: what is read is what stands there, and what does not fit is named with its line."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from lora_repro.errors import InputError, MissingInputError
from lora_repro.tasks.rows import Format, Rows, format_of, read_rows


def read(content: str | bytes, format: Format = Format.csv, **options: Any) -> Rows:
    content = content.encode() if isinstance(content, str) else content
    return read_rows(content, f"mine.{format.value}", format, **options)


def as_parquet(columns: dict[str, list[Any]]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(columns), sink)
    return sink.getvalue().to_pybytes()


def test_values_are_texts_as_they_stand() -> None:
    rows = read("text,label\nNA,007\nNone,1.0\nnull, 1\nnan,\n")
    assert rows.columns == {"text": ["NA", "None", "null", "nan"], "label": ["007", "1.0", " 1", ""]}


def test_quoted_fields_hold_delimiters_quotes_and_line_breaks() -> None:
    rows = read('text,label\n"a, ""b""\nand\r\nc",1\nd,2\n\ne,3')
    assert rows["text"] == ['a, "b"\nand\r\nc', "d", "e"]
    assert [rows.place(i) for i in range(3)] == ["mine.csv, line 2", "mine.csv, line 5", "mine.csv, line 7"]


def test_without_quotes_each_line_is_a_row_and_quotes_are_text() -> None:
    content = '\ufeffQuality\t#1 String\t#2 String\n1\the said "\t" The pie business\r\n0\ta\u2028b\x85c\t"d"\n'
    rows = read(content, Format.tsv, quotes=False)
    assert list(rows.columns) == ["Quality", "#1 String", "#2 String"]
    assert rows["Quality"] == ["1", "0"]
    assert rows["#1 String"] == ['he said "', "a\u2028b\x85c"]
    assert rows["#2 String"] == ['" The pie business', '"d"']


def test_a_file_without_a_header_takes_given_names() -> None:
    rows = read(
        "gj04\t1\t\tThe sailors rode.\ngj04\t0\t*\tThe rode.\n", Format.tsv, columns=["source", "label", "mark", "s"]
    )
    assert rows["label"] == ["1", "0"] and rows["mark"] == ["", "*"] and rows["s"][0] == "The sailors rode."
    assert list(rows.lines) == [1, 2]


def test_a_tsv_file_in_which_quotes_matter_asks_what_they_mean() -> None:
    content = 'text\tlabel\na "b"\t1\n"c ""d"""\t0\n'
    with pytest.raises(InputError, match=r"mine\.tsv, line 3: a field begins with a quote.*\n.*task\.quotes=false"):
        read(content, Format.tsv)
    assert read(content, Format.tsv, quotes=True)["text"] == ['a "b"', 'c "d"']
    assert read(content, Format.tsv, quotes=False)["text"] == ['a "b"', '"c ""d"""']


def test_all_formats_give_the_same_rows(tmp_path: Path) -> None:
    columns = {"text": ["é, \n☃", "b"], "label": ["x", "y"]}
    lines = "\n".join(json.dumps(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True))
    listed = json.dumps([json.loads(line) for line in lines.split("\n")], indent=1)
    for content, format in (
        ('label,text\nx,"é, \n☃"\ny,b\n', Format.csv),
        (lines, Format.jsonl),
        (lines, Format.json),
        (listed, Format.json),
        (as_parquet(columns), Format.parquet),
    ):
        assert read(content, format, only=["text", "label"]).columns == columns
    (tmp_path / "a.jsonl").write_text(lines)
    assert read_rows(tmp_path / "a.jsonl", "a.jsonl", Format.jsonl).columns == columns


def test_another_encoding_is_read_when_named_and_refused_with_its_line_when_not() -> None:
    content = "text,label\ngood,1\ncafé,2\n".encode("cp1252")
    with pytest.raises(InputError, match=r"mine\.csv, line 3: is not in utf-8 .*\n.*task\.encoding=cp1252"):
        read(content)
    assert read(content, encoding="cp1252")["text"] == ["good", "café"]
    with pytest.raises(InputError, match=r"task\.encoding=utf-16"):
        read("text,label\na,1".encode("utf-16"))
    assert read("text,label\na,1".encode("utf-16"), encoding="utf-16").columns == {"text": ["a"], "label": ["1"]}


def test_a_byte_order_mark_is_no_part_of_the_first_name() -> None:
    for encoding in ("utf-8", "utf-8-sig", "UTF8"):
        assert list(read("\ufefftext,label\na,1\n", encoding=encoding).columns) == ["text", "label"]
    assert list(read('\ufeff{"text": 1}', Format.jsonl).columns) == ["text"]


def test_a_long_text_is_read_whole() -> None:
    assert len(read(f'text,label\n"{"a" * 200_000}",1\n')["text"][0]) == 200_000


def test_only_the_wanted_columns_are_kept() -> None:
    assert list(read("a,b,c\n1,2,3\n", only=["c", "a"]).columns) == ["c", "a"]


def test_an_index_without_a_name_is_no_column() -> None:
    assert read(",text,label,\n0,a,x,\n").columns == {"text": ["a"], "label": ["x"]}


def test_parquet_keeps_kinds_of_values() -> None:
    rows = read(as_parquet({"text": ["a", None], "label": [1, 2], "score": [0.5, None]}), Format.parquet)
    assert rows.columns == {"text": ["a", None], "label": [1, 2], "score": [0.5, None]}
    assert rows.place(1) == "mine.parquet, row 2"


@pytest.mark.parametrize(
    ("content", "format", "options", "message"),
    [
        ("", Format.csv, {}, r"mine\.csv: the file is empty"),
        ("\ufeff \n", Format.csv, {}, "empty but for white space"),
        ("text,label\n", Format.csv, {}, r"there is a header \(text, label\) and no row"),
        ("text,label\na,1\nb,c,2\n", Format.csv, {}, r"line 3: 3 fields, and there are 2 columns \(text, label\)"),
        ("text,label\n\na\n", Format.csv, {}, "line 3: 1 fields"),
        ("text\tlabel\na\tb\t1\n", Format.tsv, {}, r"line 2: 3 fields.*\n.*\n.*task\.quotes=true"),
        ("text,label,text\na,1,b\n", Format.csv, {}, "two columns are called 'text'"),
        ("text,lable\na,1\n", Format.csv, {"only": ["label"]}, r"no column 'label'\. Did you mean 'lable'\?"),
        ("a,b\n1,2\n", Format.csv, {"only": ["c"]}, r"no column 'c'.*\n.*\n.*task\.header=\[a,b\]"),
        ("a,b\n1,2\n", Format.csv, {"columns": ["a", "b"]}, "line 1: the first row has the names of the columns"),
        ("text;label\na;1\n", Format.csv, {"only": ["text"]}, r"give \"task\.delimiter=';'\""),
        ('text,label\na,1\n"b,2\nc,3\n', Format.csv, {}, r"line 3: the quotes .* not balanced"),
        ('text,label\n"b" c,2\n', Format.csv, {}, r"line 2: the quotes .* not balanced"),
        ("text,label\na,1\nb\0,2\n", Format.csv, {}, "line 3: holds a NUL character"),
        ("text,label\na,1\n", Format.csv, {"encoding": "utf8mb4"}, r"task\.encoding: Python knows no 'utf8mb4'"),
        ("text,label\na,1\n", Format.csv, {"encoding": "base64"}, r"task\.encoding: Python knows no 'base64'"),
        ('{"a": 1}\n{"a": }\n', Format.jsonl, {}, r"line 2: is not JSON"),
        ('{"a": 1}\n\n[1]\n', Format.jsonl, {}, r"line 3: must be an object .*found: \[1\]"),
        ('{"a": 1, "b": 2}\n{"a": 1}\n', Format.jsonl, {}, r"line 2: there is no 'b', which the first row has"),
        ('{"a": 1}\n{"a": 1, "c": 2}\n', Format.jsonl, {}, r"line 2: there is a 'c'"),
        ('{"a": 1}\n{"a": 1, "a": 2}\n', Format.jsonl, {}, r"line 2: an object has the key 'a' twice"),
        ("[]", Format.json, {}, "the list is empty"),
        ('[{"a": 1},\n {"a" 2}]', Format.json, {}, "line 2: is not JSON"),
        ('[{"a": 1}, 7]', Format.json, {}, "row 2: must be an object"),
        ('{"a": ' + "[" * 100_000, Format.jsonl, {}, "nested too deeply|is not JSON"),
        ("no parquet", Format.parquet, {}, "is no Parquet file that can be read"),
        (as_parquet({"a": []}), Format.parquet, {}, r"there are columns \(a\) and no row"),
        (as_parquet({"a": [1]}), Format.parquet, {"only": ["b"]}, "no column 'b'"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_with_its_line(
    content: str | bytes, format: Format, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(content, format, **options)


def test_extra_keys_do_not_matter_where_columns_are_chosen() -> None:
    assert read('{"a": 1}\n{"a": 2, "c": 2}\n', Format.jsonl, only=["a"]).columns == {"a": [1, 2]}


def test_a_task_without_options_advises_none() -> None:
    with pytest.raises(InputError) as refused:
        read("text,label\na\n", has_options=False)
    assert "task." not in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"none\.csv: No such file"):
        read_rows(tmp_path / "none.csv", "none.csv", Format.csv)


@pytest.mark.parametrize(("name", "format"), [("a.CSV", Format.csv), ("train-00000-of-2.parquet", Format.parquet)])
def test_the_name_says_the_format(name: str, format: Format) -> None:
    assert format_of(name) is format


def test_a_name_that_says_no_format_is_refused() -> None:
    with pytest.raises(InputError, match=r"a\.xlsx: its name does not say.*\n.*task\.format"):
        format_of("a.xlsx")


@pytest.mark.parametrize("first", [0, 1])
def test_an_optional_column_is_that_of_any_object(first: int, tmp_path: Path) -> None:
    entries = ['{"a": 1}', '{"a": 2, "b": 3, "c": 4}']
    path = tmp_path / "mine.jsonl"
    path.write_text(f"{entries[first]}\n{entries[1 - first]}\n")
    rows = read_rows(path, "mine", Format.jsonl, only=["a"], optional=["b", "d"])
    assert rows.columns == {"a": [[1, 2], [2, 1]][first], "b": [[None, 3], [3, None]][first]}
