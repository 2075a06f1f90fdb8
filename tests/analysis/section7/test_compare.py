"""`python -m analysis compare`: phi against dense matrices, chance, the sides, and which matrices belong together."""

import csv
import io
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
from helpers.commands import call
from helpers.fixture_types import Captured
from helpers.handmade_adapters import Factors, factors, write_large, write_loralib, write_peft

from analysis.adapters import Adapter, Matrix
from analysis.commands.options import SIDES
from analysis.section7.comparison import paired
from analysis.section7.sides import Side, directions_of, singular_values_of, slim
from analysis.section7.update import Update


def dense_phi(X: np.ndarray, Y: np.ndarray, side: str, i: int, j: int) -> float:
    """phi(i, j) as the paper defines it (Eq. 4), by full decompositions of two matrices."""
    U, V = (np.linalg.svd(M.astype(float)) for M in (X, Y))
    left = (U[2].T, V[2].T) if side in ("A", "dW-right") else (U[0], V[0])
    return float(np.square(left[0][:, :i].T @ left[1][:, :j]).sum() / min(i, j))


def compared(made: tuple[Factors, Factors], place: tuple[int, str], side: str) -> tuple[np.ndarray, np.ndarray]:
    """The two matrices whose singular vectors a side compares."""
    pairs = [factors[place] for factors in made]
    first, second = (A if side == "A" else B if side == "B" else B.astype(float) @ A for A, B in pairs)
    return first, second


@pytest.mark.parametrize("side", SIDES)
def test_phi_is_the_papers_at_every_cell(side: str, tmp_path: Path, capsys: Captured) -> None:
    made = factors(r=3, seed=0), factors(r=5, seed=1)
    write_peft(tmp_path / "a", made[0])
    write_loralib(tmp_path / "b.safetensors", made[1])
    command = ("compare", tmp_path / "a", tmp_path / "b.safetensors", "--side", side, "--format", "json")
    code, out, err = call(capsys, *command)
    entries = json.loads(out)
    assert code == 0 and "Holds no alpha" in err
    assert [(e["layer"], e["weight"], e["side"]) for e in entries] == [(*place, side) for place in made[0]]
    for entry in entries:
        X, Y = compared(made, (entry["layer"], entry["weight"]), side)
        phi, null = np.array(entry["phi"]), np.array(entry["null"])
        assert phi.shape == null.shape == (3, 5)
        for i in range(1, 4):
            for j in range(1, 6):
                assert phi[i - 1, j - 1] == pytest.approx(dense_phi(X, Y, side, i, j), abs=1e-6)
                assert null[i - 1, j - 1] == pytest.approx(max(i, j) / 24)
        np.testing.assert_allclose(entry["singular_values"][1], np.linalg.svd(Y)[1][:5], rtol=1e-5)
        assert entry["shared_dimensions"] == pytest.approx(3 * phi[2, 4] - 15 / 24)
        np.testing.assert_allclose(np.cumsum(entry["rho"]), phi[:, -1] * [1, 2, 3], atol=1e-6)
        of_inputs = side in ("A", "dW-right")
        spans = [np.linalg.svd(M.astype(float).T if of_inputs else M.astype(float))[0] for M in (X, Y)]
        angles = scipy.linalg.subspace_angles(spans[0][:, :3], spans[1][:, :5])
        np.testing.assert_allclose(entry["principal_angles"], np.degrees(angles[::-1]), atol=1e-4)


def test_an_adapter_shares_everything_with_itself(tmp_path: Path, capsys: Captured) -> None:
    write_peft(tmp_path / "a", factors(r=4, seed=0))
    for entry in json.loads(call(capsys, "compare", tmp_path / "a", tmp_path / "a", "--format", "json")[1]):
        np.testing.assert_allclose(np.diag(entry["phi"]), 1, atol=1e-6)


def test_adapters_of_models_of_different_names_are_told(tmp_path: Path, capsys: Captured) -> None:
    for name, base in (("a", "org/one"), ("b", "org/two")):
        write_peft(tmp_path / name, factors(r=2, seed=0))
        settings = tmp_path / name / "adapter_config.json"
        settings.write_text(json.dumps(json.loads(settings.read_text()) | {"base_model_name_or_path": base}))
    err = call(capsys, "compare", tmp_path / "a", tmp_path / "b", "--format", "json")[2]
    assert "They adapt models of different names: org/one and org/two." in err
    assert "different names" not in call(capsys, "compare", tmp_path / "a", tmp_path / "a", "--format", "json")[2]


