"""Instructions in the format of Alpaca: how they are asked, what is trained on, and how they are divided."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.quick_compose import compose_quickly

from lora_repro.config.identity import run_id
from lora_repro.config.resolve import Resolved, resolve
from lora_repro.errors import InputError, MissingInputError
from lora_repro.tasks import encoding
from lora_repro.tasks.encoding import encode
from lora_repro.tasks.own_data import read_here
from lora_repro.tasks.own_data.instructions import InstructionsConfig

ROWS = [
    {"instruction": f"Name the number {i}.", "input": "" if i % 2 else "in words", "output": f"It is {i}.", "more": i}
    for i in range(20)
]


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test reads its own files."""
    for module, name in ((read_here, "_known"), (read_here, "_last"), (encoding, "_encoded")):
        monkeypatch.setattr(module, name, {})


def resolved(data: Path, *overrides: str) -> Resolved:
    given = [
        "model=tiny_llama",
        "task=instructions",
        f"paths.data={data}",
        "train.max_length=500",
        "task.max_new_tokens=40",
        *overrides,
    ]
    return resolve(compose_quickly(given))


def written(path: Path, rows: Any = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def task_of(data: Path, *overrides: str) -> InstructionsConfig:
    task = resolved(data, *overrides).run.task
    assert isinstance(task, InstructionsConfig)
    return task


def test_an_instruction_is_asked_in_the_words_of_alpaca(tmp_path: Path) -> None:
    """As prompt_input and prompt_no_input of Stanford Alpaca's train.py, up to the response."""
    rows = [
        {"instruction": " Add.\r\n", "input": "1 + 1", "output": "2"},
        {"instruction": "Say hi.\nNow.", "input": "", "output": "Hi!\r\nBye. "},
        {"instruction": "Stop.", "input": None, "output": "Ok."},
    ]
    data = written(tmp_path / "train.json", rows).parent
    written(tmp_path / "dev.json", rows[:1])
    splits = task_of(data).load(str(data), "none")
    assert [(example.input, example.target) for example in splits["train"]] == [
        (
            "Below is an instruction that describes a task, paired with an input that provides further context. Write a"
            " response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 + 1",
            ["2"],
        ),
        (
            "Below is an instruction that describes a task. Write a response that appropriately completes the request."
            "\n\n### Instruction:\nSay hi.\nNow.",
            ["Hi!\nBye."],
        ),
        (
            "Below is an instruction that describes a task. Write a response that appropriately completes the request."
            "\n\n### Instruction:\nStop.",
            ["Ok."],
        ),
    ]
    assert [*splits] == ["train", "eval"]
    bare = task_of(data, "task.template=bare").load(str(data), "none")
    assert [example.input for example in bare["train"]] == ["Add.\n\n1 + 1", "Say hi.\nNow.", "Stop."]


def test_the_loss_is_on_the_response_and_its_end_alone(tmp_path: Path) -> None:
    """The first token of the response was masked in alpaca-lora (issue 306), and elsewhere the end is."""
    found = resolved(written(tmp_path / "mine.json"))
    split = encode(found.run, found.settings)["train"]
    tokenizer = split.objective.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    for i, example in enumerate(split.examples):
        prompt = tokenizer.decode(split.inputs["input_ids"][i, : int(split.lengths[i])])
        target = [token for token in split.targets[i].tolist() if token >= 0]
        assert prompt.replace(" ", "").endswith("[UNK]response[UNK]")
        assert target == [*tokenizer(example.target[0], add_special_tokens=False)["input_ids"], tokenizer.sep_token_id]


def test_one_file_is_divided_with_equal_questions_together(tmp_path: Path) -> None:
    rows = [*ROWS, *ROWS[:5]]
    data = written(tmp_path / "mine.json", rows)
    task = task_of(data)
    splits = task.load(str(data), "none")
    assert sum(map(len, splits.values())) == 25 and [*splits] == ["train", "eval", "test"] and all(splits.values())
    inputs = [{example.input for example in of} for of in splits.values()]
    assert not inputs[0] & inputs[1] and not inputs[0] & inputs[2] and not inputs[1] & inputs[2]
    notices = task.notices(splits)
    assert notices[0].startswith("The rows are divided here into train, eval, test in shares 0.8 / 0.1 / 0.1")
    assert f"Examples: train {len(splits['train'])}, dev {len(splits['eval'])}, test {len(splits['test'])}." in notices
    assert task.sizes() == {split: len(of) for split, of in splits.items()}


def test_the_id_follows_the_examples_and_not_the_file(tmp_path: Path) -> None:
    one = written(tmp_path / "a" / "one.json")
    lines = tmp_path / "two.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    ids = {run_id(resolved(path).run) for path in (one, lines)}
    assert len(ids) == 1
    for override in ("task.template=bare", "task.split_seed=1", "task.shares={train: 0.5, eval: 0.25, test: 0.25}"):
        assert run_id(resolved(one, override).run) not in ids
    assert run_id(resolved(written(tmp_path / "b.json", [*ROWS, ROWS[0] | {"output": "x"}])).run) not in ids


def test_files_of_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    written(tmp_path / "train.json", ROWS[:10])
    written(tmp_path / "val.json", ROWS[10:14])
    written(tmp_path / "test.json", ROWS[14:])
    assert task_of(tmp_path).sizes() == {"train": 10, "eval": 4, "test": 6}
    splits = "task.splits={train: test.json, eval: train.json}"
    assert task_of(tmp_path, splits).sizes() == {"train": 6, "eval": 10}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"instruction": "a", "input": ""}], r"mine\.json: there is no column 'output'"),
        ([ROWS[0], {"instruction": "a", "input": "c"}], r"row 2: there is no 'output', which the first row has"),
        ([ROWS[0] | {"output": 5}] * 3, r"row 1: 'output' must be a text \(found: 5\)"),
        ([ROWS[0] | {"instruction": ["a"]}] * 3, r"row 1: 'instruction' must be a text"),
        ([ROWS[0] | {"output": "\ud800"}] * 3, r"row 1: 'output' holds half of a character"),
        ([ROWS[0], ROWS[1] | {"output": " "}], r"1 rows have no instruction or no output \(mine\.json, row 2\)"),
        ([ROWS[0]], r"task\.shares: \w+ gets no row"),
        ([], r"mine\.json: the list is empty"),
        ({"data": ROWS}, r"mine\.json"),
        ("text", r"mine\.json"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, rows: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolved(written(tmp_path / "mine.json", rows))


def test_rows_without_output_are_left_out_on_request(tmp_path: Path) -> None:
    """Alpaca's own file has 28 of them."""
    data = written(tmp_path / "mine.json", [*ROWS, ROWS[0] | {"output": ""}])
    task = task_of(data, "task.drop_empty=true")
    assert sum((task.sizes() or {}).values()) == 20
    said = task.notices(task.load(str(data), "none"))
    assert said[0] == "1 rows without instruction or output are left out (mine.json, row 21)."


def test_what_is_missing_is_told_with_both_ways(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"paths\.data=mine\.json, or task\.dataset=tatsu-lab/alpaca"):
        resolve(compose_quickly(["model=tiny_llama", "task=instructions", "paths.data=null"]))
    with pytest.raises(MissingInputError, match=r"no tatsu-lab/alpaca in the hub's local cache.*\n.*fetch task=instr"):
        resolve(compose_quickly(["model=tiny_llama", "task=instructions", "task.dataset=tatsu-lab/alpaca"]))
    assert task_of(written(tmp_path / "mine.json")).fetch("none") == "your own files (paths.data), nothing to fetch"


def test_a_file_beside_a_data_set_of_the_hub_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was not read, and nothing said so; a folder may hold the data of other tasks."""
    path = written(tmp_path / "mine.json")
    with pytest.raises(InputError, match=r"mine\.json task\.dataset=no/such\)\.\nLeave one of them out"):
        task_of(path, "task.dataset=no/such")
    with pytest.raises(MissingInputError, match="no no/such in the hub's local cache"):
        task_of(tmp_path, "task.dataset=no/such")
    monkeypatch.setenv("LORA_REPRO_DATA", str(path))
    with pytest.raises(MissingInputError, match="no no/such in the hub's local cache"):
        task_of(path, "task.dataset=no/such")


def test_data_that_has_changed_since_is_refused(tmp_path: Path) -> None:
    data = written(tmp_path / "mine.json")
    task = task_of(data)
    written(data, ROWS[:-1])
    with pytest.raises(MissingInputError, match="the data has changed since this run was composed"):
        task.load(str(data), "none")


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_rows_with_and_without_an_input_may_stand_in_any_order(tmp_path: Path, first: int, suffix: str) -> None:
    rows = [{"instruction": "Add.", "input": "1 + 1", "output": "2"}, {"instruction": "Stop.", "output": "Ok."}]
    rows = [rows[first], rows[1 - first]]
    data, lines = tmp_path / f"train.{suffix}", [json.dumps(row) for row in rows]
    data.write_text("\n".join(lines) if suffix == "jsonl" else f"[{','.join(lines)}]")
    written(tmp_path / "dev.json", rows)
    examples = task_of(tmp_path).load(str(tmp_path), "none")["train"]
    assert ["### Input:\n1 + 1" in example.text for example in examples] == [first == 0, first == 1]


def test_examples_of_several_files_have_names_of_their_own(tmp_path: Path) -> None:
    for part in (0, 1):
        written(tmp_path / f"train-0000{part}-of-00002.json", ROWS[5 * part : 5 * part + 5])
    written(tmp_path / "dev.json", ROWS[10:])
    examples = task_of(tmp_path).load(str(tmp_path), "none")["train"]
    assert [example.id for example in examples] == [f"train-{i}" for i in range(1, 11)]


def test_responses_in_any_language_are_scored(tmp_path: Path) -> None:
    """rouge-score alone knows no word of these: the run would end when it is first scored."""
    right = ["今天天气很好", "\U0001f600", "?", "Añadir más", "It is 4."]
    rows = [{"instruction": f"{i}", "output": output} for i, output in enumerate(right)]
    written(tmp_path / "train.json", rows)
    written(tmp_path / "dev.json", rows)
    task = task_of(tmp_path)
    examples = task.load(str(tmp_path), "none")["eval"]
    assert task.targets.evaluate(examples, right) == {"rouge_l": 1}
    assert task.targets.evaluate(examples, ["x", "", "!", "b", ""]) == {"rouge_l": 0}
