import pathlib
import re

import numpy as np
import pytest

from cmtl_jax.input_pipeline import contrast

ROOT = pathlib.Path(__file__).resolve().parent.parent


def grey(deviation, mean=120, channels=1):
    values = np.random.default_rng(0).normal(mean, deviation, (90, 70, channels))
    return np.clip(values, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("deviation", [22, 25, 40])
def test_pictures_come_to_the_contrast_whatever_theirs(deviation, channels):
    image = grey(deviation, channels=channels)
    found = contrast.at(image, 30.0)
    assert found.shape == image.shape and found.dtype == np.uint8
    assert found.std() == pytest.approx(30, rel=0.01)
    assert found.mean() == pytest.approx(image.mean(), abs=0.5)
    # Brighter stays brighter.
    order = np.argsort(image, axis=None)
    assert (np.diff(found.ravel()[order].astype(int)) >= 0).all()


def test_the_factor_has_limits():
    image = grey(8)
    for wanted, factor in ((100.0, 1.4), (1.0, 0.5)):
        mean = image.mean()
        np.testing.assert_allclose(
            contrast.at(image, wanted), mean + (image - mean) * factor, atol=0.51
        )


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (64, 3)])
def test_pictures_in_one_colour_stay(shape):
    flat = np.full((*shape, 1), 77, np.uint8)
    np.testing.assert_array_equal(contrast.at(flat, 66.0), flat)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_page_on_export_says_the_same(channels):
    """Whoever counts with an exported file has that page alone."""
    page = (ROOT / "docs" / "export.md").read_text()
    (code,) = re.findall(r"```python\n(def with_contrast.*?)```", page, re.DOTALL)
    names = {"np": np}
    exec(code, names)
    image = grey(30, channels=channels)
    for wanted in (5.0, 25.0, 66.0):
        found = names["with_contrast"](image, wanted).astype(int)
        difference = np.abs(found - contrast.at(image, wanted))
        assert difference.max() <= 1 and (difference > 0).mean() < 1e-3  # sums of other precision