def test_csv_and_markdown_say_what_json_says(tmp_path: Path, capsys: Captured) -> None:
    for name, r in (("a", 2), ("b", 3)):
        write_peft(tmp_path / name, factors(r=r, seed=r))
    command = ("compare", tmp_path / "a", tmp_path / "b")
    entries = json.loads(call(capsys, *command, "--format", "json")[1])
    rows = list(csv.DictReader(io.StringIO(call(capsys, *command, "--format", "csv")[1])))
    assert len(rows) == 4 * 2 * 3
    by_place = {(str(e["layer"]), e["weight"]): e for e in entries}
    for row in rows:
        entry, i, j = by_place[row["layer"], row["weight"]], int(row["i"]) - 1, int(row["j"]) - 1
        assert (float(row["phi"]), float(row["null"])) == (entry["phi"][i][j], entry["null"][i][j])
    out = call(capsys, *command)[1]
    assert out.count("\n| ") == 1 + 4 and "right singular vectors of A" in out
    first = entries[0]
    assert f"{first['phi'][0][0]:.3f} ({first['null'][0][0]:.3f})" in out
    assert f"{2 * first['phi'][1][2] - 2 * 3 / 24:.2f} of 2" in out


def test_directions_without_an_order_are_told(tmp_path: Path, capsys: Captured) -> None:
    A = np.eye(3, 24, dtype=np.float32) * np.array([[2], [1], [1]], np.float32)
    write_peft(tmp_path / "a", {(0, "q"): (A, np.eye(24, 3, dtype=np.float32))})
    out = call(capsys, "compare", tmp_path / "a", tmp_path / "a")[1]
    assert "directions of nearly equal singular values, of which only the span is known: layer 0 q 2 to 3." in out


def test_what_only_one_of_the_two_has_is_told(tmp_path: Path, capsys: Captured) -> None:
    write_peft(tmp_path / "a", factors(r=2, seed=0, layers=3, roles="qk"))
    write_peft(tmp_path / "b", factors(r=2, seed=0, layers=2, roles="qv"))
    code, out, err = call(capsys, "compare", tmp_path / "a", tmp_path / "b", "--format", "json")
    assert code == 0 and [(e["layer"], e["weight"]) for e in json.loads(out)] == [(0, "q"), (1, "q")]
    assert f"Only in {tmp_path}/a: model.layers.*.self_attn.k_proj (k) (3), model.layers.2.self_attn.q_proj (q)." in err
    assert f"Only in {tmp_path}/b: model.layers.*.self_attn.v_proj (v) (2)." in err


def test_an_untrained_B_has_no_directions_and_A_still_has(tmp_path: Path, capsys: Captured) -> None:
    made = factors(r=2, seed=0)
    some = {place: (A, 0 * B if place == (0, "q") else B) for place, (A, B) in made.items()}
    write_peft(tmp_path / "a", some)
    command = ("compare", tmp_path / "a", tmp_path / "a", "--format", "json")
    assert len(json.loads(call(capsys, *command)[1])) == 4
    code, out, err = call(capsys, *command, "--side", "dW-left")
    assert code == 0 and len(json.loads(out)) == 3
    assert "Zero in one of the two, so not compared: model.layers.0.self_attn.q_proj (q)." in err
    write_peft(tmp_path / "b", {place: (A, 0 * B) for place, (A, B) in made.items()})
    code, _, err = call(capsys, "compare", tmp_path / "b", tmp_path / "b", "--side", "B")
    assert code == 1 and "nothing was learned there" in err and "--side A" in err


