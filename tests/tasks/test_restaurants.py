"""The generated task `restaurants`: several right texts for a meaning, and nothing shared between splits."""

import pytest
from helpers.quick_compose import compose_quickly

from lora_repro.config.resolve import resolve
from lora_repro.config.schema import load_group
from lora_repro.errors import InputError
from lora_repro.tasks import restaurants
from lora_repro.tasks.base import Splits
from lora_repro.tasks.restaurants import DOGS, PRICES, RestaurantsConfig, examples


@pytest.fixture(scope="module")
def task() -> RestaurantsConfig:
    return load_group("task", "restaurants")


@pytest.fixture(scope="module")
def splits(task: RestaurantsConfig) -> Splits:
    return task.load(None, "")


def meaning(text: str) -> dict[str, str]:
    return dict(part.split(" : ") for part in text.split(" | "))  # pyright: ignore[reportReturnType]


def test_train_has_pairs_and_the_others_have_meanings_with_all_their_texts(
    task: RestaurantsConfig, splits: Splits
) -> None:
    assert (
        {split: len(part) for split, part in splits.items()} == {"train": 2400, "eval": 60, "test": 120} == task.sizes()
    )
    assert {len(example.target) for example in splits["train"]} == {1}
    assert {len(example.target) for example in splits["test"]} == {3, 4, 5}
    for split in ("eval", "test"):
        assert len({example.input for example in splits[split]}) == len(splits[split])
        assert all(len(set(example.target)) == len(example.target) for example in splits[split])
    assert len({(example.input, *example.target) for example in splits["train"]}) == 2400
    of_first = [example for example in splits["train"] if example.input == splits["train"][0].input]
    assert splits["train"][: len(of_first)] == of_first and len(of_first) in (3, 4, 5)


def test_no_two_splits_share_a_name_or_the_other_attributes(splits: Splits) -> None:
    names = {split: {meaning(each.text)["name"] for each in part} for split, part in splits.items()}
    others = {split: {each.text.partition(" | ")[2] for each in part} for split, part in splits.items()}
    for one, other in (("train", "eval"), ("train", "test"), ("eval", "test")):
        assert not names[one] & names[other]
        assert not others[one] & others[other]


def test_each_text_says_all_that_is_known_and_reads_well(splits: Splits) -> None:
    for example in splits["test"]:
        of = meaning(example.text)
        for text in example.target:
            for key, value in of.items():
                said = {"dogs": lambda v: DOGS[v][:-1], "price": lambda v: v}.get(key, lambda v: v)(value)
                assert said in text or (key == "price" and f"{PRICES[value]} prices" in text), (key, text)
            assert text[0].isupper() and text.endswith(".") and "  " not in text and ".." not in text
            assert " a e" not in text and " a i" not in text and " an c" not in text


def test_other_sizes_are_other_examples_and_too_many_are_refused(
    task: RestaurantsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"task\.split_sizes: belongs to task=restaurants"):
        resolve(compose_quickly(["model=tiny_llama", "task=restaurants", "task.split_sizes.train=9"]))
    other = RestaurantsConfig("restaurants", "0" * 64, split_sizes={"train": 5, "eval": 2, "test": 2})
    with pytest.raises(InputError, match=r"task\.digest: the generated examples"):
        other.load(None, "")
    monkeypatch.setattr(restaurants, "TRIES", 100)
    with pytest.raises(InputError, match="too few different restaurants for test"):
        examples({"test": 1_000})


def test_what_is_said_before_training(task: RestaurantsConfig, splits: Splits) -> None:
    first, second, *rest = task.notices(splits)
    assert (first, second) == ("restaurants is a generated task.", "Examples: train 2,400, dev 60, test 120.")
    assert [line.partition(":")[0] for line in rest] == ["dev", "test", "train"]
    assert all("references, 3 to 5 an example." in line for line in rest[:2])
    assert not any("in train too" in line for line in rest)
