import math

import numpy as np
import pytest
import scipy.linalg

from analysis.section7 import subspace
from analysis.section7.subspace import (
    above_edge,
    directions,
    effective_rank,
    energy,
    factor_singular_values,
    moved,
    near_equal,
    norm,
    phi_grid,
    principal_angles,
    rho,
    shared_dimensions,
    stable_rank,
    svd,
    update_directions,
    variance_of,
)
from analysis.section7.update import Update
from lora_repro.draw import normal, uniform
from lora_repro.errors import InputError

SHAPES = [(96, 40, 8), (40, 96, 8), (64, 64, 1), (32, 48, 32), (50, 7, 7)]
"""(d_in, d_out, r): wide, tall, of one direction, and of as many as the narrower side has."""


def update(A: np.ndarray, B: np.ndarray, scaling: float | None = 0.25) -> Update:
    return Update(3, "q", "layers.3.query", A, B, scaling)


def drawn(d_in: int, d_out: int, r: int, seed: int = 0, dtype: type = np.float32) -> Update:
    rng = np.random.default_rng((seed, d_in, d_out, r))
    return update(rng.standard_normal((r, d_in)).astype(dtype), rng.standard_normal((d_out, r)).astype(dtype))


def dense(of: Update) -> np.ndarray:
    scaling = 1.0 if of.scaling is None else of.scaling
    return scaling * of.B.astype(np.float64) @ of.A.astype(np.float64)


def span(d: int, *columns: int) -> np.ndarray:
    return np.eye(d)[:, list(columns)]


def orthonormal(d: int, r: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, r)))[0]


def phi_by_definition(U: np.ndarray, V: np.ndarray) -> np.ndarray:
    def cell(i: int, j: int) -> float:
        return float(np.linalg.norm(U[:, :i].T @ V[:, :j])) ** 2 / min(i, j)

    return np.array([[cell(i, j) for j in range(1, V.shape[1] + 1)] for i in range(1, U.shape[1] + 1)])


def assert_same_vectors(found: np.ndarray, reference: np.ndarray) -> None:
    """Columns agree to 1e-6 but for their signs."""
    np.testing.assert_allclose(np.abs(found.T @ reference), np.eye(found.shape[1]), atol=1e-6)


