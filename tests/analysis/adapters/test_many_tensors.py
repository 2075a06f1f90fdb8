"""Names of tensors, lists of many, the smallest matrices, and tensors without plain values."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.commands import call
from helpers.fixture_types import Captured
from helpers.handmade_adapters import factors, write_peft
from safetensors.numpy import save_file

from analysis.adapters import Options, read
from analysis.adapters.backbone import Backbone
from analysis.adapters.names import named
from analysis.adapters.tensors import open_tensors
from analysis.foreign_text import first_names, grouped
from analysis.section7.subspace import above_edge
from lora_repro.errors import InputError


@pytest.mark.parametrize(
    ("module", "last"),
    [
        ("a.b", "b"),
        ("net.2", "net.2"),
        ("x.net.2", "net.2"),
        ("7", "7"),
        ("a.b2", "b2"),
        (".1", ".1"),
        ("x" * 9, "x" * 9),
    ],
)
def test_the_last_name_of_a_module_takes_the_one_before_a_number(module: str, last: str) -> None:
    assert named(module).role == last


def test_a_weight_of_the_base_is_found_by_what_its_name_ends_with(tmp_path: Path) -> None:
    names = ["bert.encoder.layer.0.q.weight", "bert.decoder.layer.0.q.weight", "bert.decoder.layer.1.q.weight", "score"]
    save_file({name: np.ones((2, 2)) for name in names}, tmp_path / "base.safetensors")
    base = Backbone(open_weights=lambda: open_tensors(tmp_path / "base.safetensors"))
    expected = {
        "encoder.layer.0.q.weight": names[0],
        "model.bert.encoder.layer.0.q.weight": names[0],
        "layer.1.q.weight": names[2],
        "layer.0.q.weight": None,  # of two
        "weight": None,
        "core": None,
        "score": "score",
    }
    assert {name: base.find_weight(name) for name in expected} == expected


def test_lists_are_bounded_wherever_many_are_meant(tmp_path: Path, capsys: Captured) -> None:
    write_peft(tmp_path / "a", factors(r=2, seed=0, layers=60, roles="q", d=8))
    code, out, err = call(capsys, "inspect", tmp_path / "a", "--layers", "0-9999")
    assert (code, out) == (1, "") and "has no 60 (given: 0, 1, 2," in err and "(10000 in all)" in err and len(err) < 700
    code, out, err = call(capsys, "inspect", tmp_path / "a", "--weights", ",".join(f"w{n}" for n in range(2000)))
    assert code == 1 and len(err) < 700 and "(2000 in all)" in err
    assert len(first_names(range(10**5))) < 200 and first_names([1, "a\n"]) == "1, a\\n"
    assert grouped(f"{chr(97 + n % 26)}{n}x.bias" for n in range(500)).endswith("... (500 in all)")


@pytest.mark.parametrize(("r", "d_in", "d_out"), [(1, 1, 1), (1, 1, 5), (1, 5, 1), (3, 1, 1), (2, 2, 2)])
def test_the_smallest_matrices_have_figures(r: int, d_in: int, d_out: int, tmp_path: Path, capsys: Captured) -> None:
    rng = np.random.default_rng(0)
    save_file(
        {"x.lora_A": rng.normal(size=(r, d_in)), "x.lora_B": rng.normal(size=(d_out, r)), "y.lora_A": np.ones((1, 1)),
         "y.lora_B": np.ones((1, 1))}, tmp_path / "a.safetensors",
    )  # fmt: skip
    for command in (("inspect",), ("compare", tmp_path / "a.safetensors")):
        code, _, err = call(capsys, *command, tmp_path / "a.safetensors")
        assert code == 0, err
    assert above_edge(np.full((1, 1), 4.0), 1.0) == 1 and above_edge(np.ones((1, 1)), 1.0) == 0


@pytest.mark.parametrize(
    "tensor",
    [
        torch.empty(2, 2, device="meta"),
        torch.ones(2, 2).to_sparse(),
        torch.complex(torch.ones(2, 2), torch.ones(2, 2)),
    ],
    ids=["meta", "sparse", "complex"],
)
def test_tensors_without_plain_values_are_refused_in_words(tensor: torch.Tensor, tmp_path: Path) -> None:
    torch.save({"x.lora_A": tensor, "x.lora_B": torch.ones(2, 2)}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"x\.lora_A says to be larger than the file, or is no plain tensor"):
        read(str(tmp_path / "a.pt"), Options())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_tensors_are_refused_in_words(tmp_path: Path) -> None:
    nested = torch.nested.nested_tensor([torch.ones(2, 2), torch.ones(3, 2)])
    torch.save({"x.lora_A": nested, "x.lora_B": torch.ones(2, 2)}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"no plain tensor|holds more than tensors"):
        read(str(tmp_path / "a.pt"), Options())
