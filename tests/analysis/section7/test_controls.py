"""What stands beside measured similarities as a control: other seeds, permuted labels, and runs of fewer directions."""

import re
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import Figures, smoke
from helpers.fixture_types import Captured
from helpers.handmade_runs import jobs
from helpers.section7_runs import SECTION7, SHARED, factors, fill, item, section7, write_toy
from safetensors.numpy import load_file, save_file

from analysis.adapters import Options, read
from analysis.section7.chance import START
from analysis.section7.compared_runs import ComparedRuns, read_updates
from analysis.section7.subspace import directions, phi_grid, rho
from lora_repro.store.adapter_identity import PEFT_WEIGHTS

pytestmark = pytest.mark.usefixtures("one_cache")


def test_permuted_labels_stand_beside_where_they_have_moved_as_far(store: Path, drawn: Figures) -> None:
    figure = drawn("3")
    halfway = [
        load_file(store / "runs" / section7(r, 0, permuted=True).run_id / "snapshots" / "0.5.safetensors")
        for r in (8, 16)
    ]
    name = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight"
    expected = phi_grid(*(directions(tensors[name]) for tensors in halfway))
    assert np.array(figure.data[0]["permuted"]) == pytest.approx(expected)
    high = np.array(figure.data[0]["nulls"]["Gaussian"]["high"])
    above = figure.data[0]["permuted_outside"]["Gaussian"]["above"]
    assert (
        above == (expected > high).sum()
        and f"Crosses outside the bands: W_q of layer 0: {above} above Gaussian" in figure.err
    )
    assert re.search(r"r = 8, seed 0: (\d+\.\d\d) after 0.5 of training \(true labels: \1\)", figure.err)


def test_the_second_rank_of_another_seed_stands_beside(store: Path, drawn: Figures, capsys: Captured) -> None:
    figure = drawn("3")
    compared = ComparedRuns(item("3"), "smoke", store)
    one, other = compared.finished([(8, 0), (16, 1)])
    for entry, first, second in zip(
        figure.data, one.updates(compared.sites), other.updates(compared.sites), strict=True
    ):
        assert entry["other_seed"] == phi_grid(directions(first.A), directions(second.A)).tolist()
    assert figure.data[0]["other_seed_run_id"] == other.run_id and "Diamonds: r = 16 of seed 1 instead;" in figure.err
    figure = drawn("shared_directions")
    for entry, first, second in zip(
        figure.data[:2], one.updates(compared.sites), other.updates(compared.sites), strict=True
    ):
        assert entry["other_seed"][0] == rho(directions(first.A), directions(second.A)).tolist()
    assert "Diamonds: r = 16 of the next seed instead;" in figure.err
    of_one_seed = (smoke(capsys, store, number, "seed=1", "--format", "json") for number in ("3", "shared_directions"))
    for figure in (drawn("4"), *of_one_seed):
        assert figure.data[0]["other_seed"] is None and "Diamonds" not in figure.err


def test_two_ranks_of_a_seed_had_one_permutation_and_two_seeds_have_two(drawn: Figures) -> None:
    for number, words in (
        ("3", "by one permutation, so the two share labels that mean nothing"),
        ("4", "by two permutations, so labels teach the two nothing in common"),
        ("shared_directions", "by one permutation"),
    ):
        assert words in drawn(number).err


def test_a_run_on_permuted_labels_that_moved_much_less_is_no_control(tmp_path: Path, capsys: Captured) -> None:
    fill(tmp_path)
    beside = tmp_path / "runs" / section7(16, 0, permuted=True).run_id
    for fraction in ("0.5", "1"):
        (beside / "snapshots" / f"{fraction}.safetensors").unlink()
    save_file(factors(section7(16, 0), SHARED / 2), beside / "snapshots" / "0.25.safetensors")
    drawn = smoke(capsys, tmp_path, "3", "--format", "json")
    assert drawn.code == 0 and drawn.data[0]["permuted"] is None
    assert re.search(
        rf"shown: .* of {beside.name} .* \(after 0.25 of training\) and .* more than 1.5 times apart", drawn.err
    )
    drawn = smoke(capsys, tmp_path, "shared_directions", "--format", "json")
    assert drawn.code == 0 and [beside is None for beside in drawn.data[0]["permuted"]] == [True, False]
    assert "times apart" in drawn.err and "Crosses outside the bands: seed 1: " in drawn.err


