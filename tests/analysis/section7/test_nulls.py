"""Bands are checked by what they promise: of a hundred new pictures from the null, one has a cell outside."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.stats

from analysis.section7.chance import unexplained
from analysis.section7.nulls import (
    Band,
    Outside,
    bands,
    expected_phi,
    gaussian_band,
    haar_blocks,
    input_pictures,
    outside,
    principal,
    rho_band,
)
from analysis.section7.subspace import directions, phi_grid, rho


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def gaussian_pair(i: int, j: int, d: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The right singular vectors of two Gaussian matrices, drawn in full."""
    U, V = (np.linalg.svd(generator.standard_normal((r, d)), full_matrices=False)[2].T for r in (i, j))
    return U, V


def is_outside(grids: list[np.ndarray], found: list[Band]) -> bool:
    return any(sum(outside(grid, band)) for grid, band in zip(grids, found, strict=True))


def test_the_expected_grid_is_max_over_d() -> None:
    np.testing.assert_allclose(expected_phi(2, 3, 12), [[1 / 12, 2 / 12, 3 / 12], [2 / 12, 2 / 12, 3 / 12]])


@pytest.mark.parametrize(("i", "j", "d"), [(3, 5, 20), (5, 3, 20), (4, 4, 9), (6, 7, 10), (10, 2, 10), (1, 1, 2)])
def test_blocks_are_distributed_as_if_both_subspaces_were_drawn(i: int, j: int, d: int) -> None:
    """Also where two subspaces must meet (i + j > d), and where one is the whole space."""
    n = 1500
    blocks = haar_blocks(i, j, d, n, rng(1))
    generator = rng(2)
    pairs = [gaussian_pair(i, j, d, generator) for _ in range(n)]
    direct = np.stack([U.T @ V for U, V in pairs])
    statistics = {
        "first": lambda M: M[:, 0, 0] ** 2,
        "last": lambda M: M[:, -1, -1] ** 2,
        "row": lambda M: (M[:, 0] ** 2).sum(1),
        "all": lambda M: (M**2).sum((1, 2)),
        "cosine": lambda M: np.linalg.svd(M, compute_uv=False)[:, -1],
        "fourth": lambda M: (M**4).sum((1, 2)),
    }
    for name, statistic in statistics.items():
        one, other = statistic(blocks), statistic(direct)
        if np.std(other) < 1e-9:
            np.testing.assert_allclose(one, other, atol=1e-9)
        else:
            assert scipy.stats.ks_2samp(one, other).pvalue > 1e-3, name  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_allclose((blocks**2).mean(0), np.full((i, j), 1 / d), atol=6 * math.sqrt(2 / n) / d)


def test_subspaces_that_must_meet_do() -> None:
    cosines = np.linalg.svd(haar_blocks(6, 7, 10, 50, rng()), compute_uv=False)
    np.testing.assert_allclose(cosines[:, :3], np.ones((50, 3)), atol=1e-10)
    assert cosines[:, 3:].max() < 1


