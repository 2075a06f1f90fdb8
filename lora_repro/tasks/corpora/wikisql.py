r"""WikiSQL (Zhong et al. 2017): a question about a table of Wikipedia is answered by a query.

One example: "table: 1-10015132-11\ncolumns: Player, No., Nationality, Position, Years in Toronto, School/Club Team\nQ:
How many schools did player number 3 play at?", to be written: "SELECT COUNT School/Club Team FROM 1-10015132-11 WHERE
No. = '3'".

`wikisql` reads the release: train.jsonl, dev.jsonl and test.jsonl with the numbers of columns, and beside each the
tables, train.tables.jsonl and so on, which have the names of the columns and the rows. `wikisql_mlx` reads the public
part in mlx-examples, in which each line holds the columns, the question and the query as text; the rows are missing
there, and nothing is run. The paper gives schema and question too (Appendix C), and tells no more of the format.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from lora_repro.config.identity import NOT_IN_ID
from lora_repro.errors import InputError, MissingInputError, shown
from lora_repro.tasks.base import Splits
from lora_repro.tasks.corpora import wikisql_queries
from lora_repro.tasks.corpora.base import TRAIN, CorpusConfig, Entry, clean, listed
from lora_repro.tasks.corpora.wikisql_queries import (
    Condition,
    Header,
    Query,
    Reference,
    Sql,
    execution,
    header_of,
    returned,
)
from lora_repro.tasks.queries import EXECUTION, SQLITE
from lora_repro.tasks.rows import Format, Rows, read_rows
from lora_repro.tasks.targets import Example, Targets, Texts
from lora_repro.tasks.text_metrics.protocols import WIKISQL
from lora_repro.tasks.text_metrics.wikisql import AGGREGATES, OPERATORS, logical_form_of

HEADERS: dict[str, Header] = {}
"""The tables that were read, by their names: those of dev and test with their rows."""
BY_TABLES = {"logical_form": wikisql_queries.logical_form, "execution": execution}
"""The metrics that need the tables."""
PARTS = ("table: ", "columns: ", "Q: ", "A: ")
"""How the lines of a text in mlx-examples begin."""


@dataclass
class WikisqlConfig(CorpusConfig):
    """Questions with a query each."""

    fixed: ClassVar[tuple[str, ...]] = (*CorpusConfig.fixed, "with_tables")
    one_line: ClassVar[bool] = True

    with_tables: bool = field(default=True, metadata=NOT_IN_ID)
    """Whether there are tables beside the questions, on which queries are run."""
    sql: Sql = Sql.quoted
    """How queries are written."""

    @property
    def targets(self) -> Targets:
        """Queries, compared by their logical form, and run where there are tables."""
        return WikisqlQueries() if self.with_tables else Texts(*WIKISQL.declared)

    @property
    def changes(self) -> list[str]:
        """Of queries as text no reference is compared by anything but its text."""
        return ["references are compared and run as the release has them"] if self.with_tables else []

    def check(self) -> None:
        """Refuses another form of queries where they are given as text.

        Raises:
            InputError: Also as `TextConfig.check` does.
        """
        super().check()
        if not self.with_tables and self.sql is not Sql.quoted:
            raise InputError(
                f"task.sql: {self.name} has its queries as text, in the one form quoted (given: {self.sql.value}).\n"
                "Leave it out, or choose task=wikisql."
            )

    def read(self, path: Path) -> list[Entry]:
        """Reads a file of questions, and the tables beside it."""
        if not self.with_tables:
            rows = read_rows(path, str(path), Format.jsonl, only=["text"], has_options=False)
            return [_of_text(rows, row) for row in range(len(rows))]
        beside = path.with_suffix(".tables.jsonl")
        if not beside.is_file():
            raise InputError(
                f"{path}: there is no {beside.name} beside it, which has the names of the columns.\n"
                "The part of WikiSQL in mlx-examples, which needs no tables, is task=wikisql_mlx."
            )
        columns = ["id", "header", "types", "rows"]
        tables = read_rows(beside, str(beside), Format.jsonl, only=columns, has_options=False)
        for row in range(len(tables)):
            header = _header(tables, row, with_rows=path.name != self.files[TRAIN][0])
            HEADERS[header.name] = header
        rows = read_rows(path, str(path), Format.jsonl, only=["table_id", "question", "sql"], has_options=False)
        return [_of_release(rows, row) for row in range(len(rows))]

    def input_of(self, entry: Entry) -> str:
        """Writes table, columns and question as mlx-examples does."""
        name, question, *_ = entry.facts
        columns = ", ".join(HEADERS[name].columns) if self.with_tables else entry.facts[2]
        return f"table: {name}\ncolumns: {columns}\nQ: {question}"

    def kept(self, entry: Entry) -> tuple[str, ...]:
        """Writes the query."""
        if not self.with_tables:
            return entry.texts
        name, _, select, aggregate, conditions = entry.facts
        query = Query(select, aggregate, tuple(Condition(*each) for each in conditions))
        return (Reference.of(query, HEADERS[name], self.sql),)

    @property
    def unchecked(self) -> tuple[str, ...]:
        """All splits where there are tables, as the digest is of the questions alone."""
        return self.all_splits if self.with_tables else super().unchecked

    def sha256_of(self, splits: Splits, split: str) -> str:
        """Returns a digest of the tables too, on whose rows queries are run."""
        own = super().sha256_of(splits, split)
        if not self.with_tables:
            return own
        tables = [HEADERS[name] for name in sorted({example.document for example in splits[split]})]
        return hashlib.sha256(json.dumps([own, tables]).encode()).hexdigest()

    def key_of(self, entry: Entry) -> Any:
        """Returns the number of the entry: each is scored, even where a question occurs twice."""
        return entry.id

    def document_of(self, entry: Entry, text_in: str) -> str:
        """Returns the table."""
        return entry.facts[0]

    def notices(self, splits: Splits) -> list[str]:
        """Adds how many references cannot be run, or return nothing."""
        found = super().notices(splits)
        for split in self.scored if self.with_tables else ():
            answers = [returned(example.target[0], HEADERS[example.document]) for example in splits[split]]
            failed = sum(rows is None for rows in answers)
            empty = sum(rows is not None and not rows for rows in answers)
            if failed or empty:
                found.append(
                    f"{split}: {failed:,} of {len(answers):,} references cannot be run, so that no query is right; "
                    f"{empty:,} return no row, which wrong queries often do too."
                )
        return found

    def from_hub(self, split: str, rows: Iterable[dict[str, Any]]) -> dict[str, str]:
        """Writes the questions and the tables."""
        questions, tables = [], {}
        for row in rows:
            table, sql = row["table"], row["sql"]
            keys = ("column_index", "operator_index", "condition")
            conditions = [[each[key] for key in keys] for each in listed(sql["conds"])]
            query = {"sel": sql["sel"], "agg": sql["agg"], "conds": conditions}
            questions.append({"table_id": table["id"], "question": row["question"], "sql": query})
            tables[table["id"]] = {key: table[key] for key in ("id", "header", "types", "rows")}
        name = self.files[split][0]
        both = ((name, questions), (str(Path(name).with_suffix(".tables.jsonl")), tables.values()))
        return {file: "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in of) for file, of in both}


class WikisqlQueries(Texts):
    """Queries by their logical form, and by what they return."""

    def __init__(self) -> None:
        first, *others = WIKISQL.declared
        super().__init__(first, EXECUTION._replace(baseline=None), *others)

    @property
    def signatures(self) -> dict[str, str]:
        """Adds that of execution."""
        return super().signatures | {EXECUTION.name: SQLITE}

    def evaluate(self, examples: Sequence[Example], predictions: Sequence[str]) -> dict[str, float]:
        """Reads queries by the columns of their tables, and runs them.

        Examples that name no table, as evaluate.Metric makes them, are read by their text alone and not run.
        """
        if not any(example.document for example in examples):
            return super().evaluate(examples, predictions)
        return {metric.name: self.score(metric.name, examples, predictions) for metric in self.metrics}

    def score(self, name: str, examples: Sequence[Example], predictions: Sequence[str]) -> float:
        """Returns one metric, by the tables where it needs them."""
        if name not in BY_TABLES or not any(example.document for example in examples):
            return super().score(name, examples, predictions)
        tables = [_known_table(example.document) for example in examples]
        return BY_TABLES[name](predictions, [example.target for example in examples], tables)


def _known_table(name: str) -> Header:
    if name not in HEADERS:
        raise MissingInputError(f"WikiSQL: the table {shown(name)} was not read.\nLoad the task before it is scored.")
    return HEADERS[name]


def _header(tables: Rows, row: int, with_rows: bool) -> Header:
    """Returns a table of the release.

    Raises:
        InputError: If it is none.
    """
    entry = {key: values[row] for key, values in tables.columns.items()}
    header, types = entry["header"], entry["types"]
    fits = isinstance(entry["id"], str) and isinstance(header, list) and isinstance(types, list)
    if not fits or not header or not all(isinstance(name, str) for name in header) or len(types) != len(header):
        raise InputError(f"{tables.place(row)}: is no table with as many types as columns (found: {shown(entry)}).")
    for cells in entry["rows"] if isinstance(entry["rows"], list) else [entry["rows"]]:
        if not isinstance(cells, list) or len(cells) != len(header) or not all(map(_is_cell, cells)):
            raise InputError(
                f"{tables.place(row)}: a row of the table has not {len(header)} cells, each a text, a number or null "
                f"(table {entry['id']}; found: {shown(cells)})."
            )
    return header_of(entry, with_rows)


def _is_cell(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _of_release(rows: Rows, row: int) -> Entry:
    name, question, sql = (rows[key][row] for key in ("table_id", "question", "sql"))
    place = rows.place(row)
    if name not in HEADERS:
        raise InputError(f"{place}: there is no table {shown(name)} in the file of tables.")
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"{place}: there is no question.")
    query = _query_of(sql, width := len(HEADERS[name].columns))
    if query is None:
        raise InputError(f"{place}: is no query of a table with {width} columns (found: {shown(sql)}).")
    return Entry(str(rows.lines[row]), (name, clean(question), *query), ())


def _query_of(sql: Any, width: int) -> tuple[int, int, tuple[Condition, ...]] | None:
    """Returns column, aggregate and conditions of a query; None if it is none of a table with so many columns."""
    try:
        select, aggregate = sql["sel"], sql["agg"]
        conditions = tuple(Condition(column, operator, clean(str(value))) for column, operator, value in sql["conds"])
    except (KeyError, TypeError, ValueError):
        return None
    numbers = [(select, width), (aggregate, len(AGGREGATES))]
    for column, operator, _ in conditions:
        numbers += [(column, width), (operator, len(OPERATORS))]
    fits = all(isinstance(number, int) and 0 <= number < limit for number, limit in numbers)
    return (select, aggregate, conditions) if fits else None


def _of_text(rows: Rows, row: int) -> Entry:
    """Reads a line of mlx-examples."""
    text = rows["text"][row]
    lines = text.split("\n") if isinstance(text, str) else []
    begins = len(lines) == len(PARTS) and all(line.startswith(part) for line, part in zip(lines, PARTS, strict=True))
    values = [clean(line.removeprefix(part)) for line, part in zip(lines, PARTS, strict=False)]
    if not begins or not all(values) or logical_form_of(values[3]) is None:
        raise InputError(
            f"{rows.place(row)}: must hold the lines {', '.join(map(repr, PARTS))}, the last with a query "
            f"(found: {shown(text)})."
        )
    name, columns, question, query = values
    return Entry(str(rows.lines[row]), (name, question, columns), (query,))
