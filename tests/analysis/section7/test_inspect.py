"""`python -m analysis inspect`: its figures against dense matrices, its formats, and names that mean harm."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import call
from helpers.fixture_types import Captured
from helpers.handmade_adapters import factors, write_loralib, write_peft
from safetensors.numpy import load_file, save_file

from analysis.adapters import Loaded, Matrix
from analysis.foreign_text import escaped, grouped
from analysis.section7.inspection import figures
from analysis.section7.update import Update
from lora_repro.errors import shown


def test_the_figures_are_those_of_the_dense_update(tmp_path: Path, capsys: Captured) -> None:
    made = factors(r=4, seed=0)
    write_peft(tmp_path / "a", made, alpha=6)
    code, out, err = call(capsys, "inspect", tmp_path / "a", "--format", "json")
    entries = json.loads(out)
    assert (code, err) == (0, "") and [(e["layer"], e["weight"]) for e in entries] == list(made)
    assert list(entries[0]) == [
        *("layer", "weight", "module", "shape", "r", "scaling", "singular_values", "norm", "effective_rank"),
        *("energy_kept", "relative_norm", "stable_rank", "energy", "moved", "above_edge"),
        *("rounding", "rounding_edge", "above_rounding"),
    ]
    for entry, (A, B) in zip(entries, made.values(), strict=True):
        dW = 1.5 * B.astype(float) @ A.astype(float)
        s = np.linalg.svd(dW, compute_uv=False)[:4]
        np.testing.assert_allclose(entry["singular_values"], s, rtol=1e-6)
        assert entry["norm"] == pytest.approx(np.linalg.norm(dW))
        p = s / s.sum()
        assert entry["effective_rank"] == pytest.approx(np.exp(-(p * np.log(p)).sum()))
        assert (entry["r"], entry["scaling"], entry["shape"]) == (4, 1.5, [24, 24])
        assert (entry["energy_kept"], entry["relative_norm"], entry["moved"]) == (1, None, None)
        assert entry["stable_rank"] == pytest.approx((s**2).sum() / s[0] ** 2)
        np.testing.assert_allclose(entry["energy"], (s**2).cumsum() / (s**2).sum(), rtol=1e-6)


def test_without_alpha_the_scaling_is_null_and_the_figures_are_those_of_B_A(tmp_path: Path, capsys: Captured) -> None:
    made = factors(r=2, seed=0, layers=1, roles="q")
    write_loralib(tmp_path / "a.safetensors", made)
    ((A, B),) = made.values()
    for options, scaling in (((), None), (("--alpha", "5"), 2.5)):
        code, out, err = call(capsys, "inspect", tmp_path / "a.safetensors", "--format", "json", *options)
        (entry,) = json.loads(out)
        assert code == 0 and entry["scaling"] == scaling and ("Holds no alpha" in err) == (scaling is None)
        assert entry["norm"] == pytest.approx((scaling or 1) * np.linalg.norm(B @ A), rel=1e-6)


def test_csv_holds_what_json_holds(tmp_path: Path, capsys: Captured) -> None:
    write_peft(tmp_path / "a", factors(r=3, seed=0))
    entries = json.loads(call(capsys, "inspect", tmp_path / "a", "--format", "json")[1])
    rows = list(csv.DictReader(io.StringIO(call(capsys, "inspect", tmp_path / "a", "--format", "csv")[1])))
    assert len(rows) == len(entries) == 4
    for row, entry in zip(rows, entries, strict=True):
        assert (row["layer"], row["weight"], row["module"]) == (str(entry["layer"]), entry["weight"], entry["module"])
        assert (row["shape"], float(row["norm"]), row["relative_norm"]) == ("24x24", entry["norm"], "")
        assert [float(s) for s in row["singular_values"].split()] == entry["singular_values"]


def test_markdown_has_a_row_a_matrix_and_layers_and_weights_choose(tmp_path: Path, capsys: Captured) -> None:
    write_peft(tmp_path / "a", factors(r=3, seed=0, layers=6, roles="qkv"))
    out = call(capsys, "inspect", tmp_path / "a")[1]
    assert out.count("\n| ") == 1 + 18 and "PEFT folder, 18 matrices" in out and "| layer | matrix | r | scaling" in out
    chosen = call(capsys, "inspect", tmp_path / "a", "--layers", "0,2-4", "--weights", "v,q", "--format", "json")[1]
    assert [(e["layer"], e["weight"]) for e in json.loads(chosen)] == [(i, w) for i in (0, 2, 3, 4) for w in "qv"]


def test_with_a_base_the_norm_is_beside_that_of_W_0(tmp_path: Path, capsys: Captured) -> None:
    made = factors(r=2, seed=0, layers=1)
    write_peft(tmp_path / "a", made, alpha=2)
    W = {role: np.random.default_rng(i).normal(size=(24, 24)).astype(np.float32) for i, role in enumerate("qv")}
    save_file({f"model.layers.0.self_attn.{x}_proj.weight": w for x, w in W.items()}, tmp_path / "base.safetensors")
    command = ("inspect", tmp_path / "a", "--base", tmp_path / "base.safetensors")
    for entry in json.loads(call(capsys, *command, "--format", "json")[1]):
        A, B = made[0, entry["weight"]]
        expected = np.linalg.norm(B @ A) / np.linalg.norm(W[entry["weight"]])
        assert entry["relative_norm"] == pytest.approx(expected, rel=1e-6)
    assert "norm of dW / norm of W_0" in call(capsys, *command)[1]


def test_the_norm_of_W_0_is_summed_in_float64() -> None:
    """In float32 the sum of 2^24 equal squares is off in the sixth digit."""
    update = Update(0, "q", "x", np.ones((1, 4096), np.float32), np.ones((4096, 1), np.float32), 1.0)
    W_0 = np.full((4096, 4096), 0.1, np.float32)

    def none() -> None:
        return None

    at = Matrix(0, "q", "x", 4096, 4096, none, none)  # pyright: ignore[reportArgumentType]
    found = figures(at, Loaded(update, None), W_0).relative_norm
    assert found == pytest.approx(4096 / (float(np.float32(0.1)) * 4096), rel=1e-9)


def test_a_pair_of_checkpoints_says_how_much_its_first_directions_hold(tmp_path: Path, capsys: Captured) -> None:
    rng = np.random.default_rng(0)
    W, dW = (rng.normal(size=(24, 24)).astype(np.float32) for _ in range(2))
    name = "model.layers.{}.self_attn.q_proj.weight"
    save_file({name.format(0): W, name.format(1): W}, tmp_path / "base.safetensors")
    save_file({name.format(0): W + dW, name.format(1): W, "score": W}, tmp_path / "trained.safetensors")
    command = ("inspect", tmp_path / "trained.safetensors", "--base", tmp_path / "base.safetensors", "--top", "5")
    code, out, err = call(capsys, *command, "--format", "json")
    (entry,) = json.loads(out)
    s = np.linalg.svd((W + dW).astype(float) - W, compute_uv=False)
    assert code == 0 and (entry["r"], entry["scaling"]) == (5, 1)
    np.testing.assert_allclose(entry["singular_values"], s[:5], rtol=1e-6)
    assert entry["norm"] == pytest.approx(np.linalg.norm(s))
    assert entry["energy_kept"] == pytest.approx((s[:5] ** 2).sum() / (s**2).sum())
    np.testing.assert_allclose(entry["energy"], (s[:5] ** 2).cumsum() / (s**2).sum(), rtol=1e-6)
    assert entry["stable_rank"] == pytest.approx((s**2).sum() / s[0] ** 2) and entry["effective_rank"] is None
    assert (entry["moved"], entry["above_edge"]) == (None, None)
    assert "left as they are: model.layers.1.self_attn.q_proj (q)" in err and "does not hold them: score" in err
    assert "| energy in r |" in call(capsys, *command)[1]


def test_a_weight_that_is_zero_in_the_base_has_no_relative_norm(tmp_path: Path, capsys: Captured) -> None:
    """As RoBERTa's embedding of token types, and every new embedding of that kind."""
    W = np.random.default_rng(0).normal(size=(24, 24)).astype(np.float32)
    names = ("model.layers.0.self_attn.q_proj.weight", "embeddings.token_type_embeddings.weight")
    save_file({names[0]: W, names[1]: 0 * W}, tmp_path / "base.safetensors")
    save_file({names[0]: 2 * W, names[1]: W}, tmp_path / "trained.safetensors")
    command = ("inspect", tmp_path / "trained.safetensors", "--base", tmp_path / "base.safetensors")
    code, out, err = call(capsys, *command, "--format", "json")
    assert code == 0 and [entry["relative_norm"] for entry in json.loads(out)] == [pytest.approx(1), None]
    assert "No relative norms, as the base is zero there: embeddings.token_type_embeddings" in err
    assert "does not have them" not in err
    assert call(capsys, *command)[0] == 0