@pytest.mark.parametrize(("i", "j"), [(0, 2), (3, 9)])
def test_more_directions_than_there_are_is_refused(i: int, j: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 8 directions"):
        haar_blocks(i, j, 8, 1, rng())


@pytest.mark.parametrize(("i", "j", "d", "grids"), [(8, 64, 384, 1), (16, 16, 64, 3), (4, 4, 6, 1)])
def test_the_gaussian_band_holds_for_all_cells_of_all_grids_in_99_of_100_pictures(
    i: int, j: int, d: int, grids: int
) -> None:
    band = gaussian_band(i, j, d, rng(3), grids)
    np.testing.assert_allclose(band.mean, expected_phi(i, j, d))
    assert (band.low <= band.mean + 1e-9).all() and (band.mean <= band.high + 1e-9).all()
    blocks = haar_blocks(i, j, d, 2000 * grids, rng(4))
    phi = np.square(blocks).cumsum(1).cumsum(2) / np.minimum.outer(np.arange(1, i + 1), np.arange(1, j + 1))
    out = ((phi > band.high) | (phi < band.low)).any((1, 2)).reshape(2000, grids).any(1).mean()
    assert 0.003 <= out <= 0.018  # three standard errors of 2000 pictures, and of the band's own draws


def test_the_gaussian_band_is_nowhere_idle() -> None:
    """No cell has a band so wide that the others pay for it: each is left by its share of pictures, corners too."""
    band = gaussian_band(8, 64, 384, rng(3))
    pointwise = scipy.stats.beta(0.5, 383 / 2)  # of phi(1, 1), the square of one coordinate
    assert 1e-6 < pointwise.sf(band.high[0, 0]) < 1e-3
    whole = np.square(haar_blocks(8, 64, 384, 4000, rng(5))).sum((1, 2)) / 8
    assert abs(band.high[-1, -1] - whole.mean()) < 6 * whole.std()
    assert (band.high < 1).all() and (band.low[-1] > 0.5 * band.mean[-1]).sum() > 30


def test_the_gaussian_band_is_that_of_the_generator() -> None:
    one, same, other = (gaussian_band(3, 4, 30, rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.high, same.high)
    assert (one.high != other.high).any()


def skewed(draws: int, generator: np.random.Generator) -> Iterator[list[np.ndarray]]:
    """Pictures of two grids with cells that depend on each other and have long tails, and one that never changes."""
    for _ in range(draws):
        shared = generator.exponential()
        first = np.clip(0.01 * (shared + generator.exponential(size=(3, 4)) ** 2), 0, 1)
        yield [first, np.append(generator.beta(0.5, 20, 5), 0.25)]


def test_bands_of_200_draws_hold_for_new_pictures_of_skewed_cells() -> None:
    """The promise is over bands and pictures: of 100 bands with 50 new pictures each, one in a hundred is outside."""
    out = []
    for seed in range(100):
        found = bands(skewed(200, rng(seed)))
        out += [is_outside(picture, found) for picture in skewed(50, rng(1000 + seed))]
    assert 0.003 <= np.mean(out) <= 0.018


def test_where_a_subspace_is_the_whole_space_nothing_is_outside() -> None:
    """Both phi and rho are 1 there, whatever is compared; rounding must not decide."""
    i, d = 4, 16
    phi_band = bands([phi_grid(*gaussian_pair(i, d, d, rng(seed)))] for seed in range(200))[0]
    exact, single = gaussian_band(i, d, d, rng()), rho_band(i, d, d)
    np.testing.assert_array_equal(single, np.ones((3, i)))
    for seed in range(1000, 1050):
        one, other = gaussian_pair(i, d, d, rng(seed))
        grid = phi_grid(one, other)[:, -1:]
        for band in (phi_band, exact):
            last = Band(*(edge[:, -1:] for edge in band))
            assert outside(grid, last) == (0, 0) and not unexplained(grid, {"null": last}).any()
        assert outside(rho(one, other), single) == (0, 0)


def test_bands_have_the_shapes_of_the_grids_and_no_width_where_nothing_varies() -> None:
    found = bands(skewed(200, rng()))
    assert [band.mean.shape for band in found] == [(3, 4), (6,)]
    assert found[1].low[-1] == pytest.approx(0.25) == found[1].high[-1]


def test_bands_of_drawn_pictures_agree_with_the_gaussian_one() -> None:
    generator = rng(7)
    pictures = ([phi_grid(*gaussian_pair(4, 6, 40, generator))] for _ in range(1500))
    drawn, exact = bands(pictures)[0], gaussian_band(4, 6, 40, rng(8))
    np.testing.assert_allclose(drawn.mean, exact.mean, rtol=0.15)
    np.testing.assert_allclose(drawn.high, exact.high, rtol=0.25)
    np.testing.assert_allclose(drawn.low, exact.low, atol=0.03)


@pytest.mark.parametrize(("draws", "enough"), [(98, False), (99, True)])
def test_too_few_draws_for_the_confidence_are_refused(draws: int, enough: bool) -> None:
    pictures = ([rng(seed).random((2, 2))] for seed in range(draws))
    if enough:
        assert len(bands(pictures)) == 1
    else:
        with pytest.raises(ValueError, match=r"A band of 0\.99 needs 99 draws \(given: 98\)"):
            bands(pictures)


def test_cells_outside_are_counted_by_side() -> None:
    band = Band(*(np.full((2, 2), value) for value in (0.2, 0.1, 0.3)))
    assert outside(np.array([[0.1, 0.3], [0.09, 0.31]]), band) == Outside(above=1, below=1)
    assert outside(np.array([[0.4, 0.5], [0.2, 0.31]]), band) == Outside(above=3, below=0)


def test_an_overlap_beyond_chance_leaves_the_bands() -> None:
    """Two subspaces of 8 and 64 that share their first direction to a half, in 384 dimensions."""
    U, V = gaussian_pair(8, 64, 384, rng(1))
    V[:, 0] = math.sqrt(0.5) * (U[:, 0] + V[:, 0])
    V = np.linalg.qr(V)[0]
    found = outside(phi_grid(U, V), gaussian_band(8, 64, 384, rng(2)))
    assert found.above > 60 and found.below == 0
    rows = rho(U, V) > rho_band(8, 64, 384).high
    assert rows.tolist() == [True] + [False] * 7


def test_the_band_of_rho_holds_for_all_directions_and_is_exact_for_one() -> None:
    i, j, d, n = 8, 64, 384, 4000
    found = np.square(haar_blocks(i, j, d, n, rng(5))).sum(2)
    band = rho_band(i, j, d)
    assert 0.003 <= ((found > band.high) | (found < band.low)).any(1).mean() <= 0.015
    assert band.mean.tolist() == [j / d] * i
    exact = scipy.stats.beta(j / 2, (d - j) / 2)
    one = rho_band(1, j, d)
    assert exact.sf(one.high[0]) == pytest.approx(0.005) == pytest.approx(exact.cdf(one.low[0]))
    wide = rho_band(i, j, d, cells=96)
    assert (wide.high > band.high).all() and (wide.low < band.low).all()


def second_moment(values: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    Q = np.linalg.qr(rng(seed).standard_normal((len(values), len(values))))[0]
    return (Q * values) @ Q.T, Q


def test_principal_directions_are_those_of_the_matrix_in_falling_order() -> None:
    values = np.array([5.0, 3.0, 1.0, 0.0])
    matrix, Q = second_moment(values)
    found = principal(matrix)
    np.testing.assert_allclose(found.values, values, atol=1e-12)
    assert (found.values >= 0).all()
    np.testing.assert_allclose(np.abs(found.directions.T @ Q), np.eye(4), atol=1e-7)


def test_with_isotropic_inputs_the_inputs_null_is_the_gaussian_one() -> None:
    found = bands(input_pictures([np.full(60, 2.0)], 4, 8, rng(), draws=800))[0]
    np.testing.assert_allclose(found.mean, expected_phi(4, 8, 60), rtol=0.15)


def test_the_inputs_null_equals_runs_drawn_from_the_second_moment_itself() -> None:
    """A = G Sigma_x^(1/2) in the inputs' own axes, by a symmetric root, against draws from the eigenvalues alone."""
    values = np.geomspace(1, 1e-3, 30)
    matrix, Q = second_moment(values)
    root = (Q * np.sqrt(values)) @ Q.T
    np.testing.assert_allclose(root @ root, matrix, atol=1e-12)
    generator = rng(1)
    direct = [phi_grid(*(directions(generator.standard_normal((r, 30)) @ root) for r in (3, 6))) for _ in range(1500)]
    ours = [picture[0] for picture in input_pictures([principal(matrix).values], 3, 6, rng(2), draws=1500)]
    standard_error = np.std(direct, axis=0) / math.sqrt(1500)
    assert (np.abs(np.mean(direct, axis=0) - np.mean(ours, axis=0)) < 5 * math.sqrt(2) * standard_error).all()
    assert np.mean(direct, axis=0)[-1, -1] > 2 * expected_phi(3, 6, 30)[-1, -1]


def test_inputs_with_one_strong_direction_make_any_two_runs_share_it() -> None:
    spectra = [np.append([1000.0], np.full(99, 0.001)), np.full(100, 1.0)]
    strong, weak = bands(input_pictures(spectra, 4, 4, rng(), draws=200))
    assert strong.low[0, 0] > 0.99
    assert weak.high[0, 0] < 0.6


def test_other_statistics_have_bands_too() -> None:
    found = bands(input_pictures([np.full(50, 1.0)], 5, 10, rng(), draws=300, statistic=rho))[0]
    np.testing.assert_allclose(found.mean, np.full(5, 0.2), atol=0.02)
    exact = rho_band(5, 10, 50)
    np.testing.assert_allclose(found.high, exact.high, atol=0.15)