def without_columns_of_B(path: Path, count: int) -> None:
    """Makes B A of fewer directions than its rank."""
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if "lora_B" in name:
            tensor[:, :count] = 0
    save_file(tensors, path)


@pytest.mark.parametrize("side", ["B", "dW-right", "dW-left"])
def test_runs_with_fewer_directions_than_ranks_are_compared_in_what_all_have(
    side: str, tmp_path: Path, capsys: Captured
) -> None:
    fill(tmp_path)
    without_columns_of_B(tmp_path / "runs" / section7(8, 1).run_id / "adapter" / PEFT_WEIGHTS, 2)
    drawn = smoke(
        capsys, tmp_path, "shared_directions", "--side", side, "--format", "json", "--out", str(tmp_path / "x.svg")
    )
    assert drawn.code == 0 and np.shape(drawn.data[0]["rho"]) == (2, 6)
    without_columns_of_B(tmp_path / "runs" / section7(8, 0, permuted=True).run_id / "snapshots" / "0.5.safetensors", 2)
    drawn = smoke(capsys, tmp_path, "3", "--side", side, "--format", "json", "--out", str(tmp_path / "x.svg"))
    assert drawn.code == 0 and drawn.data[0]["permuted"] is None and np.shape(drawn.data[0]["phi"]) == (8, 16)
    assert "has fewer directions than 8 and 16" in drawn.err


def test_each_seed_has_bands_of_its_own_where_its_B_is_kept(store: Path, drawn: Figures, capsys: Captured) -> None:
    of_A = drawn("shared_directions")
    of_dW = smoke(capsys, store, "shared_directions", "--side", "dW-right", "--format", "json")
    for figure, differ in ((of_A, False), (of_dW, True)):
        first, second = (nulls[START]["high"] for nulls in figure.data[0]["nulls"])
        assert (first != second) is differ
        assert ("Drawn are the nulls of seed 0; each seed is counted against its own." in figure.err) is differ


def test_a_rank_as_large_as_the_space_holds_everything_and_is_no_finding(tmp_path: Path, capsys: Captured) -> None:
    given = ("method.r=4,32", "seed=0")
    for job in {job.run_id: job for job in jobs(*SECTION7, *given, "task.permute_labels=false")}.values():
        write_toy(tmp_path, job)
    for number in ("3", "shared_directions"):
        drawn = smoke(capsys, tmp_path, number, *given, "--format", "json", "--out", str(tmp_path / "x.svg"))
        assert drawn.code == 0, drawn.err
        for entry in drawn.data:
            nulls = entry["nulls"] if number == "3" else entry["nulls"][0]
            values = np.array(entry["phi"])[:, -1] if number == "3" else np.array(entry["rho"])
            np.testing.assert_allclose(values, 1)
            if number != "3":
                assert all(null["above"] == null["below"] == 0 for null in nulls.values())


def test_runs_on_true_and_on_permuted_labels_stand_beside_each_other(store: Path, drawn: Figures) -> None:
    figure = drawn("3")
    compared = ComparedRuns(item("3"), "smoke", store)
    (one,) = compared.finished([(8, 0)])
    job = section7(16, 0, permuted=True)
    snapshot = store / "runs" / job.run_id / "snapshots" / "0.5.safetensors"
    others = read_updates(snapshot, job.resolved.run, compared.sites)
    for entry, first, second in zip(figure.data, one.updates(compared.sites), others, strict=True):
        assert entry["other_labels"] == phi_grid(directions(first.A), directions(second.A)).tolist()
    assert "which share inputs and no labels. Outside the bands: W_q of layer 0: " in figure.err
    figure = drawn("shared_directions")
    for entry, first, second in zip(figure.data[:2], one.updates(compared.sites), others, strict=True):
        assert entry["other_labels"][0] == rho(directions(first.A), directions(second.A)).tolist()


def test_a_run_on_permuted_labels_is_called_so(store: Path) -> None:
    found = [read(section7(8, 0, permuted).run_id, Options(store=str(store))).format for permuted in (False, True)]
    assert found == ["run of lora", "run of lora on permuted labels"]
