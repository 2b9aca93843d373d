"""Crops: size, place, what is cut out, flips and noise."""

import collections
import dataclasses
import math

import cv2
import numpy as np
import pytest
from PIL import Image

from cmtl_jax.input_pipeline import crops
from cmtl_jax.input_pipeline.batch import Crop
from cmtl_jax.input_pipeline.crops import (
    Augmentation,
    CropRule,
    augment,
    points_inside,
    random_crop,
    whole,
)
from cmtl_jax.input_pipeline.picture import Picture

QUARTER = CropRule("quarter", 0, 0)
RELEASED = CropRule("released", range="released")


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
        (RELEASED, (768, 1024), (192, 256)),
        (RELEASED, (743, 402), (176, 96)),
        (RELEASED, (127, 128), (16, 32)),
        (RELEASED, (64, 63), (16, 16)),
        (RELEASED, (5, 1), (5, 1)),
        (CropRule("fixed", 128, 160, "released"), (128, 162), (128, 160)),
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


class Recorded:
    """A generator that hands out given numbers."""

    def __init__(self, *numbers):
        self.random = iter(numbers).__next__


@pytest.mark.parametrize(("h", "w"), [(768, 1024), (743, 402), (64, 65), (199, 1023)])
def test_the_authors_positions(h, w):
    """Against their script, line by line: 1-based, by the centre of the patch."""
    numbers = np.random.default_rng(0).random((200, 2)).tolist()
    numbers += [(1e-9, 1e-9), (1 - 1e-9, 1 - 1e-9)]
    last = 0, 0
    for rand_y, rand_x in numbers:
        wn2, hn2 = 8 * math.floor(w / 8 / 8), 8 * math.floor(h / 8 / 8)
        a_w, b_w = wn2 + 1, w - wn2
        a_h, b_h = hn2 + 1, h - hn2
        x, y = (
            math.floor((b_w - a_w) * rand_x + a_w), math.floor((b_h - a_h) * rand_y + a_h)
        )  # fmt: skip
        x1, y1, x2, y2 = x - wn2, y - hn2, x + wn2 - 1, y + hn2 - 1
        place = RELEASED.place(h, w, Recorded(rand_y, rand_x))
        assert place == (y1 - 1, x1 - 1, y2 - y1 + 1, x2 - x1 + 1)
        last = max(last[0], y2), max(last[1], x2)
    assert last == (h - 2, w - 2)


def test_the_range_changes_positions_alone():
    for rule in (QUARTER, CropRule("fixed", 8, 8), CropRule("released")):
        theirs = dataclasses.replace(rule, range="released")
        places = {}
        for r in (rule, theirs):
            rng = np.random.default_rng(0)
            places[r.range] = {r.place(64, 68, rng) for _ in range(20_000)}
        h, w = rule.size(64, 68)
        assert {place[2:] for place in places["all"] | places["released"]} == {(h, w)}
        for axis, free in enumerate((64 - h, 68 - w)):
            assert {place[axis] for place in places["all"]} == set(range(free + 1))
            assert {place[axis] for place in places["released"]} == set(range(free - 1))


def test_with_centres_the_borders_are_seen_as_much_as_the_middle():
    height, width, n = 64, 68, 20_000
    seen = {}
    for name in ("all", "centres"):
        rule, rng = CropRule("fixed", 24, 16, range=name), np.random.default_rng(0)
        rows = np.zeros(height)
        for _ in range(n):
            top, left, h, w = rule.place(height, width, rng)
            assert (h, w) == (24, 16) and 0 <= top <= height - h and 0 <= left <= width - w
            rows[top : top + h] += 1 / n
        seen[name] = rows
    border, middle = slice(0, 24), slice(24, 40)
    np.testing.assert_allclose(seen["centres"][middle], 24 / 64, atol=0.02)
    for part in (border, slice(40, 64)):
        assert abs(seen["centres"][part].mean() - 24 / 64) < 0.02
        assert seen["all"][part].mean() < 0.8 * seen["all"][middle].mean()
    assert seen["centres"][0] > 5 * seen["all"][0]


def test_with_centres_a_small_picture_is_taken_whole():
    rule = CropRule("fixed", 24, 16, range="centres")
    assert rule.place(10, 9, np.random.default_rng(0)) == (0, 0, 10, 9)


def test_zoomed_crops_show_more_or_less_in_their_own_size():
    picture = make_picture()
    rule = CropRule("fixed", 16, 20, range="centres", zoom=0.5)
    rng, seen = np.random.default_rng(0), set()
    for _ in range(50):
        state = rng.bit_generator.state
        top, left, h, w = rule.place(40, 60, rng)
        rng.bit_generator.state = state
        crop = random_crop(picture, rule, rng)
        seen.add((h, w))
        assert crop.image.shape == (16, 20, picture.image.shape[2])
        assert crop.image.dtype == np.uint8 and crop.density.shape == (16, 20)
        shown = picture.density[top : top + h, left : left + w]
        np.testing.assert_allclose(crop.density.sum(), shown.sum(), rtol=1e-5)
        assert len(crop.points) == len(points_inside(picture.points, top, left, h, w))
        if len(crop.points):
            assert (crop.points >= 0).all() and (crop.points < (20, 16)).all()
    heights = [h for h, _ in seen]
    assert min(heights) < 13 and max(heights) > 20
    assert all(16 / 1.5 - 1 <= h <= 16 * 1.5 + 1 for h in heights)


