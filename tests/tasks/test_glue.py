"""GLUE: small files made here in the official layout, and the real ones if LORA_REPRO_REAL_DATA names their folder."""

import hashlib
import os
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from helpers.computed_runs import record_of
from helpers.quick_compose import compose_quickly

from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.config.schema import load_group
from lora_repro.errors import InputError, MissingInputError
from lora_repro.fetch import glue as hub
from lora_repro.tasks.base import digest, subset
from lora_repro.tasks.classes import Form
from lora_repro.tasks.glue import GlueConfig
from lora_repro.tasks.targets import Example
from lora_repro.training.job import run_job

ROWS = {
    "mnli": (392_702, 9_815, 9_832),
    "mnli_10k": (9_999, 9_815, 9_832),
    "sst2": (67_349, 872),
    "mrpc": (3_668, 408),
    "cola": (8_551, 1_043),
    "qnli": (104_743, 5_463),
    "qnli_10k": (9_999, 5_463),
    "qqp": (363_846, 40_430),
    "qqp_23k": (20_000, 3_497),
    "rte": (2_490, 277),
    "stsb": (5_749, 1_500),
}
REAL = {
    "mnli_10k": {"train": [3408, 3313, 3278], "eval": [3479, 3123, 3213], "mismatched": [3463, 3129, 3240]},
    "sst2": {"train": [29780, 37569], "eval": [428, 444]},
    "mrpc": {"train": [1194, 2474], "eval": [129, 279]},
    "cola": {"train": [2528, 6023], "eval": [322, 721]},
    "qnli_10k": {"train": [5027, 4972], "eval": [2702, 2761]},
    "qqp_23k": {"train": [12540, 7460], "eval": [2210, 1287]},
    "rte": {"train": [1249, 1241], "eval": [146, 131]},
    "stsb": {"train": [5749], "eval": [1500]},
}
"""Examples of each class, or with a score, as the data's own README counts them."""

TRAIN = 'index\tfirst\tsecond\tlabel\n0\tA "quoted one.\tIt is \'so".\tyes\n1\tNA\tnull\tno\n2\tc , d\te\tyes\n'
DEV = "index\tfirst\tsecond\tlabel\n0\tdev  one\tdev two\tno\n1\tx\ty\tyes\n"


def made(folder: Path, train: str | bytes = TRAIN, dev: str | bytes = DEV, **changes: Any) -> GlueConfig:
    """Writes files, and returns their task with the digest of TRAIN and DEV."""
    set_folder = folder / "glue" / "SET"
    set_folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("train.tsv", train), ("dev.tsv", dev)):
        (set_folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    settings: dict[str, Any] = {
        "name": "made", "num_labels": 2, "folder": "SET", "files": {"train": "train.tsv", "eval": "dev.tsv"},
        "texts": ["first", "second"], "target": "label", "classes": ["yes", "no"], "metrics": ["accuracy"],
        "rows": {"train": 3, "eval": 2}, "checked": ["train", "eval"],
        "digest": "6ed2c5ae0b5ebb9d37a33c8a6a5d6ea4bdc3c0d5a7d2f5cfb0c7d9ac7a56f9a1",
    }  # fmt: skip
    return GlueConfig(**settings | changes)


def digest_in(error: pytest.ExceptionInfo[MissingInputError]) -> str:
    return str(error.value).split("sha256 ")[1].split(",")[0]


@pytest.fixture
def known(tmp_path: Path) -> str:
    """The digest of TRAIN and DEV, as the task itself computes it."""
    with pytest.raises(MissingInputError, match="others than GLUE's") as error:
        made(tmp_path).load(str(tmp_path), "none")
    return digest_in(error)


def test_texts_are_read_as_they_stand(tmp_path: Path, known: str) -> None:
    splits = made(tmp_path, digest=known).load(str(tmp_path), "none")
    assert [example.input for example in splits["train"]] == [
        ('A "quoted one.', "It is 'so\"."), ("NA", "null"), ("c , d", "e"),
    ]  # fmt: skip
    assert [example.target for example in splits["train"]] == [0, 1, 0]
    assert [example.id for example in splits["eval"]] == ["eval-0", "eval-1"]


@pytest.mark.parametrize("place", [".", "glue", "glue/SET"])
def test_the_files_are_found_by_any_of_their_folders(tmp_path: Path, known: str, place: str) -> None:
    assert len(made(tmp_path, digest=known).load(str(tmp_path / place), "none")["train"]) == 3


def test_byte_order_mark_and_carriage_returns_change_nothing(tmp_path: Path, known: str) -> None:
    train = b"\xef\xbb\xbf" + TRAIN.replace("\n", "\r\n").encode()
    task = made(tmp_path, train, digest=known)
    assert task.load(str(tmp_path), "none")["train"][0].target == 0


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (TRAIN.replace("c , d", "c ; d"), "are others than GLUE's"),
        (TRAIN.replace("c , d", "c ,  d"), "are others than GLUE's .* white space counts"),
        (TRAIN.replace("c , d", "c , d "), "are others than GLUE's"),
        (TRAIN.replace("\tyes\n1", "\tno\n1"), "are others than GLUE's"),
        (TRAIN + "3\tmore\tmore\tyes\n", "it has 4 rows, and GLUE's file has 3"),
        (TRAIN.replace("\tno\n", "\t2\n"), r"train.tsv, line 3: label is '2', and must be one of yes, no"),
        (TRAIN.replace("\tno\n", "\t\n"), r"train.tsv, line 3: label is '', and must be"),
        (TRAIN.replace("NA", " "), r"train.tsv, line 3: first is empty"),
        (TRAIN.replace("c , d", "c\td"), r"line 4"),
        (TRAIN.replace("second", "third"), "there is no column 'second'"),
        (TRAIN.encode("utf-8").replace(b"NA", b"N\xe4"), "line 3"),
    ],
)
def test_other_files_are_refused_with_their_place(tmp_path: Path, known: str, train: str | bytes, message: str) -> None:
    with pytest.raises(MissingInputError, match=message) as error:
        made(tmp_path, train, digest=known).load(str(tmp_path), "none")
    assert "paths.data=DIR" in str(error.value)


