"""A key that stands twice in one mapping is refused, wherever it is read."""

import json
from pathlib import Path

import pytest
from helpers.damaged_files import bases

from lora_repro.config.compose import compose, refuse_repeated_keys
from lora_repro.config.resolve import resolve
from lora_repro.errors import InputError, MissingInputError
from lora_repro.models.inputs import identify_local
from lora_repro.store.reading import _object as once
from lora_repro.store.reading import parse_foreign_json
from lora_repro.sweep.grid import load

TINY = ["model=tiny_bert", "task=generated"]


@pytest.mark.parametrize(
    "override",
    [
        "method.r_pattern={q:4,q:5}",
        "method.r_pattern={q:4},{v:4,v:8}",
        "x=[{a:{b:1,b:2}}]",
    ],
)
def test_a_dictionary_of_an_override_has_each_key_once(override: str) -> None:
    with pytest.raises(InputError, match=r"the key [qvb] is given twice"):
        refuse_repeated_keys([override])


@pytest.mark.parametrize(
    "override", ["method.r_pattern={q:4,v:4,layers.0.q:2}", "x=[{a:1},{a:2}]", "x={a:{b:1},b:{a:1}}"]
)
def test_the_same_key_in_other_dictionaries_is_no_repetition(override: str) -> None:
    refuse_repeated_keys([override, "seed=0"])


def test_runs_and_sweeps_refuse_a_repeated_key() -> None:
    twice = "method.r_pattern={q:4,q:5}"
    with pytest.raises(InputError, match="is given twice"):
        compose([*TINY, twice])
    with pytest.raises(InputError, match="is given twice"):
        load(compose, [*TINY, f"{twice},{{q:8}}"])
    assert resolve(compose([*TINY, "method.r_pattern={q:4,v:5}"])).run.method.r_pattern == {"q": 4, "v": 5}  # pyright: ignore


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_folder_of_ones_own_whose_files_name_a_key_twice_is_refused(tmp_path: Path, name: str) -> None:
    bases(tmp_path)
    folder = tmp_path / "models" / "whole"
    text = (folder / name).read_text()
    key = next(iter(json.loads(text)))
    (folder / name).write_text(text.rstrip()[:-1] + f', "{key}": null}}')
    with pytest.raises(MissingInputError, match=f"{key}.*twice"):
        identify_local(str(folder))


def test_the_same_value_twice_is_no_contradiction() -> None:
    assert parse_foreign_json(b'{"a": 1, "b": {"c": 2}, "a": 1}') == {"a": 1, "b": {"c": 2}}


def test_a_key_is_looked_for_once_in_a_large_object() -> None:
    class Key(str):
        """Counts how often it is compared."""

        compared = 0

        def __eq__(self, other: object) -> bool:
            Key.compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    keys = [Key(f"k{number}") for number in range(2000)]
    with pytest.raises(ValueError, match="'k1999' twice"):
        once([*((key, 0) for key in keys), (Key("k1999"), 1)])
    assert Key.compared < 10 * len(keys)
