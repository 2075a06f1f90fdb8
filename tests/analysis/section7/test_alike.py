"""`python -m analysis compare` of adapters with one start, one factor, or one adapter under two names."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import call
from helpers.fixture_types import Captured
from helpers.handmade_adapters import Factors, factors, write_peft

from analysis.section7.alike import alike

D = 48


def start(seed: int, r: int = 4) -> Factors:
    """A as PEFT draws it, and a B."""
    rng = np.random.default_rng(seed)
    return {
        (layer, role): (
            (rng.uniform(-1, 1, (r, D)) / np.sqrt(D)).astype(np.float32),
            rng.normal(size=(D, r)).astype(np.float32),
        )
        for layer in range(2)
        for role in "qv"
    }


def trained(made: Factors, seed: int, by: float) -> Factors:
    """Moves A by so many times its norm along a few directions of this matrix, which all adapters learn; B anew."""
    rng, common = np.random.default_rng(seed), np.random.default_rng(99)
    found = {}
    for place, (A, B) in made.items():
        step = rng.normal(size=(len(A), 2)) @ common.normal(size=(2, D))
        step *= by * np.linalg.norm(A) / np.linalg.norm(step)
        found[place] = (A + step).astype(np.float32), rng.normal(size=B.shape).astype(np.float32)
    return found


def write(folder: Path, made: Factors, alpha: float = 8) -> Path:
    write_peft(folder, made, alpha)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"init_lora_weights": True}))
    return folder


def words(capsys: Captured, first: Path, second: Path, side: str = "A") -> tuple[str, list[dict[str, object]]]:
    code, out, err = call(capsys, "compare", first, second, "--side", side, "--format", "json")
    assert code == 0
    return err, json.loads(out)


def test_A_that_never_left_one_start_is_told(tmp_path: Path, capsys: Captured) -> None:
    one, other = (write(tmp_path / str(seed), trained(start(0), seed, by=0)) for seed in (1, 2))
    err, entries = words(capsys, one, other)
    assert "A of the two is the same in 4 of 4 matrices: frozen, or it never left their one start." in err
    assert "None of its directions stands out of an untrained A." in err and "--side B" in err
    for entry in entries:
        assert entry["A_cosine"] == pytest.approx(1) and entry["above_edge"] == [0, 0]
        assert abs(float(str(entry["B_cosine"]))) < 0.5 and entry["moved"] == [None, None]
    assert "A of the two is the same" in call(capsys, "compare", one, other)[1]
    assert "A of the two is the same" in words(capsys, one, other, "dW-right")[0]
    for side in ("B", "dW-left"):
        assert words(capsys, one, other, side)[0] == ""
    page = tmp_path / "page.html"
    call(capsys, "compare", one, other, "--html", page)
    assert "A of the two is the same in 4 of 4 matrices" in page.read_text()


@pytest.mark.parametrize("by", [0.05, 0.3, 0.5])
@pytest.mark.parametrize("ranks", [(4, 4), (4, 16)])
def test_A_that_has_kept_a_part_of_one_start_is_told(
    by: float, ranks: tuple[int, int], tmp_path: Path, capsys: Captured
) -> None:
    """Torch draws the first rows of r = 16 as those of r = 4, where both come first after the seed."""
    wide = start(0, max(ranks))
    made = [{place: (A[:r], B[:, :r]) for place, (A, B) in wide.items()} for r in ranks]
    one, other = (write(tmp_path / str(seed), trained(each, seed, by)) for seed, each in zip((1, 2), made, strict=True))
    err, entries = words(capsys, one, other)
    assert "Row by row A of the two is alike (cosine 0." in err and "one was trained from the other" in err
    cosines = [float(str(entry["A_cosine"])) for entry in entries]
    assert np.mean(cosines) == pytest.approx(1 / (1 + by**2), abs=0.15)
    assert f"{min(cosines):.3f} to {max(cosines):.3f}" in err


@pytest.mark.parametrize("by", [0, 0.3, 1.0, 10])
def test_what_two_starts_learned_alike_is_no_common_start(by: float, tmp_path: Path, capsys: Captured) -> None:
    """At 10 times its norm A is nothing but the two directions that both have learned, and phi is 1."""
    for seed in range(4):
        one, other = (write(tmp_path / f"{seed} {n}", trained(start(100 * n + seed), seed + n, by)) for n in (1, 2))
        err, entries = words(capsys, one, other)
        assert err == "" and all(abs(float(str(entry["A_cosine"]))) < 0.9 for entry in entries)


@pytest.mark.parametrize(
    ("factor", "alpha", "said"),
    [
        (1, 8, "same in all 4 matrices."),
        (3, 8, "and dW of the second is 3 times the first's"),
        (-1, 8, "is -1 times"),
        (1, 4, "is 0.5 times"),
    ],
)
def test_one_adapter_under_two_names_is_told(
    factor: float, alpha: float, said: str, tmp_path: Path, capsys: Captured
) -> None:
    made = factors(r=3, seed=0)
    scaled = {place: (A, (factor * B).astype(np.float16).astype(np.float32)) for place, (A, B) in made.items()}
    one, other = write(tmp_path / "a", made), write(tmp_path / "b", scaled, alpha)
    for side in ("A", "B", "dW-right"):
        err, _ = words(capsys, one, other, side)
        assert "The two are one adapter" in err and said in err


def test_B_that_never_left_one_start_is_told_where_outputs_are_compared(tmp_path: Path, capsys: Captured) -> None:
    """As in MiCA, whose B is taken from W_0 and stays there."""
    one, other = start(1), start(2)
    other = {place: (A, one[place][1]) for place, (A, _) in other.items()}
    for name, made in (("a", one), ("b", other)):
        write(tmp_path / name, made)
    for side, told in (("B", True), ("dW-left", True), ("A", False), ("dW-right", False)):
        err, _ = words(capsys, tmp_path / "a", tmp_path / "b", side)
        assert ("B of the two is the same in 4 of 4 matrices" in err) == told and (told or err == "")


def test_a_single_row_and_a_zero_factor_have_no_null_of_their_own() -> None:
    A, B = np.ones((1, 4)), np.zeros((4, 1))
    found = alike((A, B, None), (-2 * A, B, 1.0))
    assert (found.A, found.B, found.spread, found.ratio) == (-1, None, 1, None)
    assert alike((A, B, 1.0), (np.ones((1, 5)), B, 1.0)).A is None


@pytest.mark.parametrize(("second", "told"), [(0, True), (1, False)])
def test_single_rows_do_not_show_whether_two_have_one_start(
    second: int, told: bool, tmp_path: Path, capsys: Captured
) -> None:
    one = write(tmp_path / "a", trained(start(0, 1), 1, by=0.3))
    other = write(tmp_path / "b", trained(start(second, 1), 2, by=0.3 * told))
    assert ("do not show whether the two have one start or learned the same" in words(capsys, one, other)[0]) == told
    assert "do not show whether" not in words(capsys, one, other, "B")[0]
