from typing import Any

import pytest
import torch
from helpers.architectures import PAPER_ARCHS
from helpers.fixture_types import Compose

from lora_repro.config.compose import compose
from lora_repro.config.resolve import resolve
from lora_repro.errors import InputError
from lora_repro.methods import LoRAConfig
from lora_repro.methods.chosen_layers import read_layers, shown_layers
from lora_repro.training.train import build

BASE = PAPER_ARCHS["roberta_base"]


def lora(layers: Any, *targets: str) -> LoRAConfig:
    return LoRAConfig("lora", list(targets or ("q", "v")), 8, 8.0, 0.0, layers=layers)


@pytest.mark.parametrize(
    ("given", "layers"),
    [
        (5, [5]),
        ("5-5", [5]),
        ("4-11", [*range(4, 12)]),
        ([2, 0], [0, 2]),
        ([0, "4-6"], [0, 4, 5, 6]),
        (None, None),
    ],
)
def test_layers_are_numbers_or_ranges_with_both_ends(given: Any, layers: Any) -> None:
    assert read_layers(given) == layers
    assert lora(given).count(BASE).method == 2 * 2 * 768 * 8 * len(layers if layers is not None else range(12))


def test_every_layer_is_one_configuration_however_it_is_written() -> None:
    for given in (None, "0-11", [*range(12)]):
        method = lora(given)
        method.check(BASE)
        assert method == lora(None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("12", r"numbers of layers, counted from 0 \(given: 12\)"),
        (12, r"there is no layer 12 \(given: 12\)\.\nThis model has layers 0 to 11"),
        ([-1], "there is no layer -1"),
        ("8-12", r"there is no layer 12 \(given: 8-12\)"),
        ("11-4", "begins with its lower end"),
        ("4-", "numbers of layers"),
        ([1, 1], "1 is named more than once"),
        (["0-3", 2], "2 is named more than once"),
        ([], "numbers of layers"),
        ("", "numbers of layers"),
        ([True], "numbers of layers"),
        ([1.0], "numbers of layers"),
        ({"a": 1}, "numbers of layers"),
        (1.5, "numbers of layers"),
        ("0-999999", "there is no layer 12"),
    ],
)
def test_layers_that_do_not_exist_are_refused(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=rf"method\.layers: .*{message}"):
        lora(given).check(BASE)


def test_the_token_embedding_is_in_no_layer() -> None:
    with pytest.raises(InputError, match=r"the token embedding is in no layer.*\nLeave embed out"):
        lora([0], "q", "embed").check(BASE)


def test_a_rank_for_a_layer_that_is_not_adapted_is_refused() -> None:
    method = lora([1, 2, 3])
    method.r_pattern = {"layers.0": 2}
    with pytest.raises(InputError, match=r"names none of the adapted matrices \(q, v of layers 1-3\)"):
        method.check(BASE)


@pytest.mark.parametrize("layers", [[0], [0, 1, 2, 5], [1, 3]])
def test_layers_are_shown_as_they_can_be_given(layers: list[int]) -> None:
    assert read_layers([int(p) if p.isdigit() else p for p in shown_layers(layers).split(", ")]) == layers


def test_a_whole_number_a_range_and_a_list_are_taken_from_the_command_line() -> None:
    for given in ("1", "1-1", "[1]", "['1-1']"):
        method = resolve(compose(["model=tiny_bert", "task=generated", f"method.layers={given}"])).run.method
        assert isinstance(method, LoRAConfig) and method.layers == [1]


def test_an_adapted_layer_starts_as_it_does_among_all(tiny: Compose) -> None:
    cpu = torch.device("cpu")
    one, whole = (build(resolve(tiny(*given)), cpu).state_dict() for given in (["method.layers=[1]"], []))
    factors = [name for name in one if ".lora_A" in name]
    assert len(factors) == 2 and all(torch.equal(one[name], whole[name]) for name in factors)
    assert len([name for name in whole if ".lora_A" in name]) == 4
