"""Head points to density maps: the authors' maps, a plain formulation, and sums."""

import itertools

import numpy as np
import pytest

from cmtl_jax import pictures
from cmtl_jax.datasets import annotations
from cmtl_jax.datasets.density_map import BORDERS, OUTSIDE, DensityRule, apply_outside, density_map
from cmtl_jax.errors import UserError

RULES = [DensityRule(border=b, outside=o) for b, o in itertools.product(BORDERS, OUTSIDE)]


def plain_density(points, height, width, rule):
    """One pixel of one head at a time, straight from the definition; points inside."""
    total = np.zeros((height, width))
    half = rule.kernel // 2
    for px, py in np.floor(points).astype(int):
        one = np.zeros((height, width))
        rows = [y for y in range(height) if abs(y - py) <= half]
        columns = [x for x in range(width) if abs(x - px) <= half]
        # The middle of the cut window, or the head itself.
        recenter = rule.border == "recenter"
        cy = (rows[0] + rows[-1]) / 2 if recenter else py
        cx = (columns[0] + columns[-1]) / 2 if recenter else px
        for y, x in itertools.product(rows, columns):
            one[y, x] = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * rule.sigma**2))
        total += one / one.sum()
    return total


@pytest.mark.parametrize("number", [1, 50, 100, 200, 300, 316])
def test_equals_the_authors_maps(shared, number):
    folder = shared / "data/ShanghaiTech/part_B_final/test_data"
    points = annotations.read_shanghaitech(folder / f"ground_truth/GT_IMG_{number}.mat")
    height, width = pictures.size(folder / f"images/IMG_{number}.jpg")
    with np.load(shared / "fixtures/authors_density.npz") as maps:
        expected = maps[f"part_B_test_IMG_{number}"]
    rule = DensityRule(kernel=15, sigma=4.0, border="recenter", outside="reference")
    found = density_map(points, height, width, rule, np.float64)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(
    ("height", "width", "kernel", "sigma"),
    [(40, 30, 15, 4.0), (20, 50, 7, 1.5), (9, 11, 15, 4.0), (1, 1, 15, 4.0), (1, 30, 9, 2.0)],
)
def test_equals_plain_formulation(border, height, width, kernel, sigma):
    rng = np.random.default_rng(height * width + kernel)
    points = rng.uniform(0, 1, (12, 2)) * [width, height]
    points = np.concatenate([points, [[0, 0], [width - 1, height - 1], [0.99, height - 0.01]]])
    rule = DensityRule(kernel=kernel, sigma=sigma, border=border)
    np.testing.assert_allclose(
        density_map(points, height, width, rule, np.float64),
        plain_density(points, height, width, rule),
        rtol=0,
        atol=1e-14,
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.slug)
def test_sum_is_the_number_of_points(rule):
    height, width = 48, 64
    rng = np.random.default_rng(0)
    cases = {
        "none": np.zeros((0, 2)),
        "one": np.array([[30.5, 20.2]]),
        "corners": np.array([[0, 0], [63.9, 0], [0, 47.9], [63.9, 47.9]]),
        "borders": np.stack([rng.uniform(0, 64, 50), np.tile([0.2, 47.5], 25)], axis=1),
        "outside": rng.uniform(-40, 120, (200, 2)),
        "same pixel": np.tile([[5.0, 5.0]], (300, 1)),
    }
    for name, points in cases.items():
        points = points.astype(np.float32)
        inside = apply_outside(points, height, width, rule.outside)
        if rule.outside != "drop":
            assert len(inside) == len(points), name
        density = density_map(points, height, width, rule)
        assert density.dtype == np.float32 and density.shape == (height, width)
        assert abs(float(density.sum()) - len(inside)) < 1e-4, name
        assert density.min() >= 0


def test_clip_renorm_keeps_the_peak_and_recenter_moves_it():
    points = np.array([[0.0, 1.0]])
    kept = density_map(points, 40, 40, DensityRule(border="clip_renorm"))
    moved = density_map(points, 40, 40, DensityRule(border="recenter"))
    assert np.unravel_index(kept.argmax(), kept.shape) == (1, 0)
    # The window is cut to 9 rows (0..8) and 8 columns (0..7): middle row 4, columns 3 and 4.
    row, column = np.unravel_index(moved.argmax(), moved.shape)
    assert row == 4 and column in (3, 4)


def test_points_outside():
    points = np.array([[-0.5, 3.0], [-3.5, 2.5], [12.0, 9.999], [5.0, 99.0], [9.5, 4.25]])
    clamp = apply_outside(points, 10, 10, "clamp")
    np.testing.assert_array_equal(clamp, [[0, 3], [0, 2.5], [9, 9.999], [5, 9], [9.5, 4.25]])
    np.testing.assert_array_equal(apply_outside(points, 10, 10, "drop"), points[-1:])
    # 1-based x of the second point: -2.5, floor -3, abs 3, so pixel 2 from 0.
    reference = apply_outside(points, 10, 10, "reference")
    np.testing.assert_array_equal(reference, [[0, 3], [2, 2.5], [9, 9.999], [5, 9], [9.5, 4.25]])


def test_slug_tells_rules_apart():
    rules = RULES + [DensityRule(kernel=13), DensityRule(sigma=4.5), DensityRule(sigma=1e-3)]
    assert len({rule.slug for rule in rules}) == len(rules)
    assert all(set(rule.slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_") for rule in rules)


@pytest.mark.parametrize(
    "fields",
    [{"kernel": 14}, {"kernel": -1}, {"sigma": 0.0}, {"border": "x"}, {"outside": "x"}],
)
def test_impossible_rules(fields):
    with pytest.raises(UserError, match=next(iter(fields))):
        DensityRule(**fields)


def test_not_finite():
    with pytest.raises(UserError, match="NaN"):
        density_map(np.array([[1.0, np.nan]]), 10, 10)
