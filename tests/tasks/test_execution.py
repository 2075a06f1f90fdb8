"""Queries that are run: what counts as the right result, and what a query cannot do."""

import time

import pytest

from lora_repro.tasks import execution
from lora_repro.tasks.execution import Column, Table, blind, is_ordered, opened, result
from lora_repro.tasks.queries import Queries
from lora_repro.tasks.targets import Example

FRUIT = Table(
    "fruit",
    (Column("name", "text"), Column("color", "text"), Column("value", "integer"), Column("weight", "real")),
    (("fig", "blue", 5, 0.1), ("kiwi", "green", 7, 0.2), ("lime", "green", 9, 0.3), ("pear", "green", 7, None)),
)
OTHER_ROWS = FRUIT._replace(rows=(("fig", "blue", 5, 0.1), ("plum", "blue", 6, 0.2), ("pear", "green", 7, 0.3)))


def score(prediction: str, reference: str, *tables: Table) -> float:
    return execution.execution([prediction], [[reference]], lambda name: {"fruit": tables or (FRUIT,)}[name])


@pytest.mark.parametrize(
    ("prediction", "reference", "is_right"),
    [
        ("select NAME from fruit where color='green';", "SELECT name FROM fruit WHERE color = 'green'", True),
        ("SELECT name FROM fruit WHERE value > 5", "SELECT name FROM fruit WHERE color = 'green'", True),
        ("SELECT name AS n FROM fruit", "SELECT name FROM fruit", True),
        # Repeated rows count: BIRD's script compares sets (AlibabaResearch/DAMO-ConvAI issue 177).
        ("SELECT DISTINCT value FROM fruit", "SELECT value FROM fruit", False),
        ("SELECT value FROM fruit ORDER BY name DESC", "SELECT value FROM fruit", True),
        ("SELECT value FROM fruit", "SELECT value FROM fruit ORDER BY value DESC", False),
        ("SELECT value FROM fruit ORDER BY value DESC", "SELECT value FROM fruit ORDER BY value DESC", True),
        ("SELECT color, name FROM fruit", "SELECT name, color FROM fruit", False),
        ("SELECT name FROM fruit", "SELECT name, color FROM fruit", False),
        ("SELECT 7.0 FROM fruit LIMIT 1", "SELECT value FROM fruit WHERE name = 'kiwi'", True),
        ("SELECT '7' FROM fruit LIMIT 1", "SELECT value FROM fruit WHERE name = 'kiwi'", False),
        ("SELECT 0.1 + 0.2 FROM fruit LIMIT 1", "SELECT weight FROM fruit WHERE name = 'lime'", True),
        ("SELECT NULL FROM fruit LIMIT 1", "SELECT weight FROM fruit WHERE name = 'pear'", True),
        ("SELECT 0 FROM fruit LIMIT 1", "SELECT weight FROM fruit WHERE name = 'pear'", False),
        ("SELECT name FROM fruit WHERE color = 'green' ", "SELECT name FROM fruit WHERE color = 'red'", False),
        ("", "SELECT name FROM fruit WHERE color = 'red'", False),
        ("-- nothing", "SELECT name FROM fruit WHERE color = 'red'", False),
        ("I do not know", "SELECT name FROM fruit WHERE color = 'red'", False),
        ("SELECT name FROM fruits", "SELECT name FROM fruit", False),
        ("SELECT name FROM fruit WHERE name = 'f\0'", "SELECT name FROM fruit WHERE color = 'red'", False),
        ("SELECT '\ud800' FROM fruit", "SELECT name FROM fruit", False),
        # A column whose name is a word of SQL or of a script (taoyds/test-suite-sql-eval issue 21).
        ("SELECT value FROM fruit", "SELECT value FROM fruit", True),
    ],
)
def test_a_query_is_right_if_it_returns_the_reference_s_rows(prediction: str, reference: str, is_right: bool) -> None:
    assert score(prediction, reference) == is_right


def test_a_query_that_is_right_by_chance_is_told_apart_on_other_rows() -> None:
    prediction, reference = "SELECT name FROM fruit WHERE value > 5", "SELECT name FROM fruit WHERE color = 'green'"
    assert score(prediction, reference) == 1
    assert score(prediction, reference, FRUIT, OTHER_ROWS) == 0
    assert score(reference, reference, FRUIT, OTHER_ROWS) == 1


def test_one_of_several_references_is_enough_on_all_rows() -> None:
    references = [["SELECT COUNT(*) FROM fruit", "SELECT name FROM fruit"]] * 3
    predictions = ["SELECT name FROM fruit", "SELECT COUNT(name) FROM fruit", "SELECT 4 FROM fruit LIMIT 1"]
    assert execution.execution(predictions, references, lambda _: (FRUIT, OTHER_ROWS)) == 2 / 3