def test_a_missing_set_says_where_it_was_looked_for_and_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"glue/SET/train\.tsv.*\n.*paths\.data=DIR.*\n.*fetch made"):
        made(tmp_path, hub="made").load(str(tmp_path / "elsewhere"), str(tmp_path))
    with pytest.raises(MissingInputError) as error:
        made(tmp_path).load(str(tmp_path / "elsewhere"), str(tmp_path))
    assert "fetch" not in str(error.value)


@pytest.mark.parametrize("score", ["5.1", "-0.1", "nan", "inf", "four", ""])
def test_a_score_outside_its_range_is_refused(tmp_path: Path, score: str) -> None:
    train = TRAIN.replace("\tyes\n", "\t1.5\n").replace("\tno\n", f"\t{score}\n")
    task = made(tmp_path, train, classes=[], high=5.0, metrics=["pearson", "spearman"])
    with pytest.raises(MissingInputError, match=r"line 3: label is .* must be from 0 to 5"):
        task.load(str(tmp_path), "none")


def test_damaged_rows_are_left_out_where_the_task_says_so(tmp_path: Path, known: str) -> None:
    """In the official training file of QQP some rows have three columns for six (nyu-mll/GLUE-baselines issue 5)."""
    train = TRAIN.replace("1\tNA", "\tWas he real?\t0\n1\tNA")
    assert len(made(tmp_path, train, digest=known, leaves_out_damaged=True).load(str(tmp_path), "none")["train"]) == 3
    with pytest.raises(MissingInputError, match="line 3"):
        made(tmp_path, train, digest=known).load(str(tmp_path), "none")


def test_dev_is_drawn_from_training_where_there_is_none(tmp_path: Path) -> None:
    changes = {"files": {"train": "train.tsv"}, "rows": {"train": 3}, "dev_rows": 1, "checked": []}
    task = made(tmp_path, **changes, digest=digest({}, []))
    splits = task.load(str(tmp_path), "none")
    assert (len(splits["train"]), len(splits["eval"])) == (2, 1) == (task.sizes()["train"], task.sizes()["eval"])  # pyright: ignore[reportOptionalSubscript]
    assert {example.id for part in splits.values() for example in part} == {"train-0", "train-1", "train-2"}
    assert splits == task.load(str(tmp_path), "none")


