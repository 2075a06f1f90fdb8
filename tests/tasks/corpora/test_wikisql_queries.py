"""WikiSQL's queries as text: the logical form, and what they return, as the official script has it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from helpers import corpora
from helpers.corpora import declared

from lora_repro.config.schema import load_group
from lora_repro.errors import InputError, MissingInputError
from lora_repro.tasks.corpora import wikisql
from lora_repro.tasks.corpora.wikisql_queries import (
    AGGREGATES,
    OPERATORS,
    Condition,
    Header,
    Query,
    Reference,
    Sql,
    execution,
    logical_form,
    parsed,
    returned,
    run,
    written,
)
from lora_repro.tasks.evaluate_metric import TaskMetric
from lora_repro.tasks.rows import Format, read_rows
from lora_repro.tasks.targets import Example
from lora_repro.tasks.text_metrics.wikisql import logical_form_of

TABLE = Header(
    "1-1",
    ("Player", "No.", "Max points", "points", "Years from start", "points and more"),
    (False, True, True, False, True, False),
    (
        ("Terrence Ross", 31, 7, "a", 3, "x"),
        ("Amir Johnson", 15, 9.5, "b and c", 1, "y and points = 'z'"),
        ("John O'Neal", 3, "1,200", "A", 2, '"Hell"'),
    ),
)


def query(select: int, aggregate: str = "", *conditions: tuple[int, str, str]) -> Query:
    found = tuple(Condition(column, OPERATORS.index(operator), value) for column, operator, value in conditions)
    return Query(select, AGGREGATES.index(aggregate), found)


QUERIES = [
    (query(0), "SELECT Player FROM 1-1"),
    (query(0, "COUNT", (1, ">", "3")), "SELECT COUNT Player FROM 1-1 WHERE No. > 3"),
    (query(2, "MAX"), "SELECT MAX Max points FROM 1-1"),
    (query(3, "MIN", (0, "=", "john o'neal")), "SELECT MIN points FROM 1-1 WHERE Player = 'john o'neal'"),
    (
        query(0, "", (3, "=", "b and c"), (1, "<", "30.5")),
        "SELECT Player FROM 1-1 WHERE points = 'b and c' AND No. < 30.5",
    ),
    (query(4, "AVG", (4, ">", "1")), "SELECT AVG Years from start FROM 1-1 WHERE Years from start > 1"),
    (
        query(0, "", (5, "=", "y and points = 'z'"), (3, "=", "b and c")),
        "SELECT Player FROM 1-1 WHERE points and more = 'y and points = 'z'' AND points = 'b and c'",
    ),
]


@pytest.mark.parametrize(("asked", "text"), QUERIES)
def test_a_query_is_written_and_read_again(asked: Query, text: str) -> None:
    assert written(asked, TABLE, Sql.quoted) == text
    release = written(asked, TABLE, Sql.release)
    assert "'1" not in release and " FROM table" in release
    if "points and more" not in text:  # whose value reads as two conditions without quotes
        assert parsed(release, TABLE) == parsed(text, TABLE) == asked
        assert parsed(f" {text.upper()} ; ", TABLE) == asked
        assert logical_form_of(release) == logical_form_of(text)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("SELECT Player FROM 1-1 WHERE points = 'A'", [("terrence ross",), ("john o'neal",)]),
        ("SELECT COUNT Player FROM 1-1 WHERE No. > 3", [(2,)]),
        ("SELECT MAX Max points FROM 1-1", [(1200.0,)]),
        ("SELECT No. FROM 1-1 WHERE Player = 'John O'Neal'", [(3.0,)]),
        ("SELECT Player FROM 1-1 WHERE No. = 'no. 15 of them'", [("amir johnson",)]),  # the first number counts
        ("SELECT Player FROM 1-1 WHERE Max points > '1,100'", [("john o'neal",)]),
        # Two conditions on one column: the official script binds both to the last value (dbengine.py, where_map).
        ("SELECT Player FROM 1-1 WHERE No. > 3 AND No. < 30", [("amir johnson",)]),
        ("SELECT Player FROM 1-1 WHERE points and more = '\"hell\"'", [("john o'neal",)]),
        ("SELECT Player FROM 1-1 WHERE points and more = 'hell'", []),
        ("SELECT Player FROM 1-1 WHERE No. = 'none'", None),
        ("SELECT Height FROM 1-1", None),
        ("SELECT SUM Height FROM 1-1", None),
        ("SELECT Player FROM 1-1 WHERE Height = 3", None),
        ("SELECT Player FROM 1-1 WHERE No. LIKE 3", None),
        ("SELECT Player FROM 1-1 WHERE No. = 3 OR No. = 4", None),
        ("DROP TABLE asked", None),
        ("", None),
    ],
)
def test_a_query_returns_what_the_official_script_finds(text: str, rows: list[tuple[Any, ...]] | None) -> None:
    found = returned(text, TABLE)
    assert (found if found is None else sorted(found)) == (rows if rows is None else sorted(rows))


@pytest.mark.parametrize("number", [10**20, -(10**20), 2**63, 2**63 - 1, 10**400])
def test_whole_numbers_of_any_size_stand_in_a_table(number: int) -> None:
    """SQLite takes none beyond 64 bits: the run ended when its texts were first scored."""
    table = Header("4-1", ("Name", "Number"), (False, True), ((number, number), ("x", 1)))
    for text in (f"SELECT Name FROM t WHERE Number = {number}", f"SELECT Name FROM t WHERE Name = '{number}'"):
        assert returned(text, table) == [(str(number),)]
    assert returned("SELECT COUNT Name FROM t WHERE Number = 1", table) == [(1,)]


def test_execution_counts_equal_rows_and_no_failures() -> None:
    reference = ["SELECT Player FROM 1-1 WHERE No. > 3 AND No. < 30"]
    predictions = ["SELECT Player FROM table WHERE Max points = 9.5", "SELECT Player FROM 1-1", "", reference[0]]
    assert execution(predictions, [reference] * 4, [TABLE] * 4) == 0.5
    assert logical_form(predictions, [reference] * 4, [TABLE] * 4) == 0.25
    turned = "select player from t where no. < 30 AND no. > 3"
    assert logical_form([turned], [reference], [TABLE]) == 1
    both = "SELECT No. FROM 1-1 WHERE {} AND {}"
    conditions = ("points and more = 'a'", "Player = 'b'")
    assert logical_form([both.format(*conditions)], [[both.format(*conditions[::-1])]], [TABLE]) == 1
    assert execution(["x"], [["SELECT Player FROM 1-1 WHERE No. = 'none'"]], [TABLE]) == 0
    for given in (([], [], []), (["a"], [["b"]], []), (["a"], [["b"], ["c"]], [TABLE])):
        with pytest.raises(ValueError, match="needs one prediction and one table for each"):
            execution(*given)


ODD = Header(
    "3-1",
    ("Points", "Max Points", "", "Name", "name"),
    (True, True, True, False, False),
    ((1, 50, 7, "it''s", "x"), (2, 40, 8, "it's", "y")),
)


@pytest.mark.parametrize(
    ("asked", "text", "others"),
    [  # what else the text could mean, each another query of the release
        (query(0, "MAX"), "SELECT MAX Points FROM 3-1", ["SELECT MAX Max Points FROM 3-1", "SELECT Points FROM 3-1"]),
        (query(2), "SELECT  FROM 3-1", ["SELECT Points FROM 3-1"]),
        (query(0, "", (3, "=", "it''s")), "SELECT Points FROM 3-1 WHERE Name = 'it''s'", ["SELECT Points FROM 3-1"]),
        (query(0, "", (3, "=", "it''s"), (2, "=", "7")), "SELECT Points FROM 3-1 WHERE Name = 'it''s' AND  = 7", []),
        (query(4, "", (0, "=", "2")), "SELECT name FROM 3-1 WHERE Points = 2", ["SELECT Name FROM 3-1"]),
    ],
)
def test_a_reference_is_the_query_of_the_release_and_not_what_its_text_reads_as(
    asked: Query, text: str, others: list[str]
) -> None:
    reference = Reference.of(asked, ODD, Sql.quoted)
    assert reference == text and returned(reference, ODD) == run(asked, ODD) != returned(str(text), ODD)
    for measure in (logical_form, execution):
        assert measure([text.lower()], [[reference]], [ODD]) == 1
        assert [measure([other], [[reference]], [ODD]) for other in others] == [0] * len(others)


def test_the_task_gives_schema_and_question_and_asks_for_the_query(tmp_path: Path) -> None:
    corpora.write_wikisql(tmp_path / "wikisql")
    task = declared("wikisql", tmp_path)
    splits = task.load(str(tmp_path), "none")
    assert [(example.input, example.target) for example in splits["eval"]] == [
        (
            "table: 1-1\ncolumns: Player, No., Max points, points\nQ: What is the most?",
            ["SELECT MAX Max points FROM 1-1"],
        ),
        *[
            (
                "table: 1-1\ncolumns: Player, No., Max points, points\nQ: How many?",
                ["SELECT COUNT Player FROM 1-1 WHERE No. > 3 AND No. < 30.0"],
            )
        ]
        * 2,
    ]
    assert [example.id for example in splits["eval"]] == ["eval-0", "eval-1", "eval-2"]
    assert splits["test"][0].target == ["SELECT No. FROM 1-1 WHERE points = 'B and C'"]
    assert {example.document for of in splits.values() for example in of} == {"1-1"}
    predictions = ["select max max points from 1-1", "SELECT COUNT No. FROM 1-1 WHERE No. = 15", ""]
    assert task.targets.evaluate(splits["eval"], predictions) == pytest.approx(
        {"logical_form": 1 / 3, "execution": 2 / 3, "exact_match": 0, "match_in_any_case": 1 / 3}
    )
    assert [metric.name for metric in task.targets.metrics] == [
        "logical_form", "execution", "exact_match", "match_in_any_case",
    ]  # fmt: skip
    assert isinstance(splits["test"][0].target[0], Reference)
    task.sql = Sql.release
    assert task.load(str(tmp_path), "none")["test"][0].target == ["SELECT No. FROM table WHERE points = B and C"]
    unknown = [Example("a", "", ["SELECT a FROM b"], "9-9")]
    with pytest.raises(MissingInputError, match="the table 9-9 was not read"):
        task.targets.evaluate(unknown, [""])
    metric = TaskMetric("wikisql", task.targets)
    assert metric.compute(predictions=["SELECT a FROM b"], references=[["select A from b"]]) == {
        "logical_form": 1.0, "exact_match": 0.0, "match_in_any_case": 1.0,
    }  # fmt: skip


def test_what_cannot_be_run_is_told_before_training(tmp_path: Path) -> None:
    sql = {"sel": 0, "agg": 0, "conds": [[1, 0, "none"]]}
    nothing = {"sel": 0, "agg": 0, "conds": [[1, 0, 99]]}
    corpora.write_wikisql(tmp_path / "wikisql")
    lines = [{"table_id": "1-1", "question": "q", "sql": each} for each in (sql, nothing)]
    (tmp_path / "wikisql" / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = declared("wikisql", tmp_path)
    assert task.notices(task.load(str(tmp_path), "none"))[-1] == (
        "test: 1 of 2 references cannot be run, so that no query is right; 1 return no row, which wrong queries often "
        "do too."
    )


LINE = "table: 1-1\ncolumns: a, b, c\nQ: what?\nA: SELECT a FROM 1-1"


def test_the_part_in_mlx_examples_is_text(tmp_path: Path) -> None:
    task = load_group("task", "wikisql_mlx")
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": LINE.replace("what?", "what?\u00a0 ")}) + "\n")
    assert task.read(tmp_path / "x.jsonl")[0][1:3] == (("1-1", "what?", "a, b, c"), ("SELECT a FROM 1-1",))
    for wrong in ("table: 1\nQ: x\nA: y", LINE.replace("A: ", "B: "), LINE.replace("SELECT", "select-"), 5, None):
        (tmp_path / "x.jsonl").write_text(json.dumps({"text": wrong}) + "\n")
        with pytest.raises(InputError, match=r"x\.jsonl, line 1: must hold the lines 'table: '"):
            task.read(tmp_path / "x.jsonl")
    task.sql = Sql.release
    with pytest.raises(InputError, match=r"task\.sql: wikisql_mlx has its queries as text"):
        task.check()


def official(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Compares two queries as lib/query.py of the release does, without regard to the order of conditions."""
    conditions = [{(column, op, str(value).lower()) for column, op, value in sql["conds"]} for sql in (one, other)]
    return (one["sel"], one["agg"]) == (other["sel"], other["agg"]) and conditions[0] == conditions[1]


