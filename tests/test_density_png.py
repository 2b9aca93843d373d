"""Density maps as 16-bit PNG files."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from cmtl_jax.prediction import density_png


@pytest.mark.parametrize("top", [3e-5, 0.02, 1.0, 700.0, 1e-30])
def test_people_come_back_to_half_a_level(top):
    density = (np.random.default_rng(0).random((40, 30), np.float32) ** 4) * np.float32(top)
    scale = density_png.people_per_level(density)
    assert scale == pytest.approx(density.max() / 65535)
    back = density_png.decode(density_png.encode(density))
    assert back.shape == (40, 30) and back.dtype == np.float32
    assert np.abs(back.astype(np.float64) - density).max() <= scale * 0.51  # float32


def test_any_reader_finds_sixteen_bits_and_the_scale():
    density = np.linspace(0, 0.01, 12, dtype=np.float32).reshape(3, 4)
    data = density_png.encode(density)
    levels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert levels.dtype == np.uint16 and levels.shape == (3, 4) and levels.max() == 65535
    with Image.open(io.BytesIO(data)) as picture:
        scale = float(picture.text["people_per_level"])
    np.testing.assert_allclose(levels * scale, density, atol=scale / 2)


def test_no_people_and_less_than_none():
    assert density_png.decode(density_png.encode(np.zeros((2, 3), np.float32))).max() == 0
    back = density_png.decode(density_png.encode(np.array([[-1.0, 2.0]], np.float32)))
    np.testing.assert_allclose(back, [[0, 2]])


def test_another_png_is_none_of_ours():
    file = io.BytesIO()
    Image.new("L", (3, 3)).save(file, "PNG")
    with pytest.raises(ValueError, match="people_per_level"):
        density_png.decode(file.getvalue())
