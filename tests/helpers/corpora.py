"""Small corpora in the official formats, with texts of our own making."""

import json
from pathlib import Path
from typing import Any

from lora_repro.config.schema import load_group
from lora_repro.errors import MissingInputError
from lora_repro.tasks.corpora.base import CorpusConfig

E2E_CSV = {
    "trainset.csv": 'mr,ref\n"name[The Fox], priceRange[£20-25], familyFriendly[yes]","The Fox costs £20-25,  '
    'and isn\'t bad.\nIt is ""fine""."\n'
    '"name[Olé], near[The Fox]",Olé is near The Fox.\n'
    '"name[The Fox], priceRange[£20-25], familyFriendly[yes]",A fox.\n',
    "devset.csv": 'mr,ref\n"name[A], eatType[pub]","A, a pub. "\n"name[B], area[riverside]",B!\n'
    '"name[A], eatType[pub]",A is a pub.\n',
    "testset_w_refs.csv": '"mr","ref"\n"name[C], customer rating[5 out of 5]","C."\n',
}
"""Rows of one meaning need not follow each other."""
E2E_TEXT = {
    "train.txt": "name : The Fox | price : £ 20 - 25 | family friendly : yes||The Fox costs £ 20 - 25 , and is n't bad"
    " . "
    'It is " fine " . \nname : Olé | near : The Fox||Olé is near The Fox . \n'
    "name : The Fox | price : £ 20 - 25 | family friendly : yes||A fox . \n",
    "valid.txt": "name : A | Type : pub||A , a pub . \nname : B | area : riverside||B ! \n"
    "name : A | Type : pub||A is a pub . \n",
    "test.txt": "name : C | customer rating : 5 out of 5||C . \n",
}


def webnlg_entry(number: int, category: str, triples: list[str], texts: list[tuple[str, str]]) -> dict[str, Any]:
    """Returns an entry of the JSON form, its triples given as "a | b | c"."""
    keys = ("subject", "property", "object")
    return {
        str(number): {
            "category": category,
            "xml_id": f"Id{number}",
            "modifiedtripleset": [dict(zip(keys, triple.split(" | "), strict=True)) for triple in triples],
            "lexicalisations": [
                {"comment": mark, "lang": "", "lex": text, "xml_id": f"Id{i}"}
                for i, (mark, text) in enumerate(texts, 1)
            ],
            "size": str(len(triples)),
        }
    }


WEBNLG = {
    "train.json": [
        ("Airport", ["A_b | cityServed | C,_D"], [("good", "A b serves C & D."), ("toFix", "a b")]),
        ("Food", ['X | madeOf | "Y"', "X | is | Z"], [("good", "X is made of Y.")]),
        ("Food", ["P | is | Q"], [("toFix", "p q")]),
    ],
    "dev.json": [
        ("City", ["K | in | L"], [("good", "K is in L."), ("good", "L has K.")]),
        ("City", ["M | in | N"], [("toFix", "m")]),
        ("City", ["K | in | L"], [("good", "In L lies K.")]),
    ],
    "test.json": [
        ("City", ["É | in | L"], [("good", "É is in L.")]),
        ("Artist", ["S | sang | T"], [("good", "S sang T."), ("good", "T was sung by S.")]),
    ],
}
DART = {
    "dart-v1.1.1-full-train.json": [([["A", "IS_A", "B"], ["A", "[TITLE]", "C"]], ["A is a B.", "a b"])],
    "dart-v1.1.1-full-dev.json": [
        ([["D", "IS", "E"]], ["D is E."]),
        ([["F", "IS", "G"]], ["F is G.", ""]),
        ([["D", "Is", "E"]], ["E, that is D."]),
    ],
    "dart-v1.1.1-full-test.json": [([["H", "birthPlace", "I_J"]], ["H was born in  I J.\t"])],
}
SAMSUM = {
    "train.json": [
        ("1", "Ann: hi \r\nBob: \r\n\r\nAnn: bye", "They greet. \r\n"),
        ("13828807", "", "problem"),
        ("2-1", "C: x", "X."),
    ],
    "val.json": [("3", "Ann: hi\nBob: \n\nAnn: bye", "They say hi.")],
    "test.json": [("4", "D: y", "Y.")],
}
TABLES = [
    {
        "id": "1-1",
        "header": ["Player", "No.", "Max points", "points"],
        "types": ["text", "real", "real", "text"],
        "rows": [["Terrence Ross", 31, 7, "a"], ["Amir Johnson", 15, 9.5, "b and c"], ["John Ross", 3, "1,200", "A"]],
    }
]
QUESTIONS = {
    "train": [("Who has 31?", {"sel": 0, "agg": 0, "conds": [[1, 0, 31]]})],
    "dev": [
        ("What is the\u00a0most?", {"sel": 2, "agg": 1, "conds": []}),
        ("How many?", {"sel": 0, "agg": 3, "conds": [[1, 1, "3"], [1, 2, 30.0]]}),
        ("How many?", {"sel": 0, "agg": 3, "conds": [[1, 1, "3"], [1, 2, 30.0]]}),
    ],
    "test": [("Which number has b and c?", {"sel": 1, "agg": 0, "conds": [[3, 0, "B and C"]]})],
}


def write_text(folder: Path, files: dict[str, str]) -> Path:
    """Writes files as they stand."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def write_webnlg(folder: Path) -> Path:
    """Writes the JSON form."""
    files = {
        name: json.dumps({"entries": [webnlg_entry(i, *entry) for i, entry in enumerate(entries, 1)]})
        for name, entries in WEBNLG.items()
    }
    return write_text(folder, files)


def write_dart(folder: Path) -> Path:
    """Writes the JSON files."""
    return write_text(
        folder,
        {
            name: json.dumps(
                [
                    {"tripleset": triples, "annotations": [{"source": "mine", "text": text} for text in texts]}
                    for triples, texts in entries
                ]
            )
            for name, entries in DART.items()
        },
    )


def write_samsum(folder: Path) -> Path:
    """Writes the JSON files."""
    keys = ("id", "dialogue", "summary")
    return write_text(
        folder,
        {name: json.dumps([dict(zip(keys, row, strict=True)) for row in rows]) for name, rows in SAMSUM.items()},
    )


def write_wikisql(folder: Path) -> Path:
    """Writes questions and tables of each split."""
    for split, questions in QUESTIONS.items():
        lines = [{"phase": 1, "table_id": "1-1", "question": text, "sql": sql} for text, sql in questions]
        for name, rows in ((f"{split}.jsonl", lines), (f"{split}.tables.jsonl", TABLES)):
            write_text(folder, {name: "".join(json.dumps(row) + "\n" for row in rows)})
    return folder


def declared(name: str, folder: Path, **changes: Any) -> Any:
    """Returns a task of conf/task that declares what small files in a folder hold, as the task itself counts it."""
    task = load_group("task", name)
    assert isinstance(task, CorpusConfig)
    task.checked, task.blobs = [split for split in task.all_splits], {}
    entries = {split: task.read(task.place(split, str(folder), "none").path) for split in task.all_splits}
    task.entries = {split: len(of) for split, of in entries.items()}
    task.references = {split: sum(len(entry.texts) for entry in of) for split, of in entries.items()}
    try:
        task.load(str(folder), "none")
    except MissingInputError as error:
        task.digest = str(error).split("sha256 ")[1].split(",")[0]
    for key, value in changes.items():
        setattr(task, key, value)
    return task