@pytest.mark.parametrize("name", ["dev", "test"])
def test_the_logical_form_of_real_queries_agrees_with_the_official_script(name: str) -> None:
    """Each query against the next ones about its table, with made-up names of columns, as the real ones are absent."""
    path = Path(os.environ.get("LORA_REPRO_REAL_DATA", "nowhere")) / "wikisql" / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip("LORA_REPRO_REAL_DATA names no folder with WikiSQL")
    rows = read_rows(path, path.name, Format.jsonl, only=["table_id", "question", "sql"])
    names = [tuple(f"Column {word} {i}" for i in range(60)) for word in ("and", "number")]
    odd, plain = (Header("t", columns, (False,) * 60) for columns in names)
    forms = []
    for sql in rows["sql"]:
        conditions = tuple(Condition(column, op, " ".join(str(value).split())) for column, op, value in sql["conds"])
        query = Query(sql["sel"], sql["agg"], conditions)
        found = parsed(written(query, odd, Sql.quoted), odd)
        assert found is not None
        forms.append((found[:2], {*found.conditions}, logical_form_of(written(query, plain, Sql.quoted))))
    equal = 0
    for i, of in enumerate(rows["table_id"]):
        for j in range(i, min(i + 4, len(rows))):
            if rows["table_id"][j] == of:
                same = official(rows["sql"][i], rows["sql"][j])
                assert (forms[i][:2] == forms[j][:2]) == (forms[i][2] == forms[j][2]) == same, (i, j)
                equal += same
    assert equal > len(rows)


