"""task.permute_labels: a run that learns its training labels by heart, as there is nothing else to learn."""

from collections import Counter

import pytest
from helpers.fixture_types import Compose
from omegaconf import DictConfig

from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.tasks import Example, encoding, permuted
from lora_repro.tasks.encoding import Encoded, encode
from lora_repro.training.job import run_job


def splits(cfg: DictConfig) -> dict[str, Encoded]:
    resolved = resolve(cfg)
    return encode(resolved.run, resolved.settings)


def test_labels_are_permuted_and_nothing_else() -> None:
    examples = [Example(str(i), f"text {i}", i % 3, "d") for i in range(60)]
    found = permuted(examples, 0)
    assert [example._replace(target=0) for example in found] == [example._replace(target=0) for example in examples]
    assert Counter(example.target for example in found) == Counter(example.target for example in examples)
    agree = sum(one.target == other.target for one, other in zip(found, examples, strict=True))
    assert 8 <= agree <= 34  # a third of them by chance, give or take 4 standard deviations
    assert permuted(examples, 0) == found != permuted(examples, 1)


@pytest.mark.parametrize("model", [["model=tiny_bert"], ["model=tiny_llama", "task.form=text"]])
def test_only_training_labels_are_permuted_each_seed_anew(tiny: Compose, model: list[str]) -> None:
    """Also where the splits of the run before are still at hand."""
    plain = splits(tiny(*model))
    zero = splits(tiny(*model, "task.permute_labels=true", "seed=0"))
    one = splits(tiny(*model, "task.permute_labels=true", "seed=1"))
    again = splits(tiny(*model, "seed=1"))
    train = [of["train"].targets.tolist() for of in (plain, zero, one, again)]
    assert train[0] == train[3] and train[1] != train[0] != train[2] != train[1]
    assert sorted(train[1]) == sorted(train[0])
    assert zero["train"].targets.tolist() == [example.target for example in zero["train"].examples]
    assert zero["train"].inputs["input_ids"].equal(plain["train"].inputs["input_ids"])
    for name in ("eval", "test"):
        assert zero[name].examples == plain[name].examples
        assert zero[name].targets.equal(plain[name].targets)


def test_seeds_share_the_splits_where_nothing_is_permuted(tiny: Compose) -> None:
    assert splits(tiny("seed=0"))["train"] is splits(tiny("seed=1"))["train"]


def test_two_tasks_in_turn_are_encoded_once_each_where_both_are_small(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "_encoded", {})
    one, other = tiny(), tiny("train.max_length=8")
    assert splits(one)["train"] is not splits(other)["train"]
    first, second = splits(one)["train"], splits(other)["train"]
    assert splits(one)["train"] is first and splits(other)["train"] is second
    monkeypatch.setattr(encoding, "KEPT_BYTES", 0)
    splits(tiny("train.max_length=12"))
    assert len(encoding._encoded) == 1


def test_a_run_on_permuted_labels_is_another_run_and_trains(tiny: Compose) -> None:
    cfg = tiny("task.permute_labels=true")
    assert run_id(resolve(cfg).run) != run_id(resolve(tiny()).run)
    assert 0 <= run_job(cfg)["eval/accuracy"] <= 1
