"""WikiSQL's queries by their logical form: as texts, and as the objects of the official files."""

import json
from typing import Any

import pytest

from lora_repro.tasks.text_metrics.wikisql import LogicalForm, logical_form, logical_form_of, match_in_any_case


def form(column: str, aggregator: str = "", *conditions: tuple[str, str, str]) -> LogicalForm:
    return LogicalForm(column, aggregator, frozenset(conditions))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT Nationality FROM 1-10-16 WHERE Player = 'Ross'", form("nationality", "", ("player", "=", "ross"))),
        ("select  nationality\nfrom table  where PLAYER='ross' ;", form("nationality", "", ("player", "=", "ross"))),
        ("SELECT COUNT School/Club Team FROM t", form("school/club team", "count")),
        ("SELECT count( School/Club Team ) FROM t", form("school/club team", "count")),
        ("SELECT AVG FROM FROM table WHERE A = 3", form("from", "avg", ("a", "=", "3"))),
        ("SELECT MAX FROM t", form("max")),
        (
            "SELECT a FROM t WHERE b > 3 AND c < '4.0' AND d = x y",
            form("a", "", ("d", "=", "x y"), ("b", ">", "3"), ("c", "<", "4.0")),
        ),
        ("SELECT a FROM t WHERE title = 'Romeo AND Juliet' AND b = 1",
         form("a", "", ("title", "=", "romeo and juliet"), ("b", "=", "1"))),
        ("SELECT a FROM t WHERE title = Romeo and Juliet AND b = 1",
         form("a", "", ("title", "=", "romeo and juliet"), ("b", "=", "1"))),
        ("SELECT who FROM t WHERE you and I = 'x'", form("who", "", ("you and i", "=", "x"))),
        ("SELECT a FROM t WHERE b = 'O'Brien' AND c = 'O''Brien'",
         form("a", "", ("b", "=", "o'brien"), ("c", "=", "o'brien"))),
        ("SELECT a FROM t WHERE title = \"Crash\"", form("a", "", ("title", "=", '"crash"'))),
        ("SELECT a FROM t WHERE b = ''", form("a", "", ("b", "=", ""))),
        ("SELECT a FROM t WHERE b = Größe", form("a", "", ("b", "=", "größe"))),
        ("", None),
        ("SELECT a", None),
        ("SELECT a FROM t WHERE b", None),
        ("DROP TABLE t", None),
        ("SELECT a FROM t WHERE", None),
    ],
)  # fmt: skip
def test_a_query_is_read(query: str, expected: LogicalForm | None) -> None:
    assert logical_form_of(query) == expected


def sql(sel: Any, agg: Any, *conds: list[Any]) -> str:
    return json.dumps({"sel": sel, "agg": agg, "conds": list(conds)})


def test_objects_of_the_official_files_are_compared_as_wikisqls_evaluation_does() -> None:
    """The order of conditions means nothing, nor does the case of a value or whether a number is written as a text."""
    right = [[sql(3, 2, [5, 0, "Butler CC (KS)"], [1, 1, 3])]]
    assert logical_form([sql(3, 2, [1, 1, "3"], [5, 0, "butler cc (ks)"])], right) == 1
    for other in (sql(2, 2, [1, 1, 3], [5, 0, "butler cc (ks)"]), sql(3, 0, [1, 1, 3], [5, 0, "butler cc (ks)"]),
                  sql(3, 2, [1, 1, 3]), sql(3, 2, [1, 2, 3], [5, 0, "butler cc (ks)"]),
                  sql(3, 2, [1, 1, 3.0], [5, 0, "butler cc (ks)"])):  # fmt: skip
        assert logical_form([other], right) == 0
    for broken in (
        "{",
        "{}",
        sql(3, 9),
        sql("a", 0),
        sql(-1, 0),
        sql(1, 0, [1, 7, "x"]),
        sql(1, 0, [1, -1, "x"]),
        sql(1, 0, [1]),
    ):
        assert logical_form_of(broken) is None and logical_form([broken], right) == 0


def test_matches_by_hand() -> None:
    right = ["SELECT a FROM t WHERE b = 'X' AND c > 1"]
    written = [right[0].lower(), "SELECT a FROM t WHERE c > 1 AND b = 'X'", "SELECT a FROM t", ""]
    assert logical_form(written, [right] * 4) == 0.5
    assert match_in_any_case(written, [right] * 4) == 0.25
    assert logical_form(["SELECT a FROM t"], [[*right, "SELECT a FROM other"]]) == 1


def test_a_reference_that_is_no_query_is_refused() -> None:
    with pytest.raises(ValueError, match=r"example 2 is no query of WikiSQL .given: 'a b'"):
        logical_form(["x", "x"], [["SELECT a FROM t"], ["a b"]])