@pytest.mark.parametrize(("d_in", "d_out", "r"), SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_svd_from_factors_equals_that_of_the_dense_update(d_in: int, d_out: int, r: int, dtype: type) -> None:
    of = drawn(d_in, d_out, r, dtype=dtype)
    found = svd(of)
    U, s, vt = np.linalg.svd(dense(of), full_matrices=False)
    np.testing.assert_allclose(found.s, s[:r], rtol=1e-6)
    np.testing.assert_allclose((found.U * found.s) @ found.V.T, dense(of), atol=1e-6 * s[0])
    assert_same_vectors(found.U, U[:, :r])
    assert_same_vectors(found.V, vt[:r].T)


@pytest.mark.parametrize(("d_in", "d_out", "r"), SHAPES)
def test_directions_equal_those_of_a_dense_decomposition(d_in: int, d_out: int, r: int) -> None:
    of = drawn(d_in, d_out, r)
    assert_same_vectors(directions(of.A), np.linalg.svd(of.A.astype(np.float64), full_matrices=False)[2].T)
    assert_same_vectors(directions(of.B, "left"), np.linalg.svd(of.B.astype(np.float64), full_matrices=False)[0])
    for factor in (of.A, of.B):
        np.testing.assert_allclose(
            factor_singular_values(factor), np.linalg.svd(factor.astype(np.float64))[1], rtol=1e-6
        )


@pytest.mark.parametrize("condition", [1.0, 10.0, 0.99e4, 1.01e4, 1e7, math.inf])
def test_factors_of_any_condition_give_orthonormal_directions(condition: float) -> None:
    s = np.geomspace(1, 1 / condition, 12) if condition < math.inf else np.array([1.0] * 6 + [0.0] * 6)
    A = (orthonormal(200, 12, 0) * s @ orthonormal(12, 12, 1).T).T
    V = directions(A)
    np.testing.assert_allclose(V.T @ V, np.eye(12), atol=1e-7)
    found = svd(update(A, orthonormal(80, 12, 2), 1.0))
    np.testing.assert_allclose(found.s, s, atol=1e-7)
    np.testing.assert_allclose(found.V.T @ found.V, np.eye(12), atol=1e-7)
    np.testing.assert_allclose((found.U * found.s) @ found.V.T, orthonormal(80, 12, 2) @ A, atol=1e-7)


def test_both_ways_to_factor_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Gram matrix where it is exact enough, reflections elsewhere: the same answer, so the test looks."""
    A, calls, qr = orthonormal(60, 4, 0).T.copy(), [], scipy.linalg.qr
    monkeypatch.setattr(scipy.linalg, "qr", lambda X, **given: calls.append(X.shape) or qr(X, **given))
    directions(A)
    assert calls == []
    A[3] *= 0.5 / subspace.MAX_CONDITION
    directions(A)
    assert calls == [(60, 4)]


def test_an_update_without_scaling_is_taken_as_it_is_and_a_negative_one_turns_the_vectors() -> None:
    of = drawn(30, 20, 4)
    plain, turned = svd(of._replace(scaling=None)), svd(of._replace(scaling=-1.0))
    np.testing.assert_allclose(plain.s, svd(of._replace(scaling=1.0)).s)
    np.testing.assert_allclose(turned.s, plain.s)
    np.testing.assert_allclose((turned.U * turned.s) @ turned.V.T, -dense(of._replace(scaling=None)), atol=1e-6)


def test_an_untrained_update_is_zero_and_none_of_its_directions_are_determined() -> None:
    of = drawn(30, 20, 4)
    found = svd(of._replace(B=np.zeros_like(of.B)))
    assert found.s.tolist() == [0, 0, 0, 0]
    assert near_equal(found.s) == [range(4)]
    assert norm(found.s) == stable_rank(found.s) == effective_rank(found.s) == 0
    assert energy(found.s).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused_by_name(value: float) -> None:
    of = drawn(30, 20, 4)
    of.B[3, 2] = value
    with pytest.raises(InputError, match=r"lora_B of layers\.3\.query holds values that are not finite"):
        svd(of)
    with pytest.raises(InputError, match="not finite"):
        directions(of.B, "left")


@pytest.mark.parametrize("size", [1e-160, 1e200, 1e300])
def test_factors_whose_squares_leave_float64_are_decomposed_exactly(size: float) -> None:
    of = drawn(30, 20, 4, dtype=np.float64)
    plain, large = svd(of), svd(of._replace(A=of.A * size))
    np.testing.assert_allclose(large.s / size, plain.s, rtol=1e-12)
    np.testing.assert_allclose(phi_grid(large.V, plain.V), phi_grid(plain.V, plain.V), atol=1e-9)
    np.testing.assert_allclose(factor_singular_values(of.A * size) / size, factor_singular_values(of.A), rtol=1e-12)
    assert norm(large.s) / size == pytest.approx(norm(plain.s), rel=1e-12)
    assert stable_rank(large.s) == pytest.approx(stable_rank(plain.s), rel=1e-9)
    np.testing.assert_allclose(energy(large.s), energy(plain.s), rtol=1e-9)


def test_a_product_too_large_for_float64_is_refused_by_name() -> None:
    of = drawn(30, 20, 4, dtype=np.float64)
    with pytest.raises(InputError, match=r"B A of layers\.3\.query is too large for float64"):
        svd(of._replace(A=of.A * 1e200, B=of.B * 1e200))


@pytest.mark.parametrize("r_of_B", [5, 2, 0])
def test_one_side_of_an_update_is_that_of_its_decomposition(r_of_B: int) -> None:
    of = drawn(30, 20, 5)
    of.B[:, r_of_B:] = 0
    whole = svd(of)
    left, right = update_directions(of, "left"), update_directions(of, "right")
    np.testing.assert_array_equal(left.U, whole.U)
    np.testing.assert_array_equal(right.U, whole.V)
    assert left.s.tolist() == right.s.tolist() == whole.s.tolist()


def test_the_other_side_of_a_factor_is_refused() -> None:
    of = drawn(30, 20, 4)
    with pytest.raises(ValueError, match="side=left of a 4 x 30 matrix"):
        directions(of.A, "left")


@pytest.mark.parametrize(("d", "i", "j"), [(10, 3, 5), (64, 8, 64), (20, 1, 1), (33, 7, 2)])
def test_phi_for_all_cells_at_once_equals_its_definition(d: int, i: int, j: int) -> None:
    U, V = orthonormal(d, i, 1), orthonormal(d, j, 2)
    np.testing.assert_allclose(phi_grid(U, V), phi_by_definition(U, V), rtol=1e-12)


def test_phi_of_factors_equals_that_of_dense_updates() -> None:
    one, other = drawn(96, 40, 8, seed=1), drawn(96, 40, 16, seed=2)
    (U, _, V), (U_2, _, V_2) = svd(one), svd(other)
    dense_1, dense_2 = (np.linalg.svd(dense(of), full_matrices=False) for of in (one, other))
    np.testing.assert_allclose(phi_grid(U, U_2), phi_by_definition(dense_1[0][:, :8], dense_2[0][:, :16]), atol=1e-6)
    np.testing.assert_allclose(phi_grid(V, V_2), phi_by_definition(dense_1[2][:8].T, dense_2[2][:16].T), atol=1e-6)


def test_phi_is_1_of_identical_and_nested_subspaces_and_0_of_orthogonal_ones() -> None:
    V = orthonormal(40, 12, 0)
    np.testing.assert_allclose(phi_grid(V, V), np.ones((12, 12)), rtol=1e-12)
    np.testing.assert_allclose(phi_grid(V[:, :6], -V), np.ones((6, 12)), rtol=1e-12)
    np.testing.assert_allclose(phi_grid(V[:, :6], V[:, 6:]), np.zeros((6, 6)), atol=1e-12)


def test_phi_of_hand_made_directions() -> None:
    """u_1 lies halfway between v_1 and an axis of its own; u_2 is v_1's partner; u_3 is nobody's."""
    half = math.sqrt(0.5)
    U = np.column_stack([half * (span(6, 0) + span(6, 2)), half * (span(6, 0) - span(6, 2)), span(6, 5)])
    V = span(6, 0, 1)
    np.testing.assert_allclose(phi_grid(U, V), [[0.5, 0.5], [1.0, 0.5], [1.0, 0.5]])
    np.testing.assert_allclose(rho(U, V), [0.5, 0.5, 0.0], atol=1e-15)
    shared = [[0.5 - 1 / 6, 0.5 - 2 / 6], [1 - 2 / 6, 1 - 4 / 6], [1 - 3 / 6, 1 - 1]]
    np.testing.assert_allclose(shared_dimensions(phi_grid(U, V), 6), shared, atol=1e-15)
    np.testing.assert_allclose(principal_angles(U, V), [0, math.pi / 2], atol=1e-15)


@pytest.mark.parametrize("seed", range(20))
def test_what_must_not_matter_does_not(seed: int) -> None:
    """Of dW: (B G^-1, G A) for any G. Of all figures: the signs of vectors, and a rotation of the space."""
    rng = np.random.default_rng(seed)
    d_in, d_out, r = (int(n) for n in rng.integers((20, 20, 1), (60, 60, 12)))
    of, other = drawn(d_in, d_out, r, seed, np.float64), drawn(d_in, d_out, 5, seed + 100, np.float64)
    G = rng.standard_normal((r, r)) + 3 * np.eye(r)
    same = of._replace(A=G @ of.A, B=of.B @ np.linalg.inv(G))
    one, two, reference = svd(of), svd(same), svd(other)
    np.testing.assert_allclose(one.s, two.s, rtol=1e-9)
    signs, turn = rng.choice([-1.0, 1.0], r), orthonormal(d_in, d_in, seed)
    grid = phi_grid(one.V, reference.V)
    assert grid.min() >= 0 and grid.max() <= 1 + 1e-12
    for V in (two.V, one.V * signs):
        np.testing.assert_allclose(phi_grid(V, reference.V), grid, atol=1e-7)
        np.testing.assert_allclose(rho(V, reference.V), rho(one.V, reference.V), atol=1e-7)
        np.testing.assert_allclose(principal_angles(V, reference.V), principal_angles(one.V, reference.V), atol=1e-6)
    np.testing.assert_allclose(phi_grid(two.U, reference.U), phi_grid(one.U, reference.U), atol=1e-7)
    np.testing.assert_allclose(phi_grid(turn @ one.V, turn @ reference.V), grid, atol=1e-9)
    np.testing.assert_allclose(phi_grid(reference.V, one.V), grid.T, atol=1e-12)
    i = np.arange(1, r + 1)
    np.testing.assert_allclose(rho(one.V, reference.V).cumsum(), grid[:, -1] * np.minimum(i, 5), atol=1e-12)


@pytest.mark.parametrize(("i", "j"), [(3, 3), (2, 5), (5, 2)])
def test_principal_angles_equal_scipys(i: int, j: int) -> None:
    U, V = orthonormal(30, i, 3), orthonormal(30, j, 4)
    np.testing.assert_allclose(principal_angles(U, V), scipy.linalg.subspace_angles(U, V)[::-1], atol=1e-12)


def test_angles_too_small_for_a_cosine_are_told() -> None:
    small = 1e-9
    U = span(5, 0, 1)
    V = np.column_stack([math.cos(small) * span(5, 0) + math.sin(small) * span(5, 3), span(5, 4)])
    np.testing.assert_allclose(principal_angles(U, V), [small, math.pi / 2], rtol=1e-6)


@pytest.mark.parametrize(
    ("s", "groups"),
    [
        ([4.0, 3.0, 2.0], []),
        ([4.0, 4.0, 2.0], [range(2)]),
        ([4.0, 3.0, 2.9997, 2.9994, 1.0, 1e-5, 0.0], [range(1, 4), range(5, 7)]),
        ([2.0], []),
    ],
)
def test_singular_values_too_near_to_be_ordered_are_grouped(s: list[float], groups: list[range]) -> None:
    assert near_equal(np.array(s)) == groups


def test_rounding_of_float32_turns_no_vector_that_counts_as_determined() -> None:
    """A gap of 2 NEAR is enough for the rounding of factors to move directions by less than 1e-3."""
    s = np.array([1.0, 1 - 2 * subspace.NEAR, 0.5])
    U, V = orthonormal(300, 3, 0), orthonormal(400, 3, 1)
    exact = update(np.sqrt(s)[:, None] * V.T, U * np.sqrt(s), 1.0)
    rounded = svd(exact._replace(A=exact.A.astype(np.float32), B=exact.B.astype(np.float32)))
    assert near_equal(rounded.s) == []
    assert np.abs(np.abs((rounded.V.T @ V).diagonal()) - 1).max() < 1e-6  # 1 - cos(1e-3) = 5e-7


def test_spectra_by_hand() -> None:
    s = np.array([2.0, 1.0, 1.0])
    assert norm(s) == pytest.approx(math.sqrt(6))
    assert stable_rank(s) == 1.5 == pytest.approx(stable_rank(s[:1], whole=norm(s)))
    assert effective_rank(s) == pytest.approx(math.exp(0.5 * math.log(2) + 2 * 0.25 * math.log(4)))
    np.testing.assert_allclose(energy(s), [4 / 6, 5 / 6, 1])
    assert effective_rank(np.array([3.0, 3.0, 0.0])) == pytest.approx(2)
    assert stable_rank(np.full(5, 7.0)) == pytest.approx(5) == effective_rank(np.full(5, 7.0))


def test_moved_is_relative_to_the_start() -> None:
    A_0 = np.array([[3.0, 0.0], [0.0, 4.0]])
    A = A_0 + np.array([[0.0, 1.0], [0.0, 0.0]])
    assert moved([(A_0, A_0)]) == 0
    assert moved([(A, A_0)]) == pytest.approx(0.2)
    assert moved([(A, A_0), (A_0, A_0)]) == pytest.approx(math.sqrt(1 / 50))
    with pytest.raises(ValueError, match="A_0 is zero"):
        moved([(A_0, np.zeros((2, 2)))])


@pytest.mark.parametrize("kind", ["kaiming", "gaussian"])
@pytest.mark.parametrize("r", [8, 64])
def test_of_a_hundred_untrained_A_at_most_one_has_a_value_above_the_edge(kind: str, r: int) -> None:
    def start(seed: int) -> np.ndarray:
        if kind == "gaussian":
            return normal(seed, "A", (r, 384), 0.02)
        return uniform(seed, "A", (r, 384), 1 / math.sqrt(384))

    assert sum(above_edge(start(seed), variance_of(start(seed))) > 0 for seed in range(500)) <= 5


def test_learned_directions_above_the_edge_are_counted() -> None:
    A_0 = uniform(0, "A", (16, 384), 1 / math.sqrt(384))
    top = np.linalg.svd(A_0)[1][0]
    learned = (orthonormal(16, 3, 0) * np.array([5.0, 3.0, 2.0]) * top) @ orthonormal(384, 3, 1).T
    assert above_edge(A_0 + learned, variance_of(A_0)) == 3
    assert above_edge(A_0 + 0.01 * learned, variance_of(A_0)) == 0
    assert above_edge(A_0 + learned, 1 / (3 * 384)) == 3  # of the law, U(-b, b) with b = 1 / sqrt(384)