def test_real_parts_of_mlx_examples_are_the_official_queries() -> None:
    """The first hundred of dev and of test, but for columns whose names hold a comma."""
    data = Path(os.environ.get("LORA_REPRO_REAL_DATA", "nowhere")) / "wikisql"
    if not (data / "mlx_lora").is_dir():
        pytest.skip("LORA_REPRO_REAL_DATA names no folder with WikiSQL")
    task, same, total = load_group("task", "wikisql_mlx"), 0, 0
    for ours, theirs in (("valid", "dev"), ("test", "test")):
        rows = read_rows(data / f"{theirs}.jsonl", theirs, Format.jsonl, only=["table_id", "question", "sql"])
        for row, entry in enumerate(task.read(data / "mlx_lora" / f"{ours}.jsonl")):
            sql, columns = rows["sql"][row], entry.facts[2].split(", ")
            assert entry.facts[0] == rows["table_id"][row]
            real = {column for column, _, value in sql["conds"] if not isinstance(value, str)}
            table = Header(entry.facts[0], tuple(columns), tuple(i in real for i in range(len(columns))))
            conditions = tuple(Condition(column, op, str(value)) for column, op, value in sql["conds"])
            total += 1
            if max([sql["sel"], *(each.column for each in conditions)]) < len(columns):
                text = written(Query(sql["sel"], sql["agg"], conditions), table, Sql.quoted)
                same += logical_form_of(text) == logical_form_of(entry.texts[0]) and text == entry.texts[0]
    assert (total, same) == (200, 194)


