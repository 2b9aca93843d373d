import pathlib
import re

import cv2
import numpy as np
import pytest

from cmtl_jax.input_pipeline import detail

ROOT = pathlib.Path(__file__).resolve().parent.parent


def crowd(height=200, width=260, channels=1, contrast=25.0, seed=0):
    """Blobs of 3 pixels on grey."""
    noise = np.random.default_rng(seed).normal(size=(height, width, channels))
    blobs = cv2.GaussianBlur(noise, (0, 0), 1.0).reshape(noise.shape)
    return np.clip(128 + contrast * blobs / max(blobs.std(), 1e-3), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("contrast", [14, 20, 30])
def test_pictures_come_to_the_level_whatever_theirs(contrast, channels):
    image = crowd(contrast=contrast, channels=channels)
    wanted = detail.level(crowd(contrast=20, channels=channels))
    found = detail.at(image, wanted)
    assert found.shape == image.shape and found.dtype == np.uint8
    assert detail.level(found) == pytest.approx(wanted, rel=1 / 6)
    # What is coarser than detail stays.
    coarse = [cv2.GaussianBlur(x.astype(np.float32), (0, 0), 8) for x in (found, image)]
    np.testing.assert_allclose(*coarse, atol=1.0)


def test_a_sky_does_not_count():
    """Three fifths of the picture without any detail leave the level of the rest."""
    image = crowd(320, 320)
    whole = detail.level(image)
    image[:192] = 200
    assert detail.level(image) == pytest.approx(whole, rel=0.1)


def test_the_factor_has_limits():
    image = crowd(contrast=12)
    smooth = cv2.GaussianBlur(
        image.astype(np.float32), (13, 13), 2, borderType=cv2.BORDER_REPLICATE
    )[..., None]
    most, least = image + (image - smooth) * 0.4, image - (image - smooth) / 2
    for wanted, limit in ((1000.0, most), (0.1, least)):
        np.testing.assert_allclose(detail.at(image, wanted), np.clip(limit, 0, 255), atol=0.51)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (31, 33), (64, 3)])
def test_any_size_and_pictures_in_one_colour(shape):
    flat = np.full((*shape, 1), 77, np.uint8)
    np.testing.assert_array_equal(detail.at(flat, 32.0), flat)
    image = crowd(*shape)
    assert detail.at(image, 32.0).shape == image.shape


@pytest.mark.parametrize("channels", [1, 3])
def test_the_page_on_export_says_the_same(channels):
    """Whoever counts with an exported file has that page alone."""
    page = (ROOT / "docs" / "export.md").read_text()
    (code,) = re.findall(r"```python\n(def with_contrast.*?)```", page, re.DOTALL)
    names = {"np": np, "cv2": cv2}
    exec(code, names)
    image = crowd(channels=channels)
    for wanted in (5.0, 12.0, 32.0):
        found = names["with_detail"](image, wanted).astype(int)
        difference = np.abs(found - detail.at(image, wanted))
        assert difference.max() <= 1 and (difference > 0).mean() < 1e-3  # sums of other precision