@pytest.mark.parametrize(
    "query",
    [
        "DROP TABLE fruit",
        "DELETE FROM fruit",
        "INSERT INTO fruit VALUES ('a', 'b', 1, 2)",
        "UPDATE fruit SET value = 1",
        "CREATE TABLE other (a)",
        "SELECT name FROM fruit; DROP TABLE fruit",
        "PRAGMA query_only = OFF",
        "ATTACH DATABASE '/tmp/never.db' AS other",
        "SELECT load_extension('x') FROM fruit",
        "SELECT random() FROM fruit",
        "SELECT date('now') FROM fruit",
        "SELECT length(zeroblob(1000000000)) FROM fruit",
        "SELECT * FROM pragma_table_info('fruit')",
        "VACUUM INTO '/tmp/never.db'",
    ],
)
def test_a_query_can_only_read(query: str) -> None:
    with opened(FRUIT) as connection:
        assert result(connection, query) is None
        assert len(result(connection, "SELECT * FROM fruit") or []) == 4
        assert result(connection, "PRAGMA query_only") is None
        assert result(connection, "SELECT name FROM sqlite_master") == [("fruit",)]


@pytest.mark.parametrize(
    "query",
    [
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n",
        f"SELECT COUNT(*) FROM {', '.join(f'fruit f{i}' for i in range(16))}",
        f"SELECT f1.name FROM {', '.join(f'fruit f{i}' for i in range(7))}",
        f"SELECT {'(' * 2000}1{')' * 2000} FROM fruit",
        f"SELECT '{'a' * 200_000}' FROM fruit",
        "SELECT replace(replace(replace('aaaaaaaaaa', 'a', 'aaaaaaaaaaaaaaaaaaaa'), 'a', 'aaaaaaaaaaaaaaaaaaaa'),"
        " 'a', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa') FROM fruit",
    ],
    ids=["endless", "many steps", "many rows", "nested", "long", "grows"],
)
def test_a_query_that_would_not_end_is_wrong(query: str) -> None:
    began = time.perf_counter()
    with opened(FRUIT) as connection:
        assert result(connection, query) is None
        assert result(connection, "SELECT COUNT(*) FROM fruit") == [(4,)]
    assert time.perf_counter() - began < 5


def test_what_one_prediction_does_does_not_reach_the_next() -> None:
    reference = ["SELECT COUNT(*) FROM fruit"]
    predictions = ["DROP TABLE fruit", "SELECT COUNT(*) FROM fruit", "BEGIN", "SELECT COUNT(*) FROM fruit"]
    assert execution.execution(predictions, [reference] * 4, lambda _: (FRUIT,)) == 0.5


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT a FROM t ORDER BY a", True),
        ("select a from t order\nby a limit 3", True),
        ("SELECT a FROM t WHERE b = 'first order by mail'", False),
        ("SELECT a FROM t WHERE b = 'it''s (order by'", False),
        ("SELECT a FROM t WHERE b IN (SELECT c FROM u ORDER BY c LIMIT 2)", False),
        ("SELECT a FROM (SELECT 1) ORDER BY a", True),
        ('SELECT "order by" FROM t', False),
    ],
)
def test_the_order_counts_where_the_outermost_query_has_one(query: str, expected: bool) -> None:
    assert is_ordered(query) == expected


def test_the_baseline_is_the_best_query_that_ignores_the_question() -> None:
    tables = {"fruit": (FRUIT,)}.__getitem__
    asked = [["SELECT COUNT(*) FROM fruit"], ["SELECT COUNT(*) FROM fruit"], ["SELECT MAX(value) FROM fruit"]]
    assert blind(asked, tables) == 2 / 3
    assert blind([["SELECT name FROM fruit WHERE color = 'green'"]], tables) == 0
    assert blind([["SELECT SUM(value) FROM fruit"], ["SELECT SUM(value) FROM fruit"]], tables) == 1
    found = Queries(tables).evaluate(
        [Example(str(i), "", references, "fruit") for i, references in enumerate(asked)],
        ["SELECT COUNT(*) FROM fruit", "SELECT  COUNT(*) FROM fruit ", "SELECT 9"],
    )
    assert found == {"execution": 1.0, "exact_match": 2 / 3, "blind": 2 / 3}
    assert [metric.name for metric in Queries(tables).shown] == ["execution", "exact_match"]
    assert Queries(tables).metrics[0].baseline == "blind"


def test_what_cannot_be_scored_is_refused() -> None:
    tables = {"fruit": (FRUIT,)}.__getitem__
    with pytest.raises(ValueError, match="one prediction for each of at least one example"):
        execution.execution([], [], tables)
    with pytest.raises(ValueError, match="given: 1 and 2"):
        execution.execution(["a"], [["SELECT 1 FROM fruit"]] * 2, tables)
    with pytest.raises(ValueError, match="the reference 'SELECT x FROM fruit' cannot be run"):
        execution.execution(["a"], [["SELECT x FROM fruit"]], tables)
    with pytest.raises(ValueError, match="names no table"):
        execution.execution(["a"], [["SELECT 1"]], tables)
    with pytest.raises(ValueError, match="names no table"):
        execution.execution(["a"], [[]], tables)
