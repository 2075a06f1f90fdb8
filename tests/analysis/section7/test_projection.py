import math

import numpy as np
import pytest

from analysis.items import facts_of
from analysis.section7 import projection
from analysis.section7.projection import (
    amplification,
    krylov,
    position,
    projections,
    random_projection,
    random_sign,
    sign,
    top_directions,
)
from analysis.section7.subspace import Svd, svd
from analysis.section7.update import Update
from lora_repro.errors import InputError

PAPER = facts_of("table7")
D = 12288
"""d_model of GPT-3 175B."""


def printed(r: int, of: str) -> dict[str, float]:
    return next(row for row in PAPER["rows"] if row["r"] == r and row["directions_of"] == of)


@pytest.mark.parametrize(("r", "random", "ratio"), [(4, 0.0202, 343), (64, 0.3227, 11.1)])
def test_the_papers_random_row_and_what_a_random_update_would_amplify(r: int, random: float, ratio: float) -> None:
    row = printed(r, "random")
    found = random_projection(row["norm_w_q"], r, D, D)
    assert float(f"{found:.4f}") == random
    assert round(found, 2) == pytest.approx(row["projected_norm"], abs=0.011)  # the paper drew it: .02 and .33
    assert float(f"{amplification(row['norm_delta_w_q'], found):.3g}") == ratio


@pytest.mark.parametrize(("r", "ratio", "where"), [(4, 21.6, 0.0138), (64, 1.88, 0.0422)])
def test_the_papers_amplification_and_its_position_between_random_and_own(r: int, ratio: float, where: float) -> None:
    update, own = printed(r, "delta_w_q"), printed(r, "w_q")
    projected = update["projected_norm"]
    assert amplification(update["norm_delta_w_q"], projected) == pytest.approx(ratio, abs=0.01)
    random = random_projection(update["norm_w_q"], r, D, D)
    assert position(projected, random, own["projected_norm"]) == pytest.approx(where, abs=1e-4)