def test_a_table_that_is_read_again_is_the_newer_one(tmp_path: Path) -> None:
    corpora.write_wikisql(tmp_path / "wikisql")
    task = declared("wikisql", tmp_path)
    task.load(str(tmp_path), "none")
    assert wikisql.HEADERS["1-1"].rows and wikisql.HEADERS["1-1"].columns[0] == "Player"


def test_one_logical_form_is_computed_and_by_the_tables_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference that the text alone does not tell, as a column without a name, ends no run."""
    nameless = Header("2-1", ("", "b"), (False, False))
    monkeypatch.setattr(wikisql, "HEADERS", {"1-1": TABLE, "2-1": nameless})
    unreadable = written(query(1, "", (0, "=", "x")), nameless, Sql.quoted)
    right = "SELECT points FROM 1-1 WHERE Player = 'John O'Neal'"
    examples = [Example("1", "?", [right], "1-1"), Example("2", "?", [unreadable], "2-1")]
    doubled = right.replace("O'N", "O''N")
    targets = wikisql.WikisqlQueries()
    found = targets.evaluate(examples, [doubled, "SELECT b FROM 2-1"])
    assert found["logical_form"] == found["execution"] == 0.5 == targets.score("logical_form", examples, [doubled, ""])
    assert [*found] == [metric.name for metric in targets.metrics]
    assert logical_form_of(doubled) == logical_form_of(right)


def test_a_query_of_many_conditions_is_read_in_no_time() -> None:
    """Each of k conditions doubled the time: 7 s with 23."""
    table = Header("t", ("Year",), (True,))
    asked = " AND ".join(["Year = 1"] * 200)
    found = parsed(f"SELECT Year FROM t WHERE {asked}", table)
    assert found is not None and len(found.conditions) == 200
    assert parsed(f"SELECT Year FROM t WHERE {asked} OR Year = 1", table) is None