@pytest.mark.parametrize("start", [True, "gaussian", "orthogonal", None])
def test_values_above_the_edge_are_counted_where_the_start_is_known(
    start: bool | str | None, tmp_path: Path, capsys: Captured
) -> None:
    """PEFT's A_0 is U(-b, b) with b = 1 / sqrt(d_in), or N(0, 1 / r^2); two strong directions are put into it."""
    r, d, rng = 8, 96, np.random.default_rng(0)
    law = rng.normal(0, 1 / r, (r, d)) if start == "gaussian" else rng.uniform(-1, 1, (r, d)) / np.sqrt(d)
    top = np.linalg.norm(law, 2)
    learned = law + 5 * top * np.linalg.qr(rng.normal(size=(r, 2)))[0] @ np.linalg.qr(rng.normal(size=(d, 2)))[0].T
    B = rng.normal(size=(d, r)).astype(np.float32)
    made = {(0, "q"): (law.astype(np.float32), B), (0, "v"): (learned.astype(np.float32), B)}
    config = write_peft(tmp_path / "a", made) / "adapter_config.json"
    settings = {} if start is None else {"init_lora_weights": start}
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))
    code, out, _ = call(capsys, "inspect", tmp_path / "a", "--format", "json")
    known = start in (True, "gaussian")
    assert code == 0 and [e["above_edge"] for e in json.loads(out)] == ([0, 2] if known else [None, None])
    assert ("A above edge" in call(capsys, "inspect", tmp_path / "a")[1]) == known


