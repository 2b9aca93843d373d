"""Whole pictures resized as the authors' test code does."""

import numpy as np
import pytest

from cmtl_jax import config as base_config
from cmtl_jax.datasets.prepare import IndexEntry
from cmtl_jax.input_pipeline import resize
from cmtl_jax.input_pipeline.data import Data, validation_pictures, whole_pictures
from cmtl_jax.input_pipeline.picture import Picture
from cmtl_jax.input_pipeline.resize import ResizedPictures


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Plain: each pixel's centre is looked up between the four around it, edges repeated."""
    h, w = image.shape[:2]
    result = np.empty((height, width, *image.shape[2:]))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * h / height - 0.5, 0), h - 1)
            x = min(max((j + 0.5) * w / width - 0.5, 0), w - 1)
            top, left = int(y), int(x)
            below, right = min(top + 1, h - 1), min(left + 1, w - 1)
            a, b = y - top, x - left
            result[i, j] = (1 - a) * ((1 - b) * image[top, left] + b * image[top, right]) + a * (
                (1 - b) * image[below, left] + b * image[below, right]
            )
    return result


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("height, width", [(39, 50), (40, 51), (7, 4)])
def test_images_are_interpolated_between_pixel_centres(height, width, channels):
    image = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    seen = resize.image(image)
    assert seen.dtype == np.float32
    expected = bilinear(image.astype(np.float64), height // 4 * 4, width // 4 * 4)
    np.testing.assert_allclose(seen, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("shape", [(40, 64), (3, 50), (50, 1), (4, 4)])
def test_what_fits_or_is_too_small_stays_as_it_is(shape):
    image = np.zeros((*shape, 1), np.uint8)
    assert resize.image(image) is image


def test_the_sizes_are_the_next_lower_multiples_of_4():
    assert resize.size(767, 1023) == (764, 1020)
    assert resize.size(768, 1024) == (768, 1024)
    assert resize.size(4, 7) == (4, 4)
    assert resize.size(3, 7) == (3, 7)


@pytest.mark.parametrize("shape", [(36, 48), (40, 53), (39, 50), (1, 1)])
def test_density_keeps_its_sum_and_place(shape):
    rng = np.random.default_rng(0)
    density = rng.random((39, 50)).astype(np.float32)
    moved = resize.density(density, shape)
    assert moved.shape == shape and moved.dtype == np.float32
    total = density.sum(dtype=np.float64)
    assert moved.sum(dtype=np.float64) == pytest.approx(total, rel=1e-6)
    rows, columns = np.arange(39) + 0.5, np.arange(50) + 0.5
    new_rows, new_columns = np.arange(shape[0]) + 0.5, np.arange(shape[1]) + 0.5
    if min(shape) > 1:  # the centre of mass, as a share of the sides
        assert (moved.sum(1) @ new_rows) / total / shape[0] == pytest.approx(
            (density.sum(1) @ rows) / total / 39, abs=1e-3
        )
        assert (moved.sum(0) @ new_columns) / total / shape[1] == pytest.approx(
            (density.sum(0) @ columns) / total / 50, abs=1e-3
        )


def test_density_is_shared_by_the_area_of_overlap():
    density = np.array([[6.0, 3.0, 9.0]], np.float32)
    np.testing.assert_allclose(resize.density(density, (1, 2)), [[7.5, 10.5]])
    np.testing.assert_allclose(resize.density(density.T, (2, 1)), [[7.5], [10.5]])
    np.testing.assert_allclose(resize.density(density[:, :2], (1, 4)), [[3, 3, 1.5, 1.5]])


class OnePicture:
    channels = 1

    def __init__(self, picture: Picture):
        self.picture = picture
        height, width = picture.image.shape[:2]
        self.index = [IndexEntry(picture.id, height, width, len(picture.points))]

    def __len__(self):
        return 1

    def __getitem__(self, position):
        return self.picture


def test_pictures_are_resized_with_all_that_is_known_of_them():
    image = np.random.default_rng(0).integers(0, 256, (39, 51, 1), np.uint8)
    last = np.nextafter(np.float32(51), np.float32(0))
    points = np.array([[0, 0], [25.5, 13], [last, 38.999]], np.float32)
    density = np.full((39, 51), 3 / (39 * 51), np.float32)
    pictures = ResizedPictures(OnePicture(Picture("a", image, points, density)))
    assert pictures.index == [IndexEntry("a", 36, 48, 3)] and len(pictures) == 1
    picture = pictures[0]
    assert picture.image.shape == (36, 48, 1)
    np.testing.assert_allclose(picture.points[:2], [[0, 0], [24, 12]], rtol=1e-6)
    assert (np.floor(picture.points[2]) == [47, 35]).all()
    np.testing.assert_allclose(picture.density, 3 / (36 * 48), rtol=1e-5)
    np.testing.assert_array_equal(pictures.points(0), picture.points)
    twice = ResizedPictures(pictures)
    assert twice.index == pictures.index
    np.testing.assert_array_equal(twice[0].image, picture.image)


def test_the_key_is_the_reference_presets_and_is_of_whole_pictures_alone():
    resizes = {}
    for preset in base_config.PRESETS:
        config = base_config.base()
        base_config.apply_preset(config, preset)
        resizes[preset] = config.input.resize
    assert resizes == {
        "recommended": "none", "paper": "none", "reference": "multiple_of_4", "c3": "none"
    }  # fmt: skip

    image = np.zeros((39, 51, 1), np.uint8)
    picture = Picture("a", image, np.zeros((0, 2), np.float32), np.zeros((39, 51), np.float32))
    one = OnePicture(picture)
    data = Data("x", {"val": one, "train": one}, one)
    for resize_key, expected in (("none", (39, 51)), ("multiple_of_4", (36, 48))):
        config.input.resize = resize_key
        config.dataset.validate_on = "whole"
        for pictures in (whole_pictures(config, data, "val"), validation_pictures(config, data)):
            assert pictures[0].image.shape[:2] == expected
        assert data.pictures("train")[0].image.shape[:2] == (39, 51)  # what crops are cut from
