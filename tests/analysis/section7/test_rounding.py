"""Rounding of stored weights beside W' - W: how large it is, and which directions of an update stand above it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.commands import call
from helpers.fixture_types import Captured
from safetensors.torch import save_file

from analysis.section7.rounding import precision_of, rounding_of

TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def stored(values: np.ndarray, kept_as: str) -> np.ndarray:
    """The values as they come back from a file of this type."""
    return torch.tensor(values).to(TYPES[kept_as]).double().numpy()


def merged(kept_as: str, size: float, shape: tuple[int, int], base_as: str = "F64") -> tuple[np.ndarray, np.ndarray]:
    """W and W' = W + dW as it is stored, of a dW of rank 2 whose entries are of this size, in steps of the type."""
    rng = np.random.default_rng(0)
    W = rng.normal(0, 0.05, shape)
    W = W if base_as == "F64" else stored(W, base_as)
    step = 0.05 * 2.0 ** {"BF16": -8, "F16": -11, "F32": -24}[kept_as]
    dW = size * step * rng.normal(size=(shape[0], 2)) @ rng.normal(size=(2, shape[1]))
    return W, stored(W + dW, kept_as)


@pytest.mark.parametrize("kept_as", TYPES)
@pytest.mark.parametrize(("size", "directions"), [(0.02, 0), (1, 2), (10, 2), (100, 2)])
@pytest.mark.parametrize("shape", [(24, 24), (192, 384)])
def test_directions_above_rounding_are_those_of_the_update(
    kept_as: str, size: float, directions: int, shape: tuple[int, int]
) -> None:
    """All 24 or 192 singular values of W' - W are above zero; those of the update stand out, or none does."""
    W, W_1 = merged(kept_as, size, shape)
    s = np.linalg.svd(W_1 - W, compute_uv=False)
    found = rounding_of(W_1, W, float(np.linalg.norm(s)))
    assert (found.kept_as, found.of_base) == (kept_as, False) and s[-1] > 0
    assert int((s > found.edge).sum()) == directions


@pytest.mark.parametrize("kept_as", TYPES)
@pytest.mark.parametrize("rows", [np.ones(192), np.geomspace(1e-3, 1, 192)])
def test_norm_and_edge_are_those_of_rounding_alone(kept_as: str, rows: np.ndarray) -> None:
    """For rows of one size and of different ones; 24 x 192 and 192 x 24 are alike."""
    W = np.random.default_rng(0).uniform(0.5, 1, (192, 96)) * rows[:, None]
    for turned in (W, W.T):
        error = np.linalg.svd(stored(turned, kept_as) - turned, compute_uv=False)
        found = rounding_of(stored(turned, kept_as), turned, float(np.linalg.norm(error)))
        assert found.norm == pytest.approx(np.linalg.norm(error), rel=0.02)
        assert 0.9 * error[0] < found.edge < 1.8 * error[0] and error[0] < found.edge


def test_precision_is_that_of_the_values_whatever_the_file_says() -> None:
    values = np.random.default_rng(0).normal(size=(8, 8))
    found = {kept_as: precision_of(stored(values, kept_as)).name for kept_as in TYPES}
    assert found == {kept_as: kept_as for kept_as in TYPES} and precision_of(values).name == "F64"
    assert precision_of(stored(values, "BF16").astype(np.float32)).name == "BF16"
    assert precision_of((values * 1e30).astype(np.float32)).name == "F32"  # too large for F16


def test_zeros_are_not_rounded() -> None:
    W = np.zeros((4, 6))
    W[0, 0] = 1 / 3
    found = rounding_of(stored(W, "BF16"), W, 1e-3)
    assert found.norm == pytest.approx(2.0**-9 / np.sqrt(12), rel=1e-6)


def test_a_rounded_base_is_exact_where_the_training_started_at_it() -> None:
    """W' has more digits than W. If W was cut after the training, W' - W has at least the rounding's norm."""
    rng = np.random.default_rng(0)
    W = rng.normal(0, 0.05, (96, 96))
    dW = 1e-6 * rng.normal(size=(96, 2)) @ rng.normal(size=(2, 96))
    cut = stored(W, "BF16")
    for start, of_base, kept_as in ((W, True, "BF16"), (cut, False, "F32")):
        W_1 = stored(start + dW, "F32")
        found = rounding_of(W_1, cut, float(np.linalg.norm(W_1 - cut)))
        assert (found.of_base, found.kept_as) == (of_base, kept_as)
        above = int((np.linalg.svd(W_1 - cut, compute_uv=False) > found.edge).sum())
        assert above == (0 if of_base else 2)


@pytest.mark.parametrize("kept_as", TYPES)
def test_inspect_and_compare_tell_the_rounding_beside_a_merged_update(
    kept_as: str, tmp_path: Path, capsys: Captured
) -> None:
    name = "model.layers.{}.self_attn.q_proj.weight"
    kinds = {"base": {}, "trained": {}}
    for layer, size in enumerate((0.02, 20)):
        W, W_1 = merged(kept_as, size, (24, 24), base_as="F32")
        kinds["base"][name.format(layer)] = torch.tensor(W).float()
        kinds["trained"][name.format(layer)] = torch.tensor(W_1).to(TYPES[kept_as])
    for kind, tensors in kinds.items():
        save_file(tensors, tmp_path / f"{kind}.safetensors")
    trained, base = tmp_path / "trained.safetensors", tmp_path / "base.safetensors"
    code, out, err = call(capsys, "inspect", trained, "--base", base, "--format", "json")
    small, large = json.loads(out)
    assert code == 0 and (small["above_rounding"], large["above_rounding"], large["r"]) == (0, 2, 24)
    assert large["rounding_edge"] < large["singular_values"][1] and large["rounding"] < large["norm"] / 3
    assert "in 2 of 2 matrices some directions of dW are no larger than what the rounding of the trained" in err
    assert f"to {kept_as} alone makes" in err and ("near one step" in err) == (kept_as == "F32")
    header, _, *rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in call(capsys, "inspect", trained, "--base", base)[1].splitlines()
        if line.startswith("|")
    ]
    at = header.index("norm of rounding")
    assert header[at + 1] == "above rounding" and [row[at + 1] for row in rows] == ["0", "2"]
    assert float(rows[1][at]) == pytest.approx(large["rounding"], rel=1e-2)
    for side in ("A", "dW-left"):
        command = ("compare", trained, trained, "--base", base, "--format", "json", "--side", side)
        code, out, err = call(capsys, *command)
        assert [entry["above_rounding"] for entry in json.loads(out)] == [[0, 0], [2, 2]]
        assert f"to {kept_as} alone makes" in err