def weight(d_out: int, d_in: int, s: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a matrix of these singular values, and its singular vectors."""
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((d, len(s))))[0] for d in (d_out, d_in))
    return (U * s) @ V.T, U, V


def update_of(U: np.ndarray, s: np.ndarray, V: np.ndarray) -> Update:
    return Update(0, "q", "q", V.T, U * s * 4, 0.25)


def drawn(d_out: int, d_in: int, r: int, seed: int) -> Update:
    rng = np.random.default_rng(seed)
    A, B = rng.standard_normal((r, d_in)), rng.standard_normal((d_out, r))
    return Update(0, "q", "q", A.astype(np.float32), B.astype(np.float32), 0.5)


@pytest.mark.parametrize("shape", [(48, 80), (80, 48), (64, 64)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_block_of_table_7_equals_dense_arithmetic(
    shape: tuple[int, int], dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "ROWS", 13)  # several blocks, the last one short
    W = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    update, r = drawn(*shape, r=6, seed=2), 6
    exact, dW = W.astype(np.float64), 0.5 * update.B.astype(np.float64) @ update.A.astype(np.float64)
    U, _, vt = np.linalg.svd(dW)
    found = projections(W, update, top_directions(W, r, np.random.default_rng(0)))
    projected = np.linalg.norm(U[:, :r].T @ exact @ vt[:r].T)
    own = np.linalg.norm(np.linalg.svd(exact, compute_uv=False)[:r])
    random = r * np.linalg.norm(exact) / math.sqrt(shape[0] * shape[1])
    assert found == pytest.approx(
        (
            *(r, np.linalg.norm(exact), np.linalg.norm(dW), projected, own, random),
            *(np.linalg.norm(dW) / projected, np.linalg.norm(dW) / random, (projected - random) / (own - random)),
            (dW * exact).sum() / np.linalg.norm(dW) / np.linalg.norm(exact),
            1 / math.sqrt(shape[0] * shape[1]),
        ),
        rel=1e-6,
    )


@pytest.mark.parametrize(("times", "cosine"), [(0.3, 1.0), (-0.3, -1.0)])
def test_a_norm_does_not_tell_amplifying_from_cancelling_but_the_sign_does(times: float, cosine: float) -> None:
    s = np.array([5.0, 4.0, 3.0])
    W, U, V = weight(40, 30, s)
    found = projections(W, update_of(U, times * s, V), top_directions(W, 3, np.random.default_rng(0)))
    assert found.on_update == pytest.approx(found.on_weight) == pytest.approx(math.sqrt(50))
    assert found.amplification == pytest.approx(0.3)
    assert found.position == pytest.approx(1)
    assert found.sign == pytest.approx(cosine)


def test_an_update_where_the_weight_has_nothing_is_amplified_without_bound() -> None:
    s = np.array([3.0, 2.0, 0.0, 0.0])
    W, U, V = weight(20, 20, s)
    found = projections(W, update_of(U[:, 2:], np.ones(2), V[:, 2:]), top_directions(W, 2, np.random.default_rng(0)))
    assert found.on_update < 1e-12 and found.amplification > 1e12
    assert found.position < 0
    assert found.sign == pytest.approx(0, abs=1e-12)
    assert amplification(1.0, 0.0) == math.inf


def test_fewer_directions_than_the_update_has_are_its_first() -> None:
    W = np.random.default_rng(1).standard_normal((40, 40))
    update, own = drawn(40, 40, 8, seed=3), top_directions(W, 8, np.random.default_rng(0))
    U, _, V = svd(update)
    found = projections(W, update, own, r=2)
    assert found.r == 2
    assert found.on_update == pytest.approx(np.linalg.norm(U[:, :2].T @ W @ V[:, :2]))
    assert found.on_weight == pytest.approx(np.linalg.norm(own.s[:2]))
    with pytest.raises(ValueError, match=r"r = 8 needs as many directions of W \(given: 4\)"):
        projections(W, update, Svd(own.U[:, :4], own.s[:4], own.V[:, :4]))


def test_random_projection_and_sign_are_what_random_updates_have() -> None:
    W, _, _ = weight(40, 30, np.geomspace(10, 0.1, 30))
    found, signs = [], []
    for seed in range(600):
        update = drawn(40, 30, 3, seed)
        U, _, V = svd(update)
        found.append(projection.projection(W, U, V))
        signs.append(sign(W, update))
    mean_square = np.square(found).mean()
    assert mean_square == pytest.approx(random_projection(float(np.linalg.norm(W)), 3, 40, 30) ** 2, rel=0.1)
    assert np.std(signs) == pytest.approx(random_sign(40, 30), rel=0.1)
    assert abs(np.mean(signs)) < 4 * random_sign(40, 30) / math.sqrt(600)


def test_the_sign_is_0_where_there_is_no_update() -> None:
    W = np.ones((5, 4))
    assert sign(W, drawn(5, 4, 2, 0)._replace(B=np.zeros((5, 2)))) == 0.0


SPECTRA = {
    "slow": np.arange(1.0, 301) ** -0.5,
    "fast": np.geomspace(1, 1e-8, 300),
    "pairs": np.repeat(np.geomspace(1, 0.01, 150), 2),
    "low": np.array([3.0, 2.0, 1.0] + [0.0] * 297),
}


@pytest.mark.parametrize("kind", SPECTRA)
@pytest.mark.parametrize("k", [1, 3, 20])
def test_the_block_method_finds_what_a_dense_decomposition_finds(
    kind: str, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "BLOCK", 6)
    monkeypatch.setattr(projection, "_whole", None)  # it must not be needed
    s = SPECTRA[kind]
    W, U, V = weight(400, 300, s)
    found = krylov(W, k, np.random.default_rng(5), 1e-8)
    np.testing.assert_allclose(found.s, s[:k], atol=1e-8 * s[0])
    for vectors in (found.U, found.V):
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(k), atol=1e-10)
    residual = np.linalg.norm(W.T @ found.U - found.V * found.s, axis=0)
    assert residual.max() <= 1.01e-8 * s[0]
    if kind != "pairs" and not (kind == "low" and k > 3):
        np.testing.assert_allclose(np.abs((found.V.T @ V[:, :k]).diagonal()), np.ones(k), atol=1e-6)
        np.testing.assert_allclose(np.abs((found.U.T @ U[:, :k]).diagonal()), np.ones(k), atol=1e-6)


@pytest.mark.parametrize("shape", [(300, 200), (200, 300)])
def test_top_directions_are_the_same_whole_and_by_blocks(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    W, *_ = weight(*shape, np.geomspace(1, 0.01, 200))
    whole = top_directions(W.astype(np.float32), 10, np.random.default_rng(0))
    monkeypatch.setattr(projection, "DENSE", 0)
    monkeypatch.setattr(projection, "BLOCK", 8)
    monkeypatch.setattr(projection, "_whole", None)
    blocks = top_directions(W.astype(np.float32), 10, np.random.default_rng(0))
    assert blocks.U.shape == (shape[0], 10) and blocks.V.shape == (shape[1], 10)
    np.testing.assert_allclose(blocks.s, whole.s, rtol=1e-6)
    for one, other in ((blocks.U, whole.U), (blocks.V, whole.V)):
        np.testing.assert_allclose(np.abs(one.T @ other), np.eye(10), atol=1e-4)


def test_a_flat_spectrum_that_defeats_the_block_method_is_decomposed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    W, *_ = weight(60, 60, np.linspace(1, 0.99, 60))
    found = krylov(W, 12, np.random.default_rng(0), 1e-12)
    np.testing.assert_allclose(found.s, np.linspace(1, 0.99, 60)[:12], rtol=1e-12)


@pytest.mark.parametrize(
    ("value", "k", "error"), [(math.nan, 2, InputError), (0.0, 2, InputError), (1.0, 9, ValueError)]
)
def test_weights_without_directions_and_impossible_numbers_are_refused(
    value: float, k: int, error: type[Exception]
) -> None:
    with pytest.raises(error):
        top_directions(np.full((10, 8), value), k, np.random.default_rng(0))