def test_the_hub_gives_the_same_files(tmp_path: Path, known: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import ClassLabel, DatasetDict, Features, Value

    features = Features(
        {"a": Value("string"), "b": Value("string"), "label": ClassLabel(names=["yes", "no"]), "idx": Value("int32")}
    )
    train = {
        "a": ['A "quoted one.', "NA", "c , d"],
        "b": ["It is 'so\".", "null", "e"],
        "label": [0, 1, 0],
        "idx": [0, 1, 2],
    }
    dev = {"a": ["dev  one", "x"], "b": ["dev two", "y"], "label": [1, 0], "idx": [0, 1]}
    found = DatasetDict({"train": Dataset.from_dict(train, features), "validation": Dataset.from_dict(dev, features)})
    monkeypatch.setattr(hub, "_dataset", {"made": found}.__getitem__)
    task = made(tmp_path, digest=known, hub="made")
    cache = tmp_path / "cache"
    assert hub.download(task, str(cache)) == cache / "data" / "glue" / "SET"
    assert task.load(None, str(cache)) == task.load(str(tmp_path), "none")
    other = made(tmp_path, digest="0" * 64, hub="made")
    with pytest.raises(MissingInputError, match="others than GLUE's"):
        hub.download(other, str(tmp_path / "second"))
    assert not (tmp_path / "second" / "data").exists()


def test_texts_of_the_hub_keep_their_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each text of SST-2 ends in a space, which RoBERTa's and GPT-2's tokenizers see: one id must not stand for two."""
    train = "sentence\tlabel\nin  two \t0\n\u00a0x \t1\nc\t0\n"
    changes = {"texts": ["sentence"], "classes": ["0", "1"], "checked": [], "digest": digest({}, []), "hub": "made"}
    official = made(tmp_path, train, train, **changes | {"rows": {"train": 3, "eval": 3}})
    rows = Dataset.from_dict({"sentence": ["in  two ", "\u00a0x ", "c"], "label": [0, 1, 0], "idx": [0, 1, 2]})
    monkeypatch.setattr(hub, "_dataset", {"made": {"train": rows, "validation": rows}}.__getitem__)
    hub.download(official, str(tmp_path / "cache"))
    theirs = [example.input for example in official.load(None, str(tmp_path / "cache"))["train"]]
    assert theirs == [example.input for example in official.load(str(tmp_path), "none")["train"]]
    assert theirs == ["in  two ", "\u00a0x ", "c"]


def test_a_pair_may_lack_its_second_sentence_where_the_task_says_so(tmp_path: Path) -> None:
    """Two training rows of QQP have no second question (huggingface/datasets issue 277)."""
    assert load_group("task", "qqp").may_lack_second and not load_group("task", "qqp_23k").may_lack_second
    train, none = TRAIN.replace("null", ""), {"checked": [], "digest": digest({}, [])}
    task = made(tmp_path, train, may_lack_second=True, **none)
    assert task.load(str(tmp_path), "none")["train"][1].input == ("NA", "")
    with pytest.raises(MissingInputError, match=r"line 3: second is empty"):
        made(tmp_path, train, **none).load(str(tmp_path), "none")
    with pytest.raises(MissingInputError, match=r"line 3: first is empty"):
        made(tmp_path, TRAIN.replace("NA", ""), may_lack_second=True, **none).load(str(tmp_path), "none")


def test_what_an_id_leaves_out_cannot_be_overridden() -> None:
    left_out = {each.name for each in fields(GlueConfig) if not each.metadata.get("in_id", True)}
    assert len(left_out) > 10 and left_out <= {*GlueConfig.fixed}


@pytest.mark.parametrize("name", ROWS)
def test_each_set_declares_what_it_holds(name: str) -> None:
    task = load_group("task", name)
    assert isinstance(task, GlueConfig)
    task.check()
    assert tuple((task.sizes() or {})[split] for split in task.all_splits) == ROWS[name]
    assert task.num_labels == max(1, len(task.label_names)) == (task.head_width or 0)
    assert "test" not in task.all_splits
    assert task.has_groups == task.is_pair == bool(task.changes)  # premises of mnli and questions of qnli recur


COLA = 'gj04\t1\t\tOur friends won\'t "buy" this.\ncj99\t0\t*\tThe more "we study, the\n'
STSB = (
    "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
    '0\tmain-news\tMSRvid\t2012test\t0001\tnone\tnone\tA "plane.\tAn air plane.\t5.000\n'
    "1\tmain-news\theadlines\t2013\t0004\tnone\tnone\tThree men.\t'Two\" men\t2.6\n"
)
_PARSES = "sentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse\tsentence1\tsentence2"
MNLI = (
    f"index\tpromptID\tpairID\tgenre\t{_PARSES}\tlabel1\tgold_label\n"
    '0\t31193\t31193n\tgovernment\t( a )\t( b )\t(ROOT (X a))\t(ROOT)\tIt "has two\tHe said. \tneutral\tneutral\n'
    "1\t101457\t101457e\ttelephone\t( a )\t( b )\t(ROOT)\t(ROOT)\tyou know\tn/a\tentailment\tentailment\n"
)
MNLI_DEV = (
    f"index\tpromptID\tpairID\tgenre\t{_PARSES}\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\n"
    "0\t63735\t63735n\tslate\t( a )\t( b )\t(R)\t(R)\tThe new rights\tThey do\tneutral\tentailment\tneutral\tneutral"
    "\tcontradiction\tcontradiction\n"
)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("cola", {"": COLA}, [('Our friends won\'t "buy" this.', 1), ('The more "we study, the', 0)]),
        ("stsb", {"": STSB}, [(('A "plane.', "An air plane."), 5.0), (("Three men.", "'Two\" men"), 2.6)]),
        (
            "mnli",
            {"train": MNLI, "": MNLI_DEV},
            [(('It "has two', "He said. "), 1), (("you know", "n/a"), 0)],
        ),
    ],
)
def test_the_official_layouts_are_read_by_the_settings_of_their_task(
    name: str, content: dict[str, str], expected: list[Any], mark: str, ending: str, tmp_path: Path
) -> None:
    """CoLA has four columns and no header, STS-B ten, MNLI's train twelve and its dev sixteen; quotes are text."""
    task = load_group("task", name)
    task.checked, task.digest = [], digest({}, [])
    (tmp_path / task.folder).mkdir()
    for split, file in task.files.items():
        text = content.get(split, content[""])
        task.rows[split] = text.count("\n") - (not task.header)
        (tmp_path / task.folder / file).write_bytes((mark + text.replace("\n", ending)).encode())
    splits = task.load(str(tmp_path), "none")
    assert [(example.input, example.target) for example in splits["train"]] == expected
    if name == "mnli":
        assert [(e.input, e.target) for e in splits["mismatched"]] == [(("The new rights", "They do"), 2)]


def test_a_record_holds_what_was_read_of_train_and_scores_both_parts_of_dev_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of MNLI's train the number of rows alone is known. Overall accuracy weighs 3 matched and 5 mismatched pairs."""
    sizes = {"train": 8, "eval": 3, "mismatched": 5}
    whole = {
        split: [Example(f"{split}-{i}", (f"a{i}", f"{split[0]}{i} "), i % 3, "d") for i in range(n)]
        for split, n in sizes.items()
    }
    for number in (1, 4):
        whole["mismatched"][number] = Example(f"long-{number}", ("a " * 600, "b"), 0, "d")
    monkeypatch.setattr(GlueConfig, "load", lambda *_: whole)
    given = ("model=tiny_bert", "task=mnli", "train.learning_rate=1e-2", "train.max_steps=1", "compute.device=cpu")
    cfg = compose_quickly([*given, "task.train_size=4", f"paths.outputs={tmp_path}"])
    run_job(cfg)
    result = record_of(cfg).read().result
    assert result is not None
    lines = "".join(f'["train", "a{i}", "t{i} ", {i % 3}]\n' for i in range(8))
    assert result["data"]["train"]["sha256"] == hashlib.sha256(lines.encode()).hexdigest()
    assert result["data"]["train"]["n"] == 4 and "sha256" not in result["data"]["eval"]
    assert result["data"]["mismatched"]["cut"] == 2 and "cut" not in result["data"]["eval"]
    assert "2 are cut to train.max_length" in (record_of(cfg).folder / "run.log").read_text()
    matched, mismatched = (result["metrics"][f"{split}/accuracy"] for split in ("eval", "mismatched"))
    assert result["metrics"]["overall/accuracy"] == pytest.approx((3 * matched + 5 * mismatched) / 8)


@pytest.mark.parametrize("name", REAL)
def test_the_real_files_hold_what_their_readme_counts(name: str) -> None:
    data = os.environ.get("LORA_REPRO_REAL_DATA")
    task = load_group("task", name)
    try:
        task.place(task.files["train"], data, "none")
    except MissingInputError:
        pytest.skip("LORA_REPRO_REAL_DATA names no folder with GLUE")
    splits = task.load(data, "none")
    found = {
        split: Counter("a score" if task.is_score else example.target for example in examples)
        for split, examples in splits.items()
    }
    assert {split: [counts[label] for label in sorted(counts)] for split, counts in found.items()} == REAL[name]


def test_scores_have_no_words(tmp_path: Path) -> None:

    task = load_group("task", "stsb")
    task.form = Form.text
    with pytest.raises(InputError, match="the targets of stsb are scores"):
        task.check()


def test_a_size_of_dev_holds_for_the_second_part_of_dev_too(tmp_path: Path) -> None:
    task = load_group("task", "mnli_10k")
    task.eval_size = 10
    task.check()
    assert task.known_sizes() == {"train": 9999, "eval": 10, "mismatched": 10}
    examples = made(tmp_path, checked=[], digest=digest({}, [])).load(str(tmp_path), "none")["train"] * 4
    drawn = subset({"train": examples, "eval": examples, "mismatched": examples}, task)
    assert [len(part) for part in drawn.values()] == [12, 10, 10]


WORDS = {
    "rte": {"entailment": " True", "not_entailment": " False"},
    "mnli": {"entailment": " True", "neutral": " Neither", "contradiction": " False"},
    "qnli": {"entailment": " yes", "not_entailment": " no"},
    "mrpc": {"equivalent": " yes", "not_equivalent": " no"},
    "qqp": {"duplicate": " yes", "not_duplicate": " no"},
    "sst2": {"positive": " positive", "negative": " negative"},
    "cola": {"acceptable": " yes", "unacceptable": " no"},
}


@pytest.mark.parametrize("name", [name for name in ROWS if name != "stsb"])
def test_each_set_of_classes_can_be_asked_in_words(name: str) -> None:
    task = load_group("task", name)
    task.form = Form.text
    task.check()
    words = WORDS[name.partition("_")[0]]
    assert dict(zip(task.label_names, task.label_words, strict=True)) == words
    assert task.prompt[-1] == ":" and not any(word.strip() == word for word in task.label_words)
    places = ("{first}", "{second}") if task.is_pair else ("{text}",)
    assert [task.prompt.index(place) for place in places] == sorted(task.prompt.index(place) for place in places)


def test_the_wording_is_in_the_id_where_it_is_read_and_nowhere_else() -> None:
    given = ("task=rte", "model=smollm2", "train.learning_rate=1e-3")
    other = "task.prompt='{first} So {second}?'"
    asked, head = ("task.form=text", "task.label_words=[' yes',' no']"), ("task.form=label",)
    ids = {
        form: {run_id(resolve(compose_quickly([*given, form[0], *more])).run) for more in ((), (other,), form[1:])}
        for form in (asked, head)
    }
    assert len(ids[asked]) == 3 and len(ids[head]) == 1


def test_a_prompt_has_single_spaces_and_none_at_the_end(tmp_path: Path) -> None:
    """SST-2's texts all end in a space, which SmolLM2's tokenizer makes a token before the words that follow."""
    with pytest.raises(MissingInputError) as error:
        made(tmp_path, dev=DEV.replace("dev two", "dev  two ")).load(str(tmp_path), "none")
    task = made(tmp_path, dev=DEV.replace("dev two", "dev  two "), digest=digest_in(error))
    assert task.load(str(tmp_path), "none")["eval"][0].input == ("dev  one", "dev  two ")
    task.form = Form.text
    assert task.load(str(tmp_path), "none")["eval"][0].input == ("dev one", "dev two")


def test_a_part_of_a_set_that_is_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "MNLI").mkdir()
    (tmp_path / "MNLI" / "train.sample9999.tsv").write_text("")
    task = load_group("task", "mnli")
    with pytest.raises(
        MissingInputError, match=r"A part of the set is there: task=mnli_10k reads train\.sample9999\.tsv"
    ):
        task.load(str(tmp_path), "none")
    with pytest.raises(MissingInputError, match="there is no folder") as error:
        task.load(str(tmp_path / "nowhere"), "none")
    assert "mnli_10k" not in str(error.value)
