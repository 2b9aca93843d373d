"""Crops: size, place, what is cut out, flips and noise."""

import collections

import numpy as np
import pytest

from cmtl_jax.input_pipeline.batch import Crop
from cmtl_jax.input_pipeline.crops import (
    Augmentation,
    CropRule,
    augment,
    points_inside,
    random_crop,
)
from cmtl_jax.input_pipeline.pictures import Picture

QUARTER = CropRule("quarter", 0, 0)


def make_picture(height=40, width=60, heads=30, channels=1, seed=0) -> Picture:
    """Heads are the pixels of level 255 and of density 1."""
    rng = np.random.default_rng(seed)
    image = rng.integers(20, 200, (height, width, channels), np.uint8)
    pixels = rng.choice(height * width, heads, replace=False)
    rows, columns = np.divmod(pixels, width)
    image[rows, columns] = 255
    density = np.zeros((height, width), np.float32)
    density[rows, columns] = 1
    points = np.stack([columns, rows], axis=1) + rng.uniform(0, 0.99, (heads, 2))
    return Picture("picture", image, points.astype(np.float32), density)


def heads(crop: Crop) -> set[tuple[int, int]]:
    return {(int(y), int(x)) for x, y in np.floor(crop.points)}


def bright(image: np.ndarray) -> set[tuple[int, int]]:
    return set(map(tuple, np.argwhere(image[..., 0] >= 245).tolist()))


@pytest.mark.parametrize(
    ("rule", "picture", "crop"),
    [
        (QUARTER, (768, 1024), (192, 256)),
        (QUARTER, (743, 402), (185, 100)),
        (QUARTER, (3, 1), (1, 1)),
        (QUARTER, (10, 8000), (2, 2000)),
        (CropRule("fixed", 128, 160), (768, 1024), (128, 160)),
        (CropRule("fixed", 128, 160), (100, 1024), (100, 160)),
        (CropRule("fixed", 128, 160), (1, 1), (1, 1)),
    ],
)
def test_size(rule, picture, crop):
    assert rule.size(*picture) == crop
    rng = np.random.default_rng(0)
    for _ in range(20):
        top, left, h, w = rule.place(*picture, rng)
        assert (h, w) == crop
        assert 0 <= top <= picture[0] - h
        assert 0 <= left <= picture[1] - w


def test_every_place_is_equally_likely():
    rng = np.random.default_rng(0)
    rule = CropRule("fixed", 4, 4)
    seen = collections.Counter(rule.place(5, 6, rng)[:2] for _ in range(6000))
    assert set(seen) == {(top, left) for top in range(2) for left in range(3)}
    assert max(abs(n - 1000) for n in seen.values()) < 150  # five standard deviations


def test_points_belong_to_their_pixel():
    points = np.array([[2, 3], [1.99, 3], [5.99, 3], [6, 3], [2, 6.5], [2, 7]], np.float32)
    inside = points_inside(points, top=3, left=2, h=4, w=4)
    np.testing.assert_allclose(inside, [[0, 0], [3.99, 0], [0, 3.5]], atol=1e-6)
    assert points_inside(np.zeros((0, 2), np.float32), 0, 0, 4, 4).shape == (0, 2)


def test_tiles_share_the_heads_out():
    picture = make_picture()
    numbers = [
        len(points_inside(picture.points, top, left, 10, 15))
        for top in range(0, 40, 10)
        for left in range(0, 60, 15)
    ]
    assert sum(numbers) == 30


@pytest.mark.parametrize("rule", [QUARTER, CropRule("fixed", 16, 24), CropRule("fixed", 99, 99)])
def test_a_crop_is_a_part_of_the_picture_with_its_heads(rule):
    picture = make_picture(heads=200)
    for seed in range(20):
        crop = random_crop(picture, rule, np.random.default_rng(seed))
        h, w = rule.size(40, 60)
        assert crop.image.shape == (h, w, 1)
        assert crop.density.shape == (h, w)
        windows = np.lib.stride_tricks.sliding_window_view(picture.image[..., 0], (h, w))
        assert (windows == crop.image[..., 0]).all(axis=(2, 3)).sum() == 1
        assert heads(crop) == bright(crop.image)
        assert crop.density.sum() == len(crop.points)


def test_a_crop_depends_on_the_generator_alone():
    picture = make_picture()
    crops = [random_crop(picture, QUARTER, np.random.default_rng(s)) for s in (5, 5, 6)]
    assert np.array_equal(crops[0].image, crops[1].image)
    assert not np.array_equal(crops[0].image, crops[2].image)


def whole(picture: Picture) -> Crop:
    return Crop(picture.image, picture.density, picture.points)


@pytest.mark.parametrize("width", [60, 61])
def test_flip(width):
    crop = whole(make_picture(width=width))
    before = crop.points.copy()
    flipped = augment(crop, Augmentation(flip=1), np.random.default_rng(0))
    for row in range(40):
        assert flipped.image[row].tolist() == crop.image[row].tolist()[::-1]
        assert flipped.density[row].tolist() == crop.density[row].tolist()[::-1]
    assert heads(flipped) == bright(flipped.image)
    assert len(flipped.points) == len(before)
    assert np.array_equal(crop.points, before)


def test_noise():
    picture = make_picture(200, 200, channels=3)
    image = picture.image.copy()
    noisy = augment(whole(picture), Augmentation(noise=1, noise_level=10), np.random.default_rng(0))
    assert np.array_equal(picture.image, image)
    assert noisy.image.dtype == np.float32
    difference = noisy.image - image
    assert np.abs(difference).max() <= 10.001
    assert noisy.image.max() <= 255
    free = difference[(image < 245).all(axis=2)]
    assert abs(free.mean()) < 0.2
    assert free.std() == pytest.approx(10 / np.sqrt(3), rel=0.02)  # of a uniform distribution
    assert np.ptp(free, axis=1).max() < 1e-3  # the same in all colours
    assert np.array_equal(noisy.points, picture.points)
    assert np.array_equal(noisy.density, picture.density)


def test_no_augmentation_changes_nothing():
    crop = whole(make_picture())
    same = augment(crop, Augmentation(), np.random.default_rng(0))
    assert all(a is b for a, b in zip(crop, same, strict=True))


def test_probabilities():
    crop = whole(make_picture(4, 5, heads=3))
    rng = np.random.default_rng(0)
    results = [augment(crop, Augmentation(0.5, 0.25, 10), rng) for _ in range(2000)]
    flips = sum(not np.array_equal(r.density, crop.density) for r in results)
    noise = sum(r.image.dtype == np.float32 for r in results)
    assert flips == pytest.approx(1000, abs=120)  # five standard deviations
    assert noise == pytest.approx(500, abs=100)