def matrix(module: str, layer: int | None, weight: str) -> Matrix:
    def none() -> None:
        return None

    return Matrix(layer, weight, module, 8, 8, none, none)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # a classifier and a bare model: by layer and letter
        ([("bert.encoder.layer.0.x.q", 0, "q")], [("encoder.layer.0.x.q", 0, "q")], [(0, 0)]),
        # two layouts of one name
        ([("unet.a.0.to_q", None, "q")], [("lora_unet_a_0_to_q", None, "q")], [(0, 0)]),
        # one layer and letter, but of two stacks
        ([("encoder.block.0.q", 0, "q")], [("decoder.block.0.q", 0, "q")], []),
        # the second has two such matrices: the name decides
        (
            [("decoder.block.0.self.q", 0, "q")],
            [("decoder.block.0.cross.q", 0, "q"), ("decoder.block.0.self.q", 0, "q")],
            [(0, 1)],
        ),
        # names that only another separator tells apart are not taken for each other
        (
            [("m.a_b", None, "b"), ("m.a.b", None, "b")],
            [("m.a.b", None, "b"), ("m.a_b", None, "b")],
            [(0, 1), (1, 0)],
        ),
        ([("m.a_b", None, "b")], [("m.a.b", None, "b"), ("m.a-b", None, "b")], []),
        ([("m.a_b", None, "b"), ("m.a.b", None, "b")], [("m.a.b", None, "b")], [(1, 0)]),
        ([("x.self.q", 0, "q")], [("y.cross.q", 0, "q"), ("y.self.q", 0, "q")], []),
        # modules outside of layers are never paired by their last name alone
        ([("down.0.conv", None, "conv")], [("up.0.conv", None, "conv")], []),
        # the matrices of a fused layer are told apart
        ([("h.0.c_attn", 0, "q"), ("h.0.c_attn", 0, "v")], [("h.0.c_attn", 0, "v")], [(1, 0)]),
        ([("wte", None, "embed")], [("model.embed_tokens", None, "embed")], [(0, 0)]),
    ],
)  # fmt: skip
def test_matrices_belong_together_by_name_then_by_layer_and_letter(
    first: list[tuple[str, int | None, str]],
    second: list[tuple[str, int | None, str]],
    expected: list[tuple[int, int]],
) -> None:
    ours, theirs = [matrix(*each) for each in first], [matrix(*each) for each in second]
    assert [(ours.index(a), theirs.index(b)) for a, b in paired(ours, theirs)] == expected


@pytest.mark.parametrize(("r", "d_in", "d_out"), [(6, 4, 24), (6, 24, 4), (9, 4, 5), (3, 8, 8)])
def test_more_rank_than_width_is_decomposed_too(r: int, d_in: int, d_out: int) -> None:
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(r, d_in)), rng.normal(size=(d_out, r))
    update = Update(0, "q", "x", A, B, 0.5)
    s = np.linalg.svd(0.5 * B @ A, compute_uv=False)
    np.testing.assert_allclose(singular_values_of(update), s[: len(singular_values_of(update))], atol=1e-9)
    np.testing.assert_allclose(slim(update).B @ slim(update).A, B @ A, atol=1e-9)
    for side, M in ((Side.A, A.T), (Side.B, B), (Side.update_right, A.T @ B.T), (Side.update_left, B @ A)):
        U, strengths = directions_of(update, side)
        expected = np.linalg.svd(M)
        k = len(strengths)
        assert k == np.linalg.matrix_rank(M) and U.shape == (len(M), k)
        np.testing.assert_allclose(np.abs(np.diag(U.T @ expected[0][:, :k])), 1, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize(
    ("side", "deficient", "html"), [("A", False, False), ("A", False, True), ("dW-right", True, True)]
)
def test_an_adapter_of_gpt3s_size_takes_seconds_and_little_memory(
    side: str, deficient: bool, html: bool, tmp_path: Path
) -> None:
    """96 layers x 2 matrices at d = 12288, r = 8 against 64: 10 s on two cores and 2 GiB are allowed."""
    d = 12288
    block = np.random.default_rng(0).standard_normal(80 * d).astype(np.float32)
    files = [tmp_path / f"{r}.safetensors" for r in (8, 64)]
    for file, r in zip(files, (8, 64), strict=True):
        write_large(file, r, d, 96, block, deficient)
    command = [sys.executable, "-m", "analysis", "compare", *map(str, files), "--side", side, "--format", "json"]
    command += ["--html", str(tmp_path / "page.html")] * html
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    finally:
        for file in files:
            file.unlink()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    entries = json.loads(done.stdout)
    assert len(entries) == 192 and np.shape(entries[0]["phi"]) == ((4, 32) if deficient else (8, 64))
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 20
    assert after.ru_maxrss < 2**21  # KiB
    if html:
        assert (tmp_path / "page.html").stat().st_size < 3 * 2**20


def test_sides_of_the_command_line_are_those_there_are() -> None:
    assert tuple(side.value for side in Side) == SIDES and all(side.description for side in Side)


def test_adapters_are_sorted_by_layer_then_by_letter() -> None:
    given = [
        matrix("b", 1, "q"),
        matrix("e", None, "embed"),
        matrix("a", 0, "v"),
        matrix("a", 0, "q"),
        matrix("z", 0, "x"),
    ]
    ordered = Adapter("x", "made", given).matrices
    assert [(m.layer, m.weight) for m in ordered] == [(None, "embed"), (0, "q"), (0, "v"), (0, "x"), (1, "q")]
