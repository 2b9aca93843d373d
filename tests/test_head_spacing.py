"""How far apart people stand, from maps and points."""

import numpy as np
import pytest

from cmtl_jax.datasets.density_map import density_map
from cmtl_jax.head_spacing import head_spacing, together, training_range, warning


def lattice(spacing, height=480, width=640):
    y, x = np.mgrid[spacing / 2 : height : spacing, spacing / 2 : width : spacing]
    return np.stack([x.ravel(), y.ravel()], axis=1)


@pytest.mark.parametrize("spacing", [8, 12, 20, 40, 80])
def test_people_on_a_lattice_stand_its_spacing_apart(spacing):
    density = density_map(lattice(spacing), 480, 640)
    assert head_spacing(density) == pytest.approx(spacing, rel=0.2)
    even = np.full((480, 640), 1 / spacing**2)
    assert head_spacing(even) == pytest.approx(spacing, rel=1e-6)


def test_empty_ground_does_not_count():
    points = lattice(10, 100, 100)
    for height, width in ((100, 100), (1000, 1200), (203, 997)):
        assert head_spacing(density_map(points, height, width)) == pytest.approx(10, rel=0.15)


def test_it_is_the_distance_of_most_people_not_of_most_places():
    dense, sparse = lattice(10, 200, 200), lattice(50, 480, 400) + [240, 0]
    assert len(dense) > 3 * len(sparse)
    density = density_map(np.concatenate([dense, sparse]), 480, 640)
    assert head_spacing(density) == pytest.approx(10, rel=0.15)


def test_it_scales_with_the_picture():
    points = np.random.default_rng(0).uniform(0, 200, (150, 2))
    small = head_spacing(density_map(points, 200, 200))
    large = head_spacing(density_map(points * 4, 800, 800))
    assert large == pytest.approx(4 * small, rel=0.15)


def test_few_people_say_nothing():
    assert head_spacing(np.zeros((48, 64))) is None
    assert head_spacing(density_map(np.full((9, 2), 30.0), 60, 60)) is None
    assert head_spacing(density_map(np.full((11, 2), 30.0), 60, 60)) is not None
    assert head_spacing(np.full((20, 20), np.nan)) is None
    assert head_spacing(np.full((3, 1), 5.0)) > 0


def test_training_range():
    spacings = np.linspace(10, 40, 21)
    pictures = [(lattice(s), (480, 640)) for s in spacings] + [(np.zeros((0, 2)), (48, 64))]
    found = training_range(iter(pictures))
    assert found == pytest.approx({"low": 10, "median": 25, "high": 40}, rel=0.2)
    assert training_range([(np.zeros((0, 2)), (48, 64))]) is None


def test_together():
    narrow = {"low": 8.0, "median": 9.0, "high": 10.0}
    wide = {"low": 9.0, "median": 16.0, "high": 30.0}
    found = together([narrow, None, wide])
    assert found == pytest.approx({"low": 8, "median": 12, "high": 30})
    assert together([narrow]) == pytest.approx(narrow)
    assert together([None]) is None


def test_warning():
    trained = {"low": 10.0, "median": 20.0, "high": 40.0}
    assert all(warning(s, trained, 1.0) is None for s in (None, 10.0, 25.0, 40.0))
    assert warning(80.0, None, 1.0) is None
    assert "farther apart" in (text := warning(80.0, trained, 0.5)) and "--scale=0.12" in text
    assert "closer" in (text := warning(5.0, trained, 1.0)) and text.endswith("--scale=4")


def test_real_crowds_follow_the_nearest_neighbours(shared):
    """Its claim: proportional to the distance that the annotated points have."""
    spatial = pytest.importorskip("scipy.spatial")
    from PIL import Image

    from cmtl_jax.datasets import annotations

    folder = shared / "data/ShanghaiTech/part_A_final/train_data"
    pairs = []
    for i in range(1, 300, 12):
        points = annotations.read_shanghaitech(folder / f"ground_truth/GT_IMG_{i}.mat")
        with Image.open(folder / f"images/IMG_{i}.jpg") as picture:
            width, height = picture.size
        nearest = spatial.cKDTree(points).query(points, 2)[0][:, 1]
        pairs.append((head_spacing(density_map(points, height, width)), np.median(nearest)))
    found, nearest = np.log(np.array(pairs)).T
    assert np.corrcoef(found, nearest)[0, 1] > 0.95