def test_zoomed_crops_stay_within_a_small_picture():
    rule = CropRule("fixed", 50, 50, zoom=1.0)
    rng = np.random.default_rng(0)
    for _ in range(20):
        top, left, h, w = rule.place(40, 60, rng)
        assert top + h <= 40 and left + w <= 60 and rule.size(40, 60) == (40, 50)


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


def test_the_authors_noise_is_not_clipped():
    crop = whole(make_picture(200, 200))
    clipped, free = (
        augment(crop, Augmentation(0.5, 1, 10, clip), np.random.default_rng(0))
        for clip in (True, False)
    )
    assert free.image.max() > 255 >= clipped.image.max()
    assert np.array_equal(np.clip(free.image, 0, 255), clipped.image)
    assert np.array_equal(free.density, clipped.density)


def test_light_changes_grey_levels_alone():
    crop = whole(make_picture())
    rng = np.random.default_rng(0)
    means, spreads = [], []
    for _ in range(300):
        lit = augment(crop, Augmentation(clip=False, contrast=0.2, brightness=20), rng)
        np.testing.assert_array_equal(lit.density, crop.density)
        np.testing.assert_array_equal(lit.points, crop.points)
        means.append(lit.image.mean() - crop.image.mean())
        spreads.append(lit.image.std() / crop.image.std())
    assert -20.01 <= min(means) < -18 and 18 < max(means) <= 20.01
    assert 0.799 <= min(spreads) < 0.82 and 1.18 < max(spreads) <= 1.201
    clipped = augment(crop, Augmentation(contrast=0.2, brightness=200), np.random.default_rng(1))
    assert clipped.image.min() >= 0 and clipped.image.max() <= 255


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


@pytest.mark.parametrize("channels", [1, 3])
def test_a_crop_kept_as_jpeg_has_other_grey_levels_and_nothing_else(channels, tmp_path):
    picture = make_picture(channels=channels)
    picture = picture._replace(image=np.sort(picture.image, axis=0))  # smooth, as pictures are
    rule = CropRule("fixed", 24, 32)
    plain, kept = (
        random_crop(picture, dataclasses.replace(rule, jpeg=quality), np.random.default_rng(3))
        for quality in (0, 75)
    )
    np.testing.assert_array_equal(plain.density, kept.density)
    np.testing.assert_array_equal(plain.points, kept.points)
    assert kept.image.dtype == np.uint8 and kept.image.shape == plain.image.shape
    assert 0 < np.abs(plain.image.astype(int) - kept.image).mean() < 12
    image = plain.image if channels == 3 else plain.image[..., 0]
    Image.fromarray(image).save(tmp_path / "crop.jpg", quality=75)
    read = np.asarray(Image.open(tmp_path / "crop.jpg")).reshape(kept.image.shape)
    np.testing.assert_array_equal(kept.image, read)


def test_sharpness_is_that_of_an_unsharp_mask():
    image = np.random.default_rng(0).integers(0, 256, (21, 34, 3)).astype(np.uint8)
    smooth = cv2.GaussianBlur(image.astype(np.float32), (7, 7), 1)  # mirrored at the border, too
    for factor in (0.0, 0.4, 1.0, 1.8):
        expected = smooth + factor * (image - smooth)
        assert np.abs(crops.sharpened(image, factor) - expected).max() < 1e-3
    tiny = np.full((1, 2, 1), 7, np.uint8)
    assert np.allclose(crops.sharpened(tiny, 0.3), 7, atol=1e-5)


def test_grey_crops_have_the_levels_that_pillow_gives():
    image = np.random.default_rng(0).integers(0, 256, (21, 34, 3)).astype(np.uint8)
    grey = crops.grey_levels(image)
    assert grey.shape == (21, 34, 1) and grey.dtype == np.float32
    assert np.abs(grey[..., 0] - np.asarray(Image.fromarray(image).convert("L"))).max() < 0.51


def test_so_many_crops_are_grey_and_other_draws_stay_the_same():
    some = Augmentation(flip=0.5, noise=0.5, contrast=0.2, sharpness=0.6, grey=0.3)
    none = dataclasses.replace(some, grey=0.0)
    silent = dataclasses.replace(some, noise=0.0)
    number = 0
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    crop = Crop(image, np.zeros((6, 8), np.float32), np.zeros((0, 2), np.float32))
    for seed in range(400):
        with_it, without = (a.draw(np.random.default_rng(seed)) for a in (some, none))
        assert with_it[:5] == without[:5] and not without.grey
        number += with_it.grey
        if seed < 20:
            made = crops.augment(crop, silent, np.random.default_rng(seed)).image
            assert made.shape == image.shape and made.dtype == np.float32
            assert (np.ptp(made, axis=2).max() < 1e-3) == with_it.grey
            grey_crop = crop._replace(image=image[..., :1])
            one = crops.augment(grey_crop, silent, np.random.default_rng(seed))
            assert one.image.shape == (6, 8, 1)
    assert 95 < number < 145


def test_sharpness_is_drawn_evenly_and_leaves_other_draws_alone():
    some = Augmentation(flip=0.5, noise=0.5, contrast=0.2, sharpness=0.6)
    none = dataclasses.replace(some, sharpness=0.0)
    drawn = []
    for seed in range(400):
        with_it, without = (a.draw(np.random.default_rng(seed)) for a in (some, none))
        assert with_it[:4] == without[:4] and without.sharpness == 1
        drawn.append(with_it.sharpness)
    assert 0.4 <= min(drawn) < 0.45 and 1.55 < max(drawn) <= 1.6
    assert abs(np.mean(drawn) - 1) < 0.05
