"""The generated task `sql`: what its splits share, and that its questions have the answers that they ask for."""

import re

import pytest
from helpers.quick_compose import compose_quickly

from lora_repro.config.resolve import resolve
from lora_repro.config.schema import load_group
from lora_repro.errors import InputError
from lora_repro.tasks import execution
from lora_repro.tasks.base import Splits
from lora_repro.tasks.execution import opened, result
from lora_repro.tasks.generated import digest
from lora_repro.tasks.sql.queries import KINDS
from lora_repro.tasks.sql.tables import INSTANCES, SHARES, instances, names_of, schema, split_of
from lora_repro.tasks.sql.task import SqlConfig, examples, meaning

SMALL = (("train", 24), ("eval", 6), ("test", 8))


@pytest.fixture(scope="module")
def task() -> SqlConfig:
    return load_group("task", "sql")


@pytest.fixture(scope="module")
def splits() -> Splits:
    return examples(SMALL)


def test_no_two_splits_share_a_table_its_columns_or_a_meaning(splits: Splits) -> None:
    refuse_what_is_shared(splits)


def test_the_draws_are_the_same_on_every_machine(splits: Splits) -> None:
    names = dict.fromkeys(example.document for part in splits.values() for example in part)
    assert digest([splits, [instances(name) for name in names]]).startswith("af171e3bcecfc08f")


@pytest.mark.long
def test_the_examples_are_those_that_the_yaml_declares(task: SqlConfig, splits: Splits) -> None:
    """Their digest is compared when they are loaded."""
    found = task.load(None, "")
    assert {split: len(part) for split, part in found.items()} == {"train": 5400, "eval": 270, "test": 540}
    assert found["train"][: len(splits["train"])] == splits["train"]
    refuse_what_is_shared(found)


def refuse_what_is_shared(splits: Splits) -> None:
    meanings = {split: {meaning(example) for example in part} for split, part in splits.items()}
    tables = {split: {example.document for example in part} for split, part in splits.items()}
    columns = {
        split: {(name.partition("_")[0], frozenset(schema(name).columns)) for name in names}
        for split, names in tables.items()
    }
    for one, other in (("train", "eval"), ("train", "test"), ("eval", "test")):
        for found in (meanings, tables, columns):
            assert found[one] and not found[one] & found[other]
    assert all(len({example.input for example in part}) == len(part) for part in splits.values())


def test_other_examples_than_declared_are_refused(task: SqlConfig) -> None:
    other = SqlConfig("sql", "0" * 64, tables=dict(SMALL), prompt=task.prompt, max_new_tokens=task.max_new_tokens)
    with pytest.raises(InputError, match=r"task\.digest: the generated examples have sha256 .* \(given: 0000"):
        other.load(None, "")
    other.tables = {"train": 10_000, "eval": 1, "test": 1}
    with pytest.raises(InputError, match=r"task\.tables: train can have 1 to 960 tables \(given: 10000\)"):
        other.load(None, "")
    with pytest.raises(InputError, match=r"task\.tables: belongs to task=sql and cannot be overridden"):
        resolve(compose_quickly(["model=tiny_llama", "task=sql", "task.tables.train=3"]))


def test_each_table_is_asked_nine_kinds_of_questions(splits: Splits) -> None:
    assert len(KINDS) == 9
    for part in splits.values():
        kinds = [example.id.removeprefix(f"{example.document}-") for example in part]
        assert kinds == [*KINDS] * (len(part) // 9)
    clauses = {
        "and": " AND ", "or": " OR ", "between": " BETWEEN ", "order": " ORDER BY ", "limit": " LIMIT ",
        "group": " GROUP BY ", "count": "COUNT(*)", "where": " WHERE ",
    }  # fmt: skip
    for example in splits["train"]:
        kind = example.id.rpartition("-")[2]
        assert clauses.get(kind, "(") in example.target[0]
        assert kind != "aggregate" or any(
            f"SELECT {name}(" in example.target[0] for name in ("MIN", "MAX", "AVG", "SUM")
        )


def test_the_question_names_what_the_query_needs(splits: Splits) -> None:
    """Each text and number of a query, but 1, stands in the question, and each column in the prompt."""
    words = {"2": "two", "3": "three", "4": "four"}
    for example in splits["test"]:
        query, (_, _, question) = example.target[0], example.text.partition("Question: ")
        for value in query.split("'")[1::2]:
            assert value in re.findall(r"\w+", question), example
        for number in (part for part in query.replace("(", " ").split() if part.isdigit() and part != "1"):
            assert number in question or words[number] in question, example
        assert example.text.startswith(f"{example.document} ({', '.join(schema(example.document).columns)})\n")


def test_every_query_finds_something_on_every_set_of_rows(splits: Splits) -> None:
    for example in splits["eval"]:
        for table in instances(example.document):
            with opened(table) as connection:
                rows = result(connection, example.target[0])
            assert rows and None not in rows[0]


def test_rows_have_one_order_and_differ_between_sets() -> None:
    tables = instances("books_7")
    assert len(tables) == INSTANCES == len({table.rows for table in tables})
    for table in tables:
        for values, column in zip(zip(*table.rows, strict=True), table.columns, strict=True):
            assert len(set(values)) == (len(values) if column.type == "integer" or column.name == "name" else 4)
    assert instances("books_7") == tables and instances("books_43") != tables  # as many columns, other rows


def test_a_table_s_number_says_its_split() -> None:
    assert [split_of(number) for number in (0, 23, 24, 28, 29, 35, 36)] == [
        "train", "train", "eval", "eval", "test", "test", "train",
    ]  # fmt: skip
    names = {split: names_of(split) for split in SHARES}
    assert {split: len(set(of)) for split, of in names.items()} == {"train": 960, "eval": 200, "test": 280}
    assert all(split_of(int(name.partition("_")[2])) == split for split, of in names.items() for name in of)


@pytest.mark.parametrize("name", ["planets_1", "players", "players_x", "players_²", ""])
def test_a_table_that_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="there is no table"):
        schema(name)


def test_another_clause_scores_nothing_and_the_reference_everything(task: SqlConfig, splits: Splits) -> None:
    """A wrong word in each query, as a model may write it: nothing must count that is not asked for."""
    part, wrong = splits["test"], ((" > ", " < "), (" DESC", ""), ("MAX(", "MIN("), (" AND ", " OR "))
    assert task.targets.evaluate(part, [example.target[0] for example in part])["execution"] == 1
    for old, new in wrong:
        changed = [example for example in part if old in example.target[0]]
        queries = [example.target[0].replace(old, new) for example in changed]
        assert changed and execution.execution(queries, [each.target for each in changed], instances) < 0.15, (old, new)
    elsewhere = [example.target[0].replace(example.document, part[0].document) for example in part[9:]]
    assert task.targets.evaluate(part[9:], elsewhere)["execution"] == 0
    assert task.targets.evaluate(part, ["SELECT"] * len(part)) == pytest.approx(
        {"execution": 0, "exact_match": 0, "blind": 0}, abs=0.03
    )


def test_what_is_said_before_training(task: SqlConfig, splits: Splits) -> None:
    assert task.notices(splits) == ["sql is a generated task.", "Examples: train 216, dev 54, test 72."]
