import numpy as np

from cmtl_jax import config as base_config
from cmtl_jax.input_pipeline import contrast, detail
from cmtl_jax.input_pipeline.seen import Seen


def picture():
    return np.random.default_rng(0).integers(0, 256, (100, 130, 1), np.uint8)


def test_pictures_are_seen_as_they_are_unless_asked():
    seen = Seen.of(base_config.base().input)
    assert seen == Seen() and seen.text() == ""
    np.testing.assert_array_equal(seen.image(picture()), picture())


def test_contrast_comes_after_scaling_and_detail_after_contrast():
    settings = base_config.base().input
    settings.update(scale=0.5, contrast=40.0, detail=9.0)
    seen = Seen.of(settings)
    halves = picture().reshape(50, 2, 65, 2, 1).mean((1, 3))
    scaled = Seen(scale=0.5).image(picture())
    np.testing.assert_allclose(scaled, halves, atol=0.51)
    expected = detail.at(contrast.at(scaled, 40.0), 9.0)
    np.testing.assert_array_equal(seen.image(picture()), expected)
    assert seen.size(100, 130) == expected.shape[:2]
    assert all(word in seen.text() for word in ("0.5", "40", "level 9"))
