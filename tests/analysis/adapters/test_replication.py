"""PEFT's layer_replication, against PEFT: each replicated layer beside the base's layer that it was copied from."""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from helpers.commands import call
from helpers.fixture_types import Captured
from helpers.foreign_adapters import SIZES, added_by, base, peft_folder
from helpers.handmade_adapters import factors, write_peft
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.numpy import save_file

from analysis.adapters import Options, read
from lora_repro.errors import InputError, MissingInputError

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),  # PEFT asks by an old name
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning"),
]


@pytest.mark.parametrize("replication", [[[0, 2], [1, 3]], [[2, 3], [0, 1]], [[0, 3], [0, 3], [2, 3]]])
@pytest.mark.parametrize(("family", "targets"), [("llama", ["q_proj", "down_proj"]), ("bert", ["query", "value"])])
@pytest.mark.parametrize("base_as", ["folder", "file"])
def test_replicated_layers_stand_beside_the_layers_they_are_copies_of(
    family: str,
    targets: list[str],
    replication: list[list[int]],
    base_as: str,
    tmp_path: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = {**SIZES[family], "num_hidden_layers": 3, "initializer_range": 0.5}
    monkeypatch.setitem(SIZES, family, sizes)
    model = base(family)
    model.save_pretrained(tmp_path / "base")
    config: dict[str, Any] = dict(r=2, target_modules=targets, layer_replication=replication)
    peft_folder(tmp_path / "peft", model, **config)
    theirs = PeftModel.from_pretrained(base(family), str(tmp_path / "peft"))
    expected = {
        name: float(added_by(layer).norm() / cast(Any, layer).get_base_layer().weight.double().norm())
        for name, layer in theirs.get_base_model().named_modules()
        if isinstance(layer, LoraLayer)
    }
    given = tmp_path / "base" if base_as == "folder" else tmp_path / "base" / "model.safetensors"
    code, out, err = call(capsys, "inspect", tmp_path / "peft", "--base", given, "--format", "json")
    found = {entry["module"]: entry["relative_norm"] for entry in json.loads(out)}
    assert code == 0 and found == pytest.approx(expected, rel=1e-5)
    copies = [layer for begin, end in replication for layer in range(begin, end)]
    assert sorted({entry["layer"] for entry in json.loads(out)}) == list(range(len(copies)))
    assert len({f"{norm:.5f}" for norm in expected.values()}) == len(expected)  # no two layers are alike
    assert f"copies of the base's layers {', '.join(map(str, copies))}." in err


@pytest.mark.parametrize(
    ("replication", "error"),
    [
        ([[0, 1]], "makes 1 layers"),
        ([[0, 10**9]], "more than 10000 layers"),
        ([[0, 5]] * 3000, "more than 10000 layers"),
        ([[0]], "must be pairs"),
        ([[-1, 1]], "must be pairs"),
        ([[0, 1.5]], "must be pairs"),
        ({"0": 2}, "must be"),
        ("0-2", "must be"),
    ],
)
def test_impossible_replications_are_refused(replication: Any, error: str, tmp_path: Path) -> None:
    path = write_peft(tmp_path / "a", factors(r=2, seed=0)) / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layer_replication": replication}))
    with pytest.raises((InputError, MissingInputError), match=error):
        read(str(tmp_path / "a"), Options(base=str(_base(tmp_path, layers=(0, 1)))))


def _base(folder: Path, layers: tuple[int, ...], d: int = 24) -> Path:
    """A base of q and v, each layer's larger than the one before."""
    path = folder / "base.safetensors"
    rng = np.random.default_rng(1)
    save_file(
        {
            f"model.layers.{layer}.self_attn.{role}_proj.weight": (1 + layer) * rng.normal(size=(d, d))
            for layer in layers
            for role in "qv"
        },
        path,
    )
    return path


def test_layers_are_found_by_their_numbers_where_some_are_cut_out(tmp_path: Path, capsys: Captured) -> None:
    """A pruned base keeps the numbers of what is left; an adapter of some of its layers has those numbers."""
    made = {(layer, role): pair for (layer, role), pair in factors(r=2, seed=0, layers=8).items() if layer in (3, 7)}
    write_peft(tmp_path / "a", made)
    command = ("inspect", tmp_path / "a", "--base", _base(tmp_path, (0, 3, 7)), "--format", "json")
    sizes = [entry["norm"] / entry["relative_norm"] for entry in json.loads(call(capsys, *command)[1])]
    np.testing.assert_allclose(sizes, np.repeat([4 * 24, 8 * 24], 2), rtol=0.1)
    command = ("inspect", tmp_path / "a", "--base", _base(tmp_path, (0, 1, 7)), "--format", "json")
    _, out, err = call(capsys, *command)
    assert [entry["relative_norm"] is None for entry in json.loads(out)] == [True, True, False, False]
    assert "does not have them: model.layers.3.self_attn.q_proj (q), model.layers.3.self_attn.v_proj (v)." in err


def test_a_base_of_other_widths_is_refused(tmp_path: Path, capsys: Captured) -> None:
    write_peft(tmp_path / "a", factors(r=2, seed=0))
    code, out, err = call(capsys, "inspect", tmp_path / "a", "--base", _base(tmp_path, (0, 1), d=32))
    assert (code, out) == (1, "") and "the update is of 24 x 24" in err and "of 32 x 32" in err


def test_peft_takes_layers_to_transform_by_the_names_it_writes(tmp_path: Path, capsys: Captured) -> None:
    model = base("llama")
    model.save_pretrained(tmp_path / "base")
    config = LoraConfig(r=2, target_modules=["q_proj"], layers_to_transform=[1], layers_pattern="layers")
    get_peft_model(model, config, adapter_name="default").save_pretrained(str(tmp_path / "peft"))
    out = call(capsys, "inspect", tmp_path / "peft", "--base", tmp_path / "base", "--format", "json")[1]
    assert [entry["module"] for entry in json.loads(out)] == ["model.layers.1.self_attn.q_proj"]
