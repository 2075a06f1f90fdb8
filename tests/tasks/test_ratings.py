"""Ratings: the real archive when it is in the cache, and small ones made here."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from lora_repro.config.schema import load_group
from lora_repro.errors import InputError, MissingInputError
from lora_repro.models import inputs
from lora_repro.tasks.base import Splits, subset
from lora_repro.tasks.ratings import (
    ARCHIVE,
    SPLITS,
    Document,
    RatingsConfig,
    Row,
    SplitUnit,
    document,
    read,
    split_documents,
)
from lora_repro.tasks.sources import Data

COUNTS = {
    "movies": {"train": (4043, 2020), "eval": (2000, 1025), "test": (4000, 1937)},
    "amazon": {"train": (1449, 801), "eval": (531, 315), "test": (963, 609)},
    "nyt": {"train": (1437, 555), "eval": (545, 225), "test": (806, 320)},
    "tweets": {"train": (1677, 1181), "eval": (682, 444), "test": (1003, 675)},
}
"""Examples and positive examples of each split."""


def config_of(name: str) -> RatingsConfig:
    config = load_group("task", name)
    assert isinstance(config, RatingsConfig)
    config.check()
    return config


def real(name: str) -> Splits:
    cache = inputs.default_cache()
    if not (Path(cache) / "data" / ARCHIVE.name).is_file():
        pytest.skip(f"no ratings in {cache}: python -m lora_repro.fetch movies")
    return config_of(name).load(None, cache)


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"hutto_ICWSM_2014/{name}.txt")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("name", COUNTS)
def test_each_split_has_its_counts_and_label_balance(name: str) -> None:
    splits = real(name)
    assert {split: (len(of), sum(e.target for e in of)) for split, of in splits.items()} == COUNTS[name]


@pytest.mark.parametrize(("name", "usable"), [("movies", 10043), ("tweets", 3362), ("amazon", 2943), ("nyt", 2788)])
def test_usable_examples_are_as_many_as_the_readme_promises(name: str, usable: int) -> None:
    examples = [example for of in real(name).values() for example in of]
    assert len(examples) == len({example.id for example in examples}) == usable


@pytest.mark.parametrize("name", COUNTS)
def test_no_document_lies_in_two_splits(name: str) -> None:
    documents = [{example.document for example in of} for of in real(name).values()]
    assert len(set().union(*documents)) == sum(map(len, documents))


@pytest.mark.parametrize("name", ["movies", "nyt", "tweets"])
def test_no_text_lies_in_two_splits_up_to_case_and_punctuation(name: str) -> None:
    texts = [{document(Row(e.id, 0, e.text), Document.text) for e in of} for of in real(name).values()]
    assert len(set().union(*texts)) == sum(map(len, texts))


@pytest.mark.parametrize("name", COUNTS)
def test_no_character_is_garbled(name: str) -> None:
    text = "".join(example.text for of in real(name).values() for example in of)
    assert not set("\ufffdÃÂ") & set(text)  # what UTF-8 looks like once it was read as Latin-1
    assert all(character.isprintable() or character == "\xa0" for character in text)


def test_accents_survive() -> None:
    texts = {example.id: example.text for of in real("movies").values() for example in of}
    assert texts["345"] == "Absorbing character study by André Turpin."


def test_the_split_does_not_depend_on_the_threshold_where_documents_are_counted() -> None:
    cache = inputs.default_cache()
    splits = real("amazon")
    stricter = replace(config_of("amazon"), threshold=1.0).load(None, cache)
    for split in SPLITS:
        assert 0 < len(stricter[split]) < len(splits[split])
        assert set(stricter[split]) <= set(splits[split])


def test_a_subset_is_the_beginning_of_a_larger_one() -> None:
    splits = real("amazon")
    small, large = (
        subset(splits, replace(config_of("amazon"), train_size=n, subset_seed=3))["train"] for n in (10, 99)
    )
    assert small == large[:10]


def test_the_split_is_the_same_on_every_machine() -> None:
    sizes = {f"d{i}": 1 for i in range(10)}
    split_of = split_documents("movies", sizes, {"train": 5, "eval": 2, "test": 3})
    assert sorted(name for name, split in split_of.items() if split == "eval") == ["d0", "d8"]


def test_documents_stay_whole_and_fill_the_splits_exactly() -> None:
    sizes = {f"d{i}": 1 + (i % 7 == 0) for i in range(100)}
    rooms = {"train": 50, "eval": 25, "test": 40}
    split_of = split_documents("any", sizes, rooms)
    assert {split: sum(sizes[d] for d in sizes if split_of[d] == split) for split in SPLITS} == rooms


def test_sizes_that_do_not_add_up_are_refused_with_the_total() -> None:
    with pytest.raises(InputError, match=r"toy has 3 examples \(documents\), and the sizes add up to 4"):
        split_documents("toy", {"a": 1, "b": 2}, {"train": 2, "eval": 1, "test": 1})


def test_a_document_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(InputError, match="no split has space for a whole document of 3 examples"):
        split_documents("toy", {"a": 3}, {"train": 1, "eval": 1, "test": 1})


def test_lines_are_read_byte_for_byte() -> None:
    content = "1_1\t2.5\t &amp; déjà\u2028vu\x85 \r\n2_1\t-0.25\tno".encode()
    assert read(archive(a=content), "a.txt") == [Row("1_1", 2.5, " &amp; déjà\u2028vu\x85 "), Row("2_1", -0.25, "no")]


@pytest.mark.parametrize(
    "line", [b"", b"2\tgood", b"2\t1\ta\tb", b"2\tx\tgood", b"2\t1\t ", b"2\tnan\tgood", b"2\t4.1\tgood", b"2\t1\t\xe9"]
)
def test_a_damaged_line_is_named(line: bytes) -> None:
    with pytest.raises(MissingInputError, match=r"a\.txt, line 2: needs an id"):
        read(archive(a=b"1\t1\tgood\r\n" + line + b"\r\n3\t1\tgood"), "a.txt")


def test_an_unknown_member_is_refused_with_the_list() -> None:
    with pytest.raises(InputError, match=r"no file 'b\.txt' in the archive\.\nFiles here: a\.txt"):
        read(archive(a=b"1\t1\tgood"), "b.txt")


def test_duplicates_with_contradictory_labels_are_one_document() -> None:
    happy, sad = Row("23", 2.5, "@anonymous :) :)"), Row("172", -2.0, "@Anonymous  :'( :'(")
    assert document(happy, Document.text) == document(sad, Document.text) == "anonymous"
    assert document(Row("9", 1, ":)"), Document.text) != document(Row("8", -1, ":("), Document.text)


def test_the_source_is_the_id_before_the_underscore() -> None:
    assert document(Row("31_5", 1, "good"), Document.source) == "31"


def test_ratings_within_the_threshold_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"1_1\t0.5\ta\n1_2\t0.6\tb\n2_1\t-0.51\tc\n3_1\t0\td\n4_1\t-0.5\te"
    data = Data(tmp_path, archive(a=content))
    monkeypatch.setattr(RatingsConfig, "find", lambda *_: data)
    config = RatingsConfig(
        "toy", "", num_labels=2, member="a.txt", document=Document.source, threshold=0.5,
        split_sizes={"train": 2, "eval": 1, "test": 1}, split_unit=SplitUnit.documents,
    )  # fmt: skip
    examples = [example for of in config.load(None, "").values() for example in of]
    assert sorted((e.id, e.target) for e in examples) == [("1_2", 1), ("2_1", 0)]


@pytest.mark.parametrize(
    "change", [{"threshold": -1.0}, {"threshold": 4.0}, {"split_sizes": {"train": 1, "dev": 1, "test": 1}}]
)
def test_impossible_values_are_refused_before_reading(change: dict[str, object]) -> None:
    config = config_of("movies")
    for key, value in change.items():
        setattr(config, key, value)
    with pytest.raises(InputError, match=rf"task\.{next(iter(change))}: "):
        config.check()