def test_an_untrained_adapter_has_norm_zero(tmp_path: Path, capsys: Captured) -> None:
    made = {place: (A, 0 * B) for place, (A, B) in factors(r=2, seed=0).items()}
    write_peft(tmp_path / "a", made)
    for entry in json.loads(call(capsys, "inspect", tmp_path / "a", "--format", "json")[1]):
        assert (entry["norm"], entry["effective_rank"], entry["singular_values"]) == (0, 0, [0, 0])
        assert (entry["stable_rank"], entry["energy"]) == (0, [0, 0])


HOSTILE = (
    "<script>alert(1)</script>",
    "../../etc/passwd",
    r"\input{x} $x$ & % # _",
    "a|b`c`*d*",
    "\x1b[2J\u202egnp",
    "x" * 5000,
    '=HYPERLINK("http://x";"y")',
    "\u202e=1+1",
    "@SUM(1)",
    "+1",
    "-1",
    "\t=1",
    "\uff1d1",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_mean_harm_are_harmless(name: str, tmp_path: Path, capsys: Captured) -> None:
    A, B = factors(r=2, seed=0)[0, "q"]
    save_file({f"{name}.lora_A": A, f"{name}.lora_B": B, f"{name}.bias": A}, tmp_path / "a.safetensors")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = call(capsys, "inspect", tmp_path / "a.safetensors", "--alpha", "4")
    table = next(line for line in out.splitlines() if line.startswith("|  "))
    assert code == 0 and table.replace("\\|", "").count("|") == 11  # ten columns, whatever stands in them
    assert "<script" not in out.replace("\\<", "") and not any(c in out + err for c in "\x1b\u202e")
    assert max(map(len, (out + err).splitlines())) < 1000
    code, out, err = call(capsys, "inspect", tmp_path / "a.safetensors", "--alpha", "4", "--format", "json")
    (entry,) = json.loads(out)
    assert entry["module"] == name and not any(c in out + err for c in "\x1b\u202e")
    for command in (("inspect",), ("compare", tmp_path / "a.safetensors")):
        out = call(capsys, *command, tmp_path / "a.safetensors", "--format", "csv")[1]
        for row in csv.DictReader(io.StringIO(out)):
            assert not row["module"].startswith(tuple("=+-@\t\r\uff1d")) and row["module"].isprintable()
            assert shown(name)[:50] in row["module"]
    assert sorted(tmp_path.rglob("*")) == before


def test_words_are_cut_escaped_and_grouped() -> None:
    assert shown("a\nb\x1b[2J") == "a\\nb\\x1b[2J" and len(shown("x" * 500)) == 120
    assert escaped("<b>*x*`") == "\\<b\\>\\*x\\*\\`"
    assert grouped(["l.0.b", "l.1.b", "l.10.c", "x1"]) == "l.*.b (2), l.10.c, x1"


def test_inspect_needs_no_torch_and_no_pandas_for_safetensors(tmp_path: Path) -> None:
    import subprocess
    import sys

    write_peft(tmp_path / "a", factors(r=2, seed=0))
    command = [sys.executable, "-X", "importtime", "-m", "analysis", "inspect", str(tmp_path / "a")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "analysis.adapters" in imported and not imported & {"torch", "pandas", "transformers", "matplotlib"}
    assert load_file(tmp_path / "a" / "adapter_model.safetensors")
